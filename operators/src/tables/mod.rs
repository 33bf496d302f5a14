//! What a model knows, as tables with the columns that users of BERTopic know, and ours behind them.
//!
//! | table | rows | file |
//! |---|---|---|
//! | topics | a topic each, the outliers first | [`info`] |
//! | documents | a row of the sample each | [`info`] |
//! | hierarchy | two topics or groups that become one | [`hierarchy`] |
//! | topics over time, topics by class | a topic in an interval, or in a class | [`groups`] |
//! | topics of documents | a row of the sample each, with its topics by windows of words | [`groups`] |
//! | similarity | two topics | [`hierarchy`] |
//! | words, names | a topic each, before and after; or two names each | [`changes`] |
//! | lineage | what became of topics, an event each | [`lineage`] |

pub mod changes;
pub mod groups;
pub mod hierarchy;
pub mod info;
pub mod lineage;

use crate::Result;
use arrow::array::{Array, ArrayRef, Float64Builder, ListBuilder, RecordBatch, StringBuilder};
use std::sync::Arc;

/// A table of columns that may hold nulls.
fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, column)| {
        let has_nulls = column.null_count() > 0;
        (name, column, has_nulls)
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// A column of lists of texts.
fn text_lists<'t, I: IntoIterator<Item = &'t str>>(rows: impl Iterator<Item = I>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in rows {
        row.into_iter().for_each(|text| lists.values().append_value(text));
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// A column of lists of numbers.
fn number_lists<I: IntoIterator<Item = f64>>(rows: impl Iterator<Item = I>) -> ArrayRef {
    let mut lists = ListBuilder::new(Float64Builder::new());
    for row in rows {
        row.into_iter().for_each(|number| lists.values().append_value(number));
        lists.append(true);
    }
    Arc::new(lists.finish())
}
