//! Topics as vectors of term weights, and how near texts lie to them.
//!
//! Rows are c-TF-IDF weights of length 1; a text, a window of it, or the texts of a day become one by the same fitted
//! weights. Stored by term, so that a short text costs what its few terms cost: cosines to all topics are sums over
//! their lists.

use super::{Ctfidf, TermCounts, Tokens, representatives::Columns, tokens::BREAK};

/// The topics of some counts, −1 left out.
pub struct TopicSpace<'a> {
    topics: Vec<i32>,
    weights: &'a Ctfidf,
    columns: Columns,
    /// Of each term the topics that have it, by place, with their weight over their length.
    by_term: Vec<Vec<(u32, f64)>>,
}

impl<'a> TopicSpace<'a> {
    /// Arranges the topics of `counts`; texts come from `tokens`.
    pub fn new(counts: &TermCounts, weights: &'a Ctfidf, tokens: &Tokens) -> Self {
        let mut by_term = vec![Vec::new(); counts.terms().len()];
        let mut topics = Vec::new();
        for (row, &topic) in counts.topics().iter().enumerate().filter(|(_, topic)| **topic >= 0) {
            // Topics are i32, so their number fits u32.
            let place = topics.len() as u32;
            topics.push(topic);
            for (term, weight) in unit(weights.weigh(counts.row(row))) {
                by_term[term as usize].push((place, weight));
            }
        }
        Self { topics, weights, columns: Columns::of(counts, tokens), by_term }
    }

    /// The topics, rising.
    pub fn topics(&self) -> &[i32] {
        &self.topics
    }

    /// Writes to `cosines` (one a topic) those of words of a document, as [`Tokens`] has them; all 0 where none of
    /// them is a term.
    pub(crate) fn cosines(&self, words: &[u32], cosines: &mut Vec<f64>) {
        cosines.clear();
        cosines.resize(self.topics.len(), 0.0);
        for (term, weight) in unit(self.weights.weigh(&self.columns.count(words))) {
            for &(topic, of_topic) in &self.by_term[term as usize] {
                cosines[topic as usize] += weight * of_topic;
            }
        }
    }

    /// How often words of a document are each term, by rising term.
    pub(crate) fn counts(&self, words: &[u32]) -> Vec<(u32, u64)> {
        self.columns.count(words)
    }

    /// The cosines of topics among each other: topics × topics, row after row.
    pub fn between(&self) -> Vec<f64> {
        let count = self.topics.len();
        let mut cosines = vec![0.0; count * count];
        for of_term in &self.by_term {
            for &(a, weight_of_a) in of_term {
                for &(b, weight_of_b) in of_term {
                    cosines[a as usize * count + b as usize] += weight_of_a * weight_of_b;
                }
            }
        }
        cosines
    }
}

/// How topics are found in parts of a text; names are those of BERTopic's `approximate_distribution`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistributionConfig {
    /// Words of a window. 4, as in BERTopic.
    pub window: usize,
    /// Words between the beginnings of two windows. 1, as in BERTopic.
    pub stride: usize,
    /// Cosines below it are none. 0.05, at which 97 % of the papers of a topic have one: weights are square roots here,
    /// which lie flatter than BERTopic's, where it is 0.1 (by which 20 % have one here).
    pub min_similarity: f64,
}

impl Default for DistributionConfig {
    fn default() -> Self {
        Self { window: 4, stride: 1, min_similarity: 0.05 }
    }
}

/// The topics of a document by its windows: of each topic the sum of its cosines to them, over that of all topics; all
/// 0 where no window is near any.
///
/// As BERTopic's `approximate_distribution`, but that windows are of words that carry topics: stop words do not fill
/// them. `scores` has one entry a topic of `space`.
pub(crate) fn distribution(
    space: &TopicSpace<'_>,
    document: &[u32],
    config: &DistributionConfig,
    scores: &mut Vec<f64>,
) {
    scores.clear();
    scores.resize(space.topics.len(), 0.0);
    // Where each word lies: between two that are not joined stands a break.
    let places: Vec<usize> = (0..document.len()).filter(|at| document[*at] != BREAK).collect();
    let last = places.len().saturating_sub(config.window);
    let mut cosines = Vec::new();
    for start in (0..=last).step_by(config.stride.max(1)) {
        let window = &places[start..places.len().min(start + config.window.max(1))];
        let (Some(first), Some(end)) = (window.first(), window.last()) else { continue };
        space.cosines(&document[*first..=*end], &mut cosines);
        for (score, cosine) in
            scores.iter_mut().zip(&cosines).filter(|(_, cosine)| **cosine >= config.min_similarity)
        {
            *score += cosine;
        }
    }
    let sum: f64 = scores.iter().sum();
    if sum > 0.0 {
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Weights scaled to length 1; as they are if their length is 0.
pub(crate) fn unit(mut weights: Vec<(u32, f64)>) -> Vec<(u32, f64)> {
    let length = weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
    if length > 0.0 {
        weights.iter_mut().for_each(|(_, weight)| *weight /= length);
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{CtfidfConfig, VocabularyConfig};

    const TEXTS: [&str; 4] = ["rust cargo crate", "rust cargo", "garden flower soil", "noise"];

    fn with_space(check: impl Fn(&TopicSpace<'_>, &Tokens)) {
        let config = VocabularyConfig { ngrams: (1, 1), ..VocabularyConfig::default() };
        let tokens = Tokens::read(&TEXTS, &config).unwrap();
        let counts = TermCounts::count(&tokens, &[4, 4, 9, -1], &config).unwrap();
        let weights = Ctfidf::fit(&counts, &CtfidfConfig::default()).unwrap();
        check(&TopicSpace::new(&counts, &weights, &tokens), &tokens);
    }

    #[test]
    fn texts_lie_where_their_words_do_and_outliers_are_no_topic() {
        with_space(|space, tokens| {
            assert_eq!(space.topics(), [4, 9]);
            let mut cosines = Vec::new();
            space.cosines(tokens.document(2), &mut cosines);
            assert!(cosines[0] == 0.0 && (cosines[1] - 1.0).abs() < 1e-12, "{cosines:?}");
            space.cosines(tokens.document(3), &mut cosines);
            assert_eq!(cosines, [0.0, 0.0]);
            let between = space.between();
            assert!((between[0] - 1.0).abs() < 1e-12 && between[1] == 0.0 && between[2] == 0.0);
        });
    }

    #[test]
    fn a_text_of_two_topics_has_both_by_its_windows() {
        let config = VocabularyConfig { ngrams: (1, 1), ..VocabularyConfig::default() };
        let texts = ["rust cargo crate", "garden flower soil", "rust cargo garden", "unknown"];
        let tokens = Tokens::read(&texts, &config).unwrap();
        let counts = TermCounts::count(&tokens, &[0, 1, -1, -1], &config).unwrap();
        let weights = Ctfidf::fit(&counts, &CtfidfConfig::default()).unwrap();
        let space = TopicSpace::new(&counts, &weights, &tokens);
        let one = DistributionConfig { window: 1, ..DistributionConfig::default() };
        let mut scores = Vec::new();
        distribution(&space, tokens.document(2), &one, &mut scores);
        assert!(
            (scores.iter().sum::<f64>() - 1.0).abs() < 1e-12 && scores[0] > 1.9 * scores[1],
            "{scores:?}"
        );
        distribution(&space, tokens.document(0), &DistributionConfig::default(), &mut scores);
        assert_eq!(scores, [1.0, 0.0]);
        distribution(&space, tokens.document(3), &one, &mut scores);
        assert_eq!(scores, [0.0, 0.0], "no topic has its word");
    }
}
