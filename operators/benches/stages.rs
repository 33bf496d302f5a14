//! One stage of the job in a warm process, driven over standard input, so that a script can interleave it with other
//! programs: see `benchmarks/README.md`.
//!
//!     stages embed FOLDER float32|int8 THREADS TEXTS.json OUT.f32
//!     stages tokenize FOLDER THREADS TEXTS.json OUT.u32
//!     stages pool POINTS.f32 DIMENSIONS TOKENS mean|max THREADS OUT.f32
//!     stages quantize POINTS.f32 DIMENSIONS int8|uint8|binary|ubinary THREADS OUT.u8
//!     stages topk POINTS.f32 DIMENSIONS QUERIES K float32|int8|binary|screened|inverted THREADS OUT.u32
//!     stages umap POINTS.f32 DIMENSIONS N_NEIGHBORS THREADS OUT.f32
//!     stages hdbscan POINTS.f32 DIMENSIONS MIN_CLUSTER_SIZE eom|leaf THREADS OUT.i32
//!     stages kmeans POINTS.f32 DIMENSIONS CLUSTERS ITERATIONS THREADS OUT.f32
//!
//! `topk` searches for the first QUERIES points among all, by dot product, or by Hamming distance for `binary`; codes
//! of the points are made before, those of the queries in the stage; `screened` is codes and then floats, as UMAP's
//! neighbours are found up to 50,000 rows, `inverted` as in more. `umap` goes from the points to 5 dimensions. `pool`
//! takes the points for tokens of texts of TOKENS each. Ranges for `quantize` are the points' own, measured before.
//! `kmeans` iterates from the first rows; with 0 ITERATIONS it is one run from k-means++.
//!
//! Prints a line of JSON when it is ready, then runs the stage once for each line that it reads, and prints how many
//! seconds that took; the last result lies in OUT, as little-endian numbers.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)] // a benchmark: it may fail by panicking

use kernels::kmeans::{Init, KMeansParams, kmeans};
use kernels::pool::{Pooling, pool};
use kernels::quantize::{self, Ranges, Rule};
use kernels::search_codes::SearchScale;
use kernels::topk::{BitCodes, Codes, InvertedFile, Metric, Screened, topk, topk_bits, topk_codes};
use kernels::{Device, Isa, Matrix};
use operators::clusterers::Clusterer;
use operators::clusterers::hdbscan::{ClusterSelectionMethod, Hdbscan, HdbscanConfig};
use operators::encoders::{Encoder, EncoderOptions};
use operators::reducers::{UmapConfig, neighbour_graph};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["embed", folder, weights, threads, texts, out] => {
            use_threads(threads);
            let options =
                EncoderOptions { weights: Some(weights.parse().unwrap()), ..EncoderOptions::default() };
            let encoder = Encoder::load(Path::new(folder), &options, &Device::cpu()).unwrap();
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
            } else if *precision == "screened" {
                let points = Screened::try_new(&points).unwrap();
                serve(|| points.topk(&queries, k).unwrap().indices, keep);
            } else if *precision == "inverted" {
                let start = Instant::now();
                let file = InvertedFile::try_new(&points, k, 0.99, &|| true).unwrap();
                let (cells, probes, recall) = (file.cells(), file.probes(), file.recall());
                eprintln!(
                    "{cells} cells, {probes} probed, recall {recall:.4}, made in {:?}",
                    start.elapsed()
                );
                let rows = file.order();
                let queries = points.gather(&rows[..queries.rows()]);
                serve(|| file.topk(&queries, k).unwrap().indices, keep);
            } else if *precision == "binary" {
                let bits = BitCodes::pack(&quantize::ubinary(&points).unwrap());
                let find = || topk_bits(&quantize::ubinary(&queries).unwrap(), &bits, k).unwrap().indices;
                serve(find, keep);
            } else {
                let scale = SearchScale::of(&points).unwrap();
                let codes = Codes::pack(&scale.codes(&points).unwrap());
                let find = || topk_codes(&scale.codes(&queries).unwrap(), &codes, k).unwrap().indices;
                serve(find, keep);
            }
        }
        ["tokenize", folder, threads, texts, out] => {
            use_threads(threads);
            let encoder =
                Encoder::load(Path::new(folder), &EncoderOptions::default(), &Device::cpu()).unwrap();
            let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts).unwrap()).unwrap();
            serve(
                || encoder.tokenize(&texts).unwrap(),
                |tokens| {
                    let ids: Vec<u32> = (0..tokens.texts()).flat_map(|i| tokens.text(i).to_vec()).collect();
                    write_u32(out, &ids);
                },
            );
        }
        ["quantize", points, dim, precision, threads, out] => {
            use_threads(threads);
            let points = read(points, dim.parse().unwrap());
            let ranges = Ranges::of(&points).unwrap();
            let signed = |codes: Matrix<i8>| codes.into_vec().into_iter().map(|code| code as u8).collect();
            let keep = |codes: &Matrix<u8>| std::fs::write(out, codes.as_slice()).unwrap();
            let keep_signed =
                |codes: &Matrix<i8>| std::fs::write::<_, Vec<u8>>(out, signed(codes.clone())).unwrap();
            match *precision {
                "int8" => serve(|| quantize::int8(&points, &ranges, Rule::Clipped).unwrap(), keep_signed),
                "uint8" => serve(|| quantize::uint8(&points, &ranges, Rule::Clipped).unwrap(), keep),
                "binary" => serve(|| quantize::binary(&points).unwrap(), keep_signed),
                _ => serve(|| quantize::ubinary(&points).unwrap(), keep),
            }
        }
        ["pool", points, dim, tokens, pooling, threads, out] => {
            use_threads(threads);
            let dim: usize = dim.parse().unwrap();
            let points = read(points, dim);
            let text = dim * tokens.parse::<usize>().unwrap();
            let pooling = if *pooling == "max" { Pooling::Max } else { Pooling::Mean };
            let pool_all = || {
                let mut pooled = vec![0f32; points.as_slice().len() / text * dim];
                let texts = points.as_slice().par_chunks_exact(text);
                texts
                    .zip(pooled.par_chunks_mut(dim))
                    .for_each(|(text, out)| pool(Isa::detect(), pooling, text, out));
                pooled
            };
            serve(pool_all, |pooled| write(out, pooled));
        }
        ["umap", points, dim, n_neighbors, threads, out] => {
            use_threads(threads);
            let points = read(points, dim.parse().unwrap());
            let config = UmapConfig { n_neighbors: n_neighbors.parse().unwrap(), ..UmapConfig::default() };
            let reduce = || {
                let (graph, _) =
                    neighbour_graph(&points, &config, &Device::cpu(), &|_, _| ControlFlow::Continue(()))
                        .unwrap();
                let cpu = &Device::cpu();
                config.fit(cpu, &graph, &points, &|_, _| ControlFlow::Continue(())).unwrap().embedding
            };
            serve(reduce, |places| write(out, places.as_slice()));
        }
        ["hdbscan", points, dim, min_cluster_size, method, threads, out] => {
            use_threads(threads);
            let points = read(points, dim.parse().unwrap());
            let config = HdbscanConfig {
                min_cluster_size: min_cluster_size.parse().unwrap(),
                cluster_selection_method: match *method {
                    "leaf" => ClusterSelectionMethod::Leaf,
                    _ => ClusterSelectionMethod::Eom,
                },
                ..HdbscanConfig::default()
            };
            let clusterer = Hdbscan::try_new(config).unwrap();
            serve(
                || clusterer.fit(&points, &Device::cpu(), &|| ControlFlow::Continue(())).unwrap().labels,
                |labels| {
                    let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
                    std::fs::write(out, bytes).unwrap();
                },
            );
        }
        ["kmeans", points, dim, clusters, iterations, threads, out] => {
            use_threads(threads);
            let points = read(points, dim.parse().unwrap());
            let (clusters, iterations) = (clusters.parse().unwrap(), iterations.parse().unwrap());
            let params = if iterations > 0 {
                let init = Init::At(points.gather(&(0..clusters as u32).collect::<Vec<_>>()));
                KMeansParams { clusters, max_iter: iterations, tolerance: 0.0, init }
            } else {
                let init = Init::PlusPlus { runs: 1, seed: 42, candidates: None };
                KMeansParams { clusters, max_iter: 300, tolerance: 1e-4, init }
            };
            let stop = || ControlFlow::Continue(());
            let find = || kmeans(&points, &params, &Device::cpu(), &stop).unwrap().centroids;
            serve(find, |centroids| write(out, centroids.as_slice()));
        }
        // `cargo test` runs benches without arguments.
        _ => {
            println!("usage: stages embed|tokenize|pool|quantize|topk|umap|hdbscan|kmeans ..., see the file")
        }
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
