//! Models merged into one: their rows together, and topics that are the same made one.
//!
//! One idea: a model is its rows and their labels, which add up; all else follows from them. Rows come in the order of
//! their ids, a row of several models with the topic of the model whose content hash is smallest, and topics of two
//! models are the same where each is the other's most similar and the cosine of their centroids is large enough. None
//! of it knows in which order the models are given, so the result is the same in any.
//!
//! Source: BERTopic's `merge_models` joins topics at a cosine of 0.7, but in the order given.

use crate::fit::{FitConfig, Means, Rows, fit_labelled};
use crate::grouping::GivenConfig;
use crate::model::{Model, Topic, centroids};
use crate::revise::unit_vectors;
use crate::similarity::Similarity;
use crate::{Error, Result, bundle};
use kernels::Matrix;
use std::collections::BTreeMap;

/// The least cosine of the centroids of topics that become one, as in BERTopic.
pub const MIN_SIMILARITY: f32 = 0.7;

/// A topic: the place of its model, and its number there.
type Place = (usize, i32);

/// Merges models that were fitted with the same encoder; topics are numbered anew, by falling size.
///
/// # Errors
/// `Setting` for fewer than two models, and for models of different encoders; what a fit fails with.
pub fn merge(models: &[&Model], min_similarity: f32, means: &Means<'_>) -> Result<Model> {
    if models.len() < 2 {
        return Err(Error::setting("models", format!("{}, expected two or more to merge", models.len())));
    }
    let models = in_order(models)?;
    let first = models[0];
    for other in &models[1..] {
        check_encoders(first, other)?;
    }
    let groups = same_topics(&models, min_similarity)?;
    let (rows, labels) = together(&models, &groups)?;
    // Rows that were given a topic have it by now.
    let config = FitConfig { given: GivenConfig::default(), ..FitConfig::of(first)? };
    let (labels, _) = crate::clusterers::number_by_size(&labels);
    fit_labelled(rows, labels, first.settings.clone(), first.encoder.clone(), &config, means)
}

/// The models by the hashes of what they hold.
fn in_order<'m>(models: &[&'m Model]) -> Result<Vec<&'m Model>> {
    let mut hashed = models
        .iter()
        .map(|model| Ok((bundle::content_hash(model)?, *model)))
        .collect::<Result<Vec<(String, &Model)>>>()?;
    hashed.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = hashed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let rows = pair[0].1.sample.len();
        return Err(Error::setting(
            "models",
            format!("two are the same (of {rows} rows), expected different ones"),
        ));
    }
    Ok(hashed.into_iter().map(|(_, model)| model).collect())
}

fn check_encoders(a: &Model, b: &Model) -> Result<()> {
    let differences = match (&a.encoder, &b.encoder) {
        (Some(a), Some(b)) => a.differences(b),
        (None, None) => Vec::new(),
        _ => vec!["one has its vectors from a column".to_string()],
    };
    if !differences.is_empty() || a.codes.cols() != b.codes.cols() {
        let reason = format!("were fitted with different encoders: {}", differences.join(", "));
        return Err(Error::setting("models", reason));
    }
    if a.settings.text != b.settings.text {
        tracing::warn!(
            "the models' texts are made by different templates: {:?} and {:?}",
            a.settings.text,
            b.settings.text
        );
    }
    Ok(())
}

/// The group of each topic: those that are the same have one.
fn same_topics(models: &[&Model], min_similarity: f32) -> Result<BTreeMap<Place, i32>> {
    let places: Vec<Place> = models
        .iter()
        .enumerate()
        .flat_map(|(at, model)| model.topics.iter().map(move |topic| (at, topic.id)))
        .collect();
    let topics: Vec<Topic> = models.iter().flat_map(|model| model.topics.iter().cloned()).collect();
    let centroids = centroids(&topics)?;
    let near = Similarity::Cosine.between(&centroids, &centroids)?;
    // The most similar topic of another model, the first of equal ones.
    let best = |at: usize, model: usize| {
        let others = (0..places.len()).filter(|other| places[*other].0 == model);
        others.reduce(|best, other| if near.row(at)[other] > near.row(at)[best] { other } else { best })
    };
    let mut groups: Vec<usize> = (0..places.len()).collect();
    for at in 0..places.len() {
        for model in (0..models.len()).filter(|model| *model != places[at].0) {
            let Some(other) = best(at, model) else { continue };
            if near.row(at)[other] >= min_similarity && best(other, places[at].0) == Some(at) {
                let (keep, drop) = (groups[at].min(groups[other]), groups[at].max(groups[other]));
                groups.iter_mut().filter(|group| **group == drop).for_each(|group| *group = keep);
            }
        }
    }
    Ok(places.into_iter().zip(groups.into_iter().map(|group| group as i32)).collect())
}

/// The rows of all models by their ids, with the groups of their topics.
fn together(models: &[&Model], groups: &BTreeMap<Place, i32>) -> Result<(Rows, Vec<i32>)> {
    let mut by_id: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (at, model) in models.iter().enumerate() {
        for (row, id) in model.sample.ids.iter().enumerate() {
            by_id.entry(id).or_insert((at, row));
        }
    }
    let texts =
        models.iter().map(|model| model.texts.get(&model.sample.texts)).collect::<Result<Vec<_>>>()?;
    let vectors: Vec<Matrix<f32>> = models.iter().map(|model| unit_vectors(model)).collect();
    let dated = models.iter().all(|model| !model.sample.dates.is_empty());
    let (mut rows, mut labels, mut values) = (Rows::default(), Vec::new(), Vec::new());
    for (id, (at, row)) in by_id {
        let sample = &models[at].sample;
        rows.ids.push(id.into());
        rows.texts.push(texts[at][row].clone());
        rows.shown.push(sample.texts[row].clone());
        if dated {
            rows.dates.push(sample.dates[row]);
        }
        values.extend_from_slice(vectors[at].row(row));
        labels.push(groups.get(&(at, sample.topics[row])).copied().unwrap_or(-1));
    }
    rows.vectors = Matrix::try_from_vec(labels.len(), models[0].codes.cols(), values)?;
    Ok((rows, labels))
}
