//! Sixteen interactions at once, one per vector lane: reading points, the pull, the push, random rows, powers.
//!
//! Rows of eight are read and written by shuffles where there is AVX-512 (`turned`). All else is plain: each function
//! is one loop over the lanes with the short loops over dimensions inside, which unroll: so the compiler turns each
//! operation into one on sixteen lanes, with the instruction set of the function that it is inlined into. All are plain
//! f32 operations with explicit `mul_add`: the same bits for every instruction set.

use super::LayoutParams;
use crate::{Isa, simd::prefetch_near};

/// Interactions at once: one AVX-512 register of f32.
pub(super) const LANES: usize = 16;

/// A vector per lane: dimension by dimension.
pub(super) type Vectors<const D: usize> = [[f32; LANES]; D];

/// The constants of the pull and the push.
pub(crate) struct Force {
    pub(crate) a: f32,
    pub(crate) b: f32,
    pub(crate) pull: f32,
    pub(crate) push: f32,
    pub(crate) negatives: u32,
}

impl Force {
    pub(crate) fn new(params: &LayoutParams) -> Self {
        Self {
            a: params.a,
            b: params.b,
            pull: -2.0 * params.a * params.b,
            push: 2.0 * params.repulsion_strength * params.b,
            negatives: params.negative_samples,
        }
    }
}

/// Positions that lanes are read from, `S` ≥ D values each.
#[derive(Clone, Copy)]
pub(super) struct Points<'a, const S: usize> {
    pub(super) isa: Isa,
    pub(super) rows: &'a [[f32; S]],
}

impl<const S: usize> Points<'_, S> {
    /// Reads row `rows[l]` into lane l.
    #[inline(always)]
    pub(super) fn gather<const D: usize>(self, rows: &[u32; LANES]) -> Vectors<D> {
        #[cfg(target_arch = "x86_64")]
        if S == 8 && self.isa >= Isa::Avx512 {
            // SAFETY: `Isa` saw AVX-512, rows have eight values, and which ones are named `coordinate` explains.
            return unsafe { super::turned::gather(self.rows.as_ptr().cast(), rows) };
        }
        let mut out = [[0f32; LANES]; D];
        for l in 0..LANES {
            for d in 0..D {
                out[d][l] = coordinate(self.rows, rows[l], d);
            }
        }
        out
    }

    /// Asks for the first line of rows that will be read soon.
    #[inline(always)]
    pub(super) fn prefetch(self, rows: &[u32; LANES]) {
        rows.iter().filter_map(|&row| self.rows.get(row as usize)).for_each(prefetch_near);
    }

    /// How many there are.
    #[inline(always)]
    pub(super) fn len(self) -> u32 {
        self.rows.len() as u32 // `super::check` made sure that they fit
    }
}

/// Turns a vector per lane into a row per lane, padded with zeros.
#[inline(always)]
pub(super) fn spread<const D: usize, const S: usize>(isa: Isa, lanes: &Vectors<D>) -> [[f32; S]; LANES] {
    let mut rows = [[0f32; S]; LANES];
    #[cfg(target_arch = "x86_64")]
    if S == 8 && isa >= Isa::Avx512 {
        // SAFETY: `Isa` saw AVX-512.
        let eights = unsafe { super::turned::spread(lanes) };
        rows.as_flattened_mut().copy_from_slice(eights.as_flattened());
        return rows;
    }
    let _ = isa;
    for l in 0..LANES {
        for d in 0..D {
            rows[l][d] = lanes[d][l];
        }
    }
    rows
}

/// The way from the point `there` to the point `here` in lane `l`, and its squared length.
#[inline(always)]
fn difference<const D: usize>(here: &Vectors<D>, there: &Vectors<D>, l: usize) -> ([f32; D], f32) {
    let mut delta = [0f32; D];
    let mut s = 0f32;
    for d in 0..D {
        delta[d] = here[d][l] - there[d][l];
        s = delta[d].mul_add(delta[d], s);
    }
    (delta, s)
}

/// Adds to `step` the pull of each lane's row `others` on the point `here`.
#[inline(always)]
pub(super) fn add_pull<const D: usize, const S: usize>(
    force: &Force,
    points: Points<'_, S>,
    here: &Vectors<D>,
    others: &[u32; LANES],
    step: &mut Vectors<D>,
) {
    let there = points.gather::<D>(others);
    for l in 0..LANES {
        let (delta, s) = difference(here, &there, l);
        let power = powf(s, force.b - 1.0);
        let scale = force.pull * power / (force.a * power).mul_add(s, 1.0);
        let scale = if s > 0.0 { scale } else { 0.0 };
        for d in 0..D {
            step[d][l] += clipped(scale * delta[d]);
        }
    }
}

/// Random rows that push, one a lane, and where they lie.
///
/// Rows come from far away, and one push takes less time than fetching its row. So a batch draws a row a lane and hands
/// these on from lane to lane: each lane is pushed by rows that are drawn evenly from all, and neighbouring lanes share
/// all but one of theirs. What a layout keeps of neighbourhoods does not change by it (25,000 abstracts:
/// trustworthiness within .002).
pub(super) struct Pushing<const D: usize> {
    rows: [u32; LANES],
    places: Vectors<D>,
}

impl<const D: usize> Pushing<D> {
    #[inline(always)]
    pub(super) fn new<const S: usize>(rows: [u32; LANES], points: Points<'_, S>) -> Self {
        Self { rows, places: points.gather(&rows) }
    }

    /// Gives each lane the row of the next lane.
    #[inline(always)]
    pub(super) fn turn(&mut self) {
        self.rows = turned(&self.rows);
        for places in &mut self.places {
            *places = turned(places);
        }
    }
}

/// Each lane's value in the lane before: one shuffle.
#[inline(always)]
fn turned<T: Copy + Default>(lanes: &[T; LANES]) -> [T; LANES] {
    let mut turned = [T::default(); LANES];
    for l in 0..LANES {
        turned[l] = lanes[(l + 1) % LANES];
    }
    turned
}

/// Adds to `step` the push of each lane's row of `pushing` on the point `here`, unless that row is `own`, its own.
#[inline(always)]
pub(super) fn add_push<const D: usize>(
    force: &Force,
    here: &Vectors<D>,
    own: &[u32; LANES],
    pushing: &Pushing<D>,
    step: &mut Vectors<D>,
) {
    for l in 0..LANES {
        let (delta, s) = difference(here, &pushing.places, l);
        let scale = force.push / ((0.001 + s) * force.a.mul_add(powf(s, force.b), 1.0));
        let scale = if (s > 0.0) & (own[l] != pushing.rows[l]) { scale } else { 0.0 };
        for d in 0..D {
            step[d][l] += clipped(scale * delta[d]);
        }
    }
}

/// A random row below `n` for each lane: a hash of its key and the number of the draw.
#[inline(always)]
pub(super) fn random_rows(draw: u32, keys: &[u64; LANES], n: u32) -> [u32; LANES] {
    let counter = draw.wrapping_mul(0x9e37_79b9);
    let mut rows = [0u32; LANES];
    for l in 0..LANES {
        // Rounds of a multiply-xorshift hash, keyed with the two halves of the (already mixed) key.
        let x = counter ^ keys[l] as u32;
        let x = (x ^ (x >> 16)).wrapping_mul(0x21f0_aaad);
        let x = (x ^ (x >> 15)).wrapping_mul(0x735a_2d97).wrapping_add((keys[l] >> 32) as u32);
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = x ^ (x >> 15);
        rows[l] = ((u64::from(x) * u64::from(n)) >> 32) as u32;
    }
    rows
}

/// Mixes 64 bits (the finaliser of SplitMix64): equal inputs give equal outputs, near ones unrelated ones.
#[inline(always)]
pub fn mix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// x^y for a finite x ≥ 0.
///
/// log₂ by a polynomial of degree 8 on [√½, √2) (error 5e-8), 2^x by one of degree 5 on [−½, ½] (1e-7); in all, the
/// relative error is below 2e-6 for x in [1e-6, 1e6] and |y| ≤ 2. An x of 0 counts as 2^−127; powers outside 2^±126
/// are held there.
#[inline(always)]
pub fn powf(x: f32, y: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    // Minimax on the range by Lawson's algorithm; no constant term, so that log₂ 1 is exactly 0.
    const LOG2: [f32; 8] = [
        1.442_694_8,
        -0.721_357_17,
        0.480_939_45,
        -0.360_087_2,
        0.286_707_46,
        -0.250_069_05,
        0.236_890_37,
        -0.145_744_48,
    ];
    // Coefficients of a fit, near those of the series but not equal to them.
    #[allow(clippy::approx_constant)]
    const EXP2: [f32; 6] = [1.0, 0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];
    // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;

    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (shifted as i32) >> 23; // arithmetic shift: the exponent after centring on √½
    let t = f32::from_bits((shifted & 0x007f_ffff) + SQRT_HALF) - 1.0;
    let mut log2 = LOG2[7];
    log2 = log2.mul_add(t, LOG2[6]);
    log2 = log2.mul_add(t, LOG2[5]);
    log2 = log2.mul_add(t, LOG2[4]);
    log2 = log2.mul_add(t, LOG2[3]);
    log2 = log2.mul_add(t, LOG2[2]);
    log2 = log2.mul_add(t, LOG2[1]);
    log2 = log2.mul_add(t, LOG2[0]);
    let power = y * log2.mul_add(t, exponent as f32);
    let power = if power > 126.0 { 126.0 } else { power };
    let power = if power < -126.0 { -126.0 } else { power };

    let rounded = power + ROUND;
    let f = power - (rounded - ROUND);
    let mut exp2 = EXP2[5];
    exp2 = exp2.mul_add(f, EXP2[4]);
    exp2 = exp2.mul_add(f, EXP2[3]);
    exp2 = exp2.mul_add(f, EXP2[2]);
    exp2 = exp2.mul_add(f, EXP2[1]);
    exp2 = exp2.mul_add(f, EXP2[0]);
    f32::from_bits(exp2.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// One coordinate of a row, by a signed 32-bit index, which is what vector gathers take.
#[inline(always)]
fn coordinate<const S: usize>(points: &[[f32; S]], row: u32, d: usize) -> f32 {
    debug_assert!((row as usize) < points.len() && d < S);
    let index = row as i32 * S as i32 + d as i32;
    // SAFETY: every row that the callers name is one of `points`: graph rows and targets by `super::check`, idle
    // lanes name row 0 (there is one, since there are events), random rows are below the number of points by
    // construction; d < D ≤ S; and `super::check` made sure that n · S fits in an i32.
    unsafe { *points.as_ptr().cast::<f32>().offset(index as isize) }
}

/// Clips one component of a step to ±4, which keeps near points from being thrown out of the picture.
#[inline(always)]
fn clipped(g: f32) -> f32 {
    let g = if g > 4.0 { 4.0 } else { g };
    if g < -4.0 { -4.0 } else { g }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_within_2e_6_of_f64() {
        for y in [-1.0f32, -0.2095, 0.5, 0.7905, 0.8951, 2.0] {
            let mut x = 1e-6f32;
            while x < 1e6 {
                let error = f64::from(powf(x, y)) / f64::from(x).powf(f64::from(y)) - 1.0;
                assert!(error.abs() < 2e-6, "{x}^{y}: relative error {error}");
                x *= 1.0037;
            }
        }
        assert_eq!(powf(1.0, 0.79), 1.0);
        assert!(powf(0.0, 0.79) < 1e-30 && powf(0.0, -0.2).is_finite());
    }

    #[test]
    fn random_rows_are_spread_evenly() {
        let mut counts = [0u32; 10];
        for draw in 0..5 {
            for key in 0..2_000u64 {
                let keys: [u64; LANES] = std::array::from_fn(|l| mix64(key * 16 + l as u64));
                for row in random_rows(draw, &keys, 10) {
                    counts[row as usize] += 1;
                }
            }
        }
        // 16,000 expected in each of ten: a standard deviation is 120.
        assert!(counts.iter().all(|c| c.abs_diff(16_000) < 600), "{counts:?}");
    }
}
