"""fast_hdbscan, from points to labels: the protocol of operators/benches/stages.rs.

    python fast_hdbscan_fit.py POINTS.f32 DIMENSIONS MIN_CLUSTER_SIZE eom|leaf THREADS OUT.i32

NUMBA_NUM_THREADS says the threads. Its code is compiled before it is ready.
"""

import json
import sys
import time

import fast_hdbscan
import numpy as np

points, dim, size, method, threads, out = sys.argv[1:]
points = np.fromfile(points, np.float32).reshape(-1, int(dim))


def fit(points):
    clusterer = fast_hdbscan.HDBSCAN(min_cluster_size=int(size), cluster_selection_method=method)
    return clusterer.fit_predict(points)


fit(points[:5000])
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    labels = fit(points)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
labels.astype(np.int32).tofile(out)
