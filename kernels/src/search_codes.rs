//! Search codes: embeddings as int8 with one scale, so that integer dot products stand for similarities.
//!
//! With the scale s = 127 / max|x| of a model's sample (L2-normalised rows), q = x·s in f32, clipped to ±127 and
//! rounded to the nearest integer, halves to the even one. Then Σ q_j r_j / s² is near x·y: each of the two factors
//! of a term is off by at most ½/s (unless it was clipped).
//!
//! Every instruction set gives the same bits, and one vector's codes depend on that vector and the scale alone. Cost:
//! one read of the matrix and one write of the codes; bound by memory.

use crate::quantize::{blocks, magnitude_bits, map_rows, refuse_not_finite};
use crate::{Error, Isa, Matrix, Result, simd::dispatch};
use rayon::prelude::*;

/// The one scale of a model's search codes: 127 / max|x| over its sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchScale(f32);

impl SearchScale {
    /// Takes a stored scale; an error unless it is positive and finite.
    pub fn try_new(scale: f32) -> Result<Self> {
        if scale.is_finite() && scale > 0.0 {
            return Ok(Self(scale));
        }
        Err(Error::Shape {
            what: "search scale",
            expected: "a positive finite number".into(),
            found: scale.to_string(),
        })
    }

    /// Measures the scale of `points` (L2-normalised rows); 127 if all values are 0.
    pub fn of(points: &Matrix<f32>) -> Result<Self> {
        let isa = Isa::detect();
        let largest = blocks(points).map(|block| magnitude_on(isa, block.values)).reduce(|| 0, u32::max);
        refuse_not_finite(points, largest)?;
        let max = f32::from_bits(largest);
        Self::try_new(if max == 0.0 { 127.0 } else { 127.0 / max })
    }

    /// The scale, to store.
    pub fn get(self) -> f32 {
        self.0
    }

    /// Returns the search codes of `x` (n × d): x·scale, to the nearest integer (halves to even), clipped to ±127.
    pub fn codes(self, x: &Matrix<f32>) -> Result<Matrix<i8>> {
        search_codes_on(Isa::detect(), x, self.0)
    }

    /// Returns the vectors (n × d) that `codes` stand for: each value within ½/scale of the one it was made of, unless
    /// that was clipped.
    pub fn vectors(self, codes: &Matrix<i8>) -> Matrix<f32> {
        let values = codes.as_slice().par_iter().map(|code| f32::from(*code) / self.0).collect();
        // The shape is that of `codes`.
        Matrix::try_from_vec(codes.rows(), codes.cols(), values).unwrap_or_default()
    }

    /// Returns the dot product of the vectors that a dot product of their codes, or a mean of such, stands for:
    /// `dot` / scale².
    pub fn similarity(self, dot: f64) -> f64 {
        dot / f64::from(self.0).powi(2)
    }
}

/// 1.5 · 2²³: a float of at most 2²² in magnitude, added to it, is rounded to the nearest integer (halves to even),
/// which then is the low bits of the sum. Compiles to one addition where SSE2 has no rounding instruction.
const ROUNDER: f32 = 12_582_912.0;

fn search_codes_on(isa: Isa, x: &Matrix<f32>, scale: f32) -> Result<Matrix<i8>> {
    map_rows(x, x.cols(), |x, codes| nearest_on(isa, x, scale, codes))
}

fn magnitude_on(isa: Isa, values: &[f32]) -> u32 {
    dispatch!(isa, magnitude(values: &[f32]) -> u32)
}

#[inline(always)]
fn magnitude(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest, &v| largest.max(magnitude_bits(v)))
}

fn nearest_on(isa: Isa, x: &[f32], scale: f32, codes: &mut [u8]) -> u32 {
    dispatch!(isa, nearest(x: &[f32], scale: f32, codes: &mut [u8]) -> u32)
}

#[inline(always)]
fn nearest(x: &[f32], scale: f32, codes: &mut [u8]) -> u32 {
    let mut largest = 0;
    for (&x, code) in x.iter().zip(codes) {
        let clipped = (x * scale).clamp(-127.0, 127.0);
        // The low byte of the sum is the rounded integer, in two's complement.
        *code = (clipped + ROUNDER).to_bits() as u8;
        largest = largest.max(magnitude_bits(x));
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 10] = [0, 1, 3, 4, 7, 8, 15, 16, 17, 40_001];

    #[test]
    fn search_codes_equal_the_formula_on_every_instruction_set() {
        // From -2 to 2, in lengths that end within, on and past a vector of 4, 8 or 16 lanes, and past one block.
        for (isa, len) in Isa::available().into_iter().flat_map(|isa| LENGTHS.map(|len| (isa, len))) {
            let values = (0..len).map(|i| ((i * 7919) % 401) as f32 / 100.0 - 2.0).collect();
            let x = &Matrix::try_from_vec(1, len, values).unwrap();
            // 80 puts the ends outside ±127; 2.5 makes many halves.
            for scale in [63.5, 80.0, 2.5] {
                let codes: Vec<i8> = x
                    .as_slice()
                    .iter()
                    .map(|v| (v * scale).round_ties_even().clamp(-127.0, 127.0) as i8)
                    .collect();
                assert_eq!(search_codes_on(isa, x, scale).unwrap().as_slice(), codes);
            }
        }
    }

    #[test]
    fn halves_go_to_the_even_code() {
        let x = Matrix::try_from_vec(1, 6, vec![0.5, 1.5, 2.5, -0.5, -1.5, -2.5]).unwrap();
        let codes = SearchScale::try_new(1.0).unwrap().codes(&x).unwrap();
        assert_eq!(codes.as_slice(), [0, 2, 2, 0, -2, -2]);
    }

    #[test]
    fn the_largest_value_of_the_sample_becomes_127() {
        let x = Matrix::try_from_vec(2, 2, vec![0.25, -0.5, 0.1, 0.0]).unwrap();
        let scale = SearchScale::of(&x).unwrap();
        assert_eq!(scale.codes(&x).unwrap().as_slice(), [64, -127, 25, 0]);
        assert_eq!(SearchScale::of(&Matrix::zeros(2, 2)).unwrap().get(), 127.0);
    }

    #[test]
    fn a_dot_product_of_search_codes_stands_for_that_of_the_vectors() {
        let x = Matrix::try_from_vec(2, 2, vec![0.6, 0.8, 0.8, 0.6]).unwrap();
        let scale = SearchScale::of(&x).unwrap();
        let codes = scale.codes(&x).unwrap();
        let dot: f64 =
            codes.row(0).iter().zip(codes.row(1)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        // Each of the four codes is off by at most half a step of 1/scale, each of the values by at most 1.
        assert!((scale.similarity(dot) - 0.96).abs() <= 4.0 * 0.5 / f64::from(scale.get()));
    }

    #[test]
    fn a_value_that_is_no_number_is_refused_by_its_place() {
        let mut x = Matrix::zeros(90, 384);
        x.row_mut(60)[5] = f32::NAN;
        let refused = [SearchScale::of(&x).err(), SearchScale::try_new(1.0).unwrap().codes(&x).err()];
        for error in refused {
            assert!(matches!(error, Some(Error::NotFinite { row: 60, column: 5, .. })), "{error:?}");
        }
        assert!(SearchScale::try_new(0.0).is_err() && SearchScale::try_new(f32::INFINITY).is_err());
    }
}
