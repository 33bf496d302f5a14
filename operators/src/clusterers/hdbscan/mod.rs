//! HDBSCAN: clusters as the dense regions that last longest while the density asked for rises.
//!
//! Points are joined by a minimum spanning tree under mutual reachability (exact, from [`kernels`]); cutting it from
//! the heaviest edge down splits the points again and again; splits that shed fewer than `min_cluster_size` points
//! are points falling out of a cluster, the others make the [`CondensedTree`], from which clusters are chosen.
//! After Campello, Moulavi, Sander (2013) and McInnes, Healy (2017); `cluster_selection_epsilon` after Malzer, Baum
//! (2020); outlier scores are GLOSH (Campello et al. 2015). Labels agree with the Python library `hdbscan` with
//! `approx_min_span_tree=False`, but for points whose distances tie.
//!
//! Where the library divides infinities (groups of more than `min_samples` equal points have core distance 0, thus
//! λ = ∞), this is what is done here: equal points are never split from each other, and λ_max in probabilities and
//! outlier scores is the largest *finite* λ. All rows equal thus gives outliers only, or with `allow_single_cluster`
//! one cluster of all.

mod condensed_tree;
mod membership;
mod prediction;
mod selection;

pub use condensed_tree::CondensedTree;
pub use prediction::{Convention, Predicted, Prediction};

use super::{Clusterer, Clustering, number_by_size};
use crate::device::on_device;
use crate::{Error, Result};
use kernels::gpu::spanning_tree::{self as gpu_tree, MAX_DIMS, MAX_MIN_SAMPLES};
use kernels::{Device, KdTree, Matrix, core_distances, minimum_spanning_tree};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// HDBSCAN's settings, under the names that the Python library gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HdbscanConfig {
    /// The fewest points that make a cluster, at least 2. Default 10, BERTopic's smallest topic: a topic of fewer
    /// texts can hardly be named.
    pub min_cluster_size: usize,
    /// A point is as dense as its distance to its `min_samples`-th other point says; more is smoother and leaves more
    /// outliers. Default: `min_cluster_size`, as in the papers; never more than all other points.
    pub min_samples: Option<usize>,
    /// How clusters are chosen from the tree. Default `eom`, as in the papers.
    pub cluster_selection_method: ClusterSelectionMethod,
    /// Clusters that part at a distance below this are kept together. Default 0: no such distance, since it has a
    /// meaning only in units of the points.
    pub cluster_selection_epsilon: f64,
    /// `eom` does not choose a cluster of more points than this. Default: no limit.
    pub max_cluster_size: Option<usize>,
    /// Lets `eom` (and `leaf`, where nothing splits) choose the whole data set as the one cluster. Default false: it
    /// is the right answer for one topic and a wrong one everywhere else.
    pub allow_single_cluster: bool,
}

/// How clusters are chosen from the condensed tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterSelectionMethod {
    /// Excess of mass: the clusters that last longest, each point in at most one.
    #[default]
    Eom,
    /// The leaves of the tree: smaller clusters of more even size.
    Leaf,
}

impl Default for HdbscanConfig {
    fn default() -> Self {
        Self {
            min_cluster_size: 10,
            min_samples: None,
            cluster_selection_method: ClusterSelectionMethod::Eom,
            cluster_selection_epsilon: 0.0,
            max_cluster_size: None,
            allow_single_cluster: false,
        }
    }
}

impl HdbscanConfig {
    /// Fails with the setting that cannot be, and what would do.
    pub fn check(&self) -> Result<()> {
        if self.min_cluster_size < 2 {
            let reason = format!("{} points make no cluster, expected 2 or more", self.min_cluster_size);
            return Err(Error::setting("min_cluster_size", reason));
        }
        if self.min_samples == Some(0) {
            return Err(Error::setting("min_samples", "0 neighbours give no density, expected 1 or more"));
        }
        let epsilon = self.cluster_selection_epsilon;
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return Err(Error::setting(
                "cluster_selection_epsilon",
                format!("{epsilon}, expected a number from 0"),
            ));
        }
        if let Some(max) = self.max_cluster_size.filter(|&max| max < self.min_cluster_size) {
            let reason = format!("{max}, expected min_cluster_size ({}) or more", self.min_cluster_size);
            return Err(Error::setting("max_cluster_size", reason));
        }
        Ok(())
    }

    /// Fails where `rows` points cannot be clustered.
    pub(super) fn check_rows(&self, rows: usize) -> Result<()> {
        if rows < self.min_cluster_size {
            return Err(Error::Unfit(format!(
                "{rows} rows are fewer than min_cluster_size {}: use more rows{}",
                self.min_cluster_size,
                if rows < 2 { String::new() } else { format!(", or a min_cluster_size of 2 to {rows}") }
            )));
        }
        Ok(())
    }

    /// The neighbours that make a core distance among `rows` points.
    pub fn min_samples_for(&self, rows: usize) -> usize {
        self.min_samples.unwrap_or(self.min_cluster_size).min(rows.saturating_sub(1)).max(1)
    }
}

/// The clusterer `hdbscan`.
#[derive(Debug, Clone)]
pub struct Hdbscan {
    config: HdbscanConfig,
}

impl Hdbscan {
    /// Takes `config`; fails where a setting cannot be.
    pub fn try_new(config: HdbscanConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config })
    }
}

impl Clusterer for Hdbscan {
    fn name(&self) -> &'static str {
        "hdbscan"
    }

    fn fit(
        &self,
        points: &Matrix<f32>,
        device: &Device,
        stop: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Clustering> {
        let config = &self.config;
        let stop = || if stop().is_break() { Err(Error::Stopped("the clustering")) } else { Ok(()) };
        points.check_finite()?;
        config.check_rows(points.rows())?;
        let arranged = KdTree::build(points)?;
        let min_samples = config.min_samples_for(points.rows());
        let edges = on_device("clusters", device, beyond_gpus(arranged.dims(), min_samples), |device| {
            let Some(gpu) = device.gpu() else {
                return Ok(minimum_spanning_tree(&arranged, &core_distances(&arranged, min_samples)?)?);
            };
            let core = gpu_tree::core_distances(gpu, &arranged, min_samples)?;
            Ok(gpu_tree::minimum_spanning_tree(gpu, &arranged, &core)?)
        })?;
        stop()?;
        let mut tree = CondensedTree::from_spanning_tree(&edges, config.min_cluster_size);

        stop()?;
        let selection = selection::select(&tree, config);
        let labels = selection::label(&tree, &selection, config);
        let (labels, old) = number_by_size(&labels);
        tree.selected = old.iter().map(|&label| selection.clusters[label as usize]).collect();
        let persistence = selection::persistence(&tree, &labels, &selection.stability);
        let probabilities = selection::probabilities(&tree, &labels);
        let outlier_scores = selection::outlier_scores(&tree);
        Ok(Clustering { labels, probabilities, outlier_scores, persistence, tree: Some(tree) })
    }
}

/// What of a spanning tree in `dims` dimensions is beyond the GPU's kernels.
fn beyond_gpus(dims: usize, min_samples: usize) -> Option<String> {
    if dims > MAX_DIMS {
        return Some(format!("{dims} dimensions are more than the {MAX_DIMS} of a GPU's trees"));
    }
    (min_samples > MAX_MIN_SAMPLES)
        .then(|| format!("min_samples {min_samples} is more than the {MAX_MIN_SAMPLES} of a GPU's trees"))
}
