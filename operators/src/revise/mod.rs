//! Changes to a fitted model: other words, topics merged or split, outliers given a topic.
//!
//! One idea: a change is a new label for each row of the sample, and all else follows from the labels
//! ([`crate::describe`]). Topics keep their numbers; a number that is gone is never given again. A topic whose rows did
//! not change keeps its name and its centroid.
//!
//! | change | file |
//! |---|---|
//! | topics merged, by hand or down to a number of them | [`merge`] |
//! | one topic clustered again | [`split`] |
//! | outliers given the topic they are nearest to | [`outliers`] |

pub mod merge;
pub mod outliers;
pub mod split;

pub use merge::{Reduction, TopicVectors};
pub use outliers::Strategy;

use crate::clusterers::ClustererConfig;
use crate::corpus::{Basis, basis};
use crate::describe::{Counted, Described, Description, describe};
use crate::evaluate::dbcv;
use crate::fit::{FitConfig, Means};
use crate::lineage;
use crate::model::{Model, NamedBy, Topic, is_test_row};
use crate::taxonomy::llm::TaxonomyConfig;
use crate::words::DistributionConfig;
use crate::{Error, Result};
use kernels::Matrix;
use kernels::norm::scale_to_unit;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// A change to a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Words are found anew; every row keeps its topic, and every topic the name that a language model gave it.
    Words,
    /// The same, by what was counted of all rows that the model has labelled.
    Corpus(Counted),
    /// Names are made anew, of words.
    Names,
    /// Each group of topics becomes one, which keeps the number of the largest.
    Merge(Vec<Vec<i32>>),
    /// The nearest topics are merged, until few are left.
    Reduce(Reduction, TopicVectors),
    /// A topic's rows are clustered again; the largest part keeps its number.
    Split(i32, ClustererConfig),
    /// Outliers get a topic where one is near: at a similarity above 0 and of at least the number given.
    Outliers(Strategy, f64, DistributionConfig),
}

/// Makes the change to `model`; `config` says how its words are found.
///
/// # Errors
/// `Setting` for a topic that is not there and for a change that the model cannot have; `Unfit` where nothing would
/// change.
pub fn revise(model: &Model, change: &Change, config: &FitConfig, means: &Means<'_>) -> Result<Model> {
    config.check()?;
    let labels = match change {
        Change::Words | Change::Names | Change::Corpus(_) => model.sample.topics.clone(),
        Change::Merge(groups) => merge::merged(model, groups)?,
        Change::Reduce(reduction, vectors) => merge::reduced(model, *reduction, *vectors, config)?,
        Change::Split(topic, clusterer) => split::split(model, *topic, clusterer, config, means)?,
        Change::Outliers(strategy, threshold, windows) => {
            outliers::assigned(model, *strategy, *threshold, windows, config)?
        }
    };
    let counted = match change {
        Change::Corpus(counted) => Some(counted),
        _ => None,
    };
    let mut revised = relabel_counted(model, labels, config, means, counted)?;
    if let TaxonomyConfig::Llm(_) = config.taxonomy {
        if revised.sample.topics == model.sample.topics {
            revised.taxonomy.clone_from(&model.taxonomy);
        } else {
            tracing::warn!(
                "the taxonomy is made of the clusters again: the language model's was of other topics"
            );
        }
    }
    keep_names_of_same(model, &mut revised, *change == Change::Names);
    if revised.sample.topics != model.sample.topics {
        revised.lineage.extend(lineage::of_change(model, &revised)?);
        revised.generation += 1;
    }
    Ok(revised)
}

/// Gives topics the names that users gave them, and those whose rows are the same the names that language models gave
/// them, unless names are made `anew`.
fn keep_names_of_same(before: &Model, after: &mut Model, anew: bool) {
    let same = unchanged(&before.topics, &before.sample.topics, &after.sample.topics);
    for topic in &mut after.topics {
        let kept = before.topic(topic.id).filter(|before| match before.named_by {
            NamedBy::Words => false,
            NamedBy::User => true,
            NamedBy::Llm(_) => !anew && same.contains_key(&before.id),
        });
        if let Some(before) = kept {
            topic.take_name(before);
        }
    }
    after.taxonomy.name_after(&after.topics);
}

/// Gives each row of the sample the topic of `labels`, and describes the topics anew.
pub fn relabel(model: &Model, labels: Vec<i32>, config: &FitConfig, means: &Means<'_>) -> Result<Model> {
    relabel_counted(model, labels, config, means, None)
}

/// The same by what was `counted` of more rows.
fn relabel_counted(
    model: &Model,
    labels: Vec<i32>,
    config: &FitConfig,
    means: &Means<'_>,
    counted: Option<&Counted>,
) -> Result<Model> {
    let old = &model.sample;
    let changed = labels != old.topics;
    let whole = whole_topics(&old.topics, &labels);
    let own = match counted {
        None if model.is_counted() => own_counts(model, whole.as_ref(), config)?,
        _ => None,
    };
    let counted = counted.or(own.as_ref());
    means.begin("words")?;
    let texts = model.texts.get(&old.texts)?;
    let vectors = unit_vectors(model);
    let rows = Described { texts: &texts, shown: &old.texts, vectors: &vectors, weights: &old.weights };
    let Description { terms, mut topics, outliers, mut taxonomy, metrics } =
        describe(rows, &labels, config, means.embed, counted)?;
    drop((texts, vectors));
    let same = unchanged(&model.topics, &old.topics, &labels);
    for topic in &mut topics {
        if let Some(before) = same.get(&topic.id) {
            if counted.is_none() && !model.is_counted() {
                topic.centroid.clone_from(&before.centroid);
            }
            if changed {
                topic.name.clone_from(&before.name);
            }
        }
    }
    taxonomy.name_after(&topics);

    means.begin("threshold")?;
    let mut sample = old.clone();
    if changed && sample.fitted_topics.is_empty() {
        sample.fitted_topics.clone_from(&old.topics);
    }
    sample.topics = labels;
    let mut settings = model.settings.clone();
    settings.fit = serde_json::to_value(config).map_err(|e| Error::Internal(format!("settings: {e}")))?;
    let same_topics = topics.iter().map(|topic| topic.id).eq(model.topics.iter().map(|topic| topic.id));
    let mut revised = Model {
        settings,
        next_topic: topics.last().map_or(0, |topic| topic.id + 1).max(model.next_topic),
        sample,
        topics,
        outliers,
        taxonomy,
        terms,
        // A tree knows the clusters that were found; topics that were merged or split are none of them.
        tree: model.tree.clone().filter(|_| same_topics),
        metrics: model.metrics.clone(),
        encoder: model.encoder.clone(),
        calibration: model.calibration.clone(),
        calibration_report: model.calibration_report.clone(),
        scale: model.scale,
        codes: model.codes.clone(),
        threshold: model.threshold,
        texts: model.texts.clone(),
        generation: model.generation,
        lineage: model.lineage.clone(),
        bases: Vec::new(),
    };
    if changed {
        revised.metrics.clear();
        let positions = &revised.sample.positions;
        let index = match positions.cols() {
            0 => dbcv(&unit_vectors(&revised), &revised.sample.topics),
            _ => dbcv(positions, &revised.sample.topics),
        };
        if let Some(index) = index {
            revised.metrics.insert("dbcv".into(), index.value);
        }
        let assigner = revised.assigner(revised.settings.label.clone(), means.device)?;
        let ids = &revised.sample.ids;
        revised.threshold = assigner.calibrate(&revised.codes, |row| is_test_row(&ids[row]))?;
        if let Some(coverage) = revised.threshold.coverage {
            revised.metrics.insert("coverage_reached".into(), coverage);
        }
    }
    revised.metrics.extend(metrics);
    revised.bases = bases(model, &revised, whole.as_ref())?;
    Ok(revised)
}

/// What each topic has become, where its rows are still together; nothing where those of one are not.
fn whole_topics(before: &[i32], after: &[i32]) -> Option<BTreeMap<i32, i32>> {
    let mut to: BTreeMap<i32, i32> = BTreeMap::new();
    let mut pairs = before.iter().zip(after);
    pairs.all(|(before, after)| *to.entry(*before).or_insert(*after) == *after).then_some(to)
}

/// What a model has counted of more rows than its sample's, where topics became what `to` says, if that follows from it.
fn own_counts(model: &Model, to: Option<&BTreeMap<i32, i32>>, config: &FitConfig) -> Result<Option<Counted>> {
    match to {
        Some(to) if FitConfig::of(model)?.words.vocabulary == config.words.vocabulary => {
            Ok(Some(Counted::of(model, to)))
        }
        _ => {
            let reason = "those of all rows do not follow from what was counted";
            tracing::warn!("words and sizes are those of the sample again: {reason}");
            Ok(None)
        }
    }
}

/// The versions whose sums go on in one that a change makes of `model`: none, where their topics are no longer whole or its
/// terms are others.
fn bases(model: &Model, after: &Model, to: Option<&BTreeMap<i32, i32>>) -> Result<Vec<Basis>> {
    let Some(to) = to.filter(|_| model.terms.terms() == after.terms.terms()) else { return Ok(Vec::new()) };
    let own = basis(after)?;
    let all = Basis::of(model)?.into_iter().map(|basis| basis.then(to));
    Ok(all.filter(|basis| basis.id != own).collect())
}

/// The vectors of the sample, of length 1, as far as search codes hold them.
pub fn unit_vectors(model: &Model) -> Matrix<f32> {
    let mut vectors = model.scale.vectors(&model.codes);
    scale_to_unit(&mut vectors);
    vectors
}

/// The topics that have the same rows by `before` and by `after`.
fn unchanged<'m>(topics: &'m [Topic], before: &[i32], after: &[i32]) -> FxHashMap<i32, &'m Topic> {
    let mut same: FxHashMap<i32, &Topic> = topics.iter().map(|topic| (topic.id, topic)).collect();
    for (before, after) in before.iter().zip(after).filter(|(before, after)| before != after) {
        same.remove(before);
        same.remove(after);
    }
    same
}

/// The topic `id` of `model`; an error says which there are.
pub(crate) fn topic(model: &Model, id: i32) -> Result<&Topic> {
    model.topic(id).ok_or_else(|| {
        let reason = match (id, model.topics.first(), model.topics.last()) {
            (-1, ..) => "are the outliers, which are no topic".to_string(),
            (_, Some(first), Some(last)) => {
                format!(
                    "is not there: the model has {} topics, {} to {}",
                    model.topics.len(),
                    first.id,
                    last.id
                )
            }
            _ => "is not there: the model has no topics".into(),
        };
        Error::setting(format!("topic {id}"), reason)
    })
}
