//! The documents that show a topic best.
//!
//! The rule: each document's term counts are weighed like a topic's, and a topic is represented by the `k` of its
//! documents whose weights have the largest cosine to the topic's own; by falling cosine, then by rising row. A text
//! that occurs more than once counts once, at its first row. No documents are drawn at random: all are compared.

use super::{
    Ctfidf, TermCounts, Tokens,
    counts::{check_labels, row_of},
    vocabulary::{Key, key_of, visit_ngrams},
};
use crate::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// Documents a thread takes at a time; it keeps `k` of each topic in them.
const CHUNK_ROWS: usize = 4096;

/// A document that represents its topic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Representative {
    /// The document's row.
    pub row: usize,
    /// The cosine between its weights and its topic's; 0 if it has no terms.
    pub similarity: f32,
}

/// The documents that represent a topic, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicRepresentatives {
    /// The topic, −1 for outliers.
    pub topic: i32,
    /// Its documents; fewer than asked for where it has fewer different texts.
    pub documents: Vec<Representative>,
}

/// Finds the `k` representative documents of each topic of `counts`, by rising topic.
///
/// `texts`, `tokens` and `labels` hold the same documents; those whose topic is not in `counts` are passed over.
/// Memory beside the inputs is the weights of the topics and `k` documents a topic and thread.
pub fn representatives<S: AsRef<str> + Sync>(
    texts: &[S],
    tokens: &Tokens,
    labels: &[i32],
    counts: &TermCounts,
    ctfidf: &Ctfidf,
    k: usize,
) -> Result<Vec<TopicRepresentatives>> {
    check_labels(labels, tokens.len())?;
    check_labels(labels, texts.len())?;
    let topics: Vec<Vec<(u32, f64)>> =
        (0..counts.topics().len()).into_par_iter().map(|row| ctfidf.weigh(counts.row(row))).collect();
    let norms: Vec<f64> = topics.iter().map(|weights| norm(weights)).collect();
    let terms = Columns::of(counts, tokens);

    let chunks: Vec<Vec<Best<'_>>> = (0..tokens.len().div_ceil(CHUNK_ROWS))
        .into_par_iter()
        .map(|chunk| {
            let mut best = vec![Best::default(); topics.len()];
            for row in chunk * CHUNK_ROWS..tokens.len().min((chunk + 1) * CHUNK_ROWS) {
                if counts.topics().binary_search(&labels[row]).is_err() {
                    continue;
                }
                let topic = row_of(counts.topics(), labels[row]) as usize;
                let document = ctfidf.weigh(&terms.count(tokens.document(row)));
                let similarity = cosine(&document, &topics[topic], norms[topic]);
                best[topic].offer(Candidate { similarity, row, text: texts[row].as_ref().trim() }, k);
            }
            best
        })
        .collect();

    let mut best = vec![Best::default(); topics.len()];
    for (topic, of_chunk) in chunks.into_iter().flat_map(|chunk| chunk.into_iter().enumerate()) {
        of_chunk.0.into_iter().for_each(|candidate| best[topic].offer(candidate, k));
    }
    let found = counts.topics().iter().zip(best).map(|(&topic, best)| TopicRepresentatives {
        topic,
        documents: best
            .0
            .iter()
            .map(|c| Representative { row: c.row, similarity: c.similarity as f32 })
            .collect(),
    });
    Ok(found.collect())
}

/// The columns of a vocabulary's terms, looked up by the words of [`Tokens`].
pub(super) struct Columns {
    of: FxHashMap<Key, u32>,
    longest: usize,
}

impl Columns {
    pub(super) fn of(counts: &TermCounts, tokens: &Tokens) -> Self {
        let keys =
            counts.terms().iter().zip(0..).filter_map(|(term, column)| Some((key_of(term, tokens)?, column)));
        let of: FxHashMap<Key, u32> = keys.collect();
        let longest = of.keys().map(|key| key.iter().filter(|&&id| id != 0).count()).max().unwrap_or(1);
        Self { of, longest }
    }

    /// Counts a document's terms, by rising column.
    pub(super) fn count(&self, document: &[u32]) -> Vec<(u32, u64)> {
        let mut columns = Vec::new();
        visit_ngrams(document, (1, self.longest), None, |key, _| columns.extend(self.of.get(&key)));
        columns.sort_unstable();
        columns.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u64)).collect()
    }
}

#[derive(Clone)]
struct Candidate<'t> {
    similarity: f64,
    row: usize,
    text: &'t str,
}

/// The best candidates with different texts, best first. Equal texts have equal similarities, so what is dropped
/// never comes back, and offering in any order keeps the same ones.
#[derive(Clone, Default)]
struct Best<'t>(Vec<Candidate<'t>>);

impl<'t> Best<'t> {
    fn offer(&mut self, candidate: Candidate<'t>, k: usize) {
        let is_before = |a: &Candidate<'_>, b: &Candidate<'_>| {
            b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row)).is_lt()
        };
        if self.0.len() == k && self.0.last().is_none_or(|worst| !is_before(&candidate, worst)) {
            return;
        }
        if let Some(same) = self.0.iter().position(|held| held.text == candidate.text) {
            if self.0[same].row < candidate.row {
                return;
            }
            self.0.remove(same);
        }
        let at = self.0.partition_point(|held| is_before(held, &candidate));
        self.0.insert(at, candidate);
        self.0.truncate(k);
    }
}

fn norm(weights: &[(u32, f64)]) -> f64 {
    weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt()
}

/// The cosine of a document and a topic, both by rising column; 0 if either is empty.
fn cosine(document: &[(u32, f64)], topic: &[(u32, f64)], topic_norm: f64) -> f64 {
    let mut dot = 0.0;
    for &(column, weight) in document {
        if let Ok(at) = topic.binary_search_by_key(&column, |&(column, _)| column) {
            dot += weight * topic[at].1;
        }
    }
    let norms = norm(document) * topic_norm;
    if norms > 0.0 { dot / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{CtfidfConfig, VocabularyConfig};

    fn find(texts: &[String], labels: &[i32], k: usize) -> Vec<TopicRepresentatives> {
        let config = VocabularyConfig::default();
        let tokens = Tokens::read(texts, &config).unwrap();
        let counts = TermCounts::count(&tokens, labels, &config).unwrap();
        let ctfidf = Ctfidf::fit(&counts, &CtfidfConfig::published()).unwrap();
        representatives(texts, &tokens, labels, &counts, &ctfidf, k).unwrap()
    }

    fn rows(found: &TopicRepresentatives) -> Vec<usize> {
        found.documents.iter().map(|document| document.row).collect()
    }

    #[test]
    fn the_document_nearest_its_topic_comes_first_and_equal_texts_count_once() {
        let texts = ["rust", "rust crate cargo", "rust crate cargo ", "gardens", "", "the"].map(String::from);
        let found = find(&texts, &[0, 0, 0, 0, 1, 1], 3);
        assert_eq!(rows(&found[0]), [1, 0, 3]);
        assert!(found[0].documents.windows(2).all(|pair| pair[0].similarity > pair[1].similarity));
        assert_eq!(rows(&found[1]), [4, 5], "documents without terms come in order");
    }

    #[test]
    fn many_chunks_on_many_threads_choose_what_one_naive_sort_chooses() {
        let texts: Vec<String> =
            (0..3 * CHUNK_ROWS).map(|i| format!("w{} w{} w{}", i % 83, i % 101, i % 13)).collect();
        let labels: Vec<i32> = (0..texts.len()).map(|i| (i % 3) as i32 - 1).collect();
        let found = find(&texts, &labels, 5);
        let everything = find(&texts, &labels, texts.len());
        for (best, all) in found.iter().zip(&everything) {
            let mut sorted = all.documents.clone();
            sorted.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row)));
            assert_eq!(rows(best), sorted[..5].iter().map(|d| d.row).collect::<Vec<_>>());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| find(&texts, &labels, 5)), found);
    }
}
