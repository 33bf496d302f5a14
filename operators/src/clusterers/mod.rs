//! Clusterers: from points to a label for each, −1 for an outlier.
//!
//! Labels are numbered by falling size, 0 the largest (equal sizes: the cluster whose first point comes first).

pub mod dbscan;
pub mod hdbscan;
pub mod hdbscan_crate;
pub mod kmeans;

use crate::Result;
use dbscan::{Dbscan, DbscanConfig};
use hdbscan::{Hdbscan, HdbscanConfig};
use hdbscan_crate::HdbscanCrate;
use kernels::{Device, Matrix};
use kmeans::{KMeans, KMeansConfig};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// A clusterer as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ClustererConfig {
    /// HDBSCAN: clusters of any density and shape, and outliers.
    Hdbscan(HdbscanConfig),
    /// The crate `hdbscan`, for small samples and for comparison.
    HdbscanCrate(HdbscanConfig),
    /// DBSCAN: clusters of one density and any shape, and outliers.
    Dbscan(DbscanConfig),
    /// k-means: as many clusters as are asked for, and no outliers.
    Kmeans(KMeansConfig),
}

impl Default for ClustererConfig {
    /// HDBSCAN: nobody has to say how many topics there are.
    fn default() -> Self {
        Self::Hdbscan(HdbscanConfig::default())
    }
}

impl ClustererConfig {
    /// Fails where `rows` points are too few to be clustered; known before any of them is embedded.
    pub fn check_rows(&self, rows: usize) -> Result<()> {
        match self {
            Self::Hdbscan(config) | Self::HdbscanCrate(config) => config.check_rows(rows),
            Self::Dbscan(config) => config.check_rows(rows),
            Self::Kmeans(config) => config.check_rows(rows),
        }
    }

    /// Clusters to expect of `rows` points; of density clusters, which nobody knows, a tenth of as many as could be.
    pub fn expected_clusters(&self, rows: usize) -> f64 {
        match self {
            Self::Hdbscan(config) | Self::HdbscanCrate(config) => {
                (rows as f64 / (10.0 * config.min_cluster_size as f64)).max(2.0)
            }
            Self::Dbscan(config) => (rows as f64 / (10.0 * config.min_samples as f64)).max(2.0),
            Self::Kmeans(config) => config.n_clusters.min(rows) as f64,
        }
    }

    /// How many times as long a point takes among `n` points as in a trial of [`Self::for_trial`] on `m`: density
    /// clustering by the depth of its tree, k-means by the centroids that it is compared with.
    pub fn cost_ratio(&self, n: f64, m: usize) -> f64 {
        match (self, self.for_trial(m)) {
            (Self::Kmeans(whole), Self::Kmeans(trial)) => whole.n_clusters as f64 / trial.n_clusters as f64,
            _ => n.max(2.0).ln() / (m as f64).max(2.0).ln(),
        }
    }

    /// Settings that suit a trial on only `rows` points: as many in a cluster as it takes for one to be one.
    pub fn for_trial(&self, rows: usize) -> Self {
        let mut short = self.clone();
        match &mut short {
            Self::Hdbscan(config) | Self::HdbscanCrate(config) => {
                config.min_cluster_size = config.min_cluster_size.min((rows / 20).max(2));
                config.max_cluster_size = None;
            }
            Self::Dbscan(config) => config.min_samples = config.min_samples.min((rows / 20).max(1)),
            Self::Kmeans(config) => config.n_clusters = config.n_clusters.min((rows / 20).max(1)),
        }
        short
    }

    /// Makes the clusterer; fails where a setting cannot be.
    pub fn build(&self) -> Result<Box<dyn Clusterer>> {
        Ok(match self {
            Self::Hdbscan(config) => Box::new(Hdbscan::try_new(config.clone())?),
            Self::HdbscanCrate(config) => Box::new(HdbscanCrate::try_new(config.clone())?),
            Self::Dbscan(config) => Box::new(Dbscan::try_new(config.clone())?),
            Self::Kmeans(config) => Box::new(KMeans::try_new(config.clone())?),
        })
    }
}

/// What a clusterer found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clustering {
    /// The cluster of each point, −1 for an outlier.
    pub labels: Vec<i32>,
    /// How strongly each point belongs to its cluster, 0 to 1; 0 for an outlier.
    pub probabilities: Vec<f32>,
    /// How much each point stands apart (GLOSH), 0 to 1; empty where the clusterer has no such score.
    pub outlier_scores: Vec<f32>,
    /// How much of the density range each cluster survives, 0 to 1, by label; empty where the clusterer does not say.
    pub persistence: Vec<f64>,
    /// The hierarchy that the clusters were chosen from, where there is one.
    pub tree: Option<hdbscan::CondensedTree>,
}

impl Clustering {
    /// The number of clusters.
    pub fn clusters(&self) -> usize {
        self.labels.iter().max().map_or(0, |&last| usize::try_from(last + 1).unwrap_or(0))
    }
}

/// An algorithm that groups points.
pub trait Clusterer: Send + Sync {
    /// The name used in job files and reports.
    fn name(&self) -> &'static str;

    /// Groups the rows of `points`, on `device` as far as it has kernels for that. `stop` is asked now and then, and
    /// may break off.
    ///
    /// Fails with `Error::Unfit` where no clustering can be: fewer rows than the smallest cluster, or than clusters; and
    /// for values that are not numbers.
    fn fit(
        &self,
        points: &Matrix<f32>,
        device: &Device,
        stop: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Clustering>;
}

/// Numbers the groups of `labels` (any numbers from 0, −1 for outliers) by falling size, then by their first point.
///
/// Returns the new labels, and for each of them the old one.
pub(crate) fn number_by_size(labels: &[i32]) -> (Vec<i32>, Vec<i32>) {
    let groups = labels.iter().max().map_or(0, |&last| usize::try_from(last + 1).unwrap_or(0));
    let mut sizes = vec![0usize; groups];
    let mut first = vec![usize::MAX; groups];
    for (point, &label) in labels.iter().enumerate() {
        if let Ok(label) = usize::try_from(label) {
            sizes[label] += 1;
            first[label] = first[label].min(point);
        }
    }
    let mut old: Vec<i32> = (0..groups as i32).collect();
    old.sort_by_key(|&label| (std::cmp::Reverse(sizes[label as usize]), first[label as usize]));
    let mut new = vec![0; groups];
    for (number, &label) in old.iter().enumerate() {
        new[label as usize] = number as i32;
    }
    let renumbered = labels.iter().map(|&l| usize::try_from(l).map_or(-1, |l| new[l])).collect();
    (renumbered, old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_of_kmeans_has_fewer_clusters_and_a_point_takes_as_many_times_less() {
        let of = |n_clusters| ClustererConfig::Kmeans(KMeansConfig { n_clusters, ..KMeansConfig::default() });
        assert_eq!((of(50).for_trial(2048), of(1000).for_trial(2048)), (of(50), of(102)));
        assert_eq!((of(50).cost_ratio(1e6, 2048), of(1020).cost_ratio(1e6, 2048)), (1.0, 10.0));
        assert_eq!(ClustererConfig::default().cost_ratio(4096.0 * 1024.0, 2048), 2.0);
    }

    #[test]
    fn labels_are_numbered_by_falling_size_and_then_by_first_point() {
        let (labels, old) = number_by_size(&[2, -1, 0, 1, 1, 0, 1]);
        assert_eq!(labels, [2, -1, 1, 0, 0, 1, 0]);
        assert_eq!(old, [1, 0, 2]);
        assert_eq!(number_by_size(&[1, 0]).0, [0, 1]);
        assert_eq!(number_by_size(&[-1, -1]), (vec![-1, -1], vec![]));
    }
}
