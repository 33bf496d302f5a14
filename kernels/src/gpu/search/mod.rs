//! Exact nearest rows on a GPU (`kernels/cuda/search.h`): by products of bytes, bits or halves on tensor cores, and by
//! cosines that such a search screens.
//!
//! - Order: best first, equal products by the smaller row; the same bits as [`crate::topk`] for equal codes, whatever
//!   the batch, the order of queries or how points are cut into parts.
//! - Memory: products are never stored. [`Points`] that do not fit the device pass through it in parts
//!   ([`CosineSearch`] needs their floats there too, and fails without room).
//! - Cost: 2 · queries · points · d operations.

use super::driver::{Element, TensorMap};
use super::quantize::Coder;
use super::{Address, Buffer, Gpu, Half, int};
use crate::norm::unit_rows;
use crate::search_codes::SearchScale;
use crate::topk::{Metric, Neighbours, Screen, Screened, check, topk};
use crate::{Error, Isa, Matrix, Result};
use rayon::prelude::*;
use std::sync::Arc;

/// What rows are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    Byte,
    Half,
}

/// Queries of a block, and points of a tile, on Hopper and elsewhere.
const QUERY_TILE: usize = 128;
const WGMMA_TILE: usize = 192;
const MMA_TILE: usize = 128;

/// Up to as many best keys of a query lie in shared memory, where that has room.
const NEAR_KEYS: usize = 32;

/// The most neighbours that a search finds.
pub const MAX_K: usize = 1024;

/// Rows in a GPU's memory, each padded to a multiple of 16 bytes.
#[derive(Debug)]
pub struct Rows {
    operand: Operand,
    bytes: Buffer<u8>,
    rows: usize,
    cols: usize,
}

impl Rows {
    /// Bytes of a row of `cols` numbers.
    fn stride(operand: Operand, cols: usize) -> usize {
        let bytes = if operand == Operand::Half { 2 * cols } else { cols };
        bytes.next_multiple_of(16).max(16)
    }

    /// Takes rows to the GPU.
    fn upload(gpu: &Arc<Gpu>, host: &HostRows, range: std::ops::Range<usize>) -> Result<Self> {
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

    fn map(&self, tile: usize) -> Result<TensorMap> {
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
struct HostRows {
    operand: Operand,
    bytes: Vec<u8>,
    rows: usize,
    cols: usize,
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

    fn codes(codes: &Matrix<i8>) -> Self {
        Self::new(Operand::Byte, codes, codes.cols(), |row, out| {
            out[..row.len()].copy_from_slice(bytemuck::cast_slice(row));
        })
    }

    /// Each bit as 1 or −1: a product is then the number of bits less twice those that differ, so that tensor cores
    /// count bits.
    fn bits(bits: &Matrix<u8>) -> Self {
        Self::new(Operand::Byte, bits, 8 * bits.cols(), |row, out| {
            for (byte, out) in row.iter().zip(out.chunks_exact_mut(8)) {
                for (bit, out) in out.iter_mut().enumerate() {
                    *out = if byte >> (7 - bit) & 1 == 1 { 1 } else { -1i8 as u8 };
                }
            }
        })
    }

    fn halves(x: &Matrix<f32>) -> Self {
        Self::new(Operand::Half, x, x.cols(), |row, out| {
            out[..2 * row.len()].copy_from_slice(bytemuck::cast_slice(&Half::Float16.encode(row)));
        })
    }
}

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
        let kernel = Kernel::of(gpu, self.operand, k);
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
                bytes: int(Rows::stride(self.operand, self.cols)),
                first_point: int(first_point),
                k: int(k),
                near: i32::from(kernel.near),
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
    /// Whether a query's best keys lie in shared memory.
    near: bool,
}

impl Kernel {
    fn of(gpu: &Gpu, operand: Operand, k: usize) -> Self {
        let lists = |near: bool| QUERY_TILE * (64 * 8 + if near { 8 * k } else { 0 } + 12);
        let pick = |bytes, halves| if operand == Operand::Byte { bytes } else { halves };
        let fits = |stages: usize, near| stages + lists(near) <= gpu.shared_bytes();
        if gpu.is_hopper() {
            let name = pick("search_wgmma_s8", "search_wgmma_f16");
            let (near, stages) = (k <= NEAR_KEYS, 3 * (QUERY_TILE + WGMMA_TILE) * 128 + 48);
            return Self {
                name,
                wgmma: true,
                tile: WGMMA_TILE,
                threads: 384,
                shared: stages + lists(near),
                near,
            };
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
        Self { name, wgmma: false, tile: MMA_TILE, threads: 256, shared: stages * stage + lists(near), near }
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

/// Exact nearest rows by cosine, screened by 8-bit codes: [`Screened`] on a GPU, with the same result.
#[derive(Debug)]
pub struct CosineSearch {
    screen: Screen,
    unit: Matrix<f32>,
    unit_there: Buffer<f32>,
    codes: Points,
}

/// `MeasureParams` of search_finish.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MeasureParams {
    queries: Address,
    points: Address,
    query_count: i32,
    point_count: i32,
    dimensions: i32,
    padding: i32,
    candidates: Address,
    products: Address,
    candidate_count: i32,
    padding_too: i32,
    bounds: Address,
    square_scale: f64,
    k: i32,
    padding_three: i32,
    indices: Address,
    cosines: Address,
    exact: Address,
}

impl CosineSearch {
    /// Takes the rows of `points` (n × d) to the GPU; fails at a value that is no finite number.
    pub fn try_new(gpu: &Arc<Gpu>, points: &Matrix<f32>) -> Result<Self> {
        points.check_finite()?;
        let unit = unit_rows(points);
        let (screen, codes) = Screen::try_new(Isa::detect(), &unit)?;
        let unit_there = gpu.upload(unit.as_slice())?;
        Ok(Self { screen, unit_there, codes: Points::codes(gpu, &codes)?, unit })
    }

    /// As [`Screened::topk`].
    pub fn topk(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        check(queries.cols(), self.unit.cols(), self.unit.rows(), k)?;
        queries.check_finite()?;
        let (rows, cols, gpu) = (queries.rows(), queries.cols(), self.codes.gpu());
        let mut near = Neighbours { indices: Matrix::zeros(rows, k), scores: Matrix::zeros(rows, k) };
        if rows == 0 || k == 0 {
            return Ok(near);
        }
        let queries = unit_rows(queries);
        let scale: SearchScale = self.screen.scale;
        let codes = scale.codes(&queries)?;
        let isa = Isa::detect();
        let bound = |i| self.screen.bound(isa, queries.row(i), codes.row(i));
        let bounds: Vec<f64> = (0..rows).into_par_iter().map(bound).collect();
        let taken = Screened::candidates(k).min(self.unit.rows()).min(MAX_K.max(k));
        let candidates = self.codes.nearest(&Rows::codes(gpu, &codes)?, taken)?;
        let (queries_there, bounds) = (gpu.upload(queries.as_slice())?, gpu.upload(&bounds)?);
        let (indices, cosines) = (gpu.allocate::<u32>(rows * k)?, gpu.allocate::<f32>(rows * k)?);
        let exact = gpu.allocate::<i32>(rows)?;
        let launch = gpu
            .launch("search_measure")
            .grid(rows.div_ceil(4), 1)
            .block(128)
            .shared(4 * (k + 64) * size_of::<u64>())
            .arg(MeasureParams {
                queries: queries_there.address(),
                points: self.unit_there.address(),
                query_count: int(rows),
                point_count: int(self.unit.rows()),
                dimensions: int(cols),
                padding: 0,
                candidates: candidates.indices.address(),
                products: candidates.products.address(),
                candidate_count: int(taken),
                padding_too: 0,
                bounds: bounds.address(),
                square_scale: f64::from(scale.get()).powi(2),
                k: int(k),
                padding_three: 0,
                indices: indices.address(),
                cosines: cosines.address(),
                exact: exact.address(),
            });
        // SAFETY: candidates are rows of the points; outputs have k numbers a query, `exact` one.
        unsafe { launch.start() }?;
        indices.download_into(near.indices.as_mut_slice())?;
        cosines.download_into(near.scores.as_mut_slice())?;
        // Many points within the codes' error of each other: these queries are searched for among all, in f32.
        let exact = exact.download(rows)?;
        let open: Vec<u32> = (0..rows as u32).filter(|&i| exact[i as usize] == 0).collect();
        let among_all = topk(&queries.gather(&open), &self.unit, k, Metric::Dot)?;
        for (i, &row) in open.iter().enumerate() {
            near.indices.row_mut(row as usize).copy_from_slice(among_all.indices.row(i));
            near.scores.row_mut(row as usize).copy_from_slice(among_all.scores.row(i));
        }
        Ok(near)
    }
}
