//! Placing new points in a clustering that stays as it is: labels, and shares in every cluster.
//!
//! A new point is put into the condensed tree beside its nearest fit point under mutual reachability, at the density
//! at which it would join it. All that is needed follows from the fit's points, its tree and `min_samples`, so a
//! prediction can be rebuilt from what a model keeps.
//!
//! # Which core distance
//!
//! The Python library uses three: the distance to the `min_samples`-th other point in the fit, to the one before it
//! for the stored points, to the one after it for new ones; labels predicted for the fit's own rows then differ from
//! the fit's. [`Convention::Consistent`] uses the fit's one everywhere, and a point equal to a row of the fit takes
//! that row's place, so the fit's rows get the fit's labels and probabilities. [`Convention::Compat`] repeats the
//! library.

use super::condensed_tree::{Clusters, CondensedTree};
use super::membership::Membership;
use super::selection::{labels_of_clusters, share};
use crate::{Error, Result};
use kernels::{KdTree, Matrix};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which distance is a point's core distance when predicting; the module says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// The distance to the `min_samples`-th other point, for the fit's points and for new ones.
    #[default]
    Consistent,
    /// The Python library's: one neighbour less for the fit's points, one more for new ones.
    Compat,
}

/// The labels of new points.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// The cluster of each point, −1 for an outlier.
    pub labels: Vec<i32>,
    /// How strongly each point belongs to its cluster, 0 to 1; 0 for an outlier.
    pub probabilities: Vec<f32>,
}

/// A clustering made ready for new points.
pub struct Prediction {
    arranged: KdTree,
    convention: Convention,
    min_samples: usize,
    core: Vec<f64>,
    clusters: Clusters,
    /// The cluster that each fit point leaves, and at which λ.
    leaves: Vec<(u32, f64)>,
    /// The label of every cluster of the tree.
    label_of: Vec<i32>,
    /// λ_max by label.
    largest: Vec<f64>,
    membership: Membership,
}

/// Where a new point joins the tree.
pub(super) struct Place {
    /// The fit point that it joins.
    pub beside: u32,
    /// The density at which it joins.
    pub lambda: f64,
}

impl Prediction {
    /// Prepares a clustering for new points from its `points`, its `tree` and the fit's `min_samples`
    /// ([`HdbscanConfig::min_samples_for`](super::HdbscanConfig::min_samples_for)).
    ///
    /// Fails where points and tree are not of the same fit.
    pub fn try_new(
        points: &Matrix<f32>,
        tree: &CondensedTree,
        min_samples: usize,
        convention: Convention,
    ) -> Result<Self> {
        let leaves = check(points, tree, min_samples)?;
        let arranged = KdTree::build(points)?;
        // Both count the point itself as its first neighbour.
        let neighbours = match convention {
            Convention::Consistent => min_samples + 1,
            Convention::Compat => min_samples,
        };
        let core = arranged.kth_distances(neighbours)?;
        let clusters = Clusters::new(tree);
        let label_of = labels_of_clusters(&clusters, &tree.selected);
        let largest = tree.selected.iter().map(|&c| clusters.finite_death[clusters.at(c)]).collect();
        let membership = Membership::new(points, tree, &clusters);
        Ok(Self { arranged, convention, min_samples, core, clusters, leaves, label_of, largest, membership })
    }

    /// Labels each row of `queries` (`approximate_predict`). Rows do not influence each other, and clusters stay as
    /// they are; `cluster_selection_epsilon` acts only through the clusters that the fit chose.
    pub fn approximate_predict(&self, queries: &Matrix<f32>) -> Result<Predicted> {
        let (labels, probabilities) = self.places(queries)?.iter().map(|place| self.label(place)).unzip();
        Ok(Predicted { labels, probabilities })
    }

    /// Returns each query's share in each cluster (queries × labels); a row sums to the probability that it belongs
    /// to any, and 1 less the sum is its share of being an outlier.
    pub fn membership_vectors(&self, queries: &Matrix<f32>) -> Result<Matrix<f32>> {
        let places = self.places(queries)?;
        let rows: Vec<Vec<f32>> = places
            .par_iter()
            .enumerate()
            .map(|(i, place)| {
                let (cluster, leaves_at) = self.leaves[place.beside as usize];
                let lambda = place.lambda.min(leaves_at);
                self.membership.of_new_point(&self.clusters, queries.row(i), cluster, lambda)
            })
            .collect();
        self.matrix(rows)
    }

    /// Returns the same for the fit's own points, from their places in the tree (`all_points_membership_vectors`; a
    /// somewhat different formula, as in the library). `points` are those of the fit.
    pub fn all_points_membership_vectors(&self, points: &Matrix<f32>) -> Result<Matrix<f32>> {
        if points.rows() != self.leaves.len() || points.cols() != self.arranged.dims() {
            return Err(kernels::Error::Shape {
                what: "points",
                expected: format!("the {} x {} points of the fit", self.leaves.len(), self.arranged.dims()),
                found: format!("{} x {}", points.rows(), points.cols()),
            }
            .into());
        }
        let of = |(i, &(cluster, lambda)): (usize, &(u32, f64))| {
            self.membership.of_fit_point(&self.clusters, points.row(i), cluster, lambda)
        };
        self.matrix(self.leaves.par_iter().enumerate().map(of).collect())
    }

    fn matrix(&self, rows: Vec<Vec<f32>>) -> Result<Matrix<f32>> {
        Ok(Matrix::try_from_vec(rows.len(), self.largest.len(), rows.concat())?)
    }

    /// Finds the nearest fit point of each query under mutual reachability, among its 2 × min_samples nearest.
    fn places(&self, queries: &Matrix<f32>) -> Result<Vec<Place>> {
        let count = (2 * self.min_samples).min(self.core.len());
        let nearest = self.arranged.nearest(queries, count)?;
        let own = match self.convention {
            Convention::Consistent => self.min_samples - 1,
            Convention::Compat => self.min_samples.min(count - 1),
        };
        let place = |(rows, distances): (&[u32], &[f64])| {
            if self.convention == Convention::Consistent && distances[0] == 0.0 {
                return Place { beside: rows[0], lambda: self.leaves[rows[0] as usize].1 };
            }
            let core = distances[own];
            let (mut beside, mut reach) = (rows[0], f64::INFINITY);
            for (&row, &distance) in rows.iter().zip(distances) {
                let to_row = distance.max(core).max(self.core[row as usize]);
                if to_row < reach {
                    (beside, reach) = (row, to_row);
                }
            }
            Place { beside, lambda: 1.0 / reach }
        };
        Ok(nearest.rows.iter_rows().zip(nearest.distances.iter_rows()).map(place).collect())
    }

    fn label(&self, place: &Place) -> (i32, f32) {
        let (mut cluster, leaves_at) = self.leaves[place.beside as usize];
        if leaves_at > place.lambda {
            // The point joins before its neighbour's cluster was born: in the cluster that held it then.
            while cluster > self.clusters.root
                && self.clusters.birth[self.clusters.at(cluster)] >= place.lambda
            {
                cluster = self.clusters.parent[self.clusters.at(cluster)];
            }
        }
        match usize::try_from(self.label_of[self.clusters.at(cluster)]) {
            Ok(label) => (label as i32, share(place.lambda, self.largest[label]) as f32),
            Err(_) => (-1, 0.0),
        }
    }
}

/// Checks that `tree` is a tree over `points` and returns where each point leaves it.
fn check(points: &Matrix<f32>, tree: &CondensedTree, min_samples: usize) -> Result<Vec<(u32, f64)>> {
    let broken = |reason: String| Err(Error::Unfit(format!("condensed tree: {reason}")));
    let (rows, root) = (tree.rows(), tree.points());
    if root != points.rows() {
        return broken(format!("it is over {root} points, but there are {}", points.rows()));
    }
    if tree.child.len() != rows || tree.lambda.len() != rows || tree.child_size.len() != rows {
        return broken("its columns are not equally long".into());
    }
    if min_samples == 0 || min_samples >= points.rows() {
        let reason = format!("{min_samples}, expected 1 to {}", points.rows().saturating_sub(1));
        return Err(Error::setting("min_samples", reason));
    }
    let mut leaves = vec![None; root];
    let mut born = vec![true];
    for (parent, child, lambda, _) in tree.iter() {
        if born.get(parent as usize - root) != Some(&true) {
            return broken(format!("cluster {parent} has children before it is born"));
        }
        if (child as usize) < root {
            leaves[child as usize] = Some((parent, lambda));
        } else if child as usize == root + born.len() {
            born.push(true);
        } else {
            return broken(format!("cluster {child} is out of order"));
        }
    }
    if let Some(&unknown) =
        tree.selected.iter().find(|&&c| (c as usize) < root || c as usize - root >= born.len())
    {
        return broken(format!("there is no cluster {unknown} to select"));
    }
    let points_left = leaves.iter().filter(|l| l.is_some()).count();
    let leaves: Option<Vec<(u32, f64)>> = leaves.into_iter().collect();
    match leaves {
        Some(leaves) => Ok(leaves),
        None => broken(format!("only {points_left} of {root} points have a row")),
    }
}
