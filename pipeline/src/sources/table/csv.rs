//! CSV with a header: fields are read as text, then cast, so that a value of a wrong type is known by its row.
//!
//! An empty field is null. Types are told by the same casts that read: what the first rows pass, they pass when read.

use super::{
    discover::{DataFile, FoundFile},
    output::{Output, Stop, Trouble},
    text::{INFERRED_ROWS, trouble},
};
use crate::{error::first_line, sources::BadUnit};
use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder},
    compute::{cast, filter_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use std::{io::Read, ops::Range, sync::Arc};

/// Reads the header and the first rows: the columns and the types that fit. The types of the columns `typed` are said
/// elsewhere; `id` names rows, so it is no fraction, whatever it looks like.
pub(super) fn inspect(
    file: &FoundFile,
    input: impl Read,
    typed: &[String],
    id: Option<&str>,
) -> Result<Schema, Trouble> {
    let mut reader = reader(file, input);
    let names = header(file, &mut reader)?;
    let mut columns: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    let mut record = StringRecord::new();
    for _ in 0..INFERRED_ROWS {
        match reader.read_record(&mut record) {
            Ok(true) if record.len() == names.len() => {
                for (values, value) in columns.iter_mut().zip(&record) {
                    if !value.is_empty() {
                        values.push(value.into());
                    }
                }
            }
            Ok(false) => break,
            // A bad row says nothing of types; it is reported when it is read.
            Ok(true) => {}
            Err(error) => match error.into_kind() {
                ErrorKind::Io(error) => return Err(trouble(file, error)),
                _ => continue,
            },
        }
    }
    let field = |(name, values): (&String, Vec<String>)| {
        let data_type = match infer(&values) {
            DataType::Float64 if id == Some(name) => DataType::Utf8,
            inferred => inferred,
        };
        // 1.50 may be a price, 2302.08150 is a name: who wrote it must say.
        let rounded = values.iter().find(|value| value.contains('.') && value.ends_with('0'));
        if let (DataType::Float64, Some(value), false) = (&data_type, rounded, typed.contains(name)) {
            tracing::info!(
                "column \"{name}\" is read as numbers, which loses the zeros at the end of {value}; if they name rows, say \
                 --id {name}, or utf8 in `types` of a job file"
            );
        }
        Field::new(name, data_type, true)
    };
    Ok(Schema::new(names.iter().zip(columns).map(field).collect::<Vec<_>>()))
}

/// Reads the rows `wanted` of `file` and returns how many rows were passed, which is all of the file's unless
/// `wanted` ends before.
pub(super) fn read(
    file: &DataFile,
    input: impl Read,
    wanted: Range<u64>,
    output: &mut Output,
) -> Result<u64, Stop> {
    let split = file.found.split.clone();
    let mut reader = reader(&file.found, input);
    let names = match header(&file.found, &mut reader) {
        Ok(names) => names,
        Err(Trouble::Failed(error)) => return Err(Stop::Failed(error)),
        Err(Trouble::Bad(reason)) => return output.bad(BadUnit::file(split.as_str(), reason), 0).map(|()| 0),
    };
    let mut rows = Rows::new(&names, &output.wanted);
    let mut record = StringRecord::new();
    let mut next = 0;
    let mut start = wanted.start;
    while next < wanted.end {
        let line = reader.position().line();
        let reason = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) if record.len() == names.len() => None,
            Ok(true) => Some(format!("line {line} has {} fields, the header {}", record.len(), names.len())),
            Err(error) => match error.into_kind() {
                ErrorKind::Utf8 { .. } => Some(format!("line {line} is not UTF-8")),
                ErrorKind::Io(error) => match trouble(&file.found, error) {
                    Trouble::Failed(error) => return Err(Stop::Failed(error)),
                    Trouble::Bad(reason) => {
                        rows.hand_on(file, start.min(next)..next, output)?;
                        let reason = format!("unreadable from line {line} on: {reason}");
                        return output.bad(BadUnit::file(split.as_str(), reason), 0).map(|()| next);
                    }
                },
                kind => Some(format!("line {line}: {kind:?}")),
            },
        };
        let row = next;
        next += 1;
        if row < wanted.start {
            continue;
        }
        match reason {
            Some(reason) => output.bad(BadUnit::row(split.as_str(), row, reason), 1)?,
            None => rows.push(row, line, &record),
        }
        if rows.len() == output.batch_size {
            rows.hand_on(file, start..next, output)?;
            start = next;
        }
    }
    rows.hand_on(file, start.min(next)..next, output)?;
    Ok(next)
}

/// The fields of the columns that are wanted, as text, of the rows that wait.
struct Rows {
    /// The columns in the types wanted, and where each is in a record.
    fields: Vec<(Arc<Field>, usize)>,
    schema: SchemaRef,
    values: Vec<StringBuilder>,
    /// Of each row its number in the file and its line.
    places: Vec<(u64, u64)>,
}

impl Rows {
    fn new(names: &[String], wanted: &SchemaRef) -> Self {
        let place = |field: &Arc<Field>| {
            Some((Arc::clone(field), names.iter().position(|name| name == field.name())?))
        };
        let fields: Vec<_> = wanted.fields().iter().filter_map(place).collect();
        let schema =
            Arc::new(Schema::new(fields.iter().map(|(field, _)| Arc::clone(field)).collect::<Vec<_>>()));
        let values = fields.iter().map(|_| StringBuilder::new()).collect();
        Self { fields, schema, values, places: Vec::new() }
    }

    fn len(&self) -> usize {
        self.places.len()
    }

    fn push(&mut self, row: u64, line: u64, record: &StringRecord) {
        for ((_, place), values) in self.fields.iter().zip(&mut self.values) {
            values.append_option(record.get(*place).filter(|value| !value.is_empty()));
        }
        self.places.push((row, line));
    }

    /// Casts the rows that wait and hands them on as the rows `range` of the file, without those that do not cast.
    fn hand_on(&mut self, file: &DataFile, range: Range<u64>, output: &mut Output) -> Result<(), Stop> {
        let split = &file.found.split;
        let places = std::mem::take(&mut self.places);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.fields.len());
        let mut good = vec![true; places.len()];
        for ((field, _), values) in self.fields.iter().zip(&mut self.values) {
            let text = values.finish();
            let column = match cast(&text, field.data_type()) {
                Ok(column) => column,
                Err(error) => {
                    let reason = format!("column \"{}\": {}", field.name(), first_line(&error.to_string()));
                    output.bad(BadUnit::file(split.as_str(), reason), places.len() as u64)?;
                    return output.pass(split, range);
                }
            };
            for (at, &(row, line)) in places.iter().enumerate() {
                if good[at] && column.is_null(at) && text.is_valid(at) {
                    good[at] = false;
                    let reason = format!(
                        "line {line}, column \"{}\": \"{}\" is no {} (`types` in a job file says another type)",
                        field.name(),
                        shortened(text.value(at)),
                        field.data_type()
                    );
                    output.bad(BadUnit::row(split.as_str(), row, reason), 1)?;
                }
            }
            columns.push(column);
        }
        if places.is_empty() {
            return output.pass(split, range);
        }
        let numbers: Vec<u64> =
            places.iter().zip(&good).filter(|(_, good)| **good).map(|((row, _), _)| *row).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(places.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &count)
            .and_then(|rows| {
                if good.contains(&false) {
                    filter_record_batch(&rows, &BooleanArray::from(good))
                } else {
                    Ok(rows)
                }
            })
            .map_err(|error| Stop::Failed(crate::Error::Internal(error.to_string())))?;
        output.rows(split, range, &rows, Some(&numbers))
    }
}

fn reader<R: Read>(file: &FoundFile, input: R) -> Reader<R> {
    ReaderBuilder::new().delimiter(file.encoding.delimiter).flexible(true).from_reader(input)
}

fn header<R: Read>(file: &FoundFile, reader: &mut Reader<R>) -> Result<Vec<String>, Trouble> {
    match reader.headers() {
        Ok(names) => Ok(names.iter().map(Into::into).collect()),
        Err(error) => Err(match error.into_kind() {
            ErrorKind::Io(error) => trouble(file, error),
            ErrorKind::Utf8 { .. } => Trouble::Bad("not readable as CSV: the header is not UTF-8".into()),
            kind => Trouble::Bad(format!("not readable as CSV: {kind:?}")),
        }),
    }
}

/// The narrowest type that all of `values` have; null if there are none.
///
/// A number with a leading zero is text, for such are identifiers; so are whole numbers that 64 bits cannot hold.
fn infer(values: &[String]) -> DataType {
    if values.is_empty() {
        return DataType::Null;
    }
    let array = StringArray::from_iter_values(values);
    let casts = |to: &DataType| cast(&array, to).is_ok_and(|cast| cast.null_count() == 0);
    let has_digits = |value: &String| value.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let leads_with_zero = |value: &String| {
        let digits = value.trim_start_matches(['-', '+']).as_bytes();
        digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit()
    };
    if values.iter().all(|value| has_digits(value) && !leads_with_zero(value)) {
        let is_finite = |value: &String| value.parse().is_ok_and(f64::is_finite);
        let is_whole = |value: &String| !value.contains(['.', 'e', 'E']);
        if values.iter().all(is_whole) {
            if casts(&DataType::Int64) {
                return DataType::Int64;
            }
        } else if values
            .iter()
            .all(|value| is_finite(value) && (!is_whole(value) || value.parse::<i64>().is_ok()))
            && casts(&DataType::Float64)
        {
            return DataType::Float64;
        }
    }
    let is_bool = |value: &String| value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
    if values.iter().all(is_bool) {
        return DataType::Boolean;
    }
    // A date has four digits, a dash: what else a cast takes for one may be a code.
    let is_dated = |value: &String| {
        value.len() >= 10 && value.as_bytes()[4] == b'-' && value.bytes().take(4).all(|b| b.is_ascii_digit())
    };
    if values.iter().all(is_dated) {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        if values.iter().all(|value| value.len() == 10) && casts(&DataType::Date32) {
            return DataType::Date32;
        }
        if casts(&timestamp) {
            return timestamp;
        }
    }
    DataType::Utf8
}

/// The beginning of a value, for an error.
fn shortened(value: &str) -> String {
    const SHOWN: usize = 60;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(values: &[&str]) -> DataType {
        infer(&values.iter().map(|value| value.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn types_are_the_narrowest_that_lose_nothing() {
        assert_eq!(inferred(&["1", "-20"]), DataType::Int64);
        assert_eq!(inferred(&["1", "2.5e3"]), DataType::Float64);
        assert_eq!(inferred(&["true", "FALSE"]), DataType::Boolean);
        assert_eq!(inferred(&["2024-12-31"]), DataType::Date32);
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(inferred(&["2024-12-31T10:11:12", "2024-12-31"]), timestamp);
        assert_eq!(inferred(&[]), DataType::Null);
        for text in
            ["0704.0001", "007", "99999999999999999999", "nan", "yes", "2024-13-01", "1-2", "1e999", ".", "-"]
        {
            assert_eq!(inferred(&[text]), DataType::Utf8, "{text}");
        }
    }
}
