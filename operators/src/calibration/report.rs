//! What quantization would do to the embeddings at hand: coverage, clipping, the spread of values, bytes saved.

use crate::{Error, Result, quantize::Precision};
use kernels::Matrix;
use kernels::quantize::Ranges;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How well calibration ranges fit embeddings, and what a precision saves.
///
/// All counts are integers and all shares are made from them in order, so it is the same at any thread count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// What the embeddings are to be stored as.
    pub precision: Precision,
    /// The number of embeddings looked at.
    pub rows: u64,
    /// Their number of dimensions.
    pub dimensions: usize,
    /// The share of values with min ≤ x ≤ max, per dimension, then the mean over dimensions; 0–1.
    pub inside: f64,
    /// The dimension with the smallest share inside (the first of several).
    pub worst_dimension: usize,
    /// That dimension's share inside; 0–1.
    pub worst_inside: f64,
    /// The number of values below their range: 8-bit codes clip (or, by the legacy rule, wrap) them.
    pub below: u64,
    /// The number of values above their range.
    pub above: u64,
    /// The share of values outside their range; 0–1.
    pub clip_rate: f64,
    /// The smallest value of all.
    pub min: f32,
    /// The largest value of all.
    pub max: f32,
    /// How the values spread from `min` to `max`.
    pub histogram: Histogram,
    /// The size of the embeddings as 32-bit floats.
    pub float_bytes: u64,
    /// Their size in this precision.
    pub code_bytes: u64,
}

/// Counts in bins of equal width; the last bin includes its upper edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The lower edge of the first bin.
    pub lower: f32,
    /// The upper edge of the last bin.
    pub upper: f32,
    /// The number of values in each bin.
    pub counts: Vec<u64>,
}

/// Enough bins to see the shape of a distribution in a small picture.
const BINS: usize = 64;

/// How many rows one task counts: its counters of one dimension fit u32 with room to spare.
const ROWS_PER_TASK: usize = 1024;

impl CalibrationReport {
    /// Compares `embeddings` (n × d, n at least 1) with `ranges` (d).
    pub fn of(embeddings: &Matrix<f32>, ranges: &Ranges, precision: Precision) -> Result<Self> {
        let (rows, dim) = (embeddings.rows(), embeddings.cols());
        if rows == 0 || dim == 0 {
            return Err(Error::Unfit("calibration report: no embeddings, expected at least 1".into()));
        }
        if ranges.dim() != dim {
            let reason = format!("{} dimensions, expected {dim} as the embeddings have", ranges.dim());
            return Err(Error::setting("calibration ranges", reason));
        }
        let extremes = Ranges::of(embeddings)?;
        let min = extremes.min().iter().copied().fold(f32::INFINITY, f32::min);
        let max = extremes.max().iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let outside = Outside::count(embeddings, ranges);
        let inside: Vec<f64> = (0..dim)
            .map(|j| (rows as u64 - outside.below[j] - outside.above[j]) as f64 / rows as f64)
            .collect();
        let worst = (0..dim).fold(0, |worst, j| if inside[j] < inside[worst] { j } else { worst });
        let (below, above) = (outside.below.iter().sum::<u64>(), outside.above.iter().sum::<u64>());
        Ok(Self {
            precision,
            rows: rows as u64,
            dimensions: dim,
            inside: inside.iter().sum::<f64>() / dim as f64,
            worst_dimension: worst,
            worst_inside: inside[worst],
            below,
            above,
            clip_rate: (below + above) as f64 / (rows * dim) as f64,
            min,
            max,
            histogram: Histogram::of(embeddings.as_slice(), min, max),
            float_bytes: (rows * Precision::Float32.row_bytes(dim)) as u64,
            code_bytes: (rows * precision.row_bytes(dim)) as u64,
        })
    }
}

impl Histogram {
    /// Counts finite `values`, which lie from `lower` to `upper`, in 64 bins.
    fn of(values: &[f32], lower: f32, upper: f32) -> Self {
        // In f64, where the difference of two f32 neither overflows nor loses what decides a bin.
        let width = f64::from(upper) - f64::from(lower);
        let bins_per_unit = if width > 0.0 { BINS as f64 / width } else { 0.0 };
        let counts = values
            .par_chunks(1 << 16)
            .fold(
                || [0; BINS],
                |mut counts: [u64; BINS], values| {
                    for &v in values {
                        // `upper` itself, and nothing else, falls past the last bin.
                        let bin = ((f64::from(v) - f64::from(lower)) * bins_per_unit) as usize;
                        counts[bin.min(BINS - 1)] += 1;
                    }
                    counts
                },
            )
            .reduce(|| [0; BINS], |a, b| std::array::from_fn(|i| a[i] + b[i]));
        Self { lower, upper, counts: counts.to_vec() }
    }
}

/// The number of values outside the range of each dimension.
struct Outside {
    below: Vec<u64>,
    above: Vec<u64>,
}

impl Outside {
    fn count(embeddings: &Matrix<f32>, ranges: &Ranges) -> Self {
        let dim = embeddings.cols();
        let none = || Self { below: vec![0; dim], above: vec![0; dim] };
        embeddings
            .as_slice()
            .par_chunks(ROWS_PER_TASK * dim)
            .map(|rows| {
                let (mut below, mut above) = (vec![0u32; dim], vec![0u32; dim]);
                for row in rows.chunks_exact(dim) {
                    for (j, v) in row.iter().enumerate() {
                        below[j] += u32::from(*v < ranges.min()[j]);
                        above[j] += u32::from(*v > ranges.max()[j]);
                    }
                }
                let wide = |counts: Vec<u32>| counts.into_iter().map(u64::from).collect();
                Self { below: wide(below), above: wide(above) }
            })
            .reduce(none, |mut a, b| {
                a.below.iter_mut().zip(b.below).for_each(|(a, b)| *a += b);
                a.above.iter_mut().zip(b.above).for_each(|(a, b)| *a += b);
                a
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_clips_and_bytes_are_those_counted_by_hand() {
        // Dimension 0: one of four below. Dimension 1: one above, one on the edge (inside).
        let x = Matrix::try_from_vec(4, 2, vec![-1., 0., 0., 1., 0.5, 2., 1., 0.5]).unwrap();
        let ranges = Ranges::try_new(vec![0., 0.], vec![1., 1.]).unwrap();
        let report = CalibrationReport::of(&x, &ranges, Precision::Ubinary).unwrap();
        assert_eq!((report.below, report.above, report.clip_rate), (1, 1, 0.25));
        assert_eq!((report.inside, report.worst_dimension, report.worst_inside), (0.75, 0, 0.75));
        assert_eq!((report.min, report.max), (-1.0, 2.0));
        assert_eq!((report.float_bytes, report.code_bytes), (32, 4));
        assert_eq!((report.rows, report.dimensions), (4, 2));
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<CalibrationReport>(&json).unwrap(), report);
    }

    #[test]
    fn each_value_falls_in_the_bin_that_holds_it() {
        let values: Vec<f32> = (0..=64).map(|i| i as f32).collect();
        let histogram = Histogram::of(&values, 0.0, 64.0);
        let mut expected = [1; BINS];
        expected[BINS - 1] = 2;
        assert_eq!(histogram.counts, expected);
        assert_eq!(Histogram::of(&[3.0; 5], 3.0, 3.0).counts[0], 5);
    }

    #[test]
    fn the_report_is_the_same_at_any_thread_count() {
        let value = |i: usize| ((i * 7919) % 10_007) as f32 / 1000.0;
        let x = Matrix::try_from_vec(5000, 31, (0..5000 * 31).map(value).collect()).unwrap();
        let ranges = Ranges::try_new(vec![0.5; 31], vec![9.5; 31]).unwrap();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| CalibrationReport::of(&x, &ranges, Precision::Int8).unwrap())
        };
        assert!(with(1).clip_rate > 0.05);
        assert_eq!(with(1), with(2));
        assert_eq!(with(1), with(7));
    }

    #[test]
    fn no_embeddings_and_other_widths_are_refused() {
        let ranges = Ranges::try_new(vec![0.; 3], vec![1.; 3]).unwrap();
        assert!(CalibrationReport::of(&Matrix::zeros(0, 3), &ranges, Precision::Int8).is_err());
        assert!(CalibrationReport::of(&Matrix::zeros(1, 2), &ranges, Precision::Int8).is_err());
    }
}
