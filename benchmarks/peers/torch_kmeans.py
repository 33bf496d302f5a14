"""Lloyd's iterations by torch in float32, as users write them: the protocol of operators/benches/gpu.rs.

    python torch_kmeans.py ROWS DIMENSIONS CLUSTERS

`go` answers with the seconds of an iteration: products with all centroids in parts, argmin, sums by `index_add_`.
"""

import sys

import torch

from torch_device import centres, points, seconds, serve

rows, dim, clusters = map(int, sys.argv[1:4])
ITERATIONS = 10
PART = 65_536
data = points(0, rows, dim, centres(rows), torch.float32)


@torch.inference_mode()
def iterate(centroids):
    half = (centroids**2).sum(1) / 2
    labels = torch.cat([(part @ centroids.T - half).argmax(1) for part in data.split(PART)])
    sums = torch.zeros_like(centroids).index_add_(0, labels, data)
    sizes = torch.bincount(labels, minlength=clusters)
    return torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp(min=1), centroids)


def run():
    centroids = data[:clusters].clone()
    for _ in range(ITERATIONS):
        centroids = iterate(centroids)


iterate(data[:clusters])
serve(lambda _: {"each": {"iteration": seconds(run) / ITERATIONS}})
