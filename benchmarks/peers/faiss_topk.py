"""FAISS IndexFlatIP as a search stage: the protocol of operators/benches/stages.rs.

    python faiss_topk.py POINTS.f32 DIMENSIONS QUERIES K THREADS OUT.u32
"""

import json
import sys
import time

import faiss
import numpy as np

points, dim, queries, k, threads, out = sys.argv[1:]
faiss.omp_set_num_threads(int(threads))
points = np.fromfile(points, np.float32).reshape(-1, int(dim))
index = faiss.IndexFlatIP(int(dim))
index.add(points)
queries = points[: int(queries)].copy()
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    _, found = index.search(queries, int(k))
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
found.astype(np.uint32).tofile(out)
