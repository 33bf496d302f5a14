//! k-means: as many clusters as are asked for, round and of like width; each row is in one ([`kernels::kmeans`]).

use super::{Clusterer, Clustering, number_by_size};
use crate::device::on_device;
use crate::{Error, Result};
use kernels::kmeans::{Init, KMeansParams, kmeans};
use kernels::{Device, Matrix};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// k-means' settings, under the names that scikit-learn gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KMeansConfig {
    /// How many clusters. 8, as in scikit-learn; nobody but the user can know.
    pub n_clusters: usize,
    /// Runs from different seeds, of which the best stays. 1, as in scikit-learn: seeds by k-means++ are seldom bad.
    pub n_init: u32,
    /// The most iterations of a run. 300, as in scikit-learn: it is seldom reached.
    pub max_iter: u32,
    /// A run ends when its centroids' squared moves add up to this part of the variance of a dimension. 1e-4, as in
    /// scikit-learn.
    pub tol: f64,
    /// The seed of all random numbers. 42: any will do, but runs should repeat.
    pub seed: u64,
}

impl Default for KMeansConfig {
    fn default() -> Self {
        Self { n_clusters: 8, n_init: 1, max_iter: 300, tol: 1e-4, seed: 42 }
    }
}

impl KMeansConfig {
    /// Fails with the setting that cannot be, and what would do.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("n_init", self.n_init), ("max_iter", self.max_iter)] {
            if value == 0 {
                return Err(Error::setting(name, "0, expected 1 or more"));
            }
        }
        if self.n_clusters == 0 {
            return Err(Error::setting("n_clusters", "0, expected 1 or more"));
        }
        if !(self.tol.is_finite() && self.tol >= 0.0) {
            return Err(Error::setting("tol", format!("{}, expected a number from 0", self.tol)));
        }
        Ok(())
    }

    /// Fails where `rows` points cannot be clustered.
    pub(super) fn check_rows(&self, rows: usize) -> Result<()> {
        let k = self.n_clusters;
        if rows < k {
            let reason =
                format!("{rows} rows are fewer than n_clusters {k}: use more rows, or fewer clusters");
            return Err(Error::Unfit(reason));
        }
        Ok(())
    }
}

/// The clusterer `kmeans`.
#[derive(Debug, Clone)]
pub struct KMeans {
    config: KMeansConfig,
}

impl KMeans {
    /// Takes `config`; fails where a setting cannot be.
    pub fn try_new(config: KMeansConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }
}

impl Clusterer for KMeans {
    fn name(&self) -> &'static str {
        "kmeans"
    }

    /// Probabilities are simplified silhouettes: 0 between two clusters, towards 1 at a centroid.
    fn fit(
        &self,
        points: &Matrix<f32>,
        device: &Device,
        stop: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Clustering> {
        let KMeansConfig { n_clusters, n_init, max_iter, tol, seed } = self.config;
        self.config.check_rows(points.rows())?;
        let init = Init::PlusPlus { runs: n_init, seed, candidates: None };
        let params = KMeansParams { clusters: n_clusters, max_iter, tolerance: tol, init };
        let found = on_device("clusters", device, None, |device| Ok(kmeans(points, &params, device, stop)?))?;
        if found.centroids.rows() < n_clusters {
            tracing::warn!(
                "k-means found {} clusters, not {n_clusters}: fewer points differ, or clusters lost all of theirs",
                found.centroids.rows()
            );
        }
        let labels: Vec<i32> = found.labels.iter().map(|&label| label as i32).collect();
        let (labels, _) = number_by_size(&labels);
        Ok(Clustering { labels, probabilities: found.silhouettes, ..Clustering::default() })
    }
}
