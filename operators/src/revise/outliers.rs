//! Outliers given a topic, by four strategies: those of BERTopic's `reduce_outliers`.

use super::unit_vectors;
use crate::clusterers::ClustererConfig;
use crate::clusterers::hdbscan::{Convention, Prediction};
use crate::fit::FitConfig;
use crate::model::{Model, centroids};
use crate::similarity::Similarity;
use crate::words::topic_space::distribution;
use crate::words::{Ctfidf, DistributionConfig, Tokens, TopicSpace};
use crate::{Error, Result};
use rayon::prelude::*;

/// What says how near an outlier is to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The topics of its windows of words.
    Distributions,
    /// The probabilities that the clusterer gives it: HDBSCAN's membership vectors.
    Probabilities,
    /// The cosine of its term weights to the topic's.
    Ctfidf,
    /// The cosine of its vector to the topic's mean.
    Embeddings,
}

/// The labels after each outlier got the topic that it is nearest to, at a similarity above 0 and of at least
/// `threshold`.
///
/// # Errors
/// `Setting` for a threshold that is no number, and for probabilities of a model without a tree.
pub(super) fn assigned(
    model: &Model,
    strategy: Strategy,
    threshold: f64,
    windows: &DistributionConfig,
    config: &FitConfig,
) -> Result<Vec<i32>> {
    if !threshold.is_finite() {
        return Err(Error::setting("threshold", format!("{threshold}, expected a number")));
    }
    let mut labels = model.sample.topics.clone();
    let outliers: Vec<usize> = (0..labels.len()).filter(|row| labels[*row] < 0).collect();
    if outliers.is_empty() || model.topics.is_empty() {
        let what = if outliers.is_empty() { "outliers" } else { "topics" };
        return Err(Error::Unfit(format!("the model has no {what}: nothing to change")));
    }
    let best = match strategy {
        Strategy::Distributions => {
            let windows = DistributionConfig { min_similarity: threshold, ..*windows };
            by_words(model, &outliers, config, |space, words, scores| {
                distribution(space, words, &windows, scores);
                best_of(scores, 0.0)
            })?
        }
        Strategy::Ctfidf => by_words(model, &outliers, config, |space, words, scores| {
            space.cosines(words, scores);
            best_of(scores, threshold)
        })?,
        Strategy::Probabilities => by_probabilities(model, &outliers, threshold, config)?,
        Strategy::Embeddings => by_embeddings(model, &outliers, threshold)?,
    };
    for (row, place) in outliers.into_iter().zip(best) {
        if let Some(place) = place {
            labels[row] = model.topics[place].id;
        }
    }
    Ok(labels)
}

/// The place of the largest of `scores`, the first of equal ones, if it is above 0 and not below `threshold`.
fn best_of(scores: &[f64], threshold: f64) -> Option<usize> {
    let best = (1..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
    scores.get(best).filter(|score| **score > 0.0 && **score >= threshold).map(|_| best)
}

/// What `of` finds for the words of each row.
fn by_words(
    model: &Model,
    rows: &[usize],
    config: &FitConfig,
    of: impl Fn(&TopicSpace<'_>, &[u32], &mut Vec<f64>) -> Option<usize> + Sync,
) -> Result<Vec<Option<usize>>> {
    let texts = model.texts.get(&model.sample.texts)?;
    let texts: Vec<&String> = rows.iter().map(|row| &texts[*row]).collect();
    let tokens = Tokens::read(&texts, &config.words.vocabulary)?;
    let weights = Ctfidf::fit(&model.terms, &config.words.ctfidf)?;
    let space = TopicSpace::new(&model.terms, &weights, &tokens);
    let found = (0..rows.len())
        .into_par_iter()
        .map_init(Vec::new, |scores, row| of(&space, tokens.document(row), scores));
    Ok(found.collect())
}

fn by_probabilities(
    model: &Model,
    rows: &[usize],
    threshold: f64,
    config: &FitConfig,
) -> Result<Vec<Option<usize>>> {
    let (Some(tree), ClustererConfig::Hdbscan(hdbscan) | ClustererConfig::HdbscanCrate(hdbscan)) =
        (&model.tree, &config.clusterer)
    else {
        let reason = "probabilities come from HDBSCAN's tree, which this model does not have (topics of another \
                      clusterer, or merged ones): choose distributions, c-tf-idf or embeddings";
        return Err(Error::setting("strategy", reason));
    };
    let unit;
    let points = match model.sample.positions.cols() {
        0 => {
            unit = unit_vectors(model);
            &unit
        }
        _ => &model.sample.positions,
    };
    let min_samples = hdbscan.min_samples_for(points.rows());
    let prediction = Prediction::try_new(points, tree, min_samples, Convention::Consistent)?;
    let members = prediction.all_points_membership_vectors(points)?;
    let found = rows.iter().map(|row| {
        let scores: Vec<f64> = members.row(*row).iter().map(|share| f64::from(*share)).collect();
        best_of(&scores, threshold)
    });
    Ok(found.collect())
}

fn by_embeddings(model: &Model, rows: &[usize], threshold: f64) -> Result<Vec<Option<usize>>> {
    // A sample has fewer than 2^32 rows: see the search for neighbours.
    let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
    let vectors = unit_vectors(model).gather(&rows);
    let cosines = Similarity::Cosine.between(&vectors, &centroids(&model.topics)?)?;
    let found = cosines.iter_rows().map(|row| {
        let scores: Vec<f64> = row.iter().map(|cosine| f64::from(*cosine)).collect();
        best_of(&scores, threshold)
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_wins_if_it_is_near_enough() {
        assert_eq!(best_of(&[0.1, 0.5, 0.5], 0.0), Some(1));
        assert_eq!(best_of(&[0.1, 0.5], 0.6), None);
        assert_eq!(best_of(&[0.0, -1.0], -2.0), None, "what is not similar at all is no topic");
        assert_eq!(best_of(&[], 0.0), None);
    }
}
