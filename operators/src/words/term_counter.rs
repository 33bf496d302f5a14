//! Counts the terms of a vocabulary that is fixed, in texts that come a batch at a time.
//!
//! What [`TermCounts::count`](super::TermCounts::count) finds for the documents at hand, this finds for terms that are
//! known beforehand; so counts of any batches add up to those of all texts.

use super::vocabulary::{Key, visit_ngrams};
use super::{Tokenizer, VocabularyConfig, tokens::BREAK};
use crate::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// Stands for a word that no term has.
const UNKNOWN: u32 = BREAK - 1;

/// Rows that a thread takes at a time: enough that adding up what threads found is cheap.
const CHUNK_ROWS: usize = 512;

/// Counts terms; shared by the workers of a process.
#[derive(Debug, Clone)]
pub struct TermCounter {
    tokenizer: Tokenizer,
    ngrams: (usize, usize),
    words: FxHashMap<String, u32>,
    columns: FxHashMap<Key, u32>,
}

/// How often a term (by its place in the vocabulary) occurs in a topic.
pub type Cells = FxHashMap<(i32, u32), u64>;

impl TermCounter {
    /// Counts `terms`, as `config` found them. Fails where `config` names stop words of an unknown language.
    pub fn try_new(terms: &[String], config: &VocabularyConfig) -> Result<Self> {
        config.check()?;
        let mut words: FxHashMap<String, u32> = FxHashMap::default();
        let mut columns = FxHashMap::default();
        for (term, column) in terms.iter().zip(0..) {
            let mut key = Key::default();
            for (place, word) in key.iter_mut().zip(term.split(' ')) {
                let next = words.len() as u32; // A vocabulary has far fewer words.
                *place = *words.entry(word.to_owned()).or_insert(next) + 1;
            }
            columns.insert(key, column);
        }
        Ok(Self { tokenizer: Tokenizer::try_new(config)?, ngrams: config.ngrams, words, columns })
    }

    /// Counts the terms of `texts` by the topic of each (`labels`), on all threads.
    pub fn count<S: AsRef<str> + Sync>(&self, texts: &[S], labels: &[i32]) -> Cells {
        let chunks = texts.par_chunks(CHUNK_ROWS).zip(labels.par_chunks(CHUNK_ROWS));
        let counted = chunks.map(|(texts, labels)| {
            let (mut cells, mut ids) = (Cells::default(), Vec::new());
            for (text, label) in texts.iter().zip(labels) {
                self.read(text.as_ref(), &mut ids);
                visit_ngrams(&ids, self.ngrams, None, |key, _| {
                    if let Some(column) = self.columns.get(&key) {
                        *cells.entry((*label, *column)).or_default() += 1;
                    }
                });
            }
            cells
        });
        counted.reduce(Cells::default, |a, b| {
            let (mut most, few) = if a.len() < b.len() { (b, a) } else { (a, b) };
            few.into_iter().for_each(|(cell, count)| *most.entry(cell).or_default() += count);
            most
        })
    }

    /// Reads the words of a text by number.
    fn read(&self, text: &str, ids: &mut Vec<u32>) {
        ids.clear();
        self.tokenizer.words(text, |_, word| {
            if !word.joined && !ids.is_empty() {
                ids.push(BREAK);
            }
            ids.push(self.words.get(word.text.as_ref()).copied().unwrap_or(UNKNOWN));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TermCounts, Tokens};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_vocabulary_that_is_known_is_counted_as_it_was_found() {
        let texts: Vec<String> = (0..1500)
            .map(|row| format!("neural machine translation of text {} and well-known words", row % 7))
            .collect();
        let labels: Vec<i32> = (0..1500).map(|row| row % 5 - 1).collect();
        for ngrams in [(1, 1), (1, 2), (2, 3)] {
            let config = VocabularyConfig { ngrams, ..VocabularyConfig::default() };
            let tokens = Tokens::read(&texts, &config).unwrap();
            let expected = TermCounts::count(&tokens, &labels, &config).unwrap();
            let counter = TermCounter::try_new(expected.terms(), &config).unwrap();
            let counted = counter.count(&texts, &labels);
            let found: BTreeMap<(i32, &str), u64> = counted
                .iter()
                .map(|((topic, term), count)| ((*topic, expected.terms()[*term as usize].as_str()), *count))
                .collect();
            let expected: BTreeMap<(i32, &str), u64> =
                expected.iter().map(|(topic, term, count)| ((topic, term), count)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn words_that_no_term_has_stand_between_those_that_have_one() {
        let config = VocabularyConfig::default();
        let counter = TermCounter::try_new(&["green".into(), "green sky".into()], &config).unwrap();
        let counted = counter.count(&["green strange sky, green sky"], &[3]);
        assert_eq!(counted, Cells::from_iter([((3, 0), 2), ((3, 1), 1)]));
    }
}
