//! Where k-means begins: greedy k-means++.

use crate::layout::mix64;
use crate::{Matrix, Result};

/// Points whose squared distances are summed together.
pub(crate) const BLOCK: usize = 128;

/// The most candidates for a seed.
pub(crate) const MAX_CANDIDATES: usize = 32;

/// What a device does for seeds.
pub(crate) trait Seeding {
    /// Returns the sums of squared distances to the nearest seed, if each of the points `candidates` became one:
    /// blocks of [`BLOCK`] points × candidates. A block's sum is that of four quarters, (a + b) + (c + d).
    fn consider(&mut self, candidates: &[u32]) -> Result<Matrix<f64>>;
    /// Makes one of the candidates just considered a seed.
    fn choose(&mut self, candidate: usize);
    /// The squared distances of a block's points to their nearest seeds, then zeros.
    fn to_seeds(&self, block: usize) -> Result<Vec<f32>>;
    /// Forgets all seeds, and gives their memory back.
    fn forget_seeds(&mut self);
}

/// Random numbers, each a function of the key and of how many were drawn before.
pub(super) struct Random {
    key: u64,
    drawn: u64,
}

impl Random {
    pub(super) fn new(key: u64) -> Self {
        Self { key, drawn: 0 }
    }

    /// A number from 0 to below 1.
    fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        (mix64(self.key ^ mix64(self.drawn)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Chooses up to k of n points as seeds: each is the best of `tries` that are drawn by their squared distances to those
/// before. Fewer where no other point is left.
pub(super) fn plus_plus<P: Seeding + ?Sized>(
    n: usize,
    k: usize,
    tries: usize,
    passes: &mut P,
    mut random: Random,
    stop: &dyn Fn() -> Result<()>,
) -> Result<Vec<u32>> {
    let mut candidates = vec![((random.uniform() * n as f64) as usize).min(n - 1) as u32];
    let mut seeds = Vec::with_capacity(k);
    loop {
        stop()?;
        let sums = passes.consider(&candidates)?;
        let total = |candidate: usize| (0..sums.rows()).map(|block| sums.row(block)[candidate]).sum::<f64>();
        let totals: Vec<f64> = (0..candidates.len()).map(total).collect();
        let least = (1..totals.len()).fold(0, |least, i| if totals[i] < totals[least] { i } else { least });
        passes.choose(least);
        seeds.push(candidates[least]);
        if seeds.len() == k || totals[least] <= 0.0 {
            passes.forget_seeds();
            return Ok(seeds);
        }
        let blocks: Vec<f64> = (0..sums.rows()).map(|block| sums.row(block)[least]).collect();
        candidates.clear();
        for _ in 0..tries {
            let (block, rest) = pick(blocks.iter().copied(), random.uniform() * totals[least]);
            let (at, _) = pick(passes.to_seeds(block)?.into_iter().map(f64::from), rest);
            candidates.push((block * BLOCK + at) as u32);
        }
    }
}

/// Which of `weights` holds the point `mark` of their sum, and how far into it; the last that is no zero if rounding
/// leaves none.
fn pick(weights: impl Iterator<Item = f64>, mark: f64) -> (usize, f64) {
    let (mut before, mut last) = (0.0, (0, 0.0));
    for (i, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        last = (i, mark - before);
        if before + weight > mark {
            break;
        }
        before += weight;
    }
    last
}
