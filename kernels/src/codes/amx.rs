//! Products of codes by AMX's tiles.

use super::{BLOCK, Block, LINE, Line, Operands};
use crate::tiles;
use std::arch::asm;
use std::ops::Range;

/// Four tiles of C (tmm0 to tmm3), two of A (4, 5), two of B (6, 7), 64 steps of k a turn.
pub unsafe fn block(
    Operands { rows, stride, panel, .. }: Operands<'_>,
    out: &mut Block,
    meanwhile: &mut dyn FnMut(Range<usize>),
) {
    let turns = stride / LINE;
    assert!(rows.len() == BLOCK * stride && panel.len() == turns * 32);
    // SAFETY: the lengths asserted hold 64 bytes of 32 rows, and 32 lines of the panel, for each turn.
    let turn = |turn: usize| unsafe {
        let a = rows.as_ptr().add(turn * LINE);
        step(a, a.add(16 * stride), stride, panel.as_ptr().add(turn * 32));
    };
    // SAFETY: the caller's tiles.
    unsafe { tiles::block(turns, out, turn, meanwhile) };
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
