//! Which things join first, by how similar they are: agglomerative clustering (kodama).

use kodama::{Method, Step};

/// The joins of some things, the nearest first.
pub(crate) struct Linkage {
    count: usize,
    steps: Vec<Step<f64>>,
}

impl Linkage {
    /// Joins `count` things whose similarities (cosines: `count` × `count`, row after row) are given, at distances of
    /// 1 − similarity, none below 0.
    pub(crate) fn of(similarities: &[f64], count: usize, method: Method) -> Self {
        let mut distances = condensed(similarities, count);
        let steps = if count > 1 {
            kodama::linkage(&mut distances, count, method).steps().to_vec()
        } else {
            Vec::new()
        };
        Self { count, steps }
    }

    /// What joins: two places each, of things, or of what the i-th join made at `count + i`; and at which distance.
    pub(crate) fn joins(&self) -> impl Iterator<Item = (usize, usize, f64)> + '_ {
        self.steps.iter().map(|step| (step.cluster1, step.cluster2, step.dissimilarity))
    }

    /// Cuts the things into so many groups.
    pub(crate) fn groups(&self, wanted: usize) -> Vec<Vec<usize>> {
        let joins = self.joins().take(self.count.saturating_sub(wanted)).map(|(a, b, _)| (a, b));
        joined(self.count, joins)
    }
}

/// 1 − similarity of each pair, as kodama takes them: the upper triangle, row by row.
fn condensed(similarities: &[f64], count: usize) -> Vec<f64> {
    let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    pairs.map(|(a, b)| (1.0 - similarities[a * count + b]).max(0.0)).collect()
}

/// The groups of `count` places after some joins.
fn joined(count: usize, joins: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = (0..count).map(|place| vec![place]).collect();
    for (a, b) in joins {
        let mut both = std::mem::take(&mut groups[a]);
        both.append(&mut groups[b]);
        groups.push(both);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_build_on_each_other() {
        assert_eq!(joined(4, [(0, 2), (3, 4)].into_iter()), [vec![1], vec![3, 0, 2]]);
        assert_eq!(joined(2, [].into_iter()), [vec![0], vec![1]]);
    }

    #[test]
    fn distances_are_the_upper_triangle() {
        assert_eq!(condensed(&[1.0, 0.75, 0.5, 0.75, 1.0, 1.5, 0.5, 1.5, 1.0], 3), [0.25, 0.5, 0.0]);
    }

    #[test]
    fn the_nearest_join_first() {
        let similarities = [1.0, 0.9, 0.1, 0.9, 1.0, 0.2, 0.1, 0.2, 1.0];
        let linkage = Linkage::of(&similarities, 3, Method::Average);
        assert_eq!(linkage.groups(2), [vec![2], vec![0, 1]]);
        assert_eq!(linkage.groups(5).len(), 3, "more groups than things are none");
        assert_eq!(Linkage::of(&[], 0, Method::Ward).joins().count(), 0);
        assert_eq!(Linkage::of(&[1.0], 1, Method::Ward).groups(1), [vec![0]]);
    }
}
