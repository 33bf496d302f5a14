//! Each row's nearest rows, as UMAP's graph is made of them.
//!
//! The search is exact up to [`EXACT_ROWS`] rows. Above, cosines are found by 8-bit codes and ranked by their floats
//! ([`Screened`]), several times as fast at a recall above .99; Euclidean distances have no codes and stay exact.

use super::{FuzzyGraph, Metric, UmapConfig};
use crate::{Error, Result};
use kernels::topk::{self, Neighbours, Screened};
use kernels::{Matrix, norm::unit_rows};
use std::ops::ControlFlow;

/// Rows up to which the search is exact.
pub const EXACT_ROWS: usize = 50_000;

/// Rows that are searched for at a time: a second or two of work, after which progress is told.
const BLOCK_ROWS: usize = 8192;

/// Builds the fuzzy graph of the rows of `vectors` for `umap`.
///
/// `progress` hears how many of how many rows have their neighbours; if it breaks, the search fails with
/// [`Error::Stopped`].
pub fn neighbour_graph(
    vectors: &Matrix<f32>,
    umap: &UmapConfig,
    progress: &dyn Fn(u64, u64) -> ControlFlow<()>,
) -> Result<FuzzyGraph> {
    let n = vectors.rows();
    let k = umap.neighbours_for(n)?;
    let search = Search::over(vectors, umap.metric)?;
    let (mut indices, mut distances) = (Vec::with_capacity(n * k), Vec::with_capacity(n * k));
    let rows: Vec<u32> = (0..n as u32).collect();
    for block in rows.chunks(BLOCK_ROWS) {
        let found = search.nearest(&vectors.gather(block), k)?;
        indices.extend_from_slice(found.indices.as_slice());
        distances.extend_from_slice(found.scores.as_slice());
        if progress((indices.len() / k) as u64, n as u64).is_break() {
            return Err(Error::Stopped("the search for neighbours"));
        }
    }
    drop(search);
    umap.graph(&Matrix::try_from_vec(n, k, indices)?, &Matrix::try_from_vec(n, k, distances)?)
}

/// How neighbours are searched.
enum Search<'a> {
    /// All products, of unit rows.
    Cosine(Matrix<f32>),
    /// The best candidates of the codes.
    Screened(Box<Screened>),
    /// All distances.
    Euclidean(&'a Matrix<f32>),
}

impl<'a> Search<'a> {
    fn over(vectors: &'a Matrix<f32>, metric: Metric) -> Result<Self> {
        Ok(match metric {
            Metric::Euclidean => Self::Euclidean(vectors),
            Metric::Cosine if vectors.rows() <= EXACT_ROWS => Self::Cosine(unit_rows(vectors)),
            Metric::Cosine => Self::Screened(Box::new(Screened::try_new(vectors)?)),
        })
    }

    /// The nearest rows of each query, with their distances (1 − cosine, or Euclidean).
    fn nearest(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        let mut found = match self {
            Self::Euclidean(points) => return Ok(topk::topk(queries, points, k, topk::Metric::Euclidean)?),
            Self::Cosine(unit) => topk::topk(&unit_rows(queries), unit, k, topk::Metric::Dot)?,
            Self::Screened(screened) => screened.topk(queries, k)?,
        };
        found.scores.as_mut_slice().iter_mut().for_each(|s| *s = (1.0 - *s).max(0.0));
        Ok(found)
    }
}
