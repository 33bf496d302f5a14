//! Deterministic samples of a source, drawn in one pass and in bounded memory.
//!
//! The idea: give every row a 64-bit key and keep the n smallest. For [`Selection::Hash`] the key is the seeded xxh3
//! hash of the row's id (of its text, where rows have no id), so the sample does not depend on how rows are ordered,
//! split into files or batched; for [`Selection::Shuffle`] it is that of the row's number, and the n smallest are the
//! first n of a shuffle.
//!
//! Ids are the same if they read the same (7, "7"). The rows of one id are one record: one of them is chosen, the one
//! whose values sort first by Arrow's row format (in columns that have one), so that here, too, nothing depends on
//! order. Rows without an id column are the same record if their texts are equal; all rows without any text are one.

mod sampler;

pub use sampler::{Sample, Sampler};

use crate::text::{BoundTemplate, missing_column};
use crate::{Error, Result, text_column::TextColumn};
use arrow::array::{Array, RecordBatch};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Which rows of a bounded source are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// The `rows` records with the smallest hash of the id: the same on every machine and for any order of rows.
    Hash {
        /// How many records; all, if there are fewer.
        rows: usize,
        /// Another seed draws another sample; 0 by default, so that two jobs without one agree.
        #[serde(default)]
        seed: u64,
    },
    /// The rows numbered from `start` up to, not including, `end`.
    Range {
        /// The first row, counted from 0.
        start: u64,
        /// The row after the last.
        end: u64,
    },
    /// The first `rows` of a seeded shuffle of the row numbers; depends on the order of the source's rows.
    Shuffle {
        /// How many rows; all, if there are fewer.
        rows: usize,
        /// Another seed shuffles otherwise; 0 by default, as above.
        #[serde(default)]
        seed: u64,
    },
    /// Every row.
    All,
}

impl Selection {
    /// Fails if no row could ever be selected.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::Hash { rows: 0, .. } | Self::Shuffle { rows: 0, .. } => {
                Err(Error::setting("rows", "0, expected at least 1"))
            }
            Self::Range { start, end } if start >= end => Err(Error::setting(
                "range",
                format!("from {start} to {end} holds no row, expected start < end"),
            )),
            _ => Ok(()),
        }
    }

    /// The row number from which on nothing is selected, if there is one: a source read in order may stop there.
    pub fn end(&self) -> Option<u64> {
        match *self {
            Self::Range { end, .. } => Some(end),
            _ => None,
        }
    }

    /// How many rows are kept at most.
    fn limit(&self) -> Option<usize> {
        match *self {
            Self::Hash { rows, .. } | Self::Shuffle { rows, .. } => Some(rows),
            Self::Range { .. } | Self::All => None,
        }
    }

    /// Whether rows of one key are one record.
    fn is_by_record(&self) -> bool {
        matches!(self, Self::Hash { .. })
    }
}

/// What tells one record from another.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A column of ids: strings, numbers or dates, none null.
    Id(String),
    /// The text, where there is no id.
    Text(BoundTemplate),
    /// The row's number in the source, where there is neither.
    Row,
}

impl Identity {
    /// Returns the seeded xxh3 hash of each row's id or text (its UTF-8 bytes) or number; an error names a row without
    /// an id.
    ///
    /// `first_row` is the number of the first row.
    pub fn hashes(&self, rows: &RecordBatch, first_row: u64, seed: u64) -> Result<Vec<u64>> {
        let hash = |text: &str| xxh3_64_with_seed(text.as_bytes(), seed);
        match self {
            Self::Row => {
                let numbers = first_row..first_row + rows.num_rows() as u64;
                Ok(numbers.map(|number| xxh3_64_with_seed(&number.to_le_bytes(), seed)).collect())
            }
            Self::Text(template) => {
                let texts = template.render(rows)?.texts;
                Ok((0..texts.len()).map(|row| hash(texts.value(row))).collect())
            }
            Self::Id(column) => {
                let schema = rows.schema_ref();
                let array = rows.column_by_name(column).ok_or_else(|| missing_column(column, schema))?;
                TextColumn::check_type(column, array.data_type())?;
                let ids = TextColumn::try_new(column, array, None)?;
                let mut id = String::new();
                (0..rows.num_rows())
                    .map(|row| {
                        if ids.is_null(row) {
                            let reason = "the id is null, expected one in every row".into();
                            return Err(Error::Row {
                                row: first_row + row as u64,
                                column: column.clone(),
                                reason,
                            });
                        }
                        id.clear();
                        ids.push_to(row, &mut id);
                        Ok(hash(&id))
                    })
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
