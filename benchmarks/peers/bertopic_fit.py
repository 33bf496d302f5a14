"""BERTopic's whole fit in a cold process, from texts and precomputed embeddings, and how fast sentence-transformers embeds.

    python bertopic_fit.py PAPERS.parquet ROWS MIN_CLUSTER_SIZE [ENCODER_FOLDER TEXTS]

PAPERS has title, abstract and embedding; the first ROWS are fitted. With an encoder, TEXTS of them are embedded as well and
their seconds told, so that the embedding of all can be extrapolated. Prints one JSON object.
"""

import json
import sys
import time

started = time.perf_counter()
import numpy as np
import pyarrow.parquet as pq
from bertopic import BERTopic
from hdbscan import HDBSCAN

papers, rows, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
table = pq.read_table(papers, columns=["title", "abstract", "embedding"]).slice(0, rows)
texts = [f"{t}: {a}" for t, a in zip(table["title"].to_pylist(), table["abstract"].to_pylist())]
column = table["embedding"].combine_chunks()
vectors = np.asarray(column.flatten(), np.float32).reshape(rows, -1)
clusterer = HDBSCAN(min_cluster_size=size, metric="euclidean", cluster_selection_method="eom", prediction_data=True)
topics, _ = BERTopic(embedding_model=None, hdbscan_model=clusterer).fit_transform(texts, vectors)
found = {"seconds": round(time.perf_counter() - started, 2), "topics": max(topics) + 1, "outliers": topics.count(-1) / rows}
if len(sys.argv) > 4:
    from sentence_transformers import SentenceTransformer

    some = texts[:: max(1, rows // int(sys.argv[5]))][: int(sys.argv[5])]
    model = SentenceTransformer(sys.argv[4], device="cpu")
    model.encode(some[:32])
    start = time.perf_counter()
    model.encode(some, batch_size=32)
    found["embedding_seconds_a_text"] = (time.perf_counter() - start) / len(some)
print(json.dumps(found))
