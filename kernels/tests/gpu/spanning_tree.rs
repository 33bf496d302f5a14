//! Core distances and spanning trees: the same bits as on the processor.

use super::*;
use kernels::gpu::spanning_tree::{MAX_DIMS, MAX_MIN_SAMPLES, core_distances, minimum_spanning_tree};
use kernels::layout::mix64;
use kernels::{Edge, KdTree, Matrix};

/// Points in a few clusters, no two of whose distances are equal.
fn clusters(rows: usize, dims: usize) -> Matrix<f32> {
    let (centres, noise) = (uniform(5, 4 * dims), uniform(rows as u64, rows * dims));
    let values = noise
        .iter()
        .enumerate()
        .map(|(i, v)| 3.0 * centres[(i / dims * 7 % 4) * dims + i % dims] + v * v * v);
    Matrix::try_from_vec(rows, dims, values.collect()).unwrap()
}

/// Points on a grid of `steps` a side: many distances are equal, and many points.
fn grid(rows: usize, dims: usize, steps: u64) -> Matrix<f32> {
    let values = (0..rows * dims).map(|i| (mix64(i as u64) % steps) as f32 / 4.0);
    Matrix::try_from_vec(rows, dims, values.collect()).unwrap()
}

fn bits(distances: &[f64]) -> Vec<u64> {
    distances.iter().map(|d| d.to_bits()).collect()
}

fn edge_bits(edges: &[Edge]) -> Vec<(u32, u32, u64)> {
    edges.iter().map(|e| (e.a, e.b, e.weight.to_bits())).collect()
}

#[test]
fn core_distances_have_the_same_bits() {
    // 2 to 129: around blocks and tiles; 200 equal points; 40 dimensions: nothing can be skipped; none: all are equal.
    // Up to 32 neighbours, 64 and more: other shares of shared memory.
    let cases = [
        clusters(2, 2),
        clusters(17, 1),
        clusters(128, 3),
        clusters(129, 5),
        clusters(700, 2),
        clusters(300, 40),
        clusters(280, MAX_DIMS),
        grid(600, 2, 5),
        Matrix::zeros(200, 3),
        Matrix::zeros(20, 0),
    ];
    let cases = cases.map(|points| KdTree::build(&points).unwrap());
    on_each_gpu(|gpu| {
        for tree in &cases {
            for min_samples in [1, 5, 32, 33, 65, MAX_MIN_SAMPLES] {
                let min_samples = min_samples.min(tree.rows() - 1);
                let found = core_distances(gpu, tree, min_samples).unwrap();
                let expected = kernels::core_distances(tree, min_samples).unwrap();
                let what = format!("{} x {}, {min_samples}", tree.rows(), tree.dims());
                assert!(bits(&found) == bits(&expected), "{what}");
            }
        }
    });
}

#[test]
fn trees_have_the_same_bits() {
    let cases = [(1, 2), (2, 2), (17, 1), (128, 3), (129, 5), (700, 2), (300, 16), (200, MAX_DIMS)];
    let cases = cases.map(|(rows, dims)| KdTree::build(&clusters(rows, dims)).unwrap());
    on_each_gpu(|gpu| {
        for tree in &cases {
            for min_samples in [0, 1, 10] {
                let core = match min_samples.min(tree.rows() - 1) {
                    0 => vec![0.0; tree.rows()],
                    min_samples => kernels::core_distances(tree, min_samples).unwrap(),
                };
                let found = minimum_spanning_tree(gpu, tree, &core).unwrap();
                let expected = kernels::minimum_spanning_tree(tree, &core).unwrap();
                let what = format!("{} x {}, {min_samples}", tree.rows(), tree.dims());
                assert!(edge_bits(&found) == edge_bits(&expected), "{what}");
            }
        }
    });
}

#[test]
fn many_tiles_give_the_same_core_distances_and_tree() {
    // Enough tiles for several turns of a block, and for boxes that are ruled out.
    let tree = KdTree::build(&clusters(9000, 2)).unwrap();
    let expected_core = kernels::core_distances(&tree, 7).unwrap();
    let expected = kernels::minimum_spanning_tree(&tree, &expected_core).unwrap();
    on_each_gpu(|gpu| {
        assert!(bits(&core_distances(gpu, &tree, 7).unwrap()) == bits(&expected_core));
        let found = minimum_spanning_tree(gpu, &tree, &expected_core).unwrap();
        assert!(edge_bits(&found) == edge_bits(&expected));
    });
}

/// Kruskal's algorithm over all pairs: by weight, the distance of the ends, and the ends.
fn kruskal(points: &Matrix<f32>, core: &[f64]) -> Vec<Edge> {
    let mut pairs = Vec::new();
    for b in 0..points.rows() {
        for a in 0..b {
            let distance = points.row(a).iter().zip(points.row(b)).fold(0.0, |sum: f64, (x, y)| {
                let difference = f64::from(*x) - f64::from(*y);
                difference.mul_add(difference, sum)
            });
            let weight = distance.max(core[a] * core[a]).max(core[b] * core[b]);
            pairs.push((weight.to_bits(), distance.to_bits(), a, b));
        }
    }
    pairs.sort_unstable();
    let mut component: Vec<usize> = (0..points.rows()).collect();
    let mut edges = Vec::new();
    for (weight, _, a, b) in pairs {
        let (from, to) = (component[a], component[b]);
        if from != to {
            component.iter_mut().filter(|c| **c == from).for_each(|c| *c = to);
            edges.push(Edge { a: a as u32, b: b as u32, weight: f64::from_bits(weight).sqrt() });
        }
    }
    edges
}

#[test]
fn of_edges_that_tie_the_ones_with_the_smallest_rows_make_the_tree() {
    let cases =
        [grid(400, 2, 12), grid(500, 3, 3), grid(300, 1, 1000), Matrix::zeros(270, 5), grid(20, 0, 1)];
    let cases = cases.map(|points| {
        let tree = KdTree::build(&points).unwrap();
        let core = [1, 6].map(|min_samples| kernels::core_distances(&tree, min_samples).unwrap());
        let expected = [0, 1].map(|i| kruskal(&points, &core[i]));
        (tree, core, expected)
    });
    on_each_gpu(|gpu| {
        for (tree, core, expected) in &cases {
            for (core, expected) in core.iter().zip(expected) {
                let found = minimum_spanning_tree(gpu, tree, core).unwrap();
                assert!(edge_bits(&found) == edge_bits(expected), "{} x {}", tree.rows(), tree.dims());
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    let tree = KdTree::build(&clusters(300, 2)).unwrap();
    let wide = KdTree::build(&Matrix::zeros(3, MAX_DIMS + 1)).unwrap();
    let none = KdTree::build(&Matrix::zeros(0, 2)).unwrap();
    on_each_gpu(|gpu| {
        let refused = |result: kernels::Result<Vec<f64>>| result.unwrap_err().to_string();
        let error = refused(core_distances(gpu, &tree, 257));
        assert!(error.contains("min_samples on a GPU: expected at most 256"), "{error}");
        assert!(refused(core_distances(gpu, &tree, 300)).contains("1 to 299"));
        assert!(refused(core_distances(gpu, &wide, 1)).contains("at most 64 dimensions"));
        assert!(minimum_spanning_tree(gpu, &tree, &[0.0; 2]).is_err());
        assert!(minimum_spanning_tree(gpu, &wide, &[0.0; 3]).is_err());
        assert!(minimum_spanning_tree(gpu, &none, &[]).unwrap().is_empty());
    });
}
