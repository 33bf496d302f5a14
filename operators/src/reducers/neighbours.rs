//! Each row's nearest rows, as UMAP's graph is made of them: exact, cosines by way of 8-bit codes ([`Screened`]).

use super::{FuzzyGraph, Metric, UmapConfig};
use crate::{Error, Result};
use kernels::Matrix;
use kernels::topk::{self, Neighbours, Screened};
use std::ops::ControlFlow;

/// Rows that are searched for at a time: a second or two of work, after which progress is told.
pub(crate) const BLOCK_ROWS: usize = 8192;

/// Builds the fuzzy graph of the rows of `vectors` for `umap`; `progress` as for [`nearest_rows`].
pub fn neighbour_graph(
    vectors: &Matrix<f32>,
    umap: &UmapConfig,
    progress: &dyn Fn(u64, u64) -> ControlFlow<()>,
) -> Result<FuzzyGraph> {
    let near = nearest_rows(vectors, umap, progress)?;
    umap.graph(&near.indices, &near.scores)
}

/// Finds the rows of `vectors` (n × d) that are nearest to each, itself among them: n × k rows and distances, nearest
/// first, k as `umap` says.
///
/// `progress` hears how many of how many rows have their neighbours; if it breaks, the search fails with
/// [`Error::Stopped`]. Fails too for fewer than 3 rows, or a value that is no finite number.
pub fn nearest_rows(
    vectors: &Matrix<f32>,
    umap: &UmapConfig,
    progress: &dyn Fn(u64, u64) -> ControlFlow<()>,
) -> Result<Neighbours<f32>> {
    let n = vectors.rows();
    let k = umap.neighbours_for(n)?;
    vectors.check_finite()?;
    let search = Search::over(vectors, umap.metric)?;
    let mut near = Neighbours { indices: Matrix::zeros(n, k), scores: Matrix::zeros(n, k) };
    let rows: Vec<u32> = (0..n as u32).collect();
    let places = near.indices.as_mut_slice().chunks_mut(BLOCK_ROWS * k);
    let distances = near.scores.as_mut_slice().chunks_mut(BLOCK_ROWS * k);
    for ((rows, places), distances) in rows.chunks(BLOCK_ROWS).zip(places).zip(distances) {
        let found = search.nearest(&vectors.gather(rows), k)?;
        places.copy_from_slice(found.indices.as_slice());
        distances.copy_from_slice(found.scores.as_slice());
        let done = rows.last().map_or(0, |last| u64::from(*last) + 1);
        if progress(done, n as u64).is_break() {
            return Err(Error::Stopped("the search for neighbours"));
        }
    }
    Ok(near)
}

/// How neighbours are searched.
enum Search<'a> {
    /// The largest cosines.
    Cosine(Box<Screened>),
    /// All distances.
    Euclidean(&'a Matrix<f32>),
}

impl<'a> Search<'a> {
    fn over(vectors: &'a Matrix<f32>, metric: Metric) -> Result<Self> {
        Ok(match metric {
            Metric::Euclidean => Self::Euclidean(vectors),
            Metric::Cosine => Self::Cosine(Box::new(Screened::try_new(vectors)?)),
        })
    }

    /// The nearest rows of each query, with their distances (1 − cosine, or Euclidean).
    fn nearest(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        let mut found = match self {
            Self::Euclidean(points) => return Ok(topk::topk(queries, points, k, topk::Metric::Euclidean)?),
            Self::Cosine(screened) => screened.topk(queries, k)?,
        };
        found.scores.as_mut_slice().iter_mut().for_each(|s| *s = (1.0 - *s).max(0.0));
        Ok(found)
    }
}
