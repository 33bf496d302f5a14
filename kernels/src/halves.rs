//! Linear layers in halves: C = A · Wᵀ + bias, where each float is split into the sum of two bfloat16.
//!
//! One idea: AMX multiplies bfloat16 sixteen times as fast as AVX-512 multiplies floats. A float x is `h + l` with `h =
//! bf16(x)` and `l = bf16(x − h)`, exact to 2⁻¹⁷ of x; then `x·y ≈ h·h' + h·l' + l·h'`, three products for one, where
//! what is left out is below 2⁻¹⁶ of it. (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence
//! Datatype For Higher-Precision Computations", 2019; PyTorch calls this float32 matmul precision "high".)
//!
//! - Formula: `c[i][j] = Σ_p (l·h' + h·h' + h·l')(a[i][p], w[j][p]) + bias[j]`, with `gelu` GELU of it.
//! - Layout: 32 steps of k at a time. A's rows hold 64 bytes of high halves, then 64 of low ones. W lies in panels of
//!   32 outputs: pairs of steps side by side, 16 pairs of high halves (two tiles), then as many of low ones.
//! - Accumulation: f32 in the tiles, as AMX defines it: in each tile product a fused chain over the even steps and one
//!   over the odd, then their sum is added; rounded to nearest, values below 1.2e-38 count as 0.
//! - Error: against f32's own product at most 2⁻¹⁶ · Σ |a·w|, in fact far less, as the errors' signs differ.
//! - What is no number, or infinite, makes its row's outputs no numbers.
//! - Cost: 6·m·n·k operations, of which AMX does 1,024 a cycle. A row's outputs depend on that row alone.
//!
//! Only for [`Isa::Amx`]: elsewhere three products are slower than [`gemm`](crate::gemm)'s one.

use crate::codes::{AsBytes, BLOCK, Line, Multiplier, overlap, panel_by_panel};
use crate::int8::padded;
use crate::{Isa, activation, simd::dispatch};
use std::ops::Range;

/// Steps of k that a line holds.
const STEPS: usize = 32;

/// What 32 steps of a panel take: 16 pairs of 32 columns of 2 halves of 2 bytes, twice.
const STEP_BYTES: usize = 16 * BLOCK * 2 * 2 * 2;

/// A block of C.
type Block = [[f32; BLOCK]; BLOCK];

/// The weights of a layer, split and packed once.
#[derive(Debug, Clone)]
pub struct Weights {
    n: usize,
    k: usize,
    lines: Vec<Line>,
}

/// Rows of activations in halves; the buffer is reused.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    rows: usize,
    k: usize,
    /// Rows rounded up to whole blocks; the padding of rows may hold anything, that of k is zero.
    lines: Vec<Line>,
}

/// Whether these products are the fastest that `isa` has.
pub fn serve(isa: Isa) -> bool {
    isa == Isa::Amx
}

/// The upper half of a float, rounded to nearest, ties to even.
#[inline(always)]
fn high(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    // Rounding carries some that are no numbers over into zero.
    if x.is_nan() { NOT_A_NUMBER } else { rounded }
}

const NOT_A_NUMBER: u16 = 0x7fc0;

/// Both halves of a float.
#[inline(always)]
fn split(x: f32) -> (u16, u16) {
    let upper = high(x);
    (upper, high(x - f32::from_bits(u32::from(upper) << 16)))
}

impl Weights {
    /// Splits `weight`, stored as PyTorch stores a linear layer: `n` outputs × `k` inputs, row-major.
    ///
    /// # Panics
    /// If `weight` is not n × k.
    pub fn from_linear(weight: &[f32], n: usize, k: usize) -> Self {
        assert!(weight.len() == n * k, "a weight for each output and input");
        let mut weights = Self { n, k, lines: Vec::new() };
        weights.lines = vec![Line::ZEROS; n.div_ceil(BLOCK) * weights.panel_lines()];
        let panel_bytes = weights.panel_lines() * size_of::<Line>();
        let bytes = weights.lines.as_flattened_bytes_mut();
        for (j, row) in weight.chunks_exact(k.max(1)).enumerate() {
            for (p, value) in row.iter().enumerate() {
                let pair = p % STEPS / 2 * 2 * size_of::<Line>();
                let at = j / BLOCK * panel_bytes + p / STEPS * STEP_BYTES + pair + j % BLOCK * 4 + p % 2 * 2;
                let (upper, lower) = split(*value);
                bytes[at..at + 2].copy_from_slice(&upper.to_le_bytes());
                let at = at + STEP_BYTES / 2;
                bytes[at..at + 2].copy_from_slice(&lower.to_le_bytes());
            }
        }
        weights
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Lines of a panel.
    fn panel_lines(&self) -> usize {
        self.k.div_ceil(STEPS) * STEP_BYTES / size_of::<Line>()
    }

    fn panel(&self, i: usize) -> &[Line] {
        &self.lines[i * self.panel_lines()..(i + 1) * self.panel_lines()]
    }
}

impl Activations {
    /// Splits rows of `k` values.
    ///
    /// # Panics
    /// If `x` is no whole rows.
    pub fn split(&mut self, isa: Isa, x: &[f32], k: usize) {
        assert!(x.len().is_multiple_of(k), "whole rows");
        (self.rows, self.k) = (x.len() / k, k);
        let row_lines = self.row_lines();
        self.lines.resize(self.rows.next_multiple_of(BLOCK) * row_lines, Line::ZEROS);
        for (x, lines) in x.chunks_exact(k).zip(self.lines.chunks_exact_mut(row_lines)) {
            split_row(isa, x, lines.as_flattened_bytes_mut());
        }
    }

    /// Lines of a row.
    fn row_lines(&self) -> usize {
        self.k.div_ceil(STEPS) * 2
    }
}

/// Splits a row into lines of high halves, each followed by one of low halves.
fn split_row(isa: Isa, x: &[f32], halves: &mut [u8]) {
    #[inline(always)]
    fn body(x: &[f32], halves: &mut [u8]) {
        for (x, lines) in x.chunks(STEPS).zip(halves.chunks_exact_mut(4 * STEPS)) {
            let (upper, lower) = lines.split_at_mut(2 * STEPS);
            let x = &padded(x);
            for ((x, upper), lower) in x.iter().zip(upper.chunks_exact_mut(2)).zip(lower.chunks_exact_mut(2))
            {
                let halves = split(*x);
                upper.copy_from_slice(&halves.0.to_le_bytes());
                lower.copy_from_slice(&halves.1.to_le_bytes());
            }
        }
    }
    dispatch!(isa, body(x: &[f32], halves: &mut [u8]))
}

/// Computes a layer: `c` = `a` · `weights`ᵀ + `bias`, rows of `c` packed; with `gelu`, GELU of it.
///
/// # Panics
/// If `c` is not rows × outputs, `bias` not as long as the outputs, `a` not as wide as the inputs, or [`serve`] denies
/// `isa`.
pub fn linear(isa: Isa, a: &Activations, weights: &Weights, bias: &[f32], c: &mut [f32], gelu: bool) {
    let (rows, n) = (a.rows, weights.n);
    assert!(c.len() == rows * n && bias.len() == n && a.k == weights.k, "a, c and bias fit the layer");
    assert!(serve(isa), "halves are for AMX");
    let multiplier = Multiplier::new(isa);
    let make = |(first, panel): (usize, usize), out: &mut Block, meanwhile: &mut dyn FnMut(Range<usize>)| {
        let lines = &a.lines[first * a.row_lines()..(first + BLOCK) * a.row_lines()];
        // SAFETY: `serve` knows no other set than `Isa::Amx`.
        unsafe { multiply(&multiplier, lines, weights.panel(panel), out, meanwhile) };
    };
    let pairs = panel_by_panel(rows, n.div_ceil(BLOCK), &weights.lines);
    overlap(rows, pairs, make, |panel, rows, sums| {
        let bias = &bias[panel * BLOCK..n.min((panel + 1) * BLOCK)];
        settle(isa, sums, bias, gelu, &mut c[rows.start * n..rows.end * n], panel * BLOCK, n);
    });
}

/// Computes the products of 32 rows with a panel, and calls `meanwhile` with pieces of 0..32.
///
/// # Safety
/// `_ready` must be of [`Isa::Amx`].
unsafe fn multiply(
    _ready: &Multiplier,
    rows: &[Line],
    panel: &[Line],
    out: &mut Block,
    meanwhile: &mut dyn FnMut(Range<usize>),
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the multiplier made the tiles ready.
    unsafe {
        amx::block(rows, panel, out, meanwhile);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (rows, panel, out, meanwhile);
        unreachable!("`serve` denies every other processor");
    }
}

/// Adds the bias to rows of a block, applies GELU, and stores them into whole rows of C, from `column` on.
fn settle(
    isa: Isa,
    block: &[[f32; BLOCK]],
    bias: &[f32],
    gelu: bool,
    c: &mut [f32],
    column: usize,
    n: usize,
) {
    #[inline(always)]
    fn body(block: &[[f32; BLOCK]], bias: &[f32], gelu: bool, c: &mut [f32], column: usize, n: usize) {
        for (sums, c) in block.iter().zip(c.chunks_exact_mut(n)) {
            let value = |sum: f32, bias: f32| {
                let value = sum + bias;
                if gelu { activation::gelu_of(value) } else { value }
            };
            match (c[column..].first_chunk_mut::<BLOCK>(), bias.first_chunk::<BLOCK>()) {
                (Some(c), Some(bias)) => (0..BLOCK).for_each(|j| c[j] = value(sums[j], bias[j])),
                _ => {
                    let c = c[column..].iter_mut().zip(sums.iter().zip(bias));
                    c.for_each(|(c, (sum, bias))| *c = value(*sum, *bias));
                }
            }
        }
    }
    dispatch!(
        isa,
        body(block: &[[f32; BLOCK]], bias: &[f32], gelu: bool, c: &mut [f32], column: usize, n: usize)
    )
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use super::{BLOCK, Block, Line, STEP_BYTES};
    use crate::tiles;
    use std::arch::asm;
    use std::ops::Range;

    /// Four tiles of C (tmm0 to tmm3), two of A (4, 5), two of B (6, 7), 32 steps of k a turn: A's low halves with B's
    /// high ones, then A's high ones with these, then with B's low ones, so that each is loaded once.
    pub unsafe fn block(
        rows: &[Line],
        panel: &[Line],
        out: &mut Block,
        meanwhile: &mut dyn FnMut(Range<usize>),
    ) {
        let stride = size_of_val(rows) / BLOCK;
        let turns = stride / (2 * size_of::<Line>());
        assert!(rows.len().is_multiple_of(BLOCK * 2) && size_of_val(panel) == turns * STEP_BYTES);
        // SAFETY: the lengths asserted hold 128 bytes of 32 rows, and a step of the panel, for each turn.
        let turn = |turn: usize| unsafe {
            let a = rows.as_ptr().add(2 * turn);
            step(a, a.byte_add(16 * stride), stride, panel.as_ptr().byte_add(turn * STEP_BYTES));
        };
        // SAFETY: the caller's tiles.
        unsafe { tiles::block(turns, out, turn, meanwhile) };
    }

    /// 32 steps of k.
    #[inline(always)]
    unsafe fn step(a0: *const Line, a1: *const Line, stride: usize, b: *const Line) {
        // SAFETY: the caller's bounds.
        unsafe {
            asm!(
                "tileloadd tmm4, [{a0} + {a_stride}*1 + 64]",
                "tileloadd tmm6, [{b} + {b_stride}*1]",
                "tileloadd tmm7, [{b} + {b_stride}*1 + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {a_stride}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{a0} + {a_stride}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm5, [{a1} + {a_stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b} + {b_stride}*1 + 2048]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{b} + {b_stride}*1 + 2112]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// The processor's set, if it has tiles.
    fn amx() -> Option<Isa> {
        Some(Isa::detect()).filter(|isa| serve(*isa))
    }

    fn layer(isa: Isa, x: &[f32], w: &[f32], bias: &[f32], n: usize, k: usize, gelu: bool) -> Vec<f32> {
        let mut a = Activations::default();
        a.split(isa, x, k);
        let mut c = vec![f32::NAN; x.len() / k * n];
        linear(isa, &a, &Weights::from_linear(w, n, k), bias, &mut c, gelu);
        c
    }

    #[test]
    fn halves_hold_seventeen_bits() {
        for x in uniform(1, 1000).iter().map(|v| v * 1e3).chain([0.0, 1.0, -3.5e-5]) {
            let (upper, lower) = split(x);
            let sum = f32::from_bits(u32::from(upper) << 16) + f32::from_bits(u32::from(lower) << 16);
            assert!((sum - x).abs() <= x.abs() * 2f32.powi(-17), "{x} {sum}");
        }
    }

    #[test]
    fn a_layer_is_within_the_errors_bound_of_its_definition() {
        let Some(isa) = amx() else { return };
        // Rows, columns and steps around a tile, a block and a line; last, more lines than a block has rows.
        let around = [(1, 1, 1), (7, 33, 20), (31, 32, 33), (33, 70, 130), (64, 5, 384)];
        for (m, n, k) in around.into_iter().chain([(40, 33, 1100)]) {
            let (x, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
            let found = layer(isa, &x, &w, &bias, n, k, false);
            for (i, x) in x.chunks(k).enumerate() {
                for (j, w) in w.chunks(k).enumerate() {
                    let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let exact = products().sum::<f64>() + f64::from(bias[j]);
                    let size = products().map(f64::abs).sum::<f64>() + f64::from(bias[j].abs());
                    // The halves' share, and the roundings of three chains of k / 2 sums.
                    let bound = size * (2f64.powi(-16) + k as f64 * 2f64.powi(-24));
                    let error = (f64::from(found[i * n + j]) - exact).abs();
                    assert!(error <= bound, "{m} x {n} x {k} at {i}, {j}: {error} > {bound}");
                }
            }
        }
    }

    #[test]
    fn halves_are_far_nearer_than_bfloat16_alone() {
        let Some(isa) = amx() else { return };
        let (m, n, k) = (32, 32, 384);
        let (x, w) = (uniform(4, m * k), uniform(5, n * k));
        let found = layer(isa, &x, &w, &vec![0.0; n], n, k, false);
        let exact = |i: usize, j: usize| -> f64 {
            (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(w[j * k + p])).sum()
        };
        let worst = (0..m * n).map(|i| (f64::from(found[i]) - exact(i / n, i % n)).abs()).fold(0.0, f64::max);
        // Products of about 1/3, whose errors of 2⁻¹⁷ add up like a random walk; bfloat16's would be 2⁻⁹.
        assert!(worst < 4.0 * (k as f64).sqrt() / 3.0 * 2f64.powi(-17), "{worst}");
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        let Some(isa) = amx() else { return };
        let (m, n, k) = (70, 40, 100);
        let (x, w, bias) = (uniform(6, m * k), uniform(7, n * k), uniform(8, n));
        let all = layer(isa, &x, &w, &bias, n, k, true);
        for i in [0, 31, 32, 69] {
            let one = layer(isa, &x[i * k..(i + 1) * k], &w, &bias, n, k, true);
            assert_eq!(one, all[i * n..(i + 1) * n]);
        }
    }

    #[test]
    fn gelu_is_that_of_the_activation() {
        let Some(isa) = amx() else { return };
        let (m, n, k) = (3, 40, 16);
        let (x, w, bias) = (uniform(9, m * k), uniform(10, n * k), uniform(11, n));
        let mut plain = layer(isa, &x, &w, &bias, n, k, false);
        activation::gelu(isa, &mut plain);
        assert_eq!(layer(isa, &x, &w, &bias, n, k, true), plain);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7fff_e000, 0x7fc0_0000, 0x7f80_0001] {
            let (upper, _) = split(f32::from_bits(bits));
            assert!(f32::from_bits(u32::from(upper) << 16).is_nan(), "{bits:x}");
        }
    }

    #[test]
    fn rows_that_were_wider_before_leave_nothing_behind() {
        let Some(isa) = amx() else { return };
        let mut a = Activations::default();
        a.split(isa, &[9.0; 40 * 70], 70);
        a.split(isa, &[1.0; 3 * 33], 33);
        let mut c = [0f32; 3];
        linear(isa, &a, &Weights::from_linear(&[1.0; 33], 1, 33), &[0.5], &mut c, false);
        assert_eq!(c, [33.5; 3]);
    }
}
