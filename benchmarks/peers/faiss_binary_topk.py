"""FAISS IndexBinaryFlat as a search stage: the protocol of operators/benches/stages.rs.

    python faiss_binary_topk.py POINTS.f32 DIMENSIONS QUERIES K THREADS OUT.u32

A bit is whether a value is above 0; those of the points are made before, those of the queries in the stage.
"""

import json
import sys
import time

import faiss
import numpy as np

points, dim, queries, k, threads, out = sys.argv[1:]
faiss.omp_set_num_threads(int(threads))
points = np.fromfile(points, np.float32).reshape(-1, int(dim))
index = faiss.IndexBinaryFlat(int(dim))
index.add(np.packbits(points > 0, axis=1))
queries = points[: int(queries)].copy()
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    _, found = index.search(np.packbits(queries > 0, axis=1), int(k))
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
found.astype(np.uint32).tofile(out)
