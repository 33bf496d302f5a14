//! From the condensed tree to a flat clustering: which clusters, which points, how strongly.

use super::condensed_tree::{Clusters, CondensedTree};
use super::{ClusterSelectionMethod, HdbscanConfig};

/// The clusters chosen.
pub(super) struct Selection {
    /// Their numbers, rising.
    pub clusters: Vec<u32>,
    /// The stability of every cluster of the tree, by number less the root's.
    pub stability: Vec<f64>,
}

/// Chooses clusters, none of them inside another.
pub(super) fn select(tree: &CondensedTree, config: &HdbscanConfig) -> Selection {
    let clusters = Clusters::new(tree);
    let stability = stability(tree, &clusters);
    let mut chosen = match config.cluster_selection_method {
        ClusterSelectionMethod::Eom => excess_of_mass(&clusters, &stability, config),
        ClusterSelectionMethod::Leaf => leaves(&clusters, config.allow_single_cluster),
    };
    if config.cluster_selection_epsilon > 0.0 {
        chosen = join_below_epsilon(&clusters, &chosen, config);
    }
    Selection { clusters: chosen, stability }
}

/// Stability(C) = Σ (λ at which a point leaves C − λ at which C is born).
fn stability(tree: &CondensedTree, clusters: &Clusters) -> Vec<f64> {
    let mut stability = vec![0.0; clusters.len()];
    for (parent, _, lambda, size) in tree.iter() {
        let at = clusters.at(parent);
        stability[at] += (lambda - clusters.birth[at]) * f64::from(size);
    }
    stability
}

/// Keeps a cluster where it is at least as stable as the best choice below it.
fn excess_of_mass(clusters: &Clusters, stability: &[f64], config: &HdbscanConfig) -> Vec<u32> {
    let mut best = stability.to_vec();
    let mut keep = vec![false; clusters.len()];
    let last_first = (0..clusters.len()).rev().take_while(|&at| at > 0 || config.allow_single_cluster);
    for at in last_first {
        let below: f64 = clusters.children[at].iter().map(|&child| best[clusters.at(child)]).sum();
        let too_large = config.max_cluster_size.is_some_and(|max| clusters.size[at] as usize > max);
        if below > stability[at] || too_large {
            best[at] = below;
        } else {
            keep[at] = true;
        }
    }
    // What is kept hides all that is kept below it.
    let mut chosen = Vec::new();
    let mut open = vec![clusters.root];
    while let Some(cluster) = open.pop() {
        if keep[clusters.at(cluster)] {
            chosen.push(cluster);
        } else {
            open.extend(&clusters.children[clusters.at(cluster)]);
        }
    }
    chosen.sort_unstable();
    chosen
}

fn leaves(clusters: &Clusters, allow_single_cluster: bool) -> Vec<u32> {
    let first = if allow_single_cluster { 0 } else { 1 };
    (first..clusters.len())
        .filter(|&at| clusters.children[at].is_empty())
        .map(|at| clusters.root + at as u32)
        .collect()
}

/// Replaces each cluster born at a distance below epsilon by its nearest ancestor born at more than that.
fn join_below_epsilon(clusters: &Clusters, chosen: &[u32], config: &HdbscanConfig) -> Vec<u32> {
    let born_at = |cluster: u32| 1.0 / clusters.birth[clusters.at(cluster)];
    let mut joined: Vec<u32> = chosen
        .iter()
        .map(|&chosen| {
            if born_at(chosen) >= config.cluster_selection_epsilon {
                return chosen;
            }
            let mut cluster = chosen;
            loop {
                let parent = clusters.parent[clusters.at(cluster)];
                if parent == clusters.root {
                    return if config.allow_single_cluster { parent } else { cluster };
                }
                if born_at(parent) > config.cluster_selection_epsilon {
                    return parent;
                }
                cluster = parent;
            }
        })
        .collect();
    joined.sort_unstable();
    joined.dedup();
    // An ancestor that stands in for one cluster takes the others below it along.
    let mut inside = vec![false; clusters.len()];
    for &cluster in &joined {
        clusters.with_below(cluster, |below| inside[clusters.at(below)] |= below != cluster);
    }
    joined.retain(|&cluster| !inside[clusters.at(cluster)]);
    joined
}

/// Labels each point by the place of its cluster in the selection, −1 outside all of them.
pub(super) fn label(tree: &CondensedTree, selection: &Selection, config: &HdbscanConfig) -> Vec<i32> {
    let clusters = Clusters::new(tree);
    let label_of = labels_of_clusters(&clusters, &selection.clusters);
    // The root as the one cluster holds the points as dense as where it splits, or as epsilon asks for.
    let only_root = selection.clusters == [clusters.root];
    let least = match (only_root, config.cluster_selection_epsilon > 0.0) {
        (false, _) => 0.0,
        (true, true) => 1.0 / config.cluster_selection_epsilon,
        (true, false) => clusters.death[0],
    };
    let mut labels = vec![-1; tree.points()];
    for (parent, child, lambda, _) in tree.iter() {
        if child < clusters.root && lambda >= least {
            labels[child as usize] = label_of[clusters.at(parent)];
        }
    }
    labels
}

/// The label of every cluster of the tree: its own if selected, else that of the selected one above it, else −1.
pub(super) fn labels_of_clusters(clusters: &Clusters, selected: &[u32]) -> Vec<i32> {
    let mut labels = vec![-1; clusters.len()];
    for (label, &cluster) in selected.iter().enumerate() {
        clusters.with_below(cluster, |below| labels[clusters.at(below)] = label as i32);
    }
    labels
}

/// probability(x) = λ(x) / λ_max of its cluster, at most 1.
pub(super) fn probabilities(tree: &CondensedTree, labels: &[i32]) -> Vec<f32> {
    let clusters = Clusters::new(tree);
    let mut probabilities = vec![0.0; labels.len()];
    for (_, child, lambda, _) in tree.iter().filter(|row| row.1 < clusters.root) {
        if let Ok(label) = usize::try_from(labels[child as usize]) {
            let max = clusters.finite_death[clusters.at(tree.selected[label])];
            probabilities[child as usize] = share(lambda, max) as f32;
        }
    }
    probabilities
}

/// λ as a share of the largest, in 0 to 1.
pub(super) fn share(lambda: f64, max: f64) -> f64 {
    if max > 0.0 { lambda.min(max) / max } else { 1.0 }
}

/// GLOSH(x) = 1 − λ(x) / the largest λ below the cluster that x leaves.
pub(super) fn outlier_scores(tree: &CondensedTree) -> Vec<f32> {
    let clusters = Clusters::new(tree);
    let mut largest = clusters.finite_death.clone();
    for at in (1..clusters.len()).rev() {
        let parent = clusters.at(clusters.parent[at]);
        largest[parent] = largest[parent].max(largest[at]);
    }
    let mut scores = vec![0.0; tree.points()];
    for (parent, child, lambda, _) in tree.iter().filter(|row| row.1 < clusters.root) {
        scores[child as usize] = (1.0 - share(lambda, largest[clusters.at(parent)])) as f32;
    }
    scores
}

/// persistence(C) = stability(C) / (points of C × largest λ of all), by label.
pub(super) fn persistence(tree: &CondensedTree, labels: &[i32], stability: &[f64]) -> Vec<f64> {
    let root = tree.points();
    let largest = tree.lambda.iter().copied().filter(|l| l.is_finite()).fold(0.0, f64::max);
    let mut sizes = vec![0usize; tree.selected.len()];
    for &label in labels {
        if let Ok(label) = usize::try_from(label) {
            sizes[label] += 1;
        }
    }
    let of =
        |(&cluster, &size): (&u32, &usize)| share(stability[cluster as usize - root], size as f64 * largest);
    tree.selected.iter().zip(&sizes).map(of).collect()
}
