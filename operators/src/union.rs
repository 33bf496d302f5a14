//! Models merged into one: their rows together, and topics that are the same made one.
//!
//! One idea: a model is its rows and their labels, which add up; all else follows from them. Rows come in the order of
//! their ids (those of rows without any behind the hash of their model), a row of several models with the topic of the
//! model whose content hash is smallest, and topics of two
//! models are the same where each is the other's most similar and the cosine of their centroids is large enough. None
//! of it knows in which order the models are given, so the result is the same in any.
//!
//! Source: BERTopic's `merge_models` joins topics at a cosine of 0.7, but in the order given.

use crate::clusterers::number_by_size;
use crate::fit::{FitConfig, Means, Rows, fit_labelled};
use crate::grouping::GivenConfig;
use crate::model::{Model, NamedBy, Topic, centroids, weight};
use crate::revise::unit_vectors;
use crate::similarity::Similarity;
use crate::{Error, Result, bundle};
use kernels::Matrix;
use std::collections::BTreeMap;

/// The least cosine of the centroids of topics that become one, as in BERTopic.
pub const MIN_SIMILARITY: f32 = 0.7;

/// A topic: the place of its model, and its number there.
type Place = (usize, i32);

/// Models to be merged, in the order of the hashes of what they hold: the same whatever order they are given in.
pub struct Parts(Vec<(String, Model)>);

impl Parts {
    /// Takes models that were fitted with the same encoder.
    ///
    /// # Errors
    /// `Setting` for fewer than two models, for two that are the same, and for models of different encoders.
    pub fn try_new(models: Vec<Model>) -> Result<Self> {
        if models.len() < 2 {
            return Err(Error::setting("models", format!("{}, expected two or more to merge", models.len())));
        }
        let mut parts = models
            .into_iter()
            .map(|model| Ok((bundle::content_hash(&model)?, model)))
            .collect::<Result<Vec<(String, Model)>>>()?;
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let rows = pair[0].1.sample.len();
            let reason = format!("two are the same (of {rows} rows), expected different ones");
            return Err(Error::setting("models", reason));
        }
        for (_, other) in &parts[1..] {
            check_encoders(&parts[0].1, other)?;
        }
        Ok(Self(parts))
    }

    /// The model whose settings the merged one has.
    pub fn first(&self) -> &Model {
        &self.0[0].1
    }

    /// Merges the models: topics whose centroids have a cosine of `min_similarity` or more become one. Topics are
    /// numbered anew, by falling size; one has the name of its largest part that users named, or else language models.
    ///
    /// # Errors
    /// What a fit fails with.
    pub fn merge(&self, min_similarity: f32, means: &Means<'_>) -> Result<Model> {
        let groups = self.same_topics(min_similarity)?;
        let (rows, labels) = self.together(&groups)?;
        // Rows that were given a topic have it by now.
        let config = FitConfig { given: GivenConfig::default(), ..FitConfig::of(self.first())? };
        let mut settings = self.first().settings.clone();
        settings.fit =
            serde_json::to_value(&config).map_err(|e| Error::Internal(format!("settings: {e}")))?;
        let (labels, group_of) = number_by_size(&labels);
        let mut merged = fit_labelled(rows, labels, settings, self.first().encoder.clone(), &config, means)?;
        for topic in &mut merged.topics {
            let group = usize::try_from(topic.id).ok().and_then(|id| group_of.get(id));
            let parts = self
                .topics()
                .filter(|(place, part)| groups.get(place) == group && part.named_by != NamedBy::Words);
            let by_user = |topic: &Topic| topic.named_by == NamedBy::User;
            let best = parts.max_by(|(_, a), (_, b)| {
                by_user(a).cmp(&by_user(b)).then(a.size.cmp(&b.size)).then(b.name.cmp(&a.name))
            });
            if let Some((_, part)) = best {
                topic.take_name(part);
            }
        }
        merged.taxonomy.name_after(&merged.topics);
        Ok(merged)
    }

    /// All topics, with their places.
    fn topics(&self) -> impl Iterator<Item = (Place, &Topic)> {
        let parts = self.0.iter().enumerate();
        parts.flat_map(|(at, (_, model))| model.topics.iter().map(move |topic| ((at, topic.id), topic)))
    }

    /// The group of each topic: those that are the same have one, also by way of a third.
    fn same_topics(&self, min_similarity: f32) -> Result<BTreeMap<Place, i32>> {
        let places: Vec<Place> = self.topics().map(|(place, _)| place).collect();
        let centroids = centroids(self.topics().map(|(_, topic)| topic))?;
        let near = Similarity::Cosine.between(&centroids, &centroids)?;
        // The most similar topic of another model, the first of equal ones.
        let best = |at: usize, model: usize| {
            let others = (0..places.len()).filter(|other| places[*other].0 == model);
            others.reduce(|best, other| if near.row(at)[other] > near.row(at)[best] { other } else { best })
        };
        let mut groups: Vec<usize> = (0..places.len()).collect();
        for at in 0..places.len() {
            for model in (0..self.0.len()).filter(|model| *model != places[at].0) {
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
    fn together(&self, groups: &BTreeMap<Place, i32>) -> Result<(Rows, Vec<i32>)> {
        // Rows that are only numbered have names within their model alone.
        let id = &self.first().settings.id;
        let are_named = id.is_some() && self.0.iter().all(|(_, model)| model.settings.id == *id);
        // Each model may have found other duplicates of a row: the largest number that it stands for counts.
        let mut by_id: BTreeMap<String, (usize, usize, u64)> = BTreeMap::new();
        for (at, (hash, model)) in self.0.iter().enumerate() {
            for (row, id) in model.sample.ids.iter().enumerate() {
                let name = if are_named { id.clone() } else { format!("{}:{id}", &hash[..8]) };
                let stands_for = &mut by_id.entry(name).or_insert((at, row, 1)).2;
                *stands_for = weight(&model.sample.weights, row).max(*stands_for);
            }
        }
        let models: Vec<&Model> = self.0.iter().map(|(_, model)| model).collect();
        if models.iter().any(|model| model.is_counted()) {
            tracing::warn!("words and sizes are those of the samples, not of all rows that were counted");
        }
        let texts =
            models.iter().map(|model| model.texts.get(&model.sample.texts)).collect::<Result<Vec<_>>>()?;
        let vectors: Vec<Matrix<f32>> = models.iter().map(|model| unit_vectors(model)).collect();
        let dated = models.iter().any(|model| !model.sample.dates.is_empty());
        let (mut rows, mut labels, mut values) = (Rows::default(), Vec::new(), Vec::new());
        for (id, (at, row, stands_for)) in by_id {
            let sample = &models[at].sample;
            rows.ids.push(id);
            rows.texts.push(texts[at][row].clone());
            rows.shown.push(sample.texts[row].clone());
            if dated {
                // A model without a date column has none.
                rows.dates.push(sample.dates.get(row).copied().flatten());
            }
            values.extend_from_slice(vectors[at].row(row));
            rows.weights.push(u32::try_from(stands_for).unwrap_or(u32::MAX));
            labels.push(groups.get(&(at, sample.topics[row])).copied().unwrap_or(-1));
        }
        if rows.weights.iter().all(|weight| *weight == 1) {
            rows.weights.clear();
        }
        rows.vectors = Matrix::try_from_vec(labels.len(), self.first().codes.cols(), values)?;
        Ok((rows, labels))
    }
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
