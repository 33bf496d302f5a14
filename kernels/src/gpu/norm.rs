//! Layer norm on a GPU (`kernels/cuda/norm.cu`): of embeddings, and of a layer's output plus its input.
//!
//! Rows of up to 1,024 halves, a multiple of 8; statistics in f32. Bound by memory: a row is read and written once.

use super::{Address, Buffer, Gpu, Half, Indices, int};
use crate::{Error, Result};
use std::sync::Arc;

/// Scale and shift of a layer norm in a GPU's memory.
#[derive(Debug)]
pub struct LayerNorm {
    half: Half,
    scale: Buffer<f32>,
    shift: Buffer<f32>,
    epsilon: f32,
}

/// `NormParams` of norm.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    scale: Address,
    shift: Address,
    epsilon: f32,
    padding: i32,
}

/// The widest row: what the registers of a warp hold.
pub const MAX_WIDTH: usize = 1024;

/// Rows of a block: a warp each.
const ROWS: usize = 4;

/// The tables from which a token's embedding is summed up.
#[derive(Debug)]
pub struct Tables {
    /// vocabulary × hidden.
    words: Buffer<u16>,
    /// positions × hidden.
    positions: Buffer<u16>,
}

impl Tables {
    /// Takes both tables to the GPU.
    pub fn new(gpu: &Arc<Gpu>, half: Half, words: &[f32], positions: &[f32]) -> Result<Self> {
        let (words, positions) = (gpu.upload(&half.encode(words))?, gpu.upload(&half.encode(positions))?);
        Ok(Self { words, positions })
    }
}

impl LayerNorm {
    /// Takes γ and β to the GPU.
    ///
    /// # Errors
    /// `Shape` for rows that the kernel has no registers for, or that are no multiple of 8.
    pub fn new(gpu: &Arc<Gpu>, half: Half, gamma: &[f32], beta: &[f32], epsilon: f32) -> Result<Self> {
        let width = gamma.len();
        if !width.is_multiple_of(8) || width > MAX_WIDTH || beta.len() != width {
            return Err(Error::Shape {
                what: "a layer norm on a GPU",
                expected: format!("rows of up to {MAX_WIDTH} numbers, in multiples of 8"),
                found: format!("{width}"),
            });
        }
        Ok(Self { half, scale: gpu.upload(gamma)?, shift: gpu.upload(beta)?, epsilon })
    }

    fn width(&self) -> usize {
        self.scale.len()
    }

    fn params(&self) -> Params {
        let (scale, shift) = (self.scale.address(), self.shift.address());
        Params { scale, shift, epsilon: self.epsilon, padding: 0 }
    }

    /// Writes the normalised sum of word and position of each of `tokens` tokens to `out`.
    pub fn embed(
        &self,
        tables: &Tables,
        ids: &Indices,
        positions: &Indices,
        tokens: usize,
        out: &mut Buffer<u16>,
    ) -> Result<()> {
        assert!(ids.len() >= tokens && positions.len() >= tokens && out.len() >= tokens * self.width());
        assert!(tables.words.len() >= ids.bound() * self.width(), "ids of words that the table lacks");
        assert!(tables.positions.len() >= positions.bound() * self.width(), "positions that the table lacks");
        let launch = out
            .gpu()
            .launch(self.half.pick("embed_norm_f16", "embed_norm_bf16"))
            .grid(tokens.div_ceil(ROWS), 1)
            .block(32 * ROWS as u32)
            .arg(ids.address())
            .arg(positions.address())
            .arg(tables.words.address())
            .arg(tables.positions.address())
            .arg(out.address())
            .arg(int(tokens))
            .arg(int(self.width()))
            .arg(self.params());
        // SAFETY: the buffers are long enough (asserted), ids and positions are rows of the tables, which have as
        // many as these are below (asserted).
        unsafe { launch.start() }
    }

    /// Adds the first `rows` rows of `residual` to those of `x` and normalises them, in place.
    pub fn add(&self, x: &mut Buffer<u16>, residual: &Buffer<u16>, rows: usize) -> Result<()> {
        assert!(x.len() >= rows * self.width() && residual.len() >= rows * self.width());
        let launch = x
            .gpu()
            .launch(self.half.pick("add_norm_f16", "add_norm_bf16"))
            .grid(rows.div_ceil(ROWS), 1)
            .block(32 * ROWS as u32)
            .arg(x.address())
            .arg(residual.address())
            .arg(x.address())
            .arg(int(rows))
            .arg(int(self.width()))
            .arg(self.params());
        // SAFETY: both buffers have the rows (asserted); each row is read before it is written, by one warp.
        unsafe { launch.start() }
    }
}
