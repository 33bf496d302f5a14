//! A dense layer on a GPU: `y = f(x w' + bias)` in halves, summed in f32 (`kernels/cuda/linear.h`).
//!
//! Or, on Hopper, x and w in 8-bit floats with a scale for each row of either ([`super::float8`]): 128 products at a time
//! are summed with some 14 significant bits, the rest in f32; y is in float16.
//!
//! Shapes: x is rows × inputs, w columns × inputs as PyTorch's `Linear` stores it, y rows × columns. A row of y depends
//! on that row of x alone, bit for bit. Cost: 2 · rows · columns · inputs operations, on tensor cores.

use super::driver::{Element, TensorMap};
use super::float8::Float8Rows;
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
    weight: Weight,
    bias: Buffer<f32>,
    columns: usize,
    inputs: usize,
    activation: Activation,
}

#[derive(Debug)]
enum Weight {
    /// On Hopper with the columns of a tile.
    Halves(Half, Buffer<u16>, Option<usize>),
    Float8(Float8Rows),
}

/// A layer's input, which must be of the kind of its weight.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Halves.
    Halves(&'a Buffer<u16>),
    /// Codes and scales.
    Float8(&'a Float8Rows),
}

impl<'a> From<&'a Buffer<u16>> for Input<'a> {
    fn from(x: &'a Buffer<u16>) -> Self {
        Self::Halves(x)
    }
}

impl<'a> From<&'a Float8Rows> for Input<'a> {
    fn from(x: &'a Float8Rows) -> Self {
        Self::Float8(x)
    }
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
    row_scales: Address,
    column_scales: Address,
}

/// `ROTATE` of linear.h: what follows the product is a rotation.
pub(super) const ROTATE: i32 = 4;

/// Rows of a tile, and bytes of the ring of stages: those of linear_mma.cu and linear_wgmma.cu.
const TILE_ROWS: usize = 128;
const MMA_SHARED: usize = 4 * 2 * 128 * 32 * 2;
const WGMMA_STAGES: usize = 4;
const WGMMA_ROW_BYTES: usize = 128;
/// Columns of a tile in Float8.
const FLOAT8_WIDTH: usize = 192;

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
        let width = gpu.is_hopper().then_some(if columns.is_multiple_of(256) { 256 } else { 192 });
        let halves = |weight: &[f32], _| Ok(Weight::Halves(half, gpu.upload(&half.encode(weight))?, width));
        Self::with(gpu, weight, bias, activation, ("a dense layer on a GPU", 8), halves)
    }

    /// The same in 8-bit floats, with a scale for each column.
    ///
    /// # Errors
    /// `Shape` unless inputs are a multiple of 16 and columns of 8 (of 16 for gated ones); `Device` on a GPU that has no
    /// tensor cores for them.
    pub fn float8(gpu: &Arc<Gpu>, weight: &[f32], bias: &[f32], activation: Activation) -> Result<Self> {
        let codes = |weight: &[f32], inputs| Ok(Weight::Float8(Float8Rows::upload(gpu, weight, inputs)?));
        Self::with(gpu, weight, bias, activation, ("a dense layer in float8", 16), codes)
    }

    /// `inputs_step`: what inputs must be a multiple of; `encode` makes the weight of rows of so many inputs.
    fn with(
        gpu: &Arc<Gpu>,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
        (what, inputs_step): (&'static str, usize),
        encode: impl FnOnce(&[f32], usize) -> Result<Weight>,
    ) -> Result<Self> {
        let columns = bias.len();
        let inputs = weight.len() / columns.max(1);
        let gated = matches!(activation, Activation::GatedGelu | Activation::GatedSilu);
        let step = if gated { 16 } else { 8 };
        let fits = inputs > 0 && inputs.is_multiple_of(inputs_step) && columns.is_multiple_of(step);
        if !fits || inputs * columns != weight.len() {
            return Err(Error::Shape {
                what,
                expected: format!("inputs in multiples of {inputs_step} and outputs in multiples of {step}"),
                found: format!("{columns} x {inputs}"),
            });
        }
        let (weight, bias) = if gated {
            (encode(&interleave(weight, columns, inputs), inputs)?, interleave(bias, columns, 1))
        } else {
            (encode(weight, inputs)?, bias.to_vec())
        };
        Ok(Self { weight, bias: gpu.upload(&bias)?, columns, inputs, activation })
    }

    /// Columns of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of y.
    pub fn outputs(&self) -> usize {
        match self.activation {
            Activation::None | Activation::Gelu => self.columns,
            Activation::GatedGelu | Activation::GatedSilu => self.columns / 2,
        }
    }

    /// Writes the layer's `rows` rows for the first rows of `x` to `out`.
    pub fn apply<'a>(&self, x: impl Into<Input<'a>>, rows: usize, out: &mut Buffer<u16>) -> Result<()> {
        self.run(x.into(), rows, out, self.activation as i32, Address(0), Address(0), [0, 0])
    }

    /// The same for a layer that makes queries, keys and values: pairs of columns (2i, 2i + 1) of each head of queries
    /// and keys (the first two thirds) are turned by the position of their row.
    pub fn rotating<'a>(
        &self,
        x: impl Into<Input<'a>>,
        rows: usize,
        out: &mut Buffer<u16>,
        positions: &Indices,
        rotations: &Rotations,
    ) -> Result<()> {
        assert!(self.activation == Activation::None && self.columns.is_multiple_of(3 * rotations.head));
        assert!(positions.len() >= rows && positions.bound() <= rotations.positions);
        let columns = [int(rotations.head), int(self.columns / 3 * 2)];
        self.run(x.into(), rows, out, ROTATE, positions.address(), rotations.turns.address(), columns)
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        x: Input<'_>,
        rows: usize,
        out: &mut Buffer<u16>,
        activation: i32,
        positions: Address,
        rotations: Address,
        [head_columns, rotated_columns]: [i32; 2],
    ) -> Result<()> {
        assert!(out.len() >= rows * self.outputs());
        if rows == 0 {
            return Ok(());
        }
        let gpu = self.bias.gpu();
        let mut params = Params {
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
            row_scales: Address(0),
            column_scales: Address(0),
        };
        let row_tiles = rows.div_ceil(TILE_ROWS);
        // On Hopper: the kernel, the columns of its tiles, and both operands in tiles.
        let (kernel, width, input, weight) = match (&self.weight, x) {
            (Weight::Halves(half, weight, width), Input::Halves(x)) => {
                assert!(x.len() >= rows * self.inputs);
                let Some(width) = *width else {
                    let launch = gpu
                        .launch(half.pick("linear_mma_f16", "linear_mma_bf16"))
                        .grid(row_tiles * self.columns.div_ceil(128), 1)
                        .block(256)
                        .shared(MMA_SHARED)
                        .arg(x.address())
                        .arg(weight.address())
                        .arg(params);
                    // SAFETY: x has rows × inputs values, the weight columns × inputs, `out` rows × outputs.
                    return unsafe { launch.start() };
                };
                let kernel = match width {
                    192 => half.pick("linear_wgmma_192_f16", "linear_wgmma_192_bf16"),
                    _ => half.pick("linear_wgmma_256_f16", "linear_wgmma_256_bf16"),
                };
                let tiles = |matrix, rows, tile_rows: usize| {
                    TensorMap::new(matrix, Element::Half(*half), rows, self.inputs, tile_rows as u32)
                };
                (kernel, width, tiles(x, rows, TILE_ROWS)?, tiles(weight, self.columns, width)?)
            }
            (Weight::Float8(weight), Input::Float8(x)) => {
                assert!(x.rows() >= rows && x.columns() == self.inputs);
                (params.row_scales, params.column_scales) = (x.scales(), weight.scales());
                let (x, weight) = (x.tiles(rows, TILE_ROWS)?, weight.tiles(self.columns, FLOAT8_WIDTH)?);
                ("linear_wgmma_192_float8", FLOAT8_WIDTH, x, weight)
            }
            _ => panic!("a dense layer's input and its weight are in different numbers"),
        };
        let stage = (TILE_ROWS + width) * WGMMA_ROW_BYTES;
        let launch = gpu
            .launch(kernel)
            .grid((row_tiles * self.columns.div_ceil(width)).min(gpu.multiprocessors() as usize), 1)
            .block(384)
            .shared(WGMMA_STAGES * stage + 64)
            .arg(input)
            .arg(weight)
            .arg(params);
        // SAFETY: the maps and scales are those of x and of the weight, `out` has rows × outputs values (all asserted).
        unsafe { launch.start() }
    }
}

/// Puts gates and what they gate in turns of eight columns, so that a lane of a warp has both.
fn interleave<T: Copy>(rows: &[T], columns: usize, width: usize) -> Vec<T> {
    let (gates, ups) = rows.split_at(columns / 2 * width);
    gates.chunks(8 * width).zip(ups.chunks(8 * width)).flat_map(|(gate, up)| [gate, up].concat()).collect()
}
