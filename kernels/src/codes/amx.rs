//! The tile instructions, which have no stable intrinsics yet.

use super::{BLOCK, Block, LINE, Line, Operands};
use std::arch::asm;
use std::ops::Range;

/// What `ldtilecfg` reads: eight tiles of 16 rows × 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

pub unsafe fn configure() {
    // SAFETY: the caller saw AMX; the configuration is one that palette 1 allows.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly, preserves_flags),
             out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
             out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
    }
}

pub unsafe fn release() {
    // SAFETY: the caller saw AMX.
    unsafe {
        asm!("tilerelease", options(nostack, nomem, preserves_flags),
             out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
             out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
    }
}

/// Four tiles of C (tmm0 to tmm3), two of A (4, 5), two of B (6, 7), 64 steps of k a turn. The sums stay in their tiles
/// from one `asm!` to the next: nothing but this file touches tiles.
///
/// After each turn comes a piece of `meanwhile`, so that the core's other units have as much to do as the tiles.
pub unsafe fn block(
    Operands { rows, stride, panel, .. }: Operands<'_>,
    out: &mut Block,
    mut meanwhile: impl FnMut(Range<usize>),
) {
    let turns = stride / LINE;
    assert!(rows.len() == BLOCK * stride && panel.len() == turns * 32);
    if turns == 0 {
        *out = [[0; BLOCK]; BLOCK];
        return meanwhile(0..BLOCK);
    }
    // SAFETY: touches no memory.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            options(nostack, nomem, preserves_flags),
        );
    }
    for turn in 0..turns {
        // SAFETY: the lengths asserted hold 64 bytes of 32 rows, and 32 lines of the panel, for each turn.
        unsafe {
            let a = rows.as_ptr().add(turn * LINE);
            step(a, a.add(16 * stride), stride, panel.as_ptr().add(turn * 32));
        }
        meanwhile(turn * BLOCK / turns..(turn + 1) * BLOCK / turns);
    }
    // SAFETY: `out` holds 32 rows of 128 bytes.
    unsafe {
        asm!(
            "tilestored [{c} + {stride}*1], tmm0",
            "tilestored [{c} + {stride}*1 + 64], tmm1",
            "tilestored [{c} + {stride}*1 + 2048], tmm2",
            "tilestored [{c} + {stride}*1 + 2112], tmm3",
            c = in(reg) out.as_mut_ptr(),
            stride = in(reg) 128usize,
            options(nostack, preserves_flags),
        );
    }
}

/// 64 steps of k.
#[inline(always)]
unsafe fn step(a0: *const u8, a1: *const u8, stride: usize, b: *const Line) {
    // SAFETY: the caller's bounds.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a0} + {a_stride}*1]",
            "tileloadd tmm6, [{b} + {b_stride}*1]",
            "tileloadd tmm7, [{b} + {b_stride}*1 + 64]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {a_stride}*1]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            a0 = in(reg) a0,
            a1 = in(reg) a1,
            a_stride = in(reg) stride,
            b = in(reg) b,
            b_stride = in(reg) 128usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        );
    }
}
