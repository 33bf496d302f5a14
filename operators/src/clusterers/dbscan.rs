//! DBSCAN: clusters of one density, and outliers ([`kernels::dbscan`]).

use super::{Clusterer, Clustering, number_by_size};
use crate::{Error, Result};
use kernels::{Device, KdTree, Matrix, dbscan};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// DBSCAN's settings, under the names that scikit-learn gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbscanConfig {
    /// How far a point sees. 0.08, as in text-clustering, which clusters a UMAP layout of two dimensions; other
    /// layouts, and embeddings themselves, want another.
    pub eps: f64,
    /// How many points a core point must see, itself among them. 50, as in text-clustering.
    pub min_samples: usize,
}

impl Default for DbscanConfig {
    fn default() -> Self {
        Self { eps: 0.08, min_samples: 50 }
    }
}

impl DbscanConfig {
    /// Fails with the setting that cannot be, and what would do.
    pub fn check(&self) -> Result<()> {
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(Error::setting("eps", format!("{}, expected a number above 0", self.eps)));
        }
        if self.min_samples == 0 {
            return Err(Error::setting("min_samples", "0, expected 1 or more"));
        }
        Ok(())
    }

    /// Fails where `rows` points cannot be clustered.
    pub(super) fn check_rows(&self, rows: usize) -> Result<()> {
        if rows < self.min_samples {
            return Err(Error::Unfit(format!(
                "{rows} rows are fewer than min_samples {}, so that none can be dense: use more rows, or a smaller \
                 min_samples",
                self.min_samples
            )));
        }
        Ok(())
    }
}

/// The clusterer `dbscan`.
#[derive(Debug, Clone)]
pub struct Dbscan {
    config: DbscanConfig,
}

impl Dbscan {
    /// Takes `config`; fails where a setting cannot be.
    pub fn try_new(config: DbscanConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }
}

impl Clusterer for Dbscan {
    fn name(&self) -> &'static str {
        "dbscan"
    }

    /// Runs on the processor, whatever the device.
    fn fit(
        &self,
        points: &Matrix<f32>,
        _device: &Device,
        stop: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Clustering> {
        self.config.check_rows(points.rows())?;
        let found = dbscan(&KdTree::build(points)?, self.config.eps, self.config.min_samples, stop)?;
        let (labels, _) = number_by_size(&found.labels);
        let probabilities = labels.iter().map(|label| if *label < 0 { 0.0 } else { 1.0 }).collect();
        Ok(Clustering { labels, probabilities, ..Clustering::default() })
    }
}
