//! What a language model is shown of topics: their words, some of their texts, the words of the topics beside them.

use super::NamerConfig;
use crate::Result;
use crate::fit::FitConfig;
use crate::model::{Model, NamedBy, Topic, centroids};
use crate::similarity::Similarity;
use crate::words::{Ctfidf, Tokens, representatives};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use unicode_segmentation::UnicodeSegmentation;

/// Words of a neighbouring topic that are shown.
const SIBLING_WORDS: usize = 6;

/// Which texts of a topic a language model is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExamplesConfig {
    /// How many. 10, as in text-clustering.
    pub count: usize,
    /// Which of them.
    pub select: Select,
    /// How much of each. 420 characters, as in text-clustering.
    pub cut: Cut,
}

impl Default for ExamplesConfig {
    fn default() -> Self {
        Self { count: 10, select: Select::default(), cut: Cut::Characters(420) }
    }
}

/// Which texts of a topic stand for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Those whose words are most like the topic's.
    #[default]
    Representative,
    /// Those that a seeded hash of their ids draws.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// How much of a text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// So many characters.
    Characters(usize),
    /// So many words and marks, by Unicode's rule of words: near to a model's tokens, whichever model it is.
    Tokens(usize),
}

impl Cut {
    fn of(self, text: &str) -> &str {
        match self {
            Self::Characters(most) => crate::text::cut(text, most),
            Self::Tokens(most) => {
                let words = text.split_word_bound_indices().filter(|(_, word)| !word.trim().is_empty());
                words.take(most).last().map_or("", |(at, word)| &text[..at + word.len()])
            }
        }
    }
}

/// A topic as a language model is shown it.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Its number.
    pub topic: i32,
    /// Its name by its words, or by the user.
    pub name: String,
    /// Its words, best first.
    pub(super) words: Vec<String>,
    pub(super) examples: Vec<String>,
    /// The words of the topics beside it.
    pub(super) siblings: Vec<String>,
    pub(super) size: String,
    /// Whether the user named it: it is not asked for, but its name is taken.
    pub(super) is_given: bool,
}

/// What is shown of each topic of `model`, whose names are those by words.
pub fn subjects(model: &Model, config: &NamerConfig) -> Result<Vec<Subject>> {
    let examples = examples(model, &config.examples, &FitConfig::of(model)?)?;
    let siblings = siblings(&model.topics, config.siblings)?;
    let of = |(topic, siblings): (&Topic, Vec<String>)| Subject {
        topic: topic.id,
        name: topic.name.clone(),
        words: topic.words.iter().take(config.keywords).map(|(word, _)| word.clone()).collect(),
        examples: examples
            .get(&topic.id)
            .into_iter()
            .flatten()
            .map(|row| example(model, *row, config))
            .collect(),
        siblings,
        size: topic.size.to_string(),
        is_given: topic.named_by == NamedBy::User,
    };
    Ok(model.topics.iter().zip(siblings).map(of).collect())
}

/// A text as it is shown: cut, in one line.
fn example(model: &Model, row: usize, config: &NamerConfig) -> String {
    let text = model.sample.texts.get(row).map_or("", String::as_str);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    config.examples.cut.of(&line).to_string()
}

/// The rows that stand for each topic.
fn examples(model: &Model, config: &ExamplesConfig, fit: &FitConfig) -> Result<BTreeMap<i32, Vec<usize>>> {
    let sample = &model.sample;
    if let Select::Random { seed } = config.select {
        let mut rows: BTreeMap<i32, Vec<(u64, usize)>> = BTreeMap::new();
        for (row, topic) in sample.topics.iter().enumerate().filter(|(_, topic)| **topic >= 0) {
            let drawn = xxhash_rust::xxh3::xxh3_64_with_seed(sample.ids[row].as_bytes(), seed);
            rows.entry(*topic).or_default().push((drawn, row));
        }
        return Ok(rows
            .into_iter()
            .map(|(topic, mut rows)| {
                rows.sort_unstable();
                (topic, rows.into_iter().take(config.count).map(|(_, row)| row).collect())
            })
            .collect());
    }
    let texts = model.texts.get(&sample.texts)?;
    let tokens = Tokens::read(&texts, &fit.words.vocabulary)?;
    let weights = Ctfidf::fit(&model.terms, &fit.words.ctfidf)?;
    let found =
        representatives(&sample.texts, &tokens, &sample.topics, &model.terms, &weights, config.count)?;
    let rows = |found: &[crate::words::Representative]| found.iter().map(|document| document.row).collect();
    Ok(found.iter().map(|found| (found.topic, rows(&found.documents))).collect())
}

/// The words of the `count` topics nearest to each, by the cosine of their centroids.
fn siblings(topics: &[Topic], count: usize) -> Result<Vec<Vec<String>>> {
    let centroids = centroids(topics)?;
    let near = Similarity::Cosine.between(&centroids, &centroids)?;
    let of = |place: usize| {
        let mut others: Vec<usize> = (0..topics.len()).filter(|other| *other != place).collect();
        others.sort_by(|a, b| near.row(place)[*b].total_cmp(&near.row(place)[*a]).then(a.cmp(b)));
        others.truncate(count);
        others.into_iter().map(|other| first_words(&topics[other])).collect()
    };
    Ok((0..topics.len()).map(of).collect())
}

fn first_words(topic: &Topic) -> String {
    topic.words.iter().take(SIBLING_WORDS).map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_characters_or_by_words_and_marks() {
        let text = "Größe matters, it's said.";
        assert_eq!(Cut::Characters(5).of(text), "Größe");
        assert_eq!(Cut::Tokens(3).of(text), "Größe matters,");
        assert_eq!(Cut::Tokens(4).of(text), "Größe matters, it's");
        assert_eq!(Cut::Tokens(99).of(text), text);
    }
}
