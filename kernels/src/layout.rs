//! The layout kernel of UMAP: points attract along the edges of a weighted graph and repel random others.
//!
//! Its one idea: both ends of an edge are moved in the same instant, each by its own owner. An epoch is cut into
//! slots and each edge belongs to one of them; in a slot every vertex reads all positions as they stood before it,
//! sums the pulls and pushes that are due, and writes only itself. So no atomics are needed and the result has the
//! same bits at any thread count, yet an edge's two ends make exactly opposite steps, as they do in sequential
//! stochastic gradient descent. (That matters: where each vertex moves on its own, in turn, towards neighbours that
//! do not answer, pairs wander about as they approach, and neighbourhoods are kept visibly worse. In a single slot,
//! too many pulls would add up before any is felt.)
//!
//! Formula (McInnes, Healy and Melville, "UMAP", 2018; umap-learn's `optimize_layout_euclidean`), with
//! s = |yᵢ − yⱼ|², each component of each step clipped to ±4 and then times the learning rate α:
//! * an edge i → j of weight w pulls yᵢ by −2ab·s^(b−1) / (1 + a·s^b) · (yᵢ − yⱼ), and yⱼ by the opposite,
//!   w / max w times per epoch;
//! * each time, `negative_samples` random vertices push yᵢ by 2γb / ((0.001 + s)(1 + a·s^b)) · (yᵢ − yₖ).
//!
//! The graph is symmetric, so that a vertex is pulled twice for each time it is pushed. α falls linearly to 0.
//!
//! Shapes: n vertices in up to [`MAX_DIM`] dimensions; the graph as compressed sparse rows. Layout: a vertex a row,
//! padded to a power of two so that no row straddles a cache line; sixteen events that are due are worked on at once,
//! one per vector lane. All arithmetic is f32; powers come from [`powf`]. Random numbers are a hash of (seed, epoch,
//! edge, draw). Cost: Σw / max w · (2 + `negative_samples`) pair interactions per epoch, each a gather of one row
//! and about 60 vector operations per 16 lanes.

use crate::{Device, Error, Matrix, Result};
use std::ops::ControlFlow;

mod lanes;
mod place;
mod schedule;

pub use lanes::{mix64, powf};
use schedule::Schedule;

/// The most dimensions that a layout can have.
pub const MAX_DIM: usize = 64;

/// The curve and the steps of a layout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayoutParams {
    /// The a of the similarity curve 1 / (1 + a·d^2b).
    pub a: f32,
    /// The b of the similarity curve.
    pub b: f32,
    /// γ: how strongly random vertices push.
    pub repulsion_strength: f32,
    /// α of the first epoch.
    pub learning_rate: f32,
    /// Random vertices drawn for each pull.
    pub negative_samples: u32,
    /// How many epochs to run.
    pub epochs: u32,
    /// The seed of all random numbers.
    pub seed: u64,
}

/// A weighted graph as compressed sparse rows.
#[derive(Debug, Clone, Copy)]
pub struct Edges<'a> {
    /// Row `i` holds the entries `offsets[i]..offsets[i + 1]`: one more than there are rows.
    pub offsets: &'a [usize],
    /// The other end of each entry.
    pub targets: &'a [u32],
    /// The weight of each entry, finite, at least 0.
    pub weights: &'a [f32],
}

/// Moves `positions` (n × dim) along the symmetric graph `edges` of n vertices, in place.
///
/// `progress` hears after each epoch how many of how many are done and may break off; the positions are then those
/// of the last epoch. Fails if shapes do not fit, an end of an edge is no vertex, or a start is not finite.
pub fn layout(
    device: Device,
    edges: Edges<'_>,
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
    progress: &dyn Fn(u32, u32) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let Device::Cpu(isa) = device;
    let n = positions.rows();
    check(edges, positions, n)?;
    let schedule = Schedule::new(edges, params.seed);
    Ok(match positions.cols() {
        0..=2 => schedule.run::<2, 2>(isa, positions, params, progress),
        3 => schedule.run::<3, 4>(isa, positions, params, progress),
        4..=5 => schedule.run::<5, 8>(isa, positions, params, progress),
        6..=8 => schedule.run::<8, 8>(isa, positions, params, progress),
        9..=16 => schedule.run::<16, 16>(isa, positions, params, progress),
        17..=32 => schedule.run::<32, 32>(isa, positions, params, progress),
        _ => schedule.run::<MAX_DIM, MAX_DIM>(isa, positions, params, progress),
    })
}

/// Moves new points (`positions`, m × dim) among `fixed` ones (n × dim) that stay where they are, in place.
///
/// Row i of `edges` holds new point i's pulls towards rows of `fixed`; a weight of 1 pulls in every epoch. `keys`
/// names each new point's random stream: a point's result depends on its edges, start and key alone, so it has the
/// same bits in whatever batch it comes. Fails as [`layout`] does.
pub fn place(
    device: Device,
    fixed: &Matrix<f32>,
    edges: Edges<'_>,
    keys: &[u64],
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
) -> Result<()> {
    let Device::Cpu(isa) = device;
    check(edges, positions, fixed.rows())?;
    if keys.len() != positions.rows() || fixed.cols() != positions.cols() {
        return Err(Error::Shape {
            what: "fixed points and keys",
            expected: format!("{} columns and {} keys", positions.cols(), positions.rows()),
            found: format!("{} columns and {} keys", fixed.cols(), keys.len()),
        });
    }
    match positions.cols() {
        0..=2 => place::run::<2, 2>(isa, fixed, edges, keys, positions, params),
        3 => place::run::<3, 4>(isa, fixed, edges, keys, positions, params),
        4..=5 => place::run::<5, 8>(isa, fixed, edges, keys, positions, params),
        6..=8 => place::run::<8, 8>(isa, fixed, edges, keys, positions, params),
        9..=16 => place::run::<16, 16>(isa, fixed, edges, keys, positions, params),
        17..=32 => place::run::<32, 32>(isa, fixed, edges, keys, positions, params),
        _ => place::run::<MAX_DIM, MAX_DIM>(isa, fixed, edges, keys, positions, params),
    }
    Ok(())
}

/// Fails if the graph does not have a row per position, an end is none of `n` points, or a number is not finite.
fn check(edges: Edges<'_>, positions: &Matrix<f32>, n: usize) -> Result<()> {
    let shape = |what, expected: String, found: String| Err(Error::Shape { what, expected, found });
    if positions.cols() == 0 || positions.cols() > MAX_DIM {
        return shape("layout dimensions", format!("1 to {MAX_DIM}"), positions.cols().to_string());
    }
    let most = i32::MAX as usize / positions.cols().next_power_of_two().max(2);
    if n > most {
        return shape("layout vertices", format!("at most {most}"), n.to_string());
    }
    let entries = edges.targets.len();
    let rows_fit = edges.offsets.len() == positions.rows() + 1
        && edges.offsets.first() == Some(&0)
        && edges.offsets.last() == Some(&entries)
        && edges.offsets.is_sorted();
    if !rows_fit || edges.weights.len() != entries {
        return shape(
            "layout graph",
            format!("{} rows over {entries} targets and weights", positions.rows()),
            format!("{} offsets and {} weights", edges.offsets.len(), edges.weights.len()),
        );
    }
    if let Some(target) = edges.targets.iter().find(|&&t| t as usize >= n) {
        return shape("end of an edge", format!("a vertex below {n}"), target.to_string());
    }
    if let Some(at) = edges.weights.iter().position(|w| !w.is_finite()) {
        let row = edges.offsets.partition_point(|&o| o <= at) - 1;
        return Err(Error::NotFinite { row, column: at - edges.offsets[row], value: edges.weights[at] });
    }
    positions.check_finite()
}
