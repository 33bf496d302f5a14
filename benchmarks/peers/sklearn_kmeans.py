"""scikit-learn's k-means, from points to centroids: the protocol of operators/benches/stages.rs.

    python sklearn_kmeans.py POINTS.f32 DIMENSIONS CLUSTERS ITERATIONS THREADS OUT.f32

ITERATIONS of Lloyd's algorithm from the first rows, or, where that is 0, one run from k-means++. OMP_NUM_THREADS and
OPENBLAS_NUM_THREADS say the threads.
"""

import json
import sys
import time
import warnings

import numpy as np
from sklearn.cluster import KMeans

points, dim, clusters, iterations, threads, out = sys.argv[1:]
points = np.fromfile(points, np.float32).reshape(-1, int(dim))
clusters, iterations = int(clusters), int(iterations)
warnings.filterwarnings("ignore", message=".*did not converge.*")


def fit():
    if iterations:
        settings = {"init": points[:clusters].copy(), "max_iter": iterations, "tol": 0}
    else:
        settings = {"init": "k-means++", "random_state": 42}
    return KMeans(clusters, n_init=1, algorithm="lloyd", **settings).fit(points)


print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    found = fit()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
found.cluster_centers_.astype(np.float32).tofile(out)
