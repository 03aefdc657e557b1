"""Encodes all texts with sentence-transformers, once for each line on standard input. See benches/encode.rs."""
import contextlib
import json
import sys
import time

import numpy
import torch
from sentence_transformers import SentenceTransformer

job = json.load(open(sys.argv[1], encoding="utf-8"))
bf16 = sys.argv[2] == "bf16"
model = SentenceTransformer(job["model"], device="cpu")
model.max_seq_length = job["max_seq_length"]

print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
        vectors = model.encode(job["texts"], show_progress_bar=False)
    seconds = time.perf_counter() - began
    numpy.asarray(vectors, dtype="<f4").tofile(sys.argv[3])
    print(json.dumps({"seconds": seconds}), flush=True)
