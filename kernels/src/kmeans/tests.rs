//! k-means on the processor, by its definition.

use super::*;
use crate::random::{grid, uniform};

fn matrix(seed: u64, rows: usize, cols: usize) -> Matrix<f32> {
    Matrix::try_from_vec(rows, cols, uniform(seed, rows * cols)).unwrap()
}

fn params(clusters: usize, init: Init) -> KMeansParams {
    KMeansParams { clusters, max_iter: 300, tolerance: 0.0, init }
}

fn seeded(clusters: usize) -> KMeansParams {
    params(clusters, Init::PlusPlus { runs: 1, seed: 7, candidates: None })
}

fn on_cpu(points: &Matrix<f32>, params: &KMeansParams) -> KMeans {
    kmeans(points, params, &Device::cpu(), &|| ControlFlow::Continue(())).unwrap()
}

/// The nearest and the second nearest of `centroids` by definition, with the two squared distances.
fn nearest(point: &[f32], centroids: &Matrix<f32>) -> Vec<(f64, u32)> {
    let mut all: Vec<(f64, u32)> =
        centroids.iter_rows().zip(0..).map(|(c, j)| (squared_distance(Isa::detect(), point, c), j)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all
}

#[test]
fn every_instruction_set_finds_the_nearest_two_centroids() {
    // Centroids around a lane, a strip and a panel; points around a task.
    for (n, k, d) in [(1, 1, 1), (97, 2, 3), (96, 16, 5), (193, 129, 8), (50, 300, 33)] {
        let (points, centroids) = (matrix(1, n, d), matrix(2, k, d));
        let mut first = None;
        for isa in Isa::available() {
            let lengths = check_rows(isa, &points, "points").unwrap();
            let mut passes = cpu::Points::new(isa, &points, lengths);
            let [labels, second] = passes.nearest_two(&centroids).unwrap();
            assert_eq!(passes.nearest(&centroids).unwrap(), labels);
            for (i, point) in points.iter_rows().enumerate() {
                let expected = nearest(point, &centroids);
                // Products of d roundings can swap what is nearer to each other than that.
                let bound = 1e-6 * d as f64;
                assert!(
                    squared_distance(Isa::detect(), point, centroids.row(labels[i] as usize))
                        <= expected[0].0 + bound
                );
                assert!((second[i] == u32::MAX) == (k == 1));
                if k > 1 {
                    let distance = squared_distance(Isa::detect(), point, centroids.row(second[i] as usize));
                    assert!(
                        second[i] != labels[i] && distance <= expected[1].0 + bound,
                        "{isa:?} {n} {k} {d}"
                    );
                }
            }
            let found = (labels, second);
            assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{isa:?} {n} {k} {d}");
        }
    }
}

#[test]
fn equal_centroids_tie_to_the_smaller() {
    let points = matrix(1, 300, 4);
    let centroids = points.gather(&[5; 40]);
    let lengths = check_rows(Isa::detect(), &points, "points").unwrap();
    let mut passes = cpu::Points::new(Isa::detect(), &points, lengths);
    assert_eq!(passes.nearest_two(&centroids).unwrap(), [vec![0; 300], vec![1; 300]]);
}

#[test]
fn what_is_found_is_a_fixed_point_of_lloyds_iteration() {
    for (n, k, d) in [(7, 3, 2), (500, 8, 5), (2000, 40, 3), (700, 300, 16)] {
        let points = matrix(3, n, d);
        let found = on_cpu(&points, &seeded(k));
        assert_eq!(found.centroids.rows(), k);
        let mut inertia = 0.0;
        for (c, centroid) in found.centroids.iter_rows().enumerate() {
            let members: Vec<usize> = (0..n).filter(|&i| found.labels[i] as usize == c).collect();
            for (j, &v) in centroid.iter().enumerate() {
                let mean =
                    members.iter().map(|&i| f64::from(points.row(i)[j])).sum::<f64>() / members.len() as f64;
                assert!((f64::from(v) - mean).abs() < 1e-6, "{n} {k} {d}");
            }
        }
        for (i, point) in points.iter_rows().enumerate() {
            let expected = nearest(point, &found.centroids);
            let own = squared_distance(Isa::detect(), point, found.centroids.row(found.labels[i] as usize));
            assert!(own <= expected[0].0 + 1e-6 * d as f64, "{n} {k} {d}");
            inertia += own;
            let [near, far] = [expected[0].0.sqrt(), expected[1].0.sqrt()];
            assert!((f64::from(found.silhouettes[i]) - (far - near) / far).abs() < 1e-4, "{n} {k} {d}");
        }
        assert!((found.inertia - inertia).abs() <= 1e-9 * inertia, "{n} {k} {d}");
    }
}

#[test]
fn more_iterations_never_have_more_inertia() {
    let points = matrix(4, 1000, 6);
    let initial = points.gather(&(0..20).collect::<Vec<u32>>());
    let after = |max_iter| {
        on_cpu(&points, &KMeansParams { max_iter, ..params(20, Init::At(initial.clone())) }).inertia
    };
    let inertias: Vec<f64> = (0..12).map(after).collect();
    assert!(inertias.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-6)), "{inertias:?}");
    assert!(inertias[11] < 0.8 * inertias[0], "{inertias:?}");
}

#[test]
fn seeds_lie_where_points_are_far_from_each_other() {
    // 30 clouds of width 0.02 around points on a grid: uniform seeds would miss a third of them.
    let centres = grid(30, 2, 1000, 5);
    let noise = uniform(6, 3000 * 2);
    let values = noise.iter().enumerate().map(|(i, v)| 10.0 * centres.row(i / 2 % 30)[i % 2] + 0.01 * v);
    let points = Matrix::try_from_vec(3000, 2, values.collect()).unwrap();
    for seed in 0..10 {
        let found = on_cpu(&points, &params(30, Init::PlusPlus { runs: 1, seed, candidates: None }));
        let pure = (0..3000).filter(|i| found.labels[*i] == found.labels[i % 30]).count();
        assert!(pure > 2700, "seed {seed}: {pure} of 3000 points are in the cluster of their cloud");
    }
}

#[test]
fn equal_points_make_no_more_clusters_than_differ() {
    let distinct = matrix(8, 5, 3);
    let points = distinct.gather(&(0..200).map(|i| i % 5).collect::<Vec<u32>>());
    let found = on_cpu(&points, &seeded(8));
    assert_eq!((found.centroids.rows(), found.inertia), (5, 0.0));
    assert!(found.silhouettes.iter().all(|s| *s == 1.0));
    let one = on_cpu(&points.gather(&[0, 5, 10]), &seeded(3));
    assert_eq!((one.centroids.rows(), one.labels), (1, vec![0; 3]));
}

#[test]
fn as_many_clusters_as_points_leave_each_alone() {
    let points = matrix(9, 40, 3);
    let found = on_cpu(&points, &seeded(40));
    let mut labels = found.labels.clone();
    labels.sort_unstable();
    assert_eq!((labels, found.inertia), ((0..40).collect(), 0.0));
}

#[test]
fn a_centroid_without_points_moves_to_the_furthest_point() {
    let points = Matrix::try_from_vec(5, 1, vec![0.0, 0.1, 0.2, 5.0, 6.0]).unwrap();
    let initial = Matrix::try_from_vec(3, 1, vec![0.1, 100.0, 200.0]).unwrap();
    let found = on_cpu(&points, &params(3, Init::At(initial)));
    assert_eq!(found.labels[..3], [found.labels[0]; 3]);
    assert!(found.labels[3] != found.labels[4] && found.labels[3] != found.labels[0]);
}

#[test]
fn more_runs_are_no_worse_and_seeds_decide() {
    let points = matrix(10, 800, 2);
    let of = |runs, seed| on_cpu(&points, &params(25, Init::PlusPlus { runs, seed, candidates: None }));
    let better = (0..5).filter(|&seed| {
        let [one, two, five] = [1, 2, 5].map(|runs| of(runs, seed).inertia);
        assert!(two <= one && five <= two, "{one} {two} {five}");
        five < one
    });
    assert!(better.count() > 0);
    assert_eq!(of(1, 3), of(1, 3));
    assert_ne!(of(1, 3).labels, of(1, 4).labels);
}

#[test]
fn threads_change_nothing() {
    let points = matrix(11, 3000, 7);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| on_cpu(&points, &seeded(30)))
    };
    assert_eq!(on(1), on(5));
}

#[test]
fn what_cannot_be_clustered_is_an_error() {
    let points = matrix(12, 10, 2);
    let failing = |points: &Matrix<f32>, params: &KMeansParams| {
        let stop = || ControlFlow::Continue(());
        kmeans(points, params, &Device::cpu(), &stop).unwrap_err().to_string()
    };
    assert_eq!(failing(&points, &seeded(0)), "clusters: expected 1 to 10 points, found 0");
    assert_eq!(failing(&points, &seeded(11)), "clusters: expected 1 to 10 points, found 11");
    assert!(failing(&Matrix::zeros(3, 0), &seeded(1)).contains("at least 1 column"));
    let at = Init::At(Matrix::zeros(2, 3));
    assert!(failing(&points, &params(2, at)).contains("expected 2 x 2, found 2 x 3"));
    let mut bad = points.clone();
    bad.row_mut(4)[1] = f32::NAN;
    assert!(failing(&bad, &seeded(2)).contains("row 4, column 1"));
    bad.row_mut(4)[1] = 1e19;
    assert!(failing(&bad, &seeded(2)).contains("row 4 of length 1.0e19"));
    for (count, found) in [(0, "found 0"), (33, "expected 1 to 32, found 33")] {
        let init = Init::PlusPlus { runs: 1, seed: 1, candidates: Some(count) };
        assert!(failing(&points, &params(2, init)).contains(found));
    }
}

#[test]
fn each_seed_and_iteration_can_be_the_last() {
    let points = matrix(13, 300, 3);
    let asked_until = |last: u32| {
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            if asked.get() > last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        (kmeans(&points, &seeded(10), &Device::cpu(), &stop), asked.get())
    };
    let (found, asked) = asked_until(u32::MAX);
    assert_eq!(asked, 10 + found.unwrap().iterations);
    for last in 0..asked {
        assert!(matches!(asked_until(last), (Err(Error::Stopped(_)), n) if n == last + 1), "{last}");
    }
}
