//! Words and names before and after a change, and names of two language models side by side.

use super::table;
use crate::Result;
use crate::labellers::llm::Naming;
use crate::model::{Model, Topic};
use crate::words::TopicWords;
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The words of topics as the table of changes shows them: `Topic, Original, Updated`, so many of both joined by ` | `.
pub fn updates(
    before: &[TopicWords],
    after: &[TopicWords],
    topics: usize,
    words: usize,
) -> Result<RecordBatch> {
    let joined = |topic: &TopicWords| {
        topic.words.iter().take(words).map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(" | ")
    };
    let rows: Vec<(i32, String, String)> = before
        .iter()
        .filter_map(|old| Some((old, after.iter().find(|new| new.topic == old.topic)?)))
        .take(topics)
        .map(|(old, new)| (old.topic, joined(old), joined(new)))
        .collect();
    table(vec![
        ("Topic", Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("Original", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1)))),
        ("Updated", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2)))),
    ])
}

/// The topics of `after` with the names they had: `Topic, Count, Original, Updated, named_by`, and `rating` where a topic
/// has one.
pub fn renamed(before: &Model, after: &Model) -> Result<RecordBatch> {
    let topics = || after.topics.iter();
    let old = |topic: &Topic| before.topic(topic.id).map(|old| old.name.clone());
    let named_by = |topic: &Topic| topic.named_by.to_string();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("Topic", Arc::new(Int32Array::from_iter_values(topics().map(|topic| topic.id)))),
        ("Count", Arc::new(Int64Array::from_iter_values(topics().map(|topic| topic.size as i64)))),
        ("Original", Arc::new(StringArray::from_iter(topics().map(old)))),
        ("Updated", Arc::new(StringArray::from_iter_values(topics().map(|topic| &topic.name)))),
        ("named_by", Arc::new(StringArray::from_iter_values(topics().map(named_by)))),
    ];
    if topics().any(|topic| topic.rating.is_some()) {
        let ratings = Int32Array::from_iter(topics().map(|topic| topic.rating.map(i32::from)));
        columns.push(("rating", Arc::new(ratings)));
    }
    table(columns)
}

/// How often each name of one language model meets each of another: a column a model, then `Topics` and `Count` (rows
/// of the sample), most rows first. Topics that a model did not name have none.
pub fn side_by_side(model: &Model, first: &Naming, second: &Naming) -> Result<RecordBatch> {
    let of = |naming: &Naming, topic: &Topic| naming.names.get(&topic.id).map(|named| named.name.clone());
    let mut counts: BTreeMap<(Option<String>, Option<String>), (i64, i64)> = BTreeMap::new();
    for topic in &model.topics {
        let (topics, rows) = counts.entry((of(first, topic), of(second, topic))).or_default();
        *topics += 1;
        *rows += topic.size as i64;
    }
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by_key(|(_, (_, rows))| std::cmp::Reverse(*rows));
    table(vec![
        (&first.model, Arc::new(StringArray::from_iter(rows.iter().map(|((a, _), _)| a.as_deref())))),
        (&second.model, Arc::new(StringArray::from_iter(rows.iter().map(|((_, b), _)| b.as_deref())))),
        ("Topics", Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, (topics, _))| *topics)))),
        ("Count", Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, (_, rows))| *rows)))),
    ])
}
