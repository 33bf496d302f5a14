//! Storage codes: embeddings as bytes and bits.
//!
//! They follow `quantize_embeddings` of sentence-transformers, byte for byte. Per dimension j, from the
//! range of a calibration set: s_j = (max_j − min_j)/255 (0 counts as 1) and v = (x_j − min_j)/s_j, in f32, a true
//! division (a multiplication by 1/s differs in some codes).
//!
//! | code | [`Rule::Clipped`], the library's from 5.7 | [`Rule::Legacy`], its rule from 5.4 to 5.6 |
//! |---|---|---|
//! | uint8 | ⌊v⌋ clipped to 0..=255 | v truncated to i32, modulo 256 |
//! | int8 | that − 128 | v − 128 truncated to i32, modulo 256 |
//! | ubinary | bit j is x_j > 0, the first dimension in the highest bit, the last byte padded with zeros | |
//! | binary | ubinary − 128 | |
//!
//! Their dot product is not that of the vectors, since each dimension has its own step and offset; see
//! [`crate::search_codes`] for codes to search with.
//!
//! Cost: one read of the matrix and one write of the codes; bound by memory. Every instruction set gives the same
//! bits: each value is computed on its own, by the same operations. NaN and infinities are refused by their place.

use crate::{Error, Isa, Matrix, Result, simd::dispatch};
use rayon::prelude::*;

/// How a float becomes an 8-bit storage code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Rounds down and clips to the range; the default, because a value outside its range stays at the nearer end.
    #[default]
    Clipped,
    /// Truncates toward zero and wraps around; only to reproduce codes written by sentence-transformers up to 5.6.
    Legacy,
}

/// The lowest and highest value of each dimension over a calibration set.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    min: Vec<f32>,
    max: Vec<f32>,
}

impl Ranges {
    /// Takes one minimum and one maximum per dimension; an error unless each pair is finite, ordered and less than
    /// `f32::MAX` wide.
    pub fn try_new(min: Vec<f32>, max: Vec<f32>) -> Result<Self> {
        if min.len() != max.len() {
            return Err(Error::Shape {
                what: "ranges",
                expected: format!("as many maxima as minima ({})", min.len()),
                found: format!("{} maxima", max.len()),
            });
        }
        for (column, (&min, &max)) in min.iter().zip(&max).enumerate() {
            if !(min <= max && (max - min).is_finite()) {
                return Err(Error::Range { column, min, max });
            }
        }
        Ok(Self { min, max })
    }

    /// Measures the ranges of `points` (n × d, n at least 1).
    pub fn of(points: &Matrix<f32>) -> Result<Self> {
        if points.rows() == 0 {
            return Err(Error::Shape {
                what: "calibration rows",
                expected: "at least 1".into(),
                found: "0".into(),
            });
        }
        let isa = Isa::detect();
        let d = points.cols();
        let empty = || (vec![f32::INFINITY; d], vec![f32::NEG_INFINITY; d], 0);
        // Minima and maxima are exact, so the order in which blocks are merged cannot show.
        let (min, max, largest) = blocks(points)
            .map(|block| {
                let (mut min, mut max, _) = empty();
                let largest = widen_on(isa, block, &mut min, &mut max);
                (min, max, largest)
            })
            .reduce(empty, |mut a, b| {
                a.0.iter_mut().zip(&b.0).for_each(|(a, &b)| *a = a.min(b));
                a.1.iter_mut().zip(&b.1).for_each(|(a, &b)| *a = a.max(b));
                (a.0, a.1, a.2.max(b.2))
            });
        refuse_not_finite(points, largest)?;
        // Which zero a minimum of -0 and +0 keeps is not defined: make it +0.
        Self::try_new(min.iter().map(|v| v + 0.0).collect(), max.iter().map(|v| v + 0.0).collect())
    }

    /// Returns the ranges over both calibration sets.
    pub fn union(&self, other: &Self) -> Result<Self> {
        other.check_dim("ranges", self.dim())?;
        let min = self.min.iter().zip(&other.min).map(|(a, &b)| a.min(b)).collect();
        let max = self.max.iter().zip(&other.max).map(|(a, &b)| a.max(b)).collect();
        Self::try_new(min, max)
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.min.len()
    }

    /// The lowest value of each dimension.
    pub fn min(&self) -> &[f32] {
        &self.min
    }

    /// The highest value of each dimension.
    pub fn max(&self) -> &[f32] {
        &self.max
    }

    /// The width of one code in each dimension, (max − min)/255; 0 where all values are equal.
    pub fn steps(&self) -> Vec<f32> {
        self.min.iter().zip(&self.max).map(|(min, max)| (max - min) / 255.0).collect()
    }

    /// The steps to divide by: a step of 0 counts as 1.
    pub(crate) fn divisors(&self) -> Vec<f32> {
        self.steps().iter().map(|&step| if step == 0.0 { 1.0 } else { step }).collect()
    }

    /// Fails unless rows of `cols` values fit these ranges.
    fn check_dim(&self, what: &'static str, cols: usize) -> Result<()> {
        if cols == self.dim() {
            return Ok(());
        }
        let expected = format!("{} dimensions, as the calibration ranges have", self.dim());
        Err(Error::Shape { what, expected, found: format!("{cols}") })
    }
}

/// Returns the uint8 storage codes of `x` (n × d).
pub fn uint8(x: &Matrix<f32>, ranges: &Ranges, rule: Rule) -> Result<Matrix<u8>> {
    uint8_on(Isa::detect(), x, ranges, rule)
}

/// Returns the int8 storage codes of `x` (n × d).
pub fn int8(x: &Matrix<f32>, ranges: &Ranges, rule: Rule) -> Result<Matrix<i8>> {
    int8_on(Isa::detect(), x, ranges, rule)
}

/// Returns the ubinary codes of `x`: n × ⌈d/8⌉ bytes.
pub fn ubinary(x: &Matrix<f32>) -> Result<Matrix<u8>> {
    bits_on(Isa::detect(), x, 0)
}

/// Returns the binary codes of `x`: n × ⌈d/8⌉ bytes, each the ubinary byte − 128.
pub fn binary(x: &Matrix<f32>) -> Result<Matrix<i8>> {
    bits_on(Isa::detect(), x, HIGH_BIT)
}

/// Returns the middle of what each uint8 code stands for, min + (q + ½)·s: within s/2 of a value that was in range.
///
/// A dimension of one value comes back exactly. What [`Rule::Legacy`] wrapped stays lost.
pub fn dequantize_uint8(codes: &Matrix<u8>, ranges: &Ranges) -> Result<Matrix<f32>> {
    dequantize(codes, ranges, |q| f32::from(q) + 0.5)
}

/// Returns the middle of what each int8 code stands for; `rule` must be the one that wrote them.
///
/// Legacy codes below 0 were truncated upwards, so their middle is half a step lower than their number, and code 0
/// covers two steps.
pub fn dequantize_int8(codes: &Matrix<i8>, ranges: &Ranges, rule: Rule) -> Result<Matrix<f32>> {
    dequantize(codes, ranges, |q| {
        let middle = match rule {
            Rule::Clipped => 0.5,
            Rule::Legacy => 0.5 * f32::from(q.signum()),
        };
        f32::from(q) + 128.0 + middle
    })
}

/// Turns uint8 into int8 codes and back: a subtraction of 128 modulo 256.
const HIGH_BIT: u8 = 0x80;

/// The bits of f32 infinity: a magnitude of this or more is not finite.
const INFINITY_BITS: u32 = 0x7f80_0000;

/// The lowest i32, and the highest that is an f32: what a conversion saturates at.
const I32_MIN: f32 = -2_147_483_648.0;
const I32_MAX: f32 = 2_147_483_520.0;

/// A byte, signed or not.
pub(crate) trait Byte: bytemuck::Pod + Default + Send {}
impl Byte for u8 {}
impl Byte for i8 {}

/// Some whole rows, the unit of parallel work.
pub(crate) struct Block<'a> {
    pub(crate) values: &'a [f32],
    dim: usize,
}

/// How many rows of `cols` values one task takes: about 64 KiB, so that a block stays in the cache of its core.
fn rows_per_block(cols: usize) -> usize {
    (16_384 / cols.max(1)).max(1)
}

/// Cuts a matrix into blocks of rows.
pub(crate) fn blocks(x: &Matrix<f32>) -> impl IndexedParallelIterator<Item = Block<'_>> {
    let dim = x.cols();
    x.as_slice().par_chunks((rows_per_block(dim) * dim).max(1)).map(move |values| Block { values, dim })
}

/// Runs `body` over blocks of rows of `x` and of the `width` bytes (read as `T`) that each row becomes.
///
/// `body` returns the largest magnitude (as bits) that it saw.
pub(crate) fn map_rows<T: Byte>(
    x: &Matrix<f32>,
    width: usize,
    body: impl Fn(&[f32], &mut [u8]) -> u32 + Sync,
) -> Result<Matrix<T>> {
    let mut codes = Matrix::zeros(x.rows(), width);
    let chunk = (rows_per_block(x.cols()) * width).max(1);
    let largest = codes
        .as_mut_slice()
        .par_chunks_mut(chunk)
        .zip(blocks(x))
        .map(|(codes, block)| body(block.values, bytemuck::cast_slice_mut(codes)))
        .reduce(|| 0, u32::max);
    refuse_not_finite(x, largest)?;
    Ok(codes)
}

/// Fails at the first value that is not finite if the largest magnitude says there is one.
pub(crate) fn refuse_not_finite(x: &Matrix<f32>, largest: u32) -> Result<()> {
    if largest < INFINITY_BITS { Ok(()) } else { x.check_finite() }
}

fn uint8_on(isa: Isa, x: &Matrix<f32>, ranges: &Ranges, rule: Rule) -> Result<Matrix<u8>> {
    ranges.check_dim("embeddings", x.cols())?;
    let (min, step) = (ranges.min(), &ranges.divisors()[..]);
    let inverse = inverses(isa, step);
    map_rows(x, x.cols(), |x, codes| match rule {
        Rule::Clipped => clipped_on(isa, x, min, (step, &inverse), 0, codes),
        Rule::Legacy => legacy_on(isa, x, min, step, 0.0, codes),
    })
}

fn int8_on(isa: Isa, x: &Matrix<f32>, ranges: &Ranges, rule: Rule) -> Result<Matrix<i8>> {
    ranges.check_dim("embeddings", x.cols())?;
    let (min, step) = (ranges.min(), &ranges.divisors()[..]);
    let inverse = inverses(isa, step);
    map_rows(x, x.cols(), |x, codes| match rule {
        Rule::Clipped => clipped_on(isa, x, min, (step, &inverse), HIGH_BIT, codes),
        Rule::Legacy => legacy_on(isa, x, min, step, 128.0, codes),
    })
}

fn bits_on<T: Byte>(isa: Isa, x: &Matrix<f32>, flip: u8) -> Result<Matrix<T>> {
    let dim = x.cols();
    map_rows(x, dim.div_ceil(8), |x, codes| pack_on(isa, x, dim, flip, codes))
}

fn dequantize<T: Copy + Default + Sync>(
    codes: &Matrix<T>,
    ranges: &Ranges,
    middle: impl Fn(T) -> f32 + Sync,
) -> Result<Matrix<f32>> {
    ranges.check_dim("codes", codes.cols())?;
    let (min, step) = (ranges.min(), ranges.steps());
    let mut x = Matrix::zeros(codes.rows(), codes.cols());
    let d = codes.cols().max(1);
    x.as_mut_slice().par_chunks_mut(d).zip(codes.as_slice().par_chunks(d)).for_each(|(x, codes)| {
        for (((x, &q), &min), &step) in x.iter_mut().zip(codes).zip(min).zip(&step) {
            *x = min + middle(q) * step;
        }
    });
    Ok(x)
}

fn widen_on(isa: Isa, block: Block<'_>, min: &mut [f32], max: &mut [f32]) -> u32 {
    let (values, dim) = (block.values, block.dim);
    dispatch!(isa, widen(values: &[f32], dim: usize, min: &mut [f32], max: &mut [f32]) -> u32)
}

#[inline(always)]
fn widen(values: &[f32], dim: usize, min: &mut [f32], max: &mut [f32]) -> u32 {
    let mut largest = 0;
    for row in values.chunks_exact(dim) {
        for ((&v, min), max) in row.iter().zip(&mut *min).zip(&mut *max) {
            *min = if v < *min { v } else { *min };
            *max = if v > *max { v } else { *max };
            largest = largest.max(magnitude_bits(v));
        }
    }
    largest
}

/// The bits of |v|, which order as the magnitudes do, NaN last.
#[inline(always)]
pub(crate) fn magnitude_bits(v: f32) -> u32 {
    v.to_bits() & 0x7fff_ffff
}

/// Writes clipped codes, by the inverses of the steps where there are any, by division otherwise; both give the same.
fn clipped_on(
    isa: Isa,
    x: &[f32],
    min: &[f32],
    (step, inverse): (&[f32], &Option<Vec<f32>>),
    flip: u8,
    codes: &mut [u8],
) -> u32 {
    #[inline(always)]
    fn by_division(x: &[f32], min: &[f32], step: &[f32], flip: u8, codes: &mut [u8]) -> u32 {
        clipped(x, min, step, step, flip, codes, |v, step, _| v / step)
    }
    #[inline(always)]
    fn by_inverses(x: &[f32], min: &[f32], step: &[f32], inverse: &[f32], flip: u8, codes: &mut [u8]) -> u32 {
        clipped(x, min, step, inverse, flip, codes, quotient)
    }
    match inverse {
        Some(inverse) => {
            dispatch!(
                isa,
                by_inverses(x: &[f32], min: &[f32], step: &[f32], inverse: &[f32], flip: u8, codes: &mut [u8]) -> u32
            )
        }
        None => {
            dispatch!(isa, by_division(x: &[f32], min: &[f32], step: &[f32], flip: u8, codes: &mut [u8]) -> u32)
        }
    }
}

#[inline(always)]
fn clipped(
    x: &[f32],
    min: &[f32],
    step: &[f32],
    inverse: &[f32],
    flip: u8,
    codes: &mut [u8],
    quotient: impl Fn(f32, f32, f32) -> f32,
) -> u32 {
    let mut largest = 0;
    let (d, inverse) = (min.len(), &inverse[..min.len()]);
    for (x, codes) in x.chunks_exact(d).zip(codes.chunks_exact_mut(d)) {
        for ((((&x, &min), &step), &inverse), code) in x.iter().zip(min).zip(step).zip(inverse).zip(codes) {
            // From 0 to 255 truncation is the floor, and what lies outside is clipped either way.
            *code = truncate(quotient(x - min, step, inverse), 0.0, 255.0) as u8 ^ flip;
            largest = largest.max(magnitude_bits(x));
        }
    }
    largest
}

/// The inverses of steps that are far from the ends of f32's range, where [`quotient`] may take them and is faster than
/// a division.
fn inverses(isa: Isa, steps: &[f32]) -> Option<Vec<f32>> {
    let usual = |step: &f32| (1e-20..1e20).contains(step);
    // Without instructions that multiply and add at once, these take longer than the division.
    let fused = isa != Isa::Portable || cfg!(target_arch = "aarch64");
    (fused && steps.iter().all(usual)).then(|| steps.iter().map(|step| step.recip()).collect())
}

/// v / step, rounded as a division rounds it, from 1 / step rounded so; beyond ±512 only near it.
///
/// The first quotient is off by a few units in the last place, the second by less than one, and its remainder, exact
/// by one rounding for product and sum, says which way the last one is rounded. (Markstein, "Computation of elementary
/// functions on the IBM RISC System/6000 processor", 1990.)
#[inline(always)]
fn quotient(v: f32, step: f32, inverse: f32) -> f32 {
    let rough = v * inverse;
    let near = (-rough).mul_add(step, v).mul_add(inverse, rough);
    let exact = (-near).mul_add(step, v).mul_add(inverse, near);
    // An infinite one has no remainder.
    if rough.abs() < 512.0 { exact } else { rough }
}

fn legacy_on(isa: Isa, x: &[f32], min: &[f32], step: &[f32], shift: f32, codes: &mut [u8]) -> u32 {
    dispatch!(isa, legacy(x: &[f32], min: &[f32], step: &[f32], shift: f32, codes: &mut [u8]) -> u32)
}

#[inline(always)]
fn legacy(x: &[f32], min: &[f32], step: &[f32], shift: f32, codes: &mut [u8]) -> u32 {
    let mut largest = 0;
    for (x, codes) in x.chunks_exact(min.len()).zip(codes.chunks_exact_mut(min.len())) {
        for (((&x, &min), &step), code) in x.iter().zip(min).zip(step).zip(codes) {
            // Through i32, because a float that does not fit u8 saturates there instead of wrapping.
            *code = truncate((x - min) / step - shift, I32_MIN, I32_MAX) as u8;
            largest = largest.max(magnitude_bits(x));
        }
    }
    largest
}

/// Clips `v` to `low..=high` (which must lie within [`I32_MIN`] and [`I32_MAX`]; NaN gives `low`) and cuts its
/// fraction off.
#[inline(always)]
fn truncate(v: f32, low: f32, high: f32) -> i32 {
    debug_assert!(I32_MIN <= low && low <= high && high <= I32_MAX);
    // SAFETY: `max` returns its other operand for NaN, so the clipped value is a number within i32. (`as` gives the
    // same, but its checks keep the loop from being vectorised: 3 times slower.)
    unsafe { v.max(low).min(high).to_int_unchecked() }
}

fn pack_on(isa: Isa, x: &[f32], dim: usize, flip: u8, codes: &mut [u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 {
        // SAFETY: `Isa` saw AVX-512.
        return unsafe { pack_avx512(x, dim, flip, codes) };
    }
    dispatch!(isa, pack(x: &[f32], dim: usize, flip: u8, codes: &mut [u8]) -> u32)
}

#[inline(always)]
fn pack(x: &[f32], dim: usize, flip: u8, codes: &mut [u8]) -> u32 {
    let mut largest = 0;
    for (row, codes) in x.chunks_exact(dim).zip(codes.chunks_exact_mut(dim.div_ceil(8))) {
        let eights = row.chunks_exact(8);
        let rest = eights.remainder();
        for (eight, code) in eights.zip(&mut *codes) {
            let mut positive = [0; 8];
            for (bit, &v) in positive.iter_mut().zip(eight) {
                *bit = u8::from(v > 0.0);
                largest = largest.max(magnitude_bits(v));
            }
            *code = gather_bits(positive) ^ flip;
        }
        if let (false, Some(code)) = (rest.is_empty(), codes.last_mut()) {
            let mut positive = [0; 8];
            for (bit, &v) in positive.iter_mut().zip(rest) {
                *bit = u8::from(v > 0.0);
                largest = largest.max(magnitude_bits(v));
            }
            *code = gather_bits(positive) ^ flip;
        }
    }
    largest
}

/// [`pack`] by comparisons that give a bit a value.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn pack_avx512(x: &[f32], dim: usize, flip: u8, codes: &mut [u8]) -> u32 {
    use std::arch::x86_64::*;
    let (zero, magnitude) = (_mm512_setzero_ps(), _mm512_set1_epi32(i32::MAX));
    let (mut largest, mut rests) = (_mm512_setzero_si512(), 0);
    for (row, codes) in x.chunks_exact(dim).zip(codes.chunks_exact_mut(dim.div_ceil(8))) {
        let (words, rest) = row.as_chunks::<64>();
        let (bytes, codes) = codes.split_at_mut(words.len() * 8);
        for (word, bytes) in words.iter().zip(bytes.as_chunks_mut::<8>().0) {
            let mut bits = 0;
            for i in 0..4 {
                // SAFETY: sixteen of 64 values.
                let values = unsafe { _mm512_loadu_ps(word.as_ptr().add(16 * i)) };
                bits |= u64::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(values, zero)) << (16 * i);
                largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(values), magnitude));
            }
            // The first value's bit is the lowest of its byte, and should be the highest.
            let flips = u64::from_ne_bytes([flip; 8]);
            *bytes = (bits.reverse_bits() ^ flips).to_be_bytes();
        }
        if !rest.is_empty() {
            rests = rests.max(pack(rest, rest.len(), flip, codes));
        }
    }
    rests.max(_mm512_reduce_max_epu32(largest))
}

/// Gathers eight bytes of 0 or 1 into one, the first in the highest bit.
#[inline(always)]
fn gather_bits(bytes: [u8; 8]) -> u8 {
    // Byte i, at bit 8i, meets the factor's bit 63 − 9i: it lands at bit 63 − i, and no two products share a bit.
    (u64::from_le_bytes(bytes).wrapping_mul(0x8040_2010_0804_0201) >> 56) as u8
}

#[cfg(test)]
mod tests;
