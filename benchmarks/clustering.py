"""From embeddings to clusters: thema's UMAP beside umap-learn, its HDBSCAN beside fast_hdbscan, its k-means beside
scikit-learn, in turns.

    python benchmarks/clustering.py STAGES EMBEDDINGS.parquet WORK_FOLDER THREADS [ROUNDS] [ROWS,ROWS...]

UMAP goes from the first ROWS embeddings (by default 25,000 and 100,000; where there are fewer, as many more are made of
them by a little noise) to 5 dimensions, by 15 and 100 neighbours. Its quality is trustworthiness at 15, of 1,000 rows
among all. HDBSCAN clusters what thema's UMAP (15 neighbours) made of the first number of rows: these, a million drawn
from them with a jitter of 0.001 of the spread, and as many drawn with every second one an exact duplicate. Its quality is
the adjusted Rand index of the two systems' labels. k-means clusters the first number of embeddings: 20 iterations from
the first rows, and a run from k-means++; its quality is the inertia. Prints one JSON object for each row.
"""

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import adjusted_rand_score

from turns import medians

stages, embeddings, work, threads = sys.argv[1:5]
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 3
sizes = [int(n) for n in sys.argv[6].split(",")] if len(sys.argv) > 6 else [25_000, 100_000]
here = os.path.dirname(os.path.abspath(__file__))
os.makedirs(work, exist_ok=True)
random = np.random.default_rng(0)
names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
environment = {**os.environ, **dict.fromkeys(names, threads)}

column = pq.read_table(embeddings, columns=["embedding"])["embedding"].combine_chunks()
real = np.asarray(column.flatten(), np.float32).reshape(len(column), -1)
# Rows lie by date: a random order makes each part like the whole.
real = real[random.permutation(len(real))]


def rows_of(n):
    """The first n embeddings, and more near them where there are not so many."""
    if n <= len(real):
        return real[:n]
    more = real[random.integers(0, len(real), n - len(real))]
    points = np.concatenate([real, more + random.normal(0, 0.02, more.shape).astype(np.float32)])
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def trustworthiness(points, places, k=15, rows=1_000):
    """Venna and Kaski's measure over a sample of rows, each among all."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    n, penalty = len(points), 0
    for row in random.choice(n, rows, replace=False):
        far = -(unit @ unit[row])
        far[row] = -np.inf
        apart = ((places - places[row]) ** 2).sum(1)
        apart[row] = np.inf
        near = np.argpartition(apart, k)[:k]
        ranks = (far[None, :] < far[near][:, None]).sum(1)  # the row itself is one of those before, so ranks count from 1
        penalty += np.maximum(ranks - k, 0).sum()
    return 1 - 2 / (rows * k * (2 * n - 3 * k - 1)) * penalty


def tell(stage, setting, points, seconds, peer, quality):
    for system in seconds:
        row = {"stage": stage, "setting": setting, "system": system, "threads": int(threads), "points": points}
        row |= {"seconds": round(seconds[system], 3), "ratio": round(seconds[peer] / seconds[system], 3)}
        print(json.dumps(row | quality(system)), flush=True)


def inertia(points, centroids):
    part = lambda some: ((some**2).sum(1) - (2 * some @ centroids.T - (centroids**2).sum(1)).max(1)).sum(dtype=np.float64)
    return float(sum(part(points[first : first + 10_000]) for first in range(0, len(points), 10_000)))


points = np.ascontiguousarray(rows_of(sizes[0]), np.float32)
points.tofile(f"{work}/kmeans.f32")
cases = (("50", "20 iterations", "20"), ("50", "k-means++", "0"), ("1000", "20 iterations", "20"))
for clusters, setting, iterations in cases:
    arguments = [f"{work}/kmeans.f32", str(points.shape[1]), clusters, iterations, threads]
    engines = {
        "thema": [stages, "kmeans", *arguments, f"{work}/thema.centroids"],
        "scikit-learn": [sys.executable, f"{here}/peers/sklearn_kmeans.py", *arguments, f"{work}/scikit-learn.centroids"],
    }
    seconds = medians(engines, rounds, environment)
    centroids = {name: np.fromfile(f"{work}/{name}.centroids", np.float32).reshape(-1, points.shape[1]) for name in engines}
    quality = lambda name: {"inertia": round(inertia(points, centroids[name]), 1)}
    tell("kmeans", f"{clusters} clusters, {setting}", len(points), seconds, "scikit-learn", quality)

for n in sizes:
    points = np.ascontiguousarray(rows_of(n), np.float32)
    points.tofile(f"{work}/umap.f32")
    for neighbours in ("15", "100"):
        arguments = [f"{work}/umap.f32", str(points.shape[1]), neighbours, threads]
        engines = {
            "thema": [stages, "umap", *arguments, f"{work}/thema.places"],
            "umap-learn": [sys.executable, f"{here}/peers/umap_learn_fit.py", *arguments, f"{work}/umap-learn.places"],
        }
        seconds = medians(engines, rounds, environment, warm_up=False)
        places = {name: np.fromfile(f"{work}/{name}.places", np.float32).reshape(n, 5) for name in engines}
        quality = lambda name: {"trustworthiness": round(float(trustworthiness(points, places[name])), 4)}
        tell("umap", f"n_neighbors {neighbours}", n, seconds, "umap-learn", quality)
        if n == sizes[0] and neighbours == "15":
            reduced = places["thema"]

n = 1_000_000
drawn = reduced[random.integers(0, len(reduced), n)]
jitter = drawn + random.normal(0, 1, drawn.shape) * 0.001 * reduced.std(0)
half = jitter[: n // 20]
cases = {
    "real": reduced,
    "jittered 100,000": jitter[: n // 10],
    "jittered 1,000,000": jitter,
    "every point twice": np.concatenate([half, half]),
}
for setting, points in cases.items():
    points = np.ascontiguousarray(points, np.float32)
    points.tofile(f"{work}/hdbscan.f32")
    for method in ("eom", "leaf"):
        if len(points) == n and method == "leaf":
            continue
        arguments = [f"{work}/hdbscan.f32", "5", "100", method, threads]
        engines = {
            "thema": [stages, "hdbscan", *arguments, f"{work}/thema.labels"],
            "fast_hdbscan": [sys.executable, f"{here}/peers/fast_hdbscan_fit.py", *arguments, f"{work}/fast_hdbscan.labels"],
        }
        seconds = medians(engines, rounds, environment, warm_up=False)
        labels = {name: np.fromfile(f"{work}/{name}.labels", np.int32) for name in engines}
        agreed = round(float(adjusted_rand_score(labels["thema"], labels["fast_hdbscan"])), 4)
        quality = lambda name: {"clusters": int(labels[name].max() + 1), "ari_between": agreed}
        tell("hdbscan", f"{setting}, {method}", len(points), seconds, "fast_hdbscan", quality)
