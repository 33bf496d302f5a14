//! A data file while it is being written.

use super::columns;
use super::table::{DataFile, Partition, Table};
use crate::location::Location;
use crate::sinks::file::Encode;
use crate::sinks::parquet::Encoder;
use crate::worker::on_worker;
use crate::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// A file that grows.
pub(super) struct Growing {
    name: String,
    partition: Partition,
    place: Location,
    schema: SchemaRef,
    upload: BufWriter,
    bytes: u64,
    /// None while it is at work, and after a failure.
    content: Option<Content>,
}

struct Content {
    encoder: Encoder,
    statistics: FileStatsAccumulator,
}

impl Growing {
    /// Begins a file of `table`. Nothing is in the store before there is much, or the end.
    pub(super) fn begin(table: &Table, partition: &[(String, Option<String>)]) -> Result<Self> {
        let name = format!("{}part-{}.zstd.parquet", folder_of(partition), Uuid::new_v4());
        let place = place_of(table.location(), &name);
        let upload = BufWriter::new(place.store().clone(), place.path().clone());
        let (columns, kernel_schema) = table.statistics()?;
        let statistics = FileStatsAccumulator::new(columns, &kernel_schema);
        let content = Some(Content { encoder: Encoder::try_new(table.columns())?, statistics });
        let partition = partition.to_vec();
        Ok(Self { name, partition, place, schema: table.columns().clone(), upload, bytes: 0, content })
    }

    /// Adds rows, and returns about how long the file is now.
    pub(super) async fn write(&mut self, rows: RecordBatch) -> Result<usize> {
        let mut content = self.content.take().ok_or_else(|| self.closed())?;
        let schema = self.schema.clone();
        let (content, ready) = on_worker(move || {
            let rows = columns::stored(&rows, &schema)?;
            content.statistics.merge(&rows).map_err(internal)?;
            let ready = content.encoder.encode(&rows)?;
            Ok((content, ready))
        })
        .await?;
        let bytes = content.encoder.bytes();
        self.content = Some(content);
        self.send(ready).await?;
        Ok(bytes)
    }

    /// Ends the file.
    pub(super) async fn finish(mut self) -> Result<DataFile> {
        let Content { encoder, statistics } = self.content.take().ok_or_else(|| self.closed())?;
        let (last, statistics) =
            on_worker(move || Ok((encoder.finish()?, statistics.finish().map_err(internal)?))).await?;
        let statistics = statistics.ok_or_else(|| Error::Internal("a file without rows".into()))?;
        self.send(last).await?;
        self.upload.shutdown().await.map_err(|error| self.failed(error))?;
        Ok(DataFile {
            name: self.name,
            bytes: self.bytes,
            written: now(),
            statistics,
            partition: self.partition,
        })
    }

    /// Leaves the file, and nothing behind where the store allows it.
    pub(super) async fn abort(mut self) {
        if let Err(error) = self.upload.abort().await {
            tracing::debug!("{}: {error}", self.place.name());
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.bytes += bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        self.upload.put(bytes.into()).await.map_err(|error| Error::store(self.place.name(), error))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        match error.downcast::<object_store::Error>() {
            Ok(error) => Error::store(self.place.name(), error),
            Err(error) => {
                let source = object_store::Error::Generic { store: "upload", source: Box::new(error) };
                Error::store(self.place.name(), source)
            }
        }
    }

    fn closed(&self) -> Error {
        Error::Internal(format!("{} is closed already", self.place.name()))
    }
}

/// Where the file `name` of the table at `root` lies.
pub(super) fn place_of(root: &Location, name: &str) -> Location {
    name.split('/').fold(root.clone(), |place, part| place.within(part))
}

/// The time, in milliseconds of the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The folders by whose names people find a partition, as Hive writes them; none where a value would have to be written
/// otherwise. To readers the log tells the values.
fn folder_of(partition: &[(String, Option<String>)]) -> String {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let name = |(name, value): &(String, Option<String>)| {
        let value = value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
        (is_plain(name) && is_plain(value) && !name.starts_with(['_', '.']))
            .then(|| format!("{name}={value}/"))
    };
    partition.iter().map(name).collect::<Option<String>>().unwrap_or_default()
}

/// Removes a file that no commit will name.
pub(super) async fn remove(table: &Table, file: &DataFile) {
    let place = place_of(table.location(), &file.name);
    if let Err(error) = place.store().delete(place.path()).await {
        tracing::debug!("{}: {error}", place.name());
    }
}

fn internal(error: delta_kernel::KernelError) -> Error {
    Error::Internal(error.to_string())
}
