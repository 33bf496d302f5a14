//! Pooling: from the token vectors of a text to one vector.
//!
//! - Formulas by sentence-transformers' `Pooling`: first token, mean, maximum, sum over √n, position-weighted mean,
//!   last token. Ragged rows hold no padding, so every token counts.
//! - Shapes: tokens × h to h. Accumulation: f32, tokens in order; the same bits on every instruction set.

use crate::{Isa, simd::dispatch};

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The mean.
    Mean,
    /// The maximum of each column.
    Max,
    /// The sum divided by the square root of the number of tokens.
    MeanSqrtLen,
    /// The mean weighted by position, counted from 1.
    WeightedMean,
    /// The last token's vector.
    LastToken,
}

/// Pools the rows of `tokens` (each `out.len()` values) into `out`; no tokens give zeros.
pub fn pool(isa: Isa, pooling: Pooling, tokens: &[f32], out: &mut [f32]) {
    let h = out.len();
    let n = tokens.len() / h.max(1);
    if n == 0 {
        out.fill(0.0);
        return;
    }
    match pooling {
        Pooling::Cls => out.copy_from_slice(&tokens[..h]),
        Pooling::LastToken => out.copy_from_slice(&tokens[(n - 1) * h..n * h]),
        Pooling::Max => largest(isa, tokens, out),
        Pooling::Mean => weighted_sum(isa, tokens, out, 0.0, n as f32),
        Pooling::MeanSqrtLen => weighted_sum(isa, tokens, out, 0.0, (n as f32).sqrt()),
        Pooling::WeightedMean => weighted_sum(isa, tokens, out, 1.0, (n * (n + 1) / 2) as f32),
    }
}

/// The largest of each column; a value that is no number counts as none.
fn largest(isa: Isa, tokens: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn body(tokens: &[f32], out: &mut [f32]) {
        out.copy_from_slice(&tokens[..out.len()]);
        for row in tokens.chunks_exact(out.len()) {
            for (best, v) in out.iter_mut().zip(row) {
                *best = best.max(*v);
            }
        }
    }
    dispatch!(isa, body(tokens: &[f32], out: &mut [f32]))
}

/// Sums token t times `1 + t · slope`, over `divisor`.
fn weighted_sum(isa: Isa, tokens: &[f32], out: &mut [f32], slope: f32, divisor: f32) {
    #[inline(always)]
    fn body(tokens: &[f32], out: &mut [f32], slope: f32, divisor: f32) {
        out.fill(0.0);
        for (t, row) in tokens.chunks_exact(out.len()).enumerate() {
            let weight = 1.0 + t as f32 * slope;
            for (sum, v) in out.iter_mut().zip(row) {
                *sum = v.mul_add(weight, *sum);
            }
        }
        for sum in out {
            *sum /= divisor;
        }
    }
    dispatch!(isa, body(tokens: &[f32], out: &mut [f32], slope: f32, divisor: f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_is_its_formula() {
        let tokens = [1.0, -2.0, 3.0, 4.0, 5.0, -6.0];
        for (mode, expected) in [
            (Pooling::Cls, [1.0, -2.0]),
            (Pooling::Mean, [3.0, -4.0 / 3.0]),
            (Pooling::Max, [5.0, 4.0]),
            (Pooling::MeanSqrtLen, [9.0 / 3f32.sqrt(), -4.0 / 3f32.sqrt()]),
            (Pooling::WeightedMean, [(1.0 + 6.0 + 15.0) / 6.0, (-2.0 + 8.0 - 18.0) / 6.0]),
            (Pooling::LastToken, [5.0, -6.0]),
        ] {
            let mut out = [0f32; 2];
            for isa in Isa::available() {
                pool(isa, mode, &tokens, &mut out);
                assert_eq!(out, expected, "{mode:?} on {}", isa.name());
            }
        }
        // Wider than a register; no number first, in the middle, and all through a column.
        let columns = 19;
        let mut tokens: Vec<f32> = (0..3 * columns).map(|i| i as f32).collect();
        (tokens[0], tokens[columns + 1]) = (f32::NAN, f32::NAN);
        (0..3).for_each(|t| tokens[t * columns + 18] = f32::NAN);
        for isa in Isa::available() {
            let mut out = vec![0f32; columns];
            pool(isa, Pooling::Max, &tokens, &mut out);
            assert!(out[..18].iter().zip(38..).all(|(v, i)| *v == i as f32), "{out:?} on {}", isa.name());
            assert!(out[18].is_nan());
        }
        let mut out = [7f32; 2];
        pool(Isa::detect(), Pooling::Mean, &[], &mut out);
        assert_eq!(out, [0.0, 0.0]);
    }
}
