//! Times HDBSCAN from points to labels: `cargo bench -p thema-operators --bench hdbscan -- FILE.f32 DIMS
//! MIN_CLUSTER_SIZE`, where FILE holds little-endian rows. RAYON_NUM_THREADS sets the threads.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use kernels::Matrix;
use operators::clusterers::Clusterer;
use operators::clusterers::hdbscan::{ClusterSelectionMethod, Hdbscan, HdbscanConfig};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [file, dims, size] = args.as_slice() else {
        println!("usage: hdbscan FILE.f32 DIMS MIN_CLUSTER_SIZE");
        return;
    };
    let (dims, min_cluster_size): (usize, usize) = (dims.parse().unwrap(), size.parse().unwrap());
    let bytes = std::fs::read(file).unwrap();
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let points = Matrix::try_from_vec(values.len() / dims, dims, values).unwrap();
    for cluster_selection_method in [ClusterSelectionMethod::Eom, ClusterSelectionMethod::Leaf] {
        let config = HdbscanConfig { min_cluster_size, cluster_selection_method, ..HdbscanConfig::default() };
        let clusterer = Hdbscan::try_new(config).unwrap();
        let start = Instant::now();
        let found = clusterer.fit(&points).unwrap();
        println!(
            "{} x {dims}, {cluster_selection_method:?}, {} threads: {:.3} s, {} clusters, {} outliers",
            points.rows(),
            rayon::current_num_threads(),
            start.elapsed().as_secs_f64(),
            found.clusters(),
            found.labels.iter().filter(|&&l| l < 0).count(),
        );
    }
}
