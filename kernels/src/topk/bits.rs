//! Nearest rows by bits: Hamming distances, exact.
//!
//! - Formula: `−Σ_w popcount(q_w ^ p_w)` over words of 64 bits: minus the number of bits that differ, so that larger is
//!   nearer here too. Bits that both rows have as padding cost nothing.
//! - Layout: points in panels of 32 rows; for each word a panel has those of its 32 rows side by side, so that a
//!   register holds one word of 8 rows and no sum crosses lanes. Queries lie in fours, word by word.
//! - Selection: a tile of 4 × 32 distances stays in registers and is compared with the four queries' limits there; it
//!   is stored only if one distance passes. A query counts how many rows it took at each distance, which keeps its
//!   limit at the exact k-th distance so far: of n rows in a random order about k + k·ln(n/k) pass, and the counts sort
//!   them at the end.
//! - Cost: q·n·d/64 words. With VPOPCNTDQ a word of 8 rows is three instructions (xor, count, add) on two ports; for
//!   384 bits that is a limit of 0.89 distances a cycle. With AVX2, where bytes are counted by half, it is six on three
//!   ports for 4 rows.

use super::{BLOCK as QUERIES, Neighbours, check, each_block};
use crate::{Matrix, Result};
use scan::{FOUR, Hits, PANEL, Path, Words};

mod scan;

/// How many times k rows a query may hold, those it took early and needs no more among them.
const SPARE: usize = 4;

/// Bits packed once for searching, as [`quantize::ubinary`](crate::quantize::ubinary) makes them: 8 a byte.
///
/// Those of [`quantize::binary`](crate::quantize::binary) have one bit of each byte flipped, which changes no distance:
/// take the bytes of either, but of points and queries the same.
#[derive(Debug, Clone)]
pub struct BitCodes {
    path: Path,
    rows: usize,
    /// Bytes of a row.
    cols: usize,
    /// Lines of a panel.
    depth: usize,
    panels: Vec<Words<PANEL>>,
}

impl BitCodes {
    /// Packs the rows of `codes`.
    pub fn pack(codes: &Matrix<u8>) -> Self {
        Self::pack_for(Path::detect(), codes)
    }

    fn pack_for(path: Path, codes: &Matrix<u8>) -> Self {
        let depth = path.depth(codes.cols());
        let mut panels = Vec::new();
        path.pack(codes, 0..codes.rows(), &mut panels);
        Self { path, rows: codes.rows(), cols: codes.cols(), depth, panels }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of bytes of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// Returns the `k` rows of `points` that differ from each row of `queries` in the fewest bits, with minus how many;
/// best first, ties by index.
///
/// # Errors
/// `Shape` if the columns differ, or `k` is larger than the number of points.
pub fn topk_bits(queries: &Matrix<u8>, points: &BitCodes, k: usize) -> Result<Neighbours<i32>> {
    check(queries.cols(), points.cols, points.rows, k)?;
    let mut found =
        Neighbours { indices: Matrix::zeros(queries.rows(), k), scores: Matrix::zeros(queries.rows(), k) };
    each_block(&mut found, QUERIES, |first, indices, scores| {
        let rows = indices.len() / k;
        let mut fours = Vec::new();
        points.path.pack(queries, first..first + rows, &mut fours);
        let mut nearest: Vec<Nearest> = (0..rows).map(|_| Nearest::new(k, 8 * points.cols)).collect();
        // A row of zeros that fills up a four takes nothing.
        let mut limits = vec![[0; FOUR]; rows.div_ceil(FOUR)];
        limits
            .as_flattened_mut()
            .iter_mut()
            .zip(&nearest)
            .for_each(|(limit, nearest)| *limit = nearest.limit);
        let mut hits = Hits::default();
        for (i, panel) in points.panels.chunks_exact(points.depth).enumerate() {
            let start = i * PANEL;
            // Of each query the points that there are: a bit for the first of each times the bits of one.
            let filled = (u128::MAX / u128::from(u32::MAX))
                * u128::from(u32::MAX >> (PANEL - PANEL.min(points.rows - start)));
            let mut four = points.path.scan(&fours, panel, &limits, 0, &mut hits);
            while four < limits.len() {
                let mut better = hits.better & filled;
                while better != 0 {
                    let at = better.trailing_zeros() as usize;
                    better &= better - 1;
                    let (row, point) = (at / PANEL, at % PANEL);
                    let nearest = &mut nearest[four * FOUR + row];
                    nearest.offer(hits.distances[row][point], start + point);
                    limits[four][row] = nearest.limit;
                }
                four = points.path.scan(&fours, panel, &limits, four + 1, &mut hits);
            }
        }
        for ((nearest, indices), scores) in
            nearest.into_iter().zip(indices.chunks_exact_mut(k)).zip(scores.chunks_exact_mut(k))
        {
            nearest.finish(indices, scores);
        }
    });
    Ok(found)
}

/// The k nearest of the rows offered so far, at distances of 0 to d.
struct Nearest {
    k: usize,
    /// What is not nearer than this cannot enter any more: the k-th distance, since rows come in rising order and ties
    /// go to the first. While fewer than k are found, d + 1.
    limit: u64,
    /// How many are nearer than the limit: fewer than k.
    below: usize,
    /// How many were found at each distance.
    counts: Vec<u32>,
    /// Distances and rows, rows rising.
    found: Vec<(u32, u32)>,
}

impl Nearest {
    fn new(k: usize, d: usize) -> Self {
        Self { k, limit: d as u64 + 1, below: 0, counts: vec![0; d + 1], found: Vec::new() }
    }

    /// Takes row `row` if it is near enough.
    fn offer(&mut self, distance: u64, row: usize) {
        if distance >= self.limit {
            return;
        }
        self.counts[distance as usize] += 1;
        self.below += 1;
        while self.below >= self.k {
            self.limit -= 1;
            self.below -= self.counts[self.limit as usize] as usize;
        }
        // Rows whose distances fall from first to last would all be kept.
        if self.found.len() == SPARE * self.k.max(64) {
            self.cut();
        }
        self.found.push((distance as u32, row as u32));
    }

    /// Keeps of the rows found only what could be among the k nearest.
    fn cut(&mut self) {
        let (limit, mut ties) = (self.limit, self.k - self.below);
        self.found.retain(|&(distance, _)| {
            let is_tie = u64::from(distance) == limit && ties > 0;
            ties -= usize::from(is_tie);
            u64::from(distance) < limit || is_tie
        });
    }

    /// Writes the k nearest, sorted by counting.
    fn finish(mut self, indices: &mut [u32], scores: &mut [i32]) {
        self.cut();
        let mut start = 0;
        for count in &mut self.counts[..self.limit as usize] {
            start += std::mem::replace(count, start);
        }
        if let Some(ties) = self.counts.get_mut(self.limit as usize) {
            *ties = start;
        }
        for (distance, row) in self.found {
            let place = &mut self.counts[distance as usize];
            (indices[*place as usize], scores[*place as usize]) = (row, -(distance as i32));
            *place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// Rows of random bits; with `noise` below 1, few of them differ from those of one row, so that many distances are
    /// equal.
    fn bits(seed: u64, rows: usize, cols: usize, noise: f32) -> Matrix<u8> {
        let byte =
            |eight: &[f32]| eight.iter().fold(0, |byte, v| byte << 1 | u8::from(v.abs() < noise / 2.0));
        let values = uniform(seed, 8 * rows * cols);
        Matrix::try_from_vec(rows, cols, values.chunks(8).map(byte).collect()).unwrap()
    }

    /// The definition: all distances, sorted.
    fn reference(query: &[u8], points: &Matrix<u8>, k: usize) -> Vec<(i32, u32)> {
        let distance = |point: &[u8]| query.iter().zip(point).map(|(q, p)| (q ^ p).count_ones() as i32).sum();
        let mut all: Vec<(i32, u32)> = points.iter_rows().map(distance).zip(0..).collect();
        all.sort_unstable();
        all.truncate(k);
        all
    }

    /// Checks every path against the definition.
    fn check_exact(queries: &Matrix<u8>, points: &Matrix<u8>, k: usize) {
        for path in Path::available() {
            let found = topk_bits(queries, &BitCodes::pack_for(path, points), k).unwrap();
            assert_eq!((found.indices.rows(), found.indices.cols()), (queries.rows(), k));
            for i in 0..queries.rows() {
                let expected = reference(queries.row(i), points, k);
                let found = found.scores.row(i).iter().map(|s| -s).zip(found.indices.row(i).iter().copied());
                assert!(
                    found.eq(expected),
                    "query {i}, {} rows of {}, k = {k}, {path:?}",
                    points.rows(),
                    points.cols()
                );
            }
        }
    }

    #[test]
    fn every_path_finds_what_a_full_sort_finds() {
        // Bytes around a word, MiniLM's 48, and more words than a byte can count (31); points around a panel; queries
        // around a four and a block; k from one to all.
        for (queries, points, cols, k) in [
            (1, 1, 1, 1),
            (3, 31, 7, 4),
            (4, 33, 8, 33),
            (5, 64, 9, 1),
            (97, 1000, 48, 10),
            (9, 3000, 48, 100),
            (6, 100, 31 * 8 + 1, 7),
            (2, 70, 1000, 70),
        ] {
            check_exact(&bits(1, queries, cols, 1.0), &bits(2, points, cols, 1.0), k);
        }
    }

    #[test]
    fn equal_distances_go_to_the_smaller_row() {
        // 8 bits have 9 distances; of 240 bits of which each is set in 1 of 50 rows, a few dozen occur.
        check_exact(&bits(3, 20, 1, 1.0), &bits(4, 2000, 1, 1.0), 50);
        check_exact(&bits(5, 20, 30, 0.04), &bits(6, 2000, 30, 0.04), 200);
        check_exact(&Matrix::zeros(5, 48), &Matrix::zeros(100, 48), 40);
    }

    #[test]
    fn the_farthest_rows_do_not_overflow_a_byte() {
        // 255 words and one of bits that all differ: no sum that a path keeps in bytes may wrap.
        for words in [30, 31, 32, 255, 256] {
            let points = Matrix::try_from_vec(1, 8 * words, vec![0xff; 8 * words]).unwrap();
            check_exact(&Matrix::zeros(1, 8 * words), &points, 1);
        }
    }

    #[test]
    fn rows_that_come_nearer_and_nearer_are_all_seen() {
        // Each row is nearer than all before it: every one is taken, and the first are dropped again.
        let cols = 1000;
        let row = |i: usize| (0..cols).map(move |at| if at >= i / 8 { 0xff } else { 0 });
        let points = Matrix::try_from_vec(8 * cols, cols, (0..8 * cols).flat_map(row).collect()).unwrap();
        check_exact(&Matrix::zeros(1, cols), &points, 5);
    }

    #[test]
    fn a_query_has_the_same_answer_in_any_company_and_on_any_number_of_threads() {
        let (queries, points) = (bits(7, 200, 4, 1.0), BitCodes::pack(&bits(8, 500, 4, 1.0)));
        let all = topk_bits(&queries, &points, 9).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(7).build().unwrap();
        assert_eq!(pool.install(|| topk_bits(&queries, &points, 9).unwrap()), all);
        let order: Vec<u32> = (0..200).rev().collect();
        let turned = topk_bits(&queries.gather(&order), &points, 9).unwrap();
        assert_eq!((turned.indices.gather(&order), turned.scores.gather(&order)), (all.indices, all.scores));
    }

    #[test]
    fn signed_bits_have_the_same_distances() {
        let x = Matrix::try_from_vec(300, 20, uniform(9, 300 * 20)).unwrap();
        let unsigned = crate::quantize::ubinary(&x).unwrap();
        let signed = crate::quantize::binary(&x).unwrap();
        let signed = Matrix::try_from_vec(300, 3, bytemuck::cast_slice(signed.as_slice()).to_vec()).unwrap();
        let found = topk_bits(&unsigned, &BitCodes::pack(&unsigned), 7).unwrap();
        assert_eq!(topk_bits(&signed, &BitCodes::pack(&signed), 7).unwrap(), found);
        assert!((0..300).all(|i| found.scores.row(i)[0] == 0));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_and_nothing_is_found_in_nothing() {
        let (queries, points) = (bits(1, 3, 4, 1.0), bits(2, 5, 4, 1.0));
        let packed = BitCodes::pack(&points);
        assert_eq!((packed.rows(), packed.cols()), (5, 4));
        assert!(topk_bits(&queries, &packed, 6).unwrap_err().to_string().contains("at most 5 points"));
        let wide = topk_bits(&bits(1, 3, 5, 1.0), &packed, 1);
        assert!(wide.unwrap_err().to_string().contains("4 columns"));
        for (queries, points, k) in [(3, 5, 0), (0, 5, 2), (3, 0, 0), (0, 0, 0)] {
            check_exact(&bits(1, queries, 4, 1.0), &bits(2, points, 4, 1.0), k);
        }
        // Rows of no bits are all equal.
        check_exact(&Matrix::zeros(3, 0), &Matrix::zeros(40, 0), 4);
    }

    /// Prints how many distances a second each path makes on one thread, at its fastest:
    /// `cargo test --release -p thema-kernels bits -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, not a test"]
    fn speed() {
        let (queries, points) = (bits(1, 96, 48, 1.0), bits(2, 100_000, 48, 1.0));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for path in Path::available() {
            let points = BitCodes::pack_for(path, &points);
            for k in [1, 10, 100] {
                let run = || {
                    let start = std::time::Instant::now();
                    std::hint::black_box(topk_bits(&queries, &points, k).unwrap());
                    start.elapsed().as_secs_f64()
                };
                let fastest = pool.install(|| (0..100).map(|_| run()).fold(f64::INFINITY, f64::min));
                println!("{path:?}, k = {k}: {:.2} distances a nanosecond", 96e5 / fastest / 1e9);
            }
        }
    }
}
