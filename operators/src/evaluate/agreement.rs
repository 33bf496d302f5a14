//! How far two labelings of the same rows agree.
//!
//! All measures are functions of the contingency table and are symmetric, but for homogeneity and completeness.
//! ARI and AMI are 0 for a labeling made by chance and 1 for an equal one; NMI and V-measure grow with the number
//! of clusters even by chance. Definitions and edge cases are scikit-learn's.
//!
//! The expected mutual information of AMI (Vinh, Epps and Bailey, "Information Theoretic Measures for Clusterings
//! Comparison", 2010) is exact: for each pair of cluster sizes the hypergeometric distribution is walked from its
//! mode by the ratios of neighbouring terms and divided by its sum, which keeps f64's precision where differences of
//! log-gammas lose it. Pairs of equal sizes are computed once, so thousands of singletons cost nothing.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Agreement of two labelings; 1 is equal. Of no rows at all it is 1, FMI 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Adjusted Rand index, −0.5 to 1.
    pub ari: f64,
    /// Adjusted mutual information, normalised by the mean entropy; at most 1.
    pub ami: f64,
    /// Normalised mutual information, normalised by the mean entropy, 0 to 1.
    pub nmi: f64,
    /// Whether each found cluster holds one true class, 0 to 1.
    pub homogeneity: f64,
    /// Whether each true class is in one found cluster, 0 to 1.
    pub completeness: f64,
    /// The harmonic mean of homogeneity and completeness.
    pub v_measure: f64,
    /// Fowlkes-Mallows index: the geometric mean of pair precision and recall, 0 to 1.
    pub fmi: f64,
}

/// Agreement of topics with true classes. Either number alone can be gained by leaving rows out or by forcing them
/// in: read both, with the coverage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TopicAgreement {
    /// Over the rows that have a topic.
    pub inside: Agreement,
    /// Over all rows, each outlier a topic of its own.
    pub all: Agreement,
    /// The share of rows that have a topic, 0 to 1; 1 of no rows.
    pub coverage: f64,
}

/// Compares `topics` (−1 for an outlier) with the true class of each row.
///
/// Fails if they differ in number.
pub fn topic_agreement<T: Ord>(truth: &[T], topics: &[i32]) -> crate::Result<TopicAgreement> {
    let is_inside = |(_, topic): &(&T, &i32)| **topic >= 0;
    check_lengths(truth.len(), topics.len())?;
    let (truth_inside, topics_inside): (Vec<&T>, Vec<i32>) =
        truth.iter().zip(topics).filter(is_inside).unzip();
    let coverage = if topics.is_empty() { 1.0 } else { topics_inside.len() as f64 / topics.len() as f64 };
    let apart: Vec<i64> =
        (1i64..).zip(topics).map(|(row, &topic)| if topic < 0 { -row } else { i64::from(topic) }).collect();
    let inside = agreement(&truth_inside, &topics_inside)?;
    Ok(TopicAgreement { inside, all: agreement(truth, &apart)?, coverage })
}

/// Compares the labeling `found` with the labeling `truth`.
///
/// Fails if they differ in number.
pub fn agreement<T: Ord, F: Ord>(truth: &[T], found: &[F]) -> crate::Result<Agreement> {
    check_lengths(truth.len(), found.len())?;
    let table = Contingency::new(truth, found);
    let (h_truth, h_found) = (entropy(&table.rows, table.total), entropy(&table.columns, table.total));
    let mutual = table.mutual_information();
    let homogeneity = if h_truth > 0.0 { mutual / h_truth } else { 1.0 };
    let completeness = if h_found > 0.0 { mutual / h_found } else { 1.0 };
    let parts = homogeneity + completeness;
    let v_measure = if parts > 0.0 { 2.0 * homogeneity * completeness / parts } else { 0.0 };
    Ok(Agreement {
        ari: table.adjusted_rand(),
        ami: table.adjusted_mutual_information(mutual, (h_truth + h_found) / 2.0),
        nmi: table.normalized_mutual_information(mutual, (h_truth + h_found) / 2.0),
        homogeneity,
        completeness,
        v_measure,
        fmi: table.fowlkes_mallows(),
    })
}

/// How many rows each pair of labels has in common.
struct Contingency {
    /// (row, column, count), counts above zero.
    cells: Vec<(usize, usize, u64)>,
    rows: Vec<u64>,
    columns: Vec<u64>,
    total: u64,
}

impl Contingency {
    fn new<T: Ord, F: Ord>(truth: &[T], found: &[F]) -> Self {
        let (truth, rows) = number(truth);
        let (found, columns) = number(found);
        let mut pairs: Vec<(usize, usize)> = truth.into_iter().zip(found).collect();
        pairs.par_sort_unstable();
        let cells = pairs.chunk_by(|a, b| a == b).map(|run| (run[0].0, run[0].1, run.len() as u64)).collect();
        Self { cells, rows, columns, total: pairs.len() as u64 }
    }

    /// Pairs of rows that are together in both, in the truth, in what was found, and all; ordered, without a row
    /// and itself.
    fn pairs(&self) -> [u128; 4] {
        let pairs = |n: u64| u128::from(n) * u128::from(n.saturating_sub(1));
        let both = self.cells.iter().map(|cell| pairs(cell.2)).sum();
        let sum = |sizes: &[u64]| sizes.iter().map(|&n| pairs(n)).sum();
        [both, sum(&self.rows), sum(&self.columns), pairs(self.total)]
    }

    fn adjusted_rand(&self) -> f64 {
        let [both, truth, found, all] = self.pairs();
        if both == truth && both == found {
            return 1.0;
        }
        // Counts of pairs exceed 2^53 for a hundred million rows; below that the division is the only rounding.
        let expected = truth as f64 * found as f64 / all as f64;
        (both as f64 - expected) / ((truth + found) as f64 / 2.0 - expected)
    }

    fn fowlkes_mallows(&self) -> f64 {
        let [both, truth, found, _] = self.pairs();
        if both == 0 {
            0.0
        } else {
            (both as f64 / truth as f64).sqrt() * (both as f64 / found as f64).sqrt()
        }
    }

    fn mutual_information(&self) -> f64 {
        let total = self.total as f64;
        let terms = self.cells.iter().map(|&(row, column, count)| {
            let count = count as f64;
            count / total * (total * count / (self.rows[row] as f64 * self.columns[column] as f64)).ln()
        });
        // Rounding may leave a tiny negative sum where the labelings are independent.
        terms.sum::<f64>().max(0.0)
    }

    fn normalized_mutual_information(&self, mutual: f64, mean_entropy: f64) -> f64 {
        match (self.rows.len(), self.columns.len()) {
            (0, 0) | (1, 1) => 1.0,
            _ if mutual <= f64::EPSILON => 0.0,
            _ => mutual / mean_entropy,
        }
    }

    fn adjusted_mutual_information(&self, mutual: f64, mean_entropy: f64) -> f64 {
        match (self.rows.len(), self.columns.len()) {
            (0, 0) | (1, 1) => return 1.0,
            (1, _) | (_, 1) => return 0.0,
            _ => {}
        }
        let expected = self.expected_mutual_information();
        // Where expectation and maximum are one, rounding must not decide: both differences are then equal.
        let away_from_zero = |x: f64| if x < 0.0 { x.min(-f64::EPSILON) } else { x.max(f64::EPSILON) };
        away_from_zero(mutual - expected) / away_from_zero(mean_entropy - expected)
    }

    /// The mean mutual information of all labelings with these cluster sizes.
    fn expected_mutual_information(&self) -> f64 {
        let (rows, columns) = (size_counts(&self.rows), size_counts(&self.columns));
        let of_row = |&(a, times_a): &(u64, u64)| -> f64 {
            let of_pair =
                |&(b, times_b): &(u64, u64)| (times_a * times_b) as f64 * expected_term(a, b, self.total);
            columns.iter().map(of_pair).sum()
        };
        rows.par_iter().map(of_row).collect::<Vec<f64>>().into_iter().sum()
    }
}

/// Numbers labels in sorted order; returns each row's number and how many rows each has.
fn number<L: Ord>(labels: &[L]) -> (Vec<usize>, Vec<u64>) {
    let mut distinct: BTreeMap<&L, (usize, u64)> = BTreeMap::new();
    for label in labels {
        distinct.entry(label).or_default().1 += 1;
    }
    for (number, entry) in distinct.values_mut().enumerate() {
        entry.0 = number;
    }
    let rows = labels.iter().map(|label| distinct[label].0).collect();
    (rows, distinct.into_values().map(|(_, count)| count).collect())
}

/// The distinct cluster sizes, each with how many clusters have it.
fn size_counts(sizes: &[u64]) -> Vec<(u64, u64)> {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for &size in sizes {
        *counts.entry(size).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn entropy(sizes: &[u64], total: u64) -> f64 {
    if sizes.len() <= 1 {
        return 0.0;
    }
    let total = total as f64;
    sizes.iter().map(|&size| size as f64 / total).map(|p| -p * p.ln()).sum()
}

/// Σ_n P(n) · n/N · ln(N·n / (a·b)), n the rows that clusters of `a` and `b` of `total` rows share by chance.
fn expected_term(a: u64, b: u64, total: u64) -> f64 {
    let (smallest, largest) = ((a + b).saturating_sub(total), a.min(b));
    let mode = ((u128::from(a) + 1) * (u128::from(b) + 1) / (u128::from(total) + 2)) as u64;
    let mode = mode.clamp(smallest, largest);
    let (fa, fb, ft) = (a as f64, b as f64, total as f64);
    // P(n + 1) / P(n)
    let ratio =
        |n: u64| (fa - n as f64) * (fb - n as f64) / ((n + 1) as f64 * ((total + n + 1 - a - b) as f64));
    let information = |n: u64| if n == 0 { 0.0 } else { n as f64 / ft * (ft * n as f64 / (fa * fb)).ln() };

    let (mut mass, mut sum) = (1.0, information(mode));
    let (mut p, mut n) = (1.0, mode);
    while n < largest && p > NEGLIGIBLE {
        p *= ratio(n);
        n += 1;
        mass += p;
        sum += p * information(n);
    }
    let (mut p, mut n) = (1.0, mode);
    while n > smallest && p > NEGLIGIBLE {
        n -= 1;
        p /= ratio(n);
        mass += p;
        sum += p * information(n);
    }
    sum / mass
}

/// A probability, relative to the mode's, below which the tail of a hypergeometric distribution adds less than the
/// rounding of its sum: tails fall faster than geometrically.
const NEGLIGIBLE: f64 = 1e-25;

fn check_lengths(truth: usize, found: usize) -> crate::Result<()> {
    if truth == found {
        return Ok(());
    }
    let expected = format!("{truth}, one for each true label");
    Err(kernels::Error::Shape { what: "found labels", expected, found: found.to_string() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_labels_do_not_matter() {
        let agreement = agreement(&["x", "y", "x", "z"], &[7, -3, 7, 0]).unwrap();
        for value in [agreement.ari, agreement.ami, agreement.nmi, agreement.v_measure, agreement.fmi] {
            assert!((value - 1.0).abs() < 1e-12, "{agreement:?}");
        }
    }

    #[test]
    fn an_expected_term_is_the_sum_over_the_hypergeometric_distribution() {
        let choose = |n: u64, k: u64| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
        for (a, b, total) in [(5u64, 7u64, 20u64), (15, 12, 20), (1, 20, 20), (20, 20, 20), (1, 1, 20)] {
            let by_definition: f64 = (1u64.max((a + b).saturating_sub(total))..=a.min(b))
                .map(|n| {
                    let p = choose(a, n) * choose(total - a, b - n) / choose(total, b);
                    let n = n as f64;
                    p * n / total as f64 * (total as f64 * n / (a * b) as f64).ln()
                })
                .sum();
            assert!((expected_term(a, b, total) - by_definition).abs() < 1e-14, "{a} {b} {total}");
        }
    }

    #[test]
    fn outliers_are_left_out_inside_and_stand_alone_in_all() {
        let truth = ["a", "a", "b", "b"];
        let found = topic_agreement(&truth, &[0, 0, -1, -1]).unwrap();
        assert_eq!(found.coverage, 0.5);
        assert_eq!(found.inside, agreement(&["a", "a"], &[0, 0]).unwrap());
        assert_eq!(found.all, agreement(&truth, &[0, 0, 1, 2]).unwrap());
    }

    #[test]
    fn labelings_of_different_length_are_refused() {
        assert!(agreement(&[1], &[1, 2]).is_err() && topic_agreement(&[1], &[1, 2]).is_err());
    }
}
