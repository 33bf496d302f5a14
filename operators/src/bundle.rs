//! The model bundle: a model as named parts in open formats, and back, bit for bit.
//!
//! One idea: a bundle is bytes by name, and a manifest that holds the sha256 of each; where the bytes lie (a folder,
//! an object store) is not known here. The manifest is written last, so a bundle without one does not exist.
//!
//! | part | holds |
//! |---|---|
//! | `model.json` | the manifest: format, settings, encoder, threshold, metrics, counts, the sha256 of each part |
//! | `codes.safetensors` | `codes`, i8 of rows × dim; `scale`, one f32 |
//! | `calibration.safetensors` | per-dimension ranges of the sample |
//! | `sample.parquet` | id, text (as shown), date, topic, topic_original, probability, outlier_score, position, x, y |
//! | `texts.parquet` | text: what words are counted in; absent where it is what is shown |
//! | `topics.parquet` | topic, name, named_by, rating, size, words, weights, representatives, centroid; cluster, its number in the tree |
//! | `taxonomy.json` | the taxonomy: see [`crate::taxonomy::Taxonomy`] |
//! | `lineage.json` | what became of topics in refits and changes: see [`crate::lineage::Event`] |
//! | `terms.parquet` | topic, term, count |
//! | `tree.parquet` | parent, child, lambda, child_size; absent where the clusterer has no tree |

use crate::assign::Threshold;
use crate::calibration::{Calibration, CalibrationReport};
use crate::clusterers::hdbscan::CondensedTree;
use crate::corpus::Basis;
use crate::encoders::Identity;
use crate::lineage::Event;
use crate::model::{Model, Sample, Settings, Topic};
use crate::taxonomy::{Scheme, Taxonomy};
use crate::texts::{PackedTexts, Texts};
use crate::words::TermCounts;
use crate::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, FixedSizeListArray, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, ListBuilder, PrimitiveArray, RecordBatch, StringArray, StringBuilder, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, Float32Type, Float64Type, Int32Type, Int64Type,
    UInt32Type,
};
use kernels::Matrix;
use kernels::search_codes::SearchScale;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The version of this format; a reader refuses any other.
pub const FORMAT: u32 = 4;

/// The manifest's name.
pub const MANIFEST: &str = "model.json";

const CODES: &str = "codes.safetensors";
const CALIBRATION: &str = "calibration.safetensors";
const SAMPLE: &str = "sample.parquet";
const TEXTS: &str = "texts.parquet";
const TOPICS: &str = "topics.parquet";
const TAXONOMY: &str = "taxonomy.json";
const LINEAGE: &str = "lineage.json";
const TERMS: &str = "terms.parquet";
const TREE: &str = "tree.parquet";

/// A part's name and bytes.
pub type Part = (&'static str, Vec<u8>);

/// What `model.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version.
    pub format: u32,
    /// The program that wrote it.
    pub written_by: String,
    /// What the model was made with.
    pub settings: Settings,
    /// The encoder.
    pub encoder: Option<Identity>,
    /// The rejection threshold.
    pub threshold: Threshold,
    /// How well the ranges of one half of the sample fit the other.
    pub calibration_report: Option<CalibrationReport>,
    /// Rows, topics and dimensions.
    pub counts: BTreeMap<String, u64>,
    /// The id of the next new topic.
    pub next_topic: i32,
    /// How many refits and changes it has behind it.
    pub generation: u32,
    /// Numbers that say how good the model is.
    pub metrics: BTreeMap<String, f64>,
    /// The versions before whose sums go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<Basis>,
    /// The sha256 of each part.
    pub parts: BTreeMap<String, String>,
}

/// How much of a model is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    All,
    /// What labels rows and shows topics: all but the texts that words are counted in, which are large.
    Labelling,
}

impl Wanted {
    /// The names of the parts to read.
    pub fn parts(self, manifest: &Manifest) -> impl Iterator<Item = &str> {
        manifest.parts.keys().map(String::as_str).filter(move |name| self == Self::All || *name != TEXTS)
    }
}

/// How many rows are no topic's, in [`Manifest::counts`].
const OUTLIERS: &str = "outliers";

/// Turns a model into its parts; the manifest comes last.
pub fn encode(model: &Model) -> Result<Vec<Part>> {
    let mut parts = vec![
        (CODES, codes_part(model)?),
        (CALIBRATION, model.calibration.to_bytes()?),
        (SAMPLE, table(sample_batch(&model.sample)?)?),
        (TOPICS, table(topics_batch(&model.topics, model.tree.as_ref())?)?),
        (TAXONOMY, Scheme::Json.write(&model.taxonomy)?.into_bytes()),
        (LINEAGE, lineage_part(&model.lineage)?),
        (TERMS, table(terms_batch(&model.terms)?)?),
    ];
    match &model.texts {
        Texts::Shown => {}
        Texts::Packed(packed) => parts.push((TEXTS, packed.bytes().to_vec())),
        Texts::Left => {
            return Err(Error::Internal("a model read without its texts cannot be written".into()));
        }
    }
    if let Some(tree) = &model.tree {
        parts.push((TREE, table(tree_batch(tree)?)?));
    }
    let manifest = Manifest {
        format: FORMAT,
        written_by: concat!("thema ", env!("CARGO_PKG_VERSION")).into(),
        settings: model.settings.clone(),
        encoder: model.encoder.clone(),
        threshold: model.threshold,
        calibration_report: model.calibration_report.clone(),
        counts: [
            ("rows", model.sample.len() as u64),
            ("topics", model.topics.len() as u64),
            ("dimensions", model.codes.cols() as u64),
            (OUTLIERS, model.outliers),
        ]
        .map(|(name, n)| (name.into(), n))
        .into(),
        next_topic: model.next_topic,
        generation: model.generation,
        metrics: model.metrics.clone(),
        bases: model.bases.clone(),
        parts: parts.iter().map(|(name, bytes)| ((*name).into(), sha256(bytes))).collect(),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::Internal(format!("manifest: {e}")))?;
    parts.push((MANIFEST, text));
    Ok(parts)
}

/// A hash of all that a model holds: equal models have one, different ones others.
pub(crate) fn content_hash(model: &Model) -> Result<String> {
    let parts = encode(model)?;
    parts
        .last()
        .map(|(_, manifest)| sha256(manifest))
        .ok_or_else(|| Error::Internal("a bundle without parts".into()))
}

/// Reads a manifest; `path` names it in errors.
///
/// # Errors
/// `Model`: no JSON, another format version, or a key that is missing.
pub fn manifest(path: &Path, bytes: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let broken = |e: serde_json::Error| Error::model(path, format!("cannot be read as a manifest: {e}"));
    // The version first: what follows may look different in another one.
    let version: Version = serde_json::from_slice(bytes).map_err(broken)?;
    if version.format != FORMAT {
        return Err(Error::model(
            path,
            format!("is of format {}, but this version of thema reads format {FORMAT}", version.format),
        ));
    }
    serde_json::from_slice(bytes).map_err(broken)
}

/// Makes the model of a manifest whose parts lie at `folder` and are given by `part`; without the texts that words are
/// counted in where `wanted` leaves them.
///
/// # Errors
/// `Model`, naming the part: one that is missing, has another sha256, or does not hold what it should.
pub fn decode(
    folder: &Path,
    manifest: &Manifest,
    wanted: Wanted,
    part: impl Fn(&str) -> Result<Vec<u8>>,
) -> Result<Model> {
    let checked = |name: &str| -> Result<Vec<u8>> {
        let Some(expected) = manifest.parts.get(name) else {
            return Err(Error::model(folder.join(MANIFEST), format!("names no part {name}")));
        };
        let bytes = part(name)?;
        let found = sha256(&bytes);
        if found != *expected {
            return Err(Error::model(
                folder.join(name),
                format!("has sha256 {found}, but the manifest says {expected}: it was changed or damaged"),
            ));
        }
        Ok(bytes)
    };
    let read = |name: &str| -> Result<Table> { Table::read(folder.join(name).as_path(), checked(name)?) };

    let (codes, scale) = read_codes(&folder.join(CODES), &checked(CODES)?)?;
    let topics = read(TOPICS)?;
    let terms = read(TERMS)?;
    let term_topics = terms.primitive::<Int32Type>("topic")?.values().to_vec();
    let counts = terms.primitive::<Int64Type>("count")?;
    let names = terms.strings("term")?;
    let sample = read_sample(&read(SAMPLE)?)?;
    let texts = match (manifest.parts.contains_key(TEXTS), wanted) {
        (false, _) => Texts::Shown,
        (true, Wanted::Labelling) => Texts::Left,
        (true, Wanted::All) => {
            Texts::Packed(PackedTexts::from_bytes(&folder.join(TEXTS), checked(TEXTS)?, sample.len())?)
        }
    };
    // Models of old versions have counted their samples' rows only.
    let in_sample = sample.topics.iter().filter(|topic| **topic < 0).count() as u64;
    let model = Model {
        outliers: manifest.counts.get(OUTLIERS).copied().unwrap_or(in_sample),
        settings: manifest.settings.clone(),
        encoder: manifest.encoder.clone(),
        calibration: Calibration::from_bytes(&folder.join(CALIBRATION), &checked(CALIBRATION)?)?,
        calibration_report: manifest.calibration_report.clone(),
        scale,
        codes,
        threshold: manifest.threshold,
        sample,
        texts,
        topics: read_topics(&topics)?,
        taxonomy: read_taxonomy(&folder.join(TAXONOMY), &checked(TAXONOMY)?)?,
        next_topic: manifest.next_topic,
        generation: manifest.generation,
        lineage: read_lineage(&folder.join(LINEAGE), &checked(LINEAGE)?)?,
        terms: TermCounts::try_from_rows(
            &distinct(&term_topics),
            // A topic without terms is a row with a null term.
            (0..names.len())
                .filter(|i| names.is_valid(*i))
                .map(|i| (term_topics[i], names.value(i), counts.value(i) as u64)),
        )?,
        tree: match manifest.parts.contains_key(TREE) {
            true => Some(read_tree(&read(TREE)?, &topics)?),
            false => None,
        },
        metrics: manifest.metrics.clone(),
        bases: manifest.bases.clone(),
    };
    if model.codes.rows() != model.sample.len() {
        return Err(Error::model(
            folder,
            format!("{CODES} has {} rows, {SAMPLE} {}", model.codes.rows(), model.sample.len()),
        ));
    }
    Ok(model)
}

fn read_taxonomy(path: &Path, bytes: &[u8]) -> Result<Taxonomy> {
    let text = std::str::from_utf8(bytes).map_err(|e| Error::model(path, e.to_string()))?;
    Scheme::Json.read(TAXONOMY, text).map_err(|e| Error::model(path, e.to_string()))
}

fn lineage_part(events: &[Event]) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(events).map_err(|e| Error::Internal(format!("{LINEAGE}: {e}")))
}

fn read_lineage(path: &Path, bytes: &[u8]) -> Result<Vec<Event>> {
    serde_json::from_slice(bytes).map_err(|e| Error::model(path, format!("cannot be read as events: {e}")))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A hash as people write it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The values of a sorted column without repetitions.
fn distinct(sorted: &[i32]) -> Vec<i32> {
    let mut values = sorted.to_vec();
    values.dedup();
    values
}

fn codes_part(model: &Model) -> Result<Vec<u8>> {
    let shape = vec![model.codes.rows(), model.codes.cols()];
    let scale = model.scale.get().to_le_bytes();
    let broken = |e| Error::Internal(format!("{CODES}: {e}"));
    let views = [
        (
            "codes",
            TensorView::new(Dtype::I8, shape, bytemuck::cast_slice(model.codes.as_slice()))
                .map_err(broken)?,
        ),
        ("scale", TensorView::new(Dtype::F32, vec![1], &scale).map_err(broken)?),
    ];
    safetensors::serialize(views, None).map_err(broken)
}

fn read_codes(path: &Path, bytes: &[u8]) -> Result<(Matrix<i8>, SearchScale)> {
    let broken =
        |e: safetensors::SafeTensorError| Error::model(path, format!("cannot be read as safetensors: {e}"));
    let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
    let codes = tensors.tensor("codes").map_err(broken)?;
    let scale = tensors.tensor("scale").map_err(broken)?;
    match (codes.dtype(), codes.shape(), scale.dtype(), scale.data()) {
        (Dtype::I8, &[rows, cols], Dtype::F32, &[a, b, c, d]) => {
            let codes = Matrix::try_from_vec(rows, cols, bytemuck::cast_slice(codes.data()).to_vec())?;
            Ok((codes, SearchScale::try_new(f32::from_le_bytes([a, b, c, d]))?))
        }
        _ => Err(Error::model(path, "holds other tensors than codes i8 [rows, dim] and scale f32 [1]")),
    }
}

fn sample_batch(sample: &Sample) -> Result<RecordBatch> {
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(strings(&sample.ids))),
        ("text", Arc::new(strings(&sample.texts))),
        ("topic", Arc::new(Int32Array::from(sample.topics.clone()))),
        ("probability", Arc::new(Float32Array::from(sample.probabilities.clone()))),
        ("x", Arc::new(Float32Array::from_iter_values(sample.map.iter_rows().map(|p| p[0])))),
        ("y", Arc::new(Float32Array::from_iter_values(sample.map.iter_rows().map(|p| p[1])))),
    ];
    if !sample.fitted_topics.is_empty() {
        columns.push(("topic_original", Arc::new(Int32Array::from(sample.fitted_topics.clone()))));
    }
    if !sample.weights.is_empty() {
        columns.push(("weight", Arc::new(UInt32Array::from(sample.weights.clone()))));
    }
    if !sample.dates.is_empty() {
        columns.push(("date", Arc::new(Date32Array::from(sample.dates.clone()))));
    }
    if !sample.outlier_scores.is_empty() {
        columns.push(("outlier_score", Arc::new(Float32Array::from(sample.outlier_scores.clone()))));
    }
    if sample.positions.cols() > 0 {
        let width = i32::try_from(sample.positions.cols())
            .map_err(|_| Error::Internal("positions too wide".into()))?;
        let values = Arc::new(Float32Array::from(sample.positions.as_slice().to_vec()));
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        columns.push(("position", Arc::new(FixedSizeListArray::try_new(item, width, values, None)?)));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A column of strings in room made for all of them: one that grows is copied, and held twice meanwhile.
fn strings(values: &[String]) -> StringArray {
    let mut column = StringBuilder::with_capacity(values.len(), values.iter().map(String::len).sum());
    values.iter().for_each(|value| column.append_value(value));
    column.finish()
}

fn read_sample(table: &Table) -> Result<Sample> {
    let strings = |name: &str| -> Result<Vec<String>> {
        Ok(table.strings(name)?.iter().map(|s| s.unwrap_or_default().to_string()).collect())
    };
    let floats =
        |name: &str| -> Result<Vec<f32>> { Ok(table.primitive::<Float32Type>(name)?.values().to_vec()) };
    let (x, y) = (floats("x")?, floats("y")?);
    let map = x.iter().zip(&y).flat_map(|(x, y)| [*x, *y]).collect();
    Ok(Sample {
        ids: strings("id")?,
        texts: strings("text")?,
        dates: match table.has("date") {
            true => table.primitive::<Date32Type>("date")?.iter().collect(),
            false => Vec::new(),
        },
        topics: table.primitive::<Int32Type>("topic")?.values().to_vec(),
        fitted_topics: match table.has("topic_original") {
            true => table.primitive::<Int32Type>("topic_original")?.values().to_vec(),
            false => Vec::new(),
        },
        probabilities: floats("probability")?,
        outlier_scores: if table.has("outlier_score") { floats("outlier_score")? } else { Vec::new() },
        positions: match table.has("position") {
            true => {
                crate::embedding_column::embeddings("position", table.column("position")?.as_ref(), None, 0)?
            }
            false => Matrix::zeros(x.len(), 0),
        },
        map: Matrix::try_from_vec(x.len(), 2, map)?,
        weights: match table.has("weight") {
            true => table.primitive::<UInt32Type>("weight")?.values().to_vec(),
            false => Vec::new(),
        },
    })
}

fn topics_batch(topics: &[Topic], tree: Option<&CondensedTree>) -> Result<RecordBatch> {
    let mut words = ListBuilder::new(StringBuilder::new());
    for topic in topics {
        for (word, _) in &topic.words {
            words.values().append_value(word);
        }
        words.append(true);
    }
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("topic", Arc::new(Int32Array::from_iter_values(topics.iter().map(|t| t.id)))),
        ("name", Arc::new(StringArray::from_iter_values(topics.iter().map(|t| &t.name)))),
        ("named_by", Arc::new(StringArray::from_iter_values(topics.iter().map(|t| t.named_by.to_string())))),
        ("rating", Arc::new(Int32Array::from_iter(topics.iter().map(|t| t.rating.map(i32::from))))),
        ("size", Arc::new(Int64Array::from_iter_values(topics.iter().map(|t| t.size as i64)))),
        ("words", Arc::new(words.finish())),
        ("weights", lists::<Float32Type>(topics.iter().map(|t| t.words.iter().map(|w| w.1).collect()))?),
        (
            "representatives",
            lists::<Int64Type>(topics.iter().map(|t| t.representatives.iter().map(|r| *r as i64).collect()))?,
        ),
        ("centroid", lists::<Float32Type>(topics.iter().map(|t| t.centroid.clone()))?),
    ];
    if let Some(tree) = tree {
        columns.push(("cluster", Arc::new(UInt32Array::from(tree.selected.clone()))));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn read_topics(table: &Table) -> Result<Vec<Topic>> {
    let ids = table.primitive::<Int32Type>("topic")?;
    let names = table.strings("name")?;
    let named_by = table.strings("named_by")?;
    let ratings = table.primitive::<Int32Type>("rating")?;
    let sizes = table.primitive::<Int64Type>("size")?;
    let words = table.list("words")?;
    let weights = table.lists::<Float32Type>("weights")?;
    let representatives = table.lists::<Int64Type>("representatives")?;
    let centroids = table.lists::<Float32Type>("centroid")?;
    (0..ids.len())
        .map(|i| {
            let texts = words.value(i);
            let texts =
                texts.as_string_opt::<i32>().ok_or_else(|| table.wrong("words", "lists of strings"))?;
            Ok(Topic {
                id: ids.value(i),
                name: names.value(i).into(),
                named_by: named_by
                    .value(i)
                    .parse()
                    .map_err(|_| table.wrong("named_by", "words, user or llm:MODEL"))?,
                rating: ratings.is_valid(i).then(|| ratings.value(i).clamp(0, 10) as u8),
                size: sizes.value(i) as u64,
                words: texts.iter().flatten().map(str::to_string).zip(weights[i].iter().copied()).collect(),
                representatives: representatives[i].iter().map(|r| *r as u64).collect(),
                centroid: centroids[i].clone(),
            })
        })
        .collect()
}

fn terms_batch(terms: &TermCounts) -> Result<RecordBatch> {
    let entries = || terms.iter().map(|(_, name, _)| name.len());
    // Room for all: see `strings`.
    let mut names = StringBuilder::with_capacity(entries().count() + terms.topics().len(), entries().sum());
    let (mut topics, mut counts) = (Vec::new(), Vec::new());
    for (row, &topic) in terms.topics().iter().enumerate() {
        for &(term, count) in terms.row(row) {
            topics.push(topic);
            names.append_value(&terms.terms()[term as usize]);
            counts.push(count as i64);
        }
        if terms.row(row).is_empty() {
            topics.push(topic);
            names.append_null();
            counts.push(0);
        }
    }
    // A term that no topic has any more is of the vocabulary still.
    let first = terms.topics().first().copied();
    for (term, topic) in terms.unused().zip(first.into_iter().cycle()) {
        topics.push(topic);
        names.append_value(term);
        counts.push(0);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("topic", Arc::new(Int32Array::from(topics))),
        ("term", Arc::new(names.finish())),
        ("count", Arc::new(Int64Array::from(counts))),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, n == "term")))?)
}

fn tree_batch(tree: &CondensedTree) -> Result<RecordBatch> {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("parent", Arc::new(UInt32Array::from(tree.parent.clone()))),
        ("child", Arc::new(UInt32Array::from(tree.child.clone()))),
        ("lambda", Arc::new(Float64Array::from(tree.lambda.clone()))),
        ("child_size", Arc::new(UInt32Array::from(tree.child_size.clone()))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn read_tree(table: &Table, topics: &Table) -> Result<CondensedTree> {
    Ok(CondensedTree {
        parent: table.primitive::<UInt32Type>("parent")?.values().to_vec(),
        child: table.primitive::<UInt32Type>("child")?.values().to_vec(),
        lambda: table.primitive::<Float64Type>("lambda")?.values().to_vec(),
        child_size: table.primitive::<UInt32Type>("child_size")?.values().to_vec(),
        selected: topics.primitive::<UInt32Type>("cluster")?.values().to_vec(),
    })
}

/// A list column of numbers.
fn lists<T: ArrowPrimitiveType>(rows: impl Iterator<Item = Vec<T::Native>>) -> Result<ArrayRef> {
    let rows: Vec<Vec<T::Native>> = rows.collect();
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    let values = PrimitiveArray::<T>::from_iter_values(rows.into_iter().flatten());
    let item = Arc::new(Field::new_list_field(T::DATA_TYPE, false));
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(values), None)?))
}

/// Writes rows as Parquet; the same rows give the same bytes.
fn table(rows: RecordBatch) -> Result<Vec<u8>> {
    let broken = |e: parquet::errors::ParquetError| Error::Internal(format!("bundle table: {e}"));
    // Level 3: the library's default, at which a sample's texts shrink to a third.
    let level = ZstdLevel::try_new(3).map_err(broken)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(broken)?;
    writer.write(&rows).map_err(broken)?;
    writer.into_inner().map_err(broken)
}

/// A Parquet part, read whole; errors name it.
struct Table {
    path: std::path::PathBuf,
    rows: RecordBatch,
}

impl Table {
    fn read(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let broken = |e: String| Error::model(path, format!("cannot be read as Parquet: {e}"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|e| broken(e.to_string()))?;
        let schema = arrow::array::RecordBatchReader::schema(&reader);
        let batches =
            reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| broken(e.to_string()))?;
        Ok(Self { path: path.into(), rows: arrow::compute::concat_batches(&schema, &batches)? })
    }

    fn has(&self, name: &str) -> bool {
        self.rows.column_by_name(name).is_some()
    }

    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.rows
            .column_by_name(name)
            .ok_or_else(|| Error::model(&self.path, format!("has no column \"{name}\"")))
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        Error::model(&self.path, format!("column \"{name}\" does not hold {expected}"))
    }

    fn primitive<T: ArrowPrimitiveType>(&self, name: &str) -> Result<&PrimitiveArray<T>> {
        let column = self.column(name)?;
        column.as_primitive_opt().ok_or_else(|| self.wrong(name, &T::DATA_TYPE.to_string()))
    }

    fn strings(&self, name: &str) -> Result<&StringArray> {
        self.column(name)?.as_string_opt().ok_or_else(|| self.wrong(name, "strings"))
    }

    fn list(&self, name: &str) -> Result<&ListArray> {
        self.column(name)?.as_list_opt().ok_or_else(|| self.wrong(name, "lists"))
    }

    fn lists<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Vec<Vec<T::Native>>> {
        let list = self.list(name)?;
        (0..list.len())
            .map(|i| {
                let values = list.value(i);
                let values =
                    values.as_primitive_opt::<T>().ok_or_else(|| self.wrong(name, "lists of numbers"))?;
                Ok(values.values().to_vec())
            })
            .collect()
    }
}
