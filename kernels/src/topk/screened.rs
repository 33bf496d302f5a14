//! Exact nearest rows by cosine, screened by 8-bit codes.
//!
//! - Codes ([`crate::search_codes`]) give 3k + [`SPARE`] candidates for each query, best first. Of a vector x let x̂ be
//!   what its codes stand for and e = x − x̂. Then |q·p − q̂·p̂| ≤ ‖e_q‖ ‖p̂‖ + ‖q‖ ‖e_p‖, and with the largest ‖p̂‖
//!   and ‖e_p‖ of all points there is one bound E for each query. Candidates are measured in f32, in order, until the
//!   next one's code product plus E cannot reach the k-th best: no other point can either.
//! - A query whose candidates end before that (many points within E of each other) is searched for among all, in f32.
//! - Order: best first, equal cosines by the smaller row. The same bits for any number of threads and any order of
//!   queries.
//! - Cost: 2·q·n·d operations on bytes, a few times k·d on floats for each query; memory: a float and a byte for each
//!   value of the points. Where there are no fast products of bytes, all is done in f32 from the start: two floats, and
//!   no codes.

use super::codes::topk_codes_on;
use super::{Codes, FEW_QUERIES, Neighbours, Points, check, largest, pack, rank};
use crate::codes::are_fast;
use crate::gemm::Packed;
use crate::norm::{dot, unit_rows};
use crate::search_codes::SearchScale;
use crate::{
    Isa, Matrix, Result,
    simd::{dispatch, prefetch},
};
use rayon::prelude::*;
use std::sync::OnceLock;

/// Candidates beyond 3k. Of 25,000 abstracts (E about .026) the hardest of 400 queries needs 84 in all for k = 15, and
/// 304 for k = 100.
const SPARE: usize = 64;

/// Queries of a search without codes whose candidates are held at once.
const AT_A_TIME: usize = 4096;

/// Candidates that are fetched ahead of the one that is measured.
const AHEAD: usize = 4;

/// Points, ready to be searched by code.
#[derive(Debug, Clone)]
pub struct Screened {
    isa: Isa,
    unit: Matrix<f32>,
    /// None where there are no fast products of bytes.
    screen: Option<(Screen, Codes)>,
    /// The points as a search without codes needs them, packed by the first one.
    packed: OnceLock<Packed>,
}

/// What codes of unit rows stand for, and how far they are off.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    pub(crate) scale: SearchScale,
    /// The largest ‖p̂‖.
    length: f64,
    /// The largest ‖e_p‖.
    error: f64,
}

impl Screen {
    /// Makes the codes of `unit` (n × d, rows of length 1).
    pub(crate) fn try_new(isa: Isa, unit: &Matrix<f32>) -> Result<(Self, Matrix<i8>)> {
        let scale = SearchScale::of(unit)?;
        let codes = scale.codes(unit)?;
        let lengths: Vec<[f64; 2]> = (0..unit.rows())
            .into_par_iter()
            .map(|i| lengths(isa, unit.row(i), codes.row(i), scale))
            .collect();
        let [length, error] = lengths.iter().fold([0f64; 2], |[a, b], [c, d]| [a.max(*c), b.max(*d)]);
        Ok((Self { scale, length, error }, codes))
    }

    /// By how much the cosine of a query (of length 1, with its codes) and a point may differ from what the product of
    /// their codes stands for.
    pub(crate) fn bound(&self, isa: Isa, query: &[f32], codes: &[i8]) -> f64 {
        let [_, error] = lengths(isa, query, codes, self.scale);
        error * self.length + self.error + rounding(query.len())
    }

    /// Measures candidates (points of `unit` and the products of their codes with `codes`, the query's, best first)
    /// until no later one can be among the `k` nearest. Returns these with their cosines, best first, and whether the
    /// candidates sufficed to say so.
    pub(super) fn measure(
        &self,
        isa: Isa,
        unit: &Matrix<f32>,
        (query, codes): (&[f32], &[i8]),
        (points, products): (&[u32], &[i32]),
        k: usize,
    ) -> (Vec<(f32, u32)>, bool) {
        let bound = self.bound(isa, query, codes);
        let most = |at: usize| self.scale.similarity(f64::from(products[at])) + bound;
        measure(isa, unit, query, points, most, k)
    }
}

/// What rounding may add to a product of rows of length 1 in f32, whatever the order of its sum.
fn rounding(cols: usize) -> f64 {
    2.0 * cols as f64 * f64::from(f32::EPSILON)
}

/// Measures candidates (rows of `unit`; `most` is the largest cosine that the one at a place may have, falling) until no
/// later one can be among the `k` nearest. Returns these with their cosines, best first, and whether the candidates
/// sufficed to say so.
///
/// A cosine is always that of [`dot`]: what finds the candidates, and on which instruction set, changes no bit of it.
fn measure(
    isa: Isa,
    unit: &Matrix<f32>,
    query: &[f32],
    points: &[u32],
    most: impl Fn(usize) -> f64,
    k: usize,
) -> (Vec<(f32, u32)>, bool) {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
    // Rows come from far away: the first ones are on their way before the first is measured.
    let fetch = |at: usize| {
        if let Some(point) = points.get(at) {
            prefetch(unit.row(*point as usize));
        }
    };
    (0..AHEAD).for_each(fetch);
    for (at, &point) in points.iter().enumerate() {
        fetch(at + AHEAD);
        if best.len() == k && most(at) < f64::from(best[k - 1].0) {
            return (best, true);
        }
        let measured = (dot(isa, query, unit.row(point as usize)), point);
        let at = best.partition_point(|other| rank(other, &measured).is_lt());
        if at < k {
            best.insert(at, measured);
            best.truncate(k);
        }
    }
    (best, points.len() == unit.rows())
}

/// Measures what a search by products in f32 has found of each of `queries`; returns the `k` nearest with their
/// cosines, best first.
fn measure_found(
    isa: Isa,
    unit: &Matrix<f32>,
    queries: &Matrix<f32>,
    searched: &Neighbours<f32>,
    k: usize,
) -> Vec<Vec<(f32, u32)>> {
    let rounding = rounding(unit.cols());
    let of = |row: usize| {
        let (query, scores) = (queries.row(row), searched.scores.row(row));
        let most = |at: usize| f64::from(scores[at]) + rounding;
        let (best, is_certain) = measure(isa, unit, query, searched.indices.row(row), most, k);
        if is_certain {
            return best;
        }
        // More points than were taken are as near as rounding can tell: all are measured.
        let all: Vec<u32> = (0..unit.rows() as u32).collect();
        measure(isa, unit, query, &all, |_| f64::INFINITY, k).0
    };
    (0..queries.rows()).into_par_iter().map(of).collect()
}

impl Screened {
    /// Takes the rows of `points` (n × d); fails at a value that is no finite number.
    pub fn try_new(points: &Matrix<f32>) -> Result<Self> {
        Self::try_on(Isa::detect(), points)
    }

    /// How many candidates by code are taken for `k` neighbours.
    pub fn candidates(k: usize) -> usize {
        3 * k + SPARE
    }

    fn try_on(isa: Isa, points: &Matrix<f32>) -> Result<Self> {
        points.check_finite()?;
        let unit = unit_rows(points);
        let screen = if are_fast(isa) {
            let (screen, codes) = Screen::try_new(isa, &unit)?;
            Some((screen, Codes::pack(&codes)))
        } else {
            None
        };
        Ok(Self { isa, unit, screen, packed: OnceLock::new() })
    }

    /// Returns the `k` rows of the largest cosine for each row of `queries`, best first, ties by index.
    ///
    /// # Errors
    /// `Shape` if the columns differ, or `k` is larger than the number of points; a query that is no finite number.
    pub fn topk(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        check(queries.cols(), self.unit.cols(), self.unit.rows(), k)?;
        queries.check_finite()?;
        let queries = unit_rows(queries);
        match &self.screen {
            Some((screen, codes)) if k > 0 => Ok(self.screened(screen, codes, &queries, k)?.0),
            _ => {
                let packed = self.packed.get_or_init(|| pack(&self.unit));
                let taken = (k + SPARE).min(self.unit.rows());
                let mut found = Neighbours {
                    indices: Matrix::zeros(queries.rows(), k),
                    scores: Matrix::zeros(queries.rows(), k),
                };
                // Some at a time, so that few candidates are held beside what is found.
                let all: Vec<u32> = (0..queries.rows() as u32).collect();
                for some in all.chunks(AT_A_TIME) {
                    let part = queries.gather(some);
                    let searched = largest(self.isa, &part, Points::Packed(packed), taken, None);
                    write(measure_found(self.isa, &self.unit, &part, &searched, k), some, &mut found);
                }
                Ok(found)
            }
        }
    }

    /// Searches by code, k at least 1, and among all for what that leaves open; says for how many queries.
    fn screened(
        &self,
        screen: &Screen,
        points: &Codes,
        queries: &Matrix<f32>,
        k: usize,
    ) -> Result<(Neighbours<f32>, usize)> {
        let isa = self.isa;
        let codes = screen.scale.codes(queries)?;
        let candidates = topk_codes_on(isa, &codes, points, Self::candidates(k).min(points.rows()))?;
        let mut found = Neighbours {
            indices: Matrix::zeros(queries.rows(), k),
            scores: Matrix::zeros(queries.rows(), k),
        };
        let rows =
            found.indices.as_mut_slice().par_chunks_mut(k).zip(found.scores.as_mut_slice().par_chunks_mut(k));
        let is_certain = rows.enumerate().map(|(i, (indices, scores))| {
            let query = (queries.row(i), codes.row(i));
            let candidates = (candidates.indices.row(i), candidates.scores.row(i));
            let (best, is_certain) = screen.measure(isa, &self.unit, query, candidates, k);
            for ((index, score), (cosine, point)) in indices.iter_mut().zip(scores).zip(best) {
                (*index, *score) = (point, cosine);
            }
            is_certain
        });
        let is_certain: Vec<bool> = is_certain.collect();
        let open: Vec<u32> = (0..queries.rows() as u32).filter(|&i| !is_certain[i as usize]).collect();
        search_all(isa, queries, &self.unit, &open, &mut found);
        Ok((found, open.len()))
    }
}

/// Searches all of `unit` for the queries `open`, by products in f32, and writes what is found over theirs.
pub(crate) fn search_all(
    isa: Isa,
    queries: &Matrix<f32>,
    unit: &Matrix<f32>,
    open: &[u32],
    found: &mut Neighbours<f32>,
) {
    // Few at a time, for which the points are not packed, and so not held, again.
    for open in open.chunks(FEW_QUERIES) {
        let (part, k) = (queries.gather(open), found.indices.cols());
        let searched = largest(isa, &part, Points::Rows(unit), (k + SPARE).min(unit.rows()), None);
        write(measure_found(isa, unit, &part, &searched, k), open, found);
    }
}

/// Writes what was found of some queries over the rows `places`.
fn write(best: Vec<Vec<(f32, u32)>>, places: &[u32], found: &mut Neighbours<f32>) {
    for (best, &place) in best.into_iter().zip(places) {
        let indices = found.indices.row_mut(place as usize).iter_mut();
        let scores = found.scores.row_mut(place as usize).iter_mut();
        for ((index, score), (cosine, point)) in indices.zip(scores).zip(best) {
            (*index, *score) = (point, cosine);
        }
    }
}

/// ‖x̂‖ and ‖x − x̂‖, x̂ what `codes` stand for.
fn lengths(isa: Isa, x: &[f32], codes: &[i8], scale: SearchScale) -> [f64; 2] {
    #[inline(always)]
    fn body(x: &[f32], codes: &[i8], step: f32) -> [f32; 2] {
        let (mut lengths, mut errors) = ([0f32; LANES], [0f32; LANES]);
        for (x, codes) in x.chunks(LANES).zip(codes.chunks(LANES)) {
            for (i, (x, code)) in x.iter().zip(codes).enumerate() {
                let stands_for = f32::from(*code) * step;
                lengths[i] = stands_for.mul_add(stands_for, lengths[i]);
                errors[i] = (x - stands_for).mul_add(x - stands_for, errors[i]);
            }
        }
        [lengths.iter().sum(), errors.iter().sum()]
    }
    let step = 1.0 / scale.get();
    dispatch!(isa, body(x: &[f32], codes: &[i8], step: f32) -> [f32; 2])
        .map(|square| f64::from(square).sqrt())
}

/// Sums side by side: one register of AVX-512.
const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::{Metric, topk};
    use super::*;
    use crate::random::uniform;

    fn matrix(seed: u64, rows: usize, cols: usize) -> Matrix<f32> {
        Matrix::try_from_vec(rows, cols, uniform(seed, rows * cols)).unwrap()
    }

    /// Checks that every instruction set finds the cosines that a full search finds.
    fn check_exact(queries: &Matrix<f32>, points: &Matrix<f32>, k: usize) {
        let exact = topk(queries, points, k, Metric::Cosine).unwrap();
        for isa in Isa::available() {
            let found = Screened::try_on(isa, points).unwrap().topk(queries, k).unwrap();
            let here = Screened::try_new(points).unwrap().topk(queries, k).unwrap();
            assert!(found == here, "other bits on {}, k = {k}", isa.name());
            for (found, exact) in found.scores.as_slice().iter().zip(exact.scores.as_slice()) {
                // Both are sums of products of numbers below 1, in different orders.
                let rounding = points.cols() as f32 * f32::EPSILON;
                assert!((found - exact).abs() < rounding, "{found} {exact}, k = {k} on {}", isa.name());
            }
        }
    }

    #[test]
    fn the_cosines_are_those_of_a_full_search() {
        // Uniform values: near and far points differ little, so that many queries stay open.
        for (points, k) in [(1, 1), (300, 3), (3000, 1), (3000, 10), (3000, 100)] {
            check_exact(&matrix(2, 100, 64), &matrix(1, points, 64), k);
        }
    }

    #[test]
    fn points_closer_than_the_codes_can_tell_are_searched_among_all() {
        // A thousand points within half a hundredth of one direction: their cosines differ by a tenth of what a code is
        // off, and still by fifty times what rounding is.
        let noise = matrix(3, 1000, 16);
        let values = noise.as_slice().iter().enumerate().map(|(i, v)| (i % 16) as f32 / 16.0 + 0.005 * v);
        let points = Matrix::try_from_vec(1000, 16, values.collect()).unwrap();
        check_exact(&points, &points, 5);
    }

    #[test]
    fn a_point_that_codes_understate_as_far_as_they_can_is_found() {
        // In steps of a code, which the last point makes 1/127 of a unit row. The first is nearer than the second,
        // whose product of codes is larger, and only nearly all of the bound brings it back.
        let find = |query: Vec<f32>, points: [Vec<f32>; 3]| {
            let cols = query.len();
            let query = Matrix::try_from_vec(1, cols, query).unwrap();
            let points = Matrix::try_from_vec(3, cols, points.concat()).unwrap();
            check_exact(&query, &points, 1);
            assert_eq!(Screened::try_new(&points).unwrap().topk(&query, 1).unwrap().indices.as_slice(), [0]);
        };
        let row = |first: [f32; 2], rest: [f32; 2]| [first.to_vec(), rest.repeat(24)].concat();
        // All that the point's codes lose lies along the query.
        let low = [[15.49; 40].as_slice(), &[16.496; 24]].concat();
        let axis = [[127.0].as_slice(), &[0.0; 63]].concat();
        find(vec![1.0; 64], [low, [14.6, 17.055].repeat(32), axis]);
        // And all that the query's codes lose along the point.
        let points =
            [row([110.64, 0.0], [9.0; 2]), row([111.87, 60.1], [0.0; 2]), row([0.0, 127.0], [0.0; 2])];
        find(row([126.95, 0.0], [0.49; 2]), points);
    }

    #[test]
    fn points_that_codes_can_tell_apart_are_not_searched_among_all() {
        // Directions in 64 dimensions, around each of which the 15 nearest are nearer than the others by far.
        let (centres, noise) = (matrix(5, 100, 64), matrix(6, 1500, 64));
        let near = noise.as_slice().iter().enumerate();
        let points = near.map(|(i, v)| centres.as_slice()[i % 6400] + 0.2 * v).collect();
        let points = Matrix::try_from_vec(1500, 64, points).unwrap();
        check_exact(&points, &points, 10);
        let screened = Screened::try_new(&points).unwrap();
        assert_eq!(screened.screen.is_some(), are_fast(Isa::detect()));
        if let Some((screen, codes)) = &screened.screen {
            assert_eq!(screened.screened(screen, codes, &unit_rows(&points), 10).unwrap().1, 0);
        }
    }

    #[test]
    fn equal_points_come_in_the_order_of_their_rows() {
        let points = Matrix::try_from_vec(400, 2, [1.0, 0.5].repeat(400)).unwrap();
        let found = Screened::try_new(&points).unwrap().topk(&points, 3).unwrap();
        assert!((0..400).all(|query| found.indices.row(query) == [0, 1, 2]));
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let points = matrix(1, 5, 4);
        let screened = Screened::try_new(&points).unwrap();
        assert!(screened.topk(&matrix(2, 1, 3), 1).unwrap_err().to_string().contains("4 columns"));
        assert!(screened.topk(&points, 6).unwrap_err().to_string().contains("at most 5 points"));
        let mut broken = points.clone();
        broken.row_mut(3)[1] = f32::NAN;
        assert!(Screened::try_new(&broken).unwrap_err().to_string().contains("row 3, column 1"));
        assert!(screened.topk(&broken, 1).is_err());
    }
}
