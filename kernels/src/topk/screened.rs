//! Exact nearest rows by cosine, screened by 8-bit codes.
//!
//! - Codes ([`crate::search_codes`]) give 3k + [`SPARE`] candidates for each query, best first. Of a vector x let x̂ be what its
//!   codes stand for and e = x − x̂. Then |q·p − q̂·p̂| ≤ ‖e_q‖ ‖p̂‖ + ‖q‖ ‖e_p‖, and with the largest ‖p̂‖ and ‖e_p‖ of all
//!   points there is one bound E for each query. Candidates are measured in f32, in order, until the next one's code
//!   product plus E cannot reach the k-th best: no other point can either.
//! - A query whose candidates end before that (many points within E of each other) is searched for among all, in f32.
//! - Order: best first, equal cosines by the smaller row. The same bits for any number of threads and any order of queries.
//! - Cost: 2·q·n·d operations on bytes, a few times k·d on floats for each query; memory: a float and a byte for each value of
//!   the points. Where there are no fast products of bytes, all is done in f32 from the start.

use super::{Codes, FEW_QUERIES, Neighbours, check, largest, rank, topk_codes};
use crate::norm::{dot, unit_rows};
use crate::search_codes::SearchScale;
use crate::{Isa, Matrix, Result, simd::dispatch};
use rayon::prelude::*;

/// Candidates beyond 3k. Of 25,000 abstracts (E about .026) the hardest of 400 queries needs 84 in all for k = 15, and 304
/// for k = 100.
const SPARE: usize = 64;

/// Points, ready to be searched by code.
#[derive(Debug, Clone)]
pub struct Screened {
    unit: Matrix<f32>,
    scale: SearchScale,
    codes: Codes,
    /// The largest ‖p̂‖.
    length: f64,
    /// The largest ‖e_p‖.
    error: f64,
}

impl Screened {
    /// Takes the rows of `points` (n × d); fails at a value that is no finite number.
    pub fn try_new(points: &Matrix<f32>) -> Result<Self> {
        points.check_finite()?;
        let unit = unit_rows(points);
        let scale = SearchScale::of(&unit)?;
        let codes = scale.codes(&unit)?;
        let isa = Isa::detect();
        let lengths: Vec<[f64; 2]> = (0..unit.rows())
            .into_par_iter()
            .map(|i| lengths(isa, unit.row(i), codes.row(i), scale))
            .collect();
        let [length, error] = lengths.iter().fold([0f64; 2], |[a, b], [c, d]| [a.max(*c), b.max(*d)]);
        Ok(Self { unit, scale, codes: Codes::pack(&codes), length, error })
    }

    /// Returns the `k` rows of the largest cosine for each row of `queries`, best first, ties by index.
    ///
    /// # Errors
    /// `Shape` if the columns differ, or `k` is larger than the number of points; a query that is no finite number.
    pub fn topk(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        self.topk_on(Isa::detect(), queries, k)
    }

    fn topk_on(&self, isa: Isa, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        let points = self.unit.rows();
        check(queries.cols(), self.unit.cols(), points, k)?;
        queries.check_finite()?;
        let queries = unit_rows(queries);
        if isa < Isa::VNNI || k == 0 {
            return Ok(largest(isa, &queries, &self.unit, k, None));
        }
        let codes = self.scale.codes(&queries)?;
        let candidates = topk_codes(&codes, &self.codes, (3 * k + SPARE).min(points))?;
        let mut found = Neighbours {
            indices: Matrix::zeros(queries.rows(), k),
            scores: Matrix::zeros(queries.rows(), k),
        };
        let rows =
            found.indices.as_mut_slice().par_chunks_mut(k).zip(found.scores.as_mut_slice().par_chunks_mut(k));
        let is_certain = rows.enumerate().map(|(i, (indices, scores))| {
            let query = queries.row(i);
            let [_, error] = lengths(isa, query, codes.row(i), self.scale);
            // What rounding may add to a product of unit rows in f32, and to the lengths.
            let rounding = 2.0 * query.len() as f64 * f64::from(f32::EPSILON);
            let bound = error * self.length + self.error + rounding;
            let products =
                candidates.scores.row(i).iter().map(|&s| self.scale.similarity(f64::from(s)) + bound);
            let near = candidates.indices.row(i).iter().copied().zip(products);
            let mut best: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
            let mut is_certain = candidates.indices.cols() == points;
            for (point, most) in near {
                if best.len() == k && most < f64::from(best[k - 1].0) {
                    is_certain = true;
                    break;
                }
                let measured = (dot(isa, query, self.unit.row(point as usize)), point);
                let at = best.partition_point(|other| rank(other, &measured).is_lt());
                if at < k {
                    best.insert(at, measured);
                    best.truncate(k);
                }
            }
            for ((index, score), (cosine, point)) in indices.iter_mut().zip(scores).zip(best) {
                (*index, *score) = (point, cosine);
            }
            is_certain
        });
        let is_certain: Vec<bool> = is_certain.collect();
        let open: Vec<u32> = (0..queries.rows() as u32).filter(|&i| !is_certain[i as usize]).collect();
        // Few at a time: the points are not packed, and so not held, again.
        for open in open.chunks(FEW_QUERIES) {
            let searched = largest(isa, &queries.gather(open), &self.unit, k, None);
            for (row, &i) in open.iter().enumerate() {
                found.indices.row_mut(i as usize).copy_from_slice(searched.indices.row(row));
                found.scores.row_mut(i as usize).copy_from_slice(searched.scores.row(row));
            }
        }
        Ok(found)
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
    use super::*;
    use crate::random::uniform;

    fn matrix(seed: u64, rows: usize, cols: usize) -> Matrix<f32> {
        Matrix::try_from_vec(rows, cols, uniform(seed, rows * cols)).unwrap()
    }

    /// Checks that every instruction set finds the cosines that a full search finds.
    fn check_exact(queries: &Matrix<f32>, points: &Matrix<f32>, k: usize) {
        let screened = Screened::try_new(points).unwrap();
        let exact = largest(Isa::detect(), &unit_rows(queries), &unit_rows(points), k, None);
        for isa in Isa::available() {
            let found = screened.topk_on(isa, queries, k).unwrap();
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
        // A thousand points within a thousandth of one direction: all have the same few codes.
        let noise = matrix(3, 1000, 16);
        let values = noise.as_slice().iter().enumerate().map(|(i, v)| (i % 16) as f32 / 16.0 + 0.001 * v);
        let points = Matrix::try_from_vec(1000, 16, values.collect()).unwrap();
        check_exact(&points, &points, 5);
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
