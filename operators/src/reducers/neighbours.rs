//! Each row's nearest rows, as UMAP's graph is made of them.
//!
//! Cosines go by way of 8-bit codes: up to [`EXACT_ROWS`] rows all are exact ([`Screened`]); above, where an exact
//! search would take most of a fit's time, .99 of them, as far as a sample tells ([`InvertedFile`]). On a GPU all are
//! exact ([`CosineSearch`]). Euclidean neighbours are exact.

use super::{FuzzyGraph, Metric, UmapConfig};
use crate::device::on_device;
use crate::{Error, Result};
use kernels::gpu::search::{CosineSearch, MAX_K};
use kernels::topk::{self, InvertedFile, Neighbours, Screened};
use kernels::{Device, Matrix};
use std::ops::ControlFlow;

/// Rows that are searched for at a time: a second or two of work, after which progress is told.
pub(crate) const BLOCK_ROWS: usize = 8192;

/// Rows up to which a search by cosine is exact.
pub const EXACT_ROWS: usize = 50_000;

/// The share of the neighbours that a search among more rows is to find.
const RECALL: f64 = 0.99;

/// Builds the fuzzy graph of the rows of `vectors` for `umap`; `progress` as for [`nearest_rows`]. Says also which share of
/// neighbours the search finds, as far as a sample of rows tells: 1 where it is exact.
pub fn neighbour_graph(
    vectors: &Matrix<f32>,
    umap: &UmapConfig,
    device: &Device,
    progress: &dyn Fn(u64, u64) -> ControlFlow<()>,
) -> Result<(FuzzyGraph, f64)> {
    let (near, recall) = nearest_rows_beyond(EXACT_ROWS, vectors, umap, device, progress)?;
    Ok((umap.graph(&near.indices, &near.scores)?, recall))
}

/// Finds the rows of `vectors` (n × d) that are nearest to each, itself among them: n × k rows and distances, nearest
/// first, k as `umap` says. Exact but for the cosines of more than [`EXACT_ROWS`] rows.
///
/// `progress` hears how many of how many rows have their neighbours (none while the search is prepared); if it breaks,
/// the search fails with [`Error::Stopped`]. Fails too for fewer than 3 rows, or a value that is no finite number.
pub fn nearest_rows(
    vectors: &Matrix<f32>,
    umap: &UmapConfig,
    device: &Device,
    progress: &dyn Fn(u64, u64) -> ControlFlow<()>,
) -> Result<Neighbours<f32>> {
    Ok(nearest_rows_beyond(EXACT_ROWS, vectors, umap, device, progress)?.0)
}

/// The same with another bound on the rows that are searched exactly, and the recall of the search.
fn nearest_rows_beyond(
    exact_rows: usize,
    vectors: &Matrix<f32>,
    umap: &UmapConfig,
    device: &Device,
    progress: &dyn Fn(u64, u64) -> ControlFlow<()>,
) -> Result<(Neighbours<f32>, f64)> {
    let n = vectors.rows();
    let k = umap.neighbours_for(n)?;
    vectors.check_finite()?;
    let go_on = || progress(0, n as u64).is_continue();
    on_device("neighbours", device, beyond_gpus(umap.metric, k), |device| {
        let search = match device.gpu() {
            Some(gpu) => Search::CosineOnGpu(Box::new(CosineSearch::try_new(gpu, vectors)?)),
            None => Search::over(vectors, umap.metric, k, exact_rows, &go_on)?,
        };
        let mut near = Neighbours { indices: Matrix::zeros(n, k), scores: Matrix::zeros(n, k) };
        let mut done = 0;
        for rows in search.order(n).chunks(search.block_rows()) {
            let found = search.nearest(&vectors.gather(rows), k)?;
            for (i, &row) in rows.iter().enumerate() {
                near.indices.row_mut(row as usize).copy_from_slice(found.indices.row(i));
                near.scores.row_mut(row as usize).copy_from_slice(found.scores.row(i));
            }
            done += rows.len() as u64;
            if progress(done, n as u64).is_break() {
                return Err(Error::Stopped("the search for neighbours"));
            }
        }
        Ok((near, search.recall()))
    })
}

/// What of a search for `k` neighbours is beyond the GPU's kernels.
fn beyond_gpus(metric: Metric, k: usize) -> Option<String> {
    if metric == Metric::Euclidean {
        return Some("a GPU searches by cosine, not by Euclidean distance".into());
    }
    (k > MAX_K).then(|| format!("{k} neighbours are more than the {MAX_K} that a GPU finds"))
}

/// Rows that a GPU searches for at a time: enough tiles of 128 for all its multiprocessors.
pub(crate) const GPU_BLOCK_ROWS: usize = 8 * BLOCK_ROWS;

/// How neighbours are searched.
enum Search<'a> {
    /// The largest cosines, on a GPU.
    CosineOnGpu(Box<CosineSearch>),
    /// The largest cosines.
    Cosine(Box<Screened>),
    /// Nearly all of the largest cosines.
    NearlyCosine(Box<InvertedFile>),
    /// All distances.
    Euclidean(&'a Matrix<f32>),
}

impl<'a> Search<'a> {
    /// Rows that are searched for at a time.
    fn block_rows(&self) -> usize {
        if matches!(self, Self::CosineOnGpu(_)) { GPU_BLOCK_ROWS } else { BLOCK_ROWS }
    }

    /// Prepares a search for `k` neighbours, an exact one up to `exact_rows` rows; asks `go_on` now and then.
    fn over(
        vectors: &'a Matrix<f32>,
        metric: Metric,
        k: usize,
        exact_rows: usize,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Self> {
        Ok(match metric {
            Metric::Euclidean => Self::Euclidean(vectors),
            Metric::Cosine if vectors.rows() > exact_rows => {
                let file = InvertedFile::try_new(vectors, k, RECALL, go_on)?;
                let (cells, probes, recall) = (file.cells(), file.probes(), file.recall());
                tracing::info!(cells, probes, recall, "neighbours are searched by an inverted file");
                if 2 * probes > cells {
                    tracing::warn!(
                        cells,
                        probes,
                        "the vectors form no cells, so that most rows are compared with each: this takes time"
                    );
                }
                Self::NearlyCosine(Box::new(file))
            }
            Metric::Cosine => Self::Cosine(Box::new(Screened::try_new(vectors)?)),
        })
    }

    /// The share of neighbours that is found.
    fn recall(&self) -> f64 {
        match self {
            Self::NearlyCosine(file) => file.recall(),
            Self::CosineOnGpu(_) | Self::Cosine(_) | Self::Euclidean(_) => 1.0,
        }
    }

    /// The `n` rows in the order in which they are searched for fastest.
    fn order(&self, n: usize) -> Vec<u32> {
        match self {
            Self::NearlyCosine(file) => file.order(),
            Self::CosineOnGpu(_) | Self::Cosine(_) | Self::Euclidean(_) => (0..n as u32).collect(),
        }
    }

    /// The nearest rows of each query, with their distances (1 − cosine, or Euclidean).
    fn nearest(&self, queries: &Matrix<f32>, k: usize) -> Result<Neighbours<f32>> {
        let mut found = match self {
            Self::Euclidean(points) => return Ok(topk::topk(queries, points, k, topk::Metric::Euclidean)?),
            Self::CosineOnGpu(search) => search.topk(queries, k)?,
            Self::Cosine(screened) => screened.topk(queries, k)?,
            Self::NearlyCosine(file) => file.topk(queries, k)?,
        };
        found.scores.as_mut_slice().iter_mut().for_each(|s| *s = (1.0 - *s).max(0.0));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::layout::mix64;

    /// Rows around forty directions.
    fn topics(n: usize) -> Matrix<f32> {
        let noise = |i: usize| (mix64(i as u64) >> 40) as f32 * 2f32.powi(-23) - 1.0;
        let values = (0..n * 16).map(|i| noise(i / 16 % 40 * 16 + i % 16) + 0.4 * noise(i + 7777));
        Matrix::try_from_vec(n, 16, values.collect()).unwrap()
    }

    #[test]
    fn an_inverted_file_gives_each_row_its_own_neighbours() {
        let rows = topics(9000);
        let umap = UmapConfig { n_neighbors: 8, ..UmapConfig::default() };
        let exact =
            nearest_rows_beyond(9000, &rows, &umap, &Device::cpu(), &|_, _| ControlFlow::Continue(()))
                .unwrap();
        assert_eq!(exact.1, 1.0);
        let exact = exact.0;
        let heard = std::cell::RefCell::new(Vec::new());
        let near = nearest_rows_beyond(8999, &rows, &umap, &Device::cpu(), &|done, all| {
            heard.borrow_mut().push((done, all));
            ControlFlow::Continue(())
        });
        let (near, recall) = near.unwrap();
        assert!((RECALL..1.0).contains(&recall), "{recall}");
        let mut heard = heard.into_inner();
        assert!(heard.iter().filter(|told| **told == (0, 9000)).count() > 3, "{heard:?}");
        heard.retain(|told| told.0 > 0);
        assert_eq!(heard, [(BLOCK_ROWS as u64, 9000), (9000, 9000)]);
        let found =
            |i: usize| near.indices.row(i).iter().filter(|j| exact.indices.row(i).contains(j)).count();
        let found = (0..9000).map(found).sum::<usize>() as f64 / (8.0 * 9000.0);
        assert!(found < 1.0 && found > 0.98, "{found}");
        assert!((0..9000).all(|i| near.indices.row(i)[0] == i as u32 && near.scores.row(i)[0] < 1e-6));
    }

    #[test]
    fn a_search_that_is_told_to_stop_stops() {
        let umap = UmapConfig::default();
        for exact_rows in [0, 100] {
            let stopped = nearest_rows_beyond(exact_rows, &topics(100), &umap, &Device::cpu(), &|_, _| {
                ControlFlow::Break(())
            });
            assert!(matches!(stopped, Err(Error::Stopped(_))));
        }
    }
}
