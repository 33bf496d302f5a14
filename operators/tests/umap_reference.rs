//! UMAP beside umap-learn on 1,500 real embeddings: neighbourhoods kept, labels of neighbours, new rows placed.
//!
//! Everything that judges is written here on its own: distances, ranks, trustworthiness.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use half::f16;
use kernels::{Device, Matrix};
use operators::reducers::{Init, Metric, UmapConfig, UmapModel};
use serde_json::Value;
use std::ops::ControlFlow;

mod support;

/// The size of every neighbourhood.
const K: usize = 15;

/// Rows that the placing tests fit on; they place the others.
const FITTED: usize = 1000;

/// How far below umap-learn's a mean of three seeds may lie. Means of three of its own seeds differ by up to 0.004
/// here.
const TOLERANCE: f64 = 0.01;

struct Reference {
    rows: Matrix<f32>,
    labels: Vec<i64>,
    scores: Value,
}

fn reference() -> Reference {
    let rows = support::npy("umap_1500.npy", |b| f16::from_le_bytes(b).to_f32());
    let json = std::fs::read_to_string(support::reference("umap_1500.json")).unwrap();
    let scores: Value = serde_json::from_str(&json).unwrap();
    let labels = scores["labels"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap()).collect();
    Reference { rows, labels, scores }
}

fn distance(metric: Metric, x: &[f32], y: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f(f64::from(x), f64::from(y))).sum()
    };
    match metric {
        Metric::Euclidean => sum(&|x, y| (x - y) * (x - y)).sqrt(),
        Metric::Cosine => 1.0 - sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt(),
    }
}

/// All rows of `among`, nearest first, for each row of `of`, with their distances.
fn ranked(of: &Matrix<f32>, among: &Matrix<f32>, metric: Metric) -> Vec<Vec<(f64, u32)>> {
    let row = |x: &[f32]| {
        let mut all: Vec<(f64, u32)> =
            among.iter_rows().enumerate().map(|(j, y)| (distance(metric, x, y), j as u32)).collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all
    };
    of.iter_rows().map(row).collect()
}

/// The K nearest as kernels give them.
fn nearest(ranked: &[Vec<(f64, u32)>]) -> (Matrix<u32>, Matrix<f32>) {
    let flat = || ranked.iter().flat_map(|row| &row[..K]);
    let indices = Matrix::try_from_vec(ranked.len(), K, flat().map(|e| e.1).collect()).unwrap();
    let distances =
        Matrix::try_from_vec(ranked.len(), K, flat().map(|e| e.0.max(0.0) as f32).collect()).unwrap();
    (indices, distances)
}

/// The K nearest other rows of each row.
fn others(ranked: &[Vec<(f64, u32)>]) -> Vec<Vec<u32>> {
    let row = |(i, row): (usize, &Vec<(f64, u32)>)| {
        row.iter().map(|e| e.1).filter(|&j| j as usize != i).take(K).collect()
    };
    ranked.iter().enumerate().map(row).collect()
}

/// How far the layout's neighbours are from being the rows' neighbours: 1 if all are (Venna and Kaski, 2001).
fn trustworthiness(rows: &[Vec<(f64, u32)>], layout: &[Vec<u32>]) -> f64 {
    let n = rows.len();
    let mut excess = 0;
    for (i, (row, near)) in rows.iter().zip(layout).enumerate() {
        let mut rank = vec![0; n];
        let ordered = row.iter().map(|e| e.1 as usize).filter(|&j| j != i);
        ordered.enumerate().for_each(|(r, j)| rank[j] = r + 1);
        excess += near.iter().map(|&j| rank[j as usize].max(K) - K).sum::<usize>();
    }
    1.0 - 2.0 / (n * K * (2 * n - 3 * K - 1)) as f64 * excess as f64
}

/// The share of neighbours that have the row's label.
fn agreement(near: &[Vec<u32>], of: &[i64], among: &[i64]) -> f64 {
    let same: usize =
        near.iter().zip(of).map(|(near, l)| near.iter().filter(|&&j| among[j as usize] == *l).count()).sum();
    same as f64 / (near.len() * K) as f64
}

fn fit(config: &UmapConfig, rows: &Matrix<f32>, ranked: &[Vec<(f64, u32)>]) -> UmapModel {
    let (indices, distances) = nearest(ranked);
    let graph = config.graph(&indices, &distances).unwrap();
    config.fit(&Device::cpu(), &graph, rows, &|_, _| ControlFlow::Continue(())).unwrap()
}

/// Compares the means over three seeds with umap-learn's of the case `name`.
fn compare(name: &str, config: UmapConfig) {
    let Reference { rows, labels, scores } = reference();
    let asked = |score: &str| scores[name][score].as_f64().unwrap();
    let distances = ranked(&rows, &rows, config.metric);
    let (mut trust, mut agree) = (0.0, 0.0);
    for seed in 1..=3 {
        let model = fit(&UmapConfig { seed, ..config.clone() }, &rows, &distances);
        let near = others(&ranked(&model.embedding, &model.embedding, Metric::Euclidean));
        trust += trustworthiness(&distances, &near) / 3.0;
        agree += agreement(&near, &labels, &labels) / 3.0;
    }
    println!("{name}: trustworthiness {trust:.4}, label agreement {agree:.4}; umap-learn {}", scores[name]);
    assert!(trust > asked("trustworthiness") - TOLERANCE, "{name}: trustworthiness {trust}");
    assert!(agree > asked("label_agreement") - TOLERANCE, "{name}: label agreement {agree}");
}

#[test]
fn five_dimensions_keep_neighbourhoods_as_well_as_umap_learn() {
    compare("cosine_5d", UmapConfig::default());
}

#[test]
fn a_start_from_principal_components_does_as_well() {
    compare("cosine_5d", UmapConfig { init: Init::Pca, ..UmapConfig::default() });
}

#[test]
fn two_dimensions_keep_neighbourhoods_as_well_as_umap_learn() {
    compare("cosine_2d", UmapConfig { n_components: 2, min_dist: 0.1, ..UmapConfig::default() });
}

#[test]
fn euclidean_distances_do_as_well_as_umap_learn() {
    compare("euclidean_5d", UmapConfig { metric: Metric::Euclidean, ..UmapConfig::default() });
}

#[test]
fn new_rows_are_placed_as_well_as_by_umap_learn() {
    let Reference { rows, labels, scores } = reference();
    let asked = |score: &str| scores["cosine_5d"][score].as_f64().unwrap();
    let fitted = rows.gather(&(0..FITTED as u32).collect::<Vec<_>>());
    let new = rows.gather(&(FITTED as u32..rows.rows() as u32).collect::<Vec<_>>());
    let distances = ranked(&fitted, &fitted, Metric::Cosine);
    let neighbours = ranked(&new, &fitted, Metric::Cosine);
    let (mut kept, mut agree) = (0.0, 0.0);
    for seed in 1..=3 {
        let model = fit(&UmapConfig { seed, ..UmapConfig::default() }, &fitted, &distances);
        let (indices, near) = nearest(&neighbours);
        let placed = model.transform(&Device::cpu(), &indices, &near).unwrap();
        let laid: Vec<Vec<u32>> = ranked(&placed, &model.embedding, Metric::Euclidean)
            .iter()
            .map(|row| row[..K].iter().map(|e| e.1).collect())
            .collect();
        let common =
            |(laid, true_ones): (&Vec<u32>, &[u32])| laid.iter().filter(|j| true_ones.contains(j)).count();
        kept += laid.iter().zip(indices.iter_rows()).map(common).sum::<usize>() as f64
            / (laid.len() * K) as f64
            / 3.0;
        agree += agreement(&laid, &labels[FITTED..], &labels[..FITTED]) / 3.0;
    }
    println!(
        "placed: neighbours kept {kept:.4}, label agreement {agree:.4}; umap-learn {}",
        scores["cosine_5d"]
    );
    assert!(kept > asked("placed_neighbours_kept") - 2.0 * TOLERANCE, "neighbours kept: {kept}");
    assert!(agree > asked("placed_label_agreement") - 2.0 * TOLERANCE, "label agreement: {agree}");
}
