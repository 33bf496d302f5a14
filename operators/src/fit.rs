//! The fit: from a sample's texts and vectors to a model.
//!
//! Neighbours, layout, clusters, words, names, numbers that judge them, codes and threshold, each by its own module;
//! this file is their order. Runs on one machine; the same sample and seed give the same model at any thread count.

use crate::assign::{Assigner, LabelConfig};
use crate::calibration::{Calibration, CalibrationReport};
use crate::clusterers::{ClustererConfig, Clustering};
use crate::encoders::Identity;
use crate::evaluate::{self, CoherenceConfig};
use crate::labellers::{LabellerConfig, TopicName, keyword_names};
use crate::model::{Model, Sample, Settings, Topic, is_test_row};
use crate::quantize::Precision;
use crate::reducers::{FuzzyGraph, Reducer, UmapConfig, neighbour_graph};
use crate::sample::Selection;
use crate::words::{Ctfidf, TermCounts, Tokens, TopicWords, WordsConfig, representatives};
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
    /// What brings the vectors down to the dimensions that are clustered.
    pub reducer: Reducer,
    /// The layout of the map. By default as the reducer's, in 2 dimensions, with `min_dist` 0.1, which looks better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<UmapConfig>,
    /// What groups the points.
    pub clusterer: ClustererConfig,
    /// How topic words are found.
    pub words: WordsConfig,
    /// Texts that stand for each topic. 3, as in BERTopic.
    pub representatives: usize,
    /// What names topics.
    pub labeller: LabellerConfig,
}

/// Words of a topic that its name is chosen from, as BERTopic gives its representation models.
const NAMING_WORDS: usize = 30;

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            sample: Selection::Hash { rows: 200_000, seed: 0 },
            reducer: Reducer::default(),
            map: None,
            clusterer: ClustererConfig::default(),
            words: WordsConfig::default(),
            representatives: 3,
            labeller: LabellerConfig::default(),
        }
    }
}

impl FitConfig {
    /// Checks every setting that no data is needed for.
    pub fn check(&self) -> Result<()> {
        self.sample.check()?;
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
        self.words.vocabulary.check()
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
}

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

/// Fits a model to `rows`.
///
/// # Errors
/// `Unfit` where no model can be: no rows, fewer than the smallest cluster, vectors that are no numbers; `Setting`
/// for one out of range; `Stopped` if `observer` breaks.
pub fn fit(
    rows: Rows,
    settings: Settings,
    encoder: Option<Identity>,
    config: &FitConfig,
    device: &Device,
    observer: &dyn Observer,
) -> Result<Model> {
    let begin = |stage| -> Result<()> {
        observer.begin(stage, 0);
        if observer.advance(0).is_break() { Err(Error::Stopped("the fit")) } else { Ok(()) }
    };
    if rows.vectors.rows() == 0 {
        return Err(Error::Unfit("the sample has no rows".into()));
    }
    config.check()?;
    settings.label.check()?;
    rows.vectors.check_finite()?;
    let Rows { ids, texts, shown, dates, mut vectors } = rows;

    // The vectors are the largest thing here: what their lengths matter to comes first, so that they can then be scaled
    // in place.
    let mut calibration = Calibration::new();
    calibration.observe(&vectors)?;
    let calibration_report = halves_report(&ids, &vectors)?;
    let Layouts { positions, map } = lay_out(&vectors, config, device, observer)?;
    begin("clusters")?;
    scale_to_unit(&mut vectors);
    let unit = vectors;
    let clusterer = config.clusterer.build()?;
    let clustering = clusterer.fit(positions.as_ref().unwrap_or(&unit), device, &|| observer.advance(0))?;

    begin("words")?;
    let tokens = Tokens::read(&texts, &config.words.vocabulary)?;
    let terms = TermCounts::count(&tokens, &clustering.labels, &config.words.vocabulary)?;
    let weights = Ctfidf::fit(&terms, &config.words.ctfidf)?;
    let words: Vec<TopicWords> = weights.words(&terms, config.words.ctfidf.top_n_words);
    let representing =
        representatives(&shown, &tokens, &clustering.labels, &terms, &weights, config.representatives)?;
    let LabellerConfig::Keywords(naming) = &config.labeller;
    let candidates = weights.words(&terms, config.words.ctfidf.top_n_words.max(NAMING_WORDS));
    let names = keyword_names(&candidates, &texts, &clustering.labels, &config.words.vocabulary, naming)?;
    let topics = topics(&unit, &clustering, words, names, representing);

    begin("quality")?;
    let mut metrics = metrics(&tokens, &clustering, &topics)?;
    drop((texts, tokens));

    begin("threshold")?;
    let scale = SearchScale::of(&unit)?;
    let codes = scale.codes(&unit)?;
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
            probabilities: clustering.probabilities,
            outlier_scores: clustering.outlier_scores,
            positions: positions.unwrap_or_else(|| Matrix::zeros(ids.len(), 0)),
            ids,
            map,
        },
        topics,
        terms,
        tree: clustering.tree,
        metrics,
    })
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
}

fn lay_out(
    vectors: &Matrix<f32>,
    config: &FitConfig,
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
    let graph = neighbours(&map_config)?;
    let map = lay(&map_config, &graph, "map layout")?;
    let positions = match reducer {
        None => None,
        // Neighbours are searched once where both layouts ask for the same.
        Some(umap) if same_graph(umap, &map_config) => Some(lay(umap, &graph, "layout")?),
        Some(umap) => Some(lay(umap, &neighbours(umap)?, "layout")?),
    };
    Ok(Layouts { positions, map })
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

fn topics(
    unit: &Matrix<f32>,
    clustering: &Clustering,
    words: Vec<TopicWords>,
    names: Vec<TopicName>,
    representing: Vec<crate::words::TopicRepresentatives>,
) -> Vec<Topic> {
    let dim = unit.cols();
    let count = clustering.clusters();
    let mut sums = vec![0f64; count * dim];
    let mut sizes = vec![0u64; count];
    for (row, &label) in unit.iter_rows().zip(&clustering.labels) {
        let Ok(topic) = usize::try_from(label) else { continue };
        sizes[topic] += 1;
        for (sum, v) in sums[topic * dim..(topic + 1) * dim].iter_mut().zip(row) {
            *sum += f64::from(*v);
        }
    }
    let mut names: BTreeMap<i32, String> = names.into_iter().map(|n| (n.topic, n.name)).collect();
    let mut words: BTreeMap<i32, Vec<(String, f32)>> =
        words.into_iter().map(|w| (w.topic, w.words)).collect();
    let mut representing: BTreeMap<i32, Vec<u64>> = representing
        .into_iter()
        .map(|r| (r.topic, r.documents.iter().map(|d| d.row as u64).collect()))
        .collect();
    (0..count)
        .map(|topic| {
            let id = topic as i32;
            Topic {
                id,
                name: names.remove(&id).unwrap_or_else(|| format!("topic {id}")),
                size: sizes[topic],
                words: words.remove(&id).unwrap_or_default(),
                representatives: representing.remove(&id).unwrap_or_default(),
                centroid: sums[topic * dim..(topic + 1) * dim]
                    .iter()
                    .map(|sum| (sum / sizes[topic].max(1) as f64) as f32)
                    .collect(),
            }
        })
        .collect()
}

/// What judges a model without knowing the truth.
fn metrics(tokens: &Tokens, clustering: &Clustering, topics: &[Topic]) -> Result<BTreeMap<String, f64>> {
    let mut metrics = BTreeMap::new();
    let outliers = clustering.labels.iter().filter(|l| **l < 0).count();
    metrics.insert("outlier_share".into(), outliers as f64 / clustering.labels.len() as f64);
    let words: Vec<Vec<&str>> =
        topics.iter().map(|t| t.words.iter().map(|w| w.0.as_str()).collect()).collect();
    if !words.is_empty() {
        let coherence = evaluate::npmi(tokens, &words, &CoherenceConfig::default())?;
        if let Some(npmi) = coherence.mean {
            metrics.insert("npmi".into(), npmi);
        }
    }
    if let Some(diversity) = evaluate::topic_diversity(&words, 10) {
        metrics.insert("topic_diversity".into(), diversity);
    }
    if !clustering.persistence.is_empty() {
        let mean = clustering.persistence.iter().sum::<f64>() / clustering.persistence.len() as f64;
        metrics.insert("mean_persistence".into(), mean);
    }
    Ok(metrics)
}
