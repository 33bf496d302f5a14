"""Makes tests/data/reference/hdbscan_{tree_*,predicted,settings,reordered}.parquet and hdbscan_selected.json, with hdbscan 0.8.44, numpy 2.4.6, pyarrow 26.0.1.

Reads tests/data/reference/umap5d_5000.npy. Fits on the first 1,500 rows, keeps the condensed trees, and asks for the
last 500 rows and for 100 rows of the fit: approximate_predict and membership_vector; and all_points_membership_vectors
of the first 100 rows. Labels all rows under settings that the fits of hdbscan_5000.parquet do not cover, and once more
in another order, which shows how far ties alone move the library's own labels. The tree is the exact one throughout.
"""
import json
import pathlib

import hdbscan
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent.parent / "data" / "reference"
points = np.load(here / "umap5d_5000.npy").astype(np.float64)
fit, queries = points[:1500], np.concatenate([points[4500:], points[:100]])


def cluster(x, **settings):
    return hdbscan.HDBSCAN(approx_min_span_tree=False, core_dist_n_jobs=1, **settings).fit(x)


predicted, selected = {}, {}
for size, method in ((20, "eom"), (20, "leaf"), (40, "eom")):
    model = cluster(fit, min_cluster_size=size, min_samples=10, cluster_selection_method=method, prediction_data=True)
    labels, probabilities = hdbscan.approximate_predict(model, queries)
    vectors = hdbscan.membership_vector(model, queries)
    own = np.full((len(queries), vectors.shape[1]), np.nan)
    own[:100] = hdbscan.all_points_membership_vectors(model)[:100]
    name = f"{size}_{method}"
    predicted[f"label_{name}"] = labels.astype(np.int32)
    predicted[f"probability_{name}"] = probabilities.astype(np.float32)
    predicted[f"membership_{name}"] = list(vectors.astype(np.float32))
    predicted[f"all_points_{name}"] = list(own.astype(np.float32))
    selected[name] = [int(c) for c in sorted(model.condensed_tree_._select_clusters())]
    tree = model.condensed_tree_.to_numpy()
    columns = {"parent": np.int32, "child": np.int32, "lambda_val": np.float64, "child_size": np.int32}
    table = pa.table({column: tree[column].astype(dtype) for column, dtype in columns.items()})
    pq.write_table(table, here / f"hdbscan_tree_{name}.parquet", compression="zstd")
(here / "hdbscan_selected.json").write_text(json.dumps(selected) + "\n")
pq.write_table(pa.table(predicted), here / "hdbscan_predicted.parquet", compression="zstd")

settings = {
    "epsilon": dict(min_cluster_size=15, cluster_selection_epsilon=0.3),
    "epsilon_leaf": dict(min_cluster_size=15, cluster_selection_epsilon=0.25, cluster_selection_method="leaf"),
    "max_size": dict(min_cluster_size=100, max_cluster_size=300),
    "single": dict(min_cluster_size=400, allow_single_cluster=True),
    "min_samples": dict(min_cluster_size=30, min_samples=5),
}
labels = {name: cluster(points, **s).labels_.astype(np.int32) for name, s in settings.items()}
pq.write_table(pa.table(labels), here / "hdbscan_settings.parquet", compression="zstd")
order = np.random.default_rng(0).permutation(len(points))
reordered = {}
for size in (15, 50, 100):
    for method in ("eom", "leaf"):
        model = cluster(points[order], min_cluster_size=size, cluster_selection_method=method)
        column = np.empty(len(points), np.int32)
        column[order] = model.labels_
        reordered[f"label_mcs{size}_{method}"] = column
pq.write_table(pa.table(reordered), here / "hdbscan_reordered.parquet", compression="zstd")

for name, column in labels.items():
    print(name, column.max() + 1, "clusters", (column < 0).sum(), "outliers")
