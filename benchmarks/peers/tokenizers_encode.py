"""The tokenizers library on its own: the protocol of operators/benches/stages.rs.

    python tokenizers_encode.py TOKENIZER.json encode_batch|encode_batch_fast THREADS TEXTS.json OUT.u32

At most 256 tokens a text and no padding. `encode_batch` is what transformers and sentence-transformers call; `_fast` keeps
no offsets. The clock stops when the library returns: its results are freed, and turned into lists of ids, outside.
"""

import json
import os
import sys
import time

tokenizer, method, threads, texts, out = sys.argv[1:]
os.environ["RAYON_NUM_THREADS"] = threads
os.environ["TOKENIZERS_PARALLELISM"] = "true" if int(threads) > 1 else "false"

import numpy as np
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.no_padding()
tokenizer.enable_truncation(256)
encode = getattr(tokenizer, method)
texts = json.load(open(texts))
print(json.dumps({"ready": True}), flush=True)
encodings = []
for _ in sys.stdin:
    encodings.clear()
    start = time.perf_counter()
    encodings = encode(texts)
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
np.concatenate([np.array(e.ids, np.uint32) for e in encodings]).tofile(out)
