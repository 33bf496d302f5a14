//! One stage of the job in a warm process, driven over standard input, so that a script can interleave it with other
//! programs: see `benchmarks/README.md`.
//!
//!     stages embed FOLDER float32|int8 THREADS TEXTS.json OUT.f32
//!     stages topk POINTS.f32 DIMENSIONS QUERIES K float32|int8 THREADS OUT.u32
//!
//! The first QUERIES points are searched for among all, by dot product. 8-bit codes of the points are made before, those
//! of the queries in the stage.
//!
//! Prints a line of JSON when it is ready, then runs the stage once for each line that it reads, and prints how many
//! seconds that took; the last result lies in OUT, as little-endian numbers.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a benchmark: it may fail by panicking

use kernels::search_codes::SearchScale;
use kernels::topk::{Codes, Metric, topk, topk_codes};
use kernels::{Device, Matrix};
use operators::encoders::{Encoder, EncoderOptions};
use std::path::Path;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["embed", folder, weights, threads, texts, out] => {
            use_threads(threads);
            let options = EncoderOptions { weights: weights.parse().unwrap(), ..EncoderOptions::default() };
            let encoder = Encoder::load(Path::new(folder), &options, Device::open("cpu").unwrap()).unwrap();
            let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts).unwrap()).unwrap();
            serve(|| encoder.encode(&texts).unwrap(), |encoded| write(out, encoded.vectors.as_slice()));
        }
        ["topk", points, dim, queries, k, precision, threads, out] => {
            use_threads(threads);
            let (points, k) = (read(points, dim.parse().unwrap()), k.parse().unwrap());
            let rows: Vec<u32> = (0..queries.parse().unwrap()).collect();
            let queries = points.gather(&rows);
            let keep = |indices: &Matrix<u32>| write_u32(out, indices.as_slice());
            if *precision == "float32" {
                serve(|| topk(&queries, &points, k, Metric::Dot).unwrap().indices, keep);
            } else {
                let scale = SearchScale::of(&points).unwrap();
                let codes = Codes::pack(&scale.codes(&points).unwrap());
                let find = || topk_codes(&scale.codes(&queries).unwrap(), &codes, k).unwrap().indices;
                serve(find, keep);
            }
        }
        // `cargo test` runs benches without arguments.
        _ => println!("usage: stages embed|topk ..., see the file"),
    }
}

fn use_threads(threads: &str) {
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse().unwrap()).build_global().unwrap();
}

/// Runs `stage` for each line of standard input; `keep` writes the last result.
fn serve<T>(stage: impl Fn() -> T, keep: impl Fn(&T)) {
    println!("{{\"ready\": true}}");
    let mut last = None;
    for _ in std::io::stdin().lines() {
        let started = Instant::now();
        last = Some(stage());
        println!("{{\"seconds\": {}}}", started.elapsed().as_secs_f64());
    }
    last.iter().for_each(keep);
}

fn read(path: &str, dim: usize) -> Matrix<f32> {
    let bytes = std::fs::read(path).unwrap();
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    Matrix::try_from_vec(values.len() / dim, dim, values).unwrap()
}

fn write_u32(path: &str, values: &[u32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

fn write(path: &str, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}
