//! k-means beside scikit-learn's (`tests/reference/kmeans.py`): the same clusters from the same centroids, and seeds as
//! good.
#![allow(clippy::unwrap_used)]

use half::f16;
use kernels::kmeans::{Init, KMeans, KMeansParams, kmeans};
use kernels::{Device, Matrix, norm};
use operators::clusterers::Clusterer;
use operators::clusterers::kmeans::{KMeans as KMeansClusterer, KMeansConfig};
use operators::{Error, Kind};
use serde_json::Value;
use std::ops::ControlFlow;

mod support;

/// Each data set with what scikit-learn found in it, for each k.
fn references() -> Vec<(Matrix<f32>, Vec<Value>)> {
    let json = std::fs::read_to_string(support::reference("kmeans.json")).unwrap();
    let found: Value = serde_json::from_str(&json).unwrap();
    let of = |name: &str| found[name].as_array().unwrap().clone();
    vec![
        (support::npy("umap5d_5000.npy", f32::from_le_bytes), of("umap5d_5000.npy")),
        (
            norm::unit_rows(&support::npy("umap_1500.npy", |b| f16::from_le_bytes(b).to_f32())),
            of("umap_1500.npy"),
        ),
    ]
}

fn find(points: &Matrix<f32>, k: usize, tolerance: f64, init: Init) -> KMeans {
    let params = KMeansParams { clusters: k, max_iter: 1000, tolerance, init };
    kmeans(points, &params, &Device::cpu(), &|| ControlFlow::Continue(())).unwrap()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn from_the_same_centroids_the_clusters_are_scikit_learns() {
    for (points, references) in references() {
        for reference in references {
            let k = reference["k"].as_u64().unwrap() as usize;
            let initial = points.gather(&(0..k as u32).collect::<Vec<_>>());
            let found = find(&points, k, 0.0, Init::At(initial));
            let labels = numbers(&reference["labels"]);
            // A point between two centroids may round to either, and draws others after it.
            let differing = labels.iter().zip(&found.labels).filter(|(a, b)| **a != f64::from(**b)).count();
            assert!(differing * 1000 <= points.rows(), "{differing} of {} for {k}", points.rows());
            let inertia = reference["inertia"].as_f64().unwrap();
            assert!((found.inertia - inertia).abs() < 1e-5 * inertia, "{} {inertia} for {k}", found.inertia);
        }
    }
}

#[test]
fn seeds_are_as_good_as_scikit_learns() {
    for (points, references) in references() {
        for reference in references {
            let k = reference["k"].as_u64().unwrap() as usize;
            let theirs = numbers(&reference["plus_plus"]);
            let run =
                |seed| find(&points, k, 1e-4, Init::PlusPlus { runs: 1, seed, candidates: None }).inertia;
            let ours: Vec<f64> = (0..theirs.len() as u64).map(run).collect();
            let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
            let (our_mean, their_mean) = (mean(&ours), mean(&theirs));
            // Three standard errors of the difference of two means of such runs.
            let variance =
                theirs.iter().map(|v| (v - their_mean).powi(2)).sum::<f64>() / (theirs.len() - 1) as f64;
            let error = (2.0 * variance / theirs.len() as f64).sqrt();
            assert!(
                our_mean < their_mean + 3.0 * error,
                "{our_mean}, not {their_mean} within {error}, for {k}"
            );
        }
    }
}

#[test]
fn clusters_are_numbered_by_size_and_nothing_is_an_outlier() {
    let (points, _) = references().remove(0);
    let clusterer =
        KMeansClusterer::try_new(KMeansConfig { n_clusters: 12, ..KMeansConfig::default() }).unwrap();
    let found = clusterer.fit(&points, &Device::cpu(), &|| ControlFlow::Continue(())).unwrap();
    let sizes: Vec<usize> =
        (0..12).map(|label| found.labels.iter().filter(|l| **l == label).count()).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes.iter().sum::<usize>() == points.rows(), "{sizes:?}");
    assert!(found.probabilities.iter().all(|p| (0.0..=1.0).contains(p)) && found.tree.is_none());
}

#[test]
fn settings_and_rows_that_cannot_be_are_errors() {
    let config = KMeansConfig::default;
    for (broken, name) in [
        (KMeansConfig { n_clusters: 0, ..config() }, "n_clusters"),
        (KMeansConfig { n_init: 0, ..config() }, "n_init"),
        (KMeansConfig { max_iter: 0, ..config() }, "max_iter"),
        (KMeansConfig { tol: -1.0, ..config() }, "tol"),
        (KMeansConfig { tol: f64::NAN, ..config() }, "tol"),
    ] {
        let error = KMeansClusterer::try_new(broken).unwrap_err();
        assert!(error.to_string().starts_with(name) && error.kind() == Kind::User, "{error}");
    }
    let clusterer = KMeansClusterer::try_new(config()).unwrap();
    let fit = |points| clusterer.fit(&points, &Device::cpu(), &|| ControlFlow::Continue(()));
    let error = fit(Matrix::zeros(7, 2)).unwrap_err();
    assert!(
        matches!(error, Error::Unfit(_)) && error.to_string().contains("7 rows are fewer than n_clusters 8")
    );
}
