//! Which edge moves which vertex when, and the epochs that follow that schedule.

use super::{
    Edges, LayoutParams,
    due::{Due, PLANNED, Plan},
    lanes::{Force, LANES, Points, Pushing, add_pull, add_push, mix64, random_rows, spread},
};
use crate::{Isa, Matrix, simd::dispatch};
use rayon::prelude::*;
use std::ops::ControlFlow;

/// The fewest and the most slots that an epoch is cut into. From 4 on the quality is that of sequential steps (5,000
/// rows, 15 neighbours), where a vertex has seven pulls an epoch.
const SLOTS: std::ops::RangeInclusive<usize> = 4..=MOST_SLOTS;

/// See [`SLOTS`].
const MOST_SLOTS: usize = 8;

/// Pulls of a vertex in a slot. Of 25,000 abstracts with 100 neighbours, a vertex has eleven pulls an epoch; 4 slots
/// then keep neighbourhoods a little worse than 8 (trustworthiness .9645 and .968).
const PULLS: f64 = 1.75;

/// Lists of events that a chunk has: its slots' heads and tails, those of slots that there are not being empty.
pub(crate) const LISTS: usize = 2 * MOST_SLOTS;

/// Vertices that one task owns: enough events to fill the lanes in a slot, few enough to keep every core busy, and
/// to name each by a byte.
pub(crate) const CHUNK: usize = 256;

/// Every edge's events, in the order in which they are looked at.
///
/// An edge i → j stands here twice: with i's chunk as a head, where it pulls i and others push i, and with j's chunk
/// as a tail, where it pulls j.
pub(crate) struct Schedule {
    pub(crate) slots: usize,
    /// Where the events of each (chunk, slot, head or tail) start, in that order; one more than there are of them.
    pub(crate) starts: Vec<usize>,
    /// The vertex that moves (counted from its chunk's first), the other end, and the pace of each event.
    pub(crate) rows: Vec<u8>,
    pub(crate) others: Vec<u32>,
    pub(crate) paces: Vec<u32>,
}

/// A list of events: all have the same length.
#[derive(Clone, Copy)]
pub(super) struct Events<'a> {
    pub(super) rows: &'a [u8],
    pub(super) others: &'a [u32],
    pub(super) paces: &'a [u32],
}

impl Schedule {
    /// Schedules the events of a symmetric graph.
    pub(crate) fn new(edges: Edges<'_>, seed: u64) -> Self {
        let n = edges.offsets.len() - 1;
        let max = edges.weights.iter().copied().fold(0.0, f32::max);
        let pulls: f64 =
            edges.weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() / (f64::from(max) * n as f64);
        // Where there are no edges, that is no number and counts as 0.
        let slots = ((pulls / PULLS).ceil() as usize).clamp(*SLOTS.start(), *SLOTS.end());
        let slot = |from: u32, to: u32| mix64(seed ^ edge(from, to)) as usize % slots;
        // The graph is symmetric, so that a chunk's own rows name all the events that move its vertices.
        let chunk = |first: usize| {
            let mut lists = vec![Vec::new(); LISTS];
            for i in first..(first + CHUNK).min(n) {
                let row = i as u32; // `super::check` made sure that rows fit
                let range = edges.offsets[i]..edges.offsets[i + 1];
                for (&other, &weight) in edges.targets[range.clone()].iter().zip(&edges.weights[range]) {
                    let event = ((i - first) as u8, other, pace(weight, max));
                    lists[2 * slot(row, other)].push(event);
                    lists[2 * slot(other, row) + 1].push(event);
                }
            }
            lists
        };
        let chunks: Vec<_> = (0..n.div_ceil(CHUNK)).into_par_iter().map(|c| chunk(c * CHUNK)).collect();
        let mut schedule =
            Self { slots, starts: vec![0], rows: Vec::new(), others: Vec::new(), paces: Vec::new() };
        for list in chunks.iter().flatten() {
            schedule.rows.extend(list.iter().map(|event| event.0));
            schedule.others.extend(list.iter().map(|event| event.1));
            schedule.paces.extend(list.iter().map(|event| event.2));
            schedule.starts.push(schedule.rows.len());
        }
        schedule
    }

    /// The lists of a chunk's events.
    fn lists(&self, chunk: usize) -> [Events<'_>; LISTS] {
        std::array::from_fn(|list| {
            let bounds = &self.starts[chunk * LISTS + list..];
            let range = bounds[0]..bounds[1];
            Events {
                rows: &self.rows[range.clone()],
                others: &self.others[range.clone()],
                paces: &self.paces[range],
            }
        })
    }

    /// Runs all epochs in `D` ≥ dim dimensions (the further ones stay 0 and change nothing), rows padded to `S`.
    pub(super) fn run<const D: usize, const S: usize>(
        &self,
        isa: Isa,
        positions: &mut Matrix<f32>,
        params: &LayoutParams,
        progress: &dyn Fn(u32, u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut points = padded::<S>(positions);
        let mut moved = points.clone();
        let force = &Force::new(params);
        let mut flow = ControlFlow::Continue(());
        let mut plans = vec![Plan::default(); points.len().div_ceil(CHUNK)];
        for epoch in 0..params.epochs {
            let ahead = epoch as usize % PLANNED;
            if ahead == 0 {
                plans
                    .par_iter_mut()
                    .enumerate()
                    .for_each(|(chunk, plan)| plan.make(isa, self.lists(chunk), epoch));
            }
            let alpha = rate(params, epoch);
            let key = epoch_key(params, epoch);
            for slot in 0..self.slots {
                let frozen = Points { isa, rows: &points };
                moved.par_chunks_mut(CHUNK).zip(&plans).enumerate().for_each(|(chunk, (moved, plan))| {
                    let turn = &Turn { alpha, key, first: chunk * CHUNK };
                    let due = &plan.epochs[ahead];
                    // Lists come from far away, and the next chunk's turn is likely this thread's.
                    if let Some(next) = plans.get(chunk + 1) {
                        next.epochs[ahead].prefetch(slot);
                    }
                    moved.copy_from_slice(&frozen.rows[turn.first..turn.first + moved.len()]);
                    dispatch!(isa, move_chunk::<D, S>(
                        turn: &Turn,
                        force: &Force,
                        due: &Due,
                        slot: usize,
                        frozen: Points<'_, S>,
                        moved: &mut [[f32; S]],
                    ));
                });
                std::mem::swap(&mut points, &mut moved);
            }
            flow = progress(epoch + 1, params.epochs);
            if flow.is_break() {
                break;
            }
        }
        unpad(&points, positions);
        flow
    }
}

/// The learning rate of `epoch`: falls linearly, and would reach 0 one epoch past the last.
pub(crate) fn rate(params: &LayoutParams, epoch: u32) -> f32 {
    params.learning_rate * (1.0 - epoch as f32 / params.epochs as f32)
}

/// The key of an epoch's random numbers.
pub(crate) fn epoch_key(params: &LayoutParams, epoch: u32) -> u64 {
    mix64(params.seed ^ mix64(u64::from(epoch)))
}

/// How fast an edge's counter runs: it passes a multiple of 2³¹ each time that the edge is due.
pub(crate) fn pace(weight: f32, max: f32) -> u32 {
    // At most 2³¹: `as` saturates and turns 0 / 0 into 0.
    ((f64::from(weight) / f64::from(max)).clamp(0.0, 1.0) * 2f64.powi(31)) as u32
}

/// 1 if an edge of this pace is due in `epoch`: as in umap-learn, first when a whole period has passed.
#[inline(always)]
pub(super) fn is_due(pace: u32, epoch: u32) -> u32 {
    // In epoch 0 the counter has not moved.
    (pace.wrapping_mul(epoch) ^ pace.wrapping_mul(epoch.saturating_sub(1))) >> 31
}

/// Copies positions into rows of `S` columns, padded with zeros.
pub(super) fn padded<const S: usize>(positions: &Matrix<f32>) -> Vec<[f32; S]> {
    positions.iter_rows().map(|row| std::array::from_fn(|d| row.get(d).copied().unwrap_or(0.0))).collect()
}

/// Copies padded rows back.
pub(super) fn unpad<const S: usize>(points: &[[f32; S]], positions: &mut Matrix<f32>) {
    let dim = positions.cols();
    for (i, point) in points.iter().enumerate() {
        positions.row_mut(i).copy_from_slice(&point[..dim]);
    }
}

/// Names the edge from → to.
#[inline(always)]
fn edge(from: u32, to: u32) -> u64 {
    u64::from(from) << 32 | u64::from(to)
}

/// What a chunk's turn in one slot is about.
struct Turn {
    alpha: f32,
    /// The key of the epoch's random numbers.
    key: u64,
    /// The first vertex of the chunk.
    first: usize,
}

/// Moves one chunk's vertices, which `moved` holds, by its events of a slot; all positions are read from `frozen`.
#[inline(always)]
fn move_chunk<const D: usize, const S: usize>(
    turn: &Turn,
    force: &Force,
    due: &Due,
    slot: usize,
    frozen: Points<'_, S>,
    moved: &mut [[f32; S]],
) {
    for (list, pushes) in [(2 * slot, force.negatives), (2 * slot + 1, 0)] {
        let (locals, all, count) = due.list(list);
        for (batch, (locals, others)) in locals.iter().zip(all).enumerate() {
            let rows = &locals.map(|local| turn.first as u32 + u32::from(local));
            let keys = &keys(turn, list, batch, rows, others);
            // What is read next is on its way while this is worked on.
            let mut drawn = [0; LANES];
            if pushes > 0 {
                drawn = random_rows(0, keys, frozen.len());
                frozen.prefetch(&drawn);
            }
            if let Some(others) = all.get(batch + 1) {
                frozen.prefetch(others);
            }
            let here = frozen.gather::<D>(rows);
            let mut step = [[0f32; LANES]; D];
            add_pull::<D, S>(force, frozen, &here, others, &mut step);
            for first in (0..pushes).step_by(LANES) {
                if first > 0 {
                    drawn = random_rows(first, keys, frozen.len());
                }
                let mut pushing = Pushing::new(drawn, frozen);
                for _ in first..pushes.min(first + LANES as u32) {
                    add_push(force, &here, rows, &pushing, &mut step);
                    pushing.turn();
                }
            }
            let steps = spread::<D, S>(frozen.isa, &step);
            for (local, step) in locals.iter().zip(&steps).take(count - batch * LANES) {
                for (value, step) in moved[usize::from(*local)].iter_mut().zip(step) {
                    *value = step.mul_add(turn.alpha, *value);
                }
            }
        }
    }
}

/// The keys of the random numbers of a batch: of its edges, and of their places in it, so that lanes without an edge,
/// whose rows the others are given too, draw different ones.
#[inline(always)]
fn keys(turn: &Turn, list: usize, batch: usize, rows: &[u32; LANES], others: &[u32; LANES]) -> [u64; LANES] {
    let mut keys = [0u64; LANES];
    for l in 0..LANES {
        let place = (list << 32 | (batch * LANES + l)) as u64;
        keys[l] = mix64(turn.key ^ edge(rows[l], others[l]) ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_without_an_edge_draw_rows_of_their_own() {
        let turn = Turn { alpha: 1.0, key: 7, first: 256 };
        // Fifteen idle lanes, all of them the chunk's first vertex and row 0, in two slots.
        let mut drawn: Vec<u32> = [0, 2]
            .into_iter()
            .flat_map(|list| random_rows(0, &keys(&turn, list, 3, &[256; LANES], &[0; LANES]), 1 << 31))
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 2 * LANES);
    }
}
