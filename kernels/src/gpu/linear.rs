//! A dense layer on a GPU: `y = f(x w' + bias)` in halves, summed in f32 (`kernels/cuda/linear.h`).
//!
//! Shapes: x is rows × inputs, w columns × inputs as PyTorch's `Linear` stores it, y rows × columns. A row of y depends
//! on that row of x alone, bit for bit. Cost: 2 · rows · columns · inputs operations, on tensor cores.

use super::driver::{Element, TensorMap};
use super::{Address, Buffer, Gpu, Half, Indices, int};
use crate::{Error, Result};
use std::sync::Arc;

/// What follows the product, under the numbers of `Activation` in linear.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Activation {
    /// Nothing.
    None = 0,
    /// GELU by erf.
    Gelu = 1,
    /// gelu(gate) · up: the weight's first half are the gates, its second half what they gate; y is half as wide.
    GatedGelu = 2,
    /// silu(gate) · up, likewise.
    GatedSilu = 3,
}

/// Positions turned into angles (Su et al., RoFormer, 2021), for [`Linear::rotating`].
#[derive(Debug)]
pub struct Rotations {
    /// positions × half a head: cosine and sine.
    turns: Buffer<[f32; 2]>,
    positions: usize,
    head: usize,
}

impl Rotations {
    /// Angles `position / base^(2i / head)` for pair i of a head of `head` columns, which come in pairs.
    pub fn new(gpu: &Arc<Gpu>, positions: usize, head: usize, base: f64) -> Result<Self> {
        assert!(head > 0 && head.is_multiple_of(2), "a head of {head} columns has no pairs");
        let turns: Vec<[f32; 2]> = (0..positions * (head / 2))
            .map(|at| {
                let (position, pair) = (at / (head / 2), at % (head / 2));
                let angle = position as f64 / base.powf(2.0 * pair as f64 / head as f64);
                [angle.cos() as f32, angle.sin() as f32]
            })
            .collect();
        Ok(Self { turns: gpu.upload(&turns)?, positions, head })
    }
}

/// The weights of a dense layer in a GPU's memory.
#[derive(Debug)]
pub struct Linear {
    half: Half,
    weight: Buffer<u16>,
    bias: Buffer<f32>,
    columns: usize,
    inputs: usize,
    activation: Activation,
    /// On Hopper: columns of a tile, and the weight in tiles of them.
    tiles: Option<(usize, TensorMap)>,
}

/// `LinearParams` of linear.h.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    bias: Address,
    out: Address,
    rows: i32,
    columns: i32,
    inputs: i32,
    activation: i32,
    positions: Address,
    rotations: Address,
    head_columns: i32,
    rotated_columns: i32,
}

/// `ROTATE` of linear.h: what follows the product is a rotation.
pub(super) const ROTATE: i32 = 4;

/// Rows of a tile, and bytes of the ring of stages: those of linear_mma.cu and linear_wgmma.cu.
const TILE_ROWS: usize = 128;
const MMA_SHARED: usize = 4 * 2 * 128 * 32 * 2;
const WGMMA_STAGES: usize = 4;
const WGMMA_DEPTH: usize = 64;

impl Linear {
    /// Takes `weight` (columns × inputs) and `bias` to the GPU.
    ///
    /// # Errors
    /// `Shape` unless inputs and columns are multiples of 8 (of 16 for gated ones), as tensor cores need.
    pub fn new(
        gpu: &Arc<Gpu>,
        half: Half,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
    ) -> Result<Self> {
        let columns = bias.len();
        let inputs = weight.len() / columns.max(1);
        let gated = matches!(activation, Activation::GatedGelu | Activation::GatedSilu);
        let step = if gated { 16 } else { 8 };
        if !inputs.is_multiple_of(8) || !columns.is_multiple_of(step) || inputs * columns != weight.len() {
            return Err(Error::Shape {
                what: "a dense layer on a GPU",
                expected: format!("inputs in multiples of 8 and outputs in multiples of {step}"),
                found: format!("{columns} x {inputs}"),
            });
        }
        let mut weight = half.encode(weight);
        let mut bias = bias.to_vec();
        if gated {
            weight = interleave(&weight, columns, inputs);
            bias = interleave(&bias, columns, 1);
        }
        let weight = gpu.upload(&weight)?;
        let tiles = gpu.is_hopper().then(|| {
            let width = if columns.is_multiple_of(256) { 256 } else { 192 };
            Ok((width, TensorMap::new(&weight, Element::Half(half), columns, inputs, width as u32)?))
        });
        Ok(Self {
            half,
            weight,
            bias: gpu.upload(&bias)?,
            columns,
            inputs,
            activation,
            tiles: tiles.transpose()?,
        })
    }

    /// Columns of y.
    pub fn outputs(&self) -> usize {
        match self.activation {
            Activation::None | Activation::Gelu => self.columns,
            Activation::GatedGelu | Activation::GatedSilu => self.columns / 2,
        }
    }

    /// Writes the layer's `rows` rows for the first rows of `x` to `out`.
    pub fn apply(&self, x: &Buffer<u16>, rows: usize, out: &mut Buffer<u16>) -> Result<()> {
        self.run(x, rows, out, self.activation as i32, Address(0), Address(0), [0, 0])
    }

    /// The same for a layer that makes queries, keys and values: pairs of columns (2i, 2i + 1) of each head of queries
    /// and keys (the first two thirds) are turned by the position of their row.
    pub fn rotating(
        &self,
        x: &Buffer<u16>,
        rows: usize,
        out: &mut Buffer<u16>,
        positions: &Indices,
        rotations: &Rotations,
    ) -> Result<()> {
        assert!(self.activation == Activation::None && self.columns.is_multiple_of(3 * rotations.head));
        assert!(positions.len() >= rows && positions.bound() <= rotations.positions);
        let columns = [int(rotations.head), int(self.columns / 3 * 2)];
        self.run(x, rows, out, ROTATE, positions.address(), rotations.turns.address(), columns)
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        x: &Buffer<u16>,
        rows: usize,
        out: &mut Buffer<u16>,
        activation: i32,
        positions: Address,
        rotations: Address,
        [head_columns, rotated_columns]: [i32; 2],
    ) -> Result<()> {
        assert!(x.len() >= rows * self.inputs && out.len() >= rows * self.outputs());
        if rows == 0 {
            return Ok(());
        }
        let gpu = x.gpu();
        let params = Params {
            bias: self.bias.address(),
            out: out.address(),
            rows: int(rows),
            columns: int(self.columns),
            inputs: int(self.inputs),
            activation,
            positions,
            rotations,
            head_columns,
            rotated_columns,
        };
        let row_tiles = rows.div_ceil(TILE_ROWS);
        match &self.tiles {
            Some((width, weight)) => {
                let input = TensorMap::new(x, Element::Half(self.half), rows, self.inputs, TILE_ROWS as u32)?;
                let tiles = row_tiles * self.columns.div_ceil(*width);
                let stage = (TILE_ROWS + width) * WGMMA_DEPTH * 2;
                let kernel = match width {
                    192 => self.half.pick("linear_wgmma_192_f16", "linear_wgmma_192_bf16"),
                    _ => self.half.pick("linear_wgmma_256_f16", "linear_wgmma_256_bf16"),
                };
                let launch = gpu
                    .launch(kernel)
                    .grid(tiles.min(gpu.multiprocessors() as usize), 1)
                    .block(384)
                    .shared(WGMMA_STAGES * stage + 64)
                    .arg(input)
                    .arg(*weight)
                    .arg(params);
                // SAFETY: the maps are those of x and of the weight, `out` has rows × outputs values (asserted above).
                unsafe { launch.start() }
            }
            None => {
                let launch = gpu
                    .launch(self.half.pick("linear_mma_f16", "linear_mma_bf16"))
                    .grid(row_tiles * self.columns.div_ceil(128), 1)
                    .block(256)
                    .shared(MMA_SHARED)
                    .arg(x.address())
                    .arg(self.weight.address())
                    .arg(params);
                // SAFETY: x has rows × inputs values, the weight columns × inputs, `out` rows × outputs.
                unsafe { launch.start() }
            }
        }
    }
}

/// Puts gates and what they gate in turns of eight columns, so that a lane of a warp has both.
fn interleave<T: Copy>(rows: &[T], columns: usize, width: usize) -> Vec<T> {
    let (gates, ups) = rows.split_at(columns / 2 * width);
    gates.chunks(8 * width).zip(ups.chunks(8 * width)).flat_map(|(gate, up)| [gate, up].concat()).collect()
}
