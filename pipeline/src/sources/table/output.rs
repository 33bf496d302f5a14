//! What the reader thread hands on: filtered rows in batches of an even size, and the bad input it met.

use super::{OnBadRow, adapt::adapt};
use crate::{
    Error,
    filter::Filter,
    positions::{Batch, Covers, Split, cover},
    sources::BadUnit,
};
use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};
use std::ops::Range;
use tokio::sync::mpsc;

/// Why a file, or a part of it, cannot be read on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its bytes are wrong.
    Bad(String),
    /// Something else failed, which no skipping mends.
    Failed(Error),
}

/// Why the reader thread stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody listens any more.
    Gone,
    /// An error.
    Failed(Error),
}

/// What the reader thread sends.
#[derive(Debug)]
pub(super) enum Message {
    Rows(Batch),
    Bad(BadUnit, u64),
    Failed(Error),
    End,
}

/// Filters, cuts to the columns asked for, and gathers rows into batches of at most `batch_size` rows, so that small
/// files and strict filters do not make small batches: one of less than half of that is handed on only when the rows
/// that come next do not fit into it, or at the end, where it may even be empty.
pub(super) struct Output {
    /// The columns that each file's rows are brought to: those of the output, then those that only `filter` reads.
    pub(super) wanted: SchemaRef,
    pub(super) filter: Option<Filter>,
    pub(super) schema: SchemaRef,
    pub(super) batch_size: usize,
    pub(super) on_bad_row: OnBadRow,
    pub(super) sender: mpsc::Sender<Message>,
    pub(super) pending: Pending,
}

/// Rows that wait for more.
#[derive(Default)]
pub(super) struct Pending {
    batches: Vec<RecordBatch>,
    rows: usize,
    covers: Covers,
}

impl Output {
    /// Takes the rows `range` of `split`; `rows` may lack bad rows of that range.
    pub(super) fn rows(&mut self, split: &Split, range: Range<u64>, rows: &RecordBatch) -> Result<(), Stop> {
        let adapted = match adapt(rows, &self.wanted) {
            Ok(adapted) => adapted,
            Err(error) => {
                let unit =
                    BadUnit::row(split.as_str(), range.start, format!("in the rows from here on: {error}"));
                let lost = rows.num_rows() as u64;
                return self.bad(unit, lost).and_then(|()| self.pass(split, range));
            }
        };
        let mut kept = match &self.filter {
            Some(filter) => filter.apply(&adapted).map_err(Stop::Failed)?,
            None => adapted,
        };
        if self.schema.fields().len() < self.wanted.fields().len() {
            let indices: Vec<usize> = (0..self.schema.fields().len()).collect();
            kept = kept.project(&indices).map_err(internal)?;
        }
        if self.pending.rows + kept.num_rows() > self.batch_size {
            self.flush()?;
        }
        cover(&mut self.pending.covers, split, range);
        self.pending.rows += kept.num_rows();
        if kept.num_rows() > 0 {
            self.pending.batches.push(kept);
        }
        if self.pending.rows >= self.batch_size.div_ceil(2) {
            self.flush()?;
        }
        Ok(())
    }

    /// Covers the rows `range` of `split` without giving any of them: pruned or bad ones.
    pub(super) fn pass(&mut self, split: &Split, range: Range<u64>) -> Result<(), Stop> {
        if !range.is_empty() {
            cover(&mut self.pending.covers, split, range);
        }
        if self.sender.is_closed() { Err(Stop::Gone) } else { Ok(()) }
    }

    /// Reports bad input that holds `rows` rows, or stops.
    pub(super) fn bad(&mut self, unit: BadUnit, rows: u64) -> Result<(), Stop> {
        match self.on_bad_row {
            OnBadRow::Fail => Err(Stop::Failed(Error::Bad(unit))),
            OnBadRow::Skip => self.send(Message::Bad(unit, rows)),
        }
    }

    /// Hands on what waits, and the end.
    pub(super) fn finish(mut self) -> Result<(), Stop> {
        if !self.pending.covers.is_empty() {
            self.flush()?;
        }
        self.send(Message::End)
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let Pending { batches, covers, .. } = std::mem::take(&mut self.pending);
        let rows = match <[RecordBatch; 1]>::try_from(batches) {
            Ok([only]) => only,
            Err(many) => concat_batches(&self.schema, &many).map_err(internal)?,
        };
        if covers.is_empty() {
            return Ok(());
        }
        self.send(Message::Rows(Batch { rows, covers }))
    }

    fn send(&self, message: Message) -> Result<(), Stop> {
        self.sender.blocking_send(message).map_err(|_| Stop::Gone)
    }
}

fn internal(error: arrow::error::ArrowError) -> Stop {
    Stop::Failed(Error::Internal(error.to_string()))
}
