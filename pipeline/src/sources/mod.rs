//! Where rows come from.
//!
//! To add a source: one file here with its configuration and its [`Source`], and one line in [`SourceConfig`].

mod bad;
mod json;
pub mod kafka;
mod table;

pub use bad::{BadUnit, BadUnits};
pub use table::{
    ColumnType, Format, ListedFile, Listing, OnBadRow, Part, PlannedFile, RowRange, Table, TableConfig,
    TableSource, WINDOW_BYTES,
};

use crate::{Error, Result, location::Location, positions::Event};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Gives rows, batch after batch, in an order that is the same in every run.
#[async_trait]
pub trait Source: Send {
    /// The schema of every batch.
    fn schema(&self) -> SchemaRef;

    /// How many rows will come, where that costs nothing to know; progress bars show the time left by it.
    fn rows_hint(&self) -> Option<u64>;

    /// Waits for what comes next. After an error or [`Event::End`] nothing more comes.
    async fn next(&mut self) -> Result<Event>;

    /// The bad input that was skipped so far.
    fn bad(&self) -> &BadUnits;

    /// Whether the file at `place` is one of those that are read.
    fn reads(&self, place: &Location) -> bool;
}

/// A source as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SourceConfig {
    /// Files of rows.
    Table(TableConfig),
    /// Topics of Kafka, for streams.
    Kafka(Box<kafka::KafkaConfig>),
}

impl SourceConfig {
    /// Opens the source and starts to read `columns` of it. Call it within a tokio runtime.
    pub async fn open(&self, columns: &Columns) -> Result<Box<dyn Source>> {
        match self {
            Self::Table(config) => {
                let table = Table::open(config, columns.id.as_deref()).await?;
                Ok(Box::new(table.read(columns)?))
            }
            Self::Kafka(_) => Err(self.is_no_table()),
        }
    }
}

impl SourceConfig {
    /// The files, if that is what rows come from.
    pub fn table(&self) -> Option<&TableConfig> {
        match self {
            Self::Table(table) => Some(table),
            Self::Kafka(_) => None,
        }
    }

    /// What to say to whoever wants files.
    pub(crate) fn is_no_table(&self) -> Error {
        Error::setting("source", "is a Kafka topic, which only `thema stream` reads: give files by --input")
    }
}

/// Which columns to read, and what is special about some of them.
///
/// A field of a struct (`meta.title`) is read with its struct.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    needed: Vec<String>,
    others: bool,
    id: Option<String>,
    embeddings: Option<Embeddings>,
}

/// A column of precomputed embeddings: a row whose vector is null, of another length or not finite is a bad row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embeddings {
    /// Its name.
    pub column: String,
    /// Their dimensions. None: as many as the first row has.
    pub dim: Option<usize>,
}

impl Columns {
    /// All columns there are.
    pub fn all() -> Self {
        Self { others: true, ..Self::default() }
    }

    /// These columns and no others; the output has them in this order, each once. Each must be in every file.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut needed: Vec<String> = Vec::new();
        for name in names.into_iter().map(Into::into) {
            if !needed.contains(&name) {
                needed.push(name);
            }
        }
        Self { needed, ..Self::default() }
    }

    /// All columns there are in the table's order, of which `names` must be in every file; the others are null for
    /// the rows of a file that lacks them.
    pub fn all_with<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { others: true, ..Self::only(names) }
    }

    /// Names the column that names rows. In a CSV file its `2302.08150` stays as it is written, where another column's
    /// is a number and loses the last digit.
    pub fn with_id(self, column: Option<&str>) -> Self {
        Self { id: column.map(Into::into), ..self }
    }

    /// Names the column of embeddings, if there is one.
    pub fn with_embeddings(self, embeddings: Option<Embeddings>) -> Self {
        Self { embeddings, ..self }
    }

    /// The same with each name as `schema` has it: of a path the column that it begins with. A name that is not there
    /// stays.
    fn resolved(&self, schema: &Schema) -> Self {
        let column = |name: &String| {
            let found = name
                .match_indices('.')
                .map(|(dot, _)| &name[..dot])
                .chain([name.as_str()])
                .rev()
                .find(|name| schema.field_with_name(name).is_ok());
            found.unwrap_or(name).to_string()
        };
        Self { others: self.others, ..Self::only(self.needed.iter().map(column)) }
            .with_id(self.id.as_deref())
            .with_embeddings(self.embeddings.clone())
    }
}
