//! Nearest rows by cosine among many points, nearly all of them: an inverted file, searched until a recall is reached.
//!
//! The points are parted into cells around centroids (spherical k-means on a sample), and a query is compared with the
//! points of the cells that it is nearest to: by 8-bit codes, of which a half more than k and [`SPARE`] are measured in
//! f32. How many cells that takes nobody has to know: the exact neighbours of a sample of points say which cells hold
//! them, other points then show the recall, and more cells are searched until it is reached, at the utmost all. (Sivic
//! and Zisserman, "Video Google", 2003; Jégou, Douze and Schmid, "Product quantization for nearest neighbor search",
//! 2011; FAISS's `IndexIVF`.)
//!
//! - Recall: the share of the k − 1 nearest others of a point that are found, or others as near. It is estimated by a
//!   thousand points, and holds for queries like the points and up to the k asked for, not for others.
//! - Order: best first, equal cosines by the smaller row among those found; a query's answer depends on the query and
//!   the points alone.
//! - Cells: [`CELLS`]·√n. Of 12,500 to 103,394 abstracts of papers 20 to 10 % are searched for 15 neighbours, 32 to 16
//!   % for 100. Where points lie evenly all are; where most are equal, their cell is searched whole for each of them.
//! - Cost: 2·n·d operations on bytes for each of the cells twice, 2·d for each point compared, and 2·n·d for each of
//!   the 2,000 points of both samples; memory: a float and a byte (cells rounded up to whole panels of 32) for each
//!   value of the points, and another byte while they are sorted.

use super::best::Best;
use super::codes::{better, topk_codes_on};
use super::screened::{Screen, Screened, search_all};
use super::{Codes, Neighbours, check, each_block};
use crate::codes::{BLOCK, CodePanels, CodeRows, Multiplier};
use crate::layout::mix64;
use crate::norm::{l2_normalise, unit_rows};
use crate::{Error, Isa, Matrix, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Cells for each square root of a point.
const CELLS: f64 = 3.0;

/// Points of the sample for each centroid, and rounds that move the centroids: cells need not be the best there are.
const SAMPLE_PER_CELL: usize = 40;
const ROUNDS: usize = 4;

/// Points whose exact neighbours say how many cells to search; as many others show what recall that gives.
const CALIBRATING: usize = 1000;

/// The part of what recall may miss that the first sample gives up: the rest is for the difference between samples, and
/// for neighbours that codes miss.
const MARGIN: f64 = 0.75;

/// Candidates beyond 1.5 k.
const SPARE: usize = 16;

/// The most queries of one task. More share each cell's points.
const TASK: usize = 1024;

/// Points in cells.
#[derive(Debug, Clone)]
pub struct InvertedFile {
    isa: Isa,
    unit: Matrix<f32>,
    screen: Screen,
    centroids: Codes,
    cells: Cells,
    /// How many cells a query is compared with.
    probes: usize,
    recall: f64,
}

/// The codes of points, cell by cell.
#[derive(Debug, Clone)]
struct Cells {
    /// Each cell begins a panel; columns behind its last point are zero.
    panels: CodePanels,
    /// 128 · Σ codes of each column, as in [`Codes`].
    offsets: Vec<i32>,
    /// The point of each column.
    points: Vec<u32>,
    /// Each cell's first panel, and how many points it has.
    starts: Vec<usize>,
    sizes: Vec<usize>,
}

impl InvertedFile {
    /// Takes the rows of `points` (n × d) and finds how to search for the `k` nearest of each, itself among them, at
    /// `recall`, of 0 to 1. Asks `go_on` between its steps whether to.
    ///
    /// # Errors
    /// `Shape` if `k` is 0 or above n, or `recall` is no share; a value that is no finite number; `Stopped`.
    pub fn try_new(points: &Matrix<f32>, k: usize, recall: f64, go_on: &dyn Fn() -> bool) -> Result<Self> {
        Self::try_on(Isa::detect(), points, k, recall, go_on)
    }

    fn try_on(
        isa: Isa,
        points: &Matrix<f32>,
        k: usize,
        recall: f64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Self> {
        check(points.cols(), points.cols(), points.rows(), k)?;
        if k == 0 {
            return Err(Error::Shape { what: "k", expected: "at least 1".into(), found: "0".into() });
        }
        if !(0.0..=1.0).contains(&recall) {
            let (what, expected) = ("recall", "a share from 0 to 1".into());
            return Err(Error::Shape { what, expected, found: recall.to_string() });
        }
        points.check_finite()?;
        let unit = unit_rows(points);
        let (screen, codes) = Screen::try_new(isa, &unit)?;
        let check = || if go_on() { Ok(()) } else { Err(Error::Stopped("the search for neighbours")) };
        let centroids = centroids(isa, &screen, &unit, &codes, &check)?;
        let packed = Codes::pack(&screen.scale.codes(&centroids)?);
        check()?;
        let homes = topk_codes_on(isa, &codes, &packed, 1)?.indices.into_vec();
        // Cells that nobody is in (those of centroids that are equal, say) would be searched for nothing.
        let mut taken = homes.clone();
        taken.sort_unstable();
        taken.dedup();
        let place = |cell: &u32| taken.partition_point(|other| other < cell) as u32; // fewer than cells
        let homes: Vec<u32> = homes.iter().map(place).collect();
        let centroids = Codes::pack(&screen.scale.codes(&centroids.gather(&taken))?);
        check()?;
        let cells = Cells::pack(&codes, &homes, taken.len());
        let mut file = Self { isa, unit, screen, centroids, cells, probes: taken.len(), recall: 1.0 };
        file.calibrate(&codes, &homes, k, recall, &check)?;
        Ok(file)
    }

    /// How many cells `points` points are parted into, at most.
    pub fn cells_for(points: usize) -> usize {
        ((CELLS * (points as f64).sqrt()) as usize).clamp(1, points.max(1))
    }

    /// All points, cell by cell: queries that are near each other and asked for together go faster.
    pub fn order(&self) -> Vec<u32> {
        let points =
            |cell| self.cells.panels_of(cell).flat_map(move |panel| self.cells.points_of(cell, panel));
        (0..self.cells()).flat_map(points).copied().collect()
    }

    /// How many candidates by code are measured for `k` neighbours.
    pub fn candidates(k: usize) -> usize {
        k + k / 2 + SPARE
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.cells.sizes.len()
    }

    /// How many cells each query is compared with.
    pub fn probes(&self) -> usize {
        self.probes
    }

    /// The share of the k − 1 nearest others that was found for a sample of the points, k as it was asked for.
    pub fn recall(&self) -> f64 {
        self.recall
    }

    /// Returns `k` rows of the largest cosine for each row of `queries`, best first, ties by index. [`Self::recall`]
    /// is that of points as queries and of as many neighbours as the file was made for.
    ///
    /// # Errors
    /// `Shape` if the columns differ, or `k` is larger than the number of points; a query that is no finite number.
    pub fn topk(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        check(queries.cols(), self.unit.cols(), self.unit.rows(), k)?;
        queries.check_finite()?;
        let queries = unit_rows(queries);
        let codes = self.screen.scale.codes(&queries)?;
        self.search(&queries, &codes, k, self.probes)
    }

    /// Sets how many cells to search, and what recall that gives. `homes` holds each point's cell; `check` comes before
    /// each search.
    fn calibrate(
        &mut self,
        codes: &Matrix<i8>,
        homes: &[u32],
        k: usize,
        recall: f64,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let (n, all) = (self.unit.rows(), self.cells());
        let samples = CALIBRATING.min(n.div_ceil(2));
        let rows = spread(2 * samples, n);
        let sample = |second: usize| -> Vec<u32> { rows.iter().copied().skip(second).step_by(2).collect() };

        check()?;
        let rows = sample(0);
        let (queries, query_codes) = (self.unit.gather(&rows), codes.gather(&rows));
        let near = self.search(&queries, &query_codes, k, all)?;
        let order = topk_codes_on(self.isa, &query_codes, &self.centroids, all)?.indices;
        // How many cells it takes to come to each neighbour.
        let takes = (0..samples).into_par_iter().flat_map_iter(|i| {
            let mut places = vec![0; all];
            order.row(i).iter().zip(1..).for_each(|(&cell, place)| places[cell as usize] = place);
            near.indices.row(i).iter().map(move |&point| places[homes[point as usize] as usize])
        });
        let mut takes: Vec<usize> = takes.collect();
        takes.sort_unstable();
        let given_up = ((1.0 - recall) * MARGIN * takes.len() as f64) as usize;
        self.probes = takes[takes.len() - 1 - given_up.min(takes.len() - 1)];

        check()?;
        let rows = sample(1);
        let (queries, query_codes) = (self.unit.gather(&rows), codes.gather(&rows));
        let near = self.search(&queries, &query_codes, k, all)?;
        loop {
            check()?;
            let found = self.search(&queries, &query_codes, k, self.probes)?;
            self.recall = recall_of(&found.scores, &near.scores, self.unit.cols());
            if self.recall >= recall || self.probes == all {
                return Ok(());
            }
            self.probes = (self.probes + self.probes.div_ceil(4)).min(all);
        }
    }

    /// Searches the `probes` cells that each query is nearest to.
    fn search(
        &self,
        queries: &Matrix<f32>,
        codes: &Matrix<i8>,
        k: usize,
        probes: usize,
    ) -> Result<Neighbours<f32>> {
        let (n, m) = (self.unit.rows(), queries.rows());
        let mut found = Neighbours { indices: Matrix::zeros(m, k), scores: Matrix::zeros(m, k) };
        if k == 0 {
            return Ok(found);
        }
        let probed = topk_codes_on(self.isa, codes, &self.centroids, probes)?.indices;
        let all = probes == self.cells();
        let wanted = if all { Screened::candidates(k) } else { Self::candidates(k) }.min(n);
        let task = m.div_ceil(2 * rayon::current_num_threads()).clamp(BLOCK, TASK);
        let open = Mutex::new(Vec::new());
        each_block(&mut found, task, |first, indices, scores| {
            let rows = first..first + indices.len() / k;
            let best = self.scan(codes, &probed, rows.clone(), wanted);
            let (mut points, mut products) = (vec![0; wanted], vec![0; wanted]);
            let places = indices.chunks_exact_mut(k).zip(scores.chunks_exact_mut(k));
            for ((i, best), (indices, scores)) in rows.zip(best).zip(places) {
                let count = best.finish(&mut points, &mut products);
                let candidates = (&points[..count], &products[..count]);
                let query = (queries.row(i), codes.row(i));
                let (best, is_certain) = self.screen.measure(self.isa, &self.unit, query, candidates, k);
                // Those that all cells leave open, and those whose cells have fewer than k points.
                if (all && !is_certain) || best.len() < k {
                    open.lock().unwrap_or_else(PoisonError::into_inner).push(i as u32);
                }
                for ((index, score), (cosine, point)) in indices.iter_mut().zip(scores).zip(best) {
                    (*index, *score) = (point, cosine);
                }
            }
        });
        let open = open.into_inner().unwrap_or_else(PoisonError::into_inner);
        search_all(self.isa, queries, &self.unit, &open, &mut found);
        Ok(found)
    }

    /// The best candidates of each of the queries `rows`, as many as `wanted`, from the cells that they probe.
    fn scan(
        &self,
        codes: &Matrix<i8>,
        probed: &Matrix<u32>,
        rows: Range<usize>,
        wanted: usize,
    ) -> Vec<Best<i32>> {
        let mut best: Vec<Best<i32>> = rows.clone().map(|_| Best::new(wanted)).collect();
        let mut visitors = vec![Vec::new(); self.cells()];
        for (local, row) in rows.clone().enumerate() {
            probed.row(row).iter().for_each(|&cell| visitors[cell as usize].push(local));
        }
        let unsigned: Vec<u8> =
            rows.clone().flat_map(|row| codes.row(row)).map(|code| *code as u8 ^ 0x80).collect();
        let multiplier = Multiplier::new(self.isa);
        let mut visiting = CodeRows::default();
        for (cell, visitors) in visitors.iter().enumerate() {
            for visitors in visitors.chunks(BLOCK) {
                visiting.resize(visitors.len(), codes.cols());
                let mut thresholds = [0; BLOCK];
                for (row, (&local, threshold)) in visitors.iter().zip(&mut thresholds).enumerate() {
                    visiting.row_mut(row).copy_from_slice(&unsigned[local * codes.cols()..][..codes.cols()]);
                    *threshold = best[local].threshold();
                }
                let pairs = self.cells.panels_of(cell).map(|panel| (0, panel));
                multiplier.stream(&visiting, &self.cells.panels, pairs, |panel, rows, block| {
                    let points = self.cells.points_of(cell, panel);
                    let offsets = &self.cells.offsets[panel * BLOCK..][..points.len()];
                    let marks = better(self.isa, block, offsets, &thresholds[rows.clone()]);
                    let rows = rows.zip(block).zip(marks);
                    for ((row, sums), mut better) in rows.filter(|(_, marks)| *marks != 0) {
                        let best = &mut best[visitors[row]];
                        while better != 0 {
                            let column = better.trailing_zeros() as usize;
                            better &= better - 1;
                            best.push(sums[column].wrapping_sub(offsets[column]), points[column]);
                        }
                        thresholds[row] = best.threshold();
                    }
                });
            }
        }
        best
    }
}

impl Cells {
    /// Packs the rows of `codes`, of which each lies in the cell that `homes` names, of `count`.
    fn pack(codes: &Matrix<i8>, homes: &[u32], count: usize) -> Self {
        let mut sizes = vec![0; count];
        homes.iter().for_each(|&cell| sizes[cell as usize] += 1);
        let mut starts = Vec::with_capacity(count);
        let mut panel = 0;
        for size in &sizes {
            starts.push(panel);
            panel += usize::div_ceil(*size, BLOCK);
        }
        let mut panels = CodePanels::default();
        panels.clear(panel * BLOCK, codes.cols());
        let mut points = vec![0; panel * BLOCK];
        let mut next: Vec<usize> = starts.iter().map(|panel| panel * BLOCK).collect();
        for ((point, &cell), codes) in (0..).zip(homes).zip(codes.iter_rows()) {
            let column = &mut next[cell as usize];
            panels.write_column(*column, codes);
            points[*column] = point;
            *column += 1;
        }
        let offsets = panels.sums().iter().map(|sum| 128 * sum).collect();
        Self { panels, offsets, points, starts, sizes }
    }

    /// The panels of a cell.
    fn panels_of(&self, cell: usize) -> Range<usize> {
        self.starts[cell]..self.starts[cell] + self.sizes[cell].div_ceil(BLOCK)
    }

    /// A cell's points in one of its panels.
    fn points_of(&self, cell: usize, panel: usize) -> &[u32] {
        let end = self.starts[cell] * BLOCK + self.sizes[cell];
        &self.points[panel * BLOCK..end.min((panel + 1) * BLOCK)]
    }
}

/// Rows spread over `n`, one drawn from each of `count` equal parts: rows may come in some rhythm.
fn spread(count: usize, n: usize) -> Vec<u32> {
    let first = |part: usize| part * n / count;
    let row = |part: usize| {
        let room = (first(part + 1) - first(part)).max(1);
        (first(part) + mix64(part as u64) as usize % room).min(n - 1) as u32
    };
    (0..count).map(row).collect()
}

/// Finds centroids of the points, of length 1, by k-means on points spread over all; `check` comes before each round.
fn centroids(
    isa: Isa,
    screen: &Screen,
    unit: &Matrix<f32>,
    codes: &Matrix<i8>,
    check: &dyn Fn() -> Result<()>,
) -> Result<Matrix<f32>> {
    let (n, dim) = (unit.rows(), unit.cols());
    let count = InvertedFile::cells_for(n);
    let samples = (SAMPLE_PER_CELL * count).min(n);
    let rows = spread(samples, n);
    let sample = codes.gather(&rows);
    let first: Vec<u32> = (0..count).map(|i| rows[i * samples / count]).collect();
    let mut centroids = unit.gather(&first);
    for _ in 0..ROUNDS {
        check()?;
        let packed = Codes::pack(&screen.scale.codes(&centroids)?);
        let nearest = topk_codes_on(isa, &sample, &packed, 1)?.indices;
        let mut members = vec![Vec::new(); count];
        nearest.as_slice().iter().zip(&rows).for_each(|(&cell, &row)| members[cell as usize].push(row));
        centroids.as_mut_slice().par_chunks_mut(dim.max(1)).zip(&members).for_each(|(centroid, members)| {
            // One that nobody is nearest to stays where it is.
            if !members.is_empty() {
                centroid.fill(0.0);
                for &member in members {
                    centroid.iter_mut().zip(unit.row(member as usize)).for_each(|(sum, v)| *sum += v);
                }
                l2_normalise(isa, centroid, dim);
            }
        });
    }
    Ok(centroids)
}

/// The share of the k − 1 nearest others of points that were found, or others as near: one of each point's k is itself.
/// Both hold cosines of vectors of `dim` values, best first.
fn recall_of(found: &Matrix<f32>, exact: &Matrix<f32>, dim: usize) -> f64 {
    let k = exact.cols();
    if k < 2 {
        return 1.0;
    }
    let hits = found.iter_rows().zip(exact.iter_rows()).map(|(found, exact)| {
        // Both are sums of products of numbers below 1, in different orders.
        let least = exact[k - 1] - dim as f32 * f32::EPSILON;
        found.iter().filter(|cosine| **cosine >= least).count().saturating_sub(1)
    });
    hits.sum::<usize>() as f64 / ((k - 1) * exact.rows()) as f64
}

#[cfg(test)]
mod tests {
    use super::super::{Metric, topk};
    use super::*;
    use crate::random::uniform;

    /// Points around a few hundred directions, as texts lie around topics.
    fn topics(points: usize, dim: usize) -> Matrix<f32> {
        let (centres, noise) = (uniform(1, 300 * dim), uniform(2, points * dim));
        let near = noise.iter().enumerate().map(|(i, v)| {
            let (point, d) = (i / dim, i % dim);
            centres[point * 7 % 300 * dim + d] + 0.5 * v
        });
        Matrix::try_from_vec(points, dim, near.collect()).unwrap()
    }

    fn exact(points: &Matrix<f32>, k: usize) -> Neighbours<f32> {
        topk(points, points, k, Metric::Cosine).unwrap()
    }

    /// The recall of all points.
    fn true_recall(file: &InvertedFile, points: &Matrix<f32>, k: usize) -> f64 {
        recall_of(&file.topk(points, k).unwrap().scores, &exact(points, k).scores, points.cols())
    }

    fn file_of(points: &Matrix<f32>, k: usize, recall: f64) -> Result<InvertedFile> {
        InvertedFile::try_new(points, k, recall, &|| true)
    }

    #[test]
    fn the_recall_wanted_is_reached_and_what_is_said_of_it_is_true() {
        let points = topics(6000, 24);
        let mut probes = Vec::new();
        for (k, recall) in [(2, 0.99), (15, 0.9), (15, 0.99), (100, 0.99)] {
            let file = file_of(&points, k, recall).unwrap();
            assert!(file.recall() >= recall, "{} of {recall} for k = {k}", file.recall());
            // Four deviations of a thousand points' mean, whose shares spread as a single neighbour's at most.
            let spread = 4.0 * (recall * (1.0 - recall) / 1000.0).sqrt();
            let found = true_recall(&file, &points, k);
            assert!((found - file.recall()).abs() < spread, "{found}, said to be {}", file.recall());
            assert!(file.probes() < file.cells() / 2, "{} of {}", file.probes(), file.cells());
            probes.push(file.probes());
        }
        assert!(probes[1] < probes[2] && probes[2] < probes[3], "{probes:?}");
    }

    #[test]
    fn points_without_any_structure_are_compared_with_nearly_all() {
        let points = Matrix::try_from_vec(1500, 64, uniform(3, 1500 * 64)).unwrap();
        let file = file_of(&points, 10, 1.0).unwrap();
        assert!(10 * file.probes() >= 9 * file.cells(), "{} of {}", file.probes(), file.cells());
        assert_eq!(file.recall(), 1.0);
        assert!(true_recall(&file, &points, 10) > 0.999);
    }

    #[test]
    fn points_that_are_equal_by_the_half_leave_no_cell_empty_and_take_no_more_of_them() {
        let mut points = topics(4000, 24);
        let usual = file_of(&points, 10, 0.99).unwrap();
        for row in (0..4000).step_by(2) {
            points.row_mut(row).fill(1.0);
        }
        let file = file_of(&points, 10, 0.99).unwrap();
        assert!(file.cells.sizes.iter().all(|size| *size > 0));
        assert!(file.cells() < usual.cells() && file.probes() <= usual.probes());
        assert!(true_recall(&file, &points, 10) > 0.98);
    }

    #[test]
    fn rows_of_zeros_and_as_many_neighbours_as_points_are_searched_too() {
        for n in [1, 2, 40] {
            let mut points = topics(n, 8);
            points.row_mut(0).fill(0.0);
            let found = file_of(&points, n, 0.99).unwrap().topk(&points, n).unwrap();
            let expected = exact(&points, n);
            for (found, expected) in found.scores.as_slice().iter().zip(expected.scores.as_slice()) {
                assert!((found - expected).abs() < 8.0 * f32::EPSILON, "{found} {expected} of {n}");
            }
        }
    }

    #[test]
    fn a_query_has_the_same_answer_in_any_company_on_any_number_of_threads_by_any_instructions() {
        let points = topics(1200, 20);
        let all = file_of(&points, 5, 0.95).unwrap().topk(&points, 5).unwrap();
        for threads in [1, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let again = pool.install(|| file_of(&points, 5, 0.95).unwrap().topk(&points, 5));
            assert_eq!(again.unwrap(), all);
        }
        for isa in Isa::available() {
            let file = InvertedFile::try_on(isa, &points, 5, 0.95, &|| true).unwrap();
            let one = file.topk(&points.gather(&[700]), 5).unwrap();
            assert_eq!(one.indices.row(0), all.indices.row(700), "{}", isa.name());
            assert_eq!(one.scores.row(0), all.scores.row(700), "{}", isa.name());
        }
    }

    #[test]
    fn preparing_stops_between_any_two_steps() {
        let points = topics(900, 8);
        let steps = std::cell::Cell::new(0);
        let prepare = |stop_at: usize| {
            steps.set(0);
            InvertedFile::try_new(&points, 4, 0.9, &|| steps.replace(steps.get() + 1) < stop_at)
        };
        assert!(prepare(usize::MAX).is_ok());
        for stop_at in 0..steps.get() {
            assert!(matches!(prepare(stop_at), Err(Error::Stopped(_))), "step {stop_at}");
        }
    }

    #[test]
    fn equal_points_are_found_in_the_order_of_their_rows() {
        let points = Matrix::try_from_vec(900, 2, [1.0, 0.5].repeat(900)).unwrap();
        let found = file_of(&points, 4, 0.99).unwrap().topk(&points, 4).unwrap();
        assert!((0..900).all(|query| found.indices.row(query) == [0, 1, 2, 3]));
    }

    #[test]
    fn cells_with_fewer_points_than_are_asked_for_leave_the_query_to_a_full_search() {
        let points = topics(500, 16);
        let file = file_of(&points, 1, 0.5).unwrap();
        assert!(file.cells.sizes.iter().max().unwrap() * file.probes() < 400);
        let (found, expected) = (file.topk(&points, 400).unwrap(), exact(&points, 400));
        for (found, expected) in found.scores.as_slice().iter().zip(expected.scores.as_slice()) {
            assert!((found - expected).abs() < 16.0 * f32::EPSILON, "{found} {expected}");
        }
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let points = topics(50, 4);
        let file = file_of(&points, 3, 0.99).unwrap();
        assert!(file.topk(&topics(1, 3), 1).unwrap_err().to_string().contains("4 columns"));
        assert!(file.topk(&points, 51).unwrap_err().to_string().contains("at most 50 points"));
        assert!(file_of(&points, 51, 0.99).is_err());
        for recall in [-0.1, 1.1, f64::NAN] {
            let refused = file_of(&points, 3, recall).unwrap_err().to_string();
            assert!(refused.contains("a share from 0 to 1"), "{refused}");
        }
        assert!(file_of(&points, 0, 0.99).unwrap_err().to_string().contains("at least 1"));
        let mut broken = points.clone();
        broken.row_mut(3)[1] = f32::NAN;
        assert!(file_of(&broken, 3, 0.99).unwrap_err().to_string().contains("row 3, column 1"));
        assert!(file.topk(&broken, 1).is_err());
    }
}
