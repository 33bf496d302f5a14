//! KeyBERTInspired: the words that mean most nearly what a topic's best texts mean.
//!
//! The topic's vector is the mean of its representative texts' vectors; candidate words are ranked by their cosine to
//! it. As in BERTopic (Grootendorst; after KeyBERT), with two differences: representatives are the best of all the
//! topic's texts instead of 500 drawn at random, and their vectors are their own (BERTopic, given vectors, takes those
//! of the corpus' first rows). Words of equal cosine stay in the candidates' order.

use super::TopicWords;
use super::refine::{HANDED_ON, TextVectors, Topics, dot};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How words are ranked by meaning; the names are BERTopic's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeybertConfig {
    /// Texts whose mean stands for a topic. 5, as in BERTopic.
    pub nr_repr_docs: usize,
    /// Words of largest c-TF-IDF weight that are ranked, where no other refinement comes before. 100, as in BERTopic.
    pub nr_candidate_words: usize,
}

impl Default for KeybertConfig {
    fn default() -> Self {
        Self { nr_repr_docs: 5, nr_candidate_words: 100 }
    }
}

impl KeybertConfig {
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in
            [("nr_repr_docs", self.nr_repr_docs), ("nr_candidate_words", self.nr_candidate_words)]
        {
            if value == 0 {
                return Err(Error::setting(name, "0, expected 1 or more"));
            }
        }
        Ok(())
    }
}

/// Ranks `candidates` by their cosine to their topic; the best `max(30, top_n_words)` stay, with that cosine.
pub(super) fn keybert(
    candidates: Vec<TopicWords>,
    config: &KeybertConfig,
    topics: &Topics<'_>,
    vectors: &mut TextVectors<'_>,
) -> Result<Vec<TopicWords>> {
    vectors.make(candidates.iter().flat_map(|topic| topic.words.iter().map(|(word, _)| word.as_str())))?;
    let ranked = candidates.into_iter().map(|topic| {
        let representing = topics.representatives.iter().find(|found| found.topic == topic.topic);
        let documents = representing.map_or(&[][..], |found| &found.documents);
        let mut mean = vec![0f64; topics.vectors.cols()];
        for document in documents.iter().take(config.nr_repr_docs) {
            for (sum, value) in mean.iter_mut().zip(topics.vectors.row(document.row)) {
                *sum += f64::from(*value);
            }
        }
        let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
        // A mean of length 0 has no direction: all cosines are 0, and the order stays.
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        let mean: Vec<f32> = mean.iter().map(|v| (v * scale) as f32).collect();
        let mut words: Vec<(String, f32)> = topic
            .words
            .into_iter()
            .map(|(word, _)| {
                let cosine = dot(vectors.of(&word), &mean) as f32;
                (word, cosine)
            })
            .collect();
        words.sort_by(|a, b| b.1.total_cmp(&a.1));
        words.truncate(topics.top_n_words.max(HANDED_ON));
        TopicWords { topic: topic.topic, words }
    });
    Ok(ranked.collect())
}
