//! Exact nearest rows on a GPU (`kernels/cuda/search.h`): by products of bytes, bits or halves on tensor cores, and by
//! cosines that such a search screens.
//!
//! - Order: best first, equal products by the smaller row; the same bits as [`crate::topk`] for equal codes, whatever
//!   the batch, the order of queries or how points are cut into parts.
//! - Memory: products are never stored. [`Points`] that do not fit the device pass through it in parts
//!   ([`CosineSearch`] needs their floats there too, and fails without room).
//! - Cost: 2 · queries · points · d operations.

mod cosine;
mod rows;

pub use cosine::CosineSearch;
pub use rows::Rows;

use super::{Address, Buffer, Gpu, int};
use crate::topk::{Neighbours, check};
use crate::{Error, Matrix, Result};
use rows::{HostRows, Operand};
use std::sync::Arc;

/// Queries of a block, and points of a tile, on Hopper and elsewhere.
const QUERY_TILE: usize = 128;
const WGMMA_TILE: usize = 192;
const MMA_TILE: usize = 128;

/// Bytes of a row that a tile on Hopper holds.
const WGMMA_DEPTH: usize = 128;

/// Up to as many best keys of a query lie in shared memory, where that has room.
const NEAR_KEYS: usize = 32;

/// The most neighbours that a search finds.
pub const MAX_K: usize = 1024;

/// Points that are searched: all in the GPU's memory, or in parts that pass through it.
#[derive(Debug)]
pub struct Points {
    gpu: Arc<Gpu>,
    operand: Operand,
    rows: usize,
    cols: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Gpu(Rows),
    /// And how many rows go there at a time.
    Host(HostRows, usize),
}

impl Points {
    /// Takes search codes.
    pub fn codes(gpu: &Arc<Gpu>, codes: &Matrix<i8>) -> Result<Self> {
        Self::new(gpu, HostRows::codes(codes))
    }

    /// Takes bits, 8 a byte, as [`crate::quantize::ubinary`] makes them.
    pub fn bits(gpu: &Arc<Gpu>, bits: &Matrix<u8>) -> Result<Self> {
        Self::new(gpu, HostRows::bits(bits))
    }

    /// Takes numbers, rounded to float16.
    pub fn halves(gpu: &Arc<Gpu>, x: &Matrix<f32>) -> Result<Self> {
        Self::new(gpu, HostRows::halves(x))
    }

    fn new(gpu: &Arc<Gpu>, host: HostRows) -> Result<Self> {
        let (operand, rows, cols) = (host.operand, host.rows, host.cols);
        let (free, _) = gpu.memory()?;
        // A quarter is left for queries, lists and others.
        let fits = free as usize / 4 * 3 / Rows::stride(operand, cols);
        let place = if rows <= fits {
            Place::Gpu(Rows::upload(gpu, &host, 0..rows)?)
        } else {
            // At least a tile, whatever comes of it.
            Place::Host(host, fits.max(WGMMA_TILE))
        };
        Ok(Self { gpu: Arc::clone(gpu), operand, rows, cols, place })
    }

    /// How many points there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers (or bits) of a point.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The GPU that searches.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Finds the `k` points of the largest product with each query.
    ///
    /// # Errors
    /// `Shape` if the columns differ, k is larger than the number of points or than [`MAX_K`]; what a GPU fails with.
    pub fn nearest(&self, queries: &Rows, k: usize) -> Result<Found> {
        check(queries.cols, self.cols, self.rows, k)?;
        assert!(queries.operand == self.operand, "queries and points of different kinds");
        if k > MAX_K {
            let expected = format!("at most {MAX_K} on a GPU");
            return Err(Error::Shape { what: "k", expected, found: k.to_string() });
        }
        let (rows, gpu) = (queries.rows, &self.gpu);
        let mut found =
            Found { indices: gpu.allocate(rows * k)?, products: gpu.allocate(rows * k)?, rows, k };
        if rows == 0 || k == 0 {
            return Ok(found);
        }
        let bytes = Rows::stride(self.operand, self.cols);
        let kernel = Kernel::of(gpu, self.operand, bytes, k);
        let part = match &self.place {
            Place::Gpu(points) => points.rows,
            Place::Host(_, part) => *part,
        };
        // A block a multiprocessor: if queries do not make enough of them, points are split.
        let tiles = rows.div_ceil(QUERY_TILE);
        let splits = (gpu.multiprocessors() as usize / tiles).clamp(1, part.div_ceil(kernel.tile));
        let best = gpu.allocate::<u64>(splits * rows * k)?;
        let counts = gpu.zeros::<i32>(splits * rows)?;
        let search = |points: &Rows, first_point: usize| {
            let params = SearchParams {
                queries: int(rows),
                points: int(points.rows),
                bytes: int(bytes),
                first_point: int(first_point),
                k: int(k),
                near: i32::from(kernel.near),
                resident: i32::from(kernel.resident),
                padding: 0,
                best: best.address(),
                counts: counts.address(),
            };
            kernel.start(gpu, queries, points, (tiles, splits), params)
        };
        match &self.place {
            Place::Gpu(points) => search(points, 0)?,
            Place::Host(host, part) => {
                for first in (0..self.rows).step_by(*part) {
                    let points = Rows::upload(gpu, host, first..self.rows.min(first + part))?;
                    search(&points, first)?;
                }
            }
        }
        let merged = gpu.allocate::<u64>(rows * k)?;
        let launch = gpu.launch("search_merge").grid(rows.div_ceil(4), 1).block(128).arg(MergeParams {
            queries: int(rows),
            splits: int(splits),
            k: int(k),
            padding: 0,
            best: best.address(),
            counts: counts.address(),
            merged: merged.address(),
            indices: found.indices.address(),
            products: found.products.address(),
            halves: i32::from(self.operand == Operand::Half),
            padding_too: 0,
        });
        // SAFETY: lists of all splits, and room for one of k a query.
        unsafe { launch.start() }?;
        found.rows = rows;
        Ok(found)
    }
}

/// The kernel that searches, by what a GPU has.
struct Kernel {
    name: &'static str,
    wgmma: bool,
    /// Points of a tile.
    tile: usize,
    threads: u32,
    shared: usize,
    /// Whether a query's best keys lie in shared memory, and whether the queries stay there.
    near: bool,
    resident: bool,
}

impl Kernel {
    /// For rows of `bytes` and the `k` nearest.
    fn of(gpu: &Gpu, operand: Operand, bytes: usize, k: usize) -> Self {
        let lists = |near: bool| QUERY_TILE * (64 * 8 + if near { 8 * k } else { 0 } + 12);
        let pick = |bytes, halves| if operand == Operand::Byte { bytes } else { halves };
        let fits = |stages: usize, near| stages + lists(near) <= gpu.shared_bytes();
        if gpu.is_hopper() {
            let name = pick("search_wgmma_s8", "search_wgmma_f16");
            let near = k <= NEAR_KEYS;
            let (points, queries) = (WGMMA_TILE * WGMMA_DEPTH, QUERY_TILE * WGMMA_DEPTH);
            let staying = bytes.div_ceil(WGMMA_DEPTH) * queries + 3 * points + 64;
            let resident = fits(staying, near);
            let stages = if resident { staying } else { 3 * (queries + points) + 64 };
            let (tile, shared) = (WGMMA_TILE, stages + lists(near));
            return Self { name, wgmma: true, tile, threads: 384, shared, near, resident };
        }
        // Of what the shared memory holds the best comes first: stages hide more than lists take. (64 KiB on A100's 163;
        // 32 on the 99 of smaller ones, where not even short lists fit beside them.)
        let stage = (QUERY_TILE + MMA_TILE) * 64;
        let choices = [(4, k <= NEAR_KEYS), (4, false), (2, k <= NEAR_KEYS), (2, false)];
        let fitting = choices.into_iter().find(|&(stages, near)| fits(stages * stage, near));
        let (stages, near) = fitting.unwrap_or((2, false));
        let name = match stages {
            4 => pick("search_mma_s8_4", "search_mma_f16_4"),
            _ => pick("search_mma_s8_2", "search_mma_f16_2"),
        };
        let (tile, shared) = (MMA_TILE, stages * stage + lists(near));
        Self { name, wgmma: false, tile, threads: 256, shared, near, resident: false }
    }

    fn start(
        &self,
        gpu: &Gpu,
        queries: &Rows,
        points: &Rows,
        grid: (usize, usize),
        params: SearchParams,
    ) -> Result<()> {
        let launch = gpu.launch(self.name).grid(grid.0, grid.1).block(self.threads).shared(self.shared);
        let launch = if self.wgmma {
            launch.arg(queries.map(QUERY_TILE)?).arg(points.map(WGMMA_TILE)?)
        } else {
            launch.arg(queries.bytes.address()).arg(points.bytes.address())
        };
        // SAFETY: both have the rows that the parameters say, padded as they say; lists are as long as grid and k say.
        unsafe { launch.arg(params).start() }
    }
}

/// `SearchParams` of search.h.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SearchParams {
    queries: i32,
    points: i32,
    bytes: i32,
    first_point: i32,
    k: i32,
    near: i32,
    resident: i32,
    padding: i32,
    best: Address,
    counts: Address,
}

/// `MergeParams` of search_finish.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MergeParams {
    queries: i32,
    splits: i32,
    k: i32,
    padding: i32,
    best: Address,
    counts: Address,
    merged: Address,
    indices: Address,
    products: Address,
    halves: i32,
    padding_too: i32,
}

/// Neighbours, still in the GPU's memory.
#[derive(Debug)]
pub struct Found {
    /// queries × k: rows of the points, nearest first.
    pub(super) indices: Buffer<u32>,
    /// queries × k: their products, as the bits of an i32 or an f32.
    pub(super) products: Buffer<i32>,
    pub(super) rows: usize,
    pub(super) k: usize,
}

impl Found {
    /// Copies them to the host, each product through `read`.
    fn download<S: Copy + Default>(&self, read: impl Fn(i32) -> S) -> Result<Neighbours<S>> {
        let len = self.rows * self.k;
        let scores = self.products.download(len)?.into_iter().map(read).collect();
        Ok(Neighbours {
            indices: Matrix::try_from_vec(self.rows, self.k, self.indices.download(len)?)?,
            scores: Matrix::try_from_vec(self.rows, self.k, scores)?,
        })
    }
}

/// As [`crate::topk::topk_codes`], on a GPU.
pub fn topk_codes(queries: &Matrix<i8>, points: &Points, k: usize) -> Result<Neighbours<i32>> {
    points.nearest(&Rows::codes(points.gpu(), queries)?, k)?.download(|product| product)
}

/// As [`crate::topk::topk_bits`], on a GPU; `points` are those of [`Points::bits`].
pub fn topk_bits(queries: &Matrix<u8>, points: &Points, k: usize) -> Result<Neighbours<i32>> {
    let queries = Rows::bits(points.gpu(), queries)?;
    let bits = int(points.cols());
    points.nearest(&queries, k)?.download(|product| (product - bits) / 2)
}

/// The `k` largest dot products of numbers rounded to float16, summed in f32; `points` are those of
/// [`Points::halves`].
pub fn topk_halves(queries: &Matrix<f32>, points: &Points, k: usize) -> Result<Neighbours<f32>> {
    let queries = Rows::halves(points.gpu(), queries)?;
    points.nearest(&queries, k)?.download(|product| f32::from_bits(product as u32))
}
