"""Exact search: thema beside FAISS IndexFlatIP and IndexBinaryFlat, warm processes interleaved on the same points and threads.

    python benchmarks/search.py STAGES EMBEDDINGS.parquet WORK_FOLDER THREADS [ROUNDS]

Takes 100,000 unit vectors: those of the column `embedding`, and as many more as are missing made of them by a little
noise. 2,000 queries, k of 1, 10 and 100. Prints one JSON object for each engine: the median seconds, queries a second, the
ratio to FAISS (by bits for bits, else in float32), and recall against its float32; for bits also in how many places the
distance is the one that FAISS finds there, since which of equally distant rows comes first is free.
"""

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq

from turns import medians

ROWS, QUERIES = 100_000, 2_000
stages, embeddings, work, threads = sys.argv[1:5]
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
here = os.path.dirname(os.path.abspath(__file__))
os.makedirs(work, exist_ok=True)

real = np.stack(pq.read_table(embeddings, columns=["embedding"])["embedding"].to_numpy())[:ROWS]
random = np.random.default_rng(0)
more = real[random.integers(0, len(real), ROWS - len(real))]
more = more + random.normal(0, 0.02, more.shape).astype(np.float32)
points = np.concatenate([real, more]).astype(np.float32)
points /= np.linalg.norm(points, axis=1, keepdims=True)
dim = str(points.shape[1])
points.tofile(f"{work}/points.f32")
bits = np.packbits(points > 0, axis=1)


def distances(found):
    return np.stack([np.bitwise_count(bits[i] ^ bits[rows]).sum(1) for i, rows in enumerate(found)])


for k in ("1", "10", "100"):
    shape = [f"{work}/points.f32", dim, str(QUERIES), k]
    engines = {
        "faiss float32": [sys.executable, f"{here}/peers/faiss_topk.py", *shape, threads],
        "faiss binary": [sys.executable, f"{here}/peers/faiss_binary_topk.py", *shape, threads],
        **{f"thema {p}": [stages, "topk", *shape, p, threads] for p in ("float32", "int8", "binary")},
    }
    outputs = {name: f"{work}/{name.replace(' ', '_')}.u32" for name in engines}
    median = medians({name: [*command, outputs[name]] for name, command in engines.items()}, rounds)
    found = {name: np.fromfile(path, np.uint32).reshape(QUERIES, -1) for name, path in outputs.items()}
    nearest_bits = distances(found["faiss binary"])
    for name in engines:
        system, precision = name.split(" ")
        peer = "faiss binary" if precision == "binary" else "faiss float32"
        pairs = zip(found[name], found["faiss float32"])
        row = {
            "stage": "search",
            "system": system,
            "precision": precision,
            "threads": int(threads),
            "points": ROWS,
            "k": int(k),
            "seconds": round(median[name], 4),
            "queries_per_second": round(QUERIES / median[name]),
            "ratio": round(median[peer] / median[name], 3),
            "recall": round(float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in pairs])), 4),
        }
        if precision == "binary":
            row["same_distances"] = round(float(np.mean(distances(found[name]) == nearest_bits)), 4)
        print(json.dumps(row))
