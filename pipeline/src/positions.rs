//! Which rows a batch holds: positions travel with the rows, so that both become visible together.
//!
//! A [`Split`] is what a source reads in order: a file, a partition of a topic. A position is always the *next* row
//! to read of its split.

use crate::aside::Aside;
use crate::{Error, Result};
use arrow::array::RecordBatch;
use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

/// A part of a source that is read in order; known by its name (a file's path or URL). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Split(Arc<str>);

/// The rows of each split that a batch stands for, counted from 0.
pub type Covers = BTreeMap<Split, Range<u64>>;

/// The next row to read of each split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(BTreeMap<Split, u64>);

/// Rows, and the source positions they stand for.
///
/// `covers` may span more rows than `rows` has: rows that a filter left out and bad rows that were skipped are
/// covered too.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// The positions they stand for.
    pub covers: Covers,
    /// What leaves with them.
    pub aside: Aside,
}

/// What a source says next.
#[derive(Debug, Clone)]
pub enum Event {
    /// More rows.
    Batch(Batch),
    /// There are no more rows, and there will be none.
    End,
}

impl Split {
    /// Names a split.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Batch {
    /// Rows that stand for `covers`, and nothing beside them.
    pub fn new(rows: RecordBatch, covers: Covers) -> Self {
        Self { rows, covers, aside: Aside::default() }
    }
}

impl Positions {
    /// The next row to read of `split`, if any of its rows is covered.
    pub fn next(&self, split: &Split) -> Option<u64> {
        self.0.get(split).copied()
    }

    /// Moves past the rows that `covers` names. A split may start anywhere; after that, a gap or an overlap is an
    /// internal error, for it would lose rows or write them twice.
    pub fn advance(&mut self, covers: &Covers) -> Result<()> {
        for (split, range) in covers {
            match self.0.get(split) {
                Some(&next) if next != range.start => {
                    return Err(Error::Internal(format!(
                        "{split}: rows {} to {} follow row {next}",
                        range.start, range.end
                    )));
                }
                _ => self.0.insert(split.clone(), range.end),
            };
        }
        Ok(())
    }

    /// Says that `next` is the next row to read of `split`.
    pub fn set(&mut self, split: Split, next: u64) {
        self.0.insert(split, next);
    }

    /// Forgets `split`.
    pub fn forget(&mut self, split: &Split) {
        self.0.remove(split);
    }

    /// Each split with its next row to read.
    pub fn iter(&self) -> impl Iterator<Item = (&Split, u64)> {
        self.0.iter().map(|(split, next)| (split, *next))
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the given splits only.
    pub fn of(&self, splits: &[Split]) -> Self {
        Self(splits.iter().filter_map(|split| Some((split.clone(), self.next(split)?))).collect())
    }
}

/// Adds `range` of `split`; it must follow what `covers` has of that split.
pub(crate) fn cover(covers: &mut Covers, split: &Split, range: Range<u64>) {
    covers.entry(split.clone()).and_modify(|old| old.end = range.end).or_insert(range);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(range: Range<u64>) -> Covers {
        BTreeMap::from([(Split::new("a"), range)])
    }

    #[test]
    fn positions_move_to_the_next_row_to_read() {
        let mut positions = Positions::default();
        positions.advance(&covers(10..20)).unwrap();
        positions.advance(&covers(20..25)).unwrap();
        assert_eq!(positions.next(&Split::new("a")), Some(25));
        assert_eq!(positions.of(&[Split::new("b")]), Positions::default());
    }

    #[test]
    fn a_gap_and_an_overlap_are_refused() {
        let mut positions = Positions::default();
        positions.advance(&covers(0..20)).unwrap();
        assert!(positions.advance(&covers(21..25)).is_err());
        assert!(positions.advance(&covers(19..25)).is_err());
    }
}
