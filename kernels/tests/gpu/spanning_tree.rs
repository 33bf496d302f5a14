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

/// Points in four pairs of clusters, two of which are near each other and far from the other two: components that
/// are whole tiles, whose lightest edges come from points that found nothing in the round before.
fn pairs_of_clusters(rows: usize) -> Matrix<f32> {
    let noise = uniform(3, rows * 2);
    let far = |i: usize, bit: usize| ((i / 2) >> bit & 1) as f32;
    let values = noise.iter().enumerate().map(|(i, v)| match i % 2 {
        0 => v + 3.0 * far(i, 0) + 20.0 * far(i, 1) + 100.0 * far(i, 2),
        _ => *v,
    });
    Matrix::try_from_vec(rows, 2, values.collect()).unwrap()
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
    // Grids: many edges tie, in their weight and in the distance of their ends;
    let cases = [
        clusters(1, 2),
        clusters(2, 2),
        clusters(17, 1),
        clusters(128, 3),
        clusters(129, 5),
        clusters(700, 2),
        clusters(300, 16),
        clusters(200, MAX_DIMS),
        pairs_of_clusters(1600),
        grid(400, 2, 12),
        grid(500, 3, 3),
        grid(300, 1, 1000),
        Matrix::zeros(270, 5),
        Matrix::zeros(20, 0),
    ];
    let cases = cases.map(|points| KdTree::build(&points).unwrap());
    on_each_gpu(|gpu| {
        for tree in &cases {
            for min_samples in [0, 1, 6, 10] {
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
    // More tiles than a block's threads, where these are few.
    let small = KdTree::build(&clusters(5000, 2)).unwrap();
    let expected_small = kernels::core_distances(&small, 65).unwrap();
    on_each_gpu(|gpu| {
        assert!(bits(&core_distances(gpu, &small, 65).unwrap()) == bits(&expected_small));
        assert!(bits(&core_distances(gpu, &tree, 7).unwrap()) == bits(&expected_core));
        let found = minimum_spanning_tree(gpu, &tree, &expected_core).unwrap();
        assert!(edge_bits(&found) == edge_bits(&expected));
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
