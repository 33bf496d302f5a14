//! Nearest rows: the k best points for each query, without storing the distance matrix. All searches are exact but
//! [`InvertedFile`]'s.
//!
//! - Formulas: [`Metric::Dot`] and [`Metric::Cosine`] keep the largest products (cosine: of rows scaled to length 1),
//!   [`Metric::Euclidean`] the smallest distances; [`topk_codes`] the largest i32 products of i8 codes; [`topk_bits`]
//!   the smallest Hamming distances.
//! - Order: best first, equal scores by the smaller row of `points`.
//! - Layout: points in panels of 32 rows, packed once (for few queries when their turn comes, so that no points are
//!   held twice); queries in blocks of 96 rows or more, one task each; a tile of scores lives in registers and the
//!   first cache, and only scores that beat a row's k-th best leave it.
//! - Accumulation: f32 in one chain of fused steps; i32 exact for any d below 130,000. The same bits for any number
//!   of threads, any order of queries, every instruction set.
//! - Euclidean candidates are ranked by `|p|² - 2 q·p`; the k kept (and `SPARE` more) are measured again by their
//!   differences, so that near points have accurate distances.
//! - Cost: 2·q·n·d operations.

use crate::gemm::{Epilogue, Packed, Rows, gemm};
use crate::norm::{dot, squared_distance, unit_rows};
use crate::{Error, Isa, Matrix, Result};
use rayon::prelude::*;

mod best;
mod bits;
mod codes;
mod inverted;
mod screened;

pub use bits::{BitCodes, topk_bits};
pub use codes::{Codes, topk_codes};
pub use inverted::InvertedFile;
pub use screened::Screened;
pub(crate) use screened::{Screen, search_all};

use best::{Best, Score};

/// Queries of one task: their rows stay in L2 while all panels pass by.
const BLOCK: usize = 96;

/// Queries for which points are packed strip by strip, again for each block of queries: packing costs about a tenth of
/// a block's products.
const FEW_QUERIES: usize = 8 * BLOCK;

/// Euclidean candidates kept beyond k, since rounding can swap near-equal ranks before they are measured again.
const SPARE: usize = 8;

/// How near two rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The dot product; larger is nearer.
    Dot,
    /// The cosine; larger is nearer. A row of zeros has cosine 0 to all.
    Cosine,
    /// The Euclidean distance; smaller is nearer.
    Euclidean,
}

/// The nearest points of each query.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours<S> {
    /// queries × k: rows of `points`, nearest first.
    pub indices: Matrix<u32>,
    /// queries × k: their similarities, or their distances where the metric is one.
    pub scores: Matrix<S>,
}

/// Returns the `k` nearest rows of `points` for each row of `queries`, best first, ties by index.
///
/// # Errors
/// `Shape` if the columns differ, or `k` is larger than the number of points.
pub fn topk(
    queries: &Matrix<f32>,
    points: &Matrix<f32>,
    k: usize,
    metric: Metric,
) -> Result<Neighbours<f32>> {
    check(queries.cols(), points.cols(), points.rows(), k)?;
    let isa = Isa::detect();
    match metric {
        Metric::Dot => Ok(largest_of(isa, queries, points, k, None)),
        Metric::Cosine => Ok(largest_of(isa, &unit_rows(queries), &unit_rows(points), k, None)),
        Metric::Euclidean => Ok(nearest(isa, queries, points, k)),
    }
}

/// Checks shapes that every search needs.
pub(crate) fn check(query_cols: usize, point_cols: usize, points: usize, k: usize) -> Result<()> {
    if query_cols != point_cols {
        return Err(Error::Shape {
            what: "queries",
            expected: format!("{point_cols} columns"),
            found: format!("{query_cols} columns"),
        });
    }
    if k > points {
        return Err(Error::Shape {
            what: "k",
            expected: format!("at most {points} points"),
            found: format!("{k}"),
        });
    }
    Ok(())
}

/// The points as the columns of a product.
fn pack(points: &Matrix<f32>) -> Packed {
    Packed::from_linear(points.as_slice(), points.rows(), points.cols())
}

/// Points that are searched.
#[derive(Clone, Copy)]
enum Points<'a> {
    /// As the columns of a product.
    Packed(&'a Packed),
    /// As they are: each strip is packed when its turn comes.
    Rows(&'a Matrix<f32>),
}

impl Points<'_> {
    fn rows(self) -> usize {
        match self {
            Self::Packed(packed) => packed.n(),
            Self::Rows(rows) => rows.rows(),
        }
    }

    fn cols(self) -> usize {
        match self {
            Self::Packed(packed) => packed.k(),
            Self::Rows(rows) => rows.cols(),
        }
    }
}

/// The k largest products among points that are packed if that pays.
fn largest_of(
    isa: Isa,
    queries: &Matrix<f32>,
    points: &Matrix<f32>,
    k: usize,
    half_norms: Option<&[f32]>,
) -> Neighbours<f32> {
    let packed = (queries.rows() > FEW_QUERIES).then(|| pack(points));
    let points = packed.as_ref().map_or(Points::Rows(points), Points::Packed);
    largest(isa, queries, points, k, half_norms)
}

/// The k largest products; with `half_norms`, of `q·p - half_norms[p]`.
fn largest(
    isa: Isa,
    queries: &Matrix<f32>,
    points: Points<'_>,
    k: usize,
    half_norms: Option<&[f32]>,
) -> Neighbours<f32> {
    let d = points.cols();
    select(queries.rows(), BLOCK, k, |first, rows, best| {
        let block = Rows { data: &queries.as_slice()[first * d..(first + rows) * d], rows, stride: d };
        let mut scores = [0f32; BLOCK * STRIP];
        for strip in (0..points.rows()).step_by(STRIP) {
            let width = STRIP.min(points.rows() - strip);
            match points {
                Points::Packed(packed) => {
                    gemm(isa, block, packed.columns(strip, width), &mut scores, STRIP, Epilogue::None);
                }
                Points::Rows(rows) => {
                    let strip = &rows.as_slice()[strip * d..(strip + width) * d];
                    let packed = Packed::from_linear(strip, width, d);
                    gemm(isa, block, packed.view(), &mut scores, STRIP, Epilogue::None);
                }
            }
            for (best, scores) in best.iter_mut().zip(scores.chunks_exact_mut(STRIP)) {
                let scores = &mut scores[..width];
                if let Some(half_norms) = half_norms {
                    for (score, half) in scores.iter_mut().zip(&half_norms[strip..]) {
                        *score -= half;
                    }
                }
                best.offer(scores, strip);
            }
        }
    })
}

/// The k smallest Euclidean distances.
fn nearest(isa: Isa, queries: &Matrix<f32>, points: &Matrix<f32>, k: usize) -> Neighbours<f32> {
    let half_norms: Vec<f32> =
        (0..points.rows()).into_par_iter().map(|i| 0.5 * dot(isa, points.row(i), points.row(i))).collect();
    let kept = (k + SPARE).min(points.rows());
    let candidates = largest_of(isa, queries, points, kept, Some(&half_norms));
    let mut found =
        Neighbours { indices: Matrix::zeros(queries.rows(), k), scores: Matrix::zeros(queries.rows(), k) };
    if k > 0 {
        found
            .indices
            .as_mut_slice()
            .par_chunks_mut(k)
            .zip(found.scores.as_mut_slice().par_chunks_mut(k))
            .enumerate()
            .for_each(|(i, (indices, scores))| {
                let mut measured: Vec<(f32, u32)> = candidates
                    .indices
                    .row(i)
                    .iter()
                    .map(|&p| (squared_distance(isa, queries.row(i), points.row(p as usize)), p))
                    .collect();
                measured.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                for ((index, score), (d, p)) in indices.iter_mut().zip(scores).zip(measured) {
                    (*index, *score) = (p, d.sqrt());
                }
            });
    }
    found
}

/// Points whose scores are made at a time: four panels.
const STRIP: usize = 4 * crate::gemm::PANEL;

/// Runs `scan` for each `block` queries with one [`Best`] a query, and collects what they kept.
fn select<S: Score>(
    queries: usize,
    block: usize,
    k: usize,
    scan: impl Fn(usize, usize, &mut [Best<S>]) + Sync,
) -> Neighbours<S> {
    let mut found = Neighbours { indices: Matrix::zeros(queries, k), scores: Matrix::zeros(queries, k) };
    each_block(&mut found, block, |first, indices, scores| {
        let rows = indices.len() / k;
        let mut best: Vec<Best<S>> = (0..rows).map(|_| Best::new(k)).collect();
        scan(first, rows, &mut best);
        for ((best, indices), scores) in
            best.into_iter().zip(indices.chunks_exact_mut(k)).zip(scores.chunks_exact_mut(k))
        {
            best.finish(indices, scores);
        }
    });
    found
}

/// Runs `search` for each `block` queries, with the first of them and the places of what is found; not at all if there
/// are none.
fn each_block<S: Send>(
    found: &mut Neighbours<S>,
    block: usize,
    search: impl Fn(usize, &mut [u32], &mut [S]) + Sync,
) {
    let places = (block * found.indices.cols()).max(1);
    found
        .indices
        .as_mut_slice()
        .par_chunks_mut(places)
        .zip(found.scores.as_mut_slice().par_chunks_mut(places))
        .enumerate()
        .for_each(|(i, (indices, scores))| search(i * block, indices, scores));
}

/// Best first, ties by index.
fn rank(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    fn matrix(seed: u64, rows: usize, cols: usize) -> Matrix<f32> {
        Matrix::try_from_vec(rows, cols, uniform(seed, rows * cols)).unwrap()
    }

    /// The definition by f64 and a full sort.
    fn reference(q: &Matrix<f32>, p: &Matrix<f32>, k: usize, metric: Metric) -> Vec<Vec<(f64, u32)>> {
        let norm = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        q.iter_rows()
            .map(|q| {
                let mut all: Vec<(f64, u32)> = p
                    .iter_rows()
                    .enumerate()
                    .map(|(i, p)| {
                        let dot: f64 = q.iter().zip(p).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        let score = match metric {
                            Metric::Dot => dot,
                            Metric::Cosine => dot / (norm(q) * norm(p)),
                            Metric::Euclidean => {
                                -q.iter().zip(p).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
                            }
                        };
                        (score, i as u32)
                    })
                    .collect();
                all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                all.truncate(k);
                all
            })
            .collect()
    }

    #[test]
    fn the_nearest_rows_are_those_of_a_full_sort() {
        // Points around a panel, a strip and a buffer; queries around a block; k from one to all.
        for (queries, points, d, k) in
            [(1, 1, 3, 1), (5, 31, 8, 4), (97, 129, 7, 10), (3, 1000, 33, 100), (2, 300, 5, 300)]
        {
            for metric in [Metric::Dot, Metric::Cosine, Metric::Euclidean] {
                let (q, p) = (matrix(1, queries, d), matrix(2, points, d));
                let found = topk(&q, &p, k, metric).unwrap();
                for (i, expected) in reference(&q, &p, k, metric).iter().enumerate() {
                    for (j, (score, index)) in expected.iter().enumerate() {
                        assert_eq!(found.indices.row(i)[j], *index, "{metric:?} {queries} {points} {d} {k}");
                        let expected = if metric == Metric::Euclidean { -score } else { *score };
                        // d roundings in a chain, and a few more for the norms and the root.
                        let bound = 6e-8 * (2 * d + 8) as f64 * (1.0 + expected.abs());
                        assert!(
                            (f64::from(found.scores.row(i)[j]) - expected).abs() < bound,
                            "{metric:?} {d}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn equal_scores_go_to_the_smaller_row() {
        let p = Matrix::try_from_vec(400, 1, vec![1f32; 400]).unwrap();
        let q = Matrix::try_from_vec(1, 1, vec![1f32]).unwrap();
        for metric in [Metric::Dot, Metric::Cosine, Metric::Euclidean] {
            assert_eq!(topk(&q, &p, 3, metric).unwrap().indices.as_slice(), [0, 1, 2], "{metric:?}");
        }
    }

    #[test]
    fn a_query_has_the_same_answer_in_any_company_and_on_any_number_of_threads() {
        let (q, p) = (matrix(3, 200, 16), matrix(4, 500, 16));
        let all = topk(&q, &p, 5, Metric::Cosine).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(7).build().unwrap();
        assert_eq!(pool.install(|| topk(&q, &p, 5, Metric::Cosine).unwrap()), all);
        let one = topk(&q.gather(&[150]), &p, 5, Metric::Cosine).unwrap();
        assert_eq!(one.scores.row(0), all.scores.row(150));
        assert_eq!(one.indices.row(0), all.indices.row(150));
    }

    #[test]
    fn many_queries_find_the_bits_that_few_find_whose_points_are_packed_by_strips() {
        let (q, p) = (matrix(7, FEW_QUERIES + 1, 9), matrix(8, 3 * STRIP + 5, 9));
        for metric in [Metric::Dot, Metric::Euclidean] {
            let all = topk(&q, &p, 4, metric).unwrap();
            for row in [0, FEW_QUERIES as u32] {
                let one = topk(&q.gather(&[row]), &p, 4, metric).unwrap();
                assert_eq!(one.indices.row(0), all.indices.row(row as usize));
                assert_eq!(one.scores.row(0), all.scores.row(row as usize));
            }
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let error = topk(&matrix(1, 1, 3), &matrix(1, 2, 3), 3, Metric::Dot).unwrap_err().to_string();
        assert!(error.contains("at most 2"), "{error}");
        assert!(topk(&matrix(1, 1, 2), &matrix(1, 2, 3), 1, Metric::Dot).is_err());
    }
}
