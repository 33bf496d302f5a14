//! Clusterers: from points to a label for each, −1 for an outlier.
//!
//! Labels are numbered by falling size, 0 the largest (equal sizes: the cluster whose first point comes first).

use crate::Result;
use kernels::Matrix;

/// What a clusterer found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clustering {
    /// The cluster of each point, −1 for an outlier.
    pub labels: Vec<i32>,
    /// How strongly each point belongs to its cluster, 0 to 1; 0 for an outlier.
    pub probabilities: Vec<f32>,
    /// How much each point stands apart (GLOSH), 0 to 1; empty where the clusterer has no such score.
    pub outlier_scores: Vec<f32>,
}

/// An algorithm that groups points.
pub trait Clusterer: Send + Sync {
    /// The name used in job files and reports.
    fn name(&self) -> &'static str;

    /// Groups the rows of `points`.
    ///
    /// Fails with `Error::Unfit` where no clustering can be: fewer rows than the smallest cluster, or values that
    /// are not numbers.
    fn fit(&self, points: &Matrix<f32>) -> Result<Clustering>;
}
