//! Nearest rows by cosine, found by 8-bit codes and ranked by their floats.
//!
//! - The codes ([`crate::search_codes`]) give k + k/4 + [`SPARE`] candidates for each query, whose cosines are then computed
//!   in f32: scores are exact, and a true neighbour is lost only where more than k/4 + [`SPARE`] others passed it by the
//!   rounding of codes. On sentence embeddings recall is above .99 (`benchmarks/README.md`); it is not guaranteed.
//! - Order: best first, equal cosines by the smaller row. The same bits for any number of threads and any order of queries.
//! - Cost: 2·q·n·d operations on bytes, and q·(5k/4 + [`SPARE`])·d on floats; memory: a float and a byte for each value of the points.

use super::{Codes, Neighbours, check, topk_codes};
use crate::norm::{dot, unit_rows};
use crate::search_codes::SearchScale;
use crate::{Isa, Matrix, Result};
use rayon::prelude::*;

/// Candidates beyond 5k/4: for small k the codes' rounding reorders more than a quarter of k.
const SPARE: usize = 16;

/// Points, ready to be searched by code.
#[derive(Debug, Clone)]
pub struct Screened {
    unit: Matrix<f32>,
    scale: SearchScale,
    codes: Codes,
}

impl Screened {
    /// Takes the rows of `points` (n × d); fails at a value that is no finite number.
    pub fn try_new(points: &Matrix<f32>) -> Result<Self> {
        points.check_finite()?;
        let unit = unit_rows(points);
        let scale = SearchScale::of(&unit)?;
        let codes = Codes::pack(&scale.codes(&unit)?);
        Ok(Self { unit, scale, codes })
    }

    /// Returns the `k` rows of the largest cosine for each row of `queries`, best first, ties by index.
    ///
    /// # Errors
    /// `Shape` if the columns differ, or `k` is larger than the number of points; a query that is no finite number.
    pub fn topk(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        let points = self.unit.rows();
        check(queries.cols(), self.unit.cols(), points, k)?;
        queries.check_finite()?;
        let queries = unit_rows(queries);
        let candidates =
            topk_codes(&self.scale.codes(&queries)?, &self.codes, (k + k / 4 + SPARE).min(points))?;
        let isa = Isa::detect();
        let mut found = Neighbours {
            indices: Matrix::zeros(queries.rows(), k),
            scores: Matrix::zeros(queries.rows(), k),
        };
        let (indices, scores) = (found.indices.as_mut_slice(), found.scores.as_mut_slice());
        let rows = indices.par_chunks_mut(k.max(1)).zip(scores.par_chunks_mut(k.max(1)));
        rows.enumerate().for_each(|(query, (indices, scores))| {
            let cosine = |&point: &u32| (dot(isa, queries.row(query), self.unit.row(point as usize)), point);
            let mut ranked: Vec<(f32, u32)> = candidates.indices.row(query).iter().map(cosine).collect();
            ranked.sort_unstable_by(super::rank);
            for ((index, score), (cosine, point)) in indices.iter_mut().zip(scores).zip(ranked) {
                (*index, *score) = (point, cosine);
            }
        });
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;
    use crate::topk::{Metric, topk};

    fn matrix(seed: u64, rows: usize, cols: usize) -> Matrix<f32> {
        Matrix::try_from_vec(rows, cols, uniform(seed, rows * cols)).unwrap()
    }

    #[test]
    fn nearly_all_that_an_exact_search_finds_is_found_with_its_cosine() {
        let points = matrix(1, 3000, 64);
        let queries = matrix(2, 200, 64);
        let screened = Screened::try_new(&points).unwrap();
        for k in [1, 10, 100] {
            let exact = topk(&queries, &points, k, Metric::Cosine).unwrap();
            let found = screened.topk(&queries, k).unwrap();
            let mut missed = 0;
            for query in 0..queries.rows() {
                let expected = exact.indices.row(query);
                for (rank, index) in found.indices.row(query).iter().enumerate() {
                    match expected.iter().position(|e| e == index) {
                        // Both are sums of 64 products of numbers below 1, in different orders.
                        Some(at) => {
                            let (found, exact) = (found.scores.row(query)[rank], exact.scores.row(query)[at]);
                            assert!((found - exact).abs() < 64.0 * f32::EPSILON, "{found} {exact}");
                        }
                        None => missed += 1,
                    }
                }
                assert!(found.scores.row(query).is_sorted_by(|a, b| a >= b));
            }
            assert!((missed as f64) < 0.005 * (queries.rows() * k) as f64, "{missed} missed of k = {k}");
        }
    }

    #[test]
    fn equal_points_come_in_the_order_of_their_rows() {
        let points = Matrix::try_from_vec(40, 2, [1.0, 0.5].repeat(40)).unwrap();
        let found = Screened::try_new(&points).unwrap().topk(&points, 3).unwrap();
        assert!((0..40).all(|query| found.indices.row(query) == [0, 1, 2]));
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
