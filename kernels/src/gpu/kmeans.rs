//! The passes of [`crate::kmeans`] on a GPU (`kernels/cuda/kmeans.cu`): the same bits as on the processor.

use super::{Address, Buffer, Gpu, int};
use crate::kmeans::{BLOCK, MAX_CANDIDATES, Members, Passes, Seeding, half_squared_lengths};
use crate::{Isa, Matrix, Result};
use std::sync::Arc;

/// Centroids that a block of points is multiplied by at a time.
pub(super) const COLUMNS: usize = 128;

/// Floats of a row in shared memory (`PITCH` of kmeans.cu).
pub(super) const PITCH: usize = 20;

/// Threads of a block that multiplies, and of one that sums.
const MULTIPLYING: u32 = 256;
const SUMMING: u32 = 128;

/// `PointsParams` of kmeans.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PointsParams {
    points: Address,
    count: u32,
    stride: u32,
}

/// `NearestParams` of kmeans.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct NearestParams {
    points: PointsParams,
    centroids: Address,
    halves: Address,
    nearest: Address,
    second: Address,
    clusters: u32,
    padding: u32,
}

/// `ConsiderParams` of kmeans.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ConsiderParams {
    points: PointsParams,
    squared_lengths: Address,
    candidates: Address,
    before: Address,
    before_count: u32,
    chosen: u32,
    considered: Address,
    sums: Address,
    count: u32,
    padding: u32,
}

/// `SumsParams` of kmeans.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SumsParams {
    points: PointsParams,
    order: Address,
    segments: Address,
    clusters: Address,
    partial: Address,
    sums: Address,
    dims: u32,
    padding: u32,
}

/// The squared distances of all points to their nearest seeds, with each of some candidates: blocks × candidates ×
/// points of a block.
struct Considered {
    distances: Buffer<f32>,
    count: usize,
    chosen: usize,
}

/// Points in the memory of a GPU, and what passes leave for the next.
pub(crate) struct Points {
    gpu: Arc<Gpu>,
    rows: usize,
    dims: usize,
    stride: usize,
    points: Buffer<f32>,
    squared_lengths: Buffer<f32>,
    found: [Buffer<u32>; 2],
    /// After the last choice of a seed; nothing before the first.
    considered: Option<Considered>,
}

impl Points {
    /// Uploads points and their squared lengths.
    pub(crate) fn upload(gpu: &Arc<Gpu>, points: &Matrix<f32>, squared_lengths: Vec<f32>) -> Result<Self> {
        let (rows, dims) = (points.rows(), points.cols());
        Ok(Self {
            gpu: Arc::clone(gpu),
            rows,
            dims,
            stride: dims.next_multiple_of(4),
            points: upload_padded(gpu, points)?,
            squared_lengths: gpu.upload(&squared_lengths)?,
            found: [gpu.allocate(rows)?, gpu.allocate(rows)?],
            considered: None,
        })
    }

    fn params(&self) -> PointsParams {
        PointsParams {
            points: self.points.address(),
            count: int(self.rows) as u32,
            stride: int(self.stride) as u32,
        }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Finds the nearest centroids of each point by `kernel`.
    fn race(&self, kernel: &'static str, centroids: &Matrix<f32>) -> Result<()> {
        let halves: Vec<f32> = half_squared_lengths(Isa::detect(), centroids).collect();
        let (centroids, halves) = (upload_padded(&self.gpu, centroids)?, self.gpu.upload(&halves)?);
        let params = NearestParams {
            points: self.params(),
            centroids: centroids.address(),
            halves: halves.address(),
            nearest: self.found[0].address(),
            second: self.found[1].address(),
            clusters: int(halves.len()) as u32,
            padding: 0,
        };
        let launch = self
            .gpu
            .launch(kernel)
            .grid(self.blocks(), 1)
            .block(MULTIPLYING)
            .shared(shared(COLUMNS))
            .arg(params);
        // SAFETY: points and centroids have `stride` numbers a row, and what is written has a number for each point.
        unsafe { launch.start() }
    }
}

/// Uploads rows, padded with zeros to whole multiples of four numbers.
fn upload_padded(gpu: &Arc<Gpu>, rows: &Matrix<f32>) -> Result<Buffer<f32>> {
    let (dims, stride) = (rows.cols(), rows.cols().next_multiple_of(4));
    if dims == stride {
        return gpu.upload(rows.as_slice());
    }
    let mut padded = vec![0f32; rows.rows() * stride];
    for (to, from) in padded.chunks_exact_mut(stride).zip(rows.iter_rows()) {
        to[..dims].copy_from_slice(from);
    }
    gpu.upload(&padded)
}

/// Bytes of shared memory of a block that multiplies points by `columns` others: two parts of each.
fn shared(columns: usize) -> usize {
    2 * (BLOCK + columns) * PITCH * size_of::<f32>()
}

impl Passes for Points {
    fn nearest(&mut self, centroids: &Matrix<f32>) -> Result<Vec<u32>> {
        self.race("kmeans_nearest", centroids)?;
        self.found[0].download(self.rows)
    }

    fn nearest_two(&mut self, centroids: &Matrix<f32>) -> Result<[Vec<u32>; 2]> {
        self.race("kmeans_nearest_two", centroids)?;
        Ok([self.found[0].download(self.rows)?, self.found[1].download(self.rows)?])
    }

    fn sums(&mut self, members: &Members) -> Result<Vec<f64>> {
        let (segments, clusters) = (members.segments.len() - 1, members.clusters.len() - 1);
        let order = self.gpu.upload(&members.order)?;
        let (first_members, first_segments) =
            (self.gpu.upload(&members.segments)?, self.gpu.upload(&members.clusters)?);
        let partial = self.gpu.allocate::<f64>(segments * self.dims)?;
        let sums = self.gpu.allocate::<f64>(clusters * self.dims)?;
        let params = SumsParams {
            points: self.params(),
            order: order.address(),
            segments: first_members.address(),
            clusters: first_segments.address(),
            partial: partial.address(),
            sums: sums.address(),
            dims: int(self.dims) as u32,
            padding: 0,
        };
        for (kernel, blocks) in [("kmeans_segments", segments), ("kmeans_clusters", clusters)] {
            let launch = self.gpu.launch(kernel).grid(blocks, 1).block(SUMMING).arg(params);
            // SAFETY: `Members` are rows of the points, in segments of clusters; there is room for the sums of each.
            unsafe { launch.start() }?;
        }
        sums.download(clusters * self.dims)
    }
}

impl Seeding for Points {
    fn forget_seeds(&mut self) {
        self.considered = None;
    }

    fn consider(&mut self, candidates: &[u32]) -> Result<Matrix<f64>> {
        let (blocks, count) = (self.blocks(), candidates.len());
        assert!(count <= MAX_CANDIDATES && candidates.iter().all(|row| (*row as usize) < self.rows));
        let candidates = self.gpu.upload(candidates)?;
        let distances = self.gpu.allocate::<f32>(blocks * count * BLOCK)?;
        let sums = self.gpu.allocate::<f64>(blocks * count)?;
        let before = self.considered.as_ref();
        let params = ConsiderParams {
            points: self.params(),
            squared_lengths: self.squared_lengths.address(),
            candidates: candidates.address(),
            before: before.map_or(Address(0), |before| before.distances.address()),
            before_count: before.map_or(0, |before| before.count) as u32,
            chosen: before.map_or(0, |before| before.chosen) as u32,
            considered: distances.address(),
            sums: sums.address(),
            count: count as u32,
            padding: 0,
        };
        let (kernel, columns) = match count {
            0..=8 => ("kmeans_consider_8", 8),
            9..=16 => ("kmeans_consider_16", 16),
            _ => ("kmeans_consider_32", MAX_CANDIDATES),
        };
        let launch =
            self.gpu.launch(kernel).grid(blocks, 1).block(MULTIPLYING).shared(shared(columns)).arg(params);
        // SAFETY: candidates are rows of the points, what is written has room for all of them in each block, and what
        // is read had its own count.
        unsafe { launch.start() }?;
        let sums = sums.download(blocks * count)?;
        self.considered = Some(Considered { distances, count, chosen: 0 });
        Matrix::try_from_vec(blocks, count, sums)
    }

    fn choose(&mut self, candidate: usize) {
        if let Some(considered) = &mut self.considered {
            assert!(candidate < considered.count);
            considered.chosen = candidate;
        }
    }

    fn to_seeds(&self, block: usize) -> Result<Vec<f32>> {
        let mut distances = vec![0f32; BLOCK];
        if let Some(Considered { distances: of_all, count, chosen }) = &self.considered {
            of_all.download_from((block * count + chosen) * BLOCK, &mut distances)?;
        }
        Ok(distances)
    }
}
