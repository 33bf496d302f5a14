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
//! edge, place among the events due, draw); of the sixteen events at once each is pushed by its own random row and then
//! by the next ones'. Cost: Σw / max w · (2 + `negative_samples`) pair interactions per epoch, about 60 vector
//! operations per 16 lanes each, and three gathered rows for an edge.

use crate::{Device, Error, Matrix, Result};
use std::ops::ControlFlow;

mod due;
mod lanes;
mod place;
mod schedule;
#[cfg(target_arch = "x86_64")]
mod turned;

pub(crate) use lanes::Force;
pub use lanes::{mix64, powf};
pub(crate) use place::stream;
pub(crate) use schedule::{CHUNK, LISTS, Schedule, epoch_key, pace, rate};

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
    device: &Device,
    edges: Edges<'_>,
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
    progress: &dyn Fn(u32, u32) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    if let Some(gpu) = device.gpu() {
        return crate::gpu::layout::layout(gpu, edges, positions, params, progress);
    }
    let isa = device.isa();
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
    device: &Device,
    fixed: &Matrix<f32>,
    edges: Edges<'_>,
    keys: &[u64],
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
) -> Result<()> {
    check_place(fixed, edges, keys, positions)?;
    if let Some(gpu) = device.gpu() {
        return crate::gpu::layout::place(gpu, fixed, edges, keys, positions, params);
    }
    let isa = device.isa();
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

/// Fails if new points do not fit the fixed ones, as [`check`] does.
pub(crate) fn check_place(
    fixed: &Matrix<f32>,
    edges: Edges<'_>,
    keys: &[u64],
    positions: &Matrix<f32>,
) -> Result<()> {
    check(edges, positions, fixed.rows())?;
    if keys.len() == positions.rows() && fixed.cols() == positions.cols() {
        return Ok(());
    }
    Err(Error::Shape {
        what: "fixed points and keys",
        expected: format!("{} columns and {} keys", positions.cols(), positions.rows()),
        found: format!("{} columns and {} keys", fixed.cols(), keys.len()),
    })
}

/// Fails if the graph does not have a row per position, an end is none of `n` points, or a number is not finite.
pub(crate) fn check(edges: Edges<'_>, positions: &Matrix<f32>, n: usize) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    const PARAMS: LayoutParams = LayoutParams {
        a: 1.577,
        b: 0.895,
        repulsion_strength: 1.0,
        learning_rate: 1.0,
        negative_samples: 5,
        epochs: 30,
        seed: 1,
    };

    /// A ring of `n` vertices, each joined to the next two, with weights from 0.1 to 1.
    fn ring(n: u32) -> (Vec<usize>, Vec<u32>, Vec<f32>) {
        let (mut offsets, mut targets, mut weights) = (vec![0], Vec::new(), Vec::new());
        for i in 0..n {
            let mut row: Vec<u32> = [1, 2, n - 1, n - 2].map(|step| (i + step) % n).to_vec();
            row.sort_unstable();
            weights.extend(row.iter().map(|&j| 0.1 + 0.9 * ((i.min(j) * 7 + i.max(j)) % 10) as f32 / 9.0));
            targets.extend(row);
            offsets.push(targets.len());
        }
        (offsets, targets, weights)
    }

    fn start(n: usize, dim: usize) -> Matrix<f32> {
        let values = (0..n * dim).map(|i| (mix64(i as u64) >> 40) as f32 * 2f32.powi(-24) * 10.0).collect();
        Matrix::try_from_vec(n, dim, values).unwrap()
    }

    fn run(device: &Device, dim: usize, params: &LayoutParams) -> Matrix<f32> {
        let (offsets, targets, weights) = ring(600);
        let edges = Edges { offsets: &offsets, targets: &targets, weights: &weights };
        let mut positions = start(600, dim);
        let flow = layout(device, edges, &mut positions, params, &|_, _| ControlFlow::Continue(())).unwrap();
        assert!(flow.is_continue());
        positions
    }

    /// umap-learn's loop in f64 for pulls only, where no random numbers are drawn: all edges due in an epoch, both
    /// ends moved. With one edge a vertex there is nothing to be said about order.
    #[test]
    fn pairs_attract_as_the_formula_says() {
        let params = LayoutParams { negative_samples: 0, epochs: 20, ..PARAMS };
        let weights = [1.0, 1.0, 0.5, 0.5];
        let edges = Edges { offsets: &[0, 1, 2, 3, 4], targets: &[1, 0, 3, 2], weights: &weights };
        let mut positions =
            Matrix::try_from_vec(4, 2, vec![0.0, 0.0, 9.0, 3.0, 0.0, 8.0, -7.0, 1.0]).unwrap();
        let mut wanted: Vec<f64> = positions.as_slice().iter().map(|&v| f64::from(v)).collect();
        let (a, b) = (f64::from(params.a), f64::from(params.b));
        for epoch in 0..20 {
            let alpha = 1.0 - f64::from(epoch) / 20.0;
            for (i, j, period) in [(0, 1, 1), (1, 0, 1), (2, 3, 2), (3, 2, 2)] {
                if epoch == 0 || epoch % period != 0 {
                    continue;
                }
                let delta = [0, 1].map(|d| wanted[2 * i + d] - wanted[2 * j + d]);
                let s = delta[0] * delta[0] + delta[1] * delta[1];
                let scale = -2.0 * a * b * s.powf(b - 1.0) / (1.0 + a * s.powf(b));
                for d in 0..2 {
                    let step = alpha * (scale * delta[d]).clamp(-4.0, 4.0);
                    wanted[2 * i + d] += step;
                    wanted[2 * j + d] -= step;
                }
            }
        }
        // Two directions of an edge can share a slot, which then sums both steps: take a seed where they do not.
        let seed = (0..).find(|&seed| {
            let slot = |i: u64, j: u64| mix64(seed ^ (i << 32 | j)) % 4;
            slot(0, 1) < slot(1, 0) && slot(2, 3) < slot(3, 2)
        });
        let params = LayoutParams { seed: seed.unwrap(), ..params };
        let _ = layout(&Device::cpu(), edges, &mut positions, &params, &|_, _| ControlFlow::Continue(()));
        for (found, wanted) in positions.as_slice().iter().zip(&wanted) {
            // Points that come close overshoot, which magnifies rounding from step to step.
            assert!((f64::from(*found) - wanted).abs() < 1e-3, "{positions:?}, expected {wanted:?}");
        }
    }

    #[test]
    fn without_pushes_the_centre_stays_where_it_is() {
        let positions = run(&Device::cpu(), 2, &LayoutParams { negative_samples: 0, ..PARAMS });
        let centre =
            |m: &Matrix<f32>, d: usize| m.iter_rows().map(|row| f64::from(row[d])).sum::<f64>() / 600.0;
        for d in 0..2 {
            assert!((centre(&positions, d) - centre(&start(600, 2), d)).abs() < 1e-4);
        }
    }

    #[test]
    fn pushes_keep_a_graph_from_collapsing() {
        let spread = |m: &Matrix<f32>| m.as_slice().iter().map(|v| v.abs()).fold(0f32, f32::max);
        let cpu = &Device::cpu();
        let pulled = run(cpu, 2, &LayoutParams { negative_samples: 0, epochs: 400, ..PARAMS });
        let pushed = run(cpu, 2, &LayoutParams { epochs: 400, ..PARAMS });
        assert!(spread(&pushed) > 1.5 * spread(&pulled), "{} and {}", spread(&pushed), spread(&pulled));
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        for dim in [1, 2, 3, 5, 7, 12, 20, 40] {
            let results: Vec<_> =
                Isa::available().into_iter().map(|isa| run(&Device::Cpu(isa), dim, &PARAMS)).collect();
            assert!(results.iter().all(|r| *r == results[0]), "{dim} dimensions");
            assert!(results[0].check_finite().is_ok());
        }
    }

    #[test]
    fn placed_points_come_to_their_neighbours_and_fixed_ones_stay() {
        let fixed = Matrix::try_from_vec(3, 2, vec![0.0, 0.0, 10.0, 0.0, 0.0, 10.0]).unwrap();
        let before = fixed.clone();
        let edges = Edges { offsets: &[0, 1, 2], targets: &[1, 2], weights: &[1.0, 1.0] };
        let mut positions = Matrix::try_from_vec(2, 2, vec![4.0, 4.0, 4.0, 4.0]).unwrap();
        let params = LayoutParams { epochs: 100, ..PARAMS };
        place(&Device::cpu(), &fixed, edges, &[7, 8], &mut positions, &params).unwrap();
        assert_eq!(fixed, before);
        for (i, target) in [(0, 1), (1, 2)] {
            let d: f32 = positions.row(i).iter().zip(fixed.row(target)).map(|(x, y)| (x - y).powi(2)).sum();
            assert!(d.sqrt() < 2.0, "point {i} at {:?}", positions.row(i));
        }
    }

    #[test]
    fn a_graph_that_does_not_fit_is_refused() {
        let cpu = &Device::cpu();
        let refused = |edges: Edges<'_>| {
            let mut positions = start(2, 2);
            layout(cpu, edges, &mut positions, &PARAMS, &|_, _| ControlFlow::Continue(()))
                .unwrap_err()
                .to_string()
        };
        let error = refused(Edges { offsets: &[0, 1, 2], targets: &[1, 2], weights: &[1.0, 1.0] });
        assert!(error.contains("a vertex below 2, found 2"), "{error}");
        let error = refused(Edges { offsets: &[0, 1], targets: &[1], weights: &[1.0] });
        assert!(error.contains("layout graph"), "{error}");
        let error = refused(Edges { offsets: &[0, 1, 2], targets: &[1, 0], weights: &[1.0, f32::NAN] });
        assert!(error.contains("row 1, column 0"), "{error}");
    }

    #[test]
    fn empty_graphs_are_laid_out_at_once() {
        let cpu = &Device::cpu();
        for n in [0, 1, 20] {
            let offsets = vec![0; n + 1];
            let edges = Edges { offsets: &offsets, targets: &[], weights: &[] };
            let mut positions = start(n, 2);
            assert!(layout(cpu, edges, &mut positions, &PARAMS, &|_, _| ControlFlow::Continue(())).is_ok());
            assert_eq!(positions, start(n, 2));
        }
    }
}
