//! The layout of UMAP on a GPU (`kernels/cuda/layout.cu`): bit for bit that of [`crate::layout`].

use super::{Address, Buffer, Gpu, int};
use crate::layout::{
    CHUNK, Edges, Force, LISTS, LayoutParams, Schedule, check, check_place, epoch_key, pace, rate, stream,
};
use crate::{Error, Matrix, Result};
use std::ops::ControlFlow;
use std::sync::Arc;

/// New points of a block, a thread each.
const PLACED: usize = 128;

/// Due events that wait in a block, numbers of 4 bytes (`RING` of layout.cu).
const RING: usize = 2048;

/// `LayoutForce` of layout.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ForceParams {
    a: f32,
    b: f32,
    pull: f32,
    push: f32,
    negatives: u32,
    rows: u32,
    points: Address,
}

impl ForceParams {
    fn new(params: &LayoutParams, points: &Buffer<f32>, rows: usize) -> Self {
        let Force { a, b, pull, push, negatives } = Force::new(params);
        Self { a, b, pull, push, negatives, rows: int(rows) as u32, points: points.address() }
    }
}

/// `LayoutParams` of layout.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    force: ForceParams,
    starts: Address,
    locals: Address,
    others: Address,
    paces: Address,
    moved: Address,
    key: u64,
    lists: u32,
    list: u32,
    epoch: u32,
    alpha: f32,
}

/// `PlaceParams` of layout.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PlaceParams {
    force: ForceParams,
    offsets: Address,
    targets: Address,
    paces: Address,
    keys: Address,
    alphas: Address,
    placed: Address,
    count: u32,
    epochs: u32,
}

/// A kernel's width: it takes up to `dims` dimensions, in rows `stride` numbers apart.
struct Width {
    dims: usize,
    stride: usize,
    layout: &'static str,
    place: &'static str,
}

impl Width {
    fn of(dims: usize) -> Self {
        match dims {
            0..=2 => Self { dims: 2, stride: 2, layout: "layout_2", place: "place_2" },
            3..=5 => Self { dims: 5, stride: 8, layout: "layout_5", place: "place_5" },
            6..=16 => Self { dims: 16, stride: 16, layout: "layout_16", place: "place_16" },
            _ => Self { dims: 64, stride: 64, layout: "layout_64", place: "place_64" },
        }
    }

    /// Uploads positions, their rows padded with zeros.
    fn upload(&self, gpu: &Arc<Gpu>, positions: &Matrix<f32>) -> Result<Buffer<f32>> {
        let mut padded = vec![0f32; positions.rows() * self.stride];
        for (to, from) in padded.chunks_exact_mut(self.stride).zip(positions.iter_rows()) {
            to[..from.len()].copy_from_slice(from);
        }
        gpu.upload(&padded)
    }

    /// Waits for all work and copies positions back.
    fn download(&self, from: &Buffer<f32>, positions: &mut Matrix<f32>) -> Result<()> {
        let padded = from.download(positions.rows() * self.stride)?;
        let dim = positions.cols();
        for (i, row) in padded.chunks_exact(self.stride).enumerate() {
            positions.row_mut(i).copy_from_slice(&row[..dim]);
        }
        Ok(())
    }
}

/// Moves `positions` (n × dim) along the symmetric graph `edges` of n vertices, in place, as [`crate::layout::layout`]
/// does.
///
/// `progress` hears after each epoch how many of how many are done, and may break off. Fails as the processor's does,
/// and where the GPU fails or has too little memory (18 bytes an entry of the graph, and the positions twice).
pub fn layout(
    gpu: &Arc<Gpu>,
    edges: Edges<'_>,
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
    progress: &dyn Fn(u32, u32) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let n = positions.rows();
    check(edges, positions, n)?;
    let schedule = Schedule::new(edges, params.seed);
    if schedule.starts.windows(2).any(|bounds| bounds[1] - bounds[0] > i32::MAX as usize) {
        return Err(Error::Shape {
            what: "edges of a chunk's vertices on a GPU",
            expected: format!("at most {}", i32::MAX),
            found: "more".into(),
        });
    }
    let width = Width::of(positions.cols());
    let mut points = width.upload(gpu, positions)?;
    let mut moved = gpu.allocate::<f32>(points.len())?;
    let starts: Vec<u64> = schedule.starts.iter().map(|&start| start as u64).collect();
    let starts = gpu.upload(&starts)?;
    let (locals, others) = (gpu.upload(&schedule.rows)?, gpu.upload(&schedule.others)?);
    let paces = gpu.upload(&schedule.paces)?;
    let shared = 4 * (width.dims * CHUNK + RING + CHUNK + CHUNK / 32);
    let mut flow = ControlFlow::Continue(());
    for epoch in 0..params.epochs {
        for slot in 0..schedule.slots {
            let launch = Params {
                force: ForceParams::new(params, &points, n),
                starts: starts.address(),
                locals: locals.address(),
                others: others.address(),
                paces: paces.address(),
                moved: moved.address(),
                key: epoch_key(params, epoch),
                lists: LISTS as u32,
                list: 2 * slot as u32,
                epoch,
                alpha: rate(params, epoch),
            };
            let launch = gpu
                .launch(width.layout)
                .grid(n.div_ceil(CHUNK), 1)
                .block(CHUNK as u32)
                .shared(shared)
                .arg(launch);
            // SAFETY: `check` and `Schedule` made sure that events name vertices; both buffers of positions have them
            // all, and the starts of all chunks' lists are there.
            unsafe { launch.start() }?;
            std::mem::swap(&mut points, &mut moved);
        }
        // An epoch counts as done when it is.
        gpu.synchronize()?;
        flow = progress(epoch + 1, params.epochs);
        if flow.is_break() {
            break;
        }
    }
    width.download(&points, positions)?;
    Ok(flow)
}

/// Moves new points (`positions`, m × dim) among `fixed` ones (n × dim) that stay where they are, in place, as
/// [`crate::layout::place`] does.
///
/// Fails as the processor's does, and where the GPU fails or has too little memory.
pub fn place(
    gpu: &Arc<Gpu>,
    fixed: &Matrix<f32>,
    edges: Edges<'_>,
    keys: &[u64],
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
) -> Result<()> {
    check_place(fixed, edges, keys, positions)?;
    let width = Width::of(positions.cols());
    let (points, placed) = (width.upload(gpu, fixed)?, width.upload(gpu, positions)?);
    let offsets: Vec<u64> = edges.offsets.iter().map(|&offset| offset as u64).collect();
    let paces: Vec<u32> = edges.weights.iter().map(|&weight| pace(weight, 1.0)).collect();
    let keys: Vec<u64> = keys.iter().map(|&key| stream(params, key)).collect();
    let alphas: Vec<f32> = (0..params.epochs).map(|epoch| rate(params, epoch)).collect();
    let (offsets, targets) = (gpu.upload(&offsets)?, gpu.upload(edges.targets)?);
    let (paces, keys, alphas) = (gpu.upload(&paces)?, gpu.upload(&keys)?, gpu.upload(&alphas)?);
    let launch = PlaceParams {
        force: ForceParams::new(params, &points, fixed.rows()),
        offsets: offsets.address(),
        targets: targets.address(),
        paces: paces.address(),
        keys: keys.address(),
        alphas: alphas.address(),
        placed: placed.address(),
        count: int(positions.rows()) as u32,
        epochs: params.epochs,
    };
    let blocks = positions.rows().div_ceil(PLACED);
    let launch = gpu.launch(width.place).grid(blocks, 1).block(PLACED as u32).arg(launch);
    // SAFETY: `check_place` made sure that targets name fixed points, and that there are an offset and a key for each
    // new one; there are as many rates as epochs.
    unsafe { launch.start() }?;
    width.download(&placed, positions)
}
