#!/usr/bin/env python3
"""Checks that sentence-transformers, and ONNX Runtime with the exported graph, give the embeddings that retune gives.

Needs: pip install sentence-transformers onnxruntime
Usage: tests/check_export.py MODEL_DIR [--retune target/release/retune] [--texts FILE] [--tolerance 1e-5]

MODEL_DIR is what the stage `train` yields, for example runs/…/artifacts/tuned/model; one without `onnx/model.onnx` is compared with
sentence-transformers alone. FILE has one text a line; without it,
texts of several lengths and scripts are used. Exit status 1 when a component differs by more than the tolerance.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy

TEXTS = [
    "What is BERT and how does it work?",
    "How does a container differ from a virtual machine?",
    "PATCH /users/42 HTTP/1.1",
    "e",
    "naïve café — “quotes”, 東京, Ελληνικά, 🙂",
    "The embedding of a sentence is the mean of the embeddings of its tokens. " * 40,
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--retune", default=str(Path(__file__).parent.parent / "target/release/retune"))
    arguments.add_argument("--texts", type=Path)
    arguments.add_argument("--tolerance", type=float, default=1e-5)
    options = arguments.parse_args()
    texts = options.texts.read_text().splitlines() if options.texts else TEXTS

    process = subprocess.run(
        [options.retune, "encode", str(options.model)], input="\n".join(texts) + "\n", capture_output=True, text=True, check=True
    )
    ours = numpy.array([json.loads(line) for line in process.stdout.splitlines()], dtype=numpy.float64)

    import sentence_transformers

    version = f"sentence-transformers {sentence_transformers.__version__}"
    theirs = {version: with_sentence_transformers(options.model, texts)}
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: onnx/model.onnx is not checked")
    else:
        if (options.model / "onnx/model.onnx").exists():
            theirs[f"onnx/model.onnx on onnxruntime {onnxruntime.__version__}"] = with_onnx(options.model, texts)

    worst = 0.0
    for name, vectors in theirs.items():
        if vectors.shape != ours.shape:
            sys.exit(f"{name}: shape {vectors.shape} instead of {ours.shape}")
        off = float(numpy.abs(ours - vectors).max())
        worst = max(worst, off)
        print(f"{name}: {len(texts)} texts, {vectors.shape[1]} dimensions, largest difference of a component {off:.1e}")
    if worst > options.tolerance:
        sys.exit(f"more than {options.tolerance:g}")
    print(f"the same within {options.tolerance:g}")


def with_sentence_transformers(model, texts):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model), device="cpu").encode(texts, batch_size=1).astype(numpy.float64)


def with_onnx(model, texts):
    """The graph yields token vectors; what follows the encoder is sentence-transformers' own."""
    import onnxruntime
    import torch
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(model), device="cpu")
    encoder, *modules = reference
    session = onnxruntime.InferenceSession(str(model / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    prompt = reference.prompts.get(reference.default_prompt_name)
    rows = []
    for text in texts:
        batch = encoder.preprocess([text], prompt=prompt)
        inputs = {"token_type_ids": torch.zeros_like(batch["input_ids"]), **batch}
        hidden = session.run(None, {i.name: inputs[i.name].numpy() for i in session.get_inputs()})[0]
        features = {**batch, "token_embeddings": torch.from_numpy(hidden)}
        with torch.no_grad():
            for module in modules:
                features = module(features)
        rows.append(features["sentence_embedding"][0].numpy())
    return numpy.array(rows, dtype=numpy.float64)


if __name__ == "__main__":
    main()
