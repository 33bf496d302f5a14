//! Where rows become visible.
//!
//! A sink shows nothing before [`Sink::commit`]: a run that fails or is killed leaves what was there before. To add a
//! sink: one file here, and one line in [`SinkConfig`].

pub mod delta;
mod file;
mod folder;
mod jsonl;
pub mod kafka;
mod parquet;
mod units;

pub(crate) use file::UPLOAD_BYTES;
pub use folder::{FolderConfig, FolderSink};
pub(crate) use parquet::{ROW_GROUP_BYTES, ROW_GROUP_ROWS};
pub use units::UnitSink;
pub(crate) use units::{UnitSinks, UnitsConfig};

use crate::{
    Error, Result,
    location::Location,
    positions::{Batch, Positions, Split},
};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Takes rows, and makes them visible together with their positions.
#[async_trait]
pub trait Sink: Send {
    /// The next row to read of each of `splits`, by what is visible; a split of which nothing is visible is absent.
    async fn positions(&mut self, splits: &[Split]) -> Result<Positions>;

    /// Takes a batch, which is not visible yet.
    async fn write(&mut self, batch: Batch) -> Result<()>;

    /// Makes all that was written visible.
    async fn commit(&mut self) -> Result<()>;

    /// Removes what was written since the last commit.
    async fn abort(&mut self) -> Result<()>;

    /// Whether what was written should not wait any longer for a commit.
    fn is_full(&self) -> bool {
        false
    }
}

/// A sink as the job file says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SinkConfig {
    /// One Parquet file.
    Parquet(FileConfig),
    /// One file of JSON objects, one per line.
    Jsonl(FileConfig),
    /// A folder of Parquet files, which grows by what is new.
    Folder(FolderConfig),
    /// A topic of Kafka, for streams.
    Kafka(Box<kafka::KafkaSinkConfig>),
    /// A Delta table, for streams, and for batches that take what is new.
    Delta(delta::DeltaSinkConfig),
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// A local path or the URL of an object store.
    pub path: String,
}

impl SinkConfig {
    /// Chooses the sink by the end of `path`: `.parquet` or `.pq`, `.jsonl` or `.ndjson`; `/` for a folder; or by `delta:`
    /// before it.
    pub fn for_path(path: &str) -> Result<Self> {
        if let Some(table) = path.strip_prefix("delta:") {
            return Ok(Self::Delta(delta::DeltaSinkConfig { path: table.into(), ..Default::default() }));
        }
        if path.ends_with('/') {
            return Ok(Self::Folder(FolderConfig { path: path.into() }));
        }
        let none = || {
            let reason = "is no output, expected a name that ends in .parquet or .jsonl, or in / for a folder, \
                          or delta: before the name of a table";
            Error::place(path, reason)
        };
        Self::by_extension(path).ok_or_else(none)
    }

    fn by_extension(path: &str) -> Option<Self> {
        let config = FileConfig { path: path.into() };
        match path.rsplit('/').next()?.rsplit_once('.')?.1 {
            "parquet" | "pq" => Some(Self::Parquet(config)),
            "jsonl" | "ndjson" => Some(Self::Jsonl(config)),
            _ => None,
        }
    }

    /// The file to write.
    ///
    /// # Errors
    /// It is no file, but something that grows, or that only streams write.
    pub fn path(&self) -> Result<&str> {
        match self {
            Self::Parquet(config) | Self::Jsonl(config) => Ok(&config.path),
            Self::Folder(config) => {
                let reason = "is a folder, which `thema label` writes: expected a file that ends in .parquet or .jsonl";
                Err(Error::place(&config.path, reason))
            }
            Self::Kafka(_) => {
                let reason = "is a Kafka topic, which only `thema stream` writes: give a file by --out";
                Err(Error::setting("sink", reason))
            }
            Self::Delta(_) => {
                let reason =
                    "is a Delta table, which `thema label` and `thema stream` write: give a file by --out";
                Err(Error::setting("sink", reason))
            }
        }
    }

    /// The output that grows by what is new, if it is one.
    pub(crate) fn units(&self) -> Option<UnitsConfig<'_>> {
        match self {
            Self::Folder(config) => Some(UnitsConfig::Folder(config)),
            Self::Delta(config) => Some(UnitsConfig::Delta(config)),
            _ => None,
        }
    }

    /// Checks that the output may be written; to be called before any work is done. An existing file is an error
    /// unless `overwrite`.
    pub async fn check(&self, overwrite: bool) -> Result<()> {
        let path = self.path()?;
        if Self::by_extension(path).is_some_and(|other| other != *self) {
            let reason = "the name says another format than the sink; change one of them";
            return Err(Error::place(path, reason));
        }
        file::check(&Location::parse(path)?, overwrite).await
    }

    /// Opens the sink for rows of `schema`, after [`SinkConfig::check`]. Call it within a tokio runtime.
    pub async fn open(&self, schema: &SchemaRef, overwrite: bool) -> Result<Box<dyn Sink>> {
        self.open_at(Location::parse(self.path()?)?, schema, overwrite).await
    }

    async fn open_at(
        &self,
        location: Location,
        schema: &SchemaRef,
        overwrite: bool,
    ) -> Result<Box<dyn Sink>> {
        file::check(&location, overwrite).await?;
        Ok(match self {
            Self::Parquet(_) => {
                let encoder = parquet::Encoder::try_new(schema)?;
                Box::new(file::FileSink::open(location, overwrite, encoder).await?)
            }
            Self::Jsonl(_) => {
                let encoder = jsonl::Encoder;
                Box::new(file::FileSink::open(location, overwrite, encoder).await?)
            }
            Self::Folder(_) | Self::Kafka(_) | Self::Delta(_) => {
                return Err(Error::Internal("this sink is no file".into()));
            }
        })
    }
}

#[cfg(test)]
mod tests;
