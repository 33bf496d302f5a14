"""Exact search by torch in float16, and by FAISS or cuVS where they are: the protocol of operators/benches/gpu.rs.

    python torch_topk.py DIMENSIONS QUERIES K OUT

`go ROWS` searches among so many points: tiles of products and their topk, merged, by the best of three sizes of tiles
(`torch`); FAISS's brute force (`faiss`) and cuVS's (`cuvs`), both in float16. Rows found are written to
OUT.ROWS.ENGINE.u32, and for the first queries those by products of the same halves in float32, to OUT.ROWS.exact.u32.
"""

import sys

import torch

from torch_device import centres, device, often, points, seconds, serve, synchronize

dim, query_count, k = map(int, sys.argv[1:4])
out = sys.argv[4]
EXACT = 512
# Queries and points of a tile.
TILES = [(4096, 65_536), (4096, 262_144), (1024, 1_048_576)]

try:
    import faiss
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources() if device == "cuda" else None
except (ImportError, AttributeError):
    faiss = None
try:
    from cuvs.neighbors import brute_force
except ImportError:
    brute_force = None


def search(queries, data, tile):
    """The rows of `data` with the k largest products with each query."""
    found = []
    for part in queries.split(tile[0]):
        scores, rows = [], []
        for first in range(0, len(data), tile[1]):
            products = part @ data[first : first + tile[1]].T
            best = products.topk(min(k, products.shape[1]))
            scores.append(best.values)
            rows.append(best.indices + first)
        best = torch.cat(scores, 1).topk(k).indices
        found.append(torch.cat(rows, 1).gather(1, best))
    return torch.cat(found)


class Ready:
    """Points of one number of rows, and the best way to search them."""

    def __init__(self, rows):
        self.rows = rows
        self.data = points(0, rows, dim, centres(rows), torch.float16)
        self.queries = points(rows, query_count, dim, centres(rows), torch.float16)
        taken = {}
        for tile in TILES if device == "cuda" else TILES[:2]:
            search(self.queries, self.data, tile)
            taken[tile] = seconds(lambda: search(self.queries, self.data, tile))
        self.tile = min(taken, key=taken.get)
        exact = [self.data[first : first + 262_144] for first in range(0, rows, 262_144)]
        part = self.queries[:EXACT].float()
        scores, found = [], []
        for i, block in enumerate(exact):
            best = (part @ block.float().T).topk(min(k, len(block)))
            scores.append(best.values)
            found.append(best.indices + i * 262_144)
        order = torch.cat(scores, 1).topk(k).indices
        write(rows, "exact", torch.cat(found, 1).gather(1, order))


def write(rows, engine, found):
    found.cpu().numpy().astype("uint32").tofile(f"{out}.{rows}.{engine}.u32")


ready = None


@torch.inference_mode()
def measure(case):
    global ready
    rows = int(case.split()[0])
    if ready is None or ready.rows != rows:
        ready = None
        ready = Ready(rows)
    queries, data, tile = ready.queries, ready.data, ready.tile
    each = {"torch": often(lambda: search(queries, data, tile))}
    write(rows, "torch", search(queries, data, tile))
    if device == "cuda" and faiss:

        def by_faiss():
            metric = faiss.METRIC_INNER_PRODUCT
            return faiss.knn_gpu(resources, queries, data, k, metric=metric)[1]

        try:
            each["faiss"] = often(by_faiss)
            write(rows, "faiss", by_faiss())
        except Exception as error:
            print(f"faiss: {error}", file=sys.stderr)
    if device == "cuda" and brute_force:
        try:
            index = brute_force.build(data, metric="inner_product")
            each["cuvs"] = often(lambda: brute_force.search(index, queries, k))
            found = brute_force.search(index, queries, k)[1]
            write(rows, "cuvs", torch.as_tensor(found, device=device))
        except Exception as error:
            print(f"cuvs: {error}", file=sys.stderr)
    synchronize()
    return {"each": each, "tile": list(tile)}


serve(measure)
