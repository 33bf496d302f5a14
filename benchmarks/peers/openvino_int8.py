"""Static 8-bit quantization by nncf, as optimum-intel does it: nncf.quantize for transformers, 300 texts.

    python openvino_int8.py MODEL.onnx TOKENIZER.json TEXTS.json OUT.xml
"""

import json
import sys

import nncf
import numpy as np
import openvino as ov
from tokenizers import Tokenizer

model, tokenizer, texts, out = sys.argv[1:]
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.no_padding()
tokenizer.enable_truncation(256)


def inputs(text):
    ids = np.array([tokenizer.encode(text).ids], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


texts = json.load(open(texts))[:300]
quantized = nncf.quantize(
    ov.Core().read_model(model), nncf.Dataset(texts, inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(texts)
)
ov.save_model(quantized, out, compress_to_fp16=False)
