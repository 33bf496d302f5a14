//! Self-attention in 8 bits: both products by codes, the softmax between them in f32.
//!
//! - Formula: that of [`attention`](super::attention), with each token's queries, each token's keys (of all heads) and
//!   each column of a text's values quantized on its own, as −127..=127 in steps of 1/127 of its largest magnitude (a
//!   query's codes with 128 added, which its scores lose again), and the weights `exp(score − max)` as codes 0..=255,
//!   which are summed up as codes.
//! - Accumulation: i32, exact; a score and an output are rounded a few times in f32. The same bits on every
//!   instruction set.
//! - A text's rows depend on that text alone, bit for bit.
//! - Blocks of 32 queries, so that their scores stay in the first cache between the two products.

use super::each_text;
use crate::Isa;
use crate::codes::{BLOCK, CodePanels, CodeRows, Multiplier};
use crate::int8::{ROUNDER, padded};
use crate::simd::{dispatch, join_lanes, larger};

/// Buffers that attention reuses from text to text.
#[derive(Debug, Default)]
pub struct Workspace {
    /// tokens × hidden: the codes of all heads.
    query_codes: Vec<i8>,
    key_codes: Vec<i8>,
    /// Per query: what one step of its codes stands for in the exponent of two.
    query_steps: Vec<f32>,
    key_steps: Vec<f32>,
    /// One head's.
    scales: Vec<Scale>,
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
        let blocks_of_keys = self.key_steps.chunks(BLOCK).zip(self.keys.sums().chunks(BLOCK));
        self.scales.clear();
        self.scales.extend(blocks_of_keys.map(Scale::new));
        for first in (0..tokens).step_by(BLOCK) {
            let count = BLOCK.min(tokens - first);
            let pairs = (0..self.scales.len()).map(|panel| (first, panel));
            multiplier.stream(&self.queries, &self.keys, pairs, |panel, rows, block| {
                let out = &mut self.scores[(rows.start - first) * wide + panel * BLOCK..];
                scores(isa, block, &self.scales[panel], out, wide);
            });
            self.weights.resize(count, tokens);
            let mut sums = [0i32; BLOCK];
            let rows = self.scores.chunks_exact(wide).zip(&self.query_steps[first..]);
            for ((codes, sum), (scores, step)) in self.weights.rows_mut().zip(&mut sums).zip(rows) {
                *sum = weigh(isa, scores, *step, &mut codes[..wide]);
            }
            let out = &mut out[first * hidden..(first + count) * hidden];
            let pairs = (0..d.div_ceil(BLOCK)).map(|panel| (0, panel));
            multiplier.stream(&self.weights, &self.values, pairs, |panel, rows, block| {
                let steps = &self.value_steps[panel * BLOCK..d.min((panel + 1) * BLOCK)];
                let out = &mut out[rows.start * hidden..];
                outputs(isa, block, &sums[rows], steps, out, hidden, column + panel * BLOCK);
            });
        }
    }

    /// The queries and keys of a text, each token's on its own.
    fn quantize(&mut self, isa: Isa, rows: &[f32], hidden: usize, d: usize) {
        let tokens = rows.len() / (3 * hidden);
        self.query_codes.resize(tokens * hidden, 0);
        self.key_codes.resize(tokens * hidden, 0);
        self.query_steps.clear();
        self.key_steps.clear();
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        let codes = self.query_codes.chunks_exact_mut(hidden).zip(self.key_codes.chunks_exact_mut(hidden));
        for (row, (query_codes, key_codes)) in rows.chunks_exact(3 * hidden).zip(codes) {
            let (queries, keys) = (&row[..hidden], &row[hidden..2 * hidden]);
            let (step, per_unit) = symmetric(isa, queries);
            signed_codes(isa, queries, per_unit, query_codes);
            // Of no query at all, scores of −∞ still are −∞ times this.
            self.query_steps.push((step * scale).max(f32::MIN_POSITIVE));
            let (step, per_unit) = symmetric(isa, keys);
            signed_codes(isa, keys, per_unit, key_codes);
            self.key_steps.push(step);
        }
    }

    /// The queries and keys of the head whose columns begin at `column`.
    fn take_head(&mut self, tokens: usize, hidden: usize, column: usize, d: usize) {
        self.queries.resize(tokens, d);
        for (row, codes) in self.queries.rows_mut().zip(self.query_codes.chunks_exact(hidden)) {
            row.iter_mut()
                .zip(&codes[column..column + d])
                .for_each(|(q, code)| *q = *code as u8 ^ QUERY_ZERO);
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
                *most = larger(v.abs(), *most);
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
        // Four vectors at a time: one alone would wait for its own last maximum.
        let mut most = [0f32; 64];
        let (wide, rest) = x.as_chunks::<64>();
        for values in wide {
            most.iter_mut().zip(values).for_each(|(most, v)| *most = larger(v.abs(), *most));
        }
        most.iter_mut().zip(rest).for_each(|(most, v)| *most = larger(v.abs(), *most));
        join_lanes(most, larger)
    }
    dispatch!(isa, body(x: &[f32]) -> f32)
}

/// What one code in ±127 of the values stands for, and the codes of 1.
fn symmetric(isa: Isa, x: &[f32]) -> (f32, f32) {
    let step = largest(isa, x) / 127.0;
    (step, if step > 0.0 { 1.0 / step } else { 0.0 })
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

/// The code of a query's zero: the same for all, so that what it adds to the scores depends on the key alone.
const QUERY_ZERO: u8 = 128;

/// What turns sums of codes into scores, in steps of the query: a factor and an addend for each of 32 keys.
#[derive(Debug)]
struct Scale {
    steps: [f32; BLOCK],
    addends: [f32; BLOCK],
}

impl Scale {
    /// Of keys with these steps and sums of codes; the score of a key that is not there is −∞.
    fn new((steps, sums): (&[f32], &[i32])) -> Self {
        let mut addends = [f32::NEG_INFINITY; BLOCK];
        for ((addend, step), sum) in addends.iter_mut().zip(steps).zip(sums) {
            *addend = -(i32::from(QUERY_ZERO) * sum) as f32 * step;
        }
        Self { steps: padded(steps), addends }
    }
}

/// Writes the scores of rows of a block, which come to lie `stride` apart.
fn scores(isa: Isa, block: &[[i32; BLOCK]], scale: &Scale, out: &mut [f32], stride: usize) {
    #[inline(always)]
    fn body(block: &[[i32; BLOCK]], scale: &Scale, out: &mut [f32], stride: usize) {
        for (sums, out) in block.iter().zip(out.chunks_mut(stride)) {
            let mut values = [0f32; BLOCK];
            for j in 0..BLOCK {
                values[j] = (sums[j] as f32).mul_add(scale.steps[j], scale.addends[j]);
            }
            out[..BLOCK].copy_from_slice(&values);
        }
    }
    dispatch!(isa, body(block: &[[i32; BLOCK]], scale: &Scale, out: &mut [f32], stride: usize))
}

/// Writes rows of weighted sums over the sums of their weights, from `column` on of rows `stride` long.
fn outputs(
    isa: Isa,
    block: &[[i32; BLOCK]],
    sums: &[i32],
    steps: &[f32],
    out: &mut [f32],
    stride: usize,
    column: usize,
) {
    #[inline(always)]
    fn body(
        block: &[[i32; BLOCK]],
        sums: &[i32],
        steps: &[f32],
        out: &mut [f32],
        stride: usize,
        column: usize,
    ) {
        for ((exact, sum), out) in block.iter().zip(sums).zip(out.chunks_exact_mut(stride)) {
            let per_weight = 1.0 / *sum as f32;
            for ((out, exact), step) in out[column..].iter_mut().zip(exact).zip(steps) {
                *out = *exact as f32 * (per_weight * step);
            }
        }
    }
    dispatch!(
        isa,
        body(
            block: &[[i32; BLOCK]],
            sums: &[i32],
            steps: &[f32],
            out: &mut [f32],
            stride: usize,
            column: usize,
        )
    )
}

/// 2 to a power that is not above 0, to 1.1e-4 of itself; nothing below 2⁻²⁹.
#[inline(always)]
fn rough_exp2(x: f32) -> f32 {
    // 2^(n + f) with f in ±1/2: 2^f by a minimax polynomial (Lawson's algorithm), whose exponent n is added to.
    let x = x.max(-29.0);
    let shifted = x + ROUNDER;
    let f = x - (shifted - ROUNDER);
    let mut p = 5.500_896e-2f32;
    p = p.mul_add(f, 2.422_113_7e-1);
    p = p.mul_add(f, 6.932_83e-1);
    p = p.mul_add(f, 1.0);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// Writes the codes of 2^((score − max) · step), and returns their sum, which is at least 255; −∞ has the code 0.
///
/// # Panics
/// Unless there are whole blocks of 32 scores.
fn weigh(isa: Isa, scores: &[f32], step: f32, codes: &mut [u8]) -> i32 {
    #[inline(always)]
    fn body(scores: &[f32], step: f32, codes: &mut [u8]) -> i32 {
        let (scores, codes) = (scores.as_chunks::<BLOCK>().0, codes.as_chunks_mut::<BLOCK>().0);
        let mut most = [f32::NEG_INFINITY; BLOCK];
        for scores in scores {
            for i in 0..BLOCK {
                most[i] = larger(scores[i], most[i]);
            }
        }
        let top = join_lanes(most, larger);
        let mut sums = [0u32; BLOCK];
        for (codes, scores) in codes.iter_mut().zip(scores) {
            for i in 0..BLOCK {
                let bits = rough_exp2((scores[i] - top) * step).mul_add(255.0, ROUNDER).to_bits();
                codes[i] = bits as u8;
                sums[i] = sums[i].wrapping_add(bits);
            }
        }
        // Every term has the rounder's bits in it.
        let sum = sums.iter().fold(0u32, |a, b| a.wrapping_add(*b));
        sum.wrapping_sub(ROUNDER.to_bits().wrapping_mul((BLOCK * codes.len()) as u32)) as i32
    }
    assert!(scores.len().is_multiple_of(BLOCK) && codes.len() == scores.len(), "whole blocks");
    dispatch!(isa, body(scores: &[f32], step: f32, codes: &mut [u8]) -> i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    #[test]
    fn the_rough_exponential_is_near_the_exact_one() {
        for i in 0..=29_000 {
            let x = -29.0 + i as f32 / 1000.0;
            let exact = f64::from(x).exp2();
            assert!((f64::from(rough_exp2(x)) - exact).abs() <= 1.1e-4 * exact, "{x}");
        }
        assert!(rough_exp2(f32::NEG_INFINITY) < 3e-9);
    }

    #[test]
    fn the_largest_score_has_the_largest_code_however_large_it_is() {
        // .7 is no sum of few powers of two: the largest times it is rounded.
        for largest in [0.0, 1e3, 3e9] {
            let mut scores = [f32::NEG_INFINITY; 32];
            scores[..3].copy_from_slice(&[largest, -largest, largest]);
            let mut codes = [7; 32];
            let sum = weigh(Isa::detect(), &scores, 0.7, &mut codes);
            let second = if largest == 0.0 { 255 } else { 0 };
            assert_eq!((codes[..4].to_vec(), sum), (vec![255, second, 255, 0], 510 + i32::from(second)));
        }
    }

    #[test]
    fn a_query_of_zeros_takes_the_mean_of_all_values() {
        let (hidden, tokens) = (32, 40);
        let mut qkv = uniform(3, tokens * 3 * hidden);
        for token in qkv.chunks_exact_mut(3 * hidden) {
            token[..hidden].fill(0.0);
            token[2 * hidden] = 0.0;
        }
        let mut out = vec![f32::NAN; tokens * hidden];
        attention(Isa::detect(), &qkv, &mut out, hidden, 1, &[0, tokens], &mut Workspace::default());
        for (column, found) in out[..hidden].iter().enumerate() {
            let values = qkv.iter().skip(2 * hidden + column).step_by(3 * hidden);
            let mean = values.sum::<f32>() / tokens as f32;
            // Half a step of values up to 1, with either sign.
            assert!((found - mean).abs() < 0.5 / 127.0, "column {column}: {found} {mean}");
        }
        assert_eq!(out[0], 0.0, "values of zeros");
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
