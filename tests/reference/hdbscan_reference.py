"""Makes tests/data/reference/hdbscan_*.parquet, with hdbscan 0.8.44, numpy 2.4.6, pyarrow 26.0.1.

Reads tests/data/reference/umap5d_5000.npy. Fits on the first 4,500 rows and asks for the other 500 and for 100 rows of
the fit: approximate_predict and membership_vector, all_points_membership_vectors of the first 100 rows, and the
labels of settings that the fits of hdbscan_5000.parquet do not cover. The tree is the exact one throughout.
"""
import pathlib

import hdbscan
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent.parent / "data" / "reference"
points = np.load(here / "umap5d_5000.npy").astype(np.float64)
fit, queries = points[:4500], np.concatenate([points[4500:], points[:100]])


def cluster(x, **settings):
    return hdbscan.HDBSCAN(approx_min_span_tree=False, core_dist_n_jobs=1, **settings).fit(x)


predicted = {}
for size, method in ((50, "eom"), (50, "leaf"), (100, "eom")):
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
    # The labels of the fit, so that cluster numbers can be matched.
    fitted = pa.table({"label": model.labels_.astype(np.int32)})
    pq.write_table(fitted, here / f"hdbscan_fit4500_{name}.parquet", compression="zstd")
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
for name, column in labels.items():
    print(name, column.max() + 1, "clusters", (column < 0).sum(), "outliers")
