//! The sampler: fed batches of a source, keeps the rows of a selection.

use super::{Identity, Selection};
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, make_array};
use arrow::compute::{
    concat_batches, filter_record_batch, interleave, interleave_record_batch, take_record_batch,
};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Draws a sample from batches that come in any order and of any size.
///
/// Holds at most 2n rows of a sample of n, besides those of the batch at hand (for a range or for all rows: those
/// selected); each is copied out of its batch. When rows are put in order, one column at a time is held twice.
pub struct Sampler {
    selection: Selection,
    identity: Identity,
    schema: SchemaRef,
    /// Rows that may be in the sample; `picks` says where each lies.
    buffer: Vec<RecordBatch>,
    picks: Vec<Pick>,
    /// How many batches of `buffer`, from its beginning, need no more merging, and how many picks lie in them.
    merged: (usize, usize),
    /// How many rows were left out since another has their key.
    repeats: HashMap<u64, u64>,
    /// No key above this can be in the sample any more.
    cutoff: u64,
    seen: u64,
}

/// The sampled rows.
///
/// A hash sample is ordered by key, which does not depend on the layout of the source; the others by row number.
#[derive(Debug)]
pub struct Sample {
    /// The rows, as one batch.
    pub rows: RecordBatch,
    /// The number of each row in the source.
    pub row_numbers: Vec<u64>,
    /// The key of each row: for a hash sample the hash of its id, else that of its row number.
    pub keys: Vec<u64>,
    /// How many rows were looked at.
    pub seen: u64,
    /// The records that stood in more than one row: the place of the one that was taken, and how many others there were.
    pub repeated: Vec<(usize, u64)>,
}

impl Sample {
    /// Keeps the rows for which `keep` holds, in order.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) -> Result<()> {
        let mask: Vec<bool> = (0..self.rows.num_rows()).map(keep).collect();
        let kept =
            |values: &[u64]| values.iter().zip(&mask).filter(|(_, keep)| **keep).map(|(v, _)| *v).collect();
        (self.row_numbers, self.keys) = (kept(&self.row_numbers), kept(&self.keys));
        let places: Vec<usize> = mask
            .iter()
            .scan(0, |place, kept| Some(std::mem::replace(place, *place + usize::from(*kept))))
            .collect();
        self.repeated.retain(|(row, _)| mask[*row]);
        self.repeated.iter_mut().for_each(|(row, _)| *row = places[*row]);
        self.rows = filter_record_batch(&self.rows, &mask.into())?;
        Ok(())
    }
}

/// A row that may be in the sample.
#[derive(Debug, Clone, Copy)]
struct Pick {
    key: u64,
    row_number: u64,
    /// Its place: a batch of the buffer, and the row in it.
    place: (usize, usize),
}

/// How many small batches are merged into one: a batch of few rows takes more memory than they do.
const MERGE: usize = 64;

/// Batches of this many rows, on average, stay as they are: to merge them would hold them twice for nothing.
const LARGE_ROWS: usize = 1024;

impl Sampler {
    /// Starts an empty sample of a source with this schema.
    pub fn try_new(selection: Selection, identity: Identity, schema: SchemaRef) -> Result<Self> {
        selection.check()?;
        Ok(Self {
            selection,
            identity,
            schema,
            buffer: Vec::new(),
            picks: Vec::new(),
            merged: (0, 0),
            repeats: HashMap::new(),
            cutoff: u64::MAX,
            seen: 0,
        })
    }

    /// Looks at the rows of the source from number `first_row` on.
    pub fn push(&mut self, first_row: u64, rows: &RecordBatch) -> Result<()> {
        let count = u32::try_from(rows.num_rows())
            .map_err(|_| Error::Internal(format!("a batch of {} rows", rows.num_rows())))?;
        self.seen += u64::from(count);
        let numbers = (0..count).map(|row| (first_row + u64::from(row), row));
        let mut candidates: Vec<(u64, u64, u32)> = match self.selection {
            Selection::Hash { seed, .. } => {
                let hashes = self.identity.hashes(rows, first_row, seed)?;
                numbers.zip(hashes).map(|((number, row), key)| (key, number, row)).collect()
            }
            Selection::Range { start, end } => numbers
                .filter(|(number, _)| (start..end).contains(number))
                .map(|(number, row)| (number_key(number, 0), number, row))
                .collect(),
            Selection::Shuffle { seed, .. } => {
                numbers.map(|(number, row)| (number_key(number, seed), number, row)).collect()
            }
            Selection::All => numbers.map(|(number, row)| (number_key(number, 0), number, row)).collect(),
        };
        if let Some(limit) = self.selection.limit() {
            candidates.retain(|(key, ..)| *key <= self.cutoff);
            keep_smallest_keys(&mut candidates, limit);
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let indices: UInt32Array = candidates.iter().map(|(.., row)| *row).collect::<Vec<_>>().into();
        let batch = self.buffer.len();
        self.buffer.push(compact(take_record_batch(rows, &indices)?)?);
        let picks = candidates.iter().enumerate();
        self.picks.extend(picks.map(|(i, &(key, row_number, _))| Pick {
            key,
            row_number,
            place: (batch, i),
        }));
        if self.selection.limit().is_some_and(|limit| self.picks.len() > limit.saturating_mul(2)) {
            self.shrink()?;
        } else if self.buffer.len() - self.merged.0 >= MERGE {
            self.merge()?;
        }
        Ok(())
    }

    /// How many rows are held at the moment.
    pub fn held_rows(&self) -> usize {
        self.buffer.iter().map(RecordBatch::num_rows).sum()
    }

    /// Ends the sample.
    pub fn finish(mut self) -> Result<Sample> {
        self.choose()?;
        if !self.selection.is_by_record() {
            self.picks.sort_unstable_by_key(|pick| pick.row_number);
        }
        let repeats = |pick: &Pick| self.repeats.get(&pick.key).copied();
        let repeated = self.picks.iter().enumerate().filter_map(|(row, pick)| Some((row, repeats(pick)?)));
        Ok(Sample {
            repeated: repeated.collect(),
            rows: self.take_picked()?,
            row_numbers: self.picks.iter().map(|pick| pick.row_number).collect(),
            keys: self.picks.iter().map(|pick| pick.key).collect(),
            seen: self.seen,
        })
    }

    /// Drops all rows that are not in the sample of what has been seen.
    fn shrink(&mut self) -> Result<()> {
        self.choose()?;
        let rows = self.take_picked()?;
        for (i, pick) in self.picks.iter_mut().enumerate() {
            pick.place = (0, i);
        }
        self.buffer = vec![rows];
        self.merged = (1, self.picks.len());
        if let (Some(limit), Some(last)) = (self.selection.limit(), self.picks.last())
            && self.picks.len() == limit
        {
            self.cutoff = last.key;
        }
        Ok(())
    }

    /// Orders the picks by key (then row number), leaves one of each record, and of these the first n.
    fn choose(&mut self) -> Result<()> {
        self.picks.sort_unstable_by_key(|pick| (pick.key, pick.row_number));
        if self.selection.is_by_record() {
            let same: Vec<Pick> = self
                .picks
                .chunk_by(|a, b| a.key == b.key)
                .filter(|record| record.len() > 1)
                .flatten()
                .copied()
                .collect();
            for record in same.chunk_by(|a, b| a.key == b.key) {
                *self.repeats.entry(record[0].key).or_default() += record.len() as u64 - 1;
            }
            let first = self.first_by_content(&same)?;
            self.picks.dedup_by_key(|pick| pick.key);
            for pick in &mut self.picks {
                if let Some(chosen) = first.get(&pick.key) {
                    *pick = *chosen;
                }
            }
        }
        self.picks.truncate(self.selection.limit().unwrap_or(usize::MAX));
        Ok(())
    }

    /// Finds, for each key among `picks`, the one whose content sorts first; of equal ones the first in `picks`.
    fn first_by_content(&self, picks: &[Pick]) -> Result<HashMap<u64, Pick>> {
        let mut first: HashMap<u64, Pick> = HashMap::new();
        if picks.is_empty() {
            return Ok(first);
        }
        let rows = self.gather(picks)?;
        let sort_field = |array: &ArrayRef| SortField::new(array.data_type().clone());
        let columns: Vec<ArrayRef> = rows
            .columns()
            .iter()
            .filter(|array| RowConverter::supports_fields(&[sort_field(array)]))
            .cloned()
            .collect();
        let contents =
            RowConverter::new(columns.iter().map(sort_field).collect())?.convert_columns(&columns)?;
        let mut best: HashMap<u64, usize> = HashMap::new();
        for (i, pick) in picks.iter().enumerate() {
            let chosen = best.entry(pick.key).or_insert(i);
            if contents.num_rows() > 0 && contents.row(i) < contents.row(*chosen) {
                *chosen = i;
            }
        }
        first.extend(best.into_iter().map(|(key, i)| (key, picks[i])));
        Ok(first)
    }

    /// Merges the batches that came since the last merge into one.
    fn merge(&mut self) -> Result<()> {
        let (batches, picks) = self.merged;
        let small = &self.buffer[batches..];
        if small.iter().map(RecordBatch::num_rows).sum::<usize>() >= small.len() * LARGE_ROWS {
            self.merged = (self.buffer.len(), self.picks.len());
            return Ok(());
        }
        let rows = concat_batches(&self.schema, &self.buffer[batches..])?;
        let mut starts = Vec::with_capacity(self.buffer.len() - batches);
        let mut start = 0;
        for batch in &self.buffer[batches..] {
            starts.push(start);
            start += batch.num_rows();
        }
        for pick in &mut self.picks[picks..] {
            pick.place = (batches, starts[pick.place.0 - batches] + pick.place.1);
        }
        self.buffer.truncate(batches);
        self.buffer.push(rows);
        self.merged = (self.buffer.len(), self.picks.len());
        Ok(())
    }

    /// Moves the picked rows into one batch, in their order. Each column's old place is freed before the next column is
    /// copied, so that no more than one is held twice.
    fn take_picked(&mut self) -> Result<RecordBatch> {
        let batches = std::mem::take(&mut self.buffer);
        if self.picks.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let places: Vec<_> = self.picks.iter().map(|pick| pick.place).collect();
        let mut columns = vec![Vec::with_capacity(batches.len()); self.schema.fields().len()];
        for batch in batches {
            let (_, arrays, _) = batch.into_parts();
            columns.iter_mut().zip(arrays).for_each(|(column, array)| column.push(array));
        }
        let moved = columns.into_iter().map(|parts: Vec<ArrayRef>| {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            compact_array(&interleave(&parts, &places)?)
        });
        Ok(RecordBatch::try_new(self.schema.clone(), moved.collect::<Result<_>>()?)?)
    }

    /// Copies the picked rows into one batch, in the order of `picks`.
    fn gather(&self, picks: &[Pick]) -> Result<RecordBatch> {
        if picks.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let places: Vec<_> = picks.iter().map(|pick| pick.place).collect();
        Ok(interleave_record_batch(&self.buffer.iter().collect::<Vec<_>>(), &places)?)
    }
}

/// The key of a row number.
fn number_key(number: u64, seed: u64) -> u64 {
    xxh3_64_with_seed(&number.to_le_bytes(), seed)
}

/// Drops the candidates (key, row number, row) whose key is not among the `limit` smallest different ones.
fn keep_smallest_keys(candidates: &mut Vec<(u64, u64, u32)>, limit: usize) {
    if candidates.len() <= limit {
        return;
    }
    candidates.sort_unstable();
    let mut different = 0;
    let mut last = None;
    let kept = candidates.iter().take_while(|(key, ..)| {
        if last != Some(*key) {
            last = Some(*key);
            different += 1;
        }
        different <= limit
    });
    let kept = kept.count();
    candidates.truncate(kept);
}

/// Frees what string views hold of the batches they were taken from.
fn compact(rows: RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(compact_array).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

fn compact_array(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => Ok(std::sync::Arc::new(array.as_string_view().gc())),
        DataType::BinaryView => Ok(std::sync::Arc::new(array.as_binary_view().gc())),
        data_type if data_type.is_nested() => {
            let data = array.to_data();
            let children = data
                .child_data()
                .iter()
                .map(|child| compact_array(&make_array(child.clone())).map(|child| child.to_data()));
            let children = children.collect::<Result<_>>()?;
            Ok(make_array(data.into_builder().child_data(children).build()?))
        }
        _ => Ok(array.clone()),
    }
}
