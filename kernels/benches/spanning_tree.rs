//! Times core distances and the minimum spanning tree: `cargo bench -p thema-kernels --bench spanning_tree [--
//! FILE.f32 DIMS MIN_SAMPLES]`, where FILE holds little-endian rows; without one, seeded clouds of points.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use kernels::{KdTree, Matrix, core_distances, minimum_spanning_tree};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    match args.as_slice() {
        [file, dims, min_samples] => {
            let bytes = std::fs::read(file).unwrap();
            let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            time(file, values, dims.parse().unwrap(), min_samples.parse().unwrap());
        }
        _ => {
            for (rows, dims) in [(25_000, 5), (100_000, 5), (5_000, 384)] {
                time("clouds", clouds(rows, dims), dims, 100);
            }
        }
    }
}

/// A hundred clouds of normal points (sums of twelve uniform ones).
fn clouds(rows: usize, dims: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let centres: Vec<f32> = (0..100 * dims).map(|_| 10.0 * uniform()).collect();
    (0..rows * dims)
        .map(|i| centres[i / dims % 100 * dims + i % dims] + (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect()
}

fn time(name: &str, values: Vec<f32>, dims: usize, min_samples: usize) {
    let points = Matrix::try_from_vec(values.len() / dims, dims, values).unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let tree = KdTree::build(&points).unwrap();
        let built = start.elapsed();
        let core = core_distances(&tree, min_samples).unwrap();
        let cored = start.elapsed() - built;
        let edges = minimum_spanning_tree(&tree, &core).unwrap();
        let grown = start.elapsed() - built - cored;
        let weight: f64 = edges.iter().map(|e| e.weight).sum();
        println!(
            "{name} {} x {dims}, min_samples {min_samples}, {} threads: build {built:.1?}, core {cored:.1?}, tree {grown:.1?}, weight {weight}",
            points.rows(),
            rayon::current_num_threads(),
        );
    }
}
