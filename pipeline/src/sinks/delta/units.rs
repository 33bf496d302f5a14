//! A Delta table as the output of a batch: all that the units of a run made becomes visible in one commit.
//!
//! One idea: a unit writes files that no commit names, and its mark tells them. When all is done, a seal in the ledger says
//! which units the next commit has, and the commit moves the table's own count of seals by one (an application
//! transaction, as positions of streams are). So a seal is committed once, by whoever comes first, even where the run that
//! made it was killed, or the answer was lost.

use super::file::{self, Growing};
use super::table::{DataFile, Move, Partition, Replaced, Table};
use super::{DeltaSinkConfig, DeltaWriteMode};
use crate::batch::{Ledger, Part, Seal, Sealed, UnitId};
use crate::location::Location;
use crate::positions::{Batch, Positions, Split};
use crate::sinks::{Sink, UnitSink};
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};

/// The application of our commits: its version is how many seals the table has.
const APP: &str = "thema:batch";

/// How many files of a unit may grow at the same time: each holds a row group in memory, and a few units are under way at a
/// time.
const GROWING: usize = 16;

/// How many marks are read at the same time.
const READ_AT_ONCE: usize = 16;

/// Writes the files of units, and commits them.
pub struct DeltaUnits {
    config: DeltaSinkConfig,
    place: Location,
}

impl DeltaUnits {
    /// The table at `place`.
    pub fn new(config: &DeltaSinkConfig, place: Location) -> Self {
        Self { config: config.clone(), place }
    }

    /// How long a file may become.
    pub(crate) fn file_bytes(&self) -> usize {
        self.config.file_bytes
    }

    /// Opens the table for rows of `schema`, or makes it; columns that it lacks are added.
    pub(crate) async fn table(&self, schema: &SchemaRef) -> Result<Table> {
        let DeltaSinkConfig { partition_by, .. } = &self.config;
        for name in partition_by {
            let field = schema.field_with_name(name).map_err(|_| {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let reason = format!("there is no column \"{name}\", only {}", names.join(", "));
                Error::setting("sink.delta.partition_by", reason)
            })?;
            check_type(field.name(), field.data_type())?;
        }
        let existing = Table::existing(self.place.clone()).await?;
        let by = existing.as_ref().map_or(partition_by.as_slice(), |table| table.partition_by());
        if self.config.mode == DeltaWriteMode::OverwritePartitions && by.is_empty() {
            let reason = "is overwrite_partitions, but the table has none: name columns in partition_by of a new table";
            return Err(Error::setting("sink.delta.mode", reason));
        }
        let table = Table::open_to_grow(self.place.clone(), schema, partition_by).await?;
        for name in table.partition_by() {
            let Ok(field) = schema.field_with_name(name) else {
                let reason = format!("is partitioned by {name}, a column that the rows lack");
                return Err(Error::place(self.place.name(), reason));
            };
            check_type(name, field.data_type())?;
        }
        Ok(table)
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Location {
        &self.place
    }

    /// Checks that the table and the ledger know of each other; `anew` where all rows are to be replaced.
    pub(crate) async fn check(&self, ledger: &Ledger, anew: bool) -> Result<()> {
        let name = self.place.name();
        let Some(mut table) = Table::existing(self.place.clone()).await? else {
            return match ledger.seals().await?.is_empty() {
                true => Ok(()),
                false => {
                    Err(Error::place(name, "was removed, but not its ledger: remove the folder _thema, too"))
                }
            };
        };
        let count = sealed(&mut table).await?;
        let last = ledger.seals().await?.last_key_value().map_or(0, |(number, _)| *number);
        if count > last && !anew && !ledger.is_anew() {
            let reason = format!(
                "has {count} commits of batches, but its ledger (_thema) knows {last}: was it removed? Rows would stand \
                 twice; say --overwrite to replace them all"
            );
            return Err(Error::place(name, reason));
        }
        Ok(())
    }

    /// Commits what is done and in no commit yet, plan by plan; the number of files that came to the table.
    pub(crate) async fn seal(&self, ledger: &mut Ledger) -> Result<usize> {
        let (mut files, mut lost, mut last) = (0, 0, None);
        while let Some(mut table) = Table::existing(self.place.clone()).await? {
            // In this order, so that whoever is faster makes what is read later more, and never less.
            let count = sealed(&mut table).await?;
            let seals = ledger.seals().await?;
            ledger.look().await?;
            if let Some(seal) = seals.get(&(count + 1)) {
                if last == Some(count) {
                    return Err(Error::Internal(format!("{}: a commit moved nothing", self.place.name())));
                }
                last = Some(count);
                files += self.commit(&mut table, ledger, count, seal).await?;
                continue;
            }
            let mut sealed: BTreeSet<UnitId> = BTreeSet::new();
            for seal in seals.values() {
                sealed.extend(seal.units()?);
            }
            let is_open = |id: &UnitId| ledger.is_done(*id) && !sealed.contains(id);
            let open: Vec<UnitId> = ledger.units().map(|(id, _)| id).filter(is_open).collect();
            let Some(plan) = open.first().map(|id| id.plan) else { break };
            let open: Vec<UnitId> = open.into_iter().filter(|id| id.plan == plan).collect();
            let gone = self.gone(ledger, &open).await?;
            lost += gone.len();
            for id in &gone {
                ledger.unmark(*id).await?;
            }
            if !gone.is_empty() {
                continue;
            }
            // What was begun anew takes the place of all before; of a plan, what came late comes beside the rest.
            let is_first = ledger.is_anew() && sealed.iter().all(|id| id.plan < ledger.first());
            let is_late = sealed.iter().any(|id| id.plan == plan);
            let replaces = match self.config.mode {
                _ if is_first => Sealed::All,
                DeltaWriteMode::OverwritePartitions if !is_late => Sealed::Partitions,
                _ => Sealed::Nothing,
            };
            // Whoever else seals at the same time, there is a seal to commit then.
            ledger.add_seal(count + 1, &open, replaces).await?;
        }
        if lost > 0 {
            let reason = format!(
                "the files of {lost} units were removed before they came to the table, by a VACUUM perhaps: say the same once \
                 more, and they are written anew"
            );
            return Err(Error::place(self.place.name(), reason));
        }
        Ok(files)
    }

    /// The units that other runs did and of which a file is gone: files that no commit names are what a VACUUM removes.
    async fn gone(&self, ledger: &Ledger, units: &[UnitId]) -> Result<Vec<UnitId>> {
        let looked = stream::iter(units.to_vec()).map(async |id| {
            let done = ledger.done(id).await?;
            for part in done.files.iter().filter(|_| done.run != ledger.run()) {
                if !file::place_of(&self.place, &part.name).exists().await? {
                    return Ok::<_, Error>(Some(id));
                }
            }
            Ok(None)
        });
        let gone: Vec<Option<UnitId>> = looked.buffered(READ_AT_ONCE).try_collect().await?;
        Ok(gone.into_iter().flatten().collect())
    }

    /// Commits a seal, after which the table has `count` and one.
    async fn commit(&self, table: &mut Table, ledger: &Ledger, count: u64, seal: &Seal) -> Result<usize> {
        let marks = stream::iter(seal.units()?).map(async |id| ledger.done(id).await);
        let marks: Vec<_> = marks.buffered(READ_AT_ONCE).try_collect().await?;
        let files: Vec<DataFile> =
            marks.iter().flat_map(|done| &done.files).map(data_file).collect::<Result<_>>()?;
        let replaced = match seal.replaces {
            Sealed::Nothing => Replaced::Nothing,
            Sealed::All => Replaced::All,
            Sealed::Partitions => {
                Replaced::Partitions(files.iter().map(|file| file.partition.clone()).collect())
            }
        };
        let files_count = files.len();
        let moves =
            BTreeMap::from([(APP.to_string(), Move { from: (count > 0).then_some(count), to: count + 1 })]);
        match table.append(files, moves, replaced).await {
            Ok(()) => Ok(files_count),
            // Another run has committed this seal, and more: the next look tells.
            Err(error @ Error::Aborted(_)) => {
                if sealed(table).await? > count {
                    Ok(0)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Writes the files of one unit.
pub(crate) struct DeltaUnit {
    table: Table,
    file_bytes: usize,
    growing: Vec<(Partition, Growing)>,
    files: Vec<DataFile>,
    written: Positions,
}

impl DeltaUnit {
    /// Files of `table`, each of about `file_bytes` at most.
    pub(crate) fn new(table: Table, file_bytes: usize) -> Self {
        Self { table, file_bytes, growing: Vec::new(), files: Vec::new(), written: Positions::default() }
    }

    async fn write_part(&mut self, partition: Partition, rows: RecordBatch) -> Result<()> {
        let mut growing = match self.growing.iter().position(|(of, _)| *of == partition) {
            Some(at) => self.growing.remove(at).1,
            None => Growing::begin(&self.table, &partition)?,
        };
        let bytes = growing.write(rows).await?;
        self.growing.push((partition, growing));
        let is_full = bytes >= self.file_bytes;
        if is_full || self.growing.len() > GROWING {
            // The last is the one that was written to; the first is the one that was not for longest.
            let at = if is_full { self.growing.len() - 1 } else { 0 };
            let (_, ended) = self.growing.remove(at);
            self.files.push(ended.finish().await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for DeltaUnit {
    async fn positions(&mut self, splits: &[Split]) -> Result<Positions> {
        Ok(self.written.of(splits))
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.written.advance(&batch.covers)?;
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        for (partition, rows) in partitioned(&batch.rows, self.table.partition_by())? {
            self.write_part(partition, rows).await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        for (_, growing) in std::mem::take(&mut self.growing) {
            self.files.push(growing.finish().await?);
        }
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        for (_, growing) in std::mem::take(&mut self.growing) {
            growing.abort().await;
        }
        for file in std::mem::take(&mut self.files) {
            file::remove(&self.table, &file).await;
        }
        Ok(())
    }
}

impl UnitSink for DeltaUnit {
    fn parts(&self) -> Result<Vec<Part>> {
        self.files.iter().map(part).collect()
    }
}

/// How many seals a table has.
async fn sealed(table: &mut Table) -> Result<u64> {
    Ok(table.positions(vec![APP.into()]).await?.get(APP).copied().unwrap_or(0))
}

/// The types by whose values tables are partitioned here: a value's text is the same to every writer.
fn check_type(name: &str, data_type: &DataType) -> Result<()> {
    let is_plain =
        data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Boolean | DataType::Date32);
    if is_plain {
        return Ok(());
    }
    let reason = format!("column \"{name}\" is {data_type}, expected text, whole numbers, days or booleans");
    Err(Error::setting("sink.delta.partition_by", reason))
}

/// `rows` by the values of the columns `by`, in the order in which these come first.
fn partitioned(rows: &RecordBatch, by: &[String]) -> Result<Vec<(Partition, RecordBatch)>> {
    if by.is_empty() {
        return Ok(vec![(Vec::new(), rows.clone())]);
    }
    let internal = |error: arrow::error::ArrowError| Error::Internal(error.to_string());
    let texts = |name: &String| -> Result<ArrayRef> {
        let column = rows.column_by_name(name);
        let column = column.ok_or_else(|| Error::Internal(format!("rows without {name}")))?;
        cast(column, &DataType::Utf8).map_err(internal)
    };
    let columns = by.iter().map(texts).collect::<Result<Vec<_>>>()?;
    let mut order: Vec<Partition> = Vec::new();
    let mut found: BTreeMap<Partition, Vec<u32>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let value = |(name, column): (&String, &ArrayRef)| {
            // To a table an empty text is null.
            let text = column.as_string::<i32>();
            let text =
                (text.is_valid(row) && !text.value(row).is_empty()).then(|| text.value(row).to_string());
            (name.clone(), text)
        };
        let partition: Partition = by.iter().zip(&columns).map(value).collect();
        let rows = found.entry(partition).or_insert_with_key(|partition| {
            order.push(partition.clone());
            Vec::new()
        });
        rows.push(u32::try_from(row).map_err(|_| Error::Internal("a batch of 2^32 rows".into()))?);
    }
    let part = |partition: Partition| {
        let indices = UInt32Array::from(found.remove(&partition).unwrap_or_default());
        Ok((partition, take_record_batch(rows, &indices).map_err(internal)?))
    };
    order.into_iter().map(part).collect()
}

/// A file as its unit's mark tells it.
fn part(file: &DataFile) -> Result<Part> {
    let internal = |error: arrow::error::ArrowError| Error::Internal(error.to_string());
    let rows = RecordBatch::from(file.statistics.clone());
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).map_err(internal)?;
    writer.write(&rows).and_then(|()| writer.finish()).map_err(internal)?;
    let bytes = writer.into_inner().map_err(internal)?;
    Ok(Part {
        name: file.name.clone(),
        bytes: file.bytes,
        written: Some(file.written),
        partition: file.partition.clone(),
        statistics: Some(BASE64_STANDARD.encode(bytes)),
    })
}

fn data_file(part: &Part) -> Result<DataFile> {
    let wrong = |reason: String| Error::Internal(format!("the mark of {}: {reason}", part.name));
    let lacks = || wrong("it tells too little of a file of a table".into());
    let (written, statistics) = part.written.zip(part.statistics.as_ref()).ok_or_else(lacks)?;
    let bytes = BASE64_STANDARD.decode(statistics).map_err(|error| wrong(error.to_string()))?;
    let mut batches =
        StreamReader::try_new(bytes.as_slice(), None).map_err(|error| wrong(error.to_string()))?;
    let rows = batches.next().ok_or_else(lacks)?.map_err(|error| wrong(error.to_string()))?;
    let (name, partition) = (part.name.clone(), part.partition.clone());
    Ok(DataFile { name, bytes: part.bytes, written, statistics: StructArray::from(rows), partition })
}
