//! Topics that emerge among the outliers of a stream.
//!
//! One idea: outliers of a stream are clustered together with rows of the sample, as the sample was; a cluster is news only
//! where it has many more outliers than the sample lets expect. `lift` is the number of outliers in it over the number of
//! rows that as long a stretch of the sample has in it (one, if it has none). So what the fit left out and comes as often
//! as ever is no news, and neither is the edge of a topic.

use crate::clusterers::ClustererConfig;
use crate::duplicates::DuplicatesConfig;
use crate::fit::{FitConfig, Means, Rows, fit};
use crate::labellers::LabellerConfig;
use crate::model::{Model, Settings};
use crate::sample::Selection;
use crate::text::cut;
use crate::{Result, monitor::MonitorConfig};
use kernels::norm::{dot, scale_to_unit};
use kernels::{Device, Isa, Matrix};
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

/// Examples that are told.
const EXAMPLES: usize = 5;

/// Words that are told.
const WORDS: usize = 10;

/// The longest part of an example that is told, in characters.
const EXAMPLE_CHARS: usize = 200;

/// From which cosine of their centroids on two emerging topics are one.
const SAME: f32 = 0.9;

/// Outliers that have something in common, where the sample has little.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Emerging {
    /// A name, made of its words.
    pub name: String,
    /// Its words, best first.
    pub words: Vec<String>,
    /// Outliers in it.
    pub rows: usize,
    /// How many times as many as the sample lets expect.
    pub lift: f64,
    /// Texts that stand for it.
    pub examples: Vec<String>,
    /// The names of the rows that these are of, where rows have names.
    pub ids: Vec<String>,
    /// The model whose outliers they are.
    pub model_version: String,
    /// The mean of its vectors, of length 1.
    #[serde(skip)]
    pub centroid: Vec<f32>,
}

impl fmt::Display for Emerging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rows, lift, .. } = self;
        write!(
            f,
            "an emerging topic among the outliers: {name} ({rows} rows, {lift:.1} times as many as expected)"
        )?;
        match self.examples.first() {
            Some(example) => write!(f, ", such as \"{example}\""),
            None => Ok(()),
        }
    }
}

/// An outlier.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) vector: Vec<f32>,
    pub(super) text: String,
    pub(super) id: String,
}

/// The last outliers of a stream.
pub(super) struct Reservoir {
    most: usize,
    /// Each with how many rows had been streamed when it came.
    rows: VecDeque<(u64, Row)>,
    streamed: u64,
    /// How many came since the last look.
    new: usize,
    /// The centroids of what was told already.
    known: Vec<Vec<f32>>,
}

impl Reservoir {
    pub(super) fn new(most: usize) -> Self {
        Self { most, rows: VecDeque::new(), streamed: 0, new: 0, known: Vec::new() }
    }

    /// Takes the outliers of `streamed` rows; the oldest make room.
    pub(super) fn add(&mut self, streamed: usize, outliers: Vec<Row>) {
        self.new += outliers.len();
        let at = self.streamed;
        self.rows.extend(outliers.into_iter().map(|row| (at, row)));
        self.streamed += streamed as u64;
        while self.rows.len() > self.most {
            self.rows.pop_front();
        }
    }

    /// Whether there are enough, and enough new ones, to look for topics of `min_rows`.
    pub(super) fn is_worth_a_look(&self, min_rows: usize) -> bool {
        self.rows.len() >= 4 * min_rows && self.new >= (self.rows.len() / 5).max(min_rows)
    }

    /// All of them, and how many rows were streamed since the oldest came.
    pub(super) fn look(&mut self) -> (Vec<Row>, u64) {
        self.new = 0;
        let since = self.rows.front().map_or(0, |(at, _)| self.streamed - at);
        (self.rows.iter().map(|(_, row)| row.clone()).collect(), since)
    }

    /// What was told already.
    pub(super) fn known(&self) -> &[Vec<f32>] {
        &self.known
    }

    /// Notes what is told.
    pub(super) fn know(&mut self, centroid: Vec<f32>) {
        self.known.push(centroid);
    }
}

/// Finds topics among `rows`, which are the outliers of `streamed` rows, beside those that are `known`.
pub(super) fn find(
    model: &Model,
    rows: Vec<Row>,
    streamed: u64,
    known: &[Vec<f32>],
    config: &MonitorConfig,
    device: &Device,
) -> Result<Vec<Emerging>> {
    let (outliers, dim) = (rows.len(), model.codes.cols());
    // Every so many rows of the sample, no more than there are outliers.
    let step = model.codes.rows().div_ceil(outliers.max(1)).max(1);
    let taken: Vec<u32> = (0..model.codes.rows() as u32).step_by(step).collect();
    let sample = model.scale.vectors(&model.codes.gather(&taken));
    let (mut values, mut texts, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for Row { vector, text, id } in rows {
        values.extend(vector);
        texts.push(text);
        ids.push(id);
    }
    values.extend(sample.as_slice());
    texts.extend(taken.iter().map(|&row| model.sample.texts[row as usize].clone()));
    let count = texts.len();
    let vectors = Matrix::try_from_vec(count, dim, values)?;
    let names = (0..count).map(|row| row.to_string()).collect();
    let (shown, dates, weights) = (texts.clone(), Vec::new(), Vec::new());
    let fitted = Rows { ids: names, texts: texts.clone(), shown, dates, vectors, weights };
    let settings = Settings { label: model.settings.label.clone(), ..Settings::default() };
    let found = fit(fitted, settings, None, &settings_of(model, config)?, &Means::only(device))?;
    // Rows of the stream that a taken row of the sample stands for.
    let stretch = streamed as f64 / taken.len().max(1) as f64;
    let (isa, mut all) = (Isa::detect(), Vec::new());
    for topic in &found.topics {
        let mut centroid = Matrix::try_from_vec(1, dim, topic.centroid.clone())?;
        scale_to_unit(&mut centroid);
        let centroid = centroid.row(0).to_vec();
        if known.iter().any(|known| dot(isa, known, &centroid) >= SAME) {
            continue;
        }
        let members = |rows: Range<usize>| rows.filter(|&row| found.sample.topics[row] == topic.id).count();
        let (new, old) = (members(0..outliers), members(outliers..count));
        let lift = new as f64 / (old as f64 * stretch).max(1.0);
        if new < config.min_rows || lift < config.lift {
            continue;
        }
        let best = topic.representatives.iter().filter_map(|row| usize::try_from(*row).ok());
        let best: Vec<usize> = best.filter(|&row| row < outliers).take(EXAMPLES).collect();
        let examples: Vec<String> = best
            .iter()
            .map(|&row| cut(&texts[row], EXAMPLE_CHARS).to_string())
            .filter(|text| !text.is_empty())
            .collect();
        let words: Vec<String> = topic.words.iter().take(WORDS).map(|(word, _)| word.clone()).collect();
        all.push(Emerging {
            name: topic.name.clone(),
            words,
            rows: new,
            lift,
            examples,
            ids: best.iter().map(|&row| ids[row].clone()).filter(|id| !id.is_empty()).collect(),
            model_version: String::new(),
            centroid,
        });
    }
    Ok(all)
}

/// The settings by which outliers are clustered: the model's own, for topics of another size, and with nothing that asks
/// an encoder or a language model.
fn settings_of(model: &Model, config: &MonitorConfig) -> Result<FitConfig> {
    let own = FitConfig::of(model)?;
    let clusterer = match own.clusterer {
        ClustererConfig::Hdbscan(hdbscan) => {
            ClustererConfig::Hdbscan(crate::clusterers::hdbscan::HdbscanConfig {
                min_cluster_size: config.min_rows,
                min_samples: None,
                max_cluster_size: None,
                ..hdbscan
            })
        }
        // Others put every row into a cluster, or know a distance that is the sample's.
        _ => FitConfig::default().clusterer,
    };
    Ok(FitConfig {
        sample: Selection::All,
        // Rows are told apart by their places; and many who say the same are a topic that emerges.
        duplicates: DuplicatesConfig { collapse: false, ..own.duplicates },
        reducer: own.reducer,
        clusterer,
        stability_seeds: 0,
        words: crate::words::WordsConfig { then: Vec::new(), ..own.words },
        representatives: EXAMPLES,
        labeller: LabellerConfig::default(),
        ..FitConfig::default()
    })
}
