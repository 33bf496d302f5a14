//! A Delta table as files: those that it has at a version, or those that came to it since one.
//!
//! The idea: the log names the files, their partitions and the columns; the files are read as any others. What came since
//! a version is told by the commits after it: files that were added with new rows. Files that only hold rows anew, after a
//! compaction, are none of those. A commit that deleted or changed rows is an error, for then nobody can tell which rows
//! are new.
//!
//! Deletion vectors and mapped columns are not read, and are an error. Source: the Delta protocol, "Action Reconciliation"
//! and "Add File and Remove File" (`dataChange`); Delta's own streaming reader keeps the same rules.

use super::adapt::plain;
use super::discover::{Encoding, FoundFile};
use super::{Format, PlannedFile, TableConfig};
use crate::delta::{engine, failed};
use crate::location::{FileVersion, Location};
use crate::positions::Split;
use crate::worker::on_worker;
use crate::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::LineDelimitedWriter;
use delta_kernel::commit_range::{CommitRange, DeltaAction};
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::snapshot::{Snapshot, SnapshotRef};
use delta_kernel::table_features::ColumnMappingMode;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A table at a version.
#[derive(Debug, Clone)]
pub(super) struct Log {
    location: Location,
    /// The version.
    pub(super) version: u64,
    /// What the table was called when it was made: another one at the same place has another.
    pub(super) id: String,
    /// All columns.
    pub(super) columns: SchemaRef,
}

/// An action of a commit, of those that we ask for.
#[derive(Deserialize)]
struct Action {
    add: Option<Add>,
    remove: Option<Remove>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Add {
    path: String,
    size: u64,
    data_change: bool,
    #[serde(default)]
    partition_values: BTreeMap<String, Option<String>>,
    deletion_vector: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remove {
    data_change: bool,
}

/// What came of a table's log.
pub(super) type Listed = (Log, Vec<FoundFile>);

/// Lists the files of the table at `location`, at its newest version or the one that `config` says.
pub(super) async fn list(config: &TableConfig, location: &Location) -> Result<Listed> {
    let (engine, location, version) = (engine(location), location.clone(), config.version);
    let since = config.since;
    let (log, files) = on_worker(move || {
        let wrong = |error| match version {
            Some(version) => {
                let reason = format!("cannot be read at version {version}: {error}");
                Error::place(location.name(), reason)
            }
            None => failed(&location, error),
        };
        let mut builder = Snapshot::builder_for(location.folder_url()?.as_str());
        if let Some(version) = version {
            builder = builder.at_version(version);
        }
        let snapshot = builder.build(engine.as_ref()).map_err(wrong)?;
        let columns = columns(&location, &snapshot)?;
        let mut found: Vec<ScanFile> = Vec::new();
        let scan = Arc::clone(&snapshot).scan_builder().build().map_err(wrong)?;
        for metadata in scan.scan_metadata(engine.as_ref()).map_err(wrong)? {
            let take = |found: &mut Vec<ScanFile>, file| found.push(file);
            found = metadata.and_then(|metadata| metadata.visit_scan_files(found, take)).map_err(wrong)?;
        }
        let listed = |file: ScanFile| {
            let values = file.partition_values.into_iter().map(|(name, value)| (name, value_of(Some(value))));
            let size = u64::try_from(file.size).unwrap_or_default();
            found_file(&location, &file.path, size, values.collect(), file.dv_info.has_vector())
        };
        let files = found.into_iter().map(listed).collect::<Result<Vec<_>>>()?;
        let id = snapshot.table_configuration().metadata().id().to_string();
        Ok((Log { version: snapshot.version(), id, location, columns }, files))
    })
    .await?;
    match since {
        Some(since) => log.since(since).await,
        None => Ok((log, sorted(files))),
    }
}

impl Log {
    /// Lists the files that came after version `since`.
    pub(super) async fn since(self, since: u64) -> Result<Listed> {
        if since > self.version {
            let reason = format!("has no version {since} yet: it is at version {}", self.version);
            return Err(Error::place(self.location.name(), reason));
        }
        if since == self.version {
            return Ok((self, Vec::new()));
        }
        let engine = engine(&self.location);
        on_worker(move || {
            let location = &self.location;
            let gone = |error| {
                let reason = format!(
                    "its log cannot tell what is new since version {since}: {error}. Is the log's end gone? Label all anew \
                     (--overwrite, or another output)"
                );
                Error::place(location.name(), reason)
            };
            let range = CommitRange::builder_for(location.folder_url()?.as_str(), since + 1)
                .with_end_version(self.version)
                .build(engine.as_ref())
                .map_err(gone)?;
            let actions = [DeltaAction::Add, DeltaAction::Remove];
            let engine: Arc<dyn delta_kernel::Engine> = engine;
            let mut files = Vec::new();
            for commit in range.commits(Arc::clone(&engine), None, &actions).map_err(gone)? {
                let commit = commit.map_err(gone)?;
                for batch in commit.get_actions(engine.as_ref()).map_err(gone)? {
                    let batch = batch.and_then(EngineDataArrowExt::try_into_record_batch).map_err(gone)?;
                    for Action { add, remove } in actions_of(&batch)? {
                        if remove.is_some_and(|remove| remove.data_change) {
                            let reason = format!(
                                "its version {0} deleted or changed rows, and nobody can tell which rows are new since \
                                 version {since}: label all anew (--overwrite, or another output), or only what comes after \
                                 it (since: {0} in a job file's source.table)",
                                commit.version()
                            );
                            return Err(Error::place(location.name(), reason));
                        }
                        let Some(add) = add.filter(|add| add.data_change) else { continue };
                        let has_vector = add.deletion_vector.is_some();
                        let values = add.partition_values.into_iter();
                        let values = values.map(|(name, value)| (name, value_of(value))).collect();
                        files.push(found_file(location, &add.path, add.size, values, has_vector)?);
                    }
                }
            }
            Ok((self, sorted(files)))
        })
        .await
    }
}

impl Log {
    /// A file that was planned before; it may be no part of the table any more, and yet be there.
    pub(super) fn planned(&self, planned: PlannedFile) -> Result<FoundFile> {
        let PlannedFile { url, bytes, partition } = planned;
        let root = format!("{}/", self.location.url_of(self.location.path()).trim_end_matches('/'));
        let other = || Error::place(self.location.name(), format!("is not where {url} was planned"));
        let relative = url.strip_prefix(&root).ok_or_else(other)?;
        let path = Path::parse(format!("{}/{relative}", self.location.path())).map_err(|_| other())?;
        let split = Split::new(format!("{}/{relative}", self.location.name().trim_end_matches('/')));
        Ok(file(split, path, bytes, partition))
    }
}

/// In the order of their paths.
fn sorted(mut files: Vec<FoundFile>) -> Vec<FoundFile> {
    files.sort_by(|a, b| a.path.as_ref().cmp(b.path.as_ref()));
    files
}

/// The columns of a table that we can read.
fn columns(location: &Location, snapshot: &SnapshotRef) -> Result<SchemaRef> {
    let mapping = snapshot.table_properties().column_mapping_mode;
    if mapping.is_some_and(|mode| !matches!(mode, ColumnMappingMode::None)) {
        let reason = "maps its columns to other names (delta.columnMapping.mode), which is not read";
        return Err(Error::place(location.name(), reason));
    }
    let columns: Schema = snapshot
        .schema()
        .as_ref()
        .try_into_arrow()
        .map_err(|error| Error::place(location.name(), format!("its columns cannot be read: {error}")))?;
    let field = |field: &Arc<Field>| Field::new(field.name(), plain(field.data_type()), true);
    Ok(Arc::new(Schema::new(columns.fields().iter().map(field).collect::<Vec<_>>())))
}

/// The actions of a batch of a commit.
fn actions_of(batch: &RecordBatch) -> Result<Vec<Action>> {
    let internal = |error: &dyn std::fmt::Display| Error::Internal(format!("actions of a log: {error}"));
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| internal(&error))?;
    let bytes = writer.into_inner();
    let actions = serde_json::Deserializer::from_slice(&bytes).into_iter();
    actions.collect::<std::result::Result<_, _>>().map_err(|error| internal(&error))
}

/// The value of a partition's column: an empty text stands for null.
fn value_of(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn found_file(
    location: &Location,
    path: &str,
    size_bytes: u64,
    partition: Vec<(String, Option<String>)>,
    has_vector: bool,
) -> Result<FoundFile> {
    let name = format!("{}/{path}", location.name().trim_end_matches('/'));
    if has_vector {
        let reason = "has rows that are marked as deleted (by a deletion vector), which is not read: rewrite the table's \
                      files first (REORG TABLE ... APPLY (PURGE))";
        return Err(Error::place(name, reason));
    }
    if path.contains("://") || path.starts_with('/') {
        return Err(Error::place(
            location.name(),
            format!("has a file elsewhere, which is not read: {path}"),
        ));
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let place = Path::parse(format!("{}/{decoded}", location.path()));
    let place = place.map_err(|error| Error::place(&name, error.to_string()))?;
    Ok(file(Split::new(name), place, size_bytes, partition))
}

fn file(split: Split, path: Path, size_bytes: u64, partition: Vec<(String, Option<String>)>) -> FoundFile {
    let encoding = Encoding { format: Format::Parquet, delimiter: b',', gzip: false };
    FoundFile { split, path, size_bytes, encoding, version: FileVersion::of_size(size_bytes), partition }
}
