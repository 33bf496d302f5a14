//! The layout kernel of UMAP: points attract along the edges of a weighted graph and repel random others.
//!
//! Its one idea: each vertex is moved by one owner only. An epoch runs over fixed blocks of vertices, one block after
//! another; while a block moves, all positions are read as they stood before it, so the vertices of a block are
//! independent of each other and no atomics are needed. Within its turn a vertex handles its edges one after another
//! on its own moving position, as stochastic gradient descent does (adding up many pulls at once overshoots). Sixteen
//! vertices of similar degree form a group and move in step, one per vector lane.
//!
//! Formula (McInnes, Healy and Melville, "UMAP", 2018; umap-learn's `optimize_layout_euclidean`), with
//! s = |yᵢ − yⱼ|², each component of each step clipped to ±4 and then times the learning rate α:
//! * an edge of weight w pulls yᵢ by −2ab·s^(b−1) / (1 + a·s^b) · (yᵢ − yⱼ), w / max w times per epoch;
//! * each time, `negative_samples` random vertices push it by 2γb / ((0.001 + s)(1 + a·s^b)) · (yᵢ − yₖ).
//!
//! umap-learn keeps both directions of an edge in its list and moves both its ends, so that a vertex is pulled twice
//! for each time it is pushed: so it is here. α falls linearly to 0.
//!
//! Shapes: `n` vertices in up to [`MAX_DIM`] dimensions; the graph as compressed sparse rows. Layout: positions are
//! kept in visiting order, a vertex a row, padded to a power of two so that no row straddles a cache line. All
//! arithmetic is f32; powers come from [`powf`]. Random numbers are a hash of (seed, vertex, epoch, event), so
//! results have the same bits at any thread count and for every instruction set.
//! Cost: Σw / max w · (2 + `negative_samples`) pair interactions per epoch, each a gather of one row and about 60
//! vector operations per 16 lanes.

use crate::{Device, Error, Isa, Matrix, Result};
use rayon::prelude::*;
use std::ops::ControlFlow;

/// The most dimensions that a layout can have.
pub const MAX_DIM: usize = 128;

/// Vertices that move in step: one AVX-512 register of f32.
const LANES: usize = 16;

/// Blocks that an epoch is cut into. Neighbours in the same block do not see each other move in that epoch; with 16,
/// few do, and the quality is that of a sequential pass (see `umap_reference`), while a block of a sample of
/// thousands still keeps every core busy.
const BLOCKS: usize = 16;

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
    let max = edges.weights.iter().copied().fold(0f32, f32::max);
    let visit = Visit::new(edges, max, params.seed);
    match positions.cols() {
        0..=2 => visit.run::<2, 2>(isa, positions, params, progress),
        3 => visit.run::<3, 4>(isa, positions, params, progress),
        4..=5 => visit.run::<5, 8>(isa, positions, params, progress),
        6..=8 => visit.run::<8, 8>(isa, positions, params, progress),
        9..=16 => visit.run::<16, 16>(isa, positions, params, progress),
        17..=32 => visit.run::<32, 32>(isa, positions, params, progress),
        33..=64 => visit.run::<64, 64>(isa, positions, params, progress),
        _ => visit.run::<MAX_DIM, MAX_DIM>(isa, positions, params, progress),
    }
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
        0..=2 => place_all::<2, 2>(isa, fixed, edges, keys, positions, params),
        3 => place_all::<3, 4>(isa, fixed, edges, keys, positions, params),
        4..=5 => place_all::<5, 8>(isa, fixed, edges, keys, positions, params),
        6..=8 => place_all::<8, 8>(isa, fixed, edges, keys, positions, params),
        9..=16 => place_all::<16, 16>(isa, fixed, edges, keys, positions, params),
        17..=32 => place_all::<32, 32>(isa, fixed, edges, keys, positions, params),
        33..=64 => place_all::<64, 64>(isa, fixed, edges, keys, positions, params),
        _ => place_all::<MAX_DIM, MAX_DIM>(isa, fixed, edges, keys, positions, params),
    }
    Ok(())
}

/// x^y for a finite x ≥ 0, in plain f32 operations that vectorise and give the same bits everywhere.
///
/// log₂ by a polynomial of degree 8 on [√½, √2) (error 5e-8), 2^x by one of degree 5 on [−½, ½] (1e-7); in all, the
/// relative error is below 4e-6 for x in [1e-6, 1e6] and |y| ≤ 2. Subnormal x and 0 count as 2^−127; powers
/// outside 2^±126 are held there.
#[inline(always)]
pub fn powf(x: f32, y: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    // Minimax on the range by Lawson's algorithm; no constant term, so that log₂ 1 is exactly 0.
    const LOG2: [f32; 8] = [
        1.442_694_8,
        -0.721_357_17,
        0.480_939_45,
        -0.360_087_2,
        0.286_707_46,
        -0.250_069_05,
        0.236_890_37,
        -0.145_744_48,
    ];
    const EXP2: [f32; 6] = [1.0, 0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];
    // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;

    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (shifted as i32) >> 23; // arithmetic shift: the exponent after centring on √½
    let t = f32::from_bits((shifted & 0x007f_ffff) + SQRT_HALF) - 1.0;
    let mut log2 = LOG2[7];
    log2 = log2.mul_add(t, LOG2[6]);
    log2 = log2.mul_add(t, LOG2[5]);
    log2 = log2.mul_add(t, LOG2[4]);
    log2 = log2.mul_add(t, LOG2[3]);
    log2 = log2.mul_add(t, LOG2[2]);
    log2 = log2.mul_add(t, LOG2[1]);
    log2 = log2.mul_add(t, LOG2[0]);
    let power = y * log2.mul_add(t, exponent as f32);
    let power = if power > 126.0 { 126.0 } else { power };
    let power = if power < -126.0 { -126.0 } else { power };

    let rounded = power + ROUND;
    let f = power - (rounded - ROUND);
    let mut exp2 = EXP2[5];
    exp2 = exp2.mul_add(f, EXP2[4]);
    exp2 = exp2.mul_add(f, EXP2[3]);
    exp2 = exp2.mul_add(f, EXP2[2]);
    exp2 = exp2.mul_add(f, EXP2[1]);
    exp2 = exp2.mul_add(f, EXP2[0]);
    f32::from_bits(exp2.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// Mixes 64 bits (the finaliser of SplitMix64): equal inputs give equal outputs, near ones unrelated ones.
pub fn mix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
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

/// How fast an edge's counter runs: it passes a multiple of 2³¹ each time that the edge is due.
fn pace(weight: f32, max: f32) -> u32 {
    // At most 2³¹: `as` saturates and turns 0 / 0 into 0.
    ((f64::from(weight) / f64::from(max)).clamp(0.0, 1.0) * 2f64.powi(31)) as u32
}

/// 1 if an edge of this pace is due in `epoch`: as in umap-learn, first when a whole period has passed.
#[inline(always)]
fn is_due(pace: u32, epoch: u32) -> u32 {
    // In epoch 0 the counter has not moved.
    (pace.wrapping_mul(epoch) ^ pace.wrapping_mul(epoch.saturating_sub(1))) >> 31
}

/// The graph in visiting order: block after block, and in each block groups of vertices of similar activity.
struct Visit {
    /// The vertex visited at each place.
    order: Vec<u32>,
    /// Where each block starts, in places; one more than there are blocks.
    blocks: Vec<usize>,
    /// Compressed sparse rows over places: row starts, other ends (as places) and paces.
    offsets: Vec<usize>,
    targets: Vec<u32>,
    paces: Vec<u32>,
    /// The key of the random stream of each place.
    keys: Vec<u64>,
}

impl Visit {
    /// Orders the vertices by falling activity and deals groups of them to the blocks in turn.
    fn new(edges: Edges<'_>, max: f32, seed: u64) -> Self {
        let n = edges.offsets.len() - 1;
        let row = |v: u32| edges.offsets[v as usize]..edges.offsets[v as usize + 1];
        let activity: Vec<f32> =
            (0..n as u32).into_par_iter().map(|v| edges.weights[row(v)].iter().sum()).collect();
        let mut by_activity: Vec<u32> = (0..n as u32).collect();
        by_activity.par_sort_unstable_by(|&a, &b| {
            activity[b as usize].total_cmp(&activity[a as usize]).then(a.cmp(&b))
        });
        let groups: Vec<&[u32]> = by_activity.chunks(LANES).collect();
        let mut order = Vec::with_capacity(n);
        let mut blocks = vec![0];
        for block in 0..BLOCKS.min(groups.len()) {
            for group in groups.iter().skip(block).step_by(BLOCKS) {
                order.extend_from_slice(group);
            }
            blocks.push(order.len());
        }
        let mut place = vec![0u32; n];
        for (at, &v) in order.iter().enumerate() {
            place[v as usize] = at as u32; // n fits in u32 by `check`
        }
        let mut visit = Self {
            offsets: vec![0],
            targets: Vec::with_capacity(edges.targets.len()),
            paces: Vec::with_capacity(edges.targets.len()),
            keys: order.iter().map(|&v| mix64(seed ^ mix64(u64::from(v)))).collect(),
            order,
            blocks,
        };
        for &v in &visit.order {
            visit.targets.extend(edges.targets[row(v)].iter().map(|&t| place[t as usize]));
            visit.paces.extend(edges.weights[row(v)].iter().map(|&w| pace(w, max)));
            visit.offsets.push(visit.targets.len());
        }
        visit
    }

    /// Runs all epochs in `D` ≥ dim dimensions (the further ones stay 0 and change nothing), rows padded to `S`.
    fn run<const D: usize, const S: usize>(
        &self,
        isa: Isa,
        positions: &mut Matrix<f32>,
        params: &LayoutParams,
        progress: &dyn Fn(u32, u32) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut points = padded::<S>(self.order.iter().map(|&v| positions.row(v as usize)));
        let mut moved = vec![[0f32; S]; self.blocks.windows(2).map(|b| b[1] - b[0]).max().unwrap_or(0)];
        let force = Force::new(params, 2);
        let mut flow = ControlFlow::Continue(());
        for epoch in 0..params.epochs {
            let alpha = rate(params, epoch);
            for block in self.blocks.windows(2) {
                let moved = &mut moved[..block[1] - block[0]];
                moved.par_chunks_mut(LANES).enumerate().for_each_init(Vec::new, |due, (group, rows)| {
                    let first = block[0] + group * LANES;
                    rows.copy_from_slice(&points[first..first + rows.len()]);
                    let keys = std::array::from_fn(|l| self.keys.get(first + l).copied().unwrap_or(0));
                    let turn = Turn { epoch, alpha, keys: &keys, own: Some(first) };
                    let edges =
                        Rows { offsets: &self.offsets[first..], targets: &self.targets, paces: &self.paces };
                    move_group::<D, S>(isa, &turn, &force, &edges, &points, due, rows);
                });
                points[block[0]..block[1]].copy_from_slice(moved);
            }
            flow = progress(epoch + 1, params.epochs);
            if flow.is_break() {
                break;
            }
        }
        let dim = positions.cols();
        for (&v, point) in self.order.iter().zip(&points) {
            positions.row_mut(v as usize).copy_from_slice(&point[..dim]);
        }
        Ok(flow)
    }
}

/// Runs all epochs for each group of new points on its own.
fn place_all<const D: usize, const S: usize>(
    isa: Isa,
    fixed: &Matrix<f32>,
    edges: Edges<'_>,
    keys: &[u64],
    positions: &mut Matrix<f32>,
    params: &LayoutParams,
) {
    let points = padded::<S>(fixed.iter_rows());
    let mut rows = padded::<S>(positions.iter_rows());
    let paces: Vec<u32> = edges.weights.iter().map(|&w| pace(w, 1.0)).collect();
    let force = Force::new(params, 1);
    rows.par_chunks_mut(LANES).enumerate().for_each_init(Vec::new, |due, (group, rows)| {
        let first = group * LANES;
        let keys: [u64; LANES] =
            std::array::from_fn(|l| keys.get(first + l).map_or(0, |&key| mix64(params.seed ^ mix64(key))));
        let edges = Rows { offsets: &edges.offsets[first..], targets: edges.targets, paces: &paces };
        for epoch in 0..params.epochs {
            let turn = Turn { epoch, alpha: rate(params, epoch), keys: &keys, own: None };
            move_group::<D, S>(isa, &turn, &force, &edges, &points, due, rows);
        }
    });
    let dim = positions.cols();
    for (i, row) in rows.iter().enumerate() {
        positions.row_mut(i).copy_from_slice(&row[..dim]);
    }
}

/// Copies rows into an array of `S` columns, padded with zeros.
fn padded<'a, const S: usize>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<[f32; S]> {
    rows.map(|row| std::array::from_fn(|d| row.get(d).copied().unwrap_or(0.0))).collect()
}

/// The learning rate of `epoch`: falls linearly, and would reach 0 one epoch past the last.
fn rate(params: &LayoutParams, epoch: u32) -> f32 {
    params.learning_rate * (1.0 - epoch as f32 / params.epochs as f32)
}

/// The constants of the pull and the push.
struct Force {
    a: f32,
    b: f32,
    pull: f32,
    push: f32,
    /// How often an edge that is due pulls: twice where both its ends move.
    pulls: u32,
    negatives: u32,
}

impl Force {
    fn new(params: &LayoutParams, pulls: u32) -> Self {
        Self {
            a: params.a,
            b: params.b,
            pull: -2.0 * params.a * params.b,
            push: 2.0 * params.repulsion_strength * params.b,
            pulls,
            negatives: params.negative_samples,
        }
    }
}

/// What a group's turn in one epoch is about.
struct Turn<'a> {
    epoch: u32,
    alpha: f32,
    /// The key of each lane's random stream.
    keys: &'a [u64; LANES],
    /// The first lane's row among the points, where the group is among them: a vertex does not push itself.
    own: Option<usize>,
}

/// The edges of a group: row l is lane l's.
struct Rows<'a> {
    offsets: &'a [usize],
    targets: &'a [u32],
    paces: &'a [u32],
}

/// Moves the vertices `rows` (at most [`LANES`]) for one epoch among `points`; `due` is scratch.
///
/// Every target in `edges` must be a row of `points`, which must not be empty.
fn move_group<const D: usize, const S: usize>(
    isa: Isa,
    turn: &Turn<'_>,
    force: &Force,
    edges: &Rows<'_>,
    points: &[[f32; S]],
    due: &mut Vec<[u32; LANES]>,
    rows: &mut [[f32; S]],
) {
    // `simd::dispatch!` by hand, since its inner functions cannot be generic.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2<const D: usize, const S: usize>(
        turn: &Turn<'_>,
        force: &Force,
        edges: &Rows<'_>,
        points: &[[f32; S]],
        due: &mut Vec<[u32; LANES]>,
        rows: &mut [[f32; S]],
    ) {
        move_lanes::<D, S>(turn, force, edges, points, due, rows);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512<const D: usize, const S: usize>(
        turn: &Turn<'_>,
        force: &Force,
        edges: &Rows<'_>,
        points: &[[f32; S]],
        due: &mut Vec<[u32; LANES]>,
        rows: &mut [[f32; S]],
    ) {
        move_lanes::<D, S>(turn, force, edges, points, due, rows);
    }
    match isa {
        // SAFETY: `Isa` values past `Portable` come from `Isa::available`, which saw these features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni => unsafe { avx512::<D, S>(turn, force, edges, points, due, rows) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::<D, S>(turn, force, edges, points, due, rows) },
        _ => move_lanes::<D, S>(turn, force, edges, points, due, rows),
    }
}

/// [`move_group`] in plain loops over lanes.
#[inline(always)]
fn move_lanes<const D: usize, const S: usize>(
    turn: &Turn<'_>,
    force: &Force,
    edges: &Rows<'_>,
    points: &[[f32; S]],
    due: &mut Vec<[u32; LANES]>,
    rows: &mut [[f32; S]],
) {
    let counts = collect_due(turn.epoch, edges, rows.len(), due);
    let events = counts.iter().copied().max().unwrap_or(0);
    let mut here = [[0f32; LANES]; D];
    let mut own = [u32::MAX; LANES];
    let (mut low, mut high) = ([0u32; LANES], [0u32; LANES]);
    for (l, row) in rows.iter().enumerate() {
        for d in 0..D {
            here[d][l] = row[d];
        }
        if let Some(first) = turn.own {
            own[l] = (first + l) as u32; // rows are counted in u32
        }
        let key = mix64(turn.keys[l] ^ u64::from(turn.epoch));
        (low[l], high[l]) = (key as u32, (key >> 32) as u32);
    }

    for event in 0..events {
        let mut active = [0u32; LANES];
        let mut target = [0u32; LANES];
        for l in 0..LANES {
            active[l] = u32::from(event < counts[l]);
            target[l] = due[event as usize][l] * active[l];
        }
        for _ in 0..force.pulls {
            pull::<D, S>(force, turn.alpha, points, &target, &active, &mut here);
        }
        // The pushes of one event all start from where the pull led, so that they do not wait for each other.
        let mut step = [[0f32; LANES]; D];
        for k in 0..force.negatives {
            let other = random_rows(event * force.negatives + k, &low, &high, points.len() as u32);
            push::<D, S>(force, points, &other, &own, &here, &mut step);
        }
        for l in 0..LANES {
            for d in 0..D {
                let moved = step[d][l].mul_add(turn.alpha, here[d][l]);
                here[d][l] = if active[l] != 0 { moved } else { here[d][l] };
            }
        }
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
        let mut count = 0;
        for (&target, &pace) in targets.iter().zip(paces) {
            due[count as usize][l] = target;
            count += is_due(pace, epoch);
        }
        counts[l] = count;
    }
    counts
}

/// A random row below `n` for each lane: a hash of its key and the number of the draw.
#[inline(always)]
fn random_rows(draw: u32, low: &[u32; LANES], high: &[u32; LANES], n: u32) -> [u32; LANES] {
    let counter = draw.wrapping_mul(0x9e37_79b9);
    let mut rows = [0u32; LANES];
    for l in 0..LANES {
        // Two rounds of a multiply-xorshift hash, each keyed with 32 bits.
        let x = counter ^ low[l];
        let x = (x ^ (x >> 16)).wrapping_mul(0x21f0_aaad);
        let x = (x ^ (x >> 15)).wrapping_mul(0x735a_2d97).wrapping_add(high[l]);
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = x ^ (x >> 15);
        rows[l] = ((u64::from(x) * u64::from(n)) >> 32) as u32;
    }
    rows
}

/// Moves each active lane towards its target; the others keep their bits.
///
/// As in [`push`], one loop over the lanes holds it all, with the short loops over dimensions inside, which unroll:
/// so the compiler turns each operation into one on sixteen lanes.
#[inline(always)]
fn pull<const D: usize, const S: usize>(
    force: &Force,
    alpha: f32,
    points: &[[f32; S]],
    targets: &[u32; LANES],
    active: &[u32; LANES],
    here: &mut [[f32; LANES]; D],
) {
    for l in 0..LANES {
        let mut delta = [0f32; D];
        let mut s = 0f32;
        for d in 0..D {
            delta[d] = here[d][l] - coordinate(points, targets[l], d);
            s = delta[d].mul_add(delta[d], s);
        }
        let power = powf(s, force.b - 1.0);
        let scale = force.pull * power / (force.a * power).mul_add(s, 1.0);
        let scale = if s > 0.0 { scale } else { 0.0 };
        for d in 0..D {
            let moved = clipped(scale * delta[d]).mul_add(alpha, here[d][l]);
            here[d][l] = if active[l] != 0 { moved } else { here[d][l] };
        }
    }
}

/// Adds to `step` each lane's push away from row `others`, unless that is the vertex itself.
#[inline(always)]
fn push<const D: usize, const S: usize>(
    force: &Force,
    points: &[[f32; S]],
    others: &[u32; LANES],
    own: &[u32; LANES],
    here: &[[f32; LANES]; D],
    step: &mut [[f32; LANES]; D],
) {
    for l in 0..LANES {
        let mut delta = [0f32; D];
        let mut s = 0f32;
        for d in 0..D {
            delta[d] = here[d][l] - coordinate(points, others[l], d);
            s = delta[d].mul_add(delta[d], s);
        }
        let scale = force.push / ((0.001 + s) * force.a.mul_add(powf(s, force.b), 1.0));
        let scale = if (s > 0.0) & (own[l] != others[l]) { scale } else { 0.0 };
        for d in 0..D {
            step[d][l] += clipped(scale * delta[d]);
        }
    }
}

/// One coordinate of a row, by a signed 32-bit index, which is what vector gathers take.
#[inline(always)]
fn coordinate<const S: usize>(points: &[[f32; S]], row: u32, d: usize) -> f32 {
    debug_assert!((row as usize) < points.len() && d < S);
    let index = row as i32 * S as i32 + d as i32;
    // SAFETY: targets are rows of `points` by `check`, idle lanes take row 0 (there is one, since a group has rows
    // or targets), random rows are below the number of points by construction, d < D ≤ S, and `check` made sure
    // that n · S fits in an i32.
    unsafe { *points.as_ptr().cast::<f32>().offset(index as isize) }
}

/// Clips one component of a step to ±4, which keeps near points from being thrown out of the picture.
#[inline(always)]
fn clipped(g: f32) -> f32 {
    let g = if g > 4.0 { 4.0 } else { g };
    if g < -4.0 { -4.0 } else { g }
}
