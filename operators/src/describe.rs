//! From groups of rows to topics that people can read: terms, words, examples, names, and numbers that judge them.
//!
//! One idea: all of it follows from the rows and their labels. So whatever changes labels (a fit, topics merged or
//! split, outliers given a topic) or asks for other words comes here, and nothing is left as it was before.

use crate::evaluate::{self, CoherenceConfig};
use crate::fit::FitConfig;
use crate::labellers::keyword_names;
use crate::model::{NamedBy, Topic, centroid_cosines};
use crate::taxonomy::Taxonomy;
use crate::taxonomy::tree::{Known, MOST_TOPICS, of_topics};
use crate::words::refine::{HANDED_ON, Topics, refine};
use crate::words::{Ctfidf, Embed, TermCounts, Tokens, TopicRepresentatives, TopicWords, representatives};
use crate::{Error, Result};
use kernels::Matrix;
use std::collections::BTreeMap;

/// The rows that are described; all have one value a row.
#[derive(Clone, Copy)]
pub struct Corpus<'a> {
    /// Texts that words are counted in.
    pub texts: &'a [String],
    /// Texts that are shown.
    pub shown: &'a [String],
    /// rows × dimensions, each of length 1.
    pub vectors: &'a Matrix<f32>,
}

/// What is known of topics by their rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// How often each term occurs in each topic (−1: the outliers).
    pub terms: TermCounts,
    /// The topics by rising id; outliers are none.
    pub topics: Vec<Topic>,
    /// The topics under classes; without nodes where there are more than [`MOST_TOPICS`].
    pub taxonomy: Taxonomy,
    /// NPMI, topic diversity and the share of outliers, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// How many outliers there are to all rows, in [`Description::metrics`].
pub const OUTLIER_SHARE: &str = "outlier_share";

/// Describes the topics of `labels` (any numbers from 0, −1 for outliers).
///
/// `embed` makes vectors of words, where `config` has refinements.
///
/// # Errors
/// `Setting` where words are to be refined but nothing embeds them; what `embed` fails with.
pub fn describe(
    corpus: Corpus<'_>,
    labels: &[i32],
    config: &FitConfig,
    embed: Option<&Embed<'_>>,
) -> Result<Description> {
    let Corpus { texts, shown, vectors } = corpus;
    let words = &config.words;
    let tokens = Tokens::read(texts, &words.vocabulary)?;
    let terms = TermCounts::count(&tokens, labels, &words.vocabulary)?;
    let weights = Ctfidf::fit(&terms, &words.ctfidf)?;

    let top_n_words = words.ctfidf.top_n_words;
    let looked_at = words.then.iter().map(|refinement| refinement.representatives());
    let examples = looked_at.fold(config.representatives, usize::max);
    let mut representing = representatives(shown, &tokens, labels, &terms, &weights, examples)?;
    let mut candidates = weights.words(&terms, top_n_words.max(HANDED_ON));
    if !words.then.is_empty() {
        let embed = embed.ok_or_else(needs_encoder)?;
        candidates.retain(|topic| topic.topic >= 0);
        let topics = Topics {
            counts: &terms,
            weights: &weights,
            representatives: &representing,
            vectors,
            top_n_words,
        };
        candidates = refine(candidates, &words.then, &topics, embed)?;
    }
    let names = keyword_names(&candidates, texts, labels, &words.vocabulary, &config.labeller.keywords())?;
    candidates.iter_mut().for_each(|topic| topic.words.truncate(top_n_words));
    representing.iter_mut().for_each(|topic| topic.documents.truncate(config.representatives));
    let by_topic = names.iter().map(|found| (found.topic, found.name.clone())).collect();
    let topics = topics(vectors, labels, candidates, by_topic, representing);
    let taxonomy = match topics.len() {
        0..=MOST_TOPICS => {
            let similarities = centroid_cosines(&topics)?;
            let (spelled, ctfidf) = (&names, &words.ctfidf);
            of_topics(&Known {
                topics: &topics,
                spelled,
                terms: &terms,
                ctfidf,
                similarities: &similarities,
            })?
        }
        _ => Taxonomy::default(),
    };
    let metrics = metrics(&tokens, labels, &topics)?;
    Ok(Description { terms, topics, taxonomy, metrics })
}

/// What to say where words are to be refined and nothing can embed them.
pub fn needs_encoder() -> Error {
    Error::setting(
        "fit.words.encoder",
        "keybert, mmr and given topics are embedded, but the vectors come from a column: give the encoder that made them as \
         words.encoder (--words-encoder)",
    )
}

fn topics(
    vectors: &Matrix<f32>,
    labels: &[i32],
    words: Vec<TopicWords>,
    mut names: BTreeMap<i32, String>,
    representing: Vec<TopicRepresentatives>,
) -> Vec<Topic> {
    let mut sums: BTreeMap<i32, (u64, Vec<f64>)> = BTreeMap::new();
    for (row, &label) in vectors.iter_rows().zip(labels).filter(|(_, label)| **label >= 0) {
        let (size, sum) = sums.entry(label).or_insert_with(|| (0, vec![0.0; vectors.cols()]));
        *size += 1;
        for (sum, v) in sum.iter_mut().zip(row) {
            *sum += f64::from(*v);
        }
    }
    let mut words: BTreeMap<i32, _> = words.into_iter().map(|found| (found.topic, found.words)).collect();
    let mut representing: BTreeMap<i32, Vec<u64>> = representing
        .into_iter()
        .map(|found| (found.topic, found.documents.iter().map(|document| document.row as u64).collect()))
        .collect();
    let topic = |(id, (size, sum)): (i32, (u64, Vec<f64>))| Topic {
        id,
        name: names.remove(&id).unwrap_or_else(|| format!("topic {id}")),
        named_by: NamedBy::Words,
        rating: None,
        size,
        words: words.remove(&id).unwrap_or_default(),
        representatives: representing.remove(&id).unwrap_or_default(),
        centroid: sum.iter().map(|sum| (sum / size as f64) as f32).collect(),
    };
    sums.into_iter().map(topic).collect()
}

/// What judges topics without knowing the truth.
fn metrics(tokens: &Tokens, labels: &[i32], topics: &[Topic]) -> Result<BTreeMap<String, f64>> {
    let mut metrics = BTreeMap::new();
    let outliers = labels.iter().filter(|label| **label < 0).count();
    metrics.insert(OUTLIER_SHARE.into(), outliers as f64 / labels.len().max(1) as f64);
    let words: Vec<Vec<&str>> =
        topics.iter().map(|topic| topic.words.iter().map(|(word, _)| word.as_str()).collect()).collect();
    if !words.is_empty() {
        let coherence = evaluate::npmi(tokens, &words, &CoherenceConfig::default())?;
        if let Some(npmi) = coherence.mean {
            metrics.insert("npmi".into(), npmi);
        }
    }
    if let Some(diversity) = evaluate::topic_diversity(&words, 10) {
        metrics.insert("topic_diversity".into(), diversity);
    }
    Ok(metrics)
}
