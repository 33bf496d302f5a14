//! Blocks by NEON, which multiplies signed bytes by signed ones: rows less 128, and 128 times the columns' sums on top.

use super::{BLOCK, Operands};
use std::arch::aarch64::*;
use std::arch::asm;

/// Tiles of 4 rows by 16 columns (16 of 32 registers accumulate).
#[target_feature(enable = "dotprod")]
pub unsafe fn block_dot(operands: Operands<'_>, out: &mut [[i32; BLOCK]; BLOCK]) {
    for first in (0..operands.count).step_by(4) {
        for column in [0, 16] {
            // SAFETY: the caller's rows are 32, a multiple of a tile's.
            unsafe { tile_dot(operands.below(first), &mut out[first..], column) };
        }
    }
    // SAFETY: the caller's panel.
    unsafe { add_sums(operands, out) };
}

#[target_feature(enable = "dotprod")]
unsafe fn tile_dot(operands: Operands<'_>, out: &mut [[i32; BLOCK]], column: usize) {
    let mut sums = [[vdupq_n_s32(0); 4]; 4];
    for group in 0..operands.groups {
        // SAFETY: the caller's panel has `groups` groups of 128 bytes, and there are four rows of as many steps.
        unsafe {
            let b: [int8x16_t; 4] =
                std::array::from_fn(|j| vld1q_s8(operands.columns(group, column + 4 * j).cast()));
            for (i, sums) in sums.iter_mut().enumerate() {
                let four = signed(operands.four(i, group));
                for (sum, b) in sums.iter_mut().zip(b) {
                    // SAFETY: the instruction that this function is compiled for; it has no stable intrinsic yet.
                    asm!(
                        "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                        sum = inout(vreg) *sum, a = in(vreg) four, b = in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out[column..].as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: 4 values are a register.
            unsafe { vst1q_s32(out.as_mut_ptr(), sum) };
        }
    }
}

/// Tiles of 2 rows by 16 columns, for processors without dot products: a product fits 16 bits, and pairs add up in 32.
pub unsafe fn block(operands: Operands<'_>, out: &mut [[i32; BLOCK]; BLOCK]) {
    for first in (0..operands.count).step_by(2) {
        for column in [0, 16] {
            // SAFETY: as above.
            unsafe { tile(operands.below(first), &mut out[first..], column) };
        }
    }
    // SAFETY: as above.
    unsafe { add_sums(operands, out) };
}

unsafe fn tile(operands: Operands<'_>, out: &mut [[i32; BLOCK]], column: usize) {
    // SAFETY: as above; NEON is part of the target.
    unsafe {
        // Of each four columns the sums of two, each in two lanes, and of the other two.
        let mut sums = [[[vdupq_n_s32(0); 2]; 4]; 2];
        for group in 0..operands.groups {
            let b: [int8x16_t; 4] =
                std::array::from_fn(|j| vld1q_s8(operands.columns(group, column + 4 * j).cast()));
            for (i, sums) in sums.iter_mut().enumerate() {
                let four = signed(operands.four(i, group));
                for (sum, b) in sums.iter_mut().zip(b) {
                    sum[0] = vpadalq_s16(sum[0], vmull_s8(vget_low_s8(four), vget_low_s8(b)));
                    sum[1] = vpadalq_s16(sum[1], vmull_high_s8(four, b));
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out[column..].as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                vst1q_s32(out.as_mut_ptr(), vpaddq_s32(sum[0], sum[1]));
            }
        }
    }
}

/// Four bytes of a row less 128, as a register repeats them.
fn signed(four: i32) -> int8x16_t {
    // SAFETY: NEON is part of the target.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(four ^ 0x8080_8080_u32 as i32)) }
}

/// Adds 128 times the sum of each column to its products.
unsafe fn add_sums(operands: Operands<'_>, out: &mut [[i32; BLOCK]; BLOCK]) {
    let mut sums = [0; BLOCK];
    for (j, sums) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // SAFETY: as above.
        unsafe {
            let mut sum = vdupq_n_s32(0);
            for group in 0..operands.groups {
                sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(operands.columns(group, 4 * j).cast())));
            }
            vst1q_s32(sums.as_mut_ptr(), vshlq_n_s32::<7>(sum));
        }
    }
    for out in &mut out[..operands.count] {
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = out.wrapping_add(sum));
    }
}
