//! Topics and documents: BERTopic's `get_topic_info` and `get_document_info`.

use super::{number_lists, table, text_lists};
use crate::Result;
use crate::model::{Model, NamedBy, OUTLIER_NAME, Topic};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// What a table says of a topic.
struct Row<'a> {
    id: i32,
    count: u64,
    name: &'a str,
    words: Vec<&'a str>,
    weights: Vec<f64>,
    examples: Vec<&'a str>,
    named_by: NamedBy,
    rating: Option<u8>,
}

impl<'a> Row<'a> {
    fn of(model: &'a Model, topic: &'a Topic) -> Self {
        let texts = &model.sample.texts;
        Self {
            id: topic.id,
            count: topic.size,
            name: &topic.name,
            named_by: topic.named_by.clone(),
            rating: topic.rating,
            words: topic.words.iter().map(|(word, _)| word.as_str()).collect(),
            weights: topic.words.iter().map(|(_, weight)| f64::from(*weight)).collect(),
            examples: topic
                .representatives
                .iter()
                .filter_map(|row| texts.get(usize::try_from(*row).ok()?).map(String::as_str))
                .collect(),
        }
    }

    fn outliers(count: u64) -> Self {
        let (words, weights, examples) = (Vec::new(), Vec::new(), Vec::new());
        let (named_by, rating) = (NamedBy::Words, None);
        Self { id: -1, count, name: OUTLIER_NAME, words, weights, examples, named_by, rating }
    }
}

/// The topics, outliers first if there are any: `Topic, Count, Name, Representation, Representative_Docs`, and the
/// `weights` of the words; then `named_by` (words, user, llm:MODEL) and `rating`, where a topic has one.
pub fn topics(model: &Model) -> Result<RecordBatch> {
    let first = (model.outliers > 0).then(|| Row::outliers(model.outliers));
    let rows: Vec<Row<'_>> =
        first.into_iter().chain(model.topics.iter().map(|topic| Row::of(model, topic))).collect();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("Topic", Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.id)))),
        ("Count", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.count as i64)))),
        ("Name", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.name)))),
        ("Representation", text_lists(rows.iter().map(|row| row.words.iter().copied()))),
        ("Representative_Docs", text_lists(rows.iter().map(|row| row.examples.iter().copied()))),
        ("weights", number_lists(rows.iter().map(|row| row.weights.iter().copied()))),
        (
            "named_by",
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.named_by.to_string()))),
        ),
    ];
    if model.topics.iter().any(|topic| topic.rating.is_some()) {
        let ratings = rows.iter().map(|row| row.rating.map(i32::from));
        columns.push(("rating", Arc::new(Int32Array::from_iter(ratings))));
    }
    table(columns)
}

/// Which documents are listed, and how much of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DocumentsConfig {
    /// Those of one topic. None: all.
    pub topic: Option<i32>,
    /// The first so many. None: all.
    pub first: Option<usize>,
    /// Texts cut to so many characters. None: whole.
    pub characters: Option<usize>,
}

/// The rows of the sample: `Document, Topic, Name, Representation, Representative_Docs, Top_n_words, Probability,
/// Representative_document`, then `id`, `weight` where some stand for near duplicates, and `topic_original` where topics have changed since the fit.
pub fn documents(model: &Model, config: &DocumentsConfig) -> Result<RecordBatch> {
    let sample = &model.sample;
    if let Some(topic) = config.topic.filter(|topic| *topic != -1) {
        crate::revise::topic(model, topic)?;
    }
    let rows: Vec<usize> = (0..sample.len())
        .filter(|row| config.topic.is_none_or(|topic| sample.topics[*row] == topic))
        .take(config.first.unwrap_or(usize::MAX))
        .collect();
    let of_topic: FxHashMap<i32, Row<'_>> = model
        .topics
        .iter()
        .map(|topic| (topic.id, Row::of(model, topic)))
        .chain([(-1, Row::outliers(0))])
        .collect();
    let outlier = Row::outliers(0);
    let topics: Vec<&Row<'_>> =
        rows.iter().map(|row| of_topic.get(&sample.topics[*row]).unwrap_or(&outlier)).collect();
    let representing: FxHashSet<u64> =
        model.topics.iter().flat_map(|topic| topic.representatives.iter().copied()).collect();
    let cut = |text: &str| match config.characters {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let integers = |values: &[i32]| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| values[*row])))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (
            "Document",
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| cut(&sample.texts[*row])))),
        ),
        ("Topic", integers(&sample.topics)),
        ("Name", Arc::new(StringArray::from_iter_values(topics.iter().map(|topic| topic.name)))),
        ("Representation", text_lists(topics.iter().map(|topic| topic.words.iter().copied()))),
        ("Representative_Docs", text_lists(topics.iter().map(|topic| topic.examples.iter().copied()))),
        (
            "Top_n_words",
            Arc::new(StringArray::from_iter_values(topics.iter().map(|topic| topic.words.join(" - ")))),
        ),
        (
            "Probability",
            Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| sample.probabilities[*row]))),
        ),
        (
            "Representative_document",
            Arc::new(
                rows.iter().map(|row| Some(representing.contains(&(*row as u64)))).collect::<BooleanArray>(),
            ),
        ),
        ("id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &sample.ids[*row])))),
    ];
    if !sample.weights.is_empty() {
        let weights = rows.iter().map(|row| i64::from(sample.weights[*row]));
        columns.push(("weight", Arc::new(Int64Array::from_iter_values(weights))));
    }
    if !sample.fitted_topics.is_empty() {
        columns.push(("topic_original", integers(&sample.fitted_topics)));
    }
    table(columns)
}
