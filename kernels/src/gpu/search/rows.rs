//! Rows to search with and among, as tensor cores take them: bytes or halves, padded to multiples of 16 bytes.

use crate::gpu::driver::{Element, TensorMap};
use crate::gpu::quantize::Coder;
use crate::gpu::{Buffer, Gpu, Half};
use crate::{Matrix, Result};
use rayon::prelude::*;
use std::sync::Arc;

/// What rows are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    Byte,
    Half,
}

/// Rows in a GPU's memory, each padded to a multiple of 16 bytes.
#[derive(Debug)]
pub struct Rows {
    pub(super) operand: Operand,
    pub(super) bytes: Buffer<u8>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Rows {
    /// Bytes of a row of `cols` numbers.
    pub(super) fn stride(operand: Operand, cols: usize) -> usize {
        let bytes = if operand == Operand::Half { 2 * cols } else { cols };
        bytes.next_multiple_of(16).max(16)
    }

    /// Takes rows to the GPU.
    pub(super) fn upload(gpu: &Arc<Gpu>, host: &HostRows, range: std::ops::Range<usize>) -> Result<Self> {
        let stride = Self::stride(host.operand, host.cols);
        let bytes = gpu.upload(&host.bytes[range.start * stride..range.end * stride])?;
        Ok(Self { operand: host.operand, bytes, rows: range.len(), cols: host.cols })
    }

    /// Takes search codes, or other signed bytes.
    pub fn codes(gpu: &Arc<Gpu>, codes: &Matrix<i8>) -> Result<Self> {
        Self::upload(gpu, &HostRows::codes(codes), 0..codes.rows())
    }

    /// Takes bits, 8 a byte, as [`crate::quantize::ubinary`] makes them.
    pub fn bits(gpu: &Arc<Gpu>, bits: &Matrix<u8>) -> Result<Self> {
        Self::upload(gpu, &HostRows::bits(bits), 0..bits.rows())
    }

    /// Takes numbers, rounded to float16.
    pub fn halves(gpu: &Arc<Gpu>, x: &Matrix<f32>) -> Result<Self> {
        Self::upload(gpu, &HostRows::halves(x), 0..x.rows())
    }

    /// Makes the search codes of rows that are on the GPU (rows × cols).
    pub fn coded(x: &Buffer<f32>, rows: usize, cols: usize, coder: &Coder) -> Result<Self> {
        let bytes = coder.padded_codes(x, rows, cols, Self::stride(Operand::Byte, cols))?;
        Ok(Self { operand: Operand::Byte, bytes, rows, cols })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn map(&self, tile: usize) -> Result<TensorMap> {
        let stride = Self::stride(self.operand, self.cols);
        let (element, columns) = match self.operand {
            Operand::Byte => (Element::Byte, stride),
            Operand::Half => (Element::Half(Half::Float16), stride / 2),
        };
        TensorMap::new(&self.bytes, element, self.rows, columns, tile as u32)
    }
}

/// Padded rows in the host's memory.
#[derive(Debug, Clone)]
pub(super) struct HostRows {
    pub(super) operand: Operand,
    bytes: Vec<u8>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl HostRows {
    fn new<T: Sync>(
        operand: Operand,
        x: &Matrix<T>,
        cols: usize,
        encode: impl Fn(&[T], &mut [u8]) + Sync,
    ) -> Self {
        let stride = Rows::stride(operand, cols);
        let mut bytes = vec![0; x.rows() * stride];
        bytes.par_chunks_mut(stride).enumerate().for_each(|(i, out)| encode(x.row(i), out));
        Self { operand, bytes, rows: x.rows(), cols }
    }

    pub(super) fn codes(codes: &Matrix<i8>) -> Self {
        Self::new(Operand::Byte, codes, codes.cols(), |row, out| {
            out[..row.len()].copy_from_slice(bytemuck::cast_slice(row));
        })
    }

    /// Each bit as 1 or −1: a product is then the number of bits less twice those that differ, so that tensor cores
    /// count bits.
    pub(super) fn bits(bits: &Matrix<u8>) -> Self {
        Self::new(Operand::Byte, bits, 8 * bits.cols(), |row, out| {
            for (byte, out) in row.iter().zip(out.chunks_exact_mut(8)) {
                for (bit, out) in out.iter_mut().enumerate() {
                    *out = if byte >> (7 - bit) & 1 == 1 { 1 } else { -1i8 as u8 };
                }
            }
        })
    }

    pub(super) fn halves(x: &Matrix<f32>) -> Self {
        Self::new(Operand::Half, x, x.cols(), |row, out| {
            out[..2 * row.len()].copy_from_slice(bytemuck::cast_slice(&Half::Float16.encode(row)));
        })
    }
}
