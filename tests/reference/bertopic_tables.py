"""Writes tests/data/reference/bertopic.json: BERTopic's tables and representations of some of debian5000.parquet.

Made with bertopic 0.17.4, scikit-learn 1.9.1, pandas 3.1.1. Run from the repository's root:
python tests/reference/bertopic_tables.py
Topics are given, and vectors come from the letters of a text, so that nothing is drawn at random and the test can make
the same ones: of each three letters in a row of the lower-cased text with a blank at both ends, one is added at
(a + 31 b + 961 c) mod 64. What BERTopic draws at random (500 documents a topic) is set to all of them.
"""

import json

import numpy as np
import pandas as pd
from bertopic import BERTopic
from bertopic.backend import BaseEmbedder
from bertopic.cluster import BaseCluster
from bertopic.dimensionality import BaseDimensionalityReduction
from bertopic.representation import KeyBERTInspired, MaximalMarginalRelevance
from bertopic.vectorizers import ClassTfidfTransformer
from sklearn.feature_extraction.text import CountVectorizer

FOLDER = "tests/data/reference"
TOPICS, DOCUMENTS = 9, 900


def letters(text):
    points = [ord(letter) for letter in f" {text.lower()} "]
    vector = np.zeros(64)
    for a, b, c in zip(points, points[1:], points[2:]):
        vector[(a + 31 * b + 961 * c) % 64] += 1
    return vector / max(np.linalg.norm(vector), 1)


class Letters(BaseEmbedder):
    def embed(self, documents, verbose=False):
        return np.array([letters(text) for text in documents])


table = pd.read_parquet(f"{FOLDER}/debian5000.parquet")
table = table[table.topic < TOPICS - 1].head(DOCUMENTS)
order = [topic for topic in table.topic.value_counts().index if topic >= 0]
topics = [order.index(topic) if topic >= 0 else -1 for topic in table.topic]
docs = [" ".join(text.split()) for text in table.text]
vectors = Letters().embed(docs)
model = BERTopic(
    language="multilingual",
    embedding_model=Letters(),
    umap_model=BaseDimensionalityReduction(),
    hdbscan_model=BaseCluster(),
    vectorizer_model=CountVectorizer(),
    ctfidf_model=ClassTfidfTransformer(),
)
model.fit(docs, embeddings=vectors, y=topics)
assert model.topics_ == topics, "BERTopic has numbered the topics anew"

frame = pd.DataFrame({"Document": docs, "ID": range(len(docs)), "Topic": topics})
model.top_n_words = 30
thirty = model._extract_words_per_topic(
    model.vectorizer_model.get_feature_names_out(), frame, model.c_tf_idf_, calculate_aspects=False
)
model.top_n_words = 10


def plain(representation):
    return {str(t): [[w, float(s)] for w, s in words] for t, words in representation.items() if t >= 0}


keybert = KeyBERTInspired(nr_samples=200_000, nr_repr_docs=5, nr_candidate_words=1000)
mmr = MaximalMarginalRelevance(diversity=0.4)
sample = docs[:120]
windows, _ = model.approximate_distribution(sample, min_similarity=0.1)
days = [pd.Timestamp(f"2026-{1 + index % 4:02d}-01") for index in range(len(docs))]
over_time = model.topics_over_time(docs, days, evolution_tuning=False, global_tuning=True)
classes = [f"class {index % 3}" for index in range(len(docs))]
per_class = model.topics_per_class(docs, classes=classes)
hierarchy = model.hierarchical_topics(docs, use_ctfidf=True)
by_vectors = model.hierarchical_topics(docs, use_ctfidf=False)


def joins(table):
    return [[sorted(int(topic) for topic in row.Topics), float(row.Distance)] for row in table.itertuples()]


def grouped(table, column):
    return [[int(row.Topic), row.Words, int(row.Frequency), str(getattr(row, column))[:10]] for row in table.itertuples()]


found = {
    "topics": topics,
    "texts": docs,
    "thirty": plain(thirty),
    "keybert": plain(keybert.extract_topics(model, frame, model.c_tf_idf_, thirty)),
    "mmr": plain(mmr.extract_topics(model, frame, model.c_tf_idf_, thirty)),
    "distributions": [[float(share) for share in row] for row in windows],
    "over_time": grouped(over_time, "Timestamp"),
    "per_class": grouped(per_class, "Class"),
    "hierarchy": joins(hierarchy),
    "hierarchy_names": [row.Parent_Name for row in hierarchy.itertuples()],
    "hierarchy_of_vectors": joins(by_vectors),
    "outliers_c_tf_idf": model.reduce_outliers(docs, topics, strategy="c-tf-idf"),
    "outliers_distributions": model.reduce_outliers(docs, topics, strategy="distributions", threshold=0.1),
    "outliers_embeddings": model.reduce_outliers(docs, topics, strategy="embeddings", embeddings=vectors),
}
for strategy in [key for key in found if key.startswith("outliers")]:
    found[strategy] = [int(topic) for topic in found[strategy]]
model.reduce_topics(docs, nr_topics=5)
found["reduced"] = [int(topic) for topic in model.topics_]
with open(f"{FOLDER}/bertopic.json", "w") as file:
    json.dump(found, file, separators=(",", ":"), ensure_ascii=False)
    file.write("\n")
