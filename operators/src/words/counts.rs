//! How often each term occurs in each topic: integers, so that they add up exactly.
//!
//! The one state behind words, names, hierarchies and merges. Counts of shards that share a vocabulary add up to
//! the counts of the whole; a coarser grouping of topics is a sum of rows.

use super::{
    VocabularyConfig,
    tokens::Tokens,
    vocabulary::{Key, PARTS, find_terms, term_of, visit_ngrams},
};
use crate::model::weight;
use crate::{Error, Result};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// A sparse table of topics × terms; topics and terms are sorted, and a topic may be without terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TermCounts {
    topics: Vec<i32>,
    terms: Vec<String>,
    /// Where each topic's entries begin, and where the last one's end.
    offsets: Vec<usize>,
    /// (term, count) for each topic, by term; counts are above zero.
    entries: Vec<(u32, u64)>,
}

impl TermCounts {
    /// Counts the terms of documents by topic (−1 is a topic like the others), on all threads.
    ///
    /// `labels` holds the topic of each document. Fails if they differ in number or `config` is out of range.
    pub fn count(tokens: &Tokens, labels: &[i32], config: &VocabularyConfig) -> Result<Self> {
        Self::count_weighted(tokens, labels, &[], config)
    }

    /// The same where each document counts as often as `weights` says (none: once). Which terms are kept does not depend
    /// on the weights.
    pub fn count_weighted(
        tokens: &Tokens,
        labels: &[i32],
        weights: &[u32],
        config: &VocabularyConfig,
    ) -> Result<Self> {
        config.check()?;
        check_labels(labels, tokens.len())?;
        let mut topics = labels.to_vec();
        topics.sort_unstable();
        topics.dedup();
        let rows: Vec<u32> = labels.iter().map(|label| row_of(&topics, *label)).collect();

        let keys = find_terms(tokens, config);
        let columns: FxHashMap<Key, u32> = keys.iter().copied().zip(0..).collect();
        let parts: Vec<Vec<((u32, u32), u64)>> = (0..PARTS)
            .into_par_iter()
            .map(|part| {
                let mut counts: FxHashMap<(u32, u32), u64> = FxHashMap::default();
                for (document, &row) in rows.iter().enumerate() {
                    let times = weight(weights, document);
                    visit_ngrams(tokens.document(document), config.ngrams, Some(part), |key, _| {
                        if let Some(&column) = columns.get(&key) {
                            *counts.entry((row, column)).or_default() += times;
                        }
                    });
                }
                counts.into_iter().collect()
            })
            .collect();
        let mut cells = Vec::with_capacity(parts.iter().map(Vec::len).sum());
        parts.into_iter().for_each(|part| cells.extend(part));
        cells.par_sort_unstable();
        let terms = keys.par_iter().map(|key| term_of(key, tokens)).collect();
        Ok(Self::from_sorted(topics, terms, cells))
    }

    /// Rebuilds counts from a table of (topic, term, count) in any order; equal cells are added.
    ///
    /// `topics` names the topics, among them those without terms. Fails at a row whose topic is not among them.
    pub fn try_from_rows<S: AsRef<str>>(
        topics: &[i32],
        rows: impl IntoIterator<Item = (i32, S, u64)>,
    ) -> Result<Self> {
        let mut counts = Vec::with_capacity(topics.len());
        let mut sorted = topics.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        counts.resize_with(sorted.len(), BTreeMap::<String, u64>::new);
        for (topic, term, count) in rows {
            let row = sorted.binary_search(&topic).map_err(|_| {
                Error::Internal(format!(
                    "term counts: topic {topic} is not among the model's {}",
                    sorted.len()
                ))
            })?;
            *counts[row].entry(term.as_ref().to_owned()).or_default() += count;
        }
        Ok(Self::from_maps(sorted, counts))
    }

    /// The topics, rising.
    pub fn topics(&self) -> &[i32] {
        &self.topics
    }

    /// The terms, sorted.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// The terms of the topic at place `row` of [`topics`](Self::topics), by number, and their counts.
    pub fn row(&self, row: usize) -> &[(u32, u64)] {
        &self.entries[self.offsets[row]..self.offsets[row + 1]]
    }

    /// All cells above zero as (topic, term, count), by topic, then term: the table a model stores.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &str, u64)> {
        self.topics.iter().enumerate().flat_map(move |(row, &topic)| {
            self.row(row).iter().map(move |&(term, count)| (topic, self.terms[term as usize].as_str(), count))
        })
    }

    /// The terms that no topic has: those of a vocabulary that was found in other texts.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.totals()
            .into_iter()
            .zip(&self.terms)
            .filter(|(total, _)| *total == 0)
            .map(|(_, term)| term.as_str())
    }

    /// How often each term occurs in all topics together.
    pub fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.terms.len()];
        for &(term, count) in &self.entries {
            totals[term as usize] += count;
        }
        totals
    }

    /// Other counts over the same terms: of each topic (term, count), both rising.
    pub(crate) fn over(vocabulary: &Self, topics: &[(i32, Vec<(u32, u64)>)]) -> Self {
        let cells = (0..)
            .zip(topics)
            .flat_map(|(row, (_, counts))| counts.iter().map(move |(term, count)| ((row, *term), *count)));
        let ids = topics.iter().map(|(topic, _)| *topic).collect();
        Self::from_sorted(ids, vocabulary.terms.clone(), cells)
    }

    /// Adds the counts of another part of the same corpus: topics and terms of both, cell by cell.
    ///
    /// Exact if both were counted over one vocabulary; terms that one of them pruned keep the other's counts.
    pub fn merge(&self, other: &Self) -> Self {
        let mut topics: Vec<i32> = self.topics.iter().chain(&other.topics).copied().collect();
        topics.sort_unstable();
        topics.dedup();
        let mut counts = Vec::new();
        counts.resize_with(topics.len(), BTreeMap::<String, u64>::new);
        for (topic, term, count) in self.iter().chain(other.iter()) {
            *counts[row_of(&topics, topic) as usize].entry(term.to_owned()).or_default() += count;
        }
        Self::from_maps(topics, counts)
    }

    /// Adds topics together: the counts of topic `t` go to `to(t)`. A hierarchy's parents and merged topics.
    pub fn regroup(&self, to: impl Fn(i32) -> i32) -> Self {
        let mut topics: Vec<i32> = self.topics.iter().map(|&topic| to(topic)).collect();
        let rows = topics.clone();
        topics.sort_unstable();
        topics.dedup();
        let mut cells: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for (row, &topic) in rows.iter().enumerate() {
            for &(term, count) in self.row(row) {
                *cells.entry((row_of(&topics, topic), term)).or_default() += count;
            }
        }
        Self::from_sorted(topics, self.terms.clone(), cells)
    }

    fn from_maps(topics: Vec<i32>, counts: Vec<BTreeMap<String, u64>>) -> Self {
        let mut terms: Vec<String> = counts.iter().flat_map(|row| row.keys().cloned()).collect();
        terms.sort_unstable();
        terms.dedup();
        let columns: FxHashMap<&str, u32> = terms.iter().map(String::as_str).zip(0..).collect();
        let cells: Vec<((u32, u32), u64)> = (0u32..)
            .zip(&counts)
            .flat_map(|(row, map)| map.iter().map(move |(term, &count)| (row, term, count)))
            .filter(|(_, _, count)| *count > 0)
            .map(|(row, term, count)| ((row, columns[term.as_str()]), count))
            .collect();
        Self::from_sorted(topics, terms, cells)
    }

    /// Takes cells ((row, column), count) sorted by row, then column.
    fn from_sorted(
        topics: Vec<i32>,
        terms: Vec<String>,
        cells: impl IntoIterator<Item = ((u32, u32), u64)>,
    ) -> Self {
        let mut offsets = vec![0; topics.len() + 1];
        let entries: Vec<(u32, u64)> = cells
            .into_iter()
            .map(|((row, column), count)| {
                offsets[row as usize + 1] += 1;
                (column, count)
            })
            .collect();
        for row in 0..topics.len() {
            offsets[row + 1] += offsets[row];
        }
        Self { topics, terms, offsets, entries }
    }
}

/// Fails unless there is one label for each document.
pub(crate) fn check_labels(labels: &[i32], documents: usize) -> Result<()> {
    if labels.len() == documents {
        return Ok(());
    }
    let (expected, found) = (format!("{documents}, one a document"), labels.len().to_string());
    Err(kernels::Error::Shape { what: "labels", expected, found }.into())
}

/// The place of `topic` in sorted `topics`, which hold it.
pub(super) fn row_of(topics: &[i32], topic: i32) -> u32 {
    // Topics are i32, so their number fits u32.
    topics.binary_search(&topic).unwrap_or_else(|_| unreachable!("topics were collected from these labels"))
        as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(texts: &[&str], labels: &[i32]) -> TermCounts {
        let config = VocabularyConfig::default();
        TermCounts::count(&Tokens::read(texts, &config).unwrap(), labels, &config).unwrap()
    }

    #[test]
    fn terms_are_counted_by_topic() {
        let counts = counts(&["red sky", "red red", "blue"], &[0, 0, -1]);
        let table: Vec<_> = counts.iter().collect();
        assert_eq!(
            table,
            [(-1, "blue", 1), (0, "red", 3), (0, "red red", 1), (0, "red sky", 1), (0, "sky", 1)]
        );
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        let texts = ["red sky", "red red", "blue sea", "green sea", ""];
        let labels = [0, 2, 2, 0, 5];
        let whole = counts(&texts, &labels);
        let shards = counts(&texts[..2], &labels[..2]).merge(&counts(&texts[2..], &labels[2..]));
        assert_eq!(shards, whole);
        assert_eq!(counts(&texts[2..], &labels[2..]).merge(&counts(&texts[..2], &labels[..2])), whole);
    }

    #[test]
    fn a_stored_table_gives_the_counts_back_even_for_a_topic_without_terms() {
        let whole = counts(&["red sky", "the", "blue"], &[0, 1, -1]);
        assert_eq!(whole.topics(), [-1, 0, 1]);
        let rows: Vec<_> = whole.iter().collect();
        assert_eq!(TermCounts::try_from_rows(&[1, 0, -1], rows.into_iter().rev()).unwrap(), whole);
    }

    #[test]
    fn regrouped_topics_have_the_counts_of_relabelled_documents() {
        let texts = ["red sky", "red red", "blue sea", "green sea"];
        let fine = counts(&texts, &[-1, 0, 1, 2]);
        let coarse = counts(&texts, &[-1, 7, 7, 3]);
        assert_eq!(fine.regroup(|topic| [-1, 7, 7, 3][(topic + 1) as usize]), coarse);
    }

    #[test]
    fn counts_are_the_same_at_any_thread_count() {
        let texts: Vec<String> = (0..3000).map(|i| format!("alpha{} beta{} gamma", i % 89, i % 7)).collect();
        let labels: Vec<i32> = (0..3000).map(|i| i % 5 - 1).collect();
        let config = VocabularyConfig { max_terms: Some(50), ..Default::default() };
        let count = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                TermCounts::count(&Tokens::read(&texts, &config).unwrap(), &labels, &config).unwrap()
            })
        };
        assert_eq!(count(1), count(3));
    }

    #[test]
    fn labels_of_another_number_are_refused() {
        let config = VocabularyConfig::default();
        let tokens = Tokens::read(&["a text"], &config).unwrap();
        assert!(TermCounts::count(&tokens, &[], &config).is_err());
    }
}
