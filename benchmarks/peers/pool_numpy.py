"""Pooling in numpy, over texts of equal length: the protocol of operators/benches/stages.rs.

    python pool_numpy.py POINTS.f32 DIMENSIONS TOKENS mean|max OUT.f32

It runs on one thread.
"""

import json
import sys
import time

import numpy as np

points, dim, tokens, pooling, out = sys.argv[1:]
texts = np.fromfile(points, np.float32).reshape(-1, int(tokens), int(dim))
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    pooled = texts.mean(1) if pooling == "mean" else texts.max(1)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
pooled.tofile(out)
