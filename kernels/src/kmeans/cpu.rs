//! The passes of k-means on the processor.

use super::{BLOCK, Members, Passes, Seeding, half_squared_lengths, squared_length};
use crate::gemm::{Epilogue, PANEL, Packed, Rows, gemm};
use crate::simd::dispatch;
use crate::{Isa, Matrix, Result};
use rayon::prelude::*;

/// Points of one task: their rows stay in L2 while all centroids pass by.
const TASK: usize = 96;

/// Centroids whose products are made at a time.
const STRIP: usize = 4 * PANEL;

/// Lanes in which centroids compete.
const LANES: usize = 16;

/// Points, and what passes leave for the next.
pub(super) struct Points<'a> {
    isa: Isa,
    points: &'a Matrix<f32>,
    squared_lengths: Vec<f32>,
    /// The squared distance of each point to its nearest seed, zeros up to whole blocks; empty before the first.
    to_seeds: Vec<f32>,
    /// The same with each of some candidates: blocks × candidates × points of a block.
    considered: Vec<f32>,
}

impl<'a> Points<'a> {
    pub(super) fn new(isa: Isa, points: &'a Matrix<f32>, squared_lengths: Vec<f32>) -> Self {
        Self { isa, points, squared_lengths, to_seeds: vec![], considered: vec![] }
    }

    /// Some rows, as the left side of a product.
    fn rows(&self, first: usize, rows: usize) -> Rows<'_> {
        let d = self.points.cols();
        Rows { data: &self.points.as_slice()[first * d..(first + rows) * d], rows, stride: d }
    }

    /// The nearest centroid of each point, and where `PLACES` is 2 the second nearest.
    fn race<const PLACES: usize>(&self, centroids: &Matrix<f32>) -> [Vec<u32>; PLACES] {
        let (n, k) = (self.points.rows(), centroids.rows());
        let packed = Packed::from_linear(centroids.as_slice(), k, centroids.cols());
        // Columns past the last lose against all.
        let mut halves: Vec<f32> = half_squared_lengths(self.isa, centroids).collect();
        halves.resize(k.next_multiple_of(LANES), f32::INFINITY);
        let parts = (0..n.div_ceil(TASK)).into_par_iter().map(|part| {
            let rows = self.rows(part * TASK, TASK.min(n - part * TASK));
            let mut scores = [0f32; TASK * STRIP];
            let mut races = [Race::START; TASK];
            for (strip, halves) in halves.chunks(STRIP).enumerate() {
                let first = strip * STRIP;
                let columns = packed.columns(first, STRIP.min(k - first));
                gemm(self.isa, rows, columns, &mut scores, STRIP, Epilogue::None);
                for (race, scores) in races[..rows.rows].iter_mut().zip(scores.chunks_exact(STRIP)) {
                    run::<PLACES>(self.isa, race, scores, halves, first as u32);
                }
            }
            races.map(|race| finish(self.isa, race))
        });
        let parts: Vec<[[u32; 2]; TASK]> = parts.collect();
        std::array::from_fn(|place| parts.iter().flatten().take(n).map(|found| found[place]).collect())
    }
}

impl Passes for Points<'_> {
    fn nearest(&mut self, centroids: &Matrix<f32>) -> Result<Vec<u32>> {
        let [nearest] = self.race::<1>(centroids);
        Ok(nearest)
    }

    fn nearest_two(&mut self, centroids: &Matrix<f32>) -> Result<[Vec<u32>; 2]> {
        Ok(self.race::<2>(centroids))
    }

    fn sums(&mut self, members: &Members) -> Result<Vec<f64>> {
        let d = self.points.cols();
        let mut partial = vec![0f64; (members.segments.len() - 1) * d];
        partial.par_chunks_exact_mut(d).zip(members.segments.par_windows(2)).for_each(|(sums, segment)| {
            for &row in &members.order[segment[0] as usize..segment[1] as usize] {
                add(self.isa, sums, self.points.row(row as usize));
            }
        });
        let mut sums = vec![0f64; (members.clusters.len() - 1) * d];
        sums.par_chunks_exact_mut(d).zip(members.clusters.par_windows(2)).for_each(|(sums, segments)| {
            for part in partial[segments[0] as usize * d..segments[1] as usize * d].chunks_exact(d) {
                for (sum, v) in sums.iter_mut().zip(part) {
                    *sum += v;
                }
            }
        });
        Ok(sums)
    }
}

impl Seeding for Points<'_> {
    fn forget_seeds(&mut self) {
        (self.to_seeds, self.considered) = (Vec::new(), Vec::new());
    }

    fn consider(&mut self, candidates: &[u32]) -> Result<Matrix<f64>> {
        let (n, count) = (self.points.rows(), candidates.len());
        let first = self.to_seeds.is_empty();
        let rows = self.points.gather(candidates);
        let packed = Packed::from_linear(rows.as_slice(), count, rows.cols());
        let lengths: Vec<f32> = rows.iter_rows().map(|row| squared_length(self.isa, row)).collect();
        let mut sums = Matrix::zeros(n.div_ceil(BLOCK), count);
        let mut considered = std::mem::take(&mut self.considered);
        considered.resize(sums.rows() * count * BLOCK, 0.0);
        let blocks =
            considered.par_chunks_exact_mut(count * BLOCK).zip(sums.as_mut_slice().par_chunks_mut(count));
        blocks.enumerate().for_each(|(block, (considered, sums))| {
            let from = block * BLOCK;
            let points = BLOCK.min(n - from);
            let mut products = [0f32; BLOCK * PANEL];
            gemm(self.isa, self.rows(from, points), packed.view(), &mut products, PANEL, Epilogue::None);
            for (c, considered) in considered.chunks_exact_mut(BLOCK).enumerate() {
                considered[points..].fill(0.0);
                for (i, near) in considered[..points].iter_mut().enumerate() {
                    let squared = self.squared_lengths[from + i] + lengths[c] - 2.0 * products[i * PANEL + c];
                    let before = if first { f32::INFINITY } else { self.to_seeds[from + i] };
                    *near = squared.max(0.0).min(before);
                }
                let quarter = |q: usize| -> f64 {
                    considered[q * BLOCK / 4..][..BLOCK / 4].iter().fold(0.0, |sum, v| sum + f64::from(*v))
                };
                sums[c] = (quarter(0) + quarter(1)) + (quarter(2) + quarter(3));
            }
        });
        self.considered = considered;
        Ok(sums)
    }

    fn choose(&mut self, candidate: usize) {
        let blocks = self.points.rows().div_ceil(BLOCK);
        let count = self.considered.len() / (blocks * BLOCK);
        self.to_seeds.resize(blocks * BLOCK, 0.0);
        let blocks =
            self.to_seeds.par_chunks_exact_mut(BLOCK).zip(self.considered.par_chunks_exact(count * BLOCK));
        blocks.for_each(|(to, from)| to.copy_from_slice(&from[candidate * BLOCK..(candidate + 1) * BLOCK]));
    }

    fn to_seeds(&self, block: usize) -> Result<Vec<f32>> {
        Ok(self.to_seeds[block * BLOCK..(block + 1) * BLOCK].to_vec())
    }
}

/// Adds a row to sums.
pub(super) fn add(isa: Isa, sums: &mut [f64], row: &[f32]) {
    #[inline(always)]
    fn body(sums: &mut [f64], row: &[f32]) {
        for (sum, v) in sums.iter_mut().zip(row) {
            *sum += f64::from(*v);
        }
    }
    dispatch!(isa, body(sums: &mut [f64], row: &[f32]))
}

/// Of the centroids of each lane the best so far, and the second best.
#[derive(Clone, Copy)]
struct Race {
    scores: [[f32; LANES]; 2],
    centroids: [[u32; LANES]; 2],
}

impl Race {
    const START: Self = Self { scores: [[f32::NEG_INFINITY; LANES]; 2], centroids: [[u32::MAX; LANES]; 2] };
}

/// Lets the centroids from `first` on compete, in rising order: of equal scores the earlier stays ahead. The second best
/// are kept only where `PLACES` is 2.
fn run<const PLACES: usize>(isa: Isa, race: &mut Race, products: &[f32], halves: &[f32], first: u32) {
    #[inline(always)]
    fn body<const PLACES: usize>(race: &mut Race, products: &[f32], halves: &[f32], first: u32) {
        let Race { scores: [best, second], centroids: [leader, runner_up] } = race;
        let chunks = products.chunks_exact(LANES).zip(halves.chunks_exact(LANES));
        for (chunk, (products, halves)) in chunks.enumerate() {
            for l in 0..LANES {
                let score = products[l] - halves[l];
                let centroid = first + (chunk * LANES + l) as u32;
                let wins = score > best[l];
                if PLACES == 2 {
                    let places = score > second[l];
                    let (next, its) = if places { (score, centroid) } else { (second[l], runner_up[l]) };
                    second[l] = if wins { best[l] } else { next };
                    runner_up[l] = if wins { leader[l] } else { its };
                }
                best[l] = if wins { score } else { best[l] };
                leader[l] = if wins { centroid } else { leader[l] };
            }
        }
    }
    dispatch!(isa, body::<PLACES>(race: &mut Race, products: &[f32], halves: &[f32], first: u32))
}

/// Brings the lanes together, one half with the other; returns the best and the second best.
fn finish(isa: Isa, race: Race) -> [u32; 2] {
    #[inline(always)]
    fn body(race: Race) -> [u32; 2] {
        let Race { mut scores, mut centroids } = race;
        let mut lanes = LANES / 2;
        while lanes > 0 {
            for l in 0..lanes {
                let ahead = |a: (f32, u32), b: (f32, u32)| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
                let of = |place: usize, lane: usize| (scores[place][lane], centroids[place][lane]);
                let (mine, other) = ([of(0, l), of(1, l)], [of(0, l + lanes), of(1, l + lanes)]);
                let (won, lost) = if ahead(other[0], mine[0]) { (other, mine) } else { (mine, other) };
                let second = if ahead(lost[0], won[1]) { lost[0] } else { won[1] };
                ((scores[0][l], centroids[0][l]), (scores[1][l], centroids[1][l])) = (won[0], second);
            }
            lanes /= 2;
        }
        [centroids[0][0], centroids[1][0]]
    }
    dispatch!(isa, body(race: Race) -> [u32; 2])
}
