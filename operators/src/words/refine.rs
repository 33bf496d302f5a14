//! Refinements: other words for topics than those of largest weight, chosen by what words and texts mean.
//!
//! A chain of them follows c-TF-IDF; each takes the words that the one before hands on. Words are embedded by the
//! model's encoder, each once.

use super::{Ctfidf, KeybertConfig, MmrConfig, TermCounts, TopicRepresentatives, TopicWords};
use crate::{Error, Result};
use kernels::{Matrix, norm::unit_rows};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Words of a topic that are handed on, as BERTopic gives its representation models.
pub const HANDED_ON: usize = 30;

/// Turns texts into vectors, one row each.
pub type Embed<'a> = dyn Fn(&[&str]) -> Result<Matrix<f32>> + 'a;

/// One refinement, as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Refinement {
    /// The words that mean most nearly what the topic's best texts mean.
    Keybert(KeybertConfig),
    /// Words that differ from each other.
    Mmr(MmrConfig),
}

impl Refinement {
    /// Fails with the setting that cannot be, and what would do.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Keybert(config) => config.check(),
            Self::Mmr(config) => config.check(),
        }
    }

    /// How many representative texts of each topic it looks at.
    pub fn representatives(&self) -> usize {
        match self {
            Self::Keybert(config) => config.nr_repr_docs,
            Self::Mmr(_) => 0,
        }
    }
}

/// What refinements look at.
pub struct Topics<'a> {
    /// How often terms occur in topics.
    pub counts: &'a TermCounts,
    /// Their weights.
    pub weights: &'a Ctfidf,
    /// The best texts of each topic.
    pub representatives: &'a [TopicRepresentatives],
    /// rows × dimensions: the vectors of all texts, of length 1.
    pub vectors: &'a Matrix<f32>,
    /// How many words a topic shows.
    pub top_n_words: usize,
}

/// Sends `words` of topics through a chain of refinements.
///
/// # Errors
/// What `embed` fails with.
pub fn refine(
    words: Vec<TopicWords>,
    chain: &[Refinement],
    topics: &Topics<'_>,
    embed: &Embed<'_>,
) -> Result<Vec<TopicWords>> {
    let mut vectors = TextVectors { embed, dim: topics.vectors.cols(), known: FxHashMap::default() };
    let mut refined = words;
    for (place, refinement) in chain.iter().enumerate() {
        refined = match refinement {
            Refinement::Keybert(config) => {
                let candidates = match place {
                    0 => topics.weights.words(topics.counts, config.nr_candidate_words),
                    _ => refined,
                };
                super::keybert::keybert(candidates, config, topics, &mut vectors)?
            }
            Refinement::Mmr(config) => super::mmr::mmr(refined, config, topics.top_n_words, &mut vectors)?,
        };
    }
    Ok(refined)
}

/// The vectors of texts, of length 1, each made once.
pub(super) struct TextVectors<'a> {
    embed: &'a Embed<'a>,
    dim: usize,
    known: FxHashMap<String, Vec<f32>>,
}

impl TextVectors<'_> {
    /// Makes the vectors of those of `texts` that have none yet, in their order.
    pub(super) fn make<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) -> Result<()> {
        let mut new: Vec<&str> = texts.into_iter().filter(|text| !self.known.contains_key(*text)).collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return Ok(());
        }
        let made = unit_rows(&(self.embed)(&new)?);
        if made.cols() != self.dim {
            let reason =
                format!("makes vectors of {} dimensions, but the texts' have {}", made.cols(), self.dim);
            return Err(Error::setting("words.encoder", reason));
        }
        let rows = new.iter().zip(made.iter_rows());
        self.known.extend(rows.map(|(text, row)| ((*text).to_owned(), row.to_vec())));
        Ok(())
    }

    /// The vector of a text that was made.
    pub(super) fn of(&self, text: &str) -> &[f32] {
        self.known.get(text).map_or(&[], Vec::as_slice)
    }
}

/// The dot product of two vectors: their cosine where both have length 1.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
