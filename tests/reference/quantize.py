"""Writes data/reference/quant_outside.safetensors: codes of values that lie outside their calibration ranges.

The rules of sentence-transformers' quantize_embeddings in numpy's own arithmetic: from 5.7 (clipped) and from 5.4 to
5.6 (legacy; an integer cast wraps through int32). The embeddings are the first 96 of minilm_fp32_256.npy; the ranges
are those of the next 40 rows, so that about 7 % of the values lie outside, with one dimension of no width. Also the
calibration report's numbers, by numpy.histogram.

Run in this folder with numpy 2.4.6 and safetensors 0.8: python quantize.py
"""
import numpy as np
from safetensors.numpy import save_file

embeddings = np.load("../data/reference/minilm_fp32_256.npy")
x, calibration = embeddings[:96], embeddings[96:136]
ranges = np.vstack([calibration.min(axis=0), calibration.max(axis=0)])
ranges[1, 7] = ranges[0, 7]
steps = (ranges[1] - ranges[0]) / 255
steps[steps == 0] = 1
v = (x - ranges[0]) / steps
assert v.dtype == np.float32
clipped = np.clip(np.floor(v), 0, 255)
inside = (ranges[0] <= x) & (x <= ranges[1])
counts, _ = np.histogram(x.astype(np.float64), bins=64, range=(x.min(), x.max()))
save_file(
    {
        "ranges": ranges,
        "uint8": clipped.astype(np.uint8),
        "int8": (clipped - 128).astype(np.int8),
        "uint8_legacy": v.astype(np.int32).astype(np.uint8),
        "int8_legacy": (v - 128).astype(np.int32).astype(np.int8),
        "inside_percent": np.array([100 * inside.mean(axis=0).mean()]),
        "histogram": counts.astype(np.int64),
    },
    "../data/reference/quant_outside.safetensors",
)
print(f"{100 * inside.mean():.5f} % inside")
