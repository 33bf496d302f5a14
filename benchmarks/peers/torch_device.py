"""What the peers on torch share: the device, waiting for it, and the points of operators/benches/gpu.rs."""

import json
import os
import sys
import time

import torch

# The emulator's peer is the processor.
device = "cpu" if os.environ.get("THEMA_BENCH_GPU") == "emulated" else "cuda"


def synchronize():
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work):
    """How long `work` takes until the device has done it."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def often(work, least=0.03):
    """Seconds of one run of `work`, of as many as take `least` seconds."""
    work()
    times = max(1, min(300, int(least / seconds(work))))
    return seconds(lambda: [work() for _ in range(times)]) / times


def recorded(work, least=0.03):
    """The same without the time of asking for it: the work is recorded and replayed."""
    if device == "cpu":
        return often(work, least)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    synchronize()
    times = max(1, min(300, int(least / seconds(work))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            work()
    graph.replay()
    return seconds(graph.replay) / times


def serve(stage):
    """Answers each line of standard input by what `stage` makes of its case."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(stage(line.removeprefix("go").strip())), flush=True)


def mix(x):
    mask = 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    return x ^ (x >> 16)


def uniform(number):
    return (number >> 8).float() * 2.0**-23 - 1.0


def points(first, rows, dim, centres, dtype):
    """The same numbers as `points` of operators/benches/gpu.rs, made on the device."""
    centre = uniform(mix((mix(torch.arange(centres * dim, device=device)) + 1) & 0xFFFFFFFF)).view(centres, dim)
    made = torch.empty(rows, dim, dtype=dtype, device=device)
    for start in range(0, rows, 250_000):
        row = torch.arange(first + start, first + min(rows, start + 250_000), device=device)
        place = row[:, None] * dim + torch.arange(dim, device=device)
        made[start : start + len(row)] = (centre[row % centres] + 0.5 * uniform(mix(place))).to(dtype)
    return made


def centres(rows):
    return min(4096, max(16, rows // 250))
