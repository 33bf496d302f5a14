"""sentence-transformers in float16 with SDPA: the protocol of operators/benches/gpu.rs, and its CASES.

    python sentence_transformers_embed.py CASES.json

`go CASE` answers with the seconds of `encode` (texts to vectors on the host, sorted by length as it does) and of the
network alone (`gpu`: tokens on the device, in the same order), both by the best batch size of three. The first answer
for a case comes after these are found; vectors go to the case's file as f32.
"""

import json
import sys

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from torch_device import device, seconds, serve

cases = json.load(open(sys.argv[1]))
SIZES = [64, 256, 1024] if device == "cuda" else [4, 16]
models, texts, prepared = {}, {}, {}


def model(folder):
    if folder not in models:
        models.clear()
        prepared.clear()
        kwargs = {"dtype": torch.float16, "attn_implementation": "sdpa"}
        models[folder] = SentenceTransformer(folder, device=device, model_kwargs=kwargs).eval()
    return models[folder]


def encode(case, size):
    return model(case["folder"]).encode(texts[case["texts"]], batch_size=size, show_progress_bar=False)


def batches(case, size):
    """Tokens of texts of like length, on the device."""
    network = model(case["folder"])
    ordered = sorted(texts[case["texts"]], key=len, reverse=True)
    tokens = getattr(network, "preprocess", None) or network.tokenize
    made = [tokens(ordered[first : first + size]) for first in range(0, len(ordered), size)]
    return [{name: t.to(device) for name, t in batch.items() if torch.is_tensor(t)} for batch in made]


def forward(case, made):
    network = model(case["folder"])
    for batch in made:
        network(dict(batch))["sentence_embedding"]


@torch.inference_mode()
def measure(name):
    case = cases[name]
    if case["texts"] not in texts:
        texts[case["texts"]] = json.load(open(case["texts"]))
    network = model(case["folder"])
    if name not in prepared:
        width = network.get_sentence_embedding_dimension() if hasattr(network, "get_sentence_embedding_dimension") else 0
        sizes = SIZES[:2] if width >= 768 else SIZES
        encode(case, sizes[0])
        taken = {size: seconds(lambda: encode(case, size)) for size in sizes}
        best = min(taken, key=taken.get)
        tokens = {size: batches(case, size) for size in sizes}
        alone = {size: seconds(lambda: forward(case, tokens[size])) for size in sizes}
        size = min(alone, key=alone.get)
        prepared[name] = (best, size, tokens[size])
    best, size, tokens = prepared[name]
    each = {"gpu": seconds(lambda: forward(case, tokens))}
    vectors = []
    each["encode"] = seconds(lambda: vectors.append(encode(case, best)))
    np.asarray(vectors[0], np.float32).tofile(case["out"])
    return {"each": each, "batch": best, "gpu_batch": size}


serve(measure)
