//! New points among fixed ones: each is its own owner's alone, so sixteen move in step, a lane each, one edge after
//! another on their own moving positions.

use super::{
    Edges, LayoutParams,
    lanes::{Force, LANES, Points, Pushing, add_pull, add_push, mix64, random_rows},
    schedule::{is_due, pace, padded, rate, unpad},
};
use crate::{Isa, Matrix, simd::dispatch};
use rayon::prelude::*;

/// Runs all epochs for each group of new points; see [`super::place`], which has checked the shapes.
pub(super) fn run<const D: usize, const S: usize>(
    isa: Isa,
    fixed: &Matrix<f32>,
    edges: Edges<'_>,
    keys: &[u64],
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
) {
    let points = padded::<S>(fixed);
    let mut rows = padded::<S>(positions);
    let paces: Vec<u32> = edges.weights.iter().map(|&w| pace(w, 1.0)).collect();
    let force = Force::new(params);
    rows.par_chunks_mut(LANES).enumerate().for_each_init(Vec::new, |due, (group, rows)| {
        let first = group * LANES;
        let keys = std::array::from_fn(|l| keys.get(first + l).map_or(0, |&key| stream(params, key)));
        let edges = Rows { offsets: &edges.offsets[first..], targets: edges.targets, paces: &paces };
        let (force, points) = (&force, Points { isa, rows: &points });
        for epoch in 0..params.epochs {
            let turn = &Turn { epoch, alpha: rate(params, epoch), keys: &keys };
            let (edges, due, rows) = (&edges, &mut *due, &mut *rows);
            dispatch!(isa, move_group::<D, S>(
                turn: &Turn<'_>,
                force: &Force,
                edges: &Rows<'_>,
                points: Points<'_, S>,
                due: &mut Vec<[u32; LANES]>,
                rows: &mut [[f32; S]],
            ));
        }
    });
    unpad(&rows, positions);
}

/// The key of a new point's random numbers.
pub(crate) fn stream(params: &LayoutParams, key: u64) -> u64 {
    mix64(params.seed ^ mix64(key))
}

/// What a group's turn in one epoch is about.
struct Turn<'a> {
    epoch: u32,
    alpha: f32,
    /// The key of each lane's random stream.
    keys: &'a [u64; LANES],
}

/// The edges of a group: row l is lane l's.
struct Rows<'a> {
    offsets: &'a [usize],
    targets: &'a [u32],
    paces: &'a [u32],
}

/// Moves the new points `rows` (at most [`LANES`]) for one epoch among `points`; `due` is scratch.
#[inline(always)]
fn move_group<const D: usize, const S: usize>(
    turn: &Turn<'_>,
    force: &Force,
    edges: &Rows<'_>,
    points: Points<'_, S>,
    due: &mut Vec<[u32; LANES]>,
    rows: &mut [[f32; S]],
) {
    let counts = collect_due(turn.epoch, edges, rows.len(), due);
    let events = counts.iter().copied().max().unwrap_or(0);
    let mut here = [[0f32; LANES]; D];
    for (l, row) in rows.iter().enumerate() {
        for d in 0..D {
            here[d][l] = row[d];
        }
    }
    let keys = turn.keys.map(|key| mix64(key ^ u64::from(turn.epoch)));
    // A new point is none of the rows that push.
    let own = [u32::MAX; LANES];
    for event in 0..events {
        let mut active = [0u32; LANES];
        let mut target = [0u32; LANES];
        for l in 0..LANES {
            active[l] = u32::from(event < counts[l]);
            target[l] = due[event as usize][l] * active[l];
        }
        let mut step = [[0f32; LANES]; D];
        add_pull::<D, S>(force, points, &here, &target, &mut step);
        take_step(turn.alpha, &step, &active, &mut here);
        // The pushes of one event all start from where the pull led, so that they do not wait for each other.
        let mut step = [[0f32; LANES]; D];
        for k in 0..force.negatives {
            let rows = random_rows(event * force.negatives + k, &keys, points.len());
            add_push(force, &here, &own, &Pushing::new(rows, points), &mut step);
        }
        take_step(turn.alpha, &step, &active, &mut here);
    }
    for (l, row) in rows.iter_mut().enumerate() {
        for d in 0..D {
            row[d] = here[d][l];
        }
    }
}

/// Lists the targets that are due for each of the first `lanes` lanes, in `due[..count][lane]`; returns the counts.
#[inline(always)]
fn collect_due(epoch: u32, edges: &Rows<'_>, lanes: usize, due: &mut Vec<[u32; LANES]>) -> [u32; LANES] {
    let mut counts = [0u32; LANES];
    for (l, ends) in edges.offsets.windows(2).take(lanes).enumerate() {
        let (targets, paces) = (&edges.targets[ends[0]..ends[1]], &edges.paces[ends[0]..ends[1]]);
        if due.len() <= targets.len() {
            due.resize(targets.len() + 1, [0; LANES]);
        }
        for (&target, &pace) in targets.iter().zip(paces) {
            // Written always and counted only if due: no branch to mispredict.
            due[counts[l] as usize][l] = target;
            counts[l] += is_due(pace, epoch);
        }
    }
    counts
}

/// Moves the active lanes by α · step; the others keep their bits.
#[inline(always)]
fn take_step<const D: usize>(
    alpha: f32,
    step: &[[f32; LANES]; D],
    active: &[u32; LANES],
    here: &mut [[f32; LANES]; D],
) {
    for l in 0..LANES {
        for d in 0..D {
            let moved = step[d][l].mul_add(alpha, here[d][l]);
            here[d][l] = if active[l] != 0 { moved } else { here[d][l] };
        }
    }
}
