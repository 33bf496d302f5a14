"""umap-learn from embeddings to 5 dimensions: the protocol of operators/benches/stages.rs.

    python umap_learn_fit.py POINTS.f32 DIMENSIONS N_NEIGHBORS THREADS OUT.f32

NUMBA_NUM_THREADS says the threads. Its code is compiled before it is ready, on points enough for every path of it.
"""

import json
import sys
import time
import warnings

import numpy as np
import umap

warnings.filterwarnings("ignore")
points, dim, neighbours, threads, out = sys.argv[1:]
points = np.fromfile(points, np.float32).reshape(-1, int(dim))


def fit(points):
    reducer = umap.UMAP(n_neighbors=int(neighbours), n_components=5, min_dist=0.0, metric="cosine", n_jobs=int(threads))
    return reducer.fit_transform(points)


fit(points[:5000])
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    places = fit(points)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
places.astype(np.float32).tofile(out)
