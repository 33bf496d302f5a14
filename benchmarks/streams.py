"""What each row of a stream meets besides the encoder: tokenization, pooling, quantization, warm processes in turns.

    python benchmarks/streams.py STAGES ENCODER_FOLDER PAPERS.parquet EMBEDDINGS.parquet WORK_FOLDER THREADS [ROUNDS]

Tokenization: 20,000 papers (title and abstract; repeated where there are fewer), at most 256 tokens each, beside the
tokenizers library; thema uses the same library, and its quality is the share of texts with equal ids. Quantization: 100,000
embeddings (more are made by a little noise) with their own ranges, beside the arithmetic of sentence-transformers; its
quality is the share of equal bytes. Its limit is memory: the time to read the points, and of what a copy of them takes
beyond that (both measured in the same turns) the share that is written. Pooling takes the same points for the tokens of texts
of 200 each, beside numpy; its limit is the reading. numpy quantizes and pools on one thread: its rows say so, and ours say to
how many `ratio` compares. Prints one JSON object for each engine.
"""

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq

from turns import medians

TEXTS, ROWS, TOKENS = 20_000, 100_000, 200
stages, encoder, papers, embeddings, work, threads = sys.argv[1:7]
rounds = int(sys.argv[7]) if len(sys.argv) > 7 else 5
here = os.path.dirname(os.path.abspath(__file__))
os.makedirs(work, exist_ok=True)


def tell(row):
    print(json.dumps({"threads": int(threads), **row}), flush=True)


def tokenization():
    table = pq.read_table(papers, columns=["title", "abstract"]).to_pydict()
    texts = [f"{title}: {abstract}" for title, abstract in zip(table["title"], table["abstract"])]
    texts = (texts * (TEXTS // len(texts) + 1))[:TEXTS]
    json.dump(texts, open(f"{work}/stream_texts.json", "w"))
    peer = [sys.executable, f"{here}/peers/tokenizers_encode.py", f"{encoder}/tokenizer.json"]
    engines = {
        "thema ids": [stages, "tokenize", encoder, threads],
        "tokenizers encode_batch": [*peer, "encode_batch", threads],
        "tokenizers encode_batch_fast": [*peer, "encode_batch_fast", threads],
    }
    outputs = {name: f"{work}/{name.replace(' ', '_')}.u32" for name in engines}
    seconds = medians({name: [*engines[name], f"{work}/stream_texts.json", outputs[name]] for name in engines}, rounds)
    # Each text starts with the same token, which stands nowhere else.
    found = {name: np.fromfile(path, np.uint32) for name, path in outputs.items()}
    texts_of = lambda ids: [text.tobytes() for text in np.split(ids, np.flatnonzero(ids == ids[0])[1:])]
    found_texts = {name: texts_of(ids) for name, ids in found.items()}
    theirs = found_texts["tokenizers encode_batch"]
    for name in engines:
        system, setting = name.split(" ")
        equal = [a == b for a, b in zip(found_texts[name], theirs, strict=True)]
        row = {"stage": "tokenization", "system": system, "setting": setting, "texts": TEXTS}
        row |= {"seconds": round(seconds[name], 3), "tokens_per_second": round(len(found[name]) / seconds[name])}
        row |= {"ratio": round(seconds["tokenizers encode_batch"] / seconds[name], 3)}
        row |= {"equal": round(float(np.mean(equal)), 5)}
        tell(row)


def quantization():
    column = pq.read_table(embeddings, columns=["embedding"])["embedding"].combine_chunks()
    real = np.asarray(column.flatten(), np.float32).reshape(len(column), -1)[:ROWS]
    random = np.random.default_rng(0)
    more = real[random.integers(0, len(real), ROWS - len(real))]
    points = np.concatenate([real, more + random.normal(0, 0.02, more.shape).astype(np.float32)])
    points.tofile(f"{work}/quantize.f32")
    arguments = [f"{work}/quantize.f32", str(points.shape[1])]
    engines = {}
    for precision in ("int8", "uint8", "binary", "ubinary", "copy", "read"):
        end = [precision, threads, f"{work}/numpy_{precision}.u8"]
        engines[f"numpy {precision}"] = [sys.executable, f"{here}/peers/quantize_numpy.py", *arguments, *end]
        if precision not in ("copy", "read"):
            end[2] = f"{work}/thema_{precision}.u8"
            engines[f"thema {precision}"] = [stages, "quantize", *arguments, *end]
    for pooling in ("mean", "max"):
        shape = [*arguments, str(TOKENS), pooling]
        engines[f"numpy {pooling}"] = [sys.executable, f"{here}/peers/pool_numpy.py", *shape, f"{work}/numpy_{pooling}.u8"]
        engines[f"thema {pooling}"] = [stages, "pool", *shape, threads, f"{work}/thema_{pooling}.u8"]
    # A turn is short.
    seconds = medians(engines, 4 * rounds)
    copy, read = seconds["numpy copy"], seconds["numpy read"]
    for name in engines:
        system, precision = name.split(" ")
        row = {"stage": "quantization", "system": system, "precision": precision, "points": ROWS}
        row |= {"seconds": round(seconds[name], 5), "rows_per_second": round(ROWS / seconds[name])}
        if precision in ("copy", "read"):
            # Read and written once each; that a cache line is fetched before it is written is not counted.
            moved = points.nbytes * (2 if precision == "copy" else 1)
            tell({**row, "stage": "memory", "gigabytes_per_second": round(moved / seconds[name] / 1e9, 2)})
            continue
        # numpy, and sentence-transformers by it, computes on one thread whatever we are given.
        row |= {"threads": 1} if system == "numpy" else {"ratio_to_threads": 1}
        if precision in ("mean", "max"):
            pooled = [np.fromfile(f"{work}/{s}_{precision}.u8", np.float32) for s in ("numpy", "thema")]
            row |= {"stage": "pooling", "ratio": round(seconds[f"numpy {precision}"] / seconds[name], 3)}
            row |= {"largest_difference": float(np.abs(pooled[0] - pooled[1]).max())}
            tell({**row, "share_of_limit": round(read / seconds[name], 3)})
            continue
        codes = {s: np.fromfile(f"{work}/{s}_{precision}.u8", np.uint8) for s in ("numpy", "thema")}
        limit = read + max(copy - read, 0) * codes["numpy"].nbytes / points.nbytes
        row |= {"ratio": round(seconds[f"numpy {precision}"] / seconds[name], 3)}
        row |= {"equal": float((codes[system] == codes["numpy"]).mean()), "share_of_limit": round(limit / seconds[name], 3)}
        tell(row)


tokenization()
quantization()
