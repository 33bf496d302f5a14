//! Nearest rows by 8-bit codes: i32 dot products, exact, the same on every device.

use super::{Best, Neighbours, STRIP, check, select};
use crate::{Isa, Matrix, Result};

/// Rows of a panel: 16 sums of i32 fill an AVX-512 register.
const PANEL: usize = 16;

/// Queries of a tile: 8 sums of 16 points each, and the four codes of each query spread over a register.
const TILE: usize = 8;

/// Codes packed once for searching: panels of 16 rows, four columns of each row side by side.
#[derive(Debug, Clone)]
pub struct Codes {
    rows: usize,
    cols: usize,
    /// Columns rounded up to four, the padding 0.
    depth: usize,
    /// Per panel: depth / 4 groups × 16 rows × 4 columns.
    panels: Vec<i8>,
    /// Per row: 128 · Σ codes, which the unsigned-by-signed instruction adds too much.
    offsets: Vec<i32>,
}

impl Codes {
    /// Packs the rows of `codes`.
    pub fn pack(codes: &Matrix<i8>) -> Self {
        let (rows, cols) = (codes.rows(), codes.cols());
        let depth = cols.next_multiple_of(4);
        let mut panels = vec![0i8; rows.div_ceil(PANEL) * PANEL * depth];
        for (i, row) in codes.iter_rows().enumerate() {
            let start = i / PANEL * PANEL * depth;
            for (j, &code) in row.iter().enumerate() {
                panels[start + (j / 4) * PANEL * 4 + (i % PANEL) * 4 + j % 4] = code;
            }
        }
        let offsets =
            codes.iter_rows().map(|row| 128 * row.iter().map(|&c| i32::from(c)).sum::<i32>()).collect();
        Self { rows, cols, depth, panels, offsets }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    fn panel(&self, i: usize) -> &[i8] {
        &self.panels[i * PANEL * self.depth..(i + 1) * PANEL * self.depth]
    }
}

/// Returns the `k` rows of `points` with the largest dot product for each row of `queries`, ties by index.
///
/// # Errors
/// `Shape` if the columns differ, or `k` is larger than the number of points.
pub fn topk_codes(queries: &Matrix<i8>, points: &Codes, k: usize) -> Result<Neighbours<i32>> {
    topk_codes_on(Isa::detect(), queries, points, k)
}

fn topk_codes_on(isa: Isa, queries: &Matrix<i8>, points: &Codes, k: usize) -> Result<Neighbours<i32>> {
    check(queries.cols(), points.cols, points.rows, k)?;
    let depth = points.depth;
    Ok(select(queries.rows(), points.rows, k, |first, rows, best: &mut [Best<i32>]| {
        let mut padded = vec![0i8; rows.next_multiple_of(TILE) * depth];
        for i in 0..rows {
            padded[i * depth..i * depth + points.cols].copy_from_slice(queries.row(first + i));
        }
        let mut scores = vec![[0i32; STRIP]; rows.next_multiple_of(TILE)];
        for strip in (0..points.rows).step_by(STRIP) {
            let width = STRIP.min(points.rows - strip);
            for part in (0..width).step_by(PANEL) {
                let panel = points.panel((strip + part) / PANEL);
                for (queries, scores) in
                    padded.chunks_exact(TILE * depth.max(1)).zip(scores.chunks_exact_mut(TILE))
                {
                    let sums = tile(isa, queries, panel, depth, &points.offsets[strip + part..]);
                    for (scores, sums) in scores.iter_mut().zip(sums) {
                        scores[part..part + PANEL].copy_from_slice(&sums);
                    }
                }
            }
            for (best, scores) in best.iter_mut().zip(&scores) {
                best.offer(&scores[..width], strip);
            }
        }
    }))
}

/// The products of 8 queries with the 16 rows of a panel.
fn tile(isa: Isa, queries: &[i8], panel: &[i8], depth: usize, offsets: &[i32]) -> [[i32; PANEL]; TILE] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => {
            assert!(queries.len() == TILE * depth && panel.len() == PANEL * depth && depth.is_multiple_of(4));
            // SAFETY: `Isa` saw AVX-512 VNNI; the assertion bounds both operands.
            let mut sums = unsafe { vnni(queries, panel, depth) };
            for sums in &mut sums {
                for (sum, offset) in sums.iter_mut().zip(offsets) {
                    // Both may pass i32 for tens of thousands of columns; their difference does not.
                    *sum = sum.wrapping_sub(*offset);
                }
            }
            sums
        }
        _ => {
            crate::simd::dispatch!(isa, plain(queries: &[i8], panel: &[i8], depth: usize) -> [[i32; PANEL]; TILE])
        }
    }
}

/// The definition.
#[inline(always)]
fn plain(queries: &[i8], panel: &[i8], depth: usize) -> [[i32; PANEL]; TILE] {
    let mut sums = [[0i32; PANEL]; TILE];
    for (sums, query) in sums.iter_mut().zip(queries.chunks_exact(depth.max(1))) {
        for (q, rows) in query.chunks_exact(4).zip(panel.chunks_exact(PANEL * 4)) {
            for (sum, p) in sums.iter_mut().zip(rows.chunks_exact(4)) {
                for i in 0..4 {
                    *sum += i32::from(i16::from(q[i]) * i16::from(p[i]));
                }
            }
        }
    }
    sums
}

/// The products plus 128 · Σ of the panel's codes: the queries are moved to 0..=255 for the instruction's sake.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn vnni(queries: &[i8], panel: &[i8], depth: usize) -> [[i32; PANEL]; TILE] {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_si512(); TILE];
    for group in 0..depth / 4 {
        // SAFETY: the caller's lengths: a panel has depth / 4 groups of 64 bytes, a query depth bytes.
        unsafe {
            let points = _mm512_loadu_si512(panel.as_ptr().add(group * PANEL * 4).cast());
            for (i, sum) in sums.iter_mut().enumerate() {
                let four = queries.as_ptr().add(i * depth + group * 4).cast::<i32>().read_unaligned();
                let unsigned = _mm512_set1_epi32(four ^ 0x8080_8080_u32 as i32);
                *sum = _mm512_dpbusd_epi32(*sum, unsigned, points);
            }
        }
    }
    let mut out = [[0i32; PANEL]; TILE];
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: `out` holds 16 values.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    fn codes(seed: u64, rows: usize, cols: usize) -> Matrix<i8> {
        let values = uniform(seed, rows * cols).iter().map(|v| (v * 128.0) as i8).collect();
        Matrix::try_from_vec(rows, cols, values).unwrap()
    }

    #[test]
    fn every_instruction_set_finds_what_a_full_sort_finds() {
        // Columns that are no multiple of four; rows around a panel, a strip; queries around a tile and a block.
        for (queries, points, d, k) in [(1, 1, 1, 1), (7, 17, 6, 5), (9, 130, 384, 10), (97, 300, 31, 300)] {
            let (q, p) = (codes(1, queries, d), codes(2, points, d));
            let packed = Codes::pack(&p);
            for isa in Isa::available() {
                let found = topk_codes_on(isa, &q, &packed, k).unwrap();
                for i in 0..queries {
                    let mut all: Vec<(i32, u32)> = (0..points)
                        .map(|j| {
                            let dot = q
                                .row(i)
                                .iter()
                                .zip(p.row(j))
                                .map(|(a, b)| i32::from(*a) * i32::from(*b))
                                .sum();
                            (dot, j as u32)
                        })
                        .collect();
                    all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
                    let expected: Vec<u32> = all.iter().take(k).map(|x| x.1).collect();
                    assert_eq!(found.indices.row(i), expected, "{queries} {points} {d} on {}", isa.name());
                    assert_eq!(found.scores.row(i)[k - 1], all[k - 1].0);
                }
            }
        }
    }

    #[test]
    fn the_extreme_codes_do_not_overflow() {
        let m = Matrix::try_from_vec(1, 1000, vec![-128i8; 1000]).unwrap();
        for isa in Isa::available() {
            let found = topk_codes_on(isa, &m, &Codes::pack(&m), 1).unwrap();
            assert_eq!(found.scores.as_slice(), [128 * 128 * 1000]);
        }
    }
}
