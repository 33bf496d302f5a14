//! Self-attention in 8 bits: both products by codes, the softmax between them in f32.
//!
//! - Formula: that of [`attention`](super::attention), with each token's queries, each token's keys (of all heads) and
//!   each column of a text's values quantized on its own, and the weights `exp(score − max)` as codes 0..=255, which
//!   are summed up as codes.
//! - Accumulation: i32, exact; a score and an output are rounded a few times in f32. The same bits on every
//!   instruction set.
//! - A text's rows depend on that text alone, bit for bit.
//! - Blocks of 32 queries, so that their scores stay in the first cache between the two products.

use super::each_text;
use crate::codes::{BLOCK, Block, CodePanels, CodeRows, Multiplier};
use crate::int8::{ROUNDER, padded, quantize_row};
use crate::{Isa, simd::dispatch};

/// Buffers that attention reuses from text to text.
#[derive(Debug, Default)]
pub struct Workspace {
    /// tokens × hidden: the codes of all heads.
    query_codes: Vec<u8>,
    key_codes: Vec<i8>,
    /// Per query: its step, times that of a score, and the code of zero.
    query_steps: Vec<f32>,
    query_zeros: Vec<i32>,
    key_steps: Vec<f32>,
    /// One head's.
    queries: CodeRows,
    keys: CodePanels,
    values: CodePanels,
    value_steps: Vec<f32>,
    /// 32 queries × tokens, rounded up to blocks.
    scores: Vec<f32>,
    weights: CodeRows,
}

/// Attends within each text; text `i` holds the tokens `offsets[i]..offsets[i + 1]`.
///
/// # Panics
/// If `qkv` or `out` do not hold the tokens that `offsets` names, or `heads` does not divide the hidden size.
pub fn attention(
    isa: Isa,
    qkv: &[f32],
    out: &mut [f32],
    hidden: usize,
    heads: usize,
    offsets: &[usize],
    workspace: &mut Workspace,
) {
    let d = hidden / heads;
    let multiplier = Multiplier::new(isa);
    each_text(qkv, out, hidden, heads, offsets, |rows, out| {
        workspace.quantize(isa, rows, hidden, d);
        for head in 0..heads {
            workspace.attend(isa, &multiplier, rows, out, hidden, head * d, d);
        }
    });
}

impl Workspace {
    /// One head of one text: the columns from `column` on, `d` of them, of each of the three parts.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &mut self,
        isa: Isa,
        multiplier: &Multiplier,
        rows: &[f32],
        out: &mut [f32],
        hidden: usize,
        column: usize,
        d: usize,
    ) {
        let stride = 3 * hidden;
        let tokens = rows.len() / stride;
        self.take_head(tokens, hidden, column, d);
        self.quantize_values(isa, rows, stride, 2 * hidden + column, d);
        let wide = tokens.next_multiple_of(BLOCK);
        self.scores.resize(BLOCK * wide, 0.0);
        let mut block = [[0; BLOCK]; BLOCK];
        for first in (0..tokens).step_by(BLOCK) {
            let count = BLOCK.min(tokens - first);
            for panel in 0..tokens.div_ceil(BLOCK) {
                multiplier.block(&self.queries, first, &self.keys, panel, &mut block);
                let keys = panel * BLOCK..tokens.min((panel + 1) * BLOCK);
                let scale = Scale {
                    query_steps: &self.query_steps[first..first + count],
                    query_zeros: &self.query_zeros[first..first + count],
                    key_steps: padded(&self.key_steps[keys.clone()]),
                    key_sums: padded(&self.keys.sums()[keys.clone()]),
                    keys: keys.len(),
                };
                scores(isa, &block, &scale, &mut self.scores[panel * BLOCK..], wide);
            }
            self.weights.resize(count, tokens);
            let mut sums = [0i32; BLOCK];
            for ((scores, codes), sum) in
                self.scores.chunks_exact(wide).zip(self.weights.rows_mut()).zip(&mut sums)
            {
                *sum = weigh(isa, scores, &mut codes[..wide]);
            }
            for panel in 0..d.div_ceil(BLOCK) {
                multiplier.block(&self.weights, 0, &self.values, panel, &mut block);
                let width = BLOCK.min(d - panel * BLOCK);
                let steps = &self.value_steps[panel * BLOCK..][..width];
                for (i, (sums_of_row, sum)) in block.iter().zip(sums).take(count).enumerate() {
                    let per_weight = 1.0 / sum as f32;
                    let out = &mut out[(first + i) * hidden + column + panel * BLOCK..][..width];
                    for ((out, exact), step) in out.iter_mut().zip(sums_of_row).zip(steps) {
                        *out = *exact as f32 * (per_weight * step);
                    }
                }
            }
        }
    }

    /// The queries and keys of a text, each token's on its own.
    fn quantize(&mut self, isa: Isa, rows: &[f32], hidden: usize, d: usize) {
        let tokens = rows.len() / (3 * hidden);
        self.query_codes.resize(tokens * hidden, 0);
        self.key_codes.resize(tokens * hidden, 0);
        self.query_steps.clear();
        self.query_zeros.clear();
        self.key_steps.clear();
        let scale = 1.0 / (d as f32).sqrt();
        let codes = self.query_codes.chunks_exact_mut(hidden).zip(self.key_codes.chunks_exact_mut(hidden));
        for (row, (query_codes, key_codes)) in rows.chunks_exact(3 * hidden).zip(codes) {
            let (step, zero) = quantize_row(isa, &row[..hidden], query_codes);
            self.query_steps.push(step * scale);
            self.query_zeros.push(zero);
            let keys = &row[hidden..2 * hidden];
            let step = largest(isa, keys) / 127.0;
            signed_codes(isa, keys, if step > 0.0 { 1.0 / step } else { 0.0 }, key_codes);
            self.key_steps.push(step);
        }
    }

    /// The queries and keys of the head whose columns begin at `column`.
    fn take_head(&mut self, tokens: usize, hidden: usize, column: usize, d: usize) {
        self.queries.resize(tokens, d);
        for (row, codes) in self.queries.rows_mut().zip(self.query_codes.chunks_exact(hidden)) {
            row[..d].copy_from_slice(&codes[column..column + d]);
        }
        self.keys.clear(tokens, d);
        for (token, codes) in self.key_codes.chunks_exact(hidden).enumerate() {
            self.keys.write_column(token, &codes[column..column + d]);
        }
    }

    fn quantize_values(&mut self, isa: Isa, rows: &[f32], stride: usize, column: usize, d: usize) {
        let tokens = rows.len() / stride;
        self.values.clear(d, tokens);
        self.value_steps.clear();
        for panel in 0..d.div_ceil(BLOCK) {
            let width = BLOCK.min(d - panel * BLOCK);
            let column = column + panel * BLOCK;
            let part = Part { rows, stride, column, width };
            let most = largest_by_column(isa, part);
            self.value_steps.extend(most[..width].iter().map(|most| most / 127.0));
            let per_unit = most.map(|most| if most > 0.0 { 127.0 / most } else { 0.0 });
            for first in (0..tokens).step_by(4) {
                self.values.write_rows(panel, first, &value_codes(isa, part, first, &per_unit));
            }
        }
    }
}

/// Up to 32 columns of rows.
#[derive(Clone, Copy)]
struct Part<'a> {
    rows: &'a [f32],
    stride: usize,
    column: usize,
    width: usize,
}

/// The largest magnitude of each column.
fn largest_by_column(isa: Isa, part: Part<'_>) -> [f32; BLOCK] {
    #[inline(always)]
    fn body(part: Part<'_>) -> [f32; BLOCK] {
        let mut most = [0f32; BLOCK];
        for row in part.rows.chunks_exact(part.stride) {
            for (most, v) in most.iter_mut().zip(&row[part.column..part.column + part.width]) {
                *most = if v.abs() > *most { v.abs() } else { *most };
            }
        }
        most
    }
    dispatch!(isa, body(part: Part<'_>) -> [f32; BLOCK])
}

/// Codes of four rows from `first` on, of those that are there.
fn value_codes(isa: Isa, part: Part<'_>, first: usize, per_unit: &[f32; BLOCK]) -> [[i8; BLOCK]; 4] {
    #[inline(always)]
    fn body(part: Part<'_>, first: usize, per_unit: &[f32; BLOCK]) -> [[i8; BLOCK]; 4] {
        let mut codes = [[0i8; BLOCK]; 4];
        for (row, codes) in part.rows[first * part.stride..].chunks_exact(part.stride).zip(&mut codes) {
            let row = &row[part.column..part.column + part.width];
            for ((code, v), per_unit) in codes.iter_mut().zip(row).zip(per_unit) {
                *code = v.mul_add(*per_unit, ROUNDER).to_bits() as i8;
            }
        }
        codes
    }
    dispatch!(isa, body(part: Part<'_>, first: usize, per_unit: &[f32; BLOCK]) -> [[i8; BLOCK]; 4])
}

/// The largest magnitude.
fn largest(isa: Isa, x: &[f32]) -> f32 {
    #[inline(always)]
    fn body(x: &[f32]) -> f32 {
        let mut most = [0f32; 16];
        for chunk in x.chunks(16) {
            for (most, v) in most.iter_mut().zip(chunk) {
                *most = if v.abs() > *most { v.abs() } else { *most };
            }
        }
        most.iter().fold(0f32, |a, b| a.max(*b))
    }
    dispatch!(isa, body(x: &[f32]) -> f32)
}

/// Codes of x · `per_unit`, which lie in ±127.
fn signed_codes(isa: Isa, x: &[f32], per_unit: f32, codes: &mut [i8]) {
    #[inline(always)]
    fn body(x: &[f32], per_unit: f32, codes: &mut [i8]) {
        for (code, v) in codes.iter_mut().zip(x) {
            *code = v.mul_add(per_unit, ROUNDER).to_bits() as i8;
        }
    }
    dispatch!(isa, body(x: &[f32], per_unit: f32, codes: &mut [i8]))
}

/// What turns sums of codes into scores.
struct Scale<'a> {
    query_steps: &'a [f32],
    query_zeros: &'a [i32],
    key_steps: [f32; BLOCK],
    key_sums: [i32; BLOCK],
    /// How many of the 32 keys there are.
    keys: usize,
}

/// Writes the scores of a block, whose rows lie `stride` apart; those of keys that are not there are −∞.
fn scores(isa: Isa, block: &Block, scale: &Scale<'_>, out: &mut [f32], stride: usize) {
    #[inline(always)]
    fn body(block: &Block, scale: &Scale<'_>, out: &mut [f32], stride: usize) {
        let rows = scale.query_steps.iter().zip(scale.query_zeros);
        for ((sums, (step, zero)), out) in block.iter().zip(rows).zip(out.chunks_mut(stride)) {
            let mut values = [0f32; BLOCK];
            for j in 0..BLOCK {
                let exact = sums[j].wrapping_sub(zero.wrapping_mul(scale.key_sums[j]));
                values[j] = exact as f32 * (step * scale.key_steps[j]);
            }
            values[scale.keys..].fill(f32::NEG_INFINITY);
            out[..BLOCK].copy_from_slice(&values);
        }
    }
    dispatch!(isa, body(block: &Block, scale: &Scale<'_>, out: &mut [f32], stride: usize))
}

/// The exponential of what is not above 0, to 1.1e-4 of itself; nothing below e⁻²⁰.
#[inline(always)]
fn rough_exp(x: f32) -> f32 {
    // 2^(n + f) with f in ±1/2: 2^f by a minimax polynomial (Lawson's algorithm), whose exponent n is added to.
    let x = x.max(-20.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let f = x.mul_add(std::f32::consts::LOG2_E, ROUNDER - shifted);
    let mut p = 5.500_896e-2f32;
    p = p.mul_add(f, 2.422_113_7e-1);
    p = p.mul_add(f, 6.932_83e-1);
    p = p.mul_add(f, 1.0);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// Writes the codes of exp(score − max), and returns their sum, which is at least 255; −∞ has the code 0.
///
/// # Panics
/// Unless there are whole blocks of 32 scores.
fn weigh(isa: Isa, scores: &[f32], codes: &mut [u8]) -> i32 {
    #[inline(always)]
    fn body(scores: &[f32], codes: &mut [u8]) -> i32 {
        let (scores, codes) = (scores.as_chunks::<16>().0, codes.as_chunks_mut::<16>().0);
        let mut most = [f32::NEG_INFINITY; 16];
        for scores in scores {
            for i in 0..16 {
                most[i] = if scores[i] > most[i] { scores[i] } else { most[i] };
            }
        }
        let max = most.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let mut sums = [0u32; 16];
        for (codes, scores) in codes.iter_mut().zip(scores) {
            for i in 0..16 {
                let code = rough_exp(scores[i] - max).mul_add(255.0, ROUNDER).to_bits() & 0xff;
                codes[i] = code as u8;
                sums[i] += code;
            }
        }
        sums.iter().sum::<u32>() as i32
    }
    assert!(scores.len().is_multiple_of(BLOCK) && codes.len() == scores.len(), "whole blocks");
    dispatch!(isa, body(scores: &[f32], codes: &mut [u8]) -> i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    #[test]
    fn the_rough_exponential_is_near_the_exact_one() {
        for i in 0..=20_000 {
            let x = -20.0 + i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(rough_exp(x)) - exact).abs() <= 1.1e-4 * exact, "{x}");
        }
        assert!(rough_exp(f32::NEG_INFINITY) < 3e-9);
    }

    #[test]
    fn attention_in_8_bits_is_near_that_in_32_and_the_same_on_every_instruction_set() {
        let (hidden, heads) = (96, 3);
        // Around a block, and an empty text.
        let offsets = [0, 1, 33, 33, 65, 130];
        let qkv: Vec<f32> = uniform(9, 130 * 3 * hidden).iter().map(|v| v * 2.0).collect();
        let run = |isa| {
            let mut out = vec![f32::NAN; 130 * hidden];
            attention(isa, &qkv, &mut out, hidden, heads, &offsets, &mut Workspace::default());
            out
        };
        let plain = run(Isa::Portable);
        for isa in Isa::available() {
            assert_eq!(run(isa), plain, "{}", isa.name());
        }
        let mut exact = vec![0f32; 130 * hidden];
        let isa = Isa::detect();
        super::super::attention(isa, &qkv, &mut exact, hidden, heads, &offsets, &mut Default::default());
        for (found, expected) in plain.iter().zip(&exact) {
            // Values up to 2: steps of 2/127 and of weights 1/255, and scores off by some hundredths.
            assert!((found - expected).abs() < 0.06, "{found} {expected}");
        }
        let mut alone = vec![0f32; 65 * hidden];
        let text = &qkv[65 * 3 * hidden..];
        attention(isa, text, &mut alone, hidden, heads, &[0, 65], &mut Workspace::default());
        assert_eq!(alone, plain[65 * hidden..], "the same bits alone");
    }
}
