//! The fit: from a sample's texts and vectors to a model.
//!
//! Neighbours, layout, clusters, words, names, numbers that judge them, codes and threshold, each by its own module;
//! this file is their order. Runs on one machine; the same sample and seed give the same model at any thread count.

use crate::assign::{Assigner, LabelConfig};
use crate::calibration::{Calibration, CalibrationReport};
use crate::clusterers::{ClustererConfig, Clustering};
use crate::describe::{Described, Description, describe, needs_encoder};
use crate::duplicates::{DuplicatesConfig, representatives, weights};
use crate::encoders::Identity;
use crate::evaluate::{GateConfig, dbcv};
use crate::grouping::{GivenConfig, Grouper, Groups};
use crate::labellers::LabellerConfig;
use crate::lineage::{self, Continued, Event, Refit, continued};
use crate::model::{Model, NamedBy, Sample, Settings, Topic, is_test_row, weight};
use crate::quantize::Precision;
use crate::reducers::{FuzzyGraph, Reducer, UmapConfig, neighbour_graph};
use crate::sample::Selection;
use crate::taxonomy::Taxonomy;
use crate::taxonomy::llm::TaxonomyConfig;
use crate::texts::Texts;
use crate::words::{Embed, WordsConfig};
use crate::{Error, Result};
use kernels::norm::scale_to_unit;
use kernels::quantize::Ranges;
use kernels::search_codes::SearchScale;
use kernels::{Device, Matrix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// How a model is fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// Which rows of the source the model is fitted on. 200,000 by hash: what one machine fits in minutes, and the
    /// same rows on every machine and in every run.
    pub sample: Selection,
    /// Which rows are fitted once, and count as often as they are there.
    pub duplicates: DuplicatesConfig,
    /// What brings the vectors down to the dimensions that are clustered.
    pub reducer: Reducer,
    /// The layout of the map. By default as the reducer's, in 2 dimensions, with `min_dist` 0.1, which looks better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<UmapConfig>,
    /// What groups the points.
    pub clusterer: ClustererConfig,
    /// Topics that are given, beside those that are found.
    pub given: GivenConfig,
    /// Other seeds under which rows are laid out and clustered again, to say how stable the topics are. 1: each costs as
    /// much as a layout and a clustering.
    pub stability_seeds: usize,
    /// How topic words are found.
    pub words: WordsConfig,
    /// Texts that stand for each topic. 3, as in BERTopic.
    pub representatives: usize,
    /// What names topics.
    pub labeller: LabellerConfig,
    /// What arranges topics under classes.
    pub taxonomy: TaxonomyConfig,
    /// What a fit must reach for its model to be written.
    pub gate: GateConfig,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            sample: Selection::Hash { rows: 200_000, seed: 0 },
            duplicates: DuplicatesConfig::default(),
            reducer: Reducer::default(),
            map: None,
            clusterer: ClustererConfig::default(),
            given: GivenConfig::default(),
            stability_seeds: 1,
            words: WordsConfig::default(),
            representatives: 3,
            labeller: LabellerConfig::default(),
            taxonomy: TaxonomyConfig::default(),
            gate: GateConfig::default(),
        }
    }
}

impl FitConfig {
    /// The settings that `model` was fitted with, or changed to since.
    ///
    /// # Errors
    /// `Internal` where another version wrote settings that this one cannot read.
    pub fn of(model: &Model) -> Result<Self> {
        serde_json::from_value(model.settings.fit.clone())
            .map_err(|e| Error::Internal(format!("the model's settings: {e}")))
    }

    /// Whether a fit embeds more than its rows: words, or given topics.
    pub fn embeds(&self) -> bool {
        !(self.words.then.is_empty() && self.given.topics.is_empty())
    }

    /// Checks every setting that no data is needed for.
    pub fn check(&self) -> Result<()> {
        self.sample.check()?;
        self.duplicates.check()?;
        if let Reducer::Umap(umap) = &self.reducer {
            umap.check()?;
        }
        if let Some(map) = &self.map {
            map.check()?;
            if map.n_components != 2 {
                return Err(Error::setting(
                    "fit.map.n_components",
                    format!("{}, expected 2", map.n_components),
                ));
            }
        }
        self.clusterer.build()?;
        self.given.check()?;
        self.words.check()?;
        self.labeller.check()?;
        self.taxonomy.check()?;
        self.gate.check()
    }
}

/// The rows that a model is fitted on; all have one value a row.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Names.
    pub ids: Vec<String>,
    /// Texts that words are counted in.
    pub texts: Vec<String>,
    /// Texts that are shown.
    pub shown: Vec<String>,
    /// Days since 1970; empty without a date column.
    pub dates: Vec<Option<i32>>,
    /// rows × dimensions.
    pub vectors: Matrix<f32>,
    /// How many rows each stands for; empty where each stands for itself.
    pub weights: Vec<u32>,
}

impl Rows {
    /// Leaves one row of those that are near duplicates, which stands for them.
    fn without_duplicates(self, config: &DuplicatesConfig, observer: &dyn Observer) -> Result<Self> {
        observer.begin("duplicates", 0);
        let go_on = || observer.advance(0).is_continue();
        let found = representatives(&self.texts, &self.vectors, config, &go_on);
        let (kept, weights) = weights(&found.ok_or(Error::Stopped("the fit"))?);
        let (all, left) = (self.texts.len(), kept.len());
        if left == all {
            return Ok(self);
        }
        if left < FEWEST_ROWS {
            let reason = format!(
                "of {all} rows all but {left} are near duplicates, too few to fit: --keep-duplicates fits all"
            );
            return Err(Error::Unfit(reason));
        }
        tracing::info!(
            "{} of {all} rows are near duplicates of others: they count, but are not fitted",
            all - left
        );
        let Self { ids, texts, shown, dates, vectors, .. } = self;
        Ok(Self {
            ids: chosen(ids, &kept),
            texts: chosen(texts, &kept),
            shown: chosen(shown, &kept),
            dates: if dates.is_empty() { dates } else { chosen(dates, &kept) },
            vectors: vectors.gather(&kept),
            weights,
        })
    }
}

/// Rows that a layout needs.
const FEWEST_ROWS: usize = 3;

/// The values of the rows `kept`, which rise.
fn chosen<T>(values: Vec<T>, kept: &[u32]) -> Vec<T> {
    let mut kept = kept.iter().peekable();
    let all = (0u32..).zip(values);
    all.filter_map(|(row, value)| kept.next_if(|next| **next == row).map(|_| value)).collect()
}

/// The share of their nearest rows that was found for a sample of rows, in [`Model::metrics`]; 1 where a search is exact.
pub const NEIGHBOUR_RECALL: &str = "neighbour_recall";

/// Hears what a fit is doing, and may stop it.
pub trait Observer: Sync {
    /// A stage of `total` steps begins; 0 where steps are not counted.
    fn begin(&self, stage: &'static str, total: u64);
    /// So many steps of the stage are done; to break stops the fit.
    fn advance(&self, done: u64) -> ControlFlow<()>;
}

impl Observer for () {
    fn begin(&self, _: &'static str, _: u64) {}
    fn advance(&self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What a fit works with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Where kernels run.
    pub device: &'a Device,
    /// What makes vectors of words, where words are to be refined.
    pub embed: Option<&'a Embed<'a>>,
    /// What hears of progress.
    pub observer: &'a dyn Observer,
    /// The model whose topics are to be continued.
    pub before: Option<&'a Model>,
}

impl<'a> Means<'a> {
    /// A device alone: nothing embeds words, and nobody listens.
    pub fn only(device: &'a Device) -> Self {
        Self { device, embed: None, observer: &(), before: None }
    }

    /// Tells of a stage whose steps are not counted; fails if the observer breaks.
    pub(crate) fn begin(&self, stage: &'static str) -> Result<()> {
        self.observer.begin(stage, 0);
        if self.observer.advance(0).is_break() { Err(Error::Stopped("the fit")) } else { Ok(()) }
    }
}

/// Fits a model to `rows`.
///
/// # Errors
/// `Unfit` where no model can be: no rows, fewer than the smallest cluster, vectors that are no numbers; `Setting`
/// for one out of range; `Stopped` if the observer breaks.
pub fn fit(
    rows: Rows,
    settings: Settings,
    encoder: Option<Identity>,
    config: &FitConfig,
    means: &Means<'_>,
) -> Result<Model> {
    fit_groups(rows, None, settings, encoder, config, means)
}

/// The same for rows whose topics are known: `labels`, any numbers from 0, −1 for outliers.
pub(crate) fn fit_labelled(
    rows: Rows,
    labels: Vec<i32>,
    settings: Settings,
    encoder: Option<Identity>,
    config: &FitConfig,
    means: &Means<'_>,
) -> Result<Model> {
    fit_groups(rows, Some(labels), settings, encoder, config, means)
}

fn fit_groups(
    rows: Rows,
    labels: Option<Vec<i32>>,
    settings: Settings,
    encoder: Option<Identity>,
    config: &FitConfig,
    means: &Means<'_>,
) -> Result<Model> {
    if rows.vectors.rows() == 0 {
        return Err(Error::Unfit("the sample has no rows".into()));
    }
    config.check()?;
    if means.embed.is_none() && config.embeds() {
        return Err(needs_encoder());
    }
    settings.label.check()?;
    if let Some(before) = means.before {
        lineage::check(before, encoder.as_ref(), Some(rows.vectors.cols()))?;
    }
    rows.vectors.check_finite()?;
    warn_of_zeros(&rows.vectors)?;
    let Means { device, observer, .. } = *means;
    let rows = match &labels {
        None if config.duplicates.collapse => rows.without_duplicates(&config.duplicates, observer)?,
        _ => rows,
    };
    let Rows { ids, texts, shown, dates, mut vectors, weights } = rows;

    // The vectors are the largest thing here: what their lengths matter to comes first, so that they can then be scaled
    // in place.
    let mut calibration = Calibration::new();
    calibration.observe(&vectors)?;
    let calibration_report = halves_report(&ids, &vectors)?;
    let seeds = if labels.is_some() { 0 } else { config.stability_seeds };
    let Layouts { positions, map, others, recall } = lay_out(&vectors, config, seeds, device, observer)?;
    means.begin("clusters")?;
    scale_to_unit(&mut vectors);
    let unit = vectors;
    let (groups, stable) = match labels {
        None => {
            let points = positions.as_ref().unwrap_or(&unit);
            let grouper = Grouper::try_new(&unit, config, means)?;
            let groups = grouper.group(points)?;
            let stable = grouper.stability(points, &groups.clustering.labels, &others)?;
            (groups, stable)
        }
        Some(labels) => {
            let probabilities = labels.iter().map(|label| if *label < 0 { 0.0 } else { 1.0 }).collect();
            let clustering = Clustering { labels, probabilities, ..Clustering::default() };
            (Groups { clustering, given: Vec::new() }, None)
        }
    };
    drop(others);
    let scale = SearchScale::of(&unit)?;
    let codes = scale.codes(&unit)?;
    let Groups { mut clustering, given } = groups;
    if !weights.is_empty() {
        number_by_rows(&mut clustering, &weights, given.len());
    }
    let are_named =
        settings.id.is_some() && means.before.is_some_and(|before| before.settings.id == settings.id);
    let refit = Refit { ids: &ids, are_named, vectors: &unit, codes: &codes, scale, labels: &[] };
    let Numbered { given, generation, lineage, next_topic } = number(&mut clustering, &given, refit, means)?;

    means.begin("words")?;
    let rows = Described { texts: &texts, shown: &shown, vectors: &unit, weights: &weights };
    let Description { terms, mut topics, outliers, mut taxonomy, mut metrics } =
        describe(rows, &clustering.labels, config, means.embed, None)?;
    name_given(&mut topics, &mut taxonomy, &given);
    let packed = Texts::pack(&texts, &shown)?;
    drop(texts);
    metrics.insert(NEIGHBOUR_RECALL.into(), recall);
    if let Some(stable) = stable {
        metrics.insert("stability".into(), stable);
    }
    if !clustering.persistence.is_empty() {
        let mean = clustering.persistence.iter().sum::<f64>() / clustering.persistence.len() as f64;
        metrics.insert("mean_persistence".into(), mean);
    }

    means.begin("quality")?;
    if let Some(index) = dbcv(positions.as_ref().unwrap_or(&unit), &clustering.labels) {
        metrics.insert("dbcv".into(), index.value);
    }

    means.begin("threshold")?;
    drop(unit);
    let label: LabelConfig = settings.label.clone();
    let assigner = Assigner::try_new(device, &codes, scale, clustering.labels.clone(), label, 0.0)?;
    let threshold = assigner.calibrate(&codes, |row| is_test_row(&ids[row]))?;
    if let Some(coverage) = threshold.coverage {
        metrics.insert("coverage_reached".into(), coverage);
    }

    Ok(Model {
        settings,
        encoder,
        calibration,
        calibration_report,
        scale,
        codes,
        threshold,
        sample: Sample {
            texts: shown,
            dates,
            topics: clustering.labels,
            fitted_topics: Vec::new(),
            probabilities: clustering.probabilities,
            outlier_scores: clustering.outlier_scores,
            positions: positions.unwrap_or_else(|| Matrix::zeros(ids.len(), 0)),
            ids,
            map,
            weights,
        },
        texts: packed,
        next_topic,
        generation,
        lineage,
        topics,
        outliers,
        taxonomy,
        terms,
        tree: clustering.tree,
        metrics,
        bases: Vec::new(),
    })
}

/// Fails where all vectors are zero, and warns where some are: they have no direction, and are like no other.
fn warn_of_zeros(vectors: &Matrix<f32>) -> Result<()> {
    let zeros = vectors.iter_rows().filter(|row| row.iter().all(|value| *value == 0.0)).count();
    let rows = vectors.rows();
    if zeros == rows {
        return Err(Error::Unfit(format!("all {rows} vectors are zero, which says nothing of any text")));
    }
    if zeros > 0 {
        tracing::warn!(
            "{zeros} of {rows} vectors are zero: they are like no other, and may be a topic of their own"
        );
    }
    Ok(())
}

/// What follows from the numbers that topics keep.
struct Numbered {
    /// The names of topics that were given, by number.
    given: BTreeMap<i32, String>,
    generation: u32,
    lineage: Vec<Event>,
    next_topic: i32,
}

/// Gives groups the numbers of the topics that they continue, where there is a model before.
fn number(
    clustering: &mut Clustering,
    given: &[String],
    refit: Refit<'_>,
    means: &Means<'_>,
) -> Result<Numbered> {
    let named = |number: &dyn Fn(i32) -> i32| -> BTreeMap<i32, String> {
        (0i32..).zip(given).map(|(topic, name)| (number(topic), name.clone())).collect()
    };
    let Some(before) = means.before else {
        let next_topic = clustering.labels.iter().max().map_or(0, |last| (last + 1).max(0));
        let given = named(&|topic| topic);
        return Ok(Numbered { given, generation: 0, lineage: Vec::new(), next_topic });
    };
    means.begin("lineage")?;
    let refit = Refit { labels: &clustering.labels, ..refit };
    let Continued { numbers, events, next_topic } = continued(before, refit, means.device)?;
    let number = |topic: i32| numbers.get(&topic).copied().unwrap_or(topic);
    renumber(clustering, &number);
    let lineage = before.lineage.iter().cloned().chain(events).collect();
    Ok(Numbered { given: named(&number), generation: before.generation + 1, lineage, next_topic })
}

/// Numbers the topics behind the `given` ones by how many rows they stand for, most first.
fn number_by_rows(clustering: &mut Clustering, weights: &[u32], given: usize) {
    let mut rows: BTreeMap<i32, u64> = BTreeMap::new();
    for (row, topic) in clustering.labels.iter().enumerate() {
        if usize::try_from(*topic).is_ok_and(|topic| topic >= given) {
            *rows.entry(*topic).or_default() += weight(weights, row);
        }
    }
    let mut order: Vec<i32> = rows.keys().copied().collect();
    order.sort_by_key(|topic| (std::cmp::Reverse(rows[topic]), *topic));
    let numbers: BTreeMap<i32, i32> = order.into_iter().zip(rows.into_keys()).collect();
    renumber(clustering, &|topic| numbers.get(&topic).copied().unwrap_or(topic));
}

/// Gives topics other numbers.
fn renumber(clustering: &mut Clustering, number: &dyn Fn(i32) -> i32) {
    clustering.labels.iter_mut().for_each(|label| *label = number(*label));
    if let Some(tree) = &mut clustering.tree {
        // Clusters by the numbers of their topics.
        let by_number: BTreeMap<i32, u32> =
            (0i32..).zip(&tree.selected).map(|(topic, cluster)| (number(topic), *cluster)).collect();
        tree.selected = by_number.into_values().collect();
    }
}

/// Gives topics that were given their names.
fn name_given(topics: &mut [Topic], taxonomy: &mut Taxonomy, given: &BTreeMap<i32, String>) {
    for topic in topics.iter_mut() {
        if let Some(name) = given.get(&topic.id) {
            topic.name.clone_from(name);
            topic.named_by = NamedBy::User;
        }
    }
    taxonomy.name_after(topics);
}

/// Measures ranges on one half of the rows, and how well they fit the other; nothing where a half has no rows.
fn halves_report(ids: &[String], vectors: &Matrix<f32>) -> Result<Option<CalibrationReport>> {
    let all = 0..ids.len() as u32;
    let (testing, setting): (Vec<u32>, Vec<u32>) = all.partition(|row| is_test_row(&ids[*row as usize]));
    if testing.is_empty() || setting.is_empty() {
        return Ok(None);
    }
    let ranges = Ranges::of(&vectors.gather(&setting))?;
    Ok(Some(CalibrationReport::of(&vectors.gather(&testing), &ranges, Precision::Int8)?))
}

/// Where the rows are clustered (nothing for the embeddings themselves) and where the map shows them.
struct Layouts {
    positions: Option<Matrix<f32>>,
    map: Matrix<f32>,
    /// Where the rows would be clustered under other seeds.
    others: Vec<Matrix<f32>>,
    /// The share of neighbours that was found, the lower of two searches.
    recall: f64,
}

fn lay_out(
    vectors: &Matrix<f32>,
    config: &FitConfig,
    seeds: usize,
    device: &Device,
    observer: &dyn Observer,
) -> Result<Layouts> {
    let reducer = match &config.reducer {
        Reducer::Umap(umap) => Some(umap),
        Reducer::None => None,
    };
    let map_config = map_config(config);
    let lay = |umap: &UmapConfig, graph: &FuzzyGraph, stage: &'static str| -> Result<Matrix<f32>> {
        observer.begin(stage, 0);
        let progress = |done: u32, total: u32| {
            if done == 1 {
                observer.begin(stage, u64::from(total));
            }
            observer.advance(u64::from(done))
        };
        Ok(umap.fit(device, graph, vectors, &progress)?.embedding)
    };
    let neighbours = |umap: &UmapConfig| {
        observer.begin("neighbours", vectors.rows() as u64);
        neighbour_graph(vectors, umap, device, &|done, _| observer.advance(done))
    };
    let (graph, recall) = neighbours(&map_config)?;
    let map = lay(&map_config, &graph, "map layout")?;
    let Some(umap) = reducer else { return Ok(Layouts { positions: None, map, others: Vec::new(), recall }) };
    // Neighbours are searched once where both layouts ask for the same.
    let (graph, recall) = if same_graph(umap, &map_config) {
        (graph, recall)
    } else {
        let (graph, other) = neighbours(umap)?;
        (graph, recall.min(other))
    };
    let positions = Some(lay(umap, &graph, "layout")?);
    let others =
        (umap.seed + 1..).take(seeds).map(|seed| lay(&UmapConfig { seed, ..umap.clone() }, &graph, "layout"));
    Ok(Layouts { positions, map, others: others.collect::<Result<_>>()?, recall })
}

/// The layout of the map.
pub fn map_config(config: &FitConfig) -> UmapConfig {
    let reducer = match &config.reducer {
        Reducer::Umap(umap) => umap.clone(),
        Reducer::None => UmapConfig::default(),
    };
    // As umap-learn draws: points that may not lie upon each other.
    config.map.clone().unwrap_or(UmapConfig { n_components: 2, min_dist: 0.1, ..reducer })
}

/// Whether two configurations make the same neighbour graph.
pub(crate) fn same_graph(a: &UmapConfig, b: &UmapConfig) -> bool {
    (a.n_neighbors, a.metric) == (b.n_neighbors, b.metric)
        && (a.local_connectivity, a.set_op_mix_ratio) == (b.local_connectivity, b.set_op_mix_ratio)
}
