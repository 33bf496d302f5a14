"""Writes tests/data/reference/ctfidf.json: c-TF-IDF of debian5000.parquet by scikit-learn and BERTopic.

Made with scikit-learn 1.9.1, bertopic 0.17.4, pandas 3.1.1. Run from the repository's root:
python tests/reference/ctfidf.py
Each topic's documents are joined to one text, as BERTopic does, so pairs of words reach across documents.
"""

import json

import numpy as np
import pandas as pd
from bertopic.vectorizers import ClassTfidfTransformer
from sklearn.feature_extraction.text import CountVectorizer

FOLDER = "tests/data/reference"
CASES = {
    "default": ({}, {}),
    "stop_bigram_bm25_sqrt": (
        {"stop_words": "english", "ngram_range": (1, 2)},
        {"bm25_weighting": True, "reduce_frequent_words": True},
    ),
    "min_df_trigram": ({"ngram_range": (2, 3), "min_df": 3}, {}),
}

table = pd.read_parquet(f"{FOLDER}/debian5000.parquet")
topics = sorted(set(table.topic))
joined = [" ".join(table.text[table.topic == topic]) for topic in topics]

cases = {}
for name, (vectorizer, weighting) in CASES.items():
    vectorizer = CountVectorizer(**vectorizer)
    counts = vectorizer.fit_transform(joined)
    weights = ClassTfidfTransformer(**weighting).fit_transform(counts.copy())
    terms = vectorizer.get_feature_names_out()
    best = {}
    for row, topic in enumerate(topics):
        weight = weights[[row]].toarray()[0]
        order = np.argsort(-weight, kind="stable")[:15]
        best[str(topic)] = [[terms[i], float(weight[i])] for i in order]
    cases[name] = {"terms": len(terms), "cells": int(counts.nnz), "occurrences": int(counts.sum()), "topics": best}

with open(f"{FOLDER}/ctfidf.json", "w") as file:
    json.dump(cases, file, indent=None, separators=(",", ":"))
