//! Core distances and the minimum spanning tree under mutual reachability on a GPU
//! (`kernels/cuda/spanning_tree.cu`): those of [`crate::core_distances`] and [`crate::minimum_spanning_tree`].
//!
//! The GPU does what takes time, each point's search for its nearest others and for its lightest edge out of its
//! component; components are joined here, once a round.

use super::{Address, Buffer, Gpu, int};
use crate::kd_tree::{KdTree, LANES};
use crate::spanning_tree::{Edge, Forest, Found, Known, check_core, check_min_samples, squared_core};
use crate::{Error, Result};
use std::sync::Arc;

/// The most dimensions: what fits the shared memory of any GPU.
pub const MAX_DIMS: usize = 64;

/// The most neighbours for a core distance, likewise.
pub const MAX_MIN_SAMPLES: usize = 256;

/// Blocks of the tree that make a tile, and its points.
const TILE_BLOCKS: usize = 8;
const TILE: usize = TILE_BLOCKS * LANES;

/// Points that lie in shared memory at once (`LOADED` of spanning_tree.cu).
const LOADED: usize = 32;

/// Numbers that the heaps of a block may have in shared memory: 32 KiB, so that several blocks run on a multiprocessor.
const HEAPS: usize = 4096;

/// The component of a tile whose points belong to several.
const MIXED: u32 = u32::MAX;

/// Ends of edges that were not found, and of those that were not looked for.
const NONE: u32 = u32::MAX;
const SKIPPED: u32 = u32::MAX - 1;

/// `TilesParams` of spanning_tree.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TilesParams {
    coordinates: Address,
    tiles: Address,
    boxes: Address,
    safe: f64,
    points: u32,
    count: u32,
    dims: u32,
    padding: u32,
}

/// `LightestParams` of spanning_tree.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct LightestParams {
    tiles: TilesParams,
    cores: Address,
    components: Address,
    rows: Address,
    tile_cores: Address,
    tile_components: Address,
    tile_rows: Address,
    bounds: Address,
    at_least: Address,
    weights: Address,
    distances: Address,
    ends: Address,
}

/// The points of a kd-tree in a GPU's memory.
struct Tiles {
    /// The positions of each tile.
    ranges: Vec<std::ops::Range<usize>>,
    points: usize,
    dims: usize,
    safe: f64,
    coordinates: Buffer<f32>,
    tiles: Buffer<[u32; 2]>,
    boxes: Buffer<f64>,
}

impl Tiles {
    fn upload(gpu: &Arc<Gpu>, tree: &KdTree) -> Result<Self> {
        let points = tree.rows();
        if tree.dims() > MAX_DIMS || points > i32::MAX as usize {
            return Err(Error::Shape {
                what: "points of a spanning tree on a GPU",
                expected: format!("at most {} in at most {MAX_DIMS} dimensions", i32::MAX),
                found: format!("{points} in {}", tree.dims()),
            });
        }
        let tiles = tree.tiles(TILE_BLOCKS);
        let range = |first: usize, blocks: usize| first * LANES..((first + blocks) * LANES).min(points);
        let bounds: Vec<[u32; 2]> =
            tiles.iter().map(|tile| [int(tile.first) as u32, int(tile.blocks) as u32]).collect();
        let boxes: Vec<f64> = tiles.iter().flat_map(|tile| tile.bounds).copied().collect();
        Ok(Self {
            ranges: tiles.iter().map(|tile| range(tile.first, tile.blocks)).collect(),
            points,
            dims: tree.dims(),
            safe: tree.safe(),
            coordinates: gpu.upload(tree.coordinates())?,
            tiles: gpu.upload(&bounds)?,
            boxes: gpu.upload(&boxes)?,
        })
    }

    fn params(&self) -> TilesParams {
        TilesParams {
            coordinates: self.coordinates.address(),
            tiles: self.tiles.address(),
            boxes: self.boxes.address(),
            safe: self.safe,
            points: int(self.points) as u32,
            count: int(self.ranges.len()) as u32,
            dims: self.dims as u32,
            padding: 0,
        }
    }

    /// Bytes of shared memory of a block (`Shared` of spanning_tree.cu) with `more` numbers a thread.
    fn shared(&self, threads: usize, more: usize) -> usize {
        let numbers = self.dims * LOADED + threads + LOADED + 1 + more * threads;
        size_of::<f64>() * numbers + size_of::<u32>() * (2 * LOADED + self.dims * threads)
    }

    /// What `of_tile` makes of each tile's part of `values`, which stand in the tree's order.
    fn summarise<T, U: bytemuck::Pod>(
        &self,
        gpu: &Arc<Gpu>,
        values: &[T],
        of_tile: impl Fn(&[T]) -> U,
    ) -> Result<Buffer<U>> {
        let of_tiles: Vec<U> = self.ranges.iter().map(|range| of_tile(&values[range.clone()])).collect();
        gpu.upload(&of_tiles)
    }
}

/// Returns each point's distance to its `min_samples`-th nearest *other* point, in row order: bit for bit what
/// [`crate::core_distances`] does.
///
/// # Errors
/// `Shape` where `min_samples` is 0, not less than the number of points or more than [`MAX_MIN_SAMPLES`], and for more
/// than [`MAX_DIMS`] dimensions; what the GPU says where it fails.
pub fn core_distances(gpu: &Arc<Gpu>, tree: &KdTree, min_samples: usize) -> Result<Vec<f64>> {
    check_min_samples(tree, min_samples)?;
    if min_samples > MAX_MIN_SAMPLES {
        return Err(Error::Shape {
            what: "min_samples on a GPU",
            expected: format!("at most {MAX_MIN_SAMPLES}"),
            found: min_samples.to_string(),
        });
    }
    let tiles = Tiles::upload(gpu, tree)?;
    let squared = gpu.allocate::<f64>(tree.rows())?;
    let threads = if TILE * min_samples <= HEAPS {
        TILE
    } else if TILE / 2 * min_samples <= HEAPS {
        TILE / 2
    } else {
        TILE / 4
    };
    let launch = gpu
        .launch("core_distances")
        .grid(tiles.ranges.len(), TILE / threads)
        .block(threads as u32)
        .shared(tiles.shared(threads, min_samples))
        .arg(tiles.params())
        .arg(min_samples as u32)
        .arg(squared.address());
    // SAFETY: the tiles are those of the tree, a number is written for each of its points, and shared memory has the
    // bytes that `Shared` shares out.
    unsafe { launch.start() }?;
    let mut distances = vec![0.0; tree.rows()];
    for (&row, squared) in tree.order().iter().zip(squared.download(tree.rows())?) {
        distances[row as usize] = squared.sqrt();
    }
    Ok(distances)
}

/// Returns the n − 1 edges of the minimum spanning tree under mutual reachability as
/// [`crate::minimum_spanning_tree`] does, in the same order.
///
/// Of edges that are equally heavy and whose ends are equally far apart, the one with the smaller rows comes first,
/// so that the tree is always the same.
///
/// # Errors
/// `Shape` where `core` is not a distance for each point, and for more than [`MAX_DIMS`] dimensions; what the GPU says
/// where it fails.
pub fn minimum_spanning_tree(gpu: &Arc<Gpu>, tree: &KdTree, core: &[f64]) -> Result<Vec<Edge>> {
    check_core(tree, core)?;
    let n = tree.rows();
    let mut forest = Forest::new(tree);
    if n < 2 {
        return Ok(forest.into_edges());
    }
    let tiles = Tiles::upload(gpu, tree)?;
    let core = squared_core(tree, core);
    let smallest_core = |cores: &[f64]| cores.iter().copied().fold(f64::INFINITY, f64::min);
    let tile_cores = tiles.summarise(gpu, &core, smallest_core)?;
    let smallest_row = |rows: &[u32]| rows.iter().copied().fold(u32::MAX, u32::min);
    let tile_rows = tiles.summarise(gpu, tree.order(), smallest_row)?;
    let (cores, rows) = (gpu.upload(&core)?, gpu.upload(tree.order())?);
    let (at_least, ends) = (gpu.zeros::<f64>(n)?, gpu.allocate::<u32>(n)?);
    let (weights, distances) = (gpu.zeros::<f64>(n)?, gpu.zeros::<f64>(n)?);
    let mut known = vec![Known::default(); n];
    while forest.components > 1 {
        let components = gpu.upload(&forest.component)?;
        let one = |of: &[u32]| if of.iter().all(|c| c == &of[0]) { of[0] } else { MIXED };
        let tile_components = tiles.summarise(gpu, &forest.component, one)?;
        let bounds: Vec<u64> = forest.bounds(&known).into_iter().map(f64::to_bits).collect();
        let bounds = gpu.upload(&bounds)?;
        let params = LightestParams {
            tiles: tiles.params(),
            cores: cores.address(),
            components: components.address(),
            rows: rows.address(),
            tile_cores: tile_cores.address(),
            tile_components: tile_components.address(),
            tile_rows: tile_rows.address(),
            bounds: bounds.address(),
            at_least: at_least.address(),
            weights: weights.address(),
            distances: distances.address(),
            ends: ends.address(),
        };
        let launch = gpu
            .launch("lightest_edges")
            .grid(tiles.ranges.len(), 1)
            .block(TILE as u32)
            .shared(tiles.shared(TILE, 0))
            .arg(params);
        // SAFETY: the tiles are those of the tree, all else has a number for each of its points, tiles or components,
        // and shared memory has the bytes that `Shared` shares out.
        unsafe { launch.start() }?;
        let (weights, distances) = (weights.download(n)?, distances.download(n)?);
        let mut found = Vec::new();
        for (from, &to) in ends.download(n)?.iter().enumerate() {
            match to {
                SKIPPED => {}
                NONE => known[from].end = None,
                _ => {
                    known[from] = Known { at_least: weights[from], end: Some(to) };
                    let (weight, distance) = (weights[from], distances[from]);
                    found.push(Found { weight, distance, from: from as u32, to });
                }
            }
        }
        let before = forest.components;
        forest.join_lightest(found.into_iter());
        if forest.components == before {
            // Every component has an edge to another one: rather an error than a loop without an end.
            let reason = "it found no edge between components".into();
            return Err(Error::Gpu { what: "lightest_edges", reason });
        }
    }
    Ok(forest.into_edges())
}
