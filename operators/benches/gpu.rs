//! One stage of the job on a GPU in a warm process, driven over standard input; see `benchmarks/gpu.py`.
//!
//!     gpu lengths FOLDER PAPERS.parquet OUT.json
//!     gpu kernels JOBS.json
//!     gpu embed CASES.json
//!     gpu search DIMENSIONS QUERIES K OUT
//!     gpu kmeans ROWS DIMENSIONS CLUSTERS
//!     gpu fit ROWS DIMENSIONS CENTRES LIMIT_SECONDS
//!
//! Prints a line of JSON when it is ready, then reads lines, `go` or `go CASE`, and answers each with a line of JSON:
//! `each` has the seconds of each thing that was measured. A call of a GPU returns early; all times are taken after it
//! has finished. `THEMA_BENCH_GPU=emulated` takes the emulator for the GPU, to test this without one.
//!
//! - `lengths` (no protocol) writes how many tokens each paper has, `{title}: {abstract}`, at most 512.
//! - `kernels` runs the kernels of kind CASE as JOBS says; see [`Job`]. One answer has them all.
//! - `embed` encodes texts; CASES is an object of [`Case`]s by name.
//! - `search`, with a case `ROWS int8|float16|bits`, finds the K nearest of so many points for each query, with all on the
//!   GPU, and with copies to and from it; the rows found are written to OUT.ROWS.PRECISION.u32. Points: [`points`].
//! - `kmeans` iterates on such points from the first of them, and seeds as many clusters by k-means++.
//! - `fit` fits a model to such points with trivial texts, and labels others with it.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)] // a benchmark: it may fail by panicking

#[path = "../../kernels/tests/support/emulator.rs"]
mod emulator;

use arrow::array::AsArray;
use half::f16;
use kernels::gpu::attention::{Bias, Work, attention};
use kernels::gpu::float8::{self, Float8Rows};
use kernels::gpu::linear::{Activation, Linear};
use kernels::gpu::norm::{LayerNorm, Tables};
use kernels::gpu::pool::{Offsets, Pool, pool};
use kernels::gpu::search::{Points, Rows as SearchRows, topk_bits, topk_codes, topk_halves};
use kernels::gpu::{Buffer, Gpu, Half, Indices};
use kernels::kmeans::{Init, KMeansParams, kmeans};
use kernels::pool::Pooling;
use kernels::search_codes::SearchScale;
use kernels::topk::Neighbours;
use kernels::{Device, Matrix, quantize};
use operators::assign::LabelConfig;
use operators::clusterers::ClustererConfig;
use operators::clusterers::hdbscan::HdbscanConfig;
use operators::encoders::{Encoder, EncoderOptions, WeightPrecision};
use operators::fit::{FitConfig, Means, Observer, Rows, fit};
use operators::model::{EncoderConfig, Settings};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["lengths", folder, papers, out] => lengths(folder, papers, out),
        ["kernels", jobs] => kernels(&open(), jobs),
        ["embed", cases] => embed(&open(), cases),
        ["search", dim, queries, k, out] => {
            search(&open(), dim.parse().unwrap(), queries.parse().unwrap(), k.parse().unwrap(), out);
        }
        ["kmeans", rows, dim, clusters] => {
            cluster(&open(), rows.parse().unwrap(), dim.parse().unwrap(), clusters.parse().unwrap());
        }
        ["fit", rows, dim, centres, limit] => {
            let limit = Duration::from_secs_f64(limit.parse().unwrap());
            fit_points(&open(), rows.parse().unwrap(), dim.parse().unwrap(), centres.parse().unwrap(), limit);
        }
        // `cargo test` runs benches without arguments.
        _ => println!("usage: gpu lengths|kernels|embed|search|kmeans|fit ..., see the file"),
    }
}

/// The first GPU.
fn open() -> Arc<Gpu> {
    if std::env::var("THEMA_BENCH_GPU").as_deref() == Ok("emulated") {
        emulator::load();
    }
    Gpu::open(0).unwrap()
}

/// Says that it is ready, and answers each line of standard input by what `stage` makes of its case.
fn serve(mut stage: impl FnMut(&str) -> Value) {
    println!("{}", json!({"ready": true}));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        println!("{}", stage(line.strip_prefix("go").unwrap_or(&line).trim()));
    }
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let started = Instant::now();
    let done = work();
    (started.elapsed().as_secs_f64(), done)
}

/// How often work of so many seconds is done for one measurement.
fn times(once: f64) -> usize {
    (0.03 / once).clamp(1.0, 300.0) as usize
}

fn read_json<T: serde::de::DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

// Lengths of papers.

fn lengths(folder: &str, papers: &str, out: &str) {
    let options = EncoderOptions { max_length: Some(512), ..EncoderOptions::default() };
    let encoder = Encoder::load(Path::new(folder), &options, &Device::cpu()).unwrap();
    let file = std::fs::File::open(papers).unwrap();
    let mut texts = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| {
            let column = batch.column_by_name(name).unwrap();
            arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap()
        };
        let (titles, abstracts) = (column("title"), column("abstract"));
        let pairs = titles.as_string::<i32>().iter().zip(abstracts.as_string::<i32>());
        texts.extend(pairs.map(|(t, a)| format!("{}: {}", t.unwrap_or_default(), a.unwrap_or_default())));
    }
    let tokens = encoder.tokenize(&texts).unwrap();
    let lengths: Vec<usize> = tokens.offsets.windows(2).map(|text| text[1] - text[0]).collect();
    std::fs::write(out, json!(lengths).to_string()).unwrap();
}

// Single kernels.

/// A kernel and its shapes, in float16 where nothing else is said.
#[derive(Deserialize)]
#[serde(tag = "kernel", rename_all = "snake_case")]
enum Job {
    /// rows × inputs to rows × columns.
    Linear { name: String, rows: usize, columns: usize, inputs: usize, gelu: bool },
    /// The same layer in 8-bit floats.
    LinearFloat8 { name: String, rows: usize, columns: usize, inputs: usize, gelu: bool },
    /// The inputs of one.
    Float8Rows { name: String, tokens: usize, width: usize },
    /// Texts of one length.
    Attention { name: String, tokens: usize, length: usize, heads: usize, width: usize },
    /// Residual and layer norm.
    AddNorm { name: String, tokens: usize, width: usize },
    /// Embeddings and layer norm.
    EmbedNorm { name: String, tokens: usize, width: usize },
    /// The mean of texts of one length, scaled to length 1.
    Pool { name: String, tokens: usize, length: usize, width: usize },
}

type Run = Box<dyn FnMut() -> kernels::Result<()>>;

impl Job {
    fn kind(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::LinearFloat8 { .. } => "linear_float8",
            Self::Float8Rows { .. } => "float8_rows",
            Self::Attention { .. } => "attention",
            Self::AddNorm { .. } => "add_norm",
            Self::EmbedNorm { .. } => "embed_norm",
            Self::Pool { .. } => "pool",
        }
    }

    /// Whether the GPU has the kernel.
    fn is_served(&self, gpu: &Gpu) -> bool {
        !matches!(self, Self::LinearFloat8 { .. } | Self::Float8Rows { .. }) || float8::serve(gpu)
    }

    fn prepare(&self, gpu: &Arc<Gpu>) -> (&str, Run) {
        match *self {
            Self::Linear { ref name, rows, columns, inputs, gelu } => {
                let (weight, activation) = layer(columns, inputs, gelu);
                let layer = Linear::new(gpu, Half::Float16, &weight, &numbers(columns), activation).unwrap();
                let (x, mut out) = (halves(gpu, rows * inputs), gpu.zeros(rows * columns).unwrap());
                (name, Box::new(move || layer.apply(&x, rows, &mut out)))
            }
            Self::LinearFloat8 { ref name, rows, columns, inputs, gelu } => {
                let (weight, activation) = layer(columns, inputs, gelu);
                let layer = Linear::float8(gpu, &weight, &numbers(columns), activation).unwrap();
                let mut x = Float8Rows::new(gpu, rows, inputs).unwrap();
                x.write(&halves(gpu, rows * inputs), rows, inputs).unwrap();
                let mut out = gpu.zeros(rows * columns).unwrap();
                (name, Box::new(move || layer.apply(&x, rows, &mut out)))
            }
            Self::Float8Rows { ref name, tokens, width } => {
                let x = halves(gpu, tokens * width);
                let mut out = Float8Rows::new(gpu, tokens, width).unwrap();
                (name, Box::new(move || out.write(&x, tokens, width)))
            }
            Self::Attention { ref name, tokens, length, heads, width } => {
                let offsets: Vec<usize> = (0..=tokens / length).map(|text| text * length).collect();
                let mut work = Work::new(gpu, tokens, offsets.len(), heads).unwrap();
                work.list(&offsets).unwrap();
                let (x, mut out) =
                    (halves(gpu, 3 * tokens * heads * width), gpu.zeros(tokens * heads * width).unwrap());
                let half = Half::Float16;
                (name, Box::new(move || attention(half, &x, &mut out, width, &work, &Bias::None)))
            }
            Self::AddNorm { ref name, tokens, width } => {
                let norm = norm(gpu, width);
                let (mut x, residual) = (halves(gpu, tokens * width), halves(gpu, tokens * width));
                (name, Box::new(move || norm.add(&mut x, &residual, tokens)))
            }
            Self::EmbedNorm { ref name, tokens, width } => {
                let (words, positions) = (30_522.min(tokens), 512.min(tokens));
                let (norm, half) = (norm(gpu, width), Half::Float16);
                let tables =
                    Tables::new(gpu, half, &numbers(words * width), &numbers(positions * width)).unwrap();
                let of = |rows: usize, step: usize| {
                    let mut indices = Indices::new(gpu, tokens, rows).unwrap();
                    indices.write((0..tokens).map(|token| token * step % rows)).unwrap();
                    indices
                };
                let (ids, positions) = (of(words, 7919), of(positions, 1));
                let mut out = gpu.zeros(tokens * width).unwrap();
                (name, Box::new(move || norm.embed(&tables, &ids, &positions, tokens, &mut out)))
            }
            Self::Pool { ref name, tokens, length, width } => {
                let offsets: Vec<usize> = (0..=tokens / length).map(|text| text * length).collect();
                let mut there = Offsets::new(gpu, tokens, tokens / length).unwrap();
                there.write(&offsets).unwrap();
                let settings =
                    Pool { pooling: Pooling::Mean, skipped_tokens: 0, normalise: true, dimensions: width };
                let (x, mut out) = (halves(gpu, tokens * width), gpu.zeros(tokens / length * width).unwrap());
                let half = Half::Float16;
                (name, Box::new(move || pool(half, &settings, &x, width, &there, Some(&mut out), None)))
            }
        }
    }
}

/// A dense layer's weight, and what follows it.
fn layer(columns: usize, inputs: usize, gelu: bool) -> (Vec<f32>, Activation) {
    let weight = numbers(columns * inputs).iter().map(|v| v / (inputs as f32).sqrt()).collect();
    (weight, if gelu { Activation::Gelu } else { Activation::None })
}

fn norm(gpu: &Arc<Gpu>, width: usize) -> LayerNorm {
    LayerNorm::new(gpu, Half::Float16, &numbers(width), &numbers(width), 1e-12).unwrap()
}

/// Numbers from −1 to 1: tensor cores are faster on zeros.
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).into_par_iter().map(|i| uniform(mix(i))).collect()
}

/// The same as halves on the GPU, in repeats of a million.
fn halves(gpu: &Arc<Gpu>, len: usize) -> Buffer<u16> {
    let part: Vec<u16> = numbers(len.min(1 << 20)).iter().map(|&v| f16::from_f32(v).to_bits()).collect();
    let all: Vec<u16> = (0..len).into_par_iter().map(|i| part[i % part.len()]).collect();
    gpu.upload(&all).unwrap()
}

fn kernels(gpu: &Arc<Gpu>, jobs: &str) {
    let jobs: Vec<Job> = read_json(jobs);
    let mut ready: Option<(&str, Vec<(&str, Run)>)> = None;
    serve(|kind| {
        if ready.as_ref().is_none_or(|(ready, _)| *ready != kind) {
            drop(ready.take());
            let is_ours = |job: &&Job| job.kind() == kind && job.is_served(gpu);
            let of_kind: Vec<&Job> = jobs.iter().filter(is_ours).collect();
            let runs = of_kind.iter().map(|job| job.prepare(gpu)).collect();
            ready = Some((of_kind.first().map_or("", |job| job.kind()), runs));
        }
        let (_, runs) = ready.as_mut().unwrap();
        let each = runs.iter_mut().map(|(name, run)| {
            // Recorded, so that the time is the kernel's, not that of asking for it.
            let mut measure = |times: usize| {
                // SAFETY: `run` has its buffers, and nobody else has them.
                let mut recording = unsafe { gpu.record(|| (0..times).try_for_each(|_| run())) }.unwrap();
                gpu.synchronize().unwrap();
                let (taken, ()) = seconds(|| {
                    recording.replay().unwrap();
                    gpu.synchronize().unwrap();
                });
                taken / times as f64
            };
            measure(1);
            let once = measure(1);
            (name.to_string(), json!(measure(times(once))))
        });
        json!({"each": each.collect::<serde_json::Map<String, Value>>()})
    });
}

// Encoders.

/// An encoder's folder and its precision, a list of texts as JSON, and where their vectors are written as f32.
#[derive(Deserialize)]
struct Case {
    folder: String,
    weights: Option<WeightPrecision>,
    texts: String,
    out: String,
}

fn embed(gpu: &Arc<Gpu>, cases: &str) {
    let cases: BTreeMap<String, Case> = read_json(cases);
    let device = Device::Cuda(vec![Arc::clone(gpu)]);
    let mut encoders: BTreeMap<_, Encoder> = BTreeMap::new();
    let mut all_texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    serve(|case| {
        let Case { folder, weights, texts, out } = &cases[case];
        let texts = all_texts.entry(texts).or_insert_with(|| read_json(texts));
        let encoder = encoders.entry((folder, weights.map(WeightPrecision::name))).or_insert_with(|| {
            let options = EncoderOptions { weights: *weights, ..EncoderOptions::default() };
            Encoder::load(Path::new(folder), &options, &device).unwrap()
        });
        let (tokenize, tokens) = seconds(|| encoder.tokenize(texts).unwrap());
        let (encode_tokens, _) = seconds(|| encoder.encode_tokens(&tokens).unwrap());
        let (encode, encoded) = seconds(|| encoder.encode(texts).unwrap());
        write_f32(out, encoded.vectors.as_slice());
        let each = json!({"tokenize": tokenize, "gpu": encode_tokens, "encode": encode});
        json!({"each": each, "tokens": tokens.ids.len()})
    });
}

// Search.

/// Points of one number of rows, made ready to be searched.
struct Prepared {
    rows: usize,
    queries: Matrix<f32>,
    scale: SearchScale,
    codes: Points,
    halves: Points,
    bits: Points,
}

impl Prepared {
    fn new(gpu: &Arc<Gpu>, rows: usize, dim: usize, queries: usize) -> Self {
        let (made, points) = seconds(|| points(0, rows, dim, centres(rows)));
        let (uploaded, prepared) = seconds(|| {
            let scale = SearchScale::of(&points).unwrap();
            Self {
                rows,
                queries: self::points(rows, queries, dim, centres(rows)),
                codes: Points::codes(gpu, &scale.codes(&points).unwrap()).unwrap(),
                halves: Points::halves(gpu, &points).unwrap(),
                bits: Points::bits(gpu, &quantize::ubinary(&points).unwrap()).unwrap(),
                scale,
            }
        });
        eprintln!("{rows} points: made in {made:.1} s, coded and uploaded in {uploaded:.1} s");
        prepared
    }
}

fn search(gpu: &Arc<Gpu>, dim: usize, queries: usize, k: usize, out: &str) {
    let mut ready: Option<Prepared> = None;
    serve(|case| {
        let (rows, precision) = case.split_once(' ').unwrap();
        let rows = rows.parse().unwrap();
        if ready.as_ref().is_none_or(|ready| ready.rows != rows) {
            drop(ready.take());
            ready = Some(Prepared::new(gpu, rows, dim, queries));
        }
        let prepared = ready.as_ref().unwrap();
        let (queries, scale) = (&prepared.queries, prepared.scale);
        let codes = scale.codes(queries).unwrap();
        let bits = quantize::ubinary(queries).unwrap();
        let (points, there) = match precision {
            "int8" => (&prepared.codes, SearchRows::codes(gpu, &codes).unwrap()),
            "float16" => (&prepared.halves, SearchRows::halves(gpu, queries).unwrap()),
            "bits" => (&prepared.bits, SearchRows::bits(gpu, &bits).unwrap()),
            other => panic!("unknown precision {other}"),
        };
        let find = |times: usize| {
            let (taken, ()) = seconds(|| {
                for _ in 0..times {
                    points.nearest(&there, k).unwrap();
                }
                gpu.synchronize().unwrap();
            });
            taken / times as f64
        };
        let alone = find(times(find(1)));
        let (whole, found) = seconds(|| match precision {
            "int8" => rows_of(topk_codes(&scale.codes(queries).unwrap(), points, k).unwrap()),
            "float16" => rows_of(topk_halves(queries, points, k).unwrap()),
            _ => rows_of(topk_bits(&quantize::ubinary(queries).unwrap(), points, k).unwrap()),
        });
        write_u32(&format!("{out}.{rows}.{precision}.u32"), found.as_slice());
        json!({"each": {precision: alone, format!("{precision} with copies"): whole}})
    });
}

fn rows_of<S>(found: Neighbours<S>) -> Matrix<u32> {
    found.indices
}

// Points that `benchmarks/peers/points.py` makes too, bit for bit.

/// Rows `first..first + rows` of endless points around `centres` places, in turns.
fn points(first: usize, rows: usize, dim: usize, centres: usize) -> Matrix<f32> {
    assert!((first + rows) * dim < 1 << 32, "a number's place fits 32 bits");
    let centre: Vec<f32> =
        (0..(centres * dim) as u32).map(|i| uniform(mix(mix(i).wrapping_add(1)))).collect();
    let value = |i: usize| centre[i / dim % centres * dim + i % dim] + 0.5 * uniform(mix(i as u32));
    let values = (first * dim..(first + rows) * dim).into_par_iter().map(value).collect();
    Matrix::try_from_vec(rows, dim, values).unwrap()
}

fn centres(rows: usize) -> usize {
    (rows / 250).clamp(16, 4096)
}

/// A hash of 32 bits (lowbias32, Wellons 2018).
fn mix(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// A number from −1 to 1, exact in f32.
fn uniform(hash: u32) -> f32 {
    (hash >> 8) as f32 * 2f32.powi(-23) - 1.0
}

// k-means.

fn cluster(gpu: &Arc<Gpu>, rows: usize, dim: usize, clusters: usize) {
    const ITERATIONS: u32 = 10;
    let device = Device::Cuda(vec![Arc::clone(gpu)]);
    let points = points(0, rows, dim, centres(rows));
    let run = |max_iter, init| {
        let params = KMeansParams { clusters, max_iter, tolerance: -1.0, init };
        seconds(|| kmeans(&points, &params, &device, &|| ControlFlow::Continue(())).unwrap())
    };
    let first = || Init::At(points.gather(&(0..clusters as u32).collect::<Vec<_>>()));
    serve(|_| {
        // What is not iterating (checking, copying, the last pass) is in both.
        let (one, _) = run(1, first());
        let (all, found) = run(1 + ITERATIONS, first());
        let (seeding, _) = run(1, Init::PlusPlus { runs: 1, seed: 1, candidates: None });
        let iterations = f64::from(found.iterations.saturating_sub(1).max(1));
        json!({ "each": { "iteration": (all - one) / iterations, "whole": all, "seeds": seeding - one } })
    });
}

// A whole fit.

/// Notes when each stage began, and stops the fit at its limit.
struct Watch {
    stages: Mutex<Vec<(&'static str, Instant)>>,
    limit: Instant,
}

impl Observer for Watch {
    fn begin(&self, stage: &'static str, _: u64) {
        let mut stages = self.stages.lock().unwrap();
        if stages.last().is_none_or(|last| last.0 != stage) {
            eprintln!("fit: {stage}");
            stages.push((stage, Instant::now()));
        }
    }

    fn advance(&self, _: u64) -> ControlFlow<()> {
        if Instant::now() < self.limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn fit_points(gpu: &Arc<Gpu>, rows: usize, dim: usize, centres: usize, limit: Duration) {
    let device = Device::Cuda(vec![Arc::clone(gpu)]);
    let hdbscan =
        HdbscanConfig { min_cluster_size: (rows / centres / 10).max(5), ..HdbscanConfig::default() };
    let clusterer = ClustererConfig::Hdbscan(hdbscan);
    // No peer lays its points out twice.
    let config = FitConfig { clusterer, stability_seeds: 0, ..FitConfig::default() };
    serve(|_| {
        let texts: Vec<String> =
            (0..rows).map(|row| format!("topic{} word{}", row % centres, row % 50)).collect();
        let sample = Rows {
            ids: (0..rows).map(|row| format!("row {row}")).collect(),
            shown: texts.clone(),
            texts,
            dates: Vec::new(),
            vectors: points(0, rows, dim, centres),
            weights: Vec::new(),
        };
        let settings = Settings {
            encoder: EncoderConfig { column: Some("embedding".into()), ..EncoderConfig::default() },
            text: Some("{text}".into()),
            id: Some("id".into()),
            ..Settings::default()
        };
        let start = Instant::now();
        let watch = Watch { stages: Mutex::new(vec![("reading", start)]), limit: start + limit };
        let fitted =
            fit(sample, settings, None, &config, &Means { observer: &watch, ..Means::only(&device) });
        let end = Instant::now();
        let stages = watch.stages.into_inner().unwrap();
        let ends = stages.iter().skip(1).map(|next| next.1).chain([end]);
        let stages: serde_json::Map<String, Value> = stages
            .iter()
            .zip(ends)
            .map(|(stage, next)| (stage.0.to_owned(), json!((next - stage.1).as_secs_f64())))
            .collect();
        let model = match fitted {
            Ok(model) => model,
            Err(error) => return json!({"failed": error.to_string(), "stages": stages}),
        };
        let new = points(rows, rows.min(200_000), dim, centres);
        let assigner = model.assigner(LabelConfig::default(), &device).unwrap();
        assigner.assign(&new).unwrap();
        let (label, labels) = seconds(|| assigner.assign(&new).unwrap());
        let fit = (end - start).as_secs_f64();
        json!({
            "each": {"fit": fit, "label": label},
            "stages": stages,
            "labels": labels.len(),
            "topics": model.topics.len(),
            "outliers": model.metrics["outlier_share"],
        })
    });
}

fn write_u32(path: &str, values: &[u32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

fn write_f32(path: &str, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}
