//! From labelled rows to payloads.

use super::OutputFormat;
use crate::sources::kafka::messages::{COLUMNS, headers_of};
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef, TimestampMillisecondType};
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use std::ops::Range;

/// Makes payloads of rows of one schema.
pub(super) struct Encoder {
    format: OutputFormat,
    /// The columns of a payload: the added ones where they are added to an object, else all but those of the message.
    columns: Vec<usize>,
    extends_json: bool,
    bytes: Vec<u8>,
}

/// A payload, and what goes with it.
pub(super) struct Row<'a> {
    /// The first row that it was made of.
    pub(super) at: usize,
    pub(super) key: Option<&'a [u8]>,
    pub(super) timestamp: Option<i64>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    payload: Range<usize>,
}

impl Encoder {
    /// Makes payloads of rows that are `written`, of what was `read`.
    pub(super) fn new(
        format: OutputFormat,
        read: &SchemaRef,
        written: &SchemaRef,
        extends_json: bool,
    ) -> Result<Self> {
        let extends_json = extends_json && format == OutputFormat::Json;
        let is_column = |name: &String| match extends_json {
            true => read.field_with_name(name).is_err(),
            false => !COLUMNS.contains(&name.as_str()),
        };
        let columns = written.fields().iter().enumerate().filter(|(_, field)| is_column(field.name()));
        Ok(Self { format, columns: columns.map(|(at, _)| at).collect(), extends_json, bytes: Vec::new() })
    }

    /// Makes the payloads of `rows`; [`Self::payload`] gives the bytes of each until the next call.
    pub(super) fn encode<'a>(&mut self, rows: &'a RecordBatch) -> Result<Vec<Row<'a>>> {
        self.bytes.clear();
        let parts = rows.project(&self.columns).map_err(internal)?;
        let payloads = match self.format {
            OutputFormat::Json => self.objects(rows, &parts)?,
            OutputFormat::Arrow => self.streams(rows, &parts)?,
        };
        let [_, _, _, timestamp, key, headers, _] = COLUMNS;
        let keys = column(rows, key)?.as_binary::<i32>();
        let timestamps = column(rows, timestamp)?.as_primitive::<TimestampMillisecondType>();
        let headers = column(rows, headers)?;
        let row = |(at, payload): (usize, Range<usize>)| Row {
            at,
            key: keys.is_valid(at).then(|| keys.value(at)),
            timestamp: timestamps.is_valid(at).then(|| timestamps.value(at)),
            headers: headers_of(headers, at),
            payload,
        };
        Ok(payloads.into_iter().map(row).collect())
    }

    /// The bytes of `row`.
    pub(super) fn payload(&self, row: &Row<'_>) -> Option<&[u8]> {
        self.bytes.get(row.payload.clone())
    }

    /// An object for each row.
    fn objects(&mut self, rows: &RecordBatch, parts: &RecordBatch) -> Result<Vec<(usize, Range<usize>)>> {
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        let written = writer.write(parts).and_then(|()| writer.finish());
        written.map_err(|error| Error::setting("sink", format!("JSON cannot hold a column: {error}")))?;
        let lines = writer.into_inner();
        let whole = column(rows, COLUMNS[6])?.as_binary_view();
        let mut payloads = Vec::with_capacity(rows.num_rows());
        // No string of JSON holds a line's end as it is.
        for (at, object) in lines.split(|&byte| byte == b'\n').take(rows.num_rows()).enumerate() {
            let start = self.bytes.len();
            if self.extends_json {
                extend(&mut self.bytes, whole.value(at), object);
            } else {
                self.bytes.extend_from_slice(object);
            }
            payloads.push((at, start..self.bytes.len()));
        }
        Ok(payloads)
    }

    /// A stream for the rows of each message.
    fn streams(&mut self, rows: &RecordBatch, parts: &RecordBatch) -> Result<Vec<(usize, Range<usize>)>> {
        let partitions = column(rows, COLUMNS[1])?.as_primitive::<Int32Type>();
        let offsets = column(rows, COLUMNS[2])?.as_primitive::<Int64Type>();
        let topics = column(rows, COLUMNS[0])?.as_string::<i32>();
        let message = |row: usize| (topics.value(row), partitions.value(row), offsets.value(row));
        let mut payloads = Vec::new();
        let mut first = 0;
        while first < rows.num_rows() {
            let same = (first + 1..rows.num_rows()).take_while(|&row| message(row) == message(first));
            let count = 1 + same.count();
            let start = self.bytes.len();
            let mut writer = StreamWriter::try_new(&mut self.bytes, parts.schema_ref()).map_err(internal)?;
            writer.write(&parts.slice(first, count)).and_then(|()| writer.finish()).map_err(internal)?;
            payloads.push((first, start..self.bytes.len()));
            first += count;
        }
        Ok(payloads)
    }
}

/// Writes `object` with the fields of `added` behind its own.
fn extend(out: &mut Vec<u8>, object: &[u8], added: &[u8]) {
    let object = object.trim_ascii_end();
    // Both were decoded as objects: they end with a brace.
    let own = object[..object.len().saturating_sub(1)].trim_ascii_end();
    out.extend_from_slice(own);
    let is_empty = own.trim_ascii_start() == b"{";
    if !is_empty && added.len() > 2 {
        out.push(b',');
    }
    out.extend_from_slice(&added[1..]);
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| Error::Internal(format!("rows of a stream without {name}")))
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_added_to_an_object_as_it_is() {
        for (object, added, expected) in [
            (r#"{"a": 1}"#, r#"{"topic":3}"#, r#"{"a": 1,"topic":3}"#),
            ("{ \"a\" : 1 \n}\n", r#"{"topic":3}"#, "{ \"a\" : 1,\"topic\":3}"),
            ("{}", r#"{"topic":3}"#, r#"{"topic":3}"#),
            (" { } ", r#"{"topic":3}"#, r#" {"topic":3}"#),
            (r#"{"a":1}"#, "{}", r#"{"a":1}"#),
        ] {
            let mut out = Vec::new();
            extend(&mut out, object.as_bytes(), added.as_bytes());
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, expected);
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
}
