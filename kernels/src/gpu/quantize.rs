//! Codes, ranges and lengths of embeddings on a GPU (`kernels/cuda/codes.h`, `quantize.cu`): bit for bit those of
//! [`crate::quantize`], [`crate::search_codes`] and [`crate::norm`].

use super::{Address, Buffer, Gpu, int};
use crate::quantize::{Ranges, Rule, refuse_not_finite};
use crate::search_codes::SearchScale;
use crate::{Error, Matrix, Result};
use std::sync::Arc;

/// What codes to make.
#[derive(Debug, Clone, Copy)]
pub enum Code<'a> {
    /// uint8 storage codes.
    Uint8(&'a Ranges, Rule),
    /// int8 storage codes.
    Int8(&'a Ranges, Rule),
    /// A bit per dimension.
    Ubinary,
    /// The same less 128.
    Binary,
    /// int8 codes to search with.
    Search(SearchScale),
}

/// `Code` of codes.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Kind {
    NoCode = 0,
    Uint8 = 1,
    Int8 = 2,
    Uint8Legacy = 3,
    Int8Legacy = 4,
    Ubinary = 5,
    Binary = 6,
    Search = 7,
}

/// `CodeParams` of codes.h.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Params {
    code: i32,
    scale: f32,
    lowest: Address,
    step: Address,
    out: Address,
    stride: i32,
    padding: i32,
}

impl Params {
    /// No codes.
    pub(super) fn none() -> Self {
        Self {
            code: Kind::NoCode as i32,
            scale: 0.0,
            lowest: Address(0),
            step: Address(0),
            out: Address(0),
            stride: 0,
            padding: 0,
        }
    }
}

/// A code with what it needs in a GPU's memory.
#[derive(Debug)]
pub struct Coder {
    kind: Kind,
    scale: f32,
    /// The lowest value and the step of each dimension.
    ranges: Option<(Buffer<f32>, Buffer<f32>)>,
}

impl Coder {
    /// Prepares to make `code`.
    pub fn new(gpu: &Arc<Gpu>, code: Code<'_>) -> Result<Self> {
        let (kind, scale, ranges) = match code {
            Code::Uint8(ranges, Rule::Clipped) => (Kind::Uint8, 0.0, Some(ranges)),
            Code::Int8(ranges, Rule::Clipped) => (Kind::Int8, 0.0, Some(ranges)),
            Code::Uint8(ranges, Rule::Legacy) => (Kind::Uint8Legacy, 0.0, Some(ranges)),
            Code::Int8(ranges, Rule::Legacy) => (Kind::Int8Legacy, 0.0, Some(ranges)),
            Code::Ubinary => (Kind::Ubinary, 0.0, None),
            Code::Binary => (Kind::Binary, 0.0, None),
            Code::Search(scale) => (Kind::Search, scale.get(), None),
        };
        let ranges = ranges.map(|r| Ok((gpu.upload(r.min())?, gpu.upload(&r.divisors())?)));
        Ok(Self { kind, scale, ranges: ranges.transpose()? })
    }

    /// Bytes of a row of `dimensions` numbers.
    pub fn row_bytes(&self, dimensions: usize) -> usize {
        if matches!(self.kind, Kind::Ubinary | Kind::Binary) { dimensions.div_ceil(8) } else { dimensions }
    }

    /// The kernel's parameters for codes of `dimensions` numbers, in rows of `stride` bytes in `out`.
    ///
    /// # Errors
    /// `Shape` where the ranges are those of other dimensions.
    pub(super) fn params(&self, out: &mut Buffer<u8>, dimensions: usize, stride: usize) -> Result<Params> {
        if let Some((lowest, _)) = self.ranges.as_ref().filter(|(lowest, _)| lowest.len() != dimensions) {
            return Err(Error::Shape {
                what: "ranges of codes",
                expected: format!("{dimensions} dimensions"),
                found: lowest.len().to_string(),
            });
        }
        let (lowest, step) =
            self.ranges.as_ref().map_or((Address(0), Address(0)), |r| (r.0.address(), r.1.address()));
        let (scale, out, stride) = (self.scale, out.address(), int(stride));
        Ok(Params { code: self.kind as i32, scale, lowest, step, out, stride, padding: 0 })
    }

    /// Returns the codes of `x` (rows × dimensions), whose numbers must be finite.
    ///
    /// # Errors
    /// `Shape` where the ranges are those of other dimensions; what a GPU fails with.
    pub fn codes(&self, x: &Buffer<f32>, rows: usize, dimensions: usize) -> Result<Buffer<u8>> {
        self.padded_codes(x, rows, dimensions, self.row_bytes(dimensions))
    }

    /// The same in rows of `stride` bytes, padded with zeros.
    pub(super) fn padded_codes(
        &self,
        x: &Buffer<f32>,
        rows: usize,
        dimensions: usize,
        stride: usize,
    ) -> Result<Buffer<u8>> {
        assert!(x.len() >= rows * dimensions && stride >= self.row_bytes(dimensions));
        let mut out = x.gpu().zeros(rows * stride)?;
        let launch = x
            .gpu()
            .launch("codes")
            .grid(rows.div_ceil(4), 1)
            .block(128)
            .arg(x.address())
            .arg(int(rows))
            .arg(int(dimensions))
            .arg(self.params(&mut out, dimensions, stride)?);
        // SAFETY: x has the rows (asserted), `out` was made for their codes, and there is a range for each dimension.
        unsafe { launch.start() }?;
        Ok(out)
    }
}

/// Returns the rows of `x` scaled to length 1; a row of zeros stays.
pub fn unit_rows(x: &Buffer<f32>, rows: usize, dimensions: usize) -> Result<Buffer<f32>> {
    assert!(x.len() >= rows * dimensions);
    let out = x.gpu().allocate(rows * dimensions)?;
    let launch = x
        .gpu()
        .launch("unit_rows")
        .grid(rows.div_ceil(8), 1)
        .block(128)
        .arg(x.address())
        .arg(out.address())
        .arg(int(rows))
        .arg(int(dimensions));
    // SAFETY: x has the rows (asserted), and `out` as many.
    unsafe { launch.start() }?;
    Ok(out)
}

/// Measures the ranges of `points`, as [`Ranges::of`] does.
pub fn ranges(gpu: &Arc<Gpu>, points: &Matrix<f32>) -> Result<Ranges> {
    if points.rows() == 0 {
        return Ranges::of(points);
    }
    let (low, high, largest) = ordered_ranges(&gpu.upload(points.as_slice())?, points.rows(), points.cols())?;
    refuse_not_finite(points, largest)?;
    // +0 for -0, as on the processor.
    let floats = |ordered: &[u32]| ordered.iter().map(|&bits| from_ordered(bits) + 0.0).collect();
    Ranges::try_new(floats(&low), floats(&high))
}

/// Says whether all of rows × `dimensions` numbers are finite.
pub fn is_finite(x: &Buffer<f32>, rows: usize, dimensions: usize) -> Result<bool> {
    if rows == 0 || dimensions == 0 {
        return Ok(true);
    }
    let (.., largest) = ordered_ranges(x, rows, dimensions)?;
    Ok(f32::from_bits(largest).is_finite())
}

/// Measures the scale of search codes of `points`, as [`SearchScale::of`] does.
pub fn search_scale(gpu: &Arc<Gpu>, points: &Matrix<f32>) -> Result<SearchScale> {
    if points.rows() == 0 {
        return SearchScale::of(points);
    }
    let (.., largest) = ordered_ranges(&gpu.upload(points.as_slice())?, points.rows(), points.cols())?;
    refuse_not_finite(points, largest)?;
    let max = f32::from_bits(largest);
    SearchScale::try_new(if max == 0.0 { 127.0 } else { 127.0 / max })
}

/// Lowest and highest of each dimension as ordered integers, and the bits of the largest magnitude.
fn ordered_ranges(x: &Buffer<f32>, rows: usize, dimensions: usize) -> Result<(Vec<u32>, Vec<u32>, u32)> {
    assert!(x.len() >= rows * dimensions);
    let gpu = x.gpu();
    let lowest = gpu.allocate::<u32>(dimensions)?;
    lowest.fill_bytes(0xff)?;
    let (highest, magnitude) = (gpu.zeros::<u32>(dimensions)?, gpu.zeros::<u32>(1)?);
    // Enough blocks to keep all multiprocessors busy, few enough that atomics are rare.
    let sharers = (8 * gpu.multiprocessors() as usize).div_ceil(dimensions.div_ceil(128)).min(rows);
    let launch = gpu
        .launch("ranges")
        .grid(dimensions.div_ceil(128), sharers)
        .block(128)
        .arg(x.address())
        .arg(int(rows))
        .arg(int(dimensions))
        .arg(lowest.address())
        .arg(highest.address())
        .arg(magnitude.address());
    // SAFETY: x has the rows (asserted), the others a number per dimension.
    unsafe { launch.start() }?;
    Ok((lowest.download(dimensions)?, highest.download(dimensions)?, magnitude.download(1)?[0]))
}

/// The float that quantize.cu's `ordered` made an integer of.
fn from_ordered(ordered: u32) -> f32 {
    f32::from_bits(if ordered >> 31 == 1 { ordered & 0x7fff_ffff } else { !ordered })
}
