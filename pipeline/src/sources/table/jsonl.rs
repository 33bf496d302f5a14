//! JSONL: one object per line. Lines are decoded many at once; if that fails, one by one to find the bad ones.

use super::{
    discover::{DataFile, FoundFile},
    output::{Output, Stop, Trouble},
    text::{INFERRED_ROWS, trouble},
};
use crate::{
    error::first_line,
    sources::{
        BadUnit,
        json::{decoded, explain},
    },
};
use arrow::{
    compute::concat_batches,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    json::reader::infer_json_schema_from_iterator,
};
use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, Read},
    ops::Range,
};

/// The longest line: beyond that a file is not JSONL, and would fill the memory.
const LONGEST_BYTES: u64 = 64 << 20;

/// What is expected of a line.
const EXPECTED: &str = "expected one object per line";

/// How many bytes of lines wait before they are decoded, so that long lines do not fill the memory.
const WAITING_BYTES: usize = 16 << 20;

/// Reads the first rows: the fields and their types. The columns `typed` have theirs said and are taken as they come.
pub(super) fn inspect(file: &FoundFile, input: impl Read, typed: &[String]) -> Result<Schema, Trouble> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut objects = Vec::new();
    let mut first_bad = None;
    let mut number = 0;
    while objects.len() < INFERRED_ROWS
        && next_line(&mut input, &mut line).map_err(|error| trouble(file, error))?
    {
        number += 1;
        if is_blank(&line) {
            continue;
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(Value::Object(mut object)) => {
                // A type that is said needs no guess, and must not make one fail.
                for name in
                    typed.iter().filter(|name| object.contains_key(*name)).cloned().collect::<Vec<_>>()
                {
                    object.insert(name, Value::String(String::new()));
                }
                objects.push(Value::Object(object));
            }
            // A bad row says nothing of types; it is reported when it is read.
            _ => first_bad = first_bad.or_else(|| Some((number, explain(&line, EXPECTED)?))),
        }
    }
    if let (true, Some((number, reason))) = (objects.is_empty(), first_bad) {
        return Err(Trouble::Bad(format!("not readable as JSONL: line {number}: {reason}")));
    }
    infer_json_schema_from_iterator(objects.into_iter().map(Ok::<_, ArrowError>))
        .map_err(|error| Trouble::Bad(format!("not readable as JSONL: {}", first_line(&error.to_string()))))
}

/// Reads the rows `wanted` of `file` and returns how many rows were passed, which is all of the file's unless
/// `wanted` ends before.
pub(super) fn read(
    file: &DataFile,
    input: impl Read,
    wanted: Range<u64>,
    output: &mut Output,
) -> Result<u64, Stop> {
    let split = &file.found.split;
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut lines = Lines::default();
    let (mut next, mut number) = (0, 0);
    let mut start = wanted.start;
    while next < wanted.end {
        number += 1;
        match next_line(&mut input, &mut line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => match trouble(&file.found, error) {
                Trouble::Failed(error) => return Err(Stop::Failed(error)),
                Trouble::Bad(reason) => {
                    lines.hand_on(file, start.min(next)..next, output)?;
                    let reason = format!("unreadable from line {number} on: {reason}");
                    return output.bad(BadUnit::file(split.as_str(), reason), 0).map(|()| next);
                }
            },
        }
        if is_blank(&line) {
            continue;
        }
        let row = next;
        next += 1;
        if row < wanted.start {
            continue;
        }
        lines.push(row, number, &line);
        if lines.places.len() == output.batch_size || lines.bytes.len() >= WAITING_BYTES {
            lines.hand_on(file, start..next, output)?;
            start = next;
        }
    }
    lines.hand_on(file, start.min(next)..next, output)?;
    Ok(next)
}

/// Lines that wait.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Of each line its row in the file, its number and where it ends in `bytes`.
    places: Vec<(u64, u64, usize)>,
}

impl Lines {
    fn push(&mut self, row: u64, number: u64, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.places.push((row, number, self.bytes.len()));
    }

    /// Decodes the lines that wait and hands them on as the rows `range` of the file, without the bad ones.
    fn hand_on(&mut self, file: &DataFile, range: Range<u64>, output: &mut Output) -> Result<(), Stop> {
        let Lines { bytes, places } = std::mem::take(self);
        let split = &file.found.split;
        if places.is_empty() {
            return output.pass(split, range);
        }
        let schema = SchemaRef::clone(&output.wanted);
        let starts = std::iter::once(0).chain(places.iter().map(|(.., end)| *end));
        let each: Vec<&[u8]> = starts.zip(&places).map(|(start, (.., end))| &bytes[start..*end]).collect();
        if let Ok(rows) = decoded(&schema, each.iter().copied()) {
            return output.rows(split, range, &rows, None);
        }
        let (mut good, mut numbers) = (Vec::new(), Vec::new());
        for (line, &(row, number, _)) in each.iter().zip(&places) {
            match decoded(&schema, std::iter::once(*line)) {
                Ok(rows) => {
                    good.push(rows);
                    numbers.push(row);
                }
                Err(reason) => {
                    let reason = explain(line, EXPECTED).unwrap_or(reason);
                    let reason = format!("line {number}: {reason}");
                    output.bad(BadUnit::row(split.as_str(), row, reason), 1)?;
                }
            }
        }
        if good.is_empty() {
            return output.pass(split, range);
        }
        let rows = concat_batches(&schema, &good)
            .map_err(|error| Stop::Failed(crate::Error::Internal(error.to_string())))?;
        output.rows(split, range, &rows, Some(&numbers))
    }
}

/// Reads the next line with its end; false at the end of the file.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    input.by_ref().take(LONGEST_BYTES).read_until(b'\n', line)?;
    if line.len() as u64 == LONGEST_BYTES {
        return Err(io::Error::other("a line of more than 64 MiB, expected one object per line"));
    }
    if line.last().is_some_and(|&last| last != b'\n') {
        line.push(b'\n');
    }
    Ok(!line.is_empty())
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}
