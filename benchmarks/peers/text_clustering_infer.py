"""How text-clustering labels new texts (`ClusterClassifier.infer`): the protocol of operators/benches/stages.rs.

    python text_clustering_infer.py FITTED.parquet NEW.parquet ENCODER_FOLDER MAX_TOKENS THREADS OUT.i32

FITTED has embedding and topic, NEW title and abstract. As huggingface/text-clustering does it (src/text_clustering.py,
commit 248607e): sentence-transformers in f32 on batches of 64, normalised, FAISS IndexFlatL2, and the most frequent label
among the nearest texts, of which there is one. Its MAX_TOKENS is 512; all-MiniLM-L6-v2 itself says 256. Needs torch and
sentence-transformers, which are not in requirements.txt (3 GB).
"""

import json
import os
import sys
import time

fitted, new, encoder, max_tokens, threads, out = sys.argv[1:]
os.environ["OMP_NUM_THREADS"] = threads
os.environ["HF_HUB_OFFLINE"] = "1"

from collections import Counter

import faiss
import numpy as np
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(threads))
table = pq.read_table(fitted, columns=["embedding", "topic"])
topics = table["topic"].to_pylist()
vectors = np.asarray(table["embedding"].combine_chunks().flatten(), np.float32).reshape(len(topics), -1)
index = faiss.IndexFlatL2(vectors.shape[1])
index.add(vectors)
model = SentenceTransformer(encoder, device="cpu")
model.max_seq_length = int(max_tokens)
table = pq.read_table(new, columns=["title", "abstract"]).to_pydict()
texts = [f"{title}: {abstract}" for title, abstract in zip(table["title"], table["abstract"])]


def infer(top_k=1):
    embeddings = model.encode(texts, batch_size=64, convert_to_numpy=True, normalize_embeddings=True)
    _, nearest = index.search(embeddings, top_k)
    return [Counter(topics[row] for row in rows).most_common(1)[0][0] for rows in nearest]


print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    labels = infer()
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
np.array(labels, np.int32).tofile(out)
