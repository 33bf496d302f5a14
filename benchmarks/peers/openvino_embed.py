"""OpenVINO as an embedding stage: the protocol of operators/benches/stages.rs.

    python openvino_embed.py MODEL(.onnx|.xml) TOKENIZER.json THREADS TEXTS.json OUT.f32

Texts are sorted by length and padded to the longest of a batch of 32, mean-pooled and normalised, as
sentence-transformers does.
"""

import json
import sys
import time

import numpy as np
import openvino as ov
from tokenizers import Tokenizer

model, tokenizer, threads, texts, out = sys.argv[1:]
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.no_padding()
tokenizer.enable_truncation(256)
texts = json.load(open(texts))
settings = {"INFERENCE_NUM_THREADS": int(threads), "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
network = ov.Core().compile_model(model, "CPU", settings)


def encode(batch=32):
    encodings = tokenizer.encode_batch(texts)
    lengths = np.array([len(e.ids) for e in encodings])
    order = np.argsort(-lengths)
    vectors = np.empty((len(texts), 384), np.float32)
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        ids = np.zeros((len(rows), lengths[rows[0]]), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : lengths[row]] = encodings[row].ids
            mask[i, : lengths[row]] = 1
        hidden = network({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})[0]
        weights = mask[:, :, None].astype(np.float32)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        vectors[rows] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return vectors


encode()
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    vectors = encode()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
vectors.tofile(out)
