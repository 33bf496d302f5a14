#!/usr/bin/env python3
"""Writes a safetensors file again with its float32 tensors rounded to float16.

    scripts/half-safetensors.py IN OUT

Needs nothing but Python: `struct` rounds to nearest even, and refuses what float16 cannot hold.
"""

import json
import struct
import sys

source, target = sys.argv[1:]
with open(source, "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    data = file.read()
header.pop("__metadata__", None)
parts, at = [], 0
for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
    first, end = tensor["data_offsets"]
    part = data[first:end]
    if tensor["dtype"] == "F32":
        count = len(part) // 4
        part = struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", part))
        tensor["dtype"] = "F16"
    tensor["data_offsets"] = [at, at + len(part)]
    parts.append(part)
    at += len(part)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(target, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    file.writelines(parts)
