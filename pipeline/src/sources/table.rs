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
//!   files are an error. Hive-style folder names (`year=2024/`) are no columns.
//! - `where` and `rows` together: `rows` counts the rows of the source, before `where`.
//! - Memory: whatever the size of a row group, a column of it is fetched 8 MiB at a time.

mod adapt;
mod csv;
mod discover;
mod hub;
mod jsonl;
mod output;
mod parquet;
mod prune;
mod read;
mod schema;
mod text;
mod windows;

pub use read::TableSource;
pub use windows::WINDOW_BYTES;

use super::{BadUnits, Columns, Embeddings};
use crate::{Error, Result, filter::Filter, location::Location};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use discover::DataFile;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A table as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// A file, a folder (read with its subfolders; names that begin with `.` or `_` are left out), a glob (`*`, `?`,
    /// `[...]`, `**`), a URL of an object store (`s3://`, `gs://`, `az://`, `abfss://`, `http://`, `https://`), or a
    /// data set of the hub (`hf://datasets/owner/name[/subset][@revision]`) that is in the local hub cache.
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

/// What is fixed when a table is opened.
#[derive(Debug)]
struct Plan {
    config: TableConfig,
    location: Location,
    files: Vec<DataFile>,
    schema: SchemaRef,
    bad: BadUnits,
}

impl Table {
    /// Finds the files and looks at each; `id` is the column that names rows, which stays text in CSV files. An error
    /// if there are none, if their types differ, or (unless `on_bad_row` is `skip`) if one cannot be read.
    pub async fn open(config: &TableConfig, id: Option<&str>) -> Result<Self> {
        let place = discover::resolve(config)?;
        Self::open_at(config, id, place).await
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
        if self.plan.config.filter.is_some() {
            return None;
        }
        let total = self.plan.files.iter().map(DataFile::rows).sum::<Option<u64>>()?;
        let range = self.plan.config.row_range();
        Some(range.end.min(total).saturating_sub(range.start))
    }

    /// The rows of the largest row group, where files are Parquet.
    pub fn largest_row_group(&self) -> Option<u64> {
        self.plan.files.iter().filter_map(|file| file.row_groups.as_ref()?.iter().max().copied()).max()
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

    async fn open_at(config: &TableConfig, id: Option<&str>, place: discover::Place) -> Result<Self> {
        config.check()?;
        let location = place.location.clone();
        let found = discover::list(config, &place).await?;
        let (files, bad) = schema::inspect(config, id, &location, found).await?;
        let schema = schema::union(config, &files)?;
        Ok(Self { plan: Arc::new(Plan { config: config.clone(), location, files, schema, bad }) })
    }

    /// Checks that the table, and each file of it that says what columns it has, has `column`.
    fn check_needed(&self, column: &str) -> Result<()> {
        let missing = |place: &str, schema: &SchemaRef| Error::MissingColumn {
            column: column.into(),
            place: place.into(),
            columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        };
        if self.plan.schema.field_with_name(column).is_err() {
            return Err(missing(&self.plan.config.path, &self.plan.schema));
        }
        for file in &self.plan.files {
            // The first rows of a JSONL file may lack a field that later rows have.
            if file.found.encoding.format != Format::Jsonl && file.schema.field_with_name(column).is_err() {
                return Err(missing(file.name(), &file.schema));
            }
        }
        Ok(())
    }
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
