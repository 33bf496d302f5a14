//! The tile instructions, which have no stable intrinsics yet.

use super::{Block, LINE, Operands};
use std::arch::asm;

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

/// Four tiles of C (tmm0 to tmm3), two of A (4, 5), two of B (6, 7), 64 steps of k a turn.
pub unsafe fn block(Operands { rows, stride, panel, .. }: Operands<'_>, out: &mut Block) {
    let turns = stride / LINE;
    assert!(rows.len() == 32 * stride && panel.len() == turns * 32);
    if turns == 0 {
        *out = [[0; 32]; 32];
        return;
    }
    // SAFETY: the lengths asserted are what the loop reads; `out` holds 32 rows of 128 bytes.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {a_stride}*1]",
            "tileloadd tmm6, [{b} + {b_stride}*1]",
            "tileloadd tmm7, [{b} + {b_stride}*1 + 64]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {a_stride}*1]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b}, 2048",
            "dec {turns}",
            "jnz 2b",
            "tilestored [{c} + {b_stride}*1], tmm0",
            "tilestored [{c} + {b_stride}*1 + 64], tmm1",
            "tilestored [{c} + {b_stride}*1 + 2048], tmm2",
            "tilestored [{c} + {b_stride}*1 + 2112], tmm3",
            a0 = inout(reg) rows.as_ptr() => _,
            a1 = inout(reg) rows.as_ptr().add(16 * stride) => _,
            a_stride = in(reg) stride,
            b = inout(reg) panel.as_ptr() => _,
            b_stride = in(reg) 128usize,
            turns = inout(reg) turns => _,
            c = in(reg) out.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
