//! A folder of Parquet files, one for each unit of a batch.
//!
//! A file is visible as a whole or not at all. On a disk it grows in a folder that readers leave alone, and is then given
//! its place; in an object store it is there when its upload ends.

use super::{Sink, file::FileSink, parquet};
use crate::batch::{FOLDER, Ledger, UnitId, check_place, remove_all, remove_older};
use crate::location::Location;
use crate::Result;
use arrow::datatypes::SchemaRef;
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
        check_place(&place).await?;
        Ok(place)
    }
}

impl FolderSink {
    /// The folder at `place`.
    pub fn new(place: Location) -> Self {
        Self { place }
    }

    /// What the file of a unit is called.
    pub fn name_of(unit: UnitId) -> String {
        format!("part-{unit}.parquet")
    }

    /// Removes all that `ledger` tells of, in an order in which a run that is killed on the way loses nothing: what is not
    /// marked as done is done again.
    pub async fn clear(&self, ledger: &mut Ledger) -> Result<()> {
        ledger.forget_done().await?;
        let is_ours = |name: &str| {
            let unit = name.strip_prefix("part-").and_then(|name| name.strip_suffix(".parquet"));
            unit.is_some_and(|unit| unit.parse::<UnitId>().is_ok())
        };
        remove_all(&self.place, is_ours).await?;
        ledger.forget_plans().await
    }

    /// Removes files that grow no more: those of runs that were killed long ago.
    pub async fn tidy(&self) -> Result<()> {
        let parts = self.place.within(FOLDER).within("parts");
        remove_older(&parts, GIVEN_UP).await
    }

    /// Opens the file of a unit for rows of `schema`; one that is there is replaced in the end.
    pub async fn open(&self, unit: UnitId, schema: &SchemaRef) -> Result<Box<dyn Sink>> {
        let place = self.place.within(&Self::name_of(unit));
        let encoder = parquet::Encoder::try_new(schema)?;
        let grows = self.place.is_local().then(|| {
            let name = format!("{unit}-{}", uuid::Uuid::new_v4().simple());
            self.place.within(FOLDER).within("parts").within(&name)
        });
        Ok(Box::new(FileSink::open_at(place, grows, true, encoder).await?))
    }
}
