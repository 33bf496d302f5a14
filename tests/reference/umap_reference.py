"""Writes tests/data/reference/umap_1500.{npy,json}: rows with labels, and how well umap-learn lays them out.

Made with umap-learn 0.5.12, scikit-learn 1.9.1, numpy 2.4.6. Run from the repository's root:
python tests/reference/umap_reference.py EMBEDDINGS.npy LABELS.parquet
EMBEDDINGS.npy: 5,000 x 384 all-MiniLM-L6-v2 embeddings of Debian package descriptions; LABELS.parquet: their section,
column `label`. Scores are means over three seeds.
"""

import json
import sys

import numpy as np
import pandas as pd
import umap
from sklearn.manifold import trustworthiness
from sklearn.metrics import pairwise_distances

K = 15
FITTED = 1000  # the transform cases fit on the first 1,000 rows and place the other 500
SEEDS = (1, 2, 3)
OUT = "tests/data/reference/umap_1500"

chosen = np.sort(np.random.default_rng(0).permutation(5000)[:1500])
rows = np.load(sys.argv[1])[chosen].astype(np.float16)
labels = pd.factorize(pd.read_parquet(sys.argv[2]).label)[0][chosen].astype(np.int32)
np.save(OUT + ".npy", rows)
rows = rows.astype(np.float32)


def nearest(x, y, metric, skip):
    """Returns the K nearest rows of y for each of x, without the first `skip`."""
    return np.argsort(pairwise_distances(x, y, metric=metric), axis=1, kind="stable")[:, skip : K + skip]


def agreement(near, of, among):
    return float((among[near] == of[:, None]).mean())


scores = {"labels": labels.tolist()}
for name, metric, dim, min_dist in [
    ("cosine_5d", "cosine", 5, 0.0),
    ("cosine_2d", "cosine", 2, 0.1),
    ("euclidean_5d", "euclidean", 5, 0.0),
]:
    fit, place = [], []
    for seed in SEEDS:
        settings = dict(n_neighbors=K, n_components=dim, min_dist=min_dist, metric=metric, random_state=seed)
        z = umap.UMAP(**settings).fit_transform(rows)
        near = nearest(z, z, "euclidean", 1)
        fit.append([trustworthiness(rows, z, n_neighbors=K, metric=metric), agreement(near, labels, labels)])
        model = umap.UMAP(**settings).fit(rows[:FITTED])
        near = nearest(model.transform(rows[FITTED:]), model.embedding_, "euclidean", 0)
        true = nearest(rows[FITTED:], rows[:FITTED], metric, 0)
        kept = np.mean([len(set(a) & set(b)) / K for a, b in zip(near, true)])
        place.append([float(kept), agreement(near, labels[FITTED:], labels[:FITTED])])
    fit, place = np.mean(fit, axis=0), np.mean(place, axis=0)
    scores[name] = {
        "trustworthiness": round(float(fit[0]), 4),
        "label_agreement": round(float(fit[1]), 4),
        "placed_neighbours_kept": round(float(place[0]), 4),
        "placed_label_agreement": round(float(place[1]), 4),
    }
    print(name, scores[name], flush=True)
with open(OUT + ".json", "w") as file:
    json.dump(scores, file)
    file.write("\n")
