//! Whether topics have words of their own.
//!
//! [`topic_diversity`] is the share of distinct words among all top words (Dieng et al., "Topic Modeling in
//! Embedding Spaces", 2020). [`inverted_rbo`] also sees ranks: one less the mean rank-biased overlap of all pairs of
//! topics (Webber et al., "A similarity measure for indefinite rankings", 2010, equation 32; Bianchi et al., 2021).

use rustc_hash::FxHashSet;

/// The persistence of rank-biased overlap: 0.9 puts 86 % of the weight on the first ten ranks.
const PERSISTENCE: f64 = 0.9;

/// Distinct words among the first `k` of each topic, as a share of those words; 1 is best, 1 over the number of
/// topics worst. `None` if no topic has a word.
pub fn topic_diversity<S: AsRef<str>>(topics: &[Vec<S>], k: usize) -> Option<f64> {
    let tops = || topics.iter().flat_map(|words| words.iter().take(k).map(S::as_ref));
    let all = tops().count();
    (all > 0).then(|| tops().collect::<FxHashSet<_>>().len() as f64 / all as f64)
}

/// One less the mean rank-biased overlap of the first `k` words of each pair of topics; 1 where no word is shared,
/// 0 where all lists are equal. `None` for fewer than two topics that have words.
pub fn inverted_rbo<S: AsRef<str>>(topics: &[Vec<S>], k: usize) -> Option<f64> {
    let lists: Vec<Vec<&str>> = topics
        .iter()
        .map(|words| words.iter().take(k).map(S::as_ref).collect())
        .filter(|l: &Vec<_>| !l.is_empty())
        .collect();
    let mut sum = 0.0;
    for (i, a) in lists.iter().enumerate() {
        for b in &lists[..i] {
            sum += rank_biased_overlap(a, b);
        }
    }
    let pairs = lists.len() * lists.len().saturating_sub(1) / 2;
    (pairs > 0).then(|| 1.0 - sum / pairs as f64)
}

/// Extrapolated rank-biased overlap of two lists without repeats, neither empty.
fn rank_biased_overlap(a: &[&str], b: &[&str]) -> f64 {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let (s, l) = (short.len(), long.len());
    let p = PERSISTENCE;
    // shared[d]: words that both lists have among their first d.
    let shared: Vec<f64> = (0..=l)
        .map(|depth| {
            let tops: FxHashSet<&str> = short.iter().take(depth).copied().collect();
            long[..depth].iter().filter(|word| tops.contains(*word)).count() as f64
        })
        .collect();
    let (at_short, at_long) = (shared[s], shared[l]);
    let mut sum = 0.0;
    for (depth, shared) in shared.iter().enumerate().skip(1) {
        let d = depth as f64;
        sum += shared / d * p.powi(depth as i32);
        if depth > s {
            sum += at_short * (d - s as f64) / (s as f64 * d) * p.powi(depth as i32);
        }
    }
    (1.0 - p) / p * sum + ((at_long - at_short) / l as f64 + at_short / s as f64) * p.powi(l as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(lists: &[&str]) -> Vec<Vec<String>> {
        lists.iter().map(|list| list.split_whitespace().map(String::from).collect()).collect()
    }

    #[test]
    fn diversity_is_the_share_of_distinct_words() {
        assert_eq!(topic_diversity(&lists(&["a b c", "a d e"]), 10), Some(5.0 / 6.0));
        assert_eq!(topic_diversity(&lists(&["a b c", "a d e"]), 1), Some(0.5));
        assert_eq!(topic_diversity(&lists(&["", ""]), 10), None);
    }

    #[test]
    fn equal_lists_have_no_diversity_and_disjoint_ones_all() {
        assert!(inverted_rbo(&lists(&["a b c", "a b c"]), 10).unwrap().abs() < 1e-12);
        assert_eq!(inverted_rbo(&lists(&["a b c", "d e f"]), 10), Some(1.0));
        assert_eq!(inverted_rbo(&lists(&["a b c", ""]), 10), None);
    }

    #[test]
    fn overlap_follows_the_published_formula() {
        // By hand, p = 0.9: agreements 0/1, 1/2, 3/3; 0.1/0.9 · (0.5 · 0.81 + 1 · 0.729) + 1 · 0.729 = 0.855.
        let rbo = rank_biased_overlap(&["a", "b", "c"], &["b", "c", "a"]);
        assert!((rbo - 0.855).abs() < 1e-12, "{rbo}");
    }

    #[test]
    fn a_list_that_another_begins_with_overlaps_it_wholly() {
        // Extrapolation assumes that the short list would have gone on as well as it went.
        assert!((rank_biased_overlap(&["a", "b"], &["a", "b", "c", "d"]) - 1.0).abs() < 1e-12);
        assert_eq!(rank_biased_overlap(&["a"], &["b", "c"]), 0.0);
    }
}
