"""Encodes all texts with fastembed, once for each line on standard input. See benches/encode.rs.

The model is the folder that retune wrote, with `onnx/model.onnx`, as a custom model: no hub is asked.
"""
import json
import sys
import time

import numpy
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

job = json.load(open(sys.argv[1], encoding="utf-8"))
TextEmbedding.add_custom_model(
    model="retune/export",
    pooling=PoolingType.MEAN,
    normalization=True,
    sources=ModelSource(hf="retune/export"),
    dim=job["dimensions"],
    model_file="onnx/model.onnx",
)
model = TextEmbedding("retune/export", specific_model_path=job["export"])

print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    vectors = list(model.embed(job["texts"], batch_size=int(sys.argv[2])))
    seconds = time.perf_counter() - began
    numpy.asarray(vectors, dtype="<f4").tofile(sys.argv[3])
    print(json.dumps({"seconds": seconds}), flush=True)
