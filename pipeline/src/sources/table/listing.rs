//! The files of a table by their names: what a batch chooses from before it looks into any.

use super::delta::{self as log, Log};
use super::discover::{self, FoundFile, Place};
use super::{OnBadRow, Plan, Table, TableConfig, schema};
use crate::sources::{BadUnit, BadUnits};
use crate::{Error, Result, delta, location::Location};
use arrow::datatypes::FieldRef;
use std::sync::Arc;

/// The files of a table, in the order in which they are read.
#[derive(Debug, Clone)]
pub struct Listing {
    config: TableConfig,
    place: Place,
    files: Vec<FoundFile>,
    /// The columns that files have by their place, of all files.
    partitions: Vec<FieldRef>,
    /// The log that names them, if one does.
    log: Option<Log>,
}

/// A file of a listing.
#[derive(Debug, Clone, Copy)]
pub struct ListedFile<'a> {
    location: &'a Location,
    file: &'a FoundFile,
}

impl Listing {
    /// Finds the files.
    pub async fn of(config: &TableConfig) -> Result<Self> {
        Self::at(config, discover::resolve(config)?).await
    }

    pub(super) async fn at(config: &TableConfig, place: Place) -> Result<Self> {
        config.check()?;
        let Place { location, patterns } = &place;
        // Not asked of a web server, which has no lists.
        let is_file = location.is_local_file() || location.name().starts_with("http");
        let (log, files) = if patterns.is_empty() && !is_file && delta::has_log(location).await? {
            let (log, files) = log::list(config, location).await?;
            (Some(log), files)
        } else if let Some(version) = config.version.or(config.since) {
            let reason = format!("is {version}, but {} is no Delta table", config.path);
            return Err(Error::setting("version or since", reason));
        } else {
            (None, discover::list(config, &place).await?)
        };
        Ok(Self::with(config, place, log, files))
    }

    fn with(config: &TableConfig, place: Place, log: Option<Log>, files: Vec<FoundFile>) -> Self {
        let partitions = schema::partitions(config, &files, log.as_ref().map(|log| &log.columns));
        Self { config: config.clone(), place, files, partitions, log }
    }

    /// The version of the table, if it has versions.
    pub fn version(&self) -> Option<u64> {
        self.log.as_ref().map(|log| log.version)
    }

    /// The id of the table, if it has versions.
    pub fn table_id(&self) -> Option<&str> {
        self.log.as_ref().map(|log| log.id.as_str())
    }

    /// The version after which rows are to have come, if one was asked for.
    pub fn asked_since(&self) -> Option<u64> {
        self.config.since
    }

    /// Whether a version was asked for, and not the newest.
    pub fn is_pinned(&self) -> bool {
        self.config.version.is_some()
    }

    /// Whether what cannot be read is left out.
    pub fn skips_bad(&self) -> bool {
        self.config.on_bad_row == OnBadRow::Skip
    }

    /// Of a table with versions what came since one, which is not newer, and the files `planned`, which had been found before.
    pub async fn since(self, version: u64, planned: Vec<PlannedFile>) -> Result<Self> {
        let Some(log) = self.log else { return Ok(self) };
        let (log, mut files) = log.since(version).await?;
        for file in planned {
            files.push(log.planned(file)?);
        }
        Ok(Self::with(&self.config, self.place, Some(log), files))
    }

    /// Whether the file `name` in the folder at `place` would be one of them, or any other there is.
    pub fn would_have(&self, place: &Location, name: &str) -> bool {
        let is_there = |file: &FoundFile| file.path.prefix_matches(place.path());
        self.place.would_have(&place.within(name))
            || (place.is_same_store(&self.place.location) && self.files.iter().any(is_there))
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = ListedFile<'_>> {
        self.files.iter().map(|file| ListedFile { location: &self.place.location, file })
    }

    /// Looks into the files that are `wanted`, and gives the table of those that can be read, and those that cannot;
    /// `id` is the column that names rows. No table, if there is none to read.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub async fn look(
        &self,
        id: Option<&str>,
        wanted: impl Fn(ListedFile<'_>) -> bool,
    ) -> Result<(Option<Table>, BadUnits)> {
        let (config, location) = (&self.config, &self.place.location);
        let is_wanted = |file: &&FoundFile| wanted(ListedFile { location, file });
        let found = self.files.iter().filter(is_wanted).cloned().collect();
        let (files, bad) = schema::inspect(config, id, location, &self.partitions, found).await?;
        if files.is_empty() {
            return Ok((None, bad));
        }
        let schema = schema::union(config, &files, self.log.as_ref().map(|log| &log.columns))?;
        let (config, location) = (config.clone(), location.clone());
        let told = self.log.is_some();
        let plan = Plan { config, location, files, schema, told, bad: bad.clone() };
        Ok((Some(Table { plan: Arc::new(plan) }), bad))
    }

    /// Looks into all files.
    pub(super) async fn open(&self, id: Option<&str>) -> Result<Table> {
        match self.look(id, |_| true).await? {
            (Some(table), _) => Ok(table),
            (None, bad) => Err(match bad.listed().first() {
                Some(first) => {
                    let reason =
                        format!("none of its {} files can be read; the first is {first}", bad.units());
                    Error::Bad(BadUnit::file(&self.config.path, reason))
                }
                None => Error::place(&self.config.path, "is empty: no file in it has a column"),
            }),
        }
    }
}

/// A file, as a plan remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its name, the same wherever the program is started.
    pub url: String,
    /// Its length.
    pub bytes: u64,
    /// The values of partition columns.
    pub partition: Vec<(String, Option<String>)>,
}

impl ListedFile<'_> {
    /// Its name, the same wherever the program is started.
    pub fn url(&self) -> String {
        self.location.url_of(&self.file.path)
    }

    /// The same, as a plan is to remember it.
    pub fn planned(&self) -> PlannedFile {
        let FoundFile { size_bytes, partition, .. } = self.file;
        PlannedFile { url: self.url(), bytes: *size_bytes, partition: partition.clone() }
    }

    /// What changes when its bytes do.
    pub fn version(&self) -> String {
        self.file.version.to_string()
    }
}
