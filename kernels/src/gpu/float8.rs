//! Matrices in 8-bit floats on a GPU, a scale for each row (`kernels/cuda/float8.cu`), for [`super::linear`].
//!
//! The format is e4m3 (Micikevicius et al., "FP8 Formats for Deep Learning", 2022): 4 significant bits, up to 448, down
//! to 2⁻⁹, no infinities. A row's largest magnitude becomes 448, so that its codes depend on that row alone.

use super::driver::{Element, TensorMap};
use super::{Address, Buffer, Gpu, int};
use crate::{Error, Result};
use std::sync::Arc;

/// The largest number.
const LARGEST: f32 = 448.0;

/// Says whether a GPU's tensor cores multiply such numbers as these kernels have it (compute capability 9.0).
pub fn serve(gpu: &Gpu) -> bool {
    gpu.is_hopper()
}

/// The code nearest to `x`, of two that are equally near the even one; that of ±448 beyond it, NaN for NaN.
pub fn encode(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let (size, sign) = (x.abs(), (x.to_bits() >> 24) as u8 & 0x80);
    let code = if size < 2f32.powi(-6) {
        // 2⁻⁹ apart.
        (size * 512.0).round_ties_even() as u32
    } else {
        // Three bits after the first; exponents count from −7, not from −127.
        let bits = size.to_bits();
        ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20) - (120 << 3)
    };
    sign | code.min(0x7e) as u8
}

/// The number that a code stands for.
pub fn decode(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code >> 7 == 1 { -size } else { size }
}

/// A matrix in codes, in a GPU's memory.
#[derive(Debug)]
pub struct Float8Rows {
    codes: Buffer<u8>,
    /// What each row's codes are to be multiplied by.
    scales: Buffer<f32>,
    columns: usize,
}

impl Float8Rows {
    /// Makes room for `rows` rows of up to `columns` numbers, to be written.
    ///
    /// # Errors
    /// `Device` where the GPU has no use for them.
    pub fn new(gpu: &Arc<Gpu>, rows: usize, columns: usize) -> Result<Self> {
        check(gpu)?;
        Ok(Self { codes: gpu.allocate(rows * columns)?, scales: gpu.allocate(rows)?, columns })
    }

    /// Takes finite `values`, rows of `columns` of them, to the GPU.
    pub(super) fn upload(gpu: &Arc<Gpu>, values: &[f32], columns: usize) -> Result<Self> {
        check(gpu)?;
        let largest = |row: &[f32]| row.iter().fold(0f32, |most, v| most.max(v.abs()));
        let scales: Vec<f32> = values.chunks_exact(columns).map(|row| largest(row) / LARGEST).collect();
        let codes: Vec<u8> = values
            .chunks_exact(columns)
            .flat_map(|row| {
                // Zeros, and numbers so small that 448 over them is beyond f32, are 0.
                let factor = LARGEST / largest(row);
                let factor = if factor.is_finite() { factor } else { 0.0 };
                row.iter().map(move |v| encode(v * factor))
            })
            .collect();
        Ok(Self { codes: gpu.upload(&codes)?, scales: gpu.upload(&scales)?, columns })
    }

    /// Writes the first `rows` rows of float16 numbers, `columns` each, a multiple of 8; there must be room for them.
    pub fn write(&mut self, x: &Buffer<u16>, rows: usize, columns: usize) -> Result<()> {
        assert!(columns.is_multiple_of(8) && x.len() >= rows * columns);
        assert!(self.codes.len() >= rows * columns && self.scales.len() >= rows);
        self.columns = columns;
        let launch = x
            .gpu()
            .launch("float8_rows")
            .grid(rows.div_ceil(4), 1)
            .block(128)
            .arg(x.address())
            .arg(int(rows))
            .arg(int(columns))
            .arg(self.codes.address())
            .arg(self.scales.address());
        // SAFETY: all three have the rows (asserted above).
        unsafe { launch.start() }
    }

    /// The numbers of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Codes and scales of the first `rows` rows.
    pub fn download(&self, rows: usize) -> Result<(Vec<u8>, Vec<f32>)> {
        Ok((self.codes.download(rows * self.columns)?, self.scales.download(rows)?))
    }

    /// How many rows there is room for.
    pub(super) fn rows(&self) -> usize {
        self.scales.len()
    }

    pub(super) fn scales(&self) -> Address {
        self.scales.address()
    }

    /// The first `rows` rows in tiles of `tile_rows`.
    pub(super) fn tiles(&self, rows: usize, tile_rows: usize) -> Result<TensorMap> {
        TensorMap::new(&self.codes, Element::Byte, rows, self.columns, tile_rows as u32)
    }
}

fn check(gpu: &Gpu) -> Result<()> {
    if serve(gpu) {
        return Ok(());
    }
    let reason = "float8 needs compute capability 9.0; use float16".into();
    Err(Error::Device { name: format!("{gpu:?}"), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_number_is_the_nearest_and_of_two_the_even_one() {
        let all: Vec<u8> = (0..=0x7e).collect();
        let mut numbers: Vec<f32> = all.iter().map(|&code| decode(code)).collect();
        assert!(
            numbers.is_sorted() && numbers[0] == 0.0 && numbers[1] == 2f32.powi(-9) && numbers[0x7e] == 448.0
        );
        // All numbers, what lies in the middle of two, and the floats next to these.
        for pair in all.windows(2) {
            let middle = (decode(pair[0]) + decode(pair[1])) / 2.0;
            numbers.extend([middle, middle.next_up(), middle.next_down()]);
        }
        numbers.extend([460.0, 1e9, f32::INFINITY, f32::MIN_POSITIVE, 1e-40]);
        for x in numbers {
            let nearest = |a: &&u8, b: &&u8| {
                let far = |code: u8| (f64::from(x.min(449.0)) - f64::from(decode(code))).abs();
                far(**a).total_cmp(&far(**b)).then((*a & 1).cmp(&(*b & 1)))
            };
            let expected = *all.iter().min_by(nearest).unwrap();
            assert_eq!((encode(x), encode(-x)), (expected, expected | 0x80), "{x}");
        }
        assert!(decode(encode(f32::NAN)).is_nan());
    }
}
