//! Record batches as people and other programs read them: a table, JSON, CSV, or a file.

use super::{Context, print};
use crate::positions::{Batch, Covers};
use crate::sinks::SinkConfig;
use crate::{Error, Result};
use arrow::array::RecordBatch;
use arrow::json::{WriterBuilder, writer::JsonArray};
use clap::ValueEnum;
use serde_json::{Map, Value};

/// A table that is wider has its columns cut: to so many characters, and the last one to so many.
const WIDE: usize = 160;
const WIDEST: usize = 48;
const WIDEST_LAST: usize = 96;

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RowsFormat {
    /// For people; what is long is cut
    Table,
    /// One array of objects
    Json,
    /// With a header; lists as JSON
    Csv,
}

/// Shows `rows` on standard output. `told` are the columns of a table; all if there are none.
pub(super) fn show(rows: &RecordBatch, format: RowsFormat, told: &[&str]) -> Result<()> {
    let objects = objects(rows)?;
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    print(&match format {
        RowsFormat::Table => {
            let told: Vec<&str> = match told {
                [] => names.iter().map(String::as_str).collect(),
                told => told.to_vec(),
            };
            table(&objects, &told)
        }
        RowsFormat::Json => format!("{:#}\n", Value::from_iter(objects)),
        RowsFormat::Csv => csv(&objects, &names),
    })
}

/// Writes `rows` to the file at `path` (`.parquet` or `.jsonl`), and says so.
pub(super) async fn write(context: &Context, rows: RecordBatch, path: &str, overwrite: bool) -> Result<()> {
    let config = SinkConfig::for_path(path)?;
    config.check(overwrite).await?;
    let mut sink = config.open(&rows.schema(), overwrite).await?;
    let count = rows.num_rows() as u64;
    sink.write(Batch::new(rows, Covers::new())).await?;
    sink.commit().await?;
    context.tell(
        &format!("{} in {path}\n", super::count(count, "row")),
        &serde_json::json!({ "rows": count, "out": path }),
    )
}

/// The rows as objects, with nulls.
fn objects(rows: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let broken = |e: String| Error::Internal(format!("rows as JSON: {e}"));
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write(rows).and_then(|()| writer.finish()).map_err(|e| broken(e.to_string()))?;
    let bytes = writer.into_inner();
    // No row at all: the writer writes nothing.
    if bytes.is_empty() {
        Ok(Vec::new())
    } else {
        serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))
    }
}

fn table(rows: &[Map<String, Value>], told: &[&str]) -> String {
    let mut cells: Vec<Vec<String>> =
        rows.iter().map(|row| told.iter().map(|name| cell(&row[*name])).collect()).collect();
    let widths = |cells: &[Vec<String>]| -> Vec<usize> {
        let of = |at: usize| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        told.iter().enumerate().map(|(at, name)| of(at).max(name.chars().count())).collect()
    };
    if widths(&cells).iter().sum::<usize>() > WIDE {
        for row in &mut cells {
            for (at, text) in row.iter_mut().enumerate() {
                *text = shortened(text, if at + 1 == told.len() { WIDEST_LAST } else { WIDEST });
            }
        }
    }
    let widths = widths(&cells);
    let is_number = |at: usize| rows.iter().all(|row| row[told[at]].is_number()) && !rows.is_empty();
    let line = |row: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = row
            .enumerate()
            .map(|(at, text)| match (is_number(at), widths[at]) {
                (true, width) => format!("{text:>width$}"),
                (false, width) => format!("{text:<width$}"),
            })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let head = line(&mut told.iter().copied());
    cells.iter().fold(head, |text, row| text + &line(&mut row.iter().map(String::as_str)))
}

/// A value in one line: lists joined by commas, numbers with few digits.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.values().map(cell).collect::<Vec<_>>().join(": "),
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

/// The text in at most `width` characters, the last an ellipsis if it was longer.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn csv(rows: &[Map<String, Value>], names: &[String]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let field = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        Value::Array(_) | Value::Object(_) => quoted(&value.to_string()),
        other => other.to_string(),
    };
    let mut text = format!("{}\n", names.join(","));
    for row in rows {
        let fields: Vec<String> = names.iter().map(|name| field(&row[name])).collect();
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int32Array, StringArray};
    use std::sync::Arc;

    fn rows() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("Topic", Arc::new(Int32Array::from(vec![-1, 10]))),
            ("Name", Arc::new(StringArray::from(vec![Some("a \"b\",\nc"), None]))),
            ("Share", Arc::new(Float64Array::from(vec![0.5, 1.0 / 3.0]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right_and_shows_the_columns_that_are_told() {
        let objects = objects(&rows()).unwrap();
        assert_eq!(table(&objects, &["Topic", "Name"]), "Topic  Name\n   -1  a \"b\", c\n   10\n");
        assert_eq!(table(&objects, &["Share"]), " Share\n0.5000\n0.3333\n");
        assert_eq!(table(&[], &["Topic"]), "Topic\n");
    }

    #[test]
    fn csv_quotes_texts_and_leaves_missing_values_empty() {
        let names = ["Topic", "Name"].map(String::from);
        let objects = objects(&rows()).unwrap();
        assert_eq!(csv(&objects, &names), "Topic,Name\n-1,\"a \"\"b\"\",\nc\"\n10,\n");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
    }
}
