//! Files of rows as one table: Parquet, CSV and JSONL; a file, a folder, a glob, an object store, a hub data set.
//!
//! The idea: [`Table::open`] looks at every file once (Parquet footers; the first rows of text files) and fixes what
//! will be read: the files in order, the schema, the rows. [`Table::read`] then streams it through one reader thread
//! that decodes a few batches ahead of the consumer. Every unit (a Parquet row group, else a file) is read by our own
//! code, so that what is corrupt is named, and skipped and counted if that is wanted.
//!
//! What the table looks like:
//! - Files come in the order of their paths (byte by byte), rows in the order of their file.
//! - Columns are the union by name over the files, in the order in which they appear first; all may be null. Text in
//!   any layout (large, view, dictionary) comes out as plain `Utf8`, other dictionaries as their values. Integers of
//!   several widths become the widest, integers and floats become `Float64`, all other differences of type between
//!   files are an error. Hive-style folder names below the table's own (`year=2024/`) are columns behind the files',
//!   whole numbers or text, unless the file has such a column itself.
//! - `where` and `rows` together: `rows` counts the rows of the source, before `where`.
//! - Memory: whatever the size of a row group, a column of it is fetched 8 MiB at a time.

mod adapt;
mod csv;
mod delta;
mod discover;
mod hub;
mod jsonl;
mod listing;
mod output;
mod parquet;
mod prune;
mod read;
mod schema;
mod text;
mod windows;

pub use listing::{ListedFile, Listing, PlannedFile};
pub use read::TableSource;
pub use windows::WINDOW_BYTES;

use super::{BadUnits, Columns, Embeddings};
use crate::{Error, Result, filter::Filter, location::Location};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use discover::{DataFile, RowGroupSize};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A table as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// A file, a folder (read with its subfolders; names that begin with `.` or `_` are left out), a glob (`*`, `?`,
    /// `[...]`, `**`), a URL of an object store (`s3://`, `gs://`, `az://`, `abfss://`, `http://`, `https://`), or a
    /// data set of the hub (`hf://datasets/owner/name[/subset][@revision]`) that is in the local hub cache. A folder with a
    /// `_delta_log` is read as the Delta table that it is.
    pub path: String,
    /// The format of all files. Default: each file by its extension, since folders may be mixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// An SQL condition on the rows. Default: none.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The rows of the source to read, counted before `where`. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowRange>,
    /// The version of a Delta table to read. Default: the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Reads only what came to a Delta table after this version. Default: all that is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The split of a hub data set. Default: `train`, as the hub's own library has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The types of columns of CSV and JSONL files where the first rows mislead. Default: none, types are inferred
    /// from the first 1,000 rows. (A CSV column of `1501.00010` is a number unless it is the job's `id` or `utf8` is
    /// said here.)
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, ColumnType>,
    /// What separates the fields of CSV files. Default: `,`.
    pub delimiter: char,
    /// The most rows of a batch. Default 8,192: enough to keep all cores busy, and 12 MiB of 384-wide float
    /// embeddings.
    pub batch_size: usize,
    /// What a file, row group or row that cannot be read does. Default: `fail`, since a skipped row is a lost row.
    pub on_bad_row: OnBadRow,
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet: `.parquet`, `.pq`.
    Parquet,
    /// Comma-separated values with a header: `.csv`, `.csv.gz`; `.tsv` is separated by tabs.
    Csv,
    /// One JSON object per line: `.jsonl`, `.ndjson`, `.json`, each also with `.gz`.
    Jsonl,
}

/// What bad input does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// Stops the run.
    #[default]
    Fail,
    /// Is left out, counted and listed.
    Skip,
}

/// The type of a column of a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Text.
    Utf8,
    /// Whole numbers of 64 bits.
    Int64,
    /// Numbers of 64 bits.
    Float64,
    /// `true` or `false`.
    Bool,
    /// A day, `2024-12-31`.
    Date,
    /// A time without zone, `2024-12-31T23:59:59`, to the microsecond.
    Timestamp,
}

/// Rows `start` (counted from 0) up to, but without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowRange {
    /// The first row. Default: 0.
    pub start: u64,
    /// One past the last row. Default: the end of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            format: None,
            filter: None,
            rows: None,
            version: None,
            since: None,
            split: None,
            types: BTreeMap::new(),
            delimiter: ',',
            batch_size: 8192,
            on_bad_row: OnBadRow::Fail,
        }
    }
}

impl TableConfig {
    /// Reads all of `path`, with the defaults for the rest.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

/// A table that was looked at: its files, its schema, what is unreadable already. No row is read yet; it can be read
/// any number of times, and gives the same batches each time.
#[derive(Debug, Clone)]
pub struct Table {
    plan: Arc<Plan>,
}

/// A part of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which of [`Table::files`].
    pub file: usize,
    /// Its rows in the file; all where that is nothing.
    pub rows: Option<RowRange>,
    /// About how long it is.
    pub bytes: u64,
}

/// What is fixed when a table is opened.
#[derive(Debug)]
struct Plan {
    config: TableConfig,
    location: Location,
    files: Vec<DataFile>,
    schema: SchemaRef,
    /// Whether the table tells its columns, so that a file may lack some.
    told: bool,
    bad: BadUnits,
}

impl Table {
    /// Finds the files and looks at each; `id` is the column that names rows, which stays text in CSV files. An error
    /// if there are none, if their types differ, or (unless `on_bad_row` is `skip`) if one cannot be read.
    pub async fn open(config: &TableConfig, id: Option<&str>) -> Result<Self> {
        Listing::of(config).await?.open(id).await
    }

    /// The columns of the table.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    /// The names of the files, in the order in which they are read.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.plan.files.iter().map(|file| file.name())
    }

    /// How many rows will come, where that costs nothing to know: Parquet without `where`.
    pub fn rows_hint(&self) -> Option<u64> {
        if self.plan.config.filter.is_some() { None } else { self.rows_scanned() }
    }

    /// How many rows will be looked at, `where` or not, if the files say how many they have: Parquet.
    pub fn rows_scanned(&self) -> Option<u64> {
        let total = self.plan.files.iter().map(DataFile::rows).sum::<Option<u64>>()?;
        let range = self.plan.config.row_range();
        Some(range.end.min(total).saturating_sub(range.start))
    }

    /// About how many bytes will be read: those of its files, as far as their rows are wanted.
    pub fn bytes(&self) -> u64 {
        let Plan { files, .. } = self.plan.as_ref();
        let all: u64 = files.iter().map(|file| file.found.size_bytes).sum();
        let rows = files.iter().map(DataFile::rows).sum::<Option<u64>>().filter(|rows| *rows > 0);
        match rows.zip(self.rows_scanned()) {
            Some((rows, wanted)) => (all as f64 * wanted as f64 / rows as f64) as u64,
            None => all,
        }
    }

    /// The rows of the largest row group, where files are Parquet.
    pub fn largest_row_group(&self) -> Option<u64> {
        let groups = self.plan.files.iter().filter_map(|file| file.row_groups.as_ref()).flatten();
        groups.map(|group| group.rows).max()
    }

    /// Cuts the table where it may be read in parts: into files, and where a file is larger than `bytes`, into runs of row
    /// groups of about that size.
    pub fn parts(&self, bytes: u64) -> Vec<Part> {
        let of_file = |(file, data): (usize, &DataFile)| {
            let part = |rows, bytes| Part { file, rows, bytes };
            let whole = vec![part(None, data.found.size_bytes)];
            match &data.row_groups {
                Some(groups) if data.found.size_bytes > bytes => cut(groups, bytes)
                    .into_iter()
                    .map(|run| part(Some(RowRange { start: run.start, end: Some(run.end) }), run.bytes))
                    .collect(),
                _ => whole,
            }
        };
        self.plan.files.iter().enumerate().flat_map(of_file).collect()
    }

    /// The file `file` of [`Self::files`], by the name that it has everywhere, and its version.
    pub fn file(&self, file: usize) -> Option<(String, String)> {
        let found = &self.plan.files.get(file)?.found;
        Some((self.plan.location.url_of(&found.path), found.version.to_string()))
    }

    /// The same table with its first rows only.
    pub fn first(&self, rows: u64) -> Self {
        let Plan { config, location, files, schema, told, bad } = self.plan.as_ref();
        let RowRange { start, end } = config.rows.unwrap_or_default();
        let last = start.saturating_add(rows);
        let range = RowRange { start, end: Some(end.map_or(last, |end| end.min(last))) };
        let config = TableConfig { rows: Some(range), ..config.clone() };
        let (location, files, schema) = (location.clone(), files.clone(), Arc::clone(schema));
        Self { plan: Arc::new(Plan { config, location, files, schema, told: *told, bad: bad.clone() }) }
    }

    /// The same table with the rows `rows` of one file only, all where that is nothing; no such file is no table.
    pub fn only(&self, file: usize, rows: Option<RowRange>) -> Option<Self> {
        let Plan { config, location, schema, told, .. } = self.plan.as_ref();
        let files = vec![self.plan.files.get(file)?.clone()];
        let config = TableConfig { rows, ..config.clone() };
        let (location, schema) = (location.clone(), Arc::clone(schema));
        let (told, bad) = (*told, BadUnits::default());
        Some(Self { plan: Arc::new(Plan { config, location, files, schema, told, bad }) })
    }

    /// Checks that the files are what they were when they were listed.
    pub async fn check_unchanged(&self) -> Result<()> {
        let Plan { location, files, .. } = self.plan.as_ref();
        for file in files {
            let meta = location.store().head(&file.found.path).await;
            let meta = match meta {
                Ok(meta) => meta,
                // What was read of it is what it was.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(Error::store(file.name(), error)),
            };
            if !location.version_of(&meta).is_same(&file.found.version) {
                let reason = "was changed while it was read; say the same once more";
                return Err(Error::place(file.name(), reason));
            }
        }
        Ok(())
    }

    /// The files that are unreadable as a whole and will be skipped.
    pub fn bad(&self) -> &BadUnits {
        &self.plan.bad
    }

    /// Starts to read `columns`, from the first row, after [`Table::check`]. Call it within a tokio runtime.
    pub fn read(&self, columns: &Columns) -> Result<TableSource> {
        self.check(columns)?;
        read::start(Arc::clone(&self.plan), self.rows_hint(), &columns.resolved(&self.plan.schema))
    }

    /// Checks that each file has `columns` and those of the `where`, and that this is a condition on them.
    pub fn check(&self, columns: &Columns) -> Result<()> {
        let filter = self.plan.config.filter.as_deref();
        let filter = filter.map(|expression| Filter::try_new(expression, &self.plan.schema)).transpose()?;
        let mut needed = columns.resolved(&self.plan.schema).needed;
        needed.extend(filter.iter().flat_map(Filter::columns));
        for column in &needed {
            self.check_needed(column)?;
        }
        Ok(())
    }

    /// Checks that the table, and each file of it that says what columns it has, has `column`.
    fn check_needed(&self, column: &str) -> Result<()> {
        let missing = |place: &str, schema: &SchemaRef| Error::MissingColumn {
            column: column.into(),
            place: place.into(),
            columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        };
        if self.plan.schema.field_with_name(column).is_err() {
            let place = match self.plan.files.as_slice() {
                [only] => only.name(),
                _ => &self.plan.config.path,
            };
            return Err(missing(place, &self.plan.schema));
        }
        for file in self.plan.files.iter().filter(|_| !self.plan.told) {
            // The first rows of a JSONL file may lack a field that later rows have.
            let is_there = file.columns().any(|field| field.name() == column);
            if file.found.encoding.format != Format::Jsonl && !is_there {
                return Err(missing(file.name(), &file.schema));
            }
        }
        Ok(())
    }
}

/// A run of row groups.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    bytes: u64,
}

/// Cuts row groups into runs of at most `bytes`, but of one at least.
fn cut(groups: &[RowGroupSize], bytes: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    for group in groups {
        match runs.last_mut() {
            Some(run) if run.bytes + group.bytes <= bytes => {
                run.end += group.rows;
                run.bytes += group.bytes;
            }
            _ => runs.push(Run { start: at, end: at + group.rows, bytes: group.bytes }),
        }
        at += group.rows;
    }
    runs
}

impl TableConfig {
    /// The rows to read.
    fn row_range(&self) -> std::ops::Range<u64> {
        let rows = self.rows.unwrap_or_default();
        rows.start..rows.end.unwrap_or(u64::MAX)
    }

    fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::setting("batch_size", "is 0, expected at least 1"));
        }
        if !self.delimiter.is_ascii() {
            return Err(Error::setting(
                "delimiter",
                format!("is '{}', expected an ASCII character", self.delimiter),
            ));
        }
        let range = self.row_range();
        if range.start > range.end {
            let reason = format!("start {} is past end {}", range.start, range.end);
            return Err(Error::setting("rows", reason));
        }
        Ok(())
    }
}

impl ColumnType {
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Utf8 => DataType::Utf8,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

#[cfg(test)]
mod tests;
