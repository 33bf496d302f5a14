//! What the reader thread hands on: filtered rows in batches of an even size, and the bad input it met.

use super::{
    Embeddings, OnBadRow,
    adapt::adapt,
    discover::{Constant, FoundFile},
};
use crate::{
    Error,
    filter::Filter,
    positions::{Batch, Covers, Split, cover},
    sources::BadUnit,
};
use arrow::{
    array::{Array, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::SchemaRef,
};
use operators::embedding_column;
use std::{ops::Range, sync::Arc};
use tokio::sync::mpsc;

/// Why a file, or a part of it, cannot be read on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its bytes are wrong.
    Bad(String),
    /// Something else failed, which no skipping mends.
    Failed(Error),
}

impl Trouble {
    /// What it means that a store cannot give the bytes of `file`, which it has named.
    pub(super) fn of(file: &FoundFile, error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Bad("is gone: it was deleted meanwhile".into()),
            error => Self::Failed(Error::store(file.split.as_str(), error)),
        }
    }
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
    /// The columns of one value of the file that is being read.
    pub(super) constants: Arc<[Constant]>,
    pub(super) filter: Option<Filter>,
    pub(super) embeddings: Option<Embeddings>,
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
    /// Takes the rows `range` of `split`. Where `rows` lacks bad rows of that range, `numbers` are those of the others.
    pub(super) fn rows(
        &mut self,
        split: &Split,
        range: Range<u64>,
        rows: &RecordBatch,
        numbers: Option<&[u64]>,
    ) -> Result<(), Stop> {
        let adapted = match adapt(rows, &self.wanted, &self.constants) {
            Ok(adapted) => adapted,
            Err(error) => {
                let unit =
                    BadUnit::row(split.as_str(), range.start, format!("in the rows from here on: {error}"));
                let lost = rows.num_rows() as u64;
                return self.bad(unit, lost).and_then(|()| self.pass(split, range));
            }
        };
        let (kept, rows_kept) = match &self.filter {
            Some(filter) => {
                let mask = filter.mask(&adapted).map_err(Stop::Failed)?;
                (filter_record_batch(&adapted, &mask).map_err(internal)?, Some(mask))
            }
            None => (adapted, None),
        };
        let mut kept = self.without_faults(split, kept, |row| {
            // A mask is searched for a bad row only.
            let set =
                |mask: &BooleanArray| (0..mask.len()).filter(|&i| mask.is_valid(i) && mask.value(i)).nth(row);
            let row = rows_kept.as_ref().map_or(Some(row), set).unwrap_or(row);
            numbers.map_or(range.start + row as u64, |numbers| numbers[row])
        })?;
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

    /// Reports the rows whose embedding is of no use, each by its `number`, and leaves them out.
    fn without_faults(
        &mut self,
        split: &Split,
        rows: RecordBatch,
        number: impl Fn(usize) -> u64,
    ) -> Result<RecordBatch, Stop> {
        let Some(Embeddings { column, dim }) = &mut self.embeddings else { return Ok(rows) };
        let column = column.clone();
        let Some(array) = rows.column_by_name(&column) else { return Ok(rows) };
        let faults = embedding_column::faults(&column, array, dim);
        let faults = faults.map_err(|error| Stop::Failed(error.into()))?;
        if faults.is_empty() {
            return Ok(rows);
        }
        let mut sound = vec![true; rows.num_rows()];
        for (row, reason) in faults {
            sound[row] = false;
            let reason = format!("column \"{column}\": {reason}");
            self.bad(BadUnit::row(split.as_str(), number(row), reason), 1)?;
        }
        filter_record_batch(&rows, &sound.into()).map_err(internal)
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
        self.send(Message::Rows(Batch::new(rows, covers)))
    }

    fn send(&self, message: Message) -> Result<(), Stop> {
        self.sender.blocking_send(message).map_err(|_| Stop::Gone)
    }
}

fn internal(error: arrow::error::ArrowError) -> Stop {
    Stop::Failed(Error::Internal(error.to_string()))
}
