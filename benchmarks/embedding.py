"""Embedding: thema beside OpenVINO, f32 and 8 bits, warm processes interleaved on the same texts and threads.

    python benchmarks/embedding.py STAGES ENCODER_FOLDER PAPERS.parquet WORK_FOLDER THREADS [ROUNDS]

STAGES is the program that `cargo bench -p thema-operators --bench stages --no-run` builds. Uses 96 papers (title and
abstract), as many to warm up. Prints one JSON object for each engine: the median seconds, documents and tokens a second,
the ratio to the peer of the same precision, and the cosine of its vectors to thema's in f32.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from turns import medians

stages, encoder, papers, work, threads = sys.argv[1:6]
rounds = int(sys.argv[6]) if len(sys.argv) > 6 else 5
here = os.path.dirname(os.path.abspath(__file__))
os.makedirs(work, exist_ok=True)

table = pq.read_table(papers, columns=["title", "abstract"]).to_pydict()
texts = [f"{title}: {abstract}" for title, abstract in zip(table["title"], table["abstract"])]
json.dump(texts[:96], open(f"{work}/texts.json", "w"))
json.dump(texts[1000:1300], open(f"{work}/calibration.json", "w"))
tokenizer = Tokenizer.from_file(f"{encoder}/tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(256)
tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts[:96]))

onnx, xml = f"{work}/encoder.onnx", f"{work}/encoder_int8.xml"
if not os.path.exists(xml):
    subprocess.run([sys.executable, f"{here}/peers/minilm_onnx.py", encoder, onnx], check=True)
    subprocess.run(
        [sys.executable, f"{here}/peers/openvino_int8.py", onnx, f"{encoder}/tokenizer.json", f"{work}/calibration.json", xml],
        check=True,
        stdout=subprocess.DEVNULL,
    )

peer = [sys.executable, f"{here}/peers/openvino_embed.py"]
engines = {
    "thema float32": [stages, "embed", encoder, "float32", threads],
    "openvino float32": [*peer, onnx, f"{encoder}/tokenizer.json", threads],
    "thema int8": [stages, "embed", encoder, "int8", threads],
    "openvino int8": [*peer, xml, f"{encoder}/tokenizer.json", threads],
}
outputs = {name: f"{work}/{name.replace(' ', '_')}.f32" for name in engines}
environment = {**os.environ, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
commands = {name: [*command, f"{work}/texts.json", outputs[name]] for name, command in engines.items()}
median = medians(commands, rounds, environment)
vectors = {name: np.fromfile(path, np.float32).reshape(96, -1) for name, path in outputs.items()}
for name in engines:
    system, precision = name.split(" ")
    cosines = (vectors[name] * vectors["thema float32"]).sum(1)
    print(
        json.dumps(
            {
                "stage": "embedding",
                "system": system,
                "precision": precision,
                "threads": int(threads),
                "texts": 96,
                "seconds": round(median[name], 4),
                "tokens_per_second": round(tokens / median[name]),
                "ratio": round(median[f"openvino {precision}"] / median[name], 3),
                "cosine_mean": round(float(cosines.mean()), 5),
                "cosine_min": round(float(cosines.min()), 5),
            }
        )
    )
