//! A folder of Parquet files, one for each unit of a batch.
//!
//! A file is visible as a whole or not at all. On a disk it grows in a folder that readers leave alone, and is then given
//! its place; in an object store it is there when its upload ends.

use super::{UnitSink, file::FileSink, parquet};
use crate::batch::{Done, FOLDER, Ledger, READ_AT_ONCE, UnitId, names_in, remove_all, remove_older};
use crate::location::Location;
use crate::report::{count, thousands};
use crate::{Error, Result, delta};
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long no unit takes.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 3600);

/// A folder to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// A local path or the URL of an object store.
    pub path: String,
}

/// Writes the files of units.
#[derive(Debug)]
pub struct FolderSink {
    place: Location,
}

impl FolderConfig {
    /// Where it is.
    ///
    /// # Errors
    /// Files lie there that are not ours.
    pub async fn check(&self) -> Result<Location> {
        let place = Location::parse(&self.path)?;
        check_folder(&place)?;
        let wrong = |reason: &str| Err(Error::place(place.name(), reason));
        if delta::has_log(&place).await? {
            return wrong(
                "is a Delta table: say sink: { delta: { path } } in a job file, or --out delta:PATH",
            );
        }
        // Another run may begin just now: what is ours is looked for last.
        if delta::has_any_beside(&place, FOLDER).await? && !delta::has_any(&place.within(FOLDER)).await? {
            return wrong(
                "holds files that are not ours, or its folder _thema is gone; give an empty folder, or one that thema wrote",
            );
        }
        Ok(place)
    }
}

/// Checks that a folder can be written at `place`.
pub(super) fn check_folder(place: &Location) -> Result<()> {
    if place.is_local_file() {
        return Err(Error::place(place.name(), "is a file, expected a folder"));
    }
    place.check_writable()
}

impl FolderSink {
    /// The folder at `place`.
    pub fn new(place: Location) -> Self {
        Self { place }
    }

    /// Where it is.
    pub(super) fn place(&self) -> &Location {
        &self.place
    }

    /// Warns of files that are gone: of those that took rows away, no run would know.
    pub(super) async fn warn_of_lost(&self, ledger: &Ledger) -> Result<()> {
        let there = names_in(&self.place).await?;
        let absent = ledger.units().map(|(id, _)| id).filter(|id| ledger.is_done(*id));
        let absent = absent.filter(|id| !there.contains(&name_of(*id)));
        let rows = stream::iter(absent.collect::<Vec<_>>())
            .map(|id| async move { Ok::<_, Error>((id, ledger.done(id).await?)) });
        let rows: Vec<(UnitId, Done)> = rows.buffered(READ_AT_ONCE).try_collect().await?;
        let lost: Vec<(UnitId, Done)> = rows.into_iter().filter(|(_, done)| !done.files.is_empty()).collect();
        if let Some((first, _)) = lost.first() {
            let rows = lost.iter().map(|(_, done)| done.rows_out).sum();
            let rows = if rows == 1 { "1 row is".into() } else { format!("{} rows are", thousands(rows)) };
            let files = count(lost.len() as u64, "file");
            tracing::warn!(
                "{}: {rows} gone with {files}, such as {}: no run labels them again but with --overwrite",
                self.place.name(),
                name_of(*first),
            );
        }
        Ok(())
    }

    /// Removes what no reader is to see: files of plans that are void, and files that grow no more.
    pub(super) async fn tidy(&self, ledger: &Ledger) -> Result<()> {
        let is_void = |name: &str| {
            let unit = name.strip_prefix("part-").and_then(|name| name.strip_suffix(".parquet"));
            let unit = unit.and_then(|unit| unit.parse::<UnitId>().ok());
            unit.is_some_and(|unit| (1..ledger.first()).contains(&unit.plan) && name_of(unit) == name)
        };
        remove_all(&self.place, is_void).await?;
        if self.place.is_local() {
            remove_older(&self.place.within(FOLDER).within("parts"), GIVEN_UP);
        }
        Ok(())
    }

    /// Removes the file of a unit, if there is one.
    pub(super) async fn remove(&self, unit: UnitId) -> Result<()> {
        let place = self.place.within(&name_of(unit));
        match place.store().delete(place.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::store(place.name(), error)),
        }
    }

    /// Opens the file of a unit for rows of `schema`; one that is there is replaced in the end.
    pub(super) async fn open(&self, unit: UnitId, schema: &SchemaRef) -> Result<Box<dyn UnitSink>> {
        let place = self.place.within(&name_of(unit));
        let encoder = parquet::Encoder::try_new(schema)?;
        let grows = self.place.is_local().then(|| {
            let name = format!("{unit}-{}", uuid::Uuid::new_v4().simple());
            self.place.within(FOLDER).within("parts").within(&name)
        });
        Ok(Box::new(FileSink::open_again(place, grows, encoder).await?))
    }
}

/// What the file of a unit is called.
fn name_of(unit: UnitId) -> String {
    format!("part-{unit}.parquet")
}
