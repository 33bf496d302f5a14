//! A Delta table as a sink: of streams, here; of batches, by [`DeltaUnits`].
//!
//! For streams, rows and the positions they stand for become visible in one commit of the table.
//!
//! One idea: the table says where a stream stands, and nothing else does. A commit is refused unless each position is
//! where this process last saw it, so a process that lost its partitions and does not know it yet writes nothing; and a
//! commit whose answer is lost is no riddle, for the table tells whether it was done. Kafka's own offsets follow for those
//! who watch lag.
//!
//! Dead letters go to a table of their own, with positions of its own, which is committed first. Where a run was cut off
//! between the two, it is ahead of the rows: then it is asked which letters it has, and these are not written again.
//!
//! A message without a payload deletes nothing here: tables keep what they have.

mod columns;
mod file;
mod table;
mod units;

pub(crate) use table::Table;
pub(crate) use units::DeltaUnit;
pub use units::DeltaUnits;

use crate::aside::{DeadLetter, Notice};
use crate::location::Location;
use crate::positions::{Batch, Covers, Positions, Split, cover};
use crate::sinks::Sink;
use crate::sources::kafka::Membership;
use crate::sources::kafka::messages;
use crate::{Error, Result};
use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use file::Growing;
use operators::Kind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use table::{DataFile, Move, Replaced};

/// A table to append to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeltaSinkConfig {
    /// The table's folder, local or in an object store. It is made where there is none.
    pub path: String,
    /// The table of messages that cannot be labelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<String>,
    /// The table of what is noticed: emerging topics and drift. Absent: they are logged, and nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
    /// How long a file may become; a stream commits one that is as long at once. 128 MiB: what readers like best.
    pub file_bytes: usize,
    /// The columns by whose values a batch lays out a table that it makes. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// What the rows of a batch do to those that are there. Default: `append`.
    pub mode: DeltaWriteMode,
}

/// What the rows of a batch do to those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeltaWriteMode {
    /// They come beside them.
    #[default]
    Append,
    /// They take the place of all rows in the partitions that they come to.
    OverwritePartitions,
}

impl Default for DeltaSinkConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            dead_letters: None,
            events: None,
            file_bytes: 128 << 20,
            partition_by: Vec::new(),
            mode: DeltaWriteMode::Append,
        }
    }
}

impl DeltaSinkConfig {
    /// Checks what can be known without the store.
    pub(crate) fn check(&self) -> Result<()> {
        if self.path.is_empty() {
            return Err(Error::setting("sink.delta.path", "names no folder"));
        }
        if self.file_bytes == 0 {
            return Err(Error::setting("sink.delta.file_bytes", "is 0, expected at least 1"));
        }
        Location::parse(&self.path)?;
        for (name, other) in [("dead_letters", &self.dead_letters), ("events", &self.events)] {
            let Some(other) = other else { continue };
            Location::parse(other)?;
            if other.trim_end_matches('/') == self.path.trim_end_matches('/') {
                return Err(Error::setting(format!("sink.delta.{name}"), "is the table of the rows itself"));
            }
        }
        Ok(())
    }
}

/// Writes to a table.
pub(crate) struct DeltaSink {
    rows: Part,
    letters: Option<Part>,
    events: Option<Part>,
    group: String,
    membership: Membership,
    file_bytes: usize,
    /// What is written and not committed stands for these messages.
    written: Covers,
    is_full: bool,
    /// The letters that their table has of messages whose rows are not visible yet.
    known: BTreeSet<(Split, i64)>,
}

/// A table, and what is written to it.
struct Part {
    table: Table,
    growing: Option<Growing>,
    /// Files that are whole, and in no commit.
    files: Vec<DataFile>,
    /// Where the table stands, as we last saw it, of each partition that we asked for.
    seen: Positions,
}

impl DeltaSink {
    /// Opens the tables for rows of `schema`, or makes them.
    pub(crate) async fn open(
        config: &DeltaSinkConfig,
        schema: &Schema,
        group: &str,
        membership: Membership,
    ) -> Result<Self> {
        config.check()?;
        if !config.partition_by.is_empty() || config.mode != DeltaWriteMode::Append {
            return Err(Error::setting("sink.delta.partition_by or mode", "is for batches (thema label)"));
        }
        // Beside the rows that were made of them, payloads are of no use.
        let is_kept =
            |field: &&Arc<Field>| !["kafka_value", "kafka_headers"].contains(&field.name().as_str());
        let kept: Vec<Arc<Field>> = schema.fields().iter().filter(is_kept).cloned().collect();
        let rows = Part::open(&config.path, &Schema::new(kept)).await?;
        let letters = match &config.dead_letters {
            Some(place) => Some(Part::open(place, &letters_schema()).await?),
            None => None,
        };
        let events = match &config.events {
            Some(place) => Some(Part::open(place, &events_schema()).await?),
            None => None,
        };
        Ok(Self {
            rows,
            letters,
            events,
            group: group.into(),
            membership,
            file_bytes: config.file_bytes,
            written: Covers::new(),
            is_full: false,
            known: BTreeSet::new(),
        })
    }

    fn app(&self, split: &Split) -> String {
        format!("{}:{split}", self.group)
    }

    async fn positions_now(&mut self, splits: &[Split]) -> Result<Positions> {
        let apps: Vec<(String, Split)> =
            splits.iter().map(|split| (self.app(split), split.clone())).collect();
        if let Some(letters) = &mut self.letters {
            letters.look(&apps).await?;
        }
        self.rows.look(&apps).await?;
        if let Some(letters) = &self.letters {
            let is_ahead = |split: &&Split| letters.seen.next(split) > self.rows.seen.next(split);
            let ahead: BTreeSet<Split> = splits.iter().filter(is_ahead).cloned().collect();
            if !ahead.is_empty() {
                let found = letters_in(&letters.table.read(&PLACE).await?)?;
                self.known.extend(found.into_iter().filter(|(split, _)| ahead.contains(split)));
            }
        }
        Ok(self.rows.seen.of(splits))
    }

    async fn write_now(&mut self, batch: Batch) -> Result<()> {
        for (split, range) in &batch.covers {
            cover(&mut self.written, split, range.clone());
        }
        if let Some(part) = &mut self.letters {
            let (known, is_ahead) = (&self.known, !self.known.is_empty());
            let place = |letter: &DeadLetter| (letter.message.split.clone(), letter.message.offset);
            let is_new = |letter: &&DeadLetter| !is_ahead || !known.contains(&place(letter));
            let new: Vec<&DeadLetter> = batch.aside.letters.iter().filter(is_new).collect();
            if !new.is_empty() {
                part.write(letters_rows(&new)?, self.file_bytes).await?;
            }
        }
        if let Some(part) = &mut self.events
            && !batch.aside.notices.is_empty()
        {
            part.write(events_rows(&batch.aside.notices)?, self.file_bytes).await?;
        }
        if batch.rows.num_rows() > 0 {
            self.is_full |= self.rows.write(batch.rows, self.file_bytes).await?;
        }
        Ok(())
    }

    async fn commit_now(&mut self) -> Result<()> {
        if !self.written.is_empty() {
            self.commit_rows().await?;
        }
        // Whose rows are visible; they stand for no message, so no position moves with them.
        if let Some(events) = &mut self.events {
            events.finish().await?;
            if !events.files.is_empty() {
                events.commit(Vec::new()).await?;
            }
        }
        Ok(())
    }

    async fn commit_rows(&mut self) -> Result<()> {
        let ends: Vec<(String, Split, u64)> =
            self.written.iter().map(|(split, range)| (self.app(split), split.clone(), range.end)).collect();
        if let Some(letters) = &mut self.letters {
            letters.finish().await?;
            if !letters.files.is_empty() {
                // A table that is ahead stays so.
                let ahead =
                    |split: &Split, end: u64| letters.seen.next(split).is_some_and(|next| next >= end);
                let moved = ends.iter().filter(|(_, split, end)| !ahead(split, *end)).cloned().collect();
                letters.commit(moved).await?;
            }
        }
        self.rows.finish().await?;
        self.rows.commit(ends).await?;
        let seen = &self.rows.seen;
        self.known
            .retain(|(split, offset)| seen.next(split).is_none_or(|next| offset.unsigned_abs() >= next));
        self.membership.follow(&std::mem::take(&mut self.written));
        self.is_full = false;
        Ok(())
    }
}

#[async_trait]
impl Sink for DeltaSink {
    async fn positions(&mut self, splits: &[Split]) -> Result<Positions> {
        self.positions_now(splits).await.map_err(passing)
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.write_now(batch).await.map_err(passing)
    }

    async fn commit(&mut self) -> Result<()> {
        self.commit_now().await.map_err(passing)
    }

    async fn abort(&mut self) -> Result<()> {
        self.written.clear();
        self.is_full = false;
        self.rows.abort().await;
        for part in self.letters.iter_mut().chain(&mut self.events) {
            part.abort().await;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_full
    }
}

impl Part {
    async fn open(place: &str, schema: &Schema) -> Result<Self> {
        let table = Table::open(Location::parse(place)?, schema).await?;
        Ok(Self { table, growing: None, files: Vec::new(), seen: Positions::default() })
    }

    /// Asks the table where it stands.
    async fn look(&mut self, apps: &[(String, Split)]) -> Result<()> {
        let found = self.table.positions(apps.iter().map(|(app, _)| app.clone()).collect()).await?;
        for (app, split) in apps {
            match found.get(app) {
                Some(next) => self.seen.set(split.clone(), *next),
                None => self.seen.forget(split),
            }
        }
        Ok(())
    }

    /// Adds rows; true if a file became as long as it may be.
    async fn write(&mut self, rows: RecordBatch, file_bytes: usize) -> Result<bool> {
        let mut growing = match self.growing.take() {
            Some(growing) => growing,
            None => Growing::begin(&self.table, &[])?,
        };
        let written = growing.write(rows).await;
        self.growing = Some(growing);
        let is_full = written? >= file_bytes;
        if is_full {
            self.finish().await?;
        }
        Ok(is_full)
    }

    /// Ends the file that grows.
    async fn finish(&mut self) -> Result<()> {
        if let Some(growing) = self.growing.take() {
            self.files.push(growing.finish().await?);
        }
        Ok(())
    }

    /// Adds the files to the table, and moves each position to its end.
    async fn commit(&mut self, ends: Vec<(String, Split, u64)>) -> Result<()> {
        let seen = &self.seen;
        let moves: BTreeMap<String, Move> = ends
            .iter()
            .map(|(app, split, end)| (app.clone(), Move { from: seen.next(split), to: *end }))
            .collect();
        // From here on they may be part of the table, whatever the answer.
        self.table.append(std::mem::take(&mut self.files), moves, Replaced::Nothing).await?;
        for (_, split, end) in ends {
            self.seen.set(split, end);
        }
        Ok(())
    }

    async fn abort(&mut self) {
        if let Some(growing) = self.growing.take() {
            growing.abort().await;
        }
        for file in std::mem::take(&mut self.files) {
            file::remove(&self.table, &file).await;
        }
    }
}

/// What a store fails at may pass, and what was not committed can be read again.
fn passing(error: Error) -> Error {
    match error.kind() {
        Kind::External => Error::Aborted(error.to_string()),
        _ => error,
    }
}

/// The columns that say which message a dead letter is.
const PLACE: [&str; 3] = ["kafka_topic", "kafka_partition", "kafka_offset"];

/// Which messages `batches` of the columns [`PLACE`] are.
fn letters_in(batches: &[RecordBatch]) -> Result<Vec<(Split, i64)>> {
    let lacks = || Error::Internal("dead letters are read without their places".into());
    let mut found = Vec::new();
    for batch in batches {
        let topics = batch.column_by_name(PLACE[0]).and_then(|column| column.as_string_opt::<i32>());
        let partitions =
            batch.column_by_name(PLACE[1]).and_then(|column| column.as_primitive_opt::<Int32Type>());
        let offsets =
            batch.column_by_name(PLACE[2]).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let ((topics, partitions), offsets) = topics.zip(partitions).zip(offsets).ok_or_else(lacks)?;
        let places = topics.iter().flatten().zip(partitions.values()).zip(offsets.values());
        found
            .extend(places.map(|((topic, partition), offset)| (messages::split(topic, *partition), *offset)));
    }
    Ok(found)
}

fn letters_schema() -> Schema {
    let mut fields: Vec<Field> =
        messages::schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields
        .extend([Field::new("error", DataType::Utf8, false), Field::new("attempt", DataType::Int32, false)]);
    Schema::new(fields)
}

/// Dead letters as rows: the messages as they came, why they are here, and how often they were tried.
fn letters_rows(letters: &[&DeadLetter]) -> Result<RecordBatch> {
    let whole = messages::rows_of(letters.iter().map(|letter| &letter.message))?;
    let errors: StringArray = letters.iter().map(|letter| Some(letter.reason.as_str())).collect();
    let attempts: Int32Array =
        letters.iter().map(|letter| i32::try_from(letter.attempt).unwrap_or(i32::MAX)).collect();
    let mut columns: Vec<ArrayRef> = whole.columns().to_vec();
    columns.extend([Arc::new(errors) as ArrayRef, Arc::new(attempts)]);
    let schema: SchemaRef = Arc::new(letters_schema());
    RecordBatch::try_new(schema, columns).map_err(|error| Error::Internal(error.to_string()))
}

fn events_schema() -> Schema {
    let zone = Some("UTC".into());
    Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, zone), false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("event", DataType::Utf8, false),
    ])
}

/// What was noticed as rows: when, of which kind, in words and as JSON.
fn events_rows(notices: &[Notice]) -> Result<RecordBatch> {
    let at = TimestampMillisecondArray::from_iter_values(notices.iter().map(|notice| notice.at));
    let texts = notices.iter().map(Notice::json).collect::<Result<Vec<String>>>()?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(at.with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(notices.iter().map(Notice::kind))),
        Arc::new(StringArray::from_iter_values(notices.iter().map(|notice| notice.event.to_string()))),
        Arc::new(StringArray::from(texts)),
    ];
    RecordBatch::try_new(Arc::new(events_schema()), columns)
        .map_err(|error| Error::Internal(error.to_string()))
}
