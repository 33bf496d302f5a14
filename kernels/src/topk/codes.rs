//! Nearest rows by 8-bit codes: i32 dot products, exact, the same on every device.

use super::{Best, Neighbours, check, select};
use crate::codes::{BLOCK, CodePanels, CodeRows, Multiplier};
use crate::{Isa, Matrix, Result, simd::dispatch};

/// Codes packed once for searching.
#[derive(Debug, Clone)]
pub struct Codes {
    panels: CodePanels,
    /// Per row: 128 · Σ codes, by how much a product with unsigned queries is too large.
    offsets: Vec<i32>,
}

impl Codes {
    /// Packs the rows of `codes`.
    pub fn pack(codes: &Matrix<i8>) -> Self {
        let panels = CodePanels::pack(codes.rows(), codes.cols(), |p, j| codes.row(j)[p]);
        let offsets = panels.sums().iter().map(|sum| 128 * sum).collect();
        Self { panels, offsets }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.panels.n()
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.panels.k()
    }
}

/// Returns the `k` rows of `points` with the largest dot product for each row of `queries`, ties by index.
///
/// # Errors
/// `Shape` if the columns differ, or `k` is larger than the number of points.
pub fn topk_codes(queries: &Matrix<i8>, points: &Codes, k: usize) -> Result<Neighbours<i32>> {
    topk_codes_on(Isa::detect(), queries, points, k)
}

/// The same on one instruction set.
pub(super) fn topk_codes_on(
    isa: Isa,
    queries: &Matrix<i8>,
    points: &Codes,
    k: usize,
) -> Result<Neighbours<i32>> {
    check(queries.cols(), points.cols(), points.rows(), k)?;
    Ok(select(queries.rows(), task_rows(queries.rows()), k, |first, rows, best: &mut [Best<i32>]| {
        let mut unsigned = CodeRows::default();
        unsigned.resize(rows, points.cols());
        for i in 0..rows {
            for (unsigned, code) in unsigned.row_mut(i).iter_mut().zip(queries.row(first + i)) {
                *unsigned = *code as u8 ^ 0x80;
            }
        }
        let multiplier = Multiplier::new(isa);
        let mut thresholds: Vec<i32> = best.iter().map(Best::threshold).collect();
        let panels = 0..points.rows().div_ceil(BLOCK);
        let pairs = panels.flat_map(|panel| (0..rows).step_by(BLOCK).map(move |first| (first, panel)));
        multiplier.stream(&unsigned, &points.panels, pairs, |panel, rows, block| {
            let start = panel * BLOCK;
            let offsets = &points.offsets[start..points.rows().min(start + BLOCK)];
            let thresholds = &mut thresholds[rows.clone()];
            let better = better(isa, block, offsets, thresholds);
            let rows = block.iter().zip(better).zip(thresholds).zip(&mut best[rows]);
            for (((sums, mut better), threshold), best) in rows.filter(|(((_, better), _), _)| *better != 0) {
                while better != 0 {
                    let column = better.trailing_zeros() as usize;
                    better &= better - 1;
                    best.push(sums[column].wrapping_sub(offsets[column]), (start + column) as u32);
                }
                *threshold = best.threshold();
            }
        });
    }))
}

/// Queries of a task. The points stream past each task's from the third cache, which tiles outrun: many queries make
/// the most of each panel that has come, but every thread should have some tasks.
fn task_rows(queries: usize) -> usize {
    (queries / (4 * rayon::current_num_threads())).next_multiple_of(BLOCK).clamp(3 * BLOCK, 6 * BLOCK)
}

/// For each row of a block of products, as many as there are thresholds, a bit for each that, its offset taken off, is
/// above the row's threshold.
pub(super) fn better(isa: Isa, block: &[[i32; BLOCK]], offsets: &[i32], thresholds: &[i32]) -> [u32; BLOCK] {
    #[inline(always)]
    fn body(isa: Isa, block: &[[i32; BLOCK]], offsets: &[i32], thresholds: &[i32]) -> [u32; BLOCK] {
        let mut padded = [0; BLOCK];
        padded[..offsets.len()].copy_from_slice(offsets);
        let exist = u32::MAX >> (BLOCK - offsets.len());
        let mut better = [0; BLOCK];
        for ((better, sums), threshold) in better.iter_mut().zip(block).zip(thresholds) {
            *better = above(isa, sums, &padded, *threshold) & exist;
        }
        better
    }
    dispatch!(isa, body(isa: Isa, block: &[[i32; BLOCK]], offsets: &[i32], thresholds: &[i32]) -> [u32; BLOCK])
}

/// A bit for each sum that, its offset taken off, is above `threshold`.
#[inline(always)]
fn above(isa: Isa, sums: &[i32; BLOCK], offsets: &[i32; BLOCK], threshold: i32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        /// # Safety
        /// The processor must have AVX-512 F.
        #[inline]
        #[target_feature(enable = "avx512f")]
        unsafe fn masks(sums: &[i32; BLOCK], offsets: &[i32; BLOCK], threshold: i32) -> u32 {
            use std::arch::x86_64::*;
            let half = |first: usize| {
                // SAFETY: sixteen of each.
                let [sums, offsets] =
                    unsafe { [sums, offsets].map(|x| _mm512_loadu_si512(x.as_ptr().add(first).cast())) };
                _mm512_cmpgt_epi32_mask(_mm512_sub_epi32(sums, offsets), _mm512_set1_epi32(threshold))
            };
            u32::from(half(16)) << 16 | u32::from(half(0))
        }
        if isa >= Isa::Avx512 {
            // SAFETY: `Isa` saw AVX-512.
            return unsafe { masks(sums, offsets, threshold) };
        }
    }
    let _ = isa;
    let mut bits = 0;
    for (column, (sum, offset)) in sums.iter().zip(offsets).enumerate() {
        // Both may pass i32 for tens of thousands of columns; their difference does not.
        bits |= u32::from(sum.wrapping_sub(*offset) > threshold) << column;
    }
    bits
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
