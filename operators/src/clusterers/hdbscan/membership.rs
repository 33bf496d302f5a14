//! Soft clustering: a point's share in each cluster, from how near it is to the cluster's densest points and from
//! how long it stays with the cluster in the tree. The formulas are those of the Python library's `prediction` module.

use super::condensed_tree::{Clusters, CondensedTree};
use kernels::Matrix;

/// Added where the library adds it, against division by zero.
const NUDGE: f64 = 1e-8;

/// λ of points at distance 0: beyond every density met, and still finite in the sums below.
const DENSEST: f64 = 1e150;

/// What soft clustering needs of a fit.
pub(super) struct Membership {
    /// The selected clusters by label, and their order by cluster number, which settles ties.
    selected: Vec<u32>,
    by_number: Vec<usize>,
    /// By label: the points that stay longest in the leaves below the cluster.
    exemplars: Vec<Matrix<f32>>,
}

impl Membership {
    pub fn new(points: &Matrix<f32>, tree: &CondensedTree, clusters: &Clusters) -> Self {
        // The points that leave each leaf at its largest λ.
        let mut last = vec![Vec::new(); clusters.len()];
        for (parent, child, lambda, _) in tree.iter() {
            let at = clusters.at(parent);
            if clusters.children[at].is_empty() && lambda == clusters.death[at] {
                last[at].push(child);
            }
        }
        let exemplars = tree.selected.iter().map(|&cluster| {
            let mut rows: Vec<u32> = Vec::new();
            clusters.with_below(cluster, |below| rows.extend(&last[clusters.at(below)]));
            points.gather(&rows)
        });
        let mut by_number: Vec<usize> = (0..tree.selected.len()).collect();
        by_number.sort_by_key(|&label| tree.selected[label]);
        Self { exemplars: exemplars.collect(), selected: tree.selected.clone(), by_number }
    }

    /// The shares of a new point that joins beside a point of `cluster` at `lambda`.
    pub fn of_new_point(&self, clusters: &Clusters, point: &[f32], cluster: u32, lambda: f64) -> Vec<f32> {
        let lambda = lambda.min(DENSEST);
        let heights = self.heights(clusters, cluster, lambda);
        let largest = clusters.death[clusters.at(cluster)].min(DENSEST);
        let score = |height: &f64| {
            let room = largest - height;
            largest / if room > 0.0 { room } else { NUDGE }
        };
        let stays = softmax(heights.iter().map(score).collect());
        let nears = self.nearness(point);
        let shares = nears.iter().zip(&stays).map(|(near, stay)| near.sqrt() * stay * stay).collect();
        scale(shares, self.in_some_cluster(clusters, &heights, lambda, NUDGE))
    }

    /// The shares of a point of the fit that leaves `cluster` at `lambda`.
    pub fn of_fit_point(&self, clusters: &Clusters, point: &[f32], cluster: u32, lambda: f64) -> Vec<f32> {
        let lambda = lambda.min(DENSEST);
        let heights = self.heights(clusters, cluster, lambda);
        let largest = clusters.death[clusters.at(cluster)].min(DENSEST) + NUDGE;
        let stays = softmax(heights.iter().map(|height| (-largest / height).exp()).collect());
        let nears = self.nearness(point);
        let shares = nears.iter().zip(&stays).map(|(near, stay)| near * stay).collect();
        scale(shares, self.in_some_cluster(clusters, &heights, lambda, 0.0))
    }

    /// The λ down to which a point of `cluster` is together with each selected cluster.
    fn heights(&self, clusters: &Clusters, cluster: u32, lambda: f64) -> Vec<f64> {
        let height = |&selected: &u32| {
            let (mut left, mut right) = (cluster, selected);
            let mut parted_at = lambda;
            while left != right {
                // The larger number is never above the other.
                let mover = if left > right { &mut left } else { &mut right };
                parted_at = clusters.birth[clusters.at(*mover)];
                *mover = clusters.parent[clusters.at(*mover)];
            }
            let one_above_the_other = left == cluster || right == selected;
            if one_above_the_other { lambda } else { parted_at }
        };
        self.selected.iter().map(height).collect()
    }

    /// 1 / distance to the nearest exemplar of each cluster, scaled to sum 1.
    fn nearness(&self, point: &[f32]) -> Vec<f64> {
        let near = |exemplars: &Matrix<f32>| {
            let squared = exemplars.iter_rows().map(|e| squared_distance(point, e)).fold(f64::MAX, f64::min);
            if squared > 0.0 { 1.0 / squared.sqrt() } else { f64::MAX / self.exemplars.len() as f64 }
        };
        scale_to_one(self.exemplars.iter().map(near).collect())
    }

    /// The probability of belonging to any cluster: how near the best height comes to the top of its cluster.
    fn in_some_cluster(&self, clusters: &Clusters, heights: &[f64], lambda: f64, nudge: f64) -> f64 {
        let mut best: Option<usize> = None;
        for &label in &self.by_number {
            if best.is_none_or(|b| heights[label] > heights[b]) {
                best = Some(label);
            }
        }
        best.map_or(0.0, |label| {
            let top = clusters.death[clusters.at(self.selected[label])].min(DENSEST);
            heights[label] / (lambda.max(top) + nudge)
        })
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
}

fn softmax(values: Vec<f64>) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scale_to_one(values.into_iter().map(|v| (v - largest).exp()).collect())
}

fn scale_to_one(values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.into_iter().map(|v| if sum > 0.0 { v / sum } else { 0.0 }).collect()
}

fn scale(shares: Vec<f64>, to: f64) -> Vec<f32> {
    scale_to_one(shares).into_iter().map(|share| (share * to) as f32).collect()
}
