"""Writes tests/data/reference/dbcv.json: DBCV of clusterings of umap5d_5000.npy, and of points in 384 dimensions.

Made with hdbscan 0.8.44 and numpy. Run from the repository's root: python tests/reference/dbcv.py
In 384 dimensions the library's powers end in zero; there the sum over distances is taken of logarithms instead, and
the rest is the library's.
"""

import json

import hdbscan.validity as validity
import numpy as np
import pandas as pd
from scipy.special import logsumexp

FOLDER = "tests/data/reference"
points = np.load(f"{FOLDER}/umap5d_5000.npy").astype(np.float64)
table = pd.read_parquet(f"{FOLDER}/hdbscan_5000.parquet")
found = {
    name: float(validity.validity_index(points, table[name].to_numpy().astype(np.intp), metric="euclidean"))
    for name in ("label_mcs15_eom", "label_mcs15_leaf", "label_mcs50_eom", "label_mcs50_leaf", "label_mcs100_leaf")
}


def core_distance(distances, d=2.0):
    logs = np.where(distances > 0, -d * np.log(np.where(distances > 0, distances, 1)), -np.inf)
    return np.exp(-(logsumexp(logs, axis=1) - np.log(len(distances) - 1)) / d)


validity.all_points_core_distance = core_distance
wide = np.load(f"{FOLDER}/umap_1500.npy").astype(np.float64)
labels = np.array(json.load(open(f"{FOLDER}/umap_1500.json"))["labels"], dtype=np.intp)
sizes = np.bincount(labels)
# Small clusters have no inner points, which the library cannot do.
kept = [label for label in range(len(sizes)) if sizes[label] >= 10]
labels = np.array([kept.index(label) if label in kept else -1 for label in labels], dtype=np.intp)
found["umap_1500"] = float(validity.validity_index(wide, labels, metric="euclidean"))
again = float(validity.validity_index(points, table.label_mcs50_eom.to_numpy().astype(np.intp), metric="euclidean"))
assert abs(again - found["label_mcs50_eom"]) < 1e-9
with open(f"{FOLDER}/dbcv.json", "w") as file:
    json.dump(found, file, indent=1)
    file.write("\n")
