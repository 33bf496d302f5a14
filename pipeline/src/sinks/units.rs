//! Where the units of a batch go: a folder, or a Delta table.

use super::Sink;
use super::delta::{DeltaSinkConfig, DeltaUnit, DeltaUnits, DeltaWriteMode, Table};
use super::folder::{FolderConfig, FolderSink, check_folder};
use crate::batch::{Ledger, Part, UnitId};
use crate::location::Location;
use crate::{Error, Result};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

/// Takes the rows of one unit.
#[async_trait]
pub trait UnitSink: Sink {
    /// The files that were written, after a commit.
    fn parts(&self) -> Result<Vec<Part>>;
}

/// An output that grows, as a job says it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UnitsConfig<'a> {
    /// A folder.
    Folder(&'a FolderConfig),
    /// A Delta table.
    Delta(&'a DeltaSinkConfig),
}

/// Writes the files of units.
pub(crate) enum UnitSinks {
    /// Into a folder, where each is visible when its unit is done.
    Folder(FolderSink),
    /// Into a table, where all are visible when all units are done.
    Delta(Box<DeltaUnits>, Option<Table>),
}

impl<'a> UnitsConfig<'a> {
    /// The path as the job says it.
    pub(crate) fn path(self) -> &'a str {
        match self {
            Self::Folder(config) => &config.path,
            Self::Delta(config) => &config.path,
        }
    }

    /// Whether rows may take the place of others.
    pub(crate) fn replaces(self) -> bool {
        matches!(self, Self::Delta(config) if config.mode != DeltaWriteMode::Append)
    }

    /// Where it is, after all checks that need no rows.
    pub(crate) async fn check(self) -> Result<Location> {
        match self {
            Self::Folder(config) => config.check().await,
            Self::Delta(config) => {
                config.check()?;
                if config.dead_letters.is_some() || config.events.is_some() {
                    let reason = "is for streams: what a batch cannot read is listed in _thema/bad";
                    return Err(Error::setting("sink.delta.dead_letters or events", reason));
                }
                let place = Location::parse(&config.path)?;
                check_folder(&place)?;
                Ok(place)
            }
        }
    }

    /// The output at `place`.
    pub(crate) fn open(self, place: &Location) -> UnitSinks {
        match self {
            Self::Folder(_) => UnitSinks::Folder(FolderSink::new(place.clone())),
            Self::Delta(config) => UnitSinks::Delta(Box::new(DeltaUnits::new(config, place.clone())), None),
        }
    }
}

impl UnitSinks {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Folder(folder) => folder.place().name(),
            Self::Delta(units, _) => units.place().name(),
        }
    }

    /// Checks that what is there and what the ledger says fit together; `anew` where all of it is to go.
    pub(crate) async fn check(&self, ledger: &Ledger, anew: bool) -> Result<()> {
        match self {
            Self::Folder(_) if anew => Ok(()),
            Self::Folder(folder) => folder.warn_of_lost(ledger).await,
            Self::Delta(units, _) => units.check(ledger, anew).await,
        }
    }

    /// Makes ready for rows of `schema`.
    pub(crate) async fn begin(&mut self, schema: &SchemaRef) -> Result<()> {
        if let Self::Delta(units, table) = self {
            *table = Some(units.table(schema).await?);
        }
        Ok(())
    }

    /// Removes what no reader is to see, after all is planned.
    pub(crate) async fn tidy(&self, ledger: &Ledger) -> Result<()> {
        ledger.tidy().await?;
        match self {
            Self::Folder(folder) => folder.tidy(ledger).await,
            Self::Delta(..) => Ok(()),
        }
    }

    /// Opens what takes the rows of a unit, after [`Self::begin`].
    pub(crate) async fn open(&self, unit: UnitId, schema: &SchemaRef) -> Result<Box<dyn UnitSink>> {
        match self {
            Self::Folder(folder) => folder.open(unit, schema).await,
            Self::Delta(units, Some(table)) => {
                Ok(Box::new(DeltaUnit::new(table.clone(), units.file_bytes())))
            }
            Self::Delta(_, None) => Err(Error::Internal("a table was not opened".into())),
        }
    }

    /// Sees to it that a unit without rows has no file: an earlier run may have left one.
    pub(crate) async fn leave_empty(&self, unit: UnitId) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.remove(unit).await,
            Self::Delta(..) => Ok(()),
        }
    }

    /// Removes what a unit wrote that another run had done; where both write to the same place there is nothing to remove.
    pub(crate) async fn leave(&self, unit: &mut dyn UnitSink) -> Result<()> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Delta(..) => unit.abort().await,
        }
    }

    /// Removes what a unit wrote that is void.
    pub(crate) async fn discard(&self, id: UnitId, unit: &mut dyn UnitSink) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.remove(id).await,
            Self::Delta(..) => unit.abort().await,
        }
    }

    /// Makes visible what is done, where that is not so already; the number of files that came to be seen.
    pub(crate) async fn seal(&self, ledger: &mut Ledger) -> Result<usize> {
        match self {
            Self::Folder(_) => Ok(0),
            Self::Delta(units, _) => units.seal(ledger).await,
        }
    }
}
