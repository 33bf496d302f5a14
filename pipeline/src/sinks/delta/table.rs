//! A Delta table and its log, by Delta Kernel.
//!
//! One idea: a commit adds files and moves positions in one step, and only from where this process last saw them. The
//! positions are application transactions of the log (`txn` actions): of streams `appId` is `GROUP:TOPIC:PARTITION` and
//! `version` the next message to read; of batches, how many of their commits the table has. Who finds a position moved has lost its partition, and undoes.
//!
//! Source: the Delta protocol, "Transaction Identifiers"; the design of kafka-delta-ingest.

use crate::batch::FOLDER;
use crate::delta::{self, Engine, failed};
use crate::location::Location;
use crate::sinks::delta::columns;
use crate::worker::on_worker;
use crate::{Error, Result};
use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Schema, SchemaRef};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::TryFromArrow;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt};
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::expressions::{ColumnName, Scalar};
use delta_kernel::schema::{DataType, SchemaRef as KernelSchema, StructType};
use delta_kernel::snapshot::{IncrementalReplay, Snapshot, SnapshotRef};
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{BoundWriteContext, CommitResult, UpdateTableOperation, WriteState};
use delta_kernel::{FileMeta, KernelError};
use delta_kernel_default_engine::build_add_file_metadata;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Who commits, as the log names it.
const ENGINE: &str = concat!("thema/", env!("CARGO_PKG_VERSION"));

/// How many commits others may make while ours is tried.
const MOST_CONFLICTS: usize = 100;

/// Commits between two checkpoints, unless the table says otherwise: the protocol's own default is 10, which is for
/// fewer and larger commits.
const CHECKPOINT_EVERY: u64 = 100;

/// How often a log is read again that cannot be read, and how soon: others write to it, and a listing is no snapshot. (One
/// that saw a commit's checksum and not yet the commit is an error to Delta Kernel.)
const READS: usize = 5;
const READ_AGAIN: Duration = Duration::from_millis(50);

/// A table to append to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Table {
    engine: Arc<Engine>,
    location: Location,
    url: Url,
    snapshot: SnapshotRef,
    state: Arc<WriteState>,
    /// The columns of files: those that rows have, without those that the table is partitioned by.
    columns: SchemaRef,
    partition_by: Vec<String>,
    /// What its history calls our commits.
    operation: UpdateTableOperation,
}

/// A file that lies beside the log, and is no part of the table yet.
pub(super) struct DataFile {
    /// Its name in the table's folder.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// When it was written, in milliseconds of the Unix epoch.
    pub(super) written: i64,
    /// Numbers of its columns, by which readers leave files out.
    pub(super) statistics: StructArray,
    /// The values of the columns that the table is partitioned by.
    pub(super) partition: Partition,
}

/// What columns that a table is partitioned by hold, as its log writes it.
pub(super) type Partition = Vec<(String, Option<String>)>;

/// What a commit takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replaced {
    /// Nothing.
    Nothing,
    /// What is in these partitions.
    Partitions(BTreeSet<Partition>),
    /// All.
    All,
}

/// How a table is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Opened {
    /// As it is.
    AsItIs,
    /// A new one is partitioned by these columns; one that is there gets the columns that it lacks.
    ToGrow(Vec<String>),
}

/// A position that is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    /// Where the table was when we looked; nothing where it had nothing.
    pub(super) from: Option<u64>,
    /// Where it is to be.
    pub(super) to: u64,
}

impl Table {
    /// Opens the table at `location` for rows of `schema`, or makes it. Call it within a tokio runtime of many threads.
    ///
    /// # Errors
    /// There are files but no table; the table lacks a column, or has it with another type; we cannot write such a table.
    pub(super) async fn open(location: Location, schema: &Schema) -> Result<Self> {
        Self::open_as(location, schema, Opened::AsItIs).await
    }

    /// The same; a new table is partitioned by columns of `schema`, and columns that a table lacks are added to it.
    pub(super) async fn open_to_grow(
        location: Location,
        schema: &Schema,
        partition_by: &[String],
    ) -> Result<Self> {
        Self::open_as(location, schema, Opened::ToGrow(partition_by.to_vec())).await
    }

    /// Opens the table at `location` to commit to it, if there is one.
    pub(super) async fn existing(location: Location) -> Result<Option<Self>> {
        if !delta::has_log(&location).await? {
            return Ok(None);
        }
        let (engine, url) = (delta::engine(&location), location.folder_url()?);
        on_worker(move || {
            let failed = |error| failed(&location, error);
            let snapshot = Snapshot::builder_for(url.as_str()).build(engine.as_ref()).map_err(failed)?;
            let state = write_state(&snapshot, &engine).map_err(failed)?;
            let partition_by = partition_by(&snapshot);
            let columns = Arc::new(Schema::empty());
            let operation = UpdateTableOperation::Write;
            Ok(Some(Self { engine, location, url, snapshot, state, columns, partition_by, operation }))
        })
        .await
    }

    async fn open_as(location: Location, schema: &Schema, opened: Opened) -> Result<Self> {
        let columns = columns::of(schema);
        let url = location.folder_url()?;
        let engine = delta::engine(&location);
        let is_there = is_there(&location).await?;
        let wanted = Arc::clone(&columns);
        on_worker(move || {
            let failed = |error| failed(&location, error);
            let kernel_schema = StructType::try_from_arrow(wanted.as_ref()).map_err(|error| {
                Error::place(location.name(), format!("a Delta table cannot hold a column: {error}"))
            })?;
            if !is_there {
                location.make_folder()?;
                let layout = match &opened {
                    Opened::ToGrow(by) if !by.is_empty() => DataLayout::partitioned(by),
                    _ => DataLayout::None,
                };
                let made = create_table(url.as_str(), Arc::new(kernel_schema.clone()), ENGINE, false)
                    .with_data_layout(layout)
                    .build(engine.as_ref(), Box::new(FileSystemCommitter::new()))
                    .and_then(|made| made.commit(engine.as_ref()));
                match made {
                    Ok(CommitResult::Committed(_)) => tracing::info!("{}: a new table", location.name()),
                    // Another worker was faster.
                    Ok(CommitResult::Conflicted(_)) | Err(KernelError::TableAlreadyExistsAtPath(_)) => {}
                    Ok(CommitResult::Retryable(retryable)) => return Err(failed(retryable.error)),
                    Err(error) => return Err(failed(error)),
                }
            }
            let mut snapshot = Snapshot::builder_for(url.as_str())
                .with_incremental_crc_replay(IncrementalReplay::Unlimited)
                .build(engine.as_ref())
                .map_err(failed)?;
            let partition_by = partition_by(&snapshot);
            match &opened {
                Opened::ToGrow(by) => {
                    if !by.is_empty() && *by != partition_by {
                        let there = match partition_by.as_slice() {
                            [] => "not partitioned".into(),
                            by => format!("partitioned by {}", by.join(", ")),
                        };
                        let reason = format!("is {there}, not by {}", by.join(", "));
                        return Err(Error::place(location.name(), reason));
                    }
                    check_types(&snapshot, &kernel_schema, location.name())?;
                    snapshot = with_columns(snapshot, &kernel_schema, &engine).map_err(failed)?;
                }
                Opened::AsItIs if !partition_by.is_empty() => {
                    let reason = format!(
                        "is partitioned by {}, which streams do not write: give another table",
                        partition_by.join(", ")
                    );
                    return Err(Error::place(location.name(), reason));
                }
                Opened::AsItIs => {}
            }
            check(&snapshot, &kernel_schema, location.name())?;
            let state = write_state(&snapshot, &engine).map_err(failed)?;
            let kept = wanted.fields().iter().filter(|field| !partition_by.contains(field.name()));
            let columns = Arc::new(Schema::new(kept.cloned().collect::<Vec<_>>()));
            let operation = match opened {
                Opened::AsItIs => UpdateTableOperation::StreamingUpdate,
                Opened::ToGrow(_) => UpdateTableOperation::Write,
            };
            Ok(Self { engine, location, url, snapshot, state, columns, partition_by, operation })
        })
        .await
    }

    /// Where it is.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// The columns that it is partitioned by.
    pub(super) fn partition_by(&self) -> &[String] {
        &self.partition_by
    }

    /// Its columns, as rows are written; those that it is partitioned by are in no file.
    pub(super) fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The columns of which a file's statistics are to be told, and the columns as the table has them.
    pub(super) fn statistics(&self) -> Result<(&[ColumnName], KernelSchema)> {
        let schema = StructType::try_from_arrow(self.columns.as_ref());
        let schema = schema.map_err(|error| Error::Internal(error.to_string()))?;
        Ok((self.state.stats_columns(), Arc::new(schema)))
    }

    /// The position of each of `apps`, as the table has it now.
    pub(super) async fn positions(&mut self, apps: Vec<String>) -> Result<BTreeMap<String, u64>> {
        let table = self.clone();
        let (snapshot, positions) = on_worker(move || {
            let snapshot = table.latest()?;
            let mut positions = BTreeMap::new();
            for app in apps {
                if let Some(next) = table.position(&snapshot, &app)? {
                    positions.insert(app, next);
                }
            }
            Ok((snapshot, positions))
        })
        .await?;
        self.snapshot = snapshot;
        Ok(positions)
    }

    /// The values of the columns `names` that the table has now, as batches; `names` are among its columns.
    pub(super) async fn read(&self, names: &[&str]) -> Result<Vec<RecordBatch>> {
        let (table, names) = (self.clone(), names.iter().map(ToString::to_string).collect::<Vec<_>>());
        on_worker(move || {
            let failed = |error| failed(&table.location, error);
            let schema = table.snapshot.schema().project(&names).map_err(failed)?;
            let scan =
                Arc::clone(&table.snapshot).scan_builder().with_schema(schema).build().map_err(failed)?;
            let found = scan.execute(Arc::clone(&table.engine) as Arc<dyn delta_kernel::Engine>);
            let batches = found.map_err(failed)?;
            batches
                .map(|data| data.and_then(EngineDataArrowExt::try_into_record_batch).map_err(failed))
                .collect()
        })
        .await
    }

    /// Adds `files`, takes away what they replace, and moves positions, all in one commit.
    ///
    /// # Errors
    /// [`Error::Aborted`] where a position is not where it was, or where the store failed: what became visible then is
    /// what [`Self::positions`] says.
    pub(super) async fn append(
        &mut self,
        files: Vec<DataFile>,
        moves: BTreeMap<String, Move>,
        replaced: Replaced,
    ) -> Result<()> {
        let table = self.clone();
        self.snapshot = on_worker(move || table.append_now(&files, &moves, &replaced)).await?;
        Ok(())
    }

    fn append_now(
        &self,
        files: &[DataFile],
        moves: &BTreeMap<String, Move>,
        replaced: &Replaced,
    ) -> Result<SnapshotRef> {
        let name = self.location.name();
        for _ in 0..MOST_CONFLICTS {
            let snapshot = self.latest()?;
            if self.is_done(&snapshot, moves)? {
                return Ok(snapshot);
            }
            let committed = self.commit(&snapshot, files, moves, replaced);
            match committed {
                Ok(CommitResult::Committed(committed)) => {
                    let snapshot = committed.post_commit_snapshot().map_or(snapshot, Arc::clone);
                    let since = committed.post_commit_stats().commits_since_checkpoint;
                    return Ok(self.keep_short(snapshot, since));
                }
                Ok(CommitResult::Conflicted(_)) => {
                    tracing::debug!("{name}: another commit came first; trying again");
                }
                // Whether it was done must be asked.
                Ok(CommitResult::Retryable(failed)) => return self.resolve(moves, failed.error),
                Err(error) => return self.resolve(moves, error),
            }
        }
        Err(Error::Aborted(format!("{name}: {MOST_CONFLICTS} commits of others came first")))
    }

    fn commit(
        &self,
        snapshot: &SnapshotRef,
        files: &[DataFile],
        moves: &BTreeMap<String, Move>,
        replaced: &Replaced,
    ) -> std::result::Result<CommitResult, KernelError> {
        let engine = self.engine.as_ref();
        let is_append = *replaced == Replaced::Nothing;
        let mut builder = Arc::clone(snapshot).update_table(self.operation.clone(), ENGINE, true);
        if is_append && !files.is_empty() {
            builder = builder.with_blind_append();
        }
        let mut transaction = builder.build(engine, Box::new(FileSystemCommitter::new()))?;
        for file in files {
            let place = self.url.join(&file.name)?;
            let meta = FileMeta::new(place, file.written, file.bytes);
            let context = self.context(snapshot, &file.partition)?;
            let added =
                build_add_file_metadata(DataFileMetadata::new(meta, file.statistics.clone()), &context)?;
            transaction.add_files(added);
        }
        if !is_append {
            for listed in Arc::clone(snapshot).scan_builder().build()?.scan_metadata(engine)? {
                transaction.remove_files(replaced.of(listed?.scan_files)?);
            }
        }
        for (app, Move { to, .. }) in moves {
            transaction =
                transaction.with_transaction_id(app.clone(), i64::try_from(*to).unwrap_or(i64::MAX));
        }
        transaction.commit(engine)
    }

    /// What a file of a partition is written by.
    fn context(
        &self,
        snapshot: &SnapshotRef,
        partition: &Partition,
    ) -> std::result::Result<BoundWriteContext, KernelError> {
        let builder = self.state.write_context_builder();
        if partition.is_empty() {
            return builder.build();
        }
        let schema = snapshot.schema();
        let mut values = HashMap::new();
        for (name, text) in partition {
            let field = schema.field(name).ok_or_else(|| KernelError::MissingColumn(name.clone()))?;
            let DataType::Primitive(primitive) = field.data_type() else {
                return Err(KernelError::UnexpectedColumnType(name.clone()));
            };
            let value = match text {
                Some(text) => primitive.parse_scalar(text)?,
                None => Scalar::Null(field.data_type().clone()),
            };
            values.insert(name.clone(), value);
        }
        builder.with_partition_values(values).build()
    }

    /// Finds out whether a commit whose answer is lost was done.
    fn resolve(&self, moves: &BTreeMap<String, Move>, error: KernelError) -> Result<SnapshotRef> {
        let snapshot = self.latest()?;
        if self.is_done(&snapshot, moves)? {
            return Ok(snapshot);
        }
        Err(failed(&self.location, error))
    }

    /// Whether all positions are where they are to be; an error unless they are all where they were.
    fn is_done(&self, snapshot: &SnapshotRef, moves: &BTreeMap<String, Move>) -> Result<bool> {
        let mut done = 0;
        for (app, Move { from, to }) in moves {
            let now = self.position(snapshot, app)?;
            if now == Some(*to) && *from != Some(*to) {
                done += 1;
            } else if now != *from {
                let said = |at: Option<u64>| at.map_or_else(|| "nothing".into(), |at| at.to_string());
                return Err(Error::Aborted(format!(
                    "{}: another process has gone on with {app}: the table has {}, we had {}",
                    self.location.name(),
                    said(now),
                    said(*from)
                )));
            }
        }
        if done > 0 && done < moves.len() {
            let reason = "another process has gone on with some of our partitions";
            return Err(Error::Aborted(format!("{}: {reason}", self.location.name())));
        }
        Ok(done > 0)
    }

    fn latest(&self) -> Result<SnapshotRef> {
        let mut reads = 1;
        loop {
            let latest = Snapshot::builder_from(Arc::clone(&self.snapshot))
                .with_incremental_crc_replay(IncrementalReplay::Unlimited)
                .build(self.engine.as_ref());
            match latest {
                Err(error) if reads < READS => {
                    tracing::debug!("{}: {error}; reading the log again", self.location.name());
                    reads += 1;
                    std::thread::sleep(READ_AGAIN);
                }
                latest => return latest.map_err(|error| failed(&self.location, error)),
            }
        }
    }

    fn position(&self, snapshot: &SnapshotRef, app: &str) -> Result<Option<u64>> {
        let version = snapshot.get_app_id_version(app, self.engine.as_ref());
        let version = version.map_err(|error| failed(&self.location, error))?;
        Ok(version.and_then(|version| u64::try_from(version).ok()))
    }

    /// Writes what spares readers of the log most of it: a checksum with each commit, a checkpoint now and then. Both may
    /// fail without harm.
    fn keep_short(&self, snapshot: SnapshotRef, commits_since_checkpoint: u64) -> SnapshotRef {
        let (engine, name) = (self.engine.as_ref(), self.location.name());
        let snapshot = match snapshot.write_checksum(engine) {
            Ok((_, snapshot)) => snapshot,
            Err(error) => {
                tracing::debug!("{name}: no checksum: {error}");
                snapshot
            }
        };
        let every = snapshot.table_properties().checkpoint_interval.map_or(CHECKPOINT_EVERY, Into::into);
        if commits_since_checkpoint < every {
            return snapshot;
        }
        match snapshot.checkpoint(engine, None) {
            Ok((_, snapshot)) => snapshot,
            Err(error) => {
                tracing::warn!("{name}: no checkpoint: {error}");
                snapshot
            }
        }
    }
}

impl Replaced {
    /// Those of the files `listed` that are taken away.
    fn of(&self, listed: FilteredEngineData) -> std::result::Result<FilteredEngineData, KernelError> {
        let Self::Partitions(partitions) = self else { return Ok(listed) };
        let (data, selected) = listed.into_parts();
        let files = EngineDataArrowExt::try_into_record_batch(Ok::<_, KernelError>(data))?;
        let values = values_of(&files).ok_or_else(|| KernelError::MissingData("partition values".into()))?;
        let is_meant = |(row, values): (usize, &BTreeMap<String, String>)| {
            let is_theirs = |partition: &Partition| {
                !partition.is_empty()
                    && partition.iter().all(|(name, value)| values.get(name) == value.as_ref())
            };
            selected.get(row).copied().unwrap_or(true) && partitions.iter().any(is_theirs)
        };
        let meant = values.iter().enumerate().map(is_meant).collect();
        FilteredEngineData::try_new(Box::new(ArrowEngineData::new(files)), meant)
    }
}

/// The values of partition columns of each file of a scan; null ones, which an empty text stands for, too, are absent.
fn values_of(files: &RecordBatch) -> Option<Vec<BTreeMap<String, String>>> {
    let constants = files.column_by_name("fileConstantValues")?.as_struct_opt()?;
    let maps = constants.column_by_name("partitionValues")?.as_map_opt()?;
    let (names, values) = (maps.keys().as_string_opt::<i32>()?, maps.values().as_string_opt::<i32>()?);
    let of = |row: usize| {
        let range = maps.value_offsets()[row] as usize..maps.value_offsets()[row + 1] as usize;
        let pairs = range.filter(|at| values.is_valid(*at) && !values.value(*at).is_empty());
        pairs.map(|at| (names.value(at).to_string(), values.value(at).to_string())).collect()
    };
    Some((0..maps.len()).map(of).collect())
}

/// The columns that a table is partitioned by.
fn partition_by(snapshot: &SnapshotRef) -> Vec<String> {
    snapshot.table_configuration().logical_partition_columns().to_vec()
}

/// Adds to a table the columns of `wanted` that it lacks.
fn with_columns(
    mut snapshot: SnapshotRef,
    wanted: &StructType,
    engine: &Engine,
) -> std::result::Result<SnapshotRef, KernelError> {
    loop {
        let schema = snapshot.schema();
        let missing: Vec<_> =
            wanted.fields().filter(|field| schema.field(field.name()).is_none()).cloned().collect();
        if missing.is_empty() {
            return Ok(snapshot);
        }
        let mut builder = Arc::clone(&snapshot).update_table(UpdateTableOperation::AlterTable, ENGINE, false);
        for field in missing {
            builder = builder.add_column(field);
        }
        let committed = builder.build(engine, Box::new(FileSystemCommitter::new()))?.commit(engine)?;
        if let CommitResult::Retryable(failed) = committed {
            return Err(failed.error);
        }
        // Whether it was this commit or another's, the newest version tells what there is now.
        snapshot = Snapshot::builder_from(snapshot).build(engine)?;
    }
}

/// Whether there is a table; files without one are an error.
async fn is_there(location: &Location) -> Result<bool> {
    if delta::has_log(location).await? {
        return Ok(true);
    }
    // Another worker may make the table just now, so the log is looked for once more.
    if delta::has_any_beside(location, FOLDER).await? && !delta::has_log(location).await? {
        let reason = "holds files but no Delta table; give an empty place or a table";
        return Err(Error::place(location.name(), reason));
    }
    delta::has_log(location).await
}

fn write_state(snapshot: &SnapshotRef, engine: &Engine) -> std::result::Result<Arc<WriteState>, KernelError> {
    Arc::clone(snapshot)
        .update_table(UpdateTableOperation::StreamingUpdate, ENGINE, true)
        .build(engine, Box::new(FileSystemCommitter::new()))?
        .write_state()
}

/// Checks that the columns that a table has are what ours are.
fn check_types(snapshot: &SnapshotRef, ours: &StructType, name: &str) -> Result<()> {
    let theirs = snapshot.schema();
    let type_of = |field: &delta_kernel::schema::StructField| field.data_type().to_string();
    for field in ours.fields() {
        let Some(found) = theirs.field(field.name()) else { continue };
        if type_of(found) != type_of(field) {
            let (there, here) = (type_of(found), type_of(field));
            let reason = format!("column \"{}\" is {there} there, and {here} here", field.name());
            return Err(Error::place(name, reason));
        }
    }
    Ok(())
}

/// Checks that a table takes our columns, and keeps our positions.
fn check(snapshot: &SnapshotRef, ours: &StructType, name: &str) -> Result<()> {
    let properties = snapshot.table_properties();
    if properties.set_transaction_retention_duration.is_some() {
        let reason = "forgets positions after a while (delta.setTransactionRetentionDuration): unset it";
        return Err(Error::place(name, reason));
    }
    if properties
        .column_mapping_mode
        .is_some_and(|mode| !matches!(mode, delta_kernel::table_features::ColumnMappingMode::None))
    {
        return Err(Error::place(
            name,
            "maps its columns to other names (delta.columnMapping.mode), which we cannot write",
        ));
    }
    let theirs = snapshot.schema();
    if let Some(field) = ours.fields().find(|field| theirs.field(field.name()).is_none()) {
        let there: Vec<&str> = theirs.fields().map(|field| field.name().as_str()).collect();
        let reason = format!("the table has no column \"{}\"; it has {}", field.name(), there.join(", "));
        return Err(Error::place(name, reason));
    }
    check_types(snapshot, ours, name)?;
    for field in theirs.fields().filter(|field| !field.is_nullable()) {
        if ours.field(field.name()).is_none() {
            let reason = format!("column \"{}\" must not be null there, and is not among ours", field.name());
            return Err(Error::place(name, reason));
        }
    }
    Ok(())
}
