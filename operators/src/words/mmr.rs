//! Maximal marginal relevance: words that stand for their topic and differ from each other.
//!
//! With s(w) the cosine of a word to all of the topic's words joined, and s(w, v) that of two words: the first word is
//! the one of largest s(w); each next one has the largest (1 − λ) s(w) − λ max_v s(w, v) over the words v chosen so far.
//! λ is `diversity`. Words keep the order and the weights they came with. As in BERTopic.
//!
//! Paper: Carbonell, Goldstein, "The use of MMR, diversity-based reranking", 1998. Of equal words the first wins.

use super::TopicWords;
use super::refine::{TextVectors, dot};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How words are chosen to differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MmrConfig {
    /// λ, from 0 (the words nearest the topic) to 1 (words unlike each other). 0.1, as in BERTopic.
    pub diversity: f64,
}

impl Default for MmrConfig {
    fn default() -> Self {
        Self { diversity: 0.1 }
    }
}

impl MmrConfig {
    pub(super) fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.diversity) {
            return Ok(());
        }
        Err(Error::setting("diversity", format!("{}, expected 0 to 1", self.diversity)))
    }
}

/// Chooses `count` words of each topic.
pub(super) fn mmr(
    topics: Vec<TopicWords>,
    config: &MmrConfig,
    count: usize,
    vectors: &mut TextVectors<'_>,
) -> Result<Vec<TopicWords>> {
    let joined =
        |topic: &TopicWords| topic.words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(" ");
    let texts: Vec<String> = topics.iter().map(joined).collect();
    let words = topics.iter().flat_map(|topic| topic.words.iter().map(|(word, _)| word.as_str()));
    vectors.make(words.chain(texts.iter().map(String::as_str)))?;
    let chosen = topics.into_iter().zip(&texts).map(|(topic, text)| {
        let of: Vec<&[f32]> = topic.words.iter().map(|(word, _)| vectors.of(word)).collect();
        let mut places = choose(&of, vectors.of(text), count, config.diversity);
        places.sort_unstable();
        let words = places.into_iter().map(|place| topic.words[place].clone()).collect();
        TopicWords { topic: topic.topic, words }
    });
    Ok(chosen.collect())
}

/// The places of up to `count` words in the order in which they are chosen.
fn choose(words: &[&[f32]], topic: &[f32], count: usize, diversity: f64) -> Vec<usize> {
    let relevance: Vec<f64> = words.iter().map(|word| dot(word, topic)).collect();
    let mut nearest = vec![f64::NEG_INFINITY; words.len()];
    let mut left: Vec<usize> = (0..words.len()).collect();
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        let value = |word: usize| match chosen.is_empty() {
            true => relevance[word],
            false => (1.0 - diversity) * relevance[word] - diversity * nearest[word],
        };
        // The first of the best: a later one must be better.
        let best =
            (1..left.len()).fold(0, |best, at| if value(left[at]) > value(left[best]) { at } else { best });
        let word = left.remove(best);
        for other in &left {
            nearest[*other] = nearest[*other].max(dot(words[word], words[*other]));
        }
        chosen.push(word);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_diversity_the_nearest_are_chosen_and_with_it_those_that_differ() {
        // Directions in a plane: the topic at 0°, words at 5°, 6°, 40° and −50°.
        let at = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let all = [at(5.0), at(6.0), at(40.0), at(-50.0)];
        let words: Vec<&[f32]> = all.iter().map(|word| &word[..]).collect();
        let topic = at(0.0);
        assert_eq!(choose(&words, &topic, 3, 0.0), [0, 1, 2]);
        assert_eq!(choose(&words, &topic, 3, 0.7), [0, 3, 2]);
        assert_eq!(choose(&words, &topic, 9, 0.7).len(), 4, "no more than there are");
        assert!(choose(&[], &topic, 3, 0.5).is_empty());
    }

    #[test]
    fn of_equal_words_the_first_is_chosen() {
        let word: &[f32] = &[1.0, 0.0];
        assert_eq!(choose(&[word, word, word], word, 2, 0.3), [0, 1]);
    }
}
