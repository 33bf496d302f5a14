"""Labelling new texts with a fitted model, cold processes in turns: thema (int8) beside text-clustering.

    python benchmarks/labelling.py THEMA ENCODER_FOLDER EMBEDDED.parquet WORK_FOLDER THREADS [ROUNDS] [FEW,MANY]

Run by hand: the peer needs torch and sentence-transformers (see peers/text_clustering_infer.py). EMBEDDED has id, title,
abstract and embedding. Its first 20,000 papers are fitted by thema from their text, unless WORK_FOLDER/model is there
already; the peer gets the same topics and EMBEDDED's vectors. The papers after these are labelled: FEW and MANY of them (by
default 500 and 2,000), from the start of a process to its end; rows a second are those of the difference, without the
start. The peer cuts texts at its own 512 tokens, and in another row at the encoder's 256, as thema does. Prints one JSON
object for each engine: the median seconds, rows a second, the ratios of both to the peer at 512, and the share of rows with
the label that the peer gives at 256.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

FITTED = 20_000
thema, encoder, embedded, work, threads = sys.argv[1:6]
rounds = int(sys.argv[6]) if len(sys.argv) > 6 else 3
sizes = [int(n) for n in sys.argv[7].split(",")] if len(sys.argv) > 7 else [500, 2_000]
here = os.path.dirname(os.path.abspath(__file__))
os.makedirs(work, exist_ok=True)

model = f"{work}/model"
if not os.path.exists(model):
    text = ["--text", "{title}: {abstract}", "--id", "id", "--encoder", encoder, "--weights", "int8"]
    rows = ["--rows", f"0..{FITTED}", "--min-cluster-size", "50", "--threads", threads]
    subprocess.run([thema, "fit", "--input", embedded, *rows, *text, "--out", model], check=True, stdout=subprocess.DEVNULL)

papers = pq.read_table(embedded, columns=["id", "title", "abstract", "embedding"])
sample = pq.read_table(f"{model}/v1/sample.parquet", columns=["id", "topic"])
fitted = papers.slice(0, FITTED)
topics = sample["topic"].take(pc.index_in(fitted["id"], sample["id"]))
pq.write_table(fitted.select(["embedding"]).append_column("topic", topics), f"{work}/fitted.parquet")
for n in sizes:
    pq.write_table(papers.slice(FITTED, n).select(["id", "title", "abstract"]), f"{work}/new{n}.parquet")


def command(name, n):
    new, out = f"{work}/new{n}.parquet", f"{work}/{name.replace(' ', '_')}"
    if name == "thema int8":
        ours = [thema, "label", "--input", new, "--model", model, "--out", f"{out}.parquet"]
        return [*ours, "--overwrite", "--threads", threads]
    peer = [sys.executable, f"{here}/peers/text_clustering_infer.py", f"{work}/fitted.parquet"]
    return [*peer, new, encoder, name.split(" ")[1], threads, f"{out}.i32"]


def labels(name):
    out = f"{work}/{name.replace(' ', '_')}"
    if name == "thema int8":
        return pq.read_table(f"{out}.parquet", columns=["topic"])["topic"].to_numpy()
    return np.fromfile(f"{out}.i32", np.int32)


quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "text": True}
engines = ["thema int8", "text-clustering 512", "text-clustering 256"]
seconds = {(name, n): [] for name in engines for n in sizes}
for _ in range(rounds):
    for n in sizes:
        for name in engines:
            start = time.perf_counter()
            subprocess.run(command(name, n), input="go\n", **quiet)
            seconds[name, n].append(time.perf_counter() - start)

few, many = sizes
median = {key: statistics.median(times) for key, times in seconds.items()}
speed = {name: (many - few) / (median[name, many] - median[name, few]) for name in engines}
peer = "text-clustering 512"
for name in engines:
    row = {"stage": "labelling", "system": name.split(" ")[0], "setting": name.split(" ")[1], "threads": int(threads)}
    row |= {"fitted": FITTED, "rows": many, "seconds": round(median[name, many], 2)}
    row |= {f"seconds_{few}_rows": round(median[name, few], 2), "rows_per_second": round(speed[name], 1)}
    row |= {"ratio": round(median[peer, many] / median[name, many], 3), "ratio_of_rows": round(speed[name] / speed[peer], 3)}
    row |= {"same_label": round(float((labels(name) == labels("text-clustering 256")).mean()), 4)}
    print(json.dumps(row), flush=True)
