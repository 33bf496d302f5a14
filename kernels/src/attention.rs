//! Self-attention over ragged rows: one text after another, no padding.
//!
//! - Formula: per text and head, `O = softmax(Q Kᵀ / √d) V` (Vaswani et al. 2017).
//! - Shapes: `qkv` is tokens × 3·h (query, key, value side by side), `out` tokens × h, heads of d = h / heads columns.
//! - Accumulation: f32; products by [`gemm`](crate::gemm), the row sum of the softmax in 16 lanes; the division by it
//!   comes last.
//! - A text's rows depend on that text alone, bit for bit.

mod int8;

pub use int8::{Workspace as Int8Workspace, attention as attention_int8};

use crate::gemm::{Epilogue, Packed, Rows, gemm};
use crate::norm::lanes;
use crate::simd::{dispatch, join_lanes, larger};
use crate::{Isa, activation::exp};

/// Buffers that attention reuses from text to text.
#[derive(Debug, Default)]
pub struct Workspace {
    keys: Packed,
    values: Packed,
    scores: Vec<f32>,
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
    let stride = 3 * hidden;
    let scale = 1.0 / (d as f32).sqrt();
    each_text(qkv, out, hidden, heads, offsets, |rows, out| {
        let tokens = rows.len() / stride;
        let Workspace { keys, values, scores } = workspace;
        scores.resize(QUERIES * tokens, 0.0);
        for head in 0..heads {
            let column = head * d;
            keys.repack(tokens, d, |p, j| rows[j * stride + hidden + column + p]);
            values.repack(d, tokens, |p, j| rows[p * stride + 2 * hidden + column + j]);
            for first in (0..tokens).step_by(QUERIES) {
                let count = QUERIES.min(tokens - first);
                let queries = Rows { data: &rows[first * stride + column..], rows: count, stride };
                let scores = &mut scores[..count * tokens];
                gemm(isa, queries, keys.view(), scores, tokens, Epilogue::Scale(scale));
                let mut sums = [0f32; QUERIES];
                weigh(isa, scores, tokens, &mut sums);
                let weights = Rows { data: scores, rows: count, stride: tokens };
                let out = &mut out[first * hidden + column..];
                gemm(isa, weights, values.view(), out, hidden, Epilogue::None);
                for (row, sum) in out.chunks_mut(hidden).zip(&sums[..count]) {
                    let share = 1.0 / sum;
                    row[..d].iter_mut().for_each(|v| *v *= share);
                }
            }
        }
    });
}

/// Calls `attend` for each text that has tokens, with its rows of `qkv` and of `out`.
fn each_text(
    qkv: &[f32],
    out: &mut [f32],
    hidden: usize,
    heads: usize,
    offsets: &[usize],
    mut attend: impl FnMut(&[f32], &mut [f32]),
) {
    assert!(hidden.is_multiple_of(heads), "heads divide the hidden size");
    let texts = offsets.windows(2).map(|text| text[0]..text[1]);
    for text in texts.filter(|text| text.start != text.end) {
        let rows = &qkv[3 * hidden * text.start..3 * hidden * text.end];
        attend(rows, &mut out[hidden * text.start..hidden * text.end]);
    }
}

/// Queries whose scores are made at a time: two tiles of the product, and for 256 tokens half of the first cache.
const QUERIES: usize = 24;

/// Replaces each row of `cols` scores by exp(score − max), and gives the sum of each.
fn weigh(isa: Isa, x: &mut [f32], cols: usize, sums: &mut [f32]) {
    #[inline(always)]
    fn body(x: &mut [f32], cols: usize, sums: &mut [f32]) {
        for (row, sum) in x.chunks_exact_mut(cols).zip(sums) {
            let mut best = [f32::NEG_INFINITY; 16];
            for chunk in row.chunks(16) {
                best.iter_mut().zip(chunk).for_each(|(best, v)| *best = larger(*v, *best));
            }
            let max = join_lanes(best, larger);
            for v in row.iter_mut() {
                *v = exp(*v - max);
            }
            *sum = lanes(row, row, |x, _, sum| x + sum);
        }
    }
    dispatch!(isa, body(x: &mut [f32], cols: usize, sums: &mut [f32]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// The definition in f64.
    fn reference(qkv: &[f32], hidden: usize, heads: usize, offsets: &[usize]) -> Vec<f64> {
        let (d, stride) = (hidden / heads, 3 * hidden);
        let at = |t: usize, c: usize| f64::from(qkv[t * stride + c]);
        let mut out = vec![0f64; offsets[offsets.len() - 1] * hidden];
        for text in offsets.windows(2) {
            for head in 0..heads {
                for i in text[0]..text[1] {
                    let score = |j: usize| {
                        (0..d).map(|p| at(i, head * d + p) * at(j, hidden + head * d + p)).sum::<f64>()
                            / (d as f64).sqrt()
                    };
                    let weights: Vec<f64> = (text[0]..text[1]).map(|j| score(j).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for p in 0..d {
                        out[i * hidden + head * d + p] = (text[0]..text[1])
                            .zip(&weights)
                            .map(|(j, w)| w / total * at(j, 2 * hidden + head * d + p))
                            .sum();
                    }
                }
            }
        }
        out
    }

    #[test]
    fn ragged_texts_agree_with_the_definition_and_not_with_their_neighbours() {
        let (hidden, heads) = (64, 2);
        // One token, a panel less one, a panel, a panel and one, and an empty text.
        let offsets = [0, 1, 32, 32, 64, 97];
        let qkv = uniform(9, 97 * 3 * hidden);
        let mut out = vec![0f32; 97 * hidden];
        let isa = Isa::detect();
        attention(isa, &qkv, &mut out, hidden, heads, &offsets, &mut Workspace::default());
        for (found, expected) in out.iter().zip(reference(&qkv, hidden, heads, &offsets)) {
            // Weights and values are below 1 in size: about 40 roundings of 6e-8.
            assert!((f64::from(*found) - expected).abs() < 3e-6);
        }
        let mut alone = vec![0f32; 33 * hidden];
        attention(
            isa,
            &qkv[64 * 3 * hidden..],
            &mut alone,
            hidden,
            heads,
            &[0, 33],
            &mut Workspace::default(),
        );
        assert_eq!(alone, out[64 * hidden..], "the same bits alone");
    }

    #[test]
    fn large_scores_do_no_harm() {
        let mut x = [1000.0, 1000.0, -1000.0];
        let mut sums = [0.0];
        weigh(Isa::detect(), &mut x, 3, &mut sums);
        assert_eq!((x[0], x[1], sums[0]), (1.0, 1.0, 2.0));
        assert!(x[2] < 1e-30);
    }
}
