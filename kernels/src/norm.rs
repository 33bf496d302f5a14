//! Layer normalisation and L2 normalisation of rows, and the fixed-order sums they share.
//!
//! - Formulas: `y = (x - mean) / √(var + ε) · γ + β` with the variance over n (Ba et al. 2016); `y = x / max(‖x‖,
//!   1e-12)`.
//! - Accumulation: 16 lanes of f32, lane `i mod 16` takes value i, then a fixed tree; two passes for the variance.
//! - The order of additions is fixed in the source, so every instruction set returns the same bits.

use crate::simd::{dispatch, join_lanes};
use crate::{Isa, Matrix};
use rayon::prelude::*;

/// Rows that one task normalises: some tens of microseconds of work.
const BLOCK_ROWS: usize = 128;

/// Lanes of a sum: one AVX-512 register, two of AVX2, four of NEON.
const LANES: usize = 16;

/// Adds `residual` to `x` and normalises each row of `gamma.len()` values in place.
///
/// # Panics
/// If `x` and `residual` differ in length, or are no whole rows.
pub fn add_layer_norm(isa: Isa, x: &mut [f32], residual: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    assert!(x.len() == residual.len() && x.len().is_multiple_of(gamma.len()) && gamma.len() == beta.len());
    #[inline(always)]
    fn body(x: &mut [f32], residual: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
        for (row, residual) in x.chunks_exact_mut(gamma.len()).zip(residual.chunks_exact(gamma.len())) {
            for (v, r) in row.iter_mut().zip(residual) {
                *v += r;
            }
            normalise_row(row, gamma, beta, epsilon);
        }
    }
    dispatch!(isa, body(x: &mut [f32], residual: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32))
}

/// Normalises each row of `gamma.len()` values in place.
///
/// # Panics
/// If `x` is no whole rows.
pub fn layer_norm(isa: Isa, x: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    assert!(x.len().is_multiple_of(gamma.len()) && gamma.len() == beta.len());
    #[inline(always)]
    fn body(x: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
        for row in x.chunks_exact_mut(gamma.len()) {
            normalise_row(row, gamma, beta, epsilon);
        }
    }
    dispatch!(isa, body(x: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32))
}

/// Scales each row of `cols` values to length 1, in place; a row of zeros stays.
pub fn l2_normalise(isa: Isa, x: &mut [f32], cols: usize) {
    #[inline(always)]
    fn body(x: &mut [f32], cols: usize) {
        for row in x.chunks_exact_mut(cols) {
            let norm = dot_body(row, row).sqrt().max(1e-12);
            for v in row {
                *v /= norm;
            }
        }
    }
    if cols > 0 {
        dispatch!(isa, body(x: &mut [f32], cols: usize))
    }
}

/// Returns the rows scaled to length 1, on all threads; a row of zeros stays.
pub fn unit_rows(points: &Matrix<f32>) -> Matrix<f32> {
    let mut unit = points.clone();
    scale_to_unit(&mut unit);
    unit
}

/// Scales each row to length 1, on all threads; a row of zeros stays.
pub fn scale_to_unit(points: &mut Matrix<f32>) {
    let cols = points.cols().max(1);
    let isa = Isa::detect();
    points.as_mut_slice().par_chunks_mut(cols * BLOCK_ROWS).for_each(|rows| l2_normalise(isa, rows, cols));
}

/// The dot product of two rows of equal length.
pub fn dot(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    dispatch!(isa, dot_body(a: &[f32], b: &[f32]) -> f32)
}

/// The squared Euclidean distance between two rows of equal length.
pub fn squared_distance(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    #[inline(always)]
    fn body(a: &[f32], b: &[f32]) -> f32 {
        lanes(a, b, |x, y, sum| {
            let d = x - y;
            d.mul_add(d, sum)
        })
    }
    dispatch!(isa, body(a: &[f32], b: &[f32]) -> f32)
}

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |x, y, sum| x.mul_add(y, sum))
}

#[inline(always)]
fn normalise_row(row: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    let n = row.len() as f32;
    let mean = lanes(row, row, |x, _, sum| x + sum) / n;
    let variance = lanes(row, row, |x, _, sum| (x - mean).mul_add(x - mean, sum)) / n;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((v, g), b) in row.iter_mut().zip(gamma).zip(beta) {
        *v = ((*v - mean) * scale).mul_add(*g, *b);
    }
}

/// Folds pairs of values into 16 lanes, then adds the lanes up in a fixed tree.
#[inline(always)]
pub(crate) fn lanes(a: &[f32], b: &[f32], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = step(a[i], b[i], sums[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[i] = step(*a, *b, sums[i]);
    }
    join_lanes(sums, |a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    #[test]
    fn layer_norm_agrees_with_f64_on_every_instruction_set() {
        // 5: less than a lane each; 384: MiniLM; 777: lanes and a remainder.
        for cols in [5usize, 384, 777] {
            let x = uniform(1, 3 * cols);
            let residual = uniform(2, 3 * cols);
            let (gamma, beta) = (uniform(3, cols), uniform(4, cols));
            let mut portable = x.clone();
            add_layer_norm(Isa::Portable, &mut portable, &residual, &gamma, &beta, 1e-12);
            for isa in Isa::available() {
                let mut y = x.clone();
                add_layer_norm(isa, &mut y, &residual, &gamma, &beta, 1e-12);
                assert_eq!(y, portable, "{}", isa.name());
            }
            for row in 0..3 {
                let sum: Vec<f64> = (0..cols)
                    .map(|j| f64::from(x[row * cols + j]) + f64::from(residual[row * cols + j]))
                    .collect();
                let mean = sum.iter().sum::<f64>() / cols as f64;
                let variance = sum.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / cols as f64;
                for j in 0..cols {
                    let expected = (sum[j] - mean) / (variance + 1e-12).sqrt() * f64::from(gamma[j])
                        + f64::from(beta[j]);
                    // Sums of 16 lanes over `cols` values: cols / 16 + 4 roundings of 6e-8 each, twice.
                    let bound = 6e-8 * 2.0 * (cols as f64 / 16.0 + 8.0) * (1.0 + expected.abs());
                    assert!(
                        (f64::from(portable[row * cols + j]) - expected).abs() < bound,
                        "{cols}: {row}, {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn normalised_rows_have_length_one_and_zeros_stay() {
        let mut x = uniform(5, 40);
        x[20..].fill(0.0);
        l2_normalise(Isa::detect(), &mut x, 20);
        assert!((x[..20].iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(x[20..].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn distances_and_products_are_what_they_say() {
        assert_eq!(dot(Isa::detect(), &[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
        assert_eq!(squared_distance(Isa::detect(), &[1.0, 2.0, 3.0], &[4.0, 6.0, 3.0]), 25.0);
    }
}
