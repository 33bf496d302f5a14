//! The processor's tiles (AMX), whose instructions have no stable intrinsics yet.
//!
//! What computes with them keeps the sums of a 32 × 32 block in four tiles from one `asm!` to the next, although these
//! name tiles as overwritten only. That holds since the compiler has no use for tiles of its own, and since no such
//! `asm!` is `pure`, so that all stand in the order of the source. A [`Multiplier`](crate::codes::Multiplier) keeps the
//! tiles of its thread ready, and is the only one there.

use crate::codes::BLOCK;
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

/// Makes a block of sums: zeros in tiles 0 to 3, to which `step` adds each turn's products, then stored.
///
/// After each turn comes a piece of `meanwhile`, so that the core's other units have as much to do as the tiles.
///
/// # Safety
/// The tiles must be configured; any four bytes must make a `T`; `step` may use tiles 0 to 7 and must add to the first
/// four; `meanwhile` must leave tiles alone.
pub unsafe fn block<T: Copy + Default>(
    turns: usize,
    out: &mut [[T; BLOCK]; BLOCK],
    mut step: impl FnMut(usize),
    meanwhile: &mut dyn FnMut(Range<usize>),
) {
    const { assert!(size_of::<T>() == 4) };
    if turns == 0 {
        *out = [[T::default(); BLOCK]; BLOCK];
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
        step(turn);
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
            stride = in(reg) size_of::<[T; BLOCK]>(),
            options(nostack, preserves_flags),
        );
    }
}
