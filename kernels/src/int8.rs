//! Linear layers in 8 bits: C = A · Wᵀ + bias, with A quantized row by row as it comes and W column by column once.
//!
//! - Formula: a row x becomes `q = round(x / s) + z` in 0..=255 with `s = (max − min) / 254.99` over the row and zero,
//!   and `z = ⌈−min / s − .499⌉`; an output's weights w become `round(w / t)` in ±127 with `t = max |w| / 127`. Then
//!   `c = (Σ q·w − z · Σ w) · s · t + bias` ("dynamic quantization per token, weights per channel").
//! - Accumulation: i32, exact; two roundings of f32 at the end. The same bits on every instruction set.
//! - A row's outputs depend on that row alone.

use crate::codes::{BLOCK, CodePanels, CodeRows, Multiplier, panel_by_panel};
use crate::simd::{dispatch, join_lanes, larger, lesser};
use crate::{Isa, activation};

/// The weights of a layer, quantized and packed once.
#[derive(Debug, Clone)]
pub struct Weights {
    panels: CodePanels,
    /// Per output: what one step of its codes stands for.
    steps: Vec<f32>,
}

/// Rows of activations as codes; the buffer is reused.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    codes: CodeRows,
    /// Per row: what one step stands for, and the code of zero.
    steps: Vec<f32>,
    zeros: Vec<i32>,
}

impl Weights {
    /// Quantizes `weight`, stored as PyTorch stores a linear layer: `n` outputs × `k` inputs, row-major.
    pub fn from_linear(weight: &[f32], n: usize, k: usize) -> Self {
        let steps: Vec<f32> = (0..n)
            .map(|j| weight[j * k..(j + 1) * k].iter().fold(0f32, |max, w| max.max(w.abs())) / 127.0)
            .collect();
        let code = |p: usize, j: usize| match steps[j] {
            // Weights that are all zero.
            0.0 => 0,
            step => (weight[j * k + p] / step).round_ties_even() as i8,
        };
        Self { panels: CodePanels::pack(n, k, code), steps }
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.panels.k()
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.panels.n()
    }
}

impl Activations {
    /// Quantizes rows of `k` values.
    ///
    /// # Panics
    /// If `x` is no whole rows.
    pub fn quantize(&mut self, isa: Isa, x: &[f32], k: usize) {
        assert!(x.len().is_multiple_of(k), "whole rows");
        let rows = x.len() / k;
        self.codes.resize(rows, k);
        self.steps.resize(rows, 0.0);
        self.zeros.resize(rows, 0);
        let quantized = self.steps.iter_mut().zip(&mut self.zeros);
        for ((x, codes), (step, zero)) in x.chunks_exact(k).zip(self.codes.rows_mut()).zip(quantized) {
            (*step, *zero) = quantize_row(isa, x, &mut codes[..k]);
        }
    }
}

/// 1.5 · 2²³: a float of at most 2²² in magnitude, added to it, is rounded to the nearest integer, which then is the
/// low bits of the sum.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// The least and the largest of the values and zero.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    // Four vectors at a time: one alone would wait for its own last minimum.
    let (mut low, mut high) = ([0f32; 64], [0f32; 64]);
    let (wide, rest) = x.as_chunks::<64>();
    for values in wide {
        low.iter_mut().zip(values).for_each(|(low, v)| *low = lesser(*v, *low));
        high.iter_mut().zip(values).for_each(|(high, v)| *high = larger(*v, *high));
    }
    low.iter_mut().zip(rest).for_each(|(low, v)| *low = lesser(*v, *low));
    high.iter_mut().zip(rest).for_each(|(high, v)| *high = larger(*v, *high));
    (join_lanes(low, lesser), join_lanes(high, larger))
}

/// Steps in a row's range: a hair below the 255 between 256 codes, so that rounding never leaves 0..=255.
const STEPS: f32 = 254.99;

/// Writes the codes of a row; returns its step and the code of zero.
fn quantize_row(isa: Isa, x: &[f32], codes: &mut [u8]) -> (f32, i32) {
    #[inline(always)]
    fn body(x: &[f32], codes: &mut [u8]) -> (f32, i32) {
        let (low, high) = range(x);
        if high == low {
            codes.fill(0);
            return (0.0, 0);
        }
        let per_unit = STEPS / (high - low);
        // Between .499 below −low · per_unit and .501 above: no value is rounded below 0, nor above 255.
        let zero = (-low * per_unit - 0.499).ceil();
        for (code, v) in codes.iter_mut().zip(x) {
            *code = v.mul_add(per_unit, zero + ROUNDER).to_bits() as u8;
        }
        ((high - low) / STEPS, zero as i32)
    }
    dispatch!(isa, body(x: &[f32], codes: &mut [u8]) -> (f32, i32))
}

/// Computes a layer: `c` = `a` · `weights`ᵀ + `bias`, rows of `c` packed; with `gelu`, GELU of it to 1.3e-4, which is
/// far below what the next layer's codes can tell.
///
/// # Panics
/// If `c` is not rows × outputs, or `bias` not as long as the outputs.
pub fn linear(isa: Isa, a: &Activations, weights: &Weights, bias: &[f32], c: &mut [f32], gelu: bool) {
    let (rows, n) = (a.codes.rows(), weights.n());
    assert!(c.len() == rows * n && bias.len() == n, "c and bias fit the layer");
    let multiplier = Multiplier::new(isa);
    let part = |column: usize| {
        let columns = column..n.min(column + BLOCK);
        Part {
            sums: padded(&weights.panels.sums()[columns.clone()]),
            steps: padded(&weights.steps[columns.clone()]),
            bias: padded(&bias[columns.clone()]),
            width: columns.len(),
            gelu,
        }
    };
    let parts: Vec<Part> = (0..n).step_by(BLOCK).map(part).collect();
    let pairs = panel_by_panel(rows, parts.len(), weights.panels.lines());
    multiplier.stream(&a.codes, &weights.panels, pairs, |panel, rows, sums| {
        let quantized = (&a.steps[rows.clone()], &a.zeros[rows.clone()]);
        let c = &mut c[rows.start * n..rows.end * n];
        settle(isa, sums, quantized, &parts[panel], c, panel * BLOCK, n);
    });
}

/// What a panel's columns need at the end.
struct Part {
    sums: [i32; BLOCK],
    steps: [f32; BLOCK],
    bias: [f32; BLOCK],
    width: usize,
    gelu: bool,
}

/// The values, and as many zeros as a panel has room for.
pub(crate) fn padded<T: Copy + Default>(values: &[T]) -> [T; BLOCK] {
    let mut padded = [T::default(); BLOCK];
    padded[..values.len()].copy_from_slice(values);
    padded
}

/// Turns rows of a block of sums into values of whole rows of C, from `column` on; there are as many as steps and
/// zeros.
fn settle(
    isa: Isa,
    sums: &[[i32; BLOCK]],
    quantized: (&[f32], &[i32]),
    part: &Part,
    c: &mut [f32],
    column: usize,
    n: usize,
) {
    #[inline(always)]
    fn body(
        sums: &[[i32; BLOCK]],
        quantized: (&[f32], &[i32]),
        part: &Part,
        c: &mut [f32],
        column: usize,
        n: usize,
    ) {
        let rows = sums.iter().zip(quantized.0.iter().zip(quantized.1));
        for ((sums, (step, zero)), c) in rows.zip(c.chunks_exact_mut(n)) {
            let value = |j: usize| {
                let exact = sums[j].wrapping_sub(zero.wrapping_mul(part.sums[j]));
                let value = (exact as f32).mul_add(step * part.steps[j], part.bias[j]);
                if part.gelu { activation::rough_gelu(value) } else { value }
            };
            match c[column..].first_chunk_mut::<BLOCK>() {
                Some(c) => (0..BLOCK).for_each(|j| c[j] = value(j)),
                None => (0..part.width).for_each(|j| c[column + j] = value(j)),
            }
        }
    }
    dispatch!(
        isa,
        body(
            sums: &[[i32; BLOCK]],
            quantized: (&[f32], &[i32]),
            part: &Part,
            c: &mut [f32],
            column: usize,
            n: usize,
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// The layer in f64, without codes.
    fn reference(x: &[f32], w: &[f32], bias: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
        let mut c = Vec::with_capacity(m * n);
        for i in 0..m {
            let x = &x[i * k..(i + 1) * k];
            for j in 0..n {
                let w = &w[j * k..(j + 1) * k];
                let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                c.push(sum + f64::from(bias[j]));
            }
        }
        c
    }

    #[test]
    fn a_layer_is_near_its_definition_and_the_same_on_every_instruction_set() {
        for (m, n, k) in [(1, 1, 1), (7, 33, 20), (40, 64, 384)] {
            let (x, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
            let weights = Weights::from_linear(&w, n, k);
            let run = |isa| {
                let mut a = Activations::default();
                a.quantize(isa, &x, k);
                let mut c = vec![f32::NAN; m * n];
                linear(isa, &a, &weights, &bias, &mut c, false);
                c
            };
            let plain = run(Isa::Portable);
            for isa in Isa::available() {
                assert_eq!(run(isa), plain, "{m} x {n} x {k} on {}", isa.name());
            }
            // Values below 1: half a step is 2/255/2 of a row and 1/127/2 of a weight; errors add up like a random
            // walk, six deviations of it.
            let bound = 6.0 * (k as f64).sqrt() * (1.0 / 255.0 + 0.5 / 127.0) * 0.58 + 1e-5;
            for (found, expected) in plain.iter().zip(reference(&x, &w, &bias, m, n, k)) {
                assert!((f64::from(*found) - expected).abs() < bound, "{found} {expected} {m} {n} {k}");
            }
        }
    }

    #[test]
    fn rows_of_zeros_and_of_one_sign_are_right_at_their_ends() {
        let mut a = Activations::default();
        let x = [0.0, 0.0, 3.0, 1.0, -3.0, -1.0];
        a.quantize(Isa::detect(), &x, 2);
        let weights = Weights::from_linear(&[1.0, 0.0], 1, 2);
        let mut c = [0f32; 3];
        linear(Isa::detect(), &a, &weights, &[0.5], &mut c, false);
        // The end of a range is .01 of a step away from a code.
        for (found, expected) in c.iter().zip([0.5, 3.5, -2.5]) {
            assert!((found - expected).abs() < 1.3e-4, "{found}");
        }
    }

    #[test]
    fn every_value_has_the_code_that_is_nearest() {
        for row in 0..2000u64 {
            let (scale, shift) = (10f32.powi(row as i32 % 9 - 4), uniform(row + 7, 1)[0] * 2.0);
            let x: Vec<f32> = uniform(row, 70).iter().map(|v| (v + shift) * scale).collect();
            let mut codes = vec![0; x.len()];
            let (step, zero) = quantize_row(Isa::detect(), &x, &mut codes);
            for (v, code) in x.iter().zip(codes) {
                let stands_for = (i32::from(code) - zero) as f32 * step;
                assert!((stands_for - v).abs() <= 0.501 * step, "{v} as {code}, {stands_for}: row {row}");
            }
        }
    }

    #[test]
    fn gelu_is_near_that_of_the_activation() {
        let (m, n, k) = (3, 40, 16);
        let (x, w, bias) = (uniform(4, m * k), uniform(5, n * k), uniform(6, n));
        let weights = Weights::from_linear(&w, n, k);
        let mut a = Activations::default();
        a.quantize(Isa::detect(), &x, k);
        let (mut plain, mut gelu) = (vec![0f32; m * n], vec![0f32; m * n]);
        linear(Isa::detect(), &a, &weights, &bias, &mut plain, false);
        linear(Isa::detect(), &a, &weights, &bias, &mut gelu, true);
        let inputs = plain.clone();
        activation::gelu(Isa::detect(), &mut plain);
        for ((found, expected), x) in gelu.iter().zip(&plain).zip(inputs) {
            assert!((found - expected).abs() < 1.3e-4 * x.abs().max(1.0), "{found} {expected}");
        }
    }
}
