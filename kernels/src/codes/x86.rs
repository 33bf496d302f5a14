//! Blocks by the vectors of x86-64: with VNNI (on 512 or 256 bits) four products and their sum are one instruction,
//! with AVX2 they are four.

use super::{BLOCK, Operands};
use std::arch::x86_64::*;

/// Tiles of 12, 12 and 8 rows by 32 columns; fewer rows take fewer tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub unsafe fn block_avx512_vnni(operands: Operands<'_>, out: &mut [[i32; BLOCK]; BLOCK]) {
    let mut first = 0;
    while first < operands.count {
        let (operands, out) = (operands.below(first), &mut out[first..]);
        // SAFETY: the caller's rows are 32, of which a tile never reads past the last.
        unsafe {
            match operands.count {
                1..=4 => tile_avx512_vnni::<4>(operands, out),
                5..=8 => tile_avx512_vnni::<8>(operands, out),
                _ => tile_avx512_vnni::<12>(operands, out),
            }
        }
        first += 12;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile_avx512_vnni<const MR: usize>(operands: Operands<'_>, out: &mut [[i32; BLOCK]]) {
    let mut sums = [[_mm512_setzero_si512(); 2]; MR];
    for group in 0..operands.groups {
        // SAFETY: the caller's panel has `groups` groups of 128 bytes, and there are MR rows of as many steps.
        unsafe {
            let b: [__m512i; 2] =
                std::array::from_fn(|j| _mm512_load_si512(operands.columns(group, 16 * j).cast()));
            for (i, sums) in sums.iter_mut().enumerate() {
                let four = _mm512_set1_epi32(operands.four(i, group));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbusd_epi32(*sum, four, b);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: 16 values are a register.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }
}

/// Tiles of 6 rows by 16 columns (12 of 16 registers accumulate), the last of 2.
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn block_avx_vnni(operands: Operands<'_>, out: &mut [[i32; BLOCK]; BLOCK]) {
    let mut first = 0;
    while first < operands.count {
        let (operands, out) = (operands.below(first), &mut out[first..]);
        for column in [0, 16] {
            // SAFETY: as above.
            unsafe {
                match operands.count {
                    1..=2 => tile_avx_vnni::<2>(operands, out, column),
                    _ => tile_avx_vnni::<6>(operands, out, column),
                }
            }
        }
        first += 6;
    }
}

#[target_feature(enable = "avx2,avxvnni")]
unsafe fn tile_avx_vnni<const MR: usize>(operands: Operands<'_>, out: &mut [[i32; BLOCK]], column: usize) {
    let mut sums = [[_mm256_setzero_si256(); 2]; MR];
    for group in 0..operands.groups {
        // SAFETY: as for 512 bits.
        unsafe {
            let b: [__m256i; 2] =
                std::array::from_fn(|j| _mm256_load_si256(operands.columns(group, column + 8 * j).cast()));
            for (i, sums) in sums.iter_mut().enumerate() {
                let four = _mm256_set1_epi32(operands.four(i, group));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, four, b);
                }
            }
        }
    }
    store(sums, out, column);
}

/// Tiles of 4 rows by 16 columns (8 of 16 registers accumulate), or of 2.
#[target_feature(enable = "avx2")]
pub unsafe fn block_avx2(operands: Operands<'_>, out: &mut [[i32; BLOCK]; BLOCK]) {
    let mut first = 0;
    while first < operands.count {
        let (operands, out) = (operands.below(first), &mut out[first..]);
        for column in [0, 16] {
            // SAFETY: as above.
            unsafe {
                match operands.count {
                    1..=2 => tile_avx2::<2>(operands, out, column),
                    _ => tile_avx2::<4>(operands, out, column),
                }
            }
        }
        first += 4;
    }
}

/// The sum of two products of bytes may pass 16 bits (`vpmaddubsw` would saturate), so even and odd steps are widened
/// to 16 bits, still in their columns' lanes, and `vpmaddwd` sums up each two in 32.
#[target_feature(enable = "avx2")]
unsafe fn tile_avx2<const MR: usize>(operands: Operands<'_>, out: &mut [[i32; BLOCK]], column: usize) {
    let low = _mm256_set1_epi16(0xff);
    let mut sums = [[_mm256_setzero_si256(); 2]; MR];
    for group in 0..operands.groups {
        // SAFETY: as for 512 bits.
        unsafe {
            let b: [[__m256i; 2]; 2] = std::array::from_fn(|j| {
                let b = _mm256_load_si256(operands.columns(group, column + 8 * j).cast());
                [_mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), _mm256_srai_epi16(b, 8)]
            });
            for (i, sums) in sums.iter_mut().enumerate() {
                let four = _mm256_set1_epi32(operands.four(i, group));
                let (even, odd) = (_mm256_and_si256(four, low), _mm256_srli_epi16(four, 8));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(even, b[0]));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odd, b[1]));
                }
            }
        }
    }
    store(sums, out, column);
}

/// Stores 16 columns of a tile.
#[target_feature(enable = "avx2")]
fn store<const MR: usize>(sums: [[__m256i; 2]; MR], out: &mut [[i32; BLOCK]], column: usize) {
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out[column..].as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            // SAFETY: 8 values are a register.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
        }
    }
}
