#!/usr/bin/env python3
"""Makes reference/kmeans.json: scikit-learn's k-means on points that the tests have.

    python kmeans.py        needs numpy and scikit-learn

Of each data set and k: the labels of Lloyd's algorithm from the first k rows until nothing changes, their inertia, and
the inertias that one run from greedy k-means++ reaches with each of 20 seeds.
"""

import json
import pathlib

import numpy as np
import sklearn
from sklearn.cluster import KMeans

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "reference"
SEEDS = range(20)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


found = {"scikit-learn": sklearn.__version__}
for name, points in {
    "umap5d_5000.npy": np.load(DATA / "umap5d_5000.npy").astype(np.float32),
    "umap_1500.npy": unit(np.load(DATA / "umap_1500.npy").astype(np.float32)),
}.items():
    for k in (8, 50):
        fixed = KMeans(k, init=points[:k].copy(), n_init=1, max_iter=1000, tol=0, algorithm="lloyd").fit(points)
        seeded = [float(KMeans(k, n_init=1, random_state=seed).fit(points).inertia_) for seed in SEEDS]
        found.setdefault(name, []).append(
            {
                "k": k,
                "labels": fixed.labels_.tolist(),
                "inertia": float(fixed.inertia_),
                "iterations": int(fixed.n_iter_),
                "plus_plus": seeded,
            }
        )
(DATA / "kmeans.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
