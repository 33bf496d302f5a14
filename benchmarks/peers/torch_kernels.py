"""The device's roofline, and torch's kernels of the shapes of JOBS: the protocol of operators/benches/gpu.rs.

    python torch_kernels.py JOBS.json SIZE BYTES

`go roofline` answers with the seconds of a product of two SIZE x SIZE matrices in bfloat16 (`matmul`), float32
(`matmul_float32`) and, where the device has it, float8 (`matmul_float8`), and of a copy of BYTES (`copy`), `go KIND` with
those of each job of this kind, in float16: linear layers (cuBLAS, GELU after it; in float8 with scales of rows and
columns), attention, and layer norm after a sum.
"""

import json
import sys

import torch
import torch.nn.functional as F

from torch_device import device, recorded, serve

jobs = json.load(open(sys.argv[1]))
size, copied = int(sys.argv[2]), int(sys.argv[3])


def halves(*shape):
    return torch.rand(*shape, device=device).mul_(2).sub_(1).half()


has_float8 = device == "cuda" and torch.cuda.get_device_capability() >= (8, 9)


def float8_product(x, weight, scales, **options):
    x, weight = (matrix.to(torch.float8_e4m3fn) for matrix in (x, weight))
    scale_a, scale_b = (torch.ones(shape, device=device) for shape in scales)
    options |= {"scale_a": scale_a, "scale_b": scale_b, "out_dtype": torch.bfloat16}
    return lambda: torch._scaled_mm(x, weight.t(), **options)


def work(job):
    """What does the job, or nothing where torch has no kernel for it."""
    if job["kernel"] == "linear":
        x, weight = halves(job["rows"], job["inputs"]), halves(job["columns"], job["inputs"])
        bias = halves(job["columns"])
        if job["gelu"]:
            return lambda: F.gelu(F.linear(x, weight, bias))
        return lambda: F.linear(x, weight, bias)
    if job["kernel"] == "linear_float8" and has_float8:
        x, weight = halves(job["rows"], job["inputs"]), halves(job["columns"], job["inputs"])
        bias = halves(job["columns"]).bfloat16()
        product = float8_product(x, weight, [(job["rows"], 1), (1, job["columns"])], bias=bias)
        return (lambda: F.gelu(product())) if job["gelu"] else product
    if job["kernel"] == "attention":
        shape = (job["tokens"] // job["length"], job["heads"], job["length"], job["width"])
        q, k, v = (halves(*shape) for _ in range(3))
        return lambda: F.scaled_dot_product_attention(q, k, v)
    if job["kernel"] == "add_norm":
        x, residual = (halves(job["tokens"], job["width"]) for _ in range(2))
        gamma, beta = halves(job["width"]), halves(job["width"])
        return lambda: F.layer_norm(x + residual, (job["width"],), gamma, beta)
    return None


def roofline():
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    each = {"matmul": recorded(lambda: a @ b, 0.2)}
    # Without TensorFloat-32, which torch leaves off.
    single_a, single_b = a.float(), b.float()
    each["matmul_float32"] = recorded(lambda: single_a @ single_b, 0.2)
    if has_float8:
        # Summed in the tensor cores alone, which is the fastest.
        each["matmul_float8"] = recorded(float8_product(a, b, [(), ()], use_fast_accum=True), 0.2)
    x, y = (torch.ones(copied, dtype=torch.uint8, device=device) for _ in range(2))
    return each | {"copy": recorded(lambda: y.copy_(x), 0.1)}


@torch.inference_mode()
def measure(kind):
    if kind == "roofline":
        return {"each": roofline()}
    each = {}
    for job in jobs:
        run = work(job) if job["kernel"] == kind else None
        if run:
            each[job["name"]] = recorded(run)
    return {"each": each}


serve(measure)
