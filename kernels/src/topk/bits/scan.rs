//! Tiles of Hamming distances, on each set of instructions: four queries by the 32 points of a panel, compared with
//! limits.

use crate::Matrix;
use std::ops::Range;

/// Queries of a tile.
pub(super) const FOUR: usize = 4;

/// Points of a panel.
pub(super) const PANEL: usize = 32;

/// One word of each of `N` rows: registers' worth of them, so that a load never crosses a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Words<const N: usize>([u64; N]);

/// A tile in which something was near enough.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// A bit for each distance that is below its query's limit.
    pub(super) better: u128,
    pub(super) distances: [[u64; PANEL]; FOUR],
}

/// How bits are counted.
///
/// Only [`Path::available`] makes other values than `Portable`, so holding one is proof that this processor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// `count_ones`.
    Portable,
    /// Half a byte at a time, by a table of 16 in a register; words are packed as their low and their high halves.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// An instruction of AVX-512.
    #[cfg(target_arch = "x86_64")]
    Vpopcntdq,
    /// An instruction on bytes.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Path {
    /// The best of this processor.
    pub(super) fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// All that this processor can run, the plainest first.
    pub(super) fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut paths = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let isa = crate::Isa::detect();
            if isa >= crate::Isa::Avx2 {
                paths.push(Self::Avx2);
            }
            if isa >= crate::Isa::Avx512 && is_x86_feature_detected!("avx512vpopcntdq") {
                paths.push(Self::Vpopcntdq);
            }
        }
        #[cfg(target_arch = "aarch64")]
        paths.push(Self::Neon);
        paths
    }

    /// Words that this path has for a row of `bytes`: one at least, so that rows without bits have a distance too.
    pub(super) fn depth(self, bytes: usize) -> usize {
        let words = bytes.div_ceil(8).max(1);
        if self.takes_halves() { 2 * words } else { words }
    }

    fn takes_halves(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Self::Avx2;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Packs some rows in panels of `N`, [`Path::depth`] words each, the padding 0.
    pub(super) fn pack<const N: usize>(
        self,
        codes: &Matrix<u8>,
        rows: Range<usize>,
        panels: &mut Vec<Words<N>>,
    ) {
        /// The low half of each byte.
        const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
        let depth = self.depth(codes.cols());
        panels.resize(rows.len().div_ceil(N) * depth, Words([0; N]));
        for (at, row) in rows.enumerate() {
            let panel = &mut panels[at / N * depth..][..depth];
            for (w, bytes) in codes.row(row).chunks(8).enumerate() {
                let mut eight = [0; 8];
                eight[..bytes.len()].copy_from_slice(bytes);
                let word = u64::from_le_bytes(eight);
                if self.takes_halves() {
                    panel[2 * w].0[at % N] = word & LOW;
                    panel[2 * w + 1].0[at % N] = word >> 4 & LOW;
                } else {
                    panel[w].0[at % N] = word;
                }
            }
        }
    }

    /// Computes tiles of `panel` from the four `from` on until one has a point that is nearer to a query than its
    /// limit; returns which, or the number of fours.
    ///
    /// # Panics
    /// Unless there are as many words of `fours` as the limits and the panel say.
    pub(super) fn scan(
        self,
        fours: &[Words<FOUR>],
        panel: &[Words<PANEL>],
        limits: &[[u64; FOUR]],
        from: usize,
        hits: &mut Hits,
    ) -> usize {
        assert!(fours.len() == limits.len() * panel.len(), "queries that fit the panel");
        match self {
            // SAFETY: `available` saw the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Vpopcntdq => unsafe { x86::scan_vpopcntdq(fours, panel, limits, from, hits) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::scan_avx2(fours, panel, limits, from, hits) },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::scan(fours, panel, limits, from, hits),
            Self::Portable => scan_portable(fours, panel, limits, from, hits),
        }
    }
}

impl Hits {
    /// Compares the distances with the limits; says whether one is below.
    #[inline(always)]
    fn compare(&mut self, limits: &[u64; FOUR]) -> bool {
        self.better = 0;
        for (i, (distances, limit)) in self.distances.iter().zip(limits).enumerate() {
            let mut better = 0;
            for (j, distance) in distances.iter().enumerate() {
                better |= u32::from(distance < limit) << j;
            }
            self.better |= u128::from(better) << (PANEL * i);
        }
        self.better != 0
    }
}

/// The definition.
fn scan_portable(
    fours: &[Words<FOUR>],
    panel: &[Words<PANEL>],
    limits: &[[u64; FOUR]],
    from: usize,
    hits: &mut Hits,
) -> usize {
    for (four, limits) in limits.iter().enumerate().skip(from) {
        hits.distances = [[0; PANEL]; FOUR];
        for (queries, points) in fours[four * panel.len()..].iter().zip(panel) {
            for (distances, query) in hits.distances.iter_mut().zip(queries.0) {
                for (distance, point) in distances.iter_mut().zip(points.0) {
                    *distance += u64::from((query ^ point).count_ones());
                }
            }
        }
        if hits.compare(limits) {
            return four;
        }
    }
    limits.len()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{FOUR, Hits, PANEL, Words};
    use std::arch::x86_64::*;

    /// 4 × 32: 16 of 32 registers add up.
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub fn scan_vpopcntdq(
        fours: &[Words<FOUR>],
        panel: &[Words<PANEL>],
        limits: &[[u64; FOUR]],
        from: usize,
        hits: &mut Hits,
    ) -> usize {
        for (four, limits) in limits.iter().enumerate().skip(from) {
            let mut sums = [[_mm512_setzero_si512(); 4]; FOUR];
            for (queries, points) in fours[four * panel.len()..].iter().zip(panel) {
                // SAFETY: a line of a panel is four registers, aligned.
                let points: [__m512i; 4] = std::array::from_fn(|i| unsafe {
                    _mm512_load_si512(points.0.as_ptr().add(8 * i).cast())
                });
                for (sums, query) in sums.iter_mut().zip(queries.0) {
                    let query = _mm512_set1_epi64(query as i64);
                    for (sum, point) in sums.iter_mut().zip(points) {
                        *sum = _mm512_add_epi64(*sum, _mm512_popcnt_epi64(_mm512_xor_si512(query, point)));
                    }
                }
            }
            // One chain of masks, so that nearly always one branch is all.
            let mut none = 0xff;
            for (sums, limit) in sums.iter().zip(limits) {
                let limit = _mm512_set1_epi64(*limit as i64);
                for sum in sums {
                    none = _mm512_mask_cmpge_epu64_mask(none, *sum, limit);
                }
            }
            if none == 0xff {
                continue;
            }
            hits.better = 0;
            for (i, (sums, limit)) in sums.iter().zip(limits).enumerate() {
                let limit = _mm512_set1_epi64(*limit as i64);
                let better = sums.map(|sum| _mm512_cmplt_epu64_mask(sum, limit));
                hits.better |= u128::from(u32::from_le_bytes(better)) << (PANEL * i);
                for (distances, sum) in hits.distances[i].as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                    // SAFETY: eight distances are a register.
                    unsafe { _mm512_storeu_si512(distances.as_mut_ptr().cast(), *sum) };
                }
            }
            return four;
        }
        limits.len()
    }

    /// Halves of words whose counts, of at most 4 a byte, add up in a byte.
    const HALVES: usize = 62;

    /// Four times 4 × 8: 8 of 16 registers add up, in bytes.
    #[target_feature(enable = "avx2")]
    pub fn scan_avx2(
        fours: &[Words<FOUR>],
        panel: &[Words<PANEL>],
        limits: &[[u64; FOUR]],
        from: usize,
        hits: &mut Hits,
    ) -> usize {
        let counts = _mm256_setr_epi8(
            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
        );
        for (four, limits) in limits.iter().enumerate().skip(from) {
            let queries = &fours[four * panel.len()..][..panel.len()];
            let mut any = _mm256_setzero_si256();
            for eight in 0..PANEL / 8 {
                let mut totals = [[_mm256_setzero_si256(); 2]; FOUR];
                for (queries, panel) in queries.chunks(HALVES).zip(panel.chunks(HALVES)) {
                    let mut sums = [[_mm256_setzero_si256(); 2]; FOUR];
                    for (queries, points) in queries.iter().zip(panel) {
                        // SAFETY: an eighth of a line is two registers, aligned.
                        let points: [__m256i; 2] = std::array::from_fn(|i| unsafe {
                            _mm256_load_si256(points.0.as_ptr().add(8 * eight + 4 * i).cast())
                        });
                        for (sums, query) in sums.iter_mut().zip(queries.0) {
                            let query = _mm256_set1_epi64x(query as i64);
                            for (sum, point) in sums.iter_mut().zip(points) {
                                let counted = _mm256_shuffle_epi8(counts, _mm256_xor_si256(query, point));
                                *sum = _mm256_add_epi8(*sum, counted);
                            }
                        }
                    }
                    for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                        let sum = _mm256_sad_epu8(*sum, _mm256_setzero_si256());
                        *total = _mm256_add_epi64(*total, sum);
                    }
                }
                for (i, (totals, limit)) in totals.iter().zip(limits).enumerate() {
                    let limit = _mm256_set1_epi64x(*limit as i64);
                    for (j, total) in totals.iter().enumerate() {
                        any = _mm256_or_si256(any, _mm256_cmpgt_epi64(limit, *total));
                        let distances = &mut hits.distances[i][8 * eight + 4 * j..][..4];
                        // SAFETY: four distances are a register.
                        unsafe { _mm256_storeu_si256(distances.as_mut_ptr().cast(), *total) };
                    }
                }
            }
            if _mm256_testz_si256(any, any) == 0 && hits.compare(limits) {
                return four;
            }
        }
        limits.len()
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{FOUR, Hits, PANEL, Words};
    use std::arch::aarch64::*;

    /// Words whose counts, of at most 8 a byte, add up in a byte.
    const WORDS: usize = 31;

    /// Four times 4 × 8: 16 of 32 registers add up, in bytes.
    pub fn scan(
        fours: &[Words<FOUR>],
        panel: &[Words<PANEL>],
        limits: &[[u64; FOUR]],
        from: usize,
        hits: &mut Hits,
    ) -> usize {
        for (four, limits) in limits.iter().enumerate().skip(from) {
            let queries = &fours[four * panel.len()..][..panel.len()];
            for eight in 0..PANEL / 8 {
                // SAFETY: NEON is part of the target; eight points of a line are four registers, as eight distances
                // are.
                unsafe {
                    let mut totals = [[vdupq_n_u64(0); 4]; FOUR];
                    for (queries, panel) in queries.chunks(WORDS).zip(panel.chunks(WORDS)) {
                        let mut sums = [[vdupq_n_u8(0); 4]; FOUR];
                        for (queries, points) in queries.iter().zip(panel) {
                            let points: [uint64x2_t; 4] =
                                std::array::from_fn(|i| vld1q_u64(points.0.as_ptr().add(8 * eight + 2 * i)));
                            for (sums, query) in sums.iter_mut().zip(queries.0) {
                                let query = vdupq_n_u64(query);
                                for (sum, point) in sums.iter_mut().zip(points) {
                                    let differ = vreinterpretq_u8_u64(veorq_u64(query, point));
                                    *sum = vaddq_u8(*sum, vcntq_u8(differ));
                                }
                            }
                        }
                        for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                            *total = vpadalq_u32(*total, vpaddlq_u16(vpaddlq_u8(*sum)));
                        }
                    }
                    for (distances, totals) in hits.distances.iter_mut().zip(totals) {
                        for (i, total) in totals.into_iter().enumerate() {
                            vst1q_u64(distances.as_mut_ptr().add(8 * eight + 2 * i), total);
                        }
                    }
                }
            }
            if hits.compare(limits) {
                return four;
            }
        }
        limits.len()
    }
}
