"""Training steps of sentence-transformers, one for each line on standard input. See benches/train.rs.

The work of its trainer without the trainer: texts are tokenized before the clock starts, AdamW is the fused one.
"""
import contextlib
import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss, TripletLoss

job = json.load(open(sys.argv[1], encoding="utf-8"))
bf16 = sys.argv[2] == "bf16"
torch.manual_seed(job["seed"])
model = SentenceTransformer(job["model"], device="cpu")
model.max_seq_length = job["max_seq_length"]
if job["dropout"] is not None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = job["dropout"]
encoder = model[0].auto_model
for name, parameter in encoder.named_parameters():
    match job["train"]:
        case {"last_layers": count}:
            layers = len(encoder.encoder.layer)
            parameter.requires_grad = any(name.startswith(f"encoder.layer.{i}.") for i in range(layers - count, layers))
        case {"except": parts}:
            parameter.requires_grad = not any(name.startswith(f"{part}.") for part in parts)
if job["loss"]["name"] == "triplet":
    loss = TripletLoss(model, triplet_margin=job["loss"]["margin"])
else:
    loss = MultipleNegativesRankingLoss(model, scale=job["loss"]["scale"])

named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
decayed = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=job["lr"], fused=True)
total = len(job["batches"])
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (total - step) / total)
model.train()

print("ready", flush=True)
for _, rows in zip(sys.stdin, job["batches"]):
    features = [model.preprocess([job["rows"][r][c] for r in rows]) for c in range(len(job["rows"][0]))]
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
        value = loss(features, None)
    value.backward()
    torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()
    result = value.item()
    print(json.dumps({"seconds": time.perf_counter() - began, "loss": result}), flush=True)
