//! The model: all that a fit found, and all that labelling, words and reports need later.

use crate::assign::{Assigner, LabelConfig, Threshold};
use crate::calibration::{Calibration, CalibrationReport};
use crate::clusterers::hdbscan::CondensedTree;
use crate::corpus::Basis;
use crate::encoders::{EncoderOptions, Identity, WeightPrecision};
use crate::endpoint::embeddings::RemoteConfig;
use crate::lineage::Event;
use crate::similarity::Similarity;
use crate::taxonomy::Taxonomy;
use crate::texts::Texts;
use crate::words::TermCounts;
use crate::{Error, Result};
use kernels::search_codes::SearchScale;
use kernels::{Device, Matrix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What it was made with, and what labels new rows the same way.
    pub settings: Settings,
    /// The encoder that made the vectors; absent for precomputed ones.
    pub encoder: Option<Identity>,
    /// Per-dimension ranges of the sample, by which 8-bit embeddings are stored.
    pub calibration: Calibration,
    /// How well ranges measured on one half of the sample fit the other half; absent for a sample too small to halve.
    pub calibration_report: Option<CalibrationReport>,
    /// The scale of the search codes.
    pub scale: SearchScale,
    /// sample rows × dimensions: the search codes that new rows are compared with.
    pub codes: Matrix<i8>,
    /// Below which score a row is an outlier.
    pub threshold: Threshold,
    /// The sample's rows.
    pub sample: Sample,
    /// The texts that words are counted in.
    pub texts: Texts,
    /// The topics by rising id; outliers are none.
    pub topics: Vec<Topic>,
    /// How many rows are no topic's, counted as in [`Topic::size`].
    pub outliers: u64,
    /// The topics under classes; without nodes where there is none.
    pub taxonomy: Taxonomy,
    /// The id of the next new topic: above all that there ever were, so that none is given twice.
    pub next_topic: i32,
    /// How many refits and changes it has behind it.
    pub generation: u32,
    /// What became of topics in these, in their order.
    pub lineage: Vec<Event>,
    /// How often each term occurs in each topic (−1: the outliers).
    pub terms: TermCounts,
    /// The condensed tree; absent where the clusterer has none.
    pub tree: Option<CondensedTree>,
    /// Numbers that say how good the model is, by name.
    pub metrics: BTreeMap<String, f64>,
    /// The versions before whose sums go on, with what became of their topics.
    pub bases: Vec<Basis>,
}

/// What a model was made with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where vectors come from.
    pub encoder: EncoderConfig,
    /// The template of the text that is embedded; absent for precomputed vectors without words.
    pub text: Option<String>,
    /// The template of the text that is shown; absent: the text that is embedded.
    pub show: Option<String>,
    /// The column that names a row.
    pub id: Option<String>,
    /// The column that dates a row.
    pub date: Option<String>,
    /// How new rows are labelled.
    pub label: LabelConfig,
    /// The fit's own settings, for people to read and for a refit.
    pub fit: serde_json::Value,
    /// Where its rows came from.
    pub source: Option<String>,
    /// How its report looks, for the program that draws it.
    pub report: serde_json::Value,
}

/// Where vectors come from: an encoder on this machine or behind an endpoint, or a column that holds them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderConfig {
    /// The folder of a sentence-transformers model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The name of a model (`sentence-transformers/all-MiniLM-L6-v2`), looked up in the caches, then on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A column of precomputed vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// A model behind an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Box<RemoteConfig>>,
    /// The longest text in tokens. Absent: what the model says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Keeps the first dimensions only. Absent: what the model says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate_dim: Option<usize>,
    /// The name of one of the model's prompts. Absent: its default prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// In which numbers the encoder computes: float32 or int8 (several times faster) on a processor, float16, bfloat16
    /// or float8 (H100, H200) on a GPU. Absent: float32, float16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightPrecision>,
}

impl EncoderConfig {
    /// Checks that exactly one place is named.
    pub fn check(&self) -> Result<()> {
        let places = [&self.path, &self.name, &self.column];
        let local = places.iter().filter(|place| place.is_some()).count();
        match (local, &self.remote) {
            (1, None) => Ok(()),
            (0, Some(remote)) => {
                let others = [
                    ("max_length", self.max_length.is_some()),
                    ("truncate_dim", self.truncate_dim.is_some()),
                    ("prompt", self.prompt.is_some()),
                    ("weights", self.weights.is_some()),
                ];
                if let Some((key, _)) = others.into_iter().find(|(_, is_set)| *is_set) {
                    let reason = "is for an encoder on this machine; remote has dimensions and max_characters, and a prompt \
                                  stands in the text's template";
                    return Err(Error::setting(format!("encoder.{key}"), reason));
                }
                remote.check("encoder.remote")
            }
            (0, None) => Err(Error::setting("encoder", "names none of path, name, column and remote")),
            _ => Err(Error::setting("encoder", "names more than one of path, name, column and remote")),
        }
    }

    /// The options of a model on this machine.
    pub fn options(&self) -> EncoderOptions {
        EncoderOptions {
            max_length: self.max_length,
            truncate_dim: self.truncate_dim,
            prompt: self.prompt.clone(),
            weights: self.weights,
        }
    }
}

/// The rows a model was fitted on; all vectors have one value a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The rows' names: the id column's values, or the row numbers.
    pub ids: Vec<String>,
    /// The texts that are shown.
    pub texts: Vec<String>,
    /// Days since 1970; empty without a date column.
    pub dates: Vec<Option<i32>>,
    /// The topic of each row, −1 for an outlier.
    pub topics: Vec<i32>,
    /// The topic of each row as it was fitted; empty where none has changed since.
    pub fitted_topics: Vec<i32>,
    /// How strongly each row belongs to its topic.
    pub probabilities: Vec<f32>,
    /// How much each row stands apart; empty where the clusterer has no such score.
    pub outlier_scores: Vec<f32>,
    /// rows × n: where the rows were clustered; no columns if that was on the embeddings themselves.
    pub positions: Matrix<f32>,
    /// rows × 2: where the map shows them.
    pub map: Matrix<f32>,
    /// How many rows each stands for, itself and its near duplicates; empty where none has any.
    pub weights: Vec<u32>,
}

impl Sample {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many rows they stand for.
    pub fn rows(&self) -> u64 {
        (0..self.len()).map(|row| weight(&self.weights, row)).sum()
    }
}

/// How many rows a row stands for, by the weights of all; where there are none, for itself.
pub(crate) fn weight(weights: &[u32], row: usize) -> u64 {
    weights.get(row).copied().map_or(1, u64::from)
}

/// What rows of no topic are called.
pub const OUTLIER_NAME: &str = "outlier";

/// What gave a topic its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NamedBy {
    /// The topic's words.
    #[default]
    Words,
    /// The user, who gave the topic.
    User,
    /// The language model of that name.
    Llm(String),
}

/// What stands before a language model's name in [`NamedBy`]'s text.
const LLM: &str = "llm:";

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words => f.write_str("words"),
            Self::User => f.write_str("user"),
            Self::Llm(model) => write!(f, "{LLM}{model}"),
        }
    }
}

impl FromStr for NamedBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix(LLM)) {
            ("words", _) => Ok(Self::Words),
            ("user", _) => Ok(Self::User),
            (_, Some(model)) => Ok(Self::Llm(model.into())),
            _ => Err(Error::setting(
                "named_by",
                format!("unknown \"{text}\", expected words, user or llm:MODEL"),
            )),
        }
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// Its number. A fit gives 0 to the largest; later changes keep numbers and give new ones.
    pub id: i32,
    /// What people call it.
    pub name: String,
    /// What gave it its name.
    pub named_by: NamedBy,
    /// Its educational score, 1 to 10, where a language model was asked for one.
    pub rating: Option<u8>,
    /// Rows in it: of the sample, each as often as it stands for others, or of a corpus that was counted since.
    pub size: u64,
    /// Its words, best first, with their c-TF-IDF weights.
    pub words: Vec<(String, f32)>,
    /// Rows of the sample that stand for it, best first.
    pub representatives: Vec<u64>,
    /// The mean of its rows' vectors.
    pub centroid: Vec<f32>,
}

impl Topic {
    /// Takes the name of another topic, and what goes with it.
    pub(crate) fn take_name(&mut self, other: &Self) {
        self.name.clone_from(&other.name);
        self.named_by.clone_from(&other.named_by);
        self.rating = other.rating;
    }
}

impl Model {
    /// The topic with the number `id`.
    pub fn topic(&self, id: i32) -> Option<&Topic> {
        self.topics.binary_search_by_key(&id, |topic| topic.id).ok().map(|place| &self.topics[place])
    }

    /// How many rows its topics and its outliers have: more than its sample stands for where a corpus was counted.
    pub fn rows(&self) -> u64 {
        self.outliers + self.topics.iter().map(|topic| topic.size).sum::<u64>()
    }

    /// The share of its rows that are no topic's.
    pub fn outlier_share(&self) -> f64 {
        self.outliers as f64 / self.rows().max(1) as f64
    }

    /// Whether words and sizes are of more rows than those of its sample.
    pub fn is_counted(&self) -> bool {
        self.rows() != self.sample.rows()
    }

    /// Makes what labels new rows by this model.
    pub fn assigner(&self, config: LabelConfig, device: &Device) -> Result<Assigner> {
        let topics = self.sample.topics.clone();
        Assigner::try_new(device, &self.codes, self.scale, topics, config, self.threshold.score)
    }

    /// The threshold that `config` asks for: the stored one, or a new one where its settings differ from the fit's.
    pub fn threshold_for(&self, config: &LabelConfig, device: &Device) -> Result<Threshold> {
        // How many topics are listed changes no score.
        let listed = self.settings.label.top_topics;
        if (LabelConfig { top_topics: listed, ..config.clone() }) == self.settings.label {
            return Ok(self.threshold);
        }
        let ids = &self.sample.ids;
        self.assigner(config.clone(), device)?.calibrate(&self.codes, |row| is_test_row(&ids[row]))
    }
}

/// The mean vectors of topics: topics × dimensions.
pub(crate) fn centroids<'t>(topics: impl IntoIterator<Item = &'t Topic>) -> Result<Matrix<f32>> {
    let (mut rows, mut values) = (0, Vec::new());
    for topic in topics {
        values.extend_from_slice(&topic.centroid);
        rows += 1;
    }
    let dim = values.len().checked_div(rows).unwrap_or(0);
    Ok(Matrix::try_from_vec(rows, dim, values)?)
}

/// The cosines of topics' mean vectors to each other: topics × topics, row after row.
pub(crate) fn centroid_cosines(topics: &[Topic]) -> Result<Vec<f64>> {
    let centroids = centroids(topics)?;
    let cosines = Similarity::Cosine.between(&centroids, &centroids)?;
    Ok(cosines.as_slice().iter().map(|cosine| f64::from(*cosine)).collect())
}

/// Whether the row named `id` tests a threshold or ranges rather than setting them: one half of all rows, by hash.
pub fn is_test_row(id: &str) -> bool {
    xxhash_rust::xxh3::xxh3_64_with_seed(id.as_bytes(), HALVES_SEED) & 1 == 1
}

/// Any constant unlike the seeds that choose samples, so that the halves do not follow the sample's order.
const HALVES_SEED: u64 = 0x7e57_0f7e_57ed;
