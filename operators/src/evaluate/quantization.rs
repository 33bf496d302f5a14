//! The audit of quantization: the same fit on every form in which the same embeddings may be stored.
//!
//! Layouts differ from seed to seed even on equal data, so a form is judged beside that: its agreement with float32
//! under the same seed is to be read next to float32's agreement with itself under other seeds. The neighbours of each
//! form are searched once and laid out once a seed.

use super::agreement;
use crate::clusterers::ClustererConfig;
use crate::fit::Observer;
use crate::reducers::{UmapConfig, nearest_rows};
use crate::{Error, Result};
use kernels::quantize::{self, Ranges, Rule};
use kernels::search_codes::SearchScale;
use kernels::topk::Neighbours;
use kernels::{Device, Matrix, norm::unit_rows};
use rayon::prelude::*;
use serde::Serialize;

/// A form of embeddings: what UMAP is given as their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As they are.
    Float32,
    /// int8 codes, taken as numbers.
    Int8,
    /// int8 codes by the rule that wraps around.
    Int8Wrapped,
    /// uint8 codes, taken as numbers.
    Uint8,
    /// uint8 codes by the rule that wraps around.
    Uint8Wrapped,
    /// int8 codes, turned back into the middle of what each stands for.
    Int8Dequantized,
    /// The codes that thema searches with: one scale for all dimensions.
    SearchCodes,
    /// Bits as −1 and 1, whose cosine falls with the Hamming distance.
    Binary,
}

impl Form {
    /// All forms; the first is what the others are compared with.
    pub const ALL: [Self; 8] = [
        Self::Float32,
        Self::Int8,
        Self::Int8Wrapped,
        Self::Uint8,
        Self::Uint8Wrapped,
        Self::Int8Dequantized,
        Self::SearchCodes,
        Self::Binary,
    ];

    /// The name that tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
            Self::Int8Wrapped => "int8, wrapped",
            Self::Uint8 => "uint8",
            Self::Uint8Wrapped => "uint8, wrapped",
            Self::Int8Dequantized => "int8, dequantized",
            Self::SearchCodes => "search codes",
            Self::Binary => "binary",
        }
    }

    /// The numbers (n × d) of `vectors` (n × d) in this form; 8-bit storage codes by `ranges` (d).
    pub fn of(self, vectors: &Matrix<f32>, ranges: &Ranges) -> Result<Matrix<f32>> {
        let unsigned = |rule| -> Result<Matrix<f32>> {
            numbers(&quantize::uint8(vectors, ranges, rule)?, |_, code| f32::from(code))
        };
        let signed = |rule| -> Result<Matrix<f32>> {
            numbers(&quantize::int8(vectors, ranges, rule)?, |_, code| f32::from(code))
        };
        match self {
            Self::Float32 => Ok(vectors.clone()),
            Self::Int8 => signed(Rule::Clipped),
            Self::Int8Wrapped => signed(Rule::Legacy),
            Self::Uint8 => unsigned(Rule::Clipped),
            Self::Uint8Wrapped => unsigned(Rule::Legacy),
            Self::Int8Dequantized => {
                let steps = ranges.steps();
                let codes = quantize::uint8(vectors, ranges, Rule::Clipped)?;
                // A code stands for the step above it, as it was rounded down.
                numbers(&codes, |j, code| (f32::from(code) + 0.5).mul_add(steps[j], ranges.min()[j]))
            }
            Self::SearchCodes => {
                let unit = unit_rows(vectors);
                numbers(&SearchScale::of(&unit)?.codes(&unit)?, |_, code| f32::from(code))
            }
            Self::Binary => {
                let signs = vectors.as_slice().iter().map(|&v| if v > 0.0 { 1.0 } else { -1.0 }).collect();
                Ok(Matrix::try_from_vec(vectors.rows(), vectors.cols(), signs)?)
            }
        }
    }
}

/// Turns each code into a number, by its column.
fn numbers<T: Copy>(codes: &Matrix<T>, number: impl Fn(usize, T) -> f32) -> Result<Matrix<f32>> {
    let cols = codes.cols().max(1);
    let values = codes.as_slice().iter().enumerate().map(|(i, &code)| number(i % cols, code)).collect();
    Ok(Matrix::try_from_vec(codes.rows(), codes.cols(), values)?)
}

/// How an audit is made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditConfig {
    /// The layout; its seed is replaced by each of `seeds`.
    pub umap: UmapConfig,
    /// The clusterer.
    pub clusterer: ClustererConfig,
    /// The seeds that each form is laid out with; at least one.
    pub seeds: Vec<u64>,
}

/// What came of each form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// Rows that each fit had.
    pub rows: usize,
    /// Rows that the ranges of the 8-bit storage codes were measured on: every tenth.
    pub calibration_rows: usize,
    /// How it was made.
    pub config: AuditConfig,
    /// One for each form, in their order.
    pub forms: Vec<FormAudit>,
}

/// What came of one form; means are over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FormAudit {
    /// The form.
    pub form: Form,
    /// The share of the 10 nearest other rows in float32 that are among the 10 nearest in this form, 0 to 1. Of more
    /// than [`crate::reducers::EXACT_ROWS`] rows both searches find .99, which is then missing here too.
    pub recall_at_10: f64,
    /// The same of as many as the layout used.
    pub recall_at_k: f64,
    /// One for each seed.
    pub runs: Vec<Run>,
    /// The mean number of topics.
    pub topics: f64,
    /// Their standard deviation (of the sample; 0 for one seed).
    pub topics_deviation: f64,
    /// The mean share of rows without a topic, 0 to 1.
    pub outlier_share: f64,
    /// The mean AMI to float32 under the same seed; 1 for float32.
    pub ami_to_float32: f64,
    /// The mean AMI over all pairs of seeds; absent for one seed.
    pub ami_between_seeds: Option<f64>,
}

/// One fit. All AMI count the outliers as one group of their own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The seed of the layout.
    pub seed: u64,
    /// How many topics it found.
    pub topics: usize,
    /// The share of rows without a topic, 0 to 1.
    pub outlier_share: f64,
    /// The AMI of its labels with those of float32 under the same seed.
    pub ami_to_float32: f64,
}

/// Fits every form of `vectors` (n × d) with every seed.
///
/// Ranges are measured on every tenth row, as where embeddings are written in a stream: of the others some values fall
/// outside, and clip or wrap.
///
/// # Errors
/// As a fit; `Setting` without a seed; `Stopped` if `observer` breaks.
pub fn audit(
    vectors: &Matrix<f32>,
    config: AuditConfig,
    device: &Device,
    observer: &dyn Observer,
) -> Result<Audit> {
    if config.seeds.is_empty() {
        return Err(Error::setting("seeds", "0, expected at least 1"));
    }
    config.clusterer.check_rows(vectors.rows())?;
    vectors.check_finite()?;
    let clusterer = config.clusterer.build()?;
    let calibration: Vec<u32> = (0..vectors.rows() as u32).step_by(10).collect();
    let ranges = Ranges::of(&vectors.gather(&calibration))?;

    let fits = (Form::ALL.len() * config.seeds.len()) as u64;
    observer.begin("fits of the audit", fits);
    let mut done = 0;
    let go_on = |done: u64| {
        if observer.advance(done).is_break() { Err(Error::Stopped("the audit")) } else { Ok(()) }
    };
    let mut forms: Vec<FormAudit> = Vec::with_capacity(Form::ALL.len());
    let mut reference: Option<(Neighbours<f32>, Vec<Vec<i32>>)> = None;
    for form in Form::ALL {
        let points = form.of(vectors, &ranges)?;
        let near = nearest_rows(&points, &config.umap, device, &|_, _| observer.advance(done))?;
        let graph = config.umap.graph(&near.indices, &near.scores)?;
        let mut labels = Vec::with_capacity(config.seeds.len());
        for &seed in &config.seeds {
            let umap = UmapConfig { seed, ..config.umap.clone() };
            let places = umap.fit(device, &graph, &points, &|_, _| observer.advance(done))?.embedding;
            labels.push(clusterer.fit(&places, device, &|| observer.advance(done))?.labels);
            done += 1;
            go_on(done)?;
        }
        let (exact, expected) = reference.get_or_insert_with(|| (near.clone(), labels.clone()));
        forms.push(FormAudit::of(form, &config.seeds, [exact, &near], [expected, &labels])?);
    }
    Ok(Audit { rows: vectors.rows(), calibration_rows: calibration.len(), config, forms })
}

impl FormAudit {
    /// Judges what was found, beside what float32 gave: neighbours, and labels by seed.
    fn of(
        form: Form,
        seeds: &[u64],
        [exact, near]: [&Neighbours<f32>; 2],
        [expected, labels]: [&[Vec<i32>]; 2],
    ) -> Result<Self> {
        let ami = |a: &[i32], b: &[i32]| -> Result<f64> { Ok(agreement(a, b)?.ami) };
        let run = |((&seed, expected), labels): ((&u64, &Vec<i32>), &Vec<i32>)| -> Result<Run> {
            let outliers = labels.iter().filter(|label| **label < 0).count();
            Ok(Run {
                seed,
                topics: labels.iter().max().map_or(0, |last| usize::try_from(last + 1).unwrap_or(0)),
                outlier_share: outliers as f64 / labels.len().max(1) as f64,
                ami_to_float32: ami(expected, labels)?,
            })
        };
        let runs: Vec<Run> = seeds.iter().zip(expected).zip(labels).map(run).collect::<Result<_>>()?;
        let mut between = Vec::new();
        for (first, a) in labels.iter().enumerate() {
            for b in &labels[first + 1..] {
                between.push(ami(a, b)?);
            }
        }
        let topics: Vec<f64> = runs.iter().map(|run| run.topics as f64).collect();
        let of_runs = |value: fn(&Run) -> f64| mean(&runs.iter().map(value).collect::<Vec<f64>>());
        Ok(Self {
            form,
            recall_at_10: recall(exact, near, 10),
            recall_at_k: recall(exact, near, exact.indices.cols()),
            topics: mean(&topics),
            topics_deviation: deviation(&topics),
            outlier_share: of_runs(|run| run.outlier_share),
            ami_to_float32: of_runs(|run| run.ami_to_float32),
            ami_between_seeds: (!between.is_empty()).then(|| mean(&between)),
            runs,
        })
    }
}

/// The share of each row's `k` nearest others (fewer, where fewer were searched) that both found.
fn recall(exact: &Neighbours<f32>, near: &Neighbours<f32>, k: usize) -> f64 {
    let others = |near: &Neighbours<f32>, row: usize| -> Vec<u32> {
        let mut others: Vec<u32> =
            near.indices.row(row).iter().copied().filter(|&j| j as usize != row).collect();
        others.truncate(k.min(near.indices.cols() - 1));
        others.sort_unstable();
        others
    };
    let rows = exact.indices.rows();
    let counted = |row: usize| {
        let (expected, found) = (others(exact, row), others(near, row));
        let both = expected.iter().filter(|j| found.binary_search(j).is_ok()).count();
        (both as u64, expected.len() as u64)
    };
    let (both, all) = (0..rows).into_par_iter().map(counted).reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    both as f64 / all.max(1) as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation of the sample; 0 for one value.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusterers::hdbscan::HdbscanConfig;
    use std::ops::ControlFlow;
    use xxhash_rust::xxh3::xxh3_64;

    /// Rows around six directions, as far apart as noise allows.
    fn groups(rows: usize) -> Matrix<f32> {
        let dim = 32;
        let noise = |i: usize| (xxh3_64(&i.to_le_bytes()) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        let value = |i: usize| {
            let (row, column) = (i / dim, i % dim);
            noise(i) * 0.4 + if column % 6 == row % 6 { 1.0 } else { -0.1 }
        };
        Matrix::try_from_vec(rows, dim, (0..rows * dim).map(value).collect()).unwrap()
    }

    fn config(seeds: &[u64]) -> AuditConfig {
        AuditConfig {
            umap: UmapConfig { n_epochs: Some(100), ..UmapConfig::default() },
            clusterer: ClustererConfig::Hdbscan(HdbscanConfig {
                min_cluster_size: 60,
                ..HdbscanConfig::default()
            }),
            seeds: seeds.to_vec(),
        }
    }

    fn cpu() -> Device {
        Device::cpu()
    }

    #[test]
    fn groups_that_stand_apart_are_found_in_every_form_that_does_not_wrap() {
        let found = audit(&groups(600), config(&[1, 2, 3]), &cpu(), &()).unwrap();
        assert_eq!((found.rows, found.calibration_rows), (600, 60));
        assert_eq!(found.forms.iter().map(|form| form.form).collect::<Vec<_>>(), Form::ALL);
        for form in &found.forms {
            assert_eq!(form.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [1, 2, 3]);
            if matches!(form.form, Form::Int8Wrapped | Form::Uint8Wrapped) {
                // A tenth of the rows measures narrower ranges than the others fill: their ends meet.
                assert!(form.recall_at_10 < 0.9, "{form:?}");
                continue;
            }
            assert_eq!((form.topics, form.topics_deviation), (6.0, 0.0), "{form:?}");
            assert!(form.ami_to_float32 > 0.95 && form.ami_between_seeds.unwrap() > 0.95, "{form:?}");
        }
        let recall = |form: Form| found.forms.iter().find(|f| f.form == form).unwrap().recall_at_10;
        assert_eq!(recall(Form::Float32), 1.0);
        // Within a group all rows are about equally far, which makes recall a hard measure here.
        for form in [Form::Int8Dequantized, Form::SearchCodes] {
            assert!(
                recall(form) > 0.7 && recall(form) > recall(Form::Binary),
                "{}: {}",
                form.name(),
                recall(form)
            );
        }
    }

    #[test]
    fn a_code_turned_back_lies_within_half_a_step() {
        let vectors = groups(100);
        let ranges = Ranges::of(&vectors).unwrap();
        let back = Form::Int8Dequantized.of(&vectors, &ranges).unwrap();
        for (found, expected) in back.iter_rows().zip(vectors.iter_rows()) {
            for ((f, e), step) in found.iter().zip(expected).zip(ranges.steps()) {
                assert!((f - e).abs() <= 0.501 * step, "{f} {e} {step}");
            }
        }
    }

    #[test]
    fn values_outside_their_range_clip_or_wrap() {
        let vectors = Matrix::try_from_vec(1, 2, vec![1.5, 0.5]).unwrap();
        let ranges = Ranges::try_new(vec![0.0; 2], vec![1.0; 2]).unwrap();
        let first = |form: Form| form.of(&vectors, &ranges).unwrap().as_slice()[0];
        assert_eq!((first(Form::Uint8), first(Form::Int8)), (255.0, 127.0));
        // 382 modulo 256, and 254 modulo 256 as a signed byte.
        assert_eq!((first(Form::Uint8Wrapped), first(Form::Int8Wrapped)), (126.0, -2.0));
    }

    #[test]
    fn recall_counts_the_others_that_both_found() {
        let near = |rows: &[u32]| Neighbours {
            indices: Matrix::try_from_vec(2, rows.len() / 2, rows.to_vec()).unwrap(),
            scores: Matrix::zeros(2, rows.len() / 2),
        };
        // A row need not come first in its own list, nor be in it.
        let (exact, found) = (near(&[0, 5, 6, 7, 1, 2, 3, 4]), near(&[5, 0, 7, 9, 2, 4, 8, 9]));
        assert_eq!(recall(&exact, &found, 3), 4.0 / 6.0);
        assert_eq!(recall(&exact, &found, 1), 1.0);
    }

    #[test]
    fn an_audit_without_seeds_is_refused_and_one_that_is_stopped_stops() {
        assert!(audit(&groups(100), config(&[]), &cpu(), &()).unwrap_err().to_string().contains("seeds"));
        struct Stop;
        impl Observer for Stop {
            fn begin(&self, _: &'static str, _: u64) {}
            fn advance(&self, _: u64) -> ControlFlow<()> {
                ControlFlow::Break(())
            }
        }
        assert!(matches!(audit(&groups(100), config(&[1]), &cpu(), &Stop), Err(Error::Stopped(_))));
    }
}
