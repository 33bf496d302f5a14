//! From groups of rows to topics that people can read: terms, words, examples, names, and numbers that judge them.
//!
//! One idea: all of it follows from the rows and their labels. So whatever changes labels (a fit, topics merged or
//! split, outliers given a topic) or asks for other words comes here, and nothing is left as it was before.

use crate::evaluate::{self, CoherenceConfig};
use crate::fit::FitConfig;
use crate::labellers::keyword_names;
use crate::model::{Model, NamedBy, Topic, centroid_cosines, weight};
use crate::taxonomy::Taxonomy;
use crate::taxonomy::tree::{Known, MOST_TOPICS, of_topics};
use crate::words::refine::{HANDED_ON, Topics, refine};
use crate::words::{Ctfidf, Embed, TermCounts, Tokens, TopicRepresentatives, TopicWords, representatives};
use crate::{Error, Result};
use kernels::Matrix;
use std::collections::BTreeMap;

/// The rows that are described; all have one value a row.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// Texts that words are counted in.
    pub texts: &'a [String],
    /// Texts that are shown.
    pub shown: &'a [String],
    /// rows × dimensions, each of length 1.
    pub vectors: &'a Matrix<f32>,
    /// How many rows each stands for; none: itself.
    pub weights: &'a [u32],
}

/// What is known of topics by their rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// How often each term occurs in each topic (−1: the outliers).
    pub terms: TermCounts,
    /// The topics by rising id; outliers are none.
    pub topics: Vec<Topic>,
    /// How many rows are no topic's.
    pub outliers: u64,
    /// The topics under classes; without nodes where there are more than [`MOST_TOPICS`].
    pub taxonomy: Taxonomy,
    /// NPMI, topic diversity and the share of outliers, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// How many outliers there are to all rows, in [`Description::metrics`].
pub const OUTLIER_SHARE: &str = "outlier_share";

/// What was counted of more rows than those at hand, by topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// How often each term occurs in each topic (−1: the outliers).
    pub terms: TermCounts,
    /// Of each topic its rows, and the mean of their vectors.
    pub topics: BTreeMap<i32, (u64, Vec<f32>)>,
    /// The rows that are no topic's.
    pub outliers: u64,
}

impl Counted {
    /// What a model has counted, where the topics are those that `to` says: those that become one are added up.
    pub(crate) fn of(model: &Model, to: &BTreeMap<i32, i32>) -> Self {
        let to = |topic: i32| to.get(&topic).copied().unwrap_or(topic);
        let mut sums: BTreeMap<i32, (u64, f64, Vec<f64>)> = BTreeMap::new();
        for topic in &model.topics {
            let dim = topic.centroid.len();
            let (rows, weight, sum) = sums.entry(to(topic.id)).or_insert_with(|| (0, 0.0, vec![0.0; dim]));
            // A topic that no row was counted of has a mean all the same.
            let own = topic.size.max(1) as f64;
            (*rows, *weight) = (*rows + topic.size, *weight + own);
            sum.iter_mut().zip(&topic.centroid).for_each(|(sum, v)| *sum += own * f64::from(*v));
        }
        let mean = |sum: Vec<f64>, weight: f64| sum.into_iter().map(|sum| (sum / weight) as f32).collect();
        let topics = sums.into_iter().map(|(topic, (rows, weight, sum))| (topic, (rows, mean(sum, weight))));
        Self { terms: model.terms.regroup(to), topics: topics.collect(), outliers: model.outliers }
    }
}

/// Describes the topics of `labels` (any numbers from 0, −1 for outliers).
///
/// `embed` makes vectors of words, where `config` has refinements. Words, sizes, means and classes are those of all rows
/// that were `counted`, where more were than those at hand; examples, coherence and spellings are of the rows at hand.
///
/// # Errors
/// `Setting` where words are to be refined but nothing embeds them; what `embed` fails with.
pub fn describe(
    rows: Described<'_>,
    labels: &[i32],
    config: &FitConfig,
    embed: Option<&Embed<'_>>,
    counted: Option<&Counted>,
) -> Result<Description> {
    let Described { texts, shown, vectors, weights: times } = rows;
    let words = &config.words;
    let tokens = Tokens::read(texts, &words.vocabulary)?;
    let terms = match counted {
        Some(counted) => counted.terms.clone(),
        None => TermCounts::count_weighted(&tokens, labels, times, &words.vocabulary)?,
    };
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
    let mut topics = topics((vectors, labels, times), candidates, by_topic, representing);
    let in_sample: u64 = (0..labels.len()).filter(|row| labels[*row] < 0).map(|row| weight(times, row)).sum();
    // Of the fit, also where more rows were counted: it is a measure of the fit.
    let share =
        in_sample as f64 / (in_sample + topics.iter().map(|topic| topic.size).sum::<u64>()).max(1) as f64;
    let outliers = counted.map_or(in_sample, |counted| counted.outliers);
    if let Some(counted) = counted {
        for topic in &mut topics {
            if let Some((size, centroid)) = counted.topics.get(&topic.id) {
                topic.size = *size;
                topic.centroid.clone_from(centroid);
            }
        }
    }
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
    let metrics = metrics(&tokens, share, &topics)?;
    Ok(Description { terms, topics, outliers, taxonomy, metrics })
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
    (vectors, labels, weights): (&Matrix<f32>, &[i32], &[u32]),
    words: Vec<TopicWords>,
    mut names: BTreeMap<i32, String>,
    representing: Vec<TopicRepresentatives>,
) -> Vec<Topic> {
    let mut sums: BTreeMap<i32, (u64, Vec<f64>)> = BTreeMap::new();
    for (at, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
        let (size, sum) = sums.entry(label).or_insert_with(|| (0, vec![0.0; vectors.cols()]));
        let rows = weight(weights, at);
        *size += rows;
        for (sum, v) in sum.iter_mut().zip(vectors.row(at)) {
            *sum += rows as f64 * f64::from(*v);
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
fn metrics(tokens: &Tokens, outlier_share: f64, topics: &[Topic]) -> Result<BTreeMap<String, f64>> {
    let mut metrics = BTreeMap::new();
    metrics.insert(OUTLIER_SHARE.into(), outlier_share);
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
