//! Bad input that was skipped: counted, and the first of it listed, so that nothing is lost in silence.

use serde::Serialize;
use std::fmt;

/// How many skipped units are told; the rest are listed only, so that a broken table does not fill the log.
const TOLD: usize = 10;

/// How many are listed; the rest are counted only, so that a broken table does not fill memory.
const LISTED: usize = 1000;

/// A file, a row group or a row that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadUnit {
    /// The file.
    pub file: String,
    /// The row group in it, if no more than that is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_group: Option<usize>,
    /// The row in it (counted from 0), if no more than that is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Why.
    pub reason: String,
}

/// What was skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BadUnits {
    units: u64,
    rows: u64,
    listed: Vec<BadUnit>,
}

impl BadUnit {
    /// A whole file.
    pub fn file(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { file: file.into(), row_group: None, row: None, reason: reason.into() }
    }

    /// One row group.
    pub fn row_group(file: impl Into<String>, row_group: usize, reason: impl Into<String>) -> Self {
        Self { row_group: Some(row_group), ..Self::file(file, reason) }
    }

    /// One row.
    pub fn row(file: impl Into<String>, row: u64, reason: impl Into<String>) -> Self {
        Self { row: Some(row), ..Self::file(file, reason) }
    }
}

impl fmt::Display for BadUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(row_group) = self.row_group {
            write!(f, ", row group {row_group}")?;
        }
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl BadUnits {
    /// Adds one with the number of its rows that are lost (0 where nobody can know), and warns of the first ten.
    pub fn push(&mut self, unit: BadUnit, rows: u64) {
        if self.listed.len() < TOLD {
            tracing::warn!("skipped {unit}");
        }
        self.units += 1;
        self.rows += rows;
        if self.listed.len() < LISTED {
            self.listed.push(unit);
        }
    }

    /// Adds those of `other`, which were told already.
    pub fn extend(&mut self, other: Self) {
        let room = LISTED.saturating_sub(self.listed.len());
        self.units += other.units;
        self.rows += other.rows;
        self.listed.extend(other.listed.into_iter().take(room));
    }

    /// Whether nothing was skipped.
    pub fn is_empty(&self) -> bool {
        self.units == 0
    }

    /// How many files, row groups and rows were skipped, each counted as one.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// How many rows that is, as far as the files tell: those of an unreadable file are unknown and not counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The first thousand.
    pub fn listed(&self) -> &[BadUnit] {
        &self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_thousand_listed() {
        let mut bad = BadUnits::default();
        for row in 0..800 {
            bad.push(BadUnit::row("a.csv", row, "x"), 1);
        }
        bad.extend(bad.clone());
        assert_eq!((bad.units(), bad.rows(), bad.listed().len()), (1600, 1600, 1000));
    }

    #[test]
    fn the_place_is_named() {
        assert_eq!(
            BadUnit::row_group("a.parquet", 3, "corrupt").to_string(),
            "a.parquet, row group 3: corrupt"
        );
        assert_eq!(BadUnit::row("a.csv", 7, "corrupt").to_string(), "a.csv, row 7: corrupt");
    }
}
