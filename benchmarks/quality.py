"""Topics against known labels: thema beside umap-learn and hdbscan, on the same embeddings.

    python benchmarks/quality.py THEMA FOLDER NAME:TEXT_TEMPLATE:LABEL_COLUMN:eom|leaf ...

THEMA is the program; FOLDER holds NAME.parquet with a column `embedding` (made by `thema embed`). Rows are shuffled
(seed 0), both pipelines are fitted on the first 80 % and label the rest. Needs numpy, pandas, pyarrow, scikit-learn,
umap-learn, hdbscan. Prints one JSON object a row: ARI and AMI on all rows (outliers as singletons) and on
those in a topic, outlier share, NPMI (documents as windows) and topic diversity of unigram c-TF-IDF words, computed by
the same code for both.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import hdbscan
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import umap
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

MIN_CLUSTER_SIZE = 50


def agreement(truth, topics):
    inside = topics >= 0
    apart = topics.copy()
    apart[~inside] = np.arange(topics.max() + 1, topics.max() + 1 + (~inside).sum())
    return {
        "topics": int(topics.max() + 1),
        "outliers": round(float((~inside).mean()), 4),
        "ari_all": round(adjusted_rand_score(truth, apart), 4),
        "ari_in": round(adjusted_rand_score(truth[inside], topics[inside]), 4),
        "ami_all": round(adjusted_mutual_info_score(truth, apart), 4),
        "ami_in": round(adjusted_mutual_info_score(truth[inside], topics[inside]), 4),
    }


def words(texts, topics):
    counter = CountVectorizer(stop_words="english", min_df=3)
    present = (counter.fit_transform(texts) > 0).astype(np.float32).tocsc()
    ids = sorted(set(topics[topics >= 0]))
    joined = [" ".join(texts[topics == t]) for t in ids]
    counts = CountVectorizer(vocabulary=counter.vocabulary_).transform(joined).toarray().astype(np.float64)
    average = int(counts.sum(1).mean())
    weights = counts / counts.sum(1, keepdims=True) * np.log(1 + average / np.maximum(counts.sum(0), 1))
    top = np.argsort(-weights, axis=1)[:, :10]
    scores = []
    for t in top:
        block = present[:, t]
        both = (block.T @ block).toarray() / len(texts)
        p = both.diagonal()
        pairs = [(i, j) for i in range(10) for j in range(i)]
        npmi = [
            np.log(both[i, j] / (p[i] * p[j])) / -np.log(both[i, j]) if 0 < both[i, j] < 1 else -1 for i, j in pairs
        ]
        scores.append(np.mean(npmi))
    return {"npmi": round(float(np.mean(scores)), 4), "diversity": round(len(set(top.ravel())) / top.size, 4)}


def thema(program, path, split, template, folder, seed, method):
    started = time.time()
    run = lambda *args: subprocess.run([program, *args], check=True, capture_output=True, text=True)
    model, out = f"{folder}/model", f"{folder}/labelled.parquet"
    size = str(MIN_CLUSTER_SIZE)
    run("fit", "--input", path, "--rows", f"0..{split}", "--embeddings", "embedding", "--text", template, "--id", "row",
        "--min-cluster-size", size, "--method", method, "--seed", str(seed), "--out", model)
    fitted = time.time() - started
    # The sample is ordered by hash, so each row's topic is looked up by its id.
    sample = pq.read_table(f"{model}/v1/sample.parquet").to_pandas()
    sample["id"] = sample["id"].astype(int)
    fit_topics = sample.sort_values("id")["topic"].to_numpy()
    run("label", "--input", path, "--rows", f"{split}..", "--model", model, "--out", out)
    new_topics = pq.read_table(out)["topic"].to_numpy()
    return fit_topics, new_topics, fitted, time.time() - started - fitted


def reference(embeddings, split, seed, method):
    started = time.time()
    reducer = umap.UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=seed)
    points = reducer.fit_transform(embeddings[:split])
    clusterer = hdbscan.HDBSCAN(
        min_cluster_size=MIN_CLUSTER_SIZE,
        cluster_selection_method=method,
        prediction_data=True,
        approx_min_span_tree=False,
    ).fit(points)
    fitted = time.time() - started
    new, _ = hdbscan.approximate_predict(clusterer, reducer.transform(embeddings[split:]))
    return clusterer.labels_, new, fitted, time.time() - started - fitted


def main():
    program, data = sys.argv[1:3]
    for spec in sys.argv[3:]:
        name, template, label, method = spec.rsplit(":", 3)
        table = pq.read_table(f"{data}/{name}.parquet").to_pandas()
        table = table.sample(frac=1, random_state=0).reset_index(drop=True)
        table["row"] = [f"{i:08d}" for i in range(len(table))]
        embeddings = np.stack(table["embedding"].to_numpy()).astype(np.float32)
        texts = np.array([template.format(**r) for r in table[[c for c in table if c != "embedding"]].to_dict("records")])
        truth, split = table[label].to_numpy(), int(len(table) * 0.8)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/rows.parquet"
            keep = table.drop(columns=["embedding"])
            arrays = pa.Table.from_pandas(keep).append_column(
                "embedding", pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
            )
            pq.write_table(arrays, path)
            for seed in (1, 2, 3):
                for system in ("thema", "umap-learn + hdbscan"):
                    if system == "thema":
                        with tempfile.TemporaryDirectory() as out:
                            found = thema(program, path, split, template, out, seed, method)
                    else:
                        found = reference(embeddings, split, seed, method)
                    fit_topics, new_topics, fit_seconds, label_seconds = found
                    row = {"set": name, "method": method, "system": system, "seed": seed, "rows": len(table)}
                    row |= {f"fit_{k}": v for k, v in agreement(truth[:split], fit_topics).items()}
                    row |= {f"label_{k}": v for k, v in agreement(truth[split:], new_topics).items()}
                    row |= words(texts[:split], fit_topics)
                    row |= {"fit_seconds": round(fit_seconds, 1), "label_seconds": round(label_seconds, 1)}
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
