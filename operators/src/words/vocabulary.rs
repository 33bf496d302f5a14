//! Which terms there are: n-grams of joined words, pruned by how many documents hold them.
//!
//! A term is a key of up to four word numbers. Words are numbered in sorted order and an absent word is 0, so
//! sorted keys are sorted terms, and a vocabulary is found without building a string for each n-gram. Keys are
//! split by their first word into independent parts: no table is shared or merged, and the result is the same at
//! any thread count.

use super::{StopWords, TokenPattern, Tokens, tokens::BREAK};
use crate::{Error, Result};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// The longest n-gram. Longer ones are rarely shared by documents, and four numbers keep keys small.
pub const LONGEST_NGRAM: usize = 4;

/// Parts that keys are split into: the n-grams of a part are in memory at once, one part a thread. Each part reads
/// all documents, which is cheap beside its hashing.
pub(super) const PARTS: u32 = 16;

/// A term as the numbers of its words, each plus one; 0 behind its last word.
pub(crate) type Key = [u32; LONGEST_NGRAM];

/// Which words and n-grams are terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VocabularyConfig {
    /// What counts as a word. Unicode segmentation by default: right for any script.
    pub token_pattern: TokenPattern,
    /// Words left out. English by default; they would top every list.
    pub stop_words: StopWords,
    /// Words left out besides these. None by default.
    pub more_stop_words: Vec<String>,
    /// Shortest and longest n-gram. 1 to 2 by default: pairs name topics best ("machine translation"), and longer
    /// n-grams mostly repeat pairs.
    pub ngrams: (usize, usize),
    /// How many documents must hold a term. 1 by default, so that a handful of texts has words too.
    pub min_df: MinDf,
    /// How many terms are kept, the most frequent first, ties in sorted order. 100,000 by default, which bounds the
    /// size of a model; what is cut off occurs too seldom to stand for a topic.
    pub max_terms: Option<usize>,
}

impl Default for VocabularyConfig {
    fn default() -> Self {
        Self {
            token_pattern: TokenPattern::default(),
            stop_words: StopWords::default(),
            more_stop_words: Vec::new(),
            ngrams: (1, 2),
            min_df: MinDf::Documents(1),
            max_terms: Some(100_000),
        }
    }
}

/// How many documents must hold a term.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinDf {
    /// At least so many.
    Documents(u64),
    /// At least this share of all, 0 to 1.
    Share(f64),
}

impl VocabularyConfig {
    /// Fails if n-grams or `min_df` are out of range.
    pub fn check(&self) -> Result<()> {
        let (shortest, longest) = self.ngrams;
        if shortest == 0 || shortest > longest || longest > LONGEST_NGRAM {
            let reason = format!(
                "{shortest} to {longest}, expected shortest and longest with 1 <= shortest <= longest <= {LONGEST_NGRAM}"
            );
            return Err(Error::setting("ngrams", reason));
        }
        match self.min_df {
            MinDf::Share(share) if !(0.0..=1.0).contains(&share) => {
                Err(Error::setting("min_df", format!("share {share}, expected 0 to 1")))
            }
            _ => Ok(()),
        }
    }
}

/// Finds the terms of `tokens` that pass `config`, as sorted keys.
pub(super) fn find_terms(tokens: &Tokens, config: &VocabularyConfig) -> Vec<Key> {
    let is_frequent = |documents: u32| match config.min_df {
        MinDf::Documents(n) => u64::from(documents) >= n,
        MinDf::Share(share) => f64::from(documents) >= share * tokens.len() as f64,
    };
    let most_frequent = |mut terms: Vec<(Reverse<u64>, Key)>| {
        if let Some(max) = config.max_terms
            && terms.len() > max
        {
            terms.select_nth_unstable(max);
            terms.truncate(max);
        }
        terms
    };
    // What is among the most frequent of all is among the most frequent of its part.
    let parts: Vec<Vec<(Reverse<u64>, Key)>> = (0..PARTS)
        .into_par_iter()
        .map(|part| {
            let frequent =
                tally(tokens, config.ngrams, part).into_iter().filter(|(_, t)| is_frequent(t.documents));
            most_frequent(frequent.map(|(key, t)| (Reverse(t.occurrences), key)).collect())
        })
        .collect();
    let mut keys: Vec<Key> = most_frequent(parts.concat()).into_iter().map(|(_, key)| key).collect();
    keys.par_sort_unstable();
    keys
}

/// Calls `visit` with each n-gram of a document that belongs to `part`, and the place of its first word.
pub(crate) fn visit_ngrams(
    ids: &[u32],
    ngrams: (usize, usize),
    part: Option<u32>,
    mut visit: impl FnMut(Key, usize),
) {
    let (shortest, longest) = ngrams;
    let mut place = 0;
    for (start, &first) in ids.iter().enumerate() {
        if first == BREAK {
            continue;
        }
        if part.is_none_or(|part| first % PARTS == part) {
            let mut key = Key::default();
            for (length, &id) in ids[start..].iter().take_while(|&&id| id != BREAK).take(longest).enumerate()
            {
                key[length] = id + 1;
                if length + 1 >= shortest {
                    visit(key, place);
                }
            }
        }
        place += 1;
    }
}

/// Writes a key's term: its words, a blank between them.
pub(super) fn term_of(key: &Key, tokens: &Tokens) -> String {
    let words: Vec<&str> =
        key.iter().take_while(|&&id| id != 0).map(|&id| tokens.words()[id as usize - 1].as_str()).collect();
    words.join(" ")
}

/// The key of `term`, or `None` if it is empty, too long, or has a word that no document has.
pub(crate) fn key_of(term: &str, tokens: &Tokens) -> Option<Key> {
    let mut key = Key::default();
    for (length, word) in term.split(' ').enumerate() {
        *key.get_mut(length)? = tokens.number(word)? + 1;
    }
    Some(key)
}

/// How often a term occurs.
#[derive(Default, Clone, Copy)]
struct Tally {
    documents: u32,
    occurrences: u64,
    /// The last document seen with it, plus one.
    last: u32,
}

fn tally(tokens: &Tokens, ngrams: (usize, usize), part: u32) -> FxHashMap<Key, Tally> {
    let mut tallies: FxHashMap<Key, Tally> = FxHashMap::default();
    for row in 0..tokens.len() {
        // Documents in memory are fewer than u32::MAX.
        let document = row as u32 + 1;
        visit_ngrams(tokens.document(row), ngrams, Some(part), |key, _| {
            let tally = tallies.entry(key).or_default();
            tally.occurrences += 1;
            tally.documents += u32::from(tally.last != document);
            tally.last = document;
        });
    }
    tallies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(texts: &[&str], config: &VocabularyConfig) -> Vec<String> {
        let tokens = Tokens::read(texts, config).unwrap();
        find_terms(&tokens, config).iter().map(|key| term_of(key, &tokens)).collect()
    }

    #[test]
    fn terms_are_sorted_ngrams_of_joined_words() {
        let found = terms(&["blue sky. green sky"], &VocabularyConfig::default());
        assert_eq!(found, ["blue", "blue sky", "green", "green sky", "sky"]);
    }

    #[test]
    fn min_df_counts_documents_not_occurrences() {
        let texts = ["red red red", "blue", "blue", "green"];
        let two = VocabularyConfig { min_df: MinDf::Documents(2), ..Default::default() };
        assert_eq!(terms(&texts, &two), ["blue"]);
        let half = VocabularyConfig { min_df: MinDf::Share(0.5), ..Default::default() };
        assert_eq!(terms(&texts, &half), ["blue"]);
    }

    #[test]
    fn the_most_frequent_terms_are_kept_and_ties_go_to_the_first_in_order() {
        let config = VocabularyConfig { max_terms: Some(2), ngrams: (1, 1), ..Default::default() };
        assert_eq!(terms(&["red red", "green blue"], &config), ["blue", "red"]);
    }

    #[test]
    fn ngrams_out_of_range_are_refused() {
        for ngrams in [(0, 1), (2, 1), (1, 5)] {
            assert!(VocabularyConfig { ngrams, ..Default::default() }.check().is_err(), "{ngrams:?}");
        }
    }

    #[test]
    fn a_term_and_its_key_are_two_forms_of_one_thing() {
        let tokens = Tokens::read(&["deep neural network"], &VocabularyConfig::default()).unwrap();
        let key = key_of("neural network", &tokens).unwrap();
        assert_eq!(term_of(&key, &tokens), "neural network");
        assert!(
            key_of("shallow network", &tokens).is_none()
                && key_of("deep deep deep deep deep", &tokens).is_none()
        );
    }
}
