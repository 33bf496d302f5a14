//! The crate `hdbscan` behind our trait: a second, independent implementation for small samples.
//!
//! It builds its tree by Prim's algorithm over all pairs (quadratic time), knows only `eom`, and returns labels
//! alone. Its `min_samples` counts the point itself, so it is given ours plus one.

use super::hdbscan::{ClusterSelectionMethod, HdbscanConfig};
use super::{Clusterer, Clustering, number_by_size};
use crate::{Error, Result};
use kernels::{Device, Matrix};
use std::ops::ControlFlow;

/// Prim's algorithm looks at every pair, on one thread: past this many rows a fit takes longer than a user
/// would wait for a result that the clusterer `hdbscan` gives in a fraction of a second.
const MAX_ROWS: usize = 20_000;

/// The clusterer `hdbscan_crate`.
#[derive(Debug, Clone)]
pub struct HdbscanCrate {
    config: HdbscanConfig,
}

impl HdbscanCrate {
    /// Takes `config`; fails where a setting cannot be, or is `leaf`, which the crate does not have.
    pub fn try_new(config: HdbscanConfig) -> Result<Self> {
        config.check()?;
        if config.cluster_selection_method != ClusterSelectionMethod::Eom {
            let reason = "the crate hdbscan knows only \"eom\"; use the clusterer \"hdbscan\" for \"leaf\"";
            return Err(Error::setting("cluster_selection_method", reason));
        }
        Ok(Self { config })
    }
}

impl Clusterer for HdbscanCrate {
    fn name(&self) -> &'static str {
        "hdbscan_crate"
    }

    fn fit(&self, points: &Matrix<f32>, _: &Device, _: &dyn Fn() -> ControlFlow<()>) -> Result<Clustering> {
        let config = &self.config;
        points.check_finite()?;
        config.check_rows(points.rows())?;
        if points.rows() > MAX_ROWS {
            return Err(Error::setting(
                "clusterer",
                format!(
                    "hdbscan_crate takes quadratic time and at most {MAX_ROWS} rows, found {}; use the clusterer \"hdbscan\"",
                    points.rows()
                ),
            ));
        }
        let rows: Vec<Vec<f64>> =
            points.iter_rows().map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect();
        let params = hdbscan::HdbscanHyperParams::builder()
            .min_cluster_size(config.min_cluster_size)
            .min_samples(config.min_samples_for(points.rows()) + 1)
            .epsilon(config.cluster_selection_epsilon)
            .allow_single_cluster(config.allow_single_cluster);
        let params = match config.max_cluster_size {
            Some(max) => params.max_cluster_size(max),
            None => params,
        };
        let labels = hdbscan::Hdbscan::new(&rows, params.build())
            .cluster()
            .map_err(|error| Error::Unfit(format!("the crate hdbscan: {error}")))?;
        let (labels, _) = number_by_size(&labels);
        let probabilities = labels.iter().map(|&l| if l < 0 { 0.0 } else { 1.0 }).collect();
        Ok(Clustering { labels, probabilities, ..Clustering::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hdbscan::Hdbscan;
    use super::*;

    /// Clouds of very different density with noise between them, without equal distances.
    fn clouds(rows: usize, dims: usize, seed: u64) -> Matrix<f32> {
        let mut state = seed;
        let mut uniform = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let values = (0..rows * dims).map(|i| {
            let (cloud, j) = (i / dims % 7, i % dims);
            let spread = [0.02, 0.05, 0.1, 0.1, 0.2, 0.3, 4.0][cloud];
            let centre = (cloud * (j + 3) % 5) as f32;
            centre + spread * ((0..4).map(|_| uniform()).sum::<f32>() - 2.0)
        });
        Matrix::try_from_vec(rows, dims, values.collect()).unwrap()
    }

    /// Renames each cluster of `labels` to the one of `others` that it shares most points with: a point more or less
    /// can change which of two clusters counts as the larger.
    fn matched(labels: &[i32], others: &[i32]) -> Vec<i32> {
        let shared = |a: i32, b: i32| labels.iter().zip(others).filter(|&(&x, &y)| x == a && y == b).count();
        let last = others.iter().copied().max().unwrap_or(-1);
        labels
            .iter()
            .map(|&a| if a < 0 { -1 } else { (0..=last).max_by_key(|&b| shared(a, b)).unwrap_or(-1) })
            .collect()
    }

    #[test]
    fn both_implementations_agree_on_points_without_ties() {
        let mut clusters = 0;
        for seed in 1..30 {
            let (rows, dims) = (100 + 20 * seed as usize, 1 + seed as usize % 6);
            for (min_cluster_size, min_samples) in [(5, Some(1)), (12, Some(1)), (15, Some(4)), (20, None)] {
                let config = HdbscanConfig { min_cluster_size, min_samples, ..HdbscanConfig::default() };
                let points = clouds(rows, dims, seed);
                let ours = Hdbscan::try_new(config.clone())
                    .unwrap()
                    .fit(&points, &Device::cpu(), &|| ControlFlow::Continue(()))
                    .unwrap();
                let theirs = HdbscanCrate::try_new(config)
                    .unwrap()
                    .fit(&points, &Device::cpu(), &|| ControlFlow::Continue(()))
                    .unwrap();
                let matched = matched(&theirs.labels, &ours.labels);
                let differing = (0..rows).filter(|&i| ours.labels[i] != matched[i]);
                let tree = ours.tree.as_ref().unwrap();
                let at_a_tie = |&point: &usize| {
                    let row = tree.child.iter().position(|&c| c as usize == point).unwrap();
                    let birth =
                        tree.child.iter().position(|&c| c == tree.parent[row]).map(|row| tree.lambda[row]);
                    Some(tree.lambda[row]) == birth
                };
                // From two neighbours on, a point whose own core distance joins two clusters ties between them: it
                // leaves its cluster at the very density at which that was born, and either cluster is right.
                let unexplained: Vec<usize> =
                    differing.filter(|point| min_samples == Some(1) || !at_a_tie(point)).collect();
                assert!(unexplained.is_empty(), "{rows} x {dims}, {min_samples:?}: {unexplained:?}");
                clusters += ours.clusters();
            }
        }
        assert!(clusters > 200, "too few clusters to compare: {clusters}");
    }

    #[test]
    fn leaf_and_large_samples_are_refused_with_the_reason() {
        let leaf =
            HdbscanConfig { cluster_selection_method: ClusterSelectionMethod::Leaf, ..Default::default() };
        let error = HdbscanCrate::try_new(leaf).unwrap_err().to_string();
        assert!(error.contains("only \"eom\""), "{error}");
        let large = Matrix::zeros(MAX_ROWS + 1, 1);
        let error = HdbscanCrate::try_new(HdbscanConfig::default())
            .unwrap()
            .fit(&large, &Device::cpu(), &|| ControlFlow::Continue(()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("20001") && error.contains("quadratic"), "{error}");
    }
}
