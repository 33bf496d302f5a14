//! k-means: the same bits as on the processor.

use super::*;
use kernels::kmeans::{Init, KMeans, KMeansParams, kmeans};
use kernels::layout::mix64;
use kernels::{Device, Matrix};
use std::ops::ControlFlow;

fn on(device: &Device, points: &Matrix<f32>, params: &KMeansParams) -> KMeans {
    kmeans(points, params, device, &|| ControlFlow::Continue(())).unwrap()
}

fn params(clusters: usize, runs: u32) -> KMeansParams {
    KMeansParams { clusters, max_iter: 3, tolerance: 0.0, init: seeded(clusters, runs, None) }
}

fn seeded(clusters: usize, runs: u32, candidates: Option<usize>) -> Init {
    Init::PlusPlus { runs, seed: clusters as u64, candidates }
}

#[test]
fn kmeans_has_the_same_bits() {
    let random = |rows, dims| Matrix::try_from_vec(rows, dims, uniform(rows as u64, rows * dims)).unwrap();
    // On a coarse grid many points are equal, and many equally far from two centroids.
    let grid = |rows, dims| {
        let values = (0..rows * dims).map(|i| (mix64(i as u64) % 5) as f32);
        Matrix::try_from_vec(rows, dims, values.collect()).unwrap()
    };
    // Points around a block, centroids around a tile of them, dimensions around a part, odd ones and many; a cluster of
    // several segments; fewer points that differ than clusters; as many candidates for a seed as kernels have columns, one
    // more and one less.
    let candidates =
        |count| (random(200, 9), KMeansParams { init: seeded(5, 1, Some(count)), ..params(5, 1) });
    let cases = [
        (random(1, 1), params(1, 1)),
        (random(129, 3), params(7, 2)),
        (random(300, 17), params(129, 1)),
        (random(128, 64), params(32, 1)),
        (random(1100, 5), params(2, 1)),
        (grid(500, 4), params(60, 1)),
        (grid(200, 2), params(40, 1)),
        candidates(8),
        candidates(9),
        candidates(16),
        candidates(17),
        candidates(32),
    ];
    let expected: Vec<KMeans> =
        cases.iter().map(|(points, params)| on(&Device::cpu(), points, params)).collect();
    on_each_gpu(|gpu| {
        let device = Device::Cuda(vec![Arc::clone(gpu)]);
        for ((points, params), expected) in cases.iter().zip(&expected) {
            let found = on(&device, points, params);
            assert!(found == *expected, "{} x {}, {params:?}", points.rows(), points.cols());
        }
    });
}

#[test]
fn kmeans_from_given_centroids_has_the_same_bits() {
    let points = Matrix::try_from_vec(500, 6, uniform(3, 3000)).unwrap();
    // One is so far away that it is nearest to no point.
    let mut initial = points.gather(&(0..20).collect::<Vec<u32>>());
    initial.row_mut(7).fill(50.0);
    let params = KMeansParams { init: Init::At(initial), ..params(20, 1) };
    let expected = on(&Device::cpu(), &points, &params);
    on_each_gpu(|gpu| assert!(on(&Device::Cuda(vec![Arc::clone(gpu)]), &points, &params) == expected));
}
