//! What became of a model's topics.

use super::{number_lists, table, text_lists};
use crate::Result;
use crate::lineage::{Event, Evidence};
use crate::model::Model;
use arrow::array::{ArrayRef, Int32Builder, Int64Array, ListBuilder, RecordBatch, StringArray};
use std::sync::Arc;

/// An event a row, in their order: `Generation, Event, From, To, Names` (of the topics before, or of one
/// that is born), then the evidence of each
/// pair of topics as lists: `Pairs, Rows` (of both samples, by their labels in both models), `of_from`, `of_to`, `similarity`.
pub fn lineage(model: &Model) -> Result<RecordBatch> {
    let events = || model.lineage.iter();
    let of = |value: fn(&Evidence) -> f64| {
        number_lists(events().map(move |event| event.evidence.iter().map(value).collect::<Vec<_>>()))
    };
    let pair = |evidence: &Evidence| {
        let side = |topic: Option<i32>| topic.map_or(String::new(), |topic| topic.to_string());
        format!("{} -> {}", side(evidence.from), side(evidence.to))
    };
    let pairs: Vec<Vec<String>> = events().map(|event| event.evidence.iter().map(pair).collect()).collect();
    let names: Vec<Vec<&str>> = events().map(|event| names(model, event)).collect();
    table(vec![
        (
            "Generation",
            Arc::new(Int64Array::from_iter_values(events().map(|event| i64::from(event.generation)))),
        ),
        ("Event", Arc::new(StringArray::from_iter_values(events().map(|event| event.change.name())))),
        ("From", topics(events().map(|event| &event.from))),
        ("To", topics(events().map(|event| &event.to))),
        ("Names", text_lists(names.iter().map(|names| names.iter().copied()))),
        ("Pairs", text_lists(pairs.iter().map(|pairs| pairs.iter().map(String::as_str)))),
        ("Rows", of(|evidence| evidence.rows as f64)),
        ("of_from", of(|evidence| evidence.of_from)),
        ("of_to", of(|evidence| evidence.of_to)),
        ("similarity", of(|evidence| evidence.similarity)),
    ])
}

/// What the topics before were called; of one that is born, what it is called now.
fn names<'m>(model: &'m Model, event: &'m Event) -> Vec<&'m str> {
    let now = event.to.iter().filter_map(|topic| model.topic(*topic)).map(|topic| topic.name.as_str());
    match event.names.is_empty() {
        true => now.collect(),
        false => event.names.iter().map(String::as_str).collect(),
    }
}

fn topics<'e>(rows: impl Iterator<Item = &'e Vec<i32>>) -> ArrayRef {
    let mut lists = ListBuilder::new(Int32Builder::new());
    for row in rows {
        row.iter().for_each(|topic| lists.values().append_value(*topic));
        lists.append(true);
    }
    Arc::new(lists.finish())
}
