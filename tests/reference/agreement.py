"""Writes tests/data/reference/agreement.json: labelings and scikit-learn's agreement scores for them.

Made with scikit-learn 1.9.1, numpy 2.4.6. Run from the repository's root: python tests/reference/agreement.py
"""

import json

import numpy as np
from sklearn import metrics

rng = np.random.default_rng(7)


def noisy(truth, share, classes):
    """Returns `truth` with a share of its labels drawn anew."""
    moved = rng.random(len(truth)) < share
    return np.where(moved, rng.integers(0, classes, len(truth)), truth)


truth = rng.integers(0, 6, 400)
skewed = np.minimum(rng.geometric(0.3, 400), 9)
cases = {
    "random": (truth, rng.integers(0, 4, 400)),
    "noisy": (truth, noisy(truth, 0.3, 6)),
    "skewed": (skewed, noisy(skewed, 0.5, 20)),
    "many_to_few": (rng.integers(0, 60, 400), rng.integers(0, 3, 400)),
    "outliers_as_singletons": (truth, np.where(rng.random(400) < 0.4, np.arange(100, 500), truth)),
    "equal_but_renamed": (truth, 10 - truth),
    "one_cluster_found": (truth, np.zeros(400, int)),
    "one_class_true": (np.zeros(50, int), rng.integers(0, 4, 50)),
    "one_of_each": (np.zeros(20, int), np.ones(20, int)),
    "singletons_found": (truth[:50], np.arange(50)),
    "all_singletons": (np.arange(20), np.arange(20)[::-1]),
    "worse_than_chance": (np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])),
    "two_rows": (np.array([0, 1]), np.array([0, 0])),
    "one_row": (np.array([3]), np.array([5])),
}

out = {}
for name, (a, b) in cases.items():
    out[name] = {
        "truth": a.tolist(),
        "found": b.tolist(),
        "ari": metrics.adjusted_rand_score(a, b),
        "ami": metrics.adjusted_mutual_info_score(a, b),
        "nmi": metrics.normalized_mutual_info_score(a, b),
        "homogeneity": metrics.homogeneity_score(a, b),
        "completeness": metrics.completeness_score(a, b),
        "v_measure": metrics.v_measure_score(a, b),
        "fmi": metrics.fowlkes_mallows_score(a, b),
    }

with open("tests/data/reference/agreement.json", "w") as file:
    json.dump(out, file, separators=(",", ":"))
