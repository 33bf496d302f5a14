"""Quantization as sentence-transformers does it, in numpy: the protocol of operators/benches/stages.rs.

    python quantize_numpy.py POINTS.f32 DIMENSIONS int8|uint8|binary|ubinary|copy|read THREADS OUT.u8

Importing sentence-transformers needs torch (3 GB), so its arithmetic is repeated here: `quantize_embeddings` of
sentence_transformers/util/quantization.py, version 6.2, with ranges given. It runs on one thread whatever THREADS says.
`copy` and `read` tell what memory can do: they copy the points to memory that is there already, or only look at them
(for the highest), by THREADS threads.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

points, dim, precision, threads, out = sys.argv[1:]
points = np.fromfile(points, np.float32).reshape(-1, int(dim))
low, high = points.min(0), points.max(0)
pool = ThreadPoolExecutor(int(threads))
copied = np.ones_like(points)
parts = list(zip(np.array_split(copied, int(threads)), np.array_split(points, int(threads))))


def quantize():
    if precision == "copy":
        return list(pool.map(lambda part: np.copyto(*part), parts)) and copied
    if precision == "read":
        return np.array(list(pool.map(lambda part: part[1].max(), parts)))
    if precision.endswith("binary"):
        bits = np.packbits(points > 0, axis=-1)
        return bits if precision == "ubinary" else (bits - 128).astype(np.int8)
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    codes = np.clip(np.floor((points - low) / steps), 0, 255)
    return codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)


print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    codes = quantize()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
codes.tofile(out)
