//! Where rows come from.
//!
//! To add a source: one file here with its configuration and its [`Source`], and one line in [`SourceConfig`].

mod bad;
mod table;

pub use bad::{BadUnit, BadUnits};
pub use table::{ColumnType, Format, OnBadRow, RowRange, Table, TableConfig, TableSource};

use crate::{Result, positions::Event};
use arrow::datatypes::SchemaRef;
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
}

/// A source as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SourceConfig {
    /// Files of rows.
    Table(TableConfig),
}

impl SourceConfig {
    /// Opens the source and starts to read `columns` of it. Call it within a tokio runtime.
    pub async fn open(&self, columns: &Columns) -> Result<Box<dyn Source>> {
        match self {
            Self::Table(config) => Ok(Box::new(Table::open(config).await?.read(columns)?)),
        }
    }
}

/// Which columns to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    needed: Vec<String>,
    others: bool,
}

impl Columns {
    /// All columns there are.
    pub fn all() -> Self {
        Self { needed: Vec::new(), others: true }
    }

    /// These columns and no others; the output has them in this order, each once. Each must be in every file.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut needed: Vec<String> = Vec::new();
        for name in names.into_iter().map(Into::into) {
            if !needed.contains(&name) {
                needed.push(name);
            }
        }
        Self { needed, others: false }
    }

    /// All columns there are in the table's order, of which `names` must be in every file; the others are null for
    /// the rows of a file that lacks them.
    pub fn all_with<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { others: true, ..Self::only(names) }
    }
}
