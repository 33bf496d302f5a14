//! One file, written as it grows and visible only as a whole.
//!
//! The bytes go to the store as a multipart upload: on the local disk that is a file named like the output with `#1`
//! behind, beside it or where it is to grow, which a commit renames; in an object store nothing is there before the upload is completed.

use super::{Sink, UnitSink};
use crate::{
    Error, Result,
    batch::Part,
    location::Location,
    positions::{Batch, Positions, Split},
    worker::on_worker,
};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use object_store::{ObjectMeta, ObjectStoreExt, WriteMultipart};

/// Turns rows into the bytes of a file. Runs on a worker thread.
pub(super) trait Encode: Send + Sized + 'static {
    /// Takes `rows` and returns the bytes that are ready.
    fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<u8>>;

    /// Returns the last bytes.
    fn finish(self) -> Result<Vec<u8>>;
}

/// How many parts (5 MiB each by default) may be under way at once.
const PARTS_UNDER_WAY: usize = 4;

/// What waits for a store at most: those parts, and what is gathered for the next.
pub(crate) const UPLOAD_BYTES: usize = (PARTS_UNDER_WAY + 1) * (5 << 20);

/// A [`Sink`] of one file.
pub(super) struct FileSink<E> {
    location: Location,
    /// Where it grows, if that is elsewhere.
    grows: Option<Location>,
    overwrite: bool,
    /// None while it is at work, and after a commit or a failure.
    encoder: Option<E>,
    /// What is written to, kept here at all times so that an abort finds it even if a write was broken off; none after
    /// a commit or an abort.
    upload: Option<WriteMultipart>,
    /// What lay there before, if something did.
    before: Option<ObjectMeta>,
    /// The bytes that were written.
    bytes: u64,
    written: Positions,
    visible: Positions,
}

/// Checks that `location` may be written.
pub(super) async fn check(location: &Location, overwrite: bool) -> Result<()> {
    if location.name().ends_with('/') || location.is_local_folder() {
        return Err(Error::place(location.name(), "is a folder, expected the name of a file to write"));
    }
    if !overwrite && location.exists().await? {
        return Err(Error::place(location.name(), "exists already; choose another name or say --overwrite"));
    }
    Ok(())
}

impl<E: Encode> FileSink<E> {
    /// Opens the file for writing; the place is known to be free or to be overwritten.
    pub(super) async fn open(location: Location, overwrite: bool, encoder: E) -> Result<Self> {
        let failed = |error| Error::store(location.name(), error);
        let before = if overwrite { found(&location).await.map_err(failed)? } else { None };
        Ok(Self { before, overwrite, ..Self::open_again(location, None, encoder).await? })
    }

    /// Opens a file that takes the place of one that is there, which is the same if there is one: an earlier run was to write
    /// the same rows. It may grow elsewhere in the same store, which can give files another place.
    pub(super) async fn open_again(location: Location, grows: Option<Location>, encoder: E) -> Result<Self> {
        let failed = |error| Error::store(location.name(), error);
        let place = grows.as_ref().unwrap_or(&location);
        let upload = place.store().put_multipart(place.path()).await.map_err(failed)?;
        Ok(Self {
            location,
            grows,
            overwrite: true,
            encoder: Some(encoder),
            upload: Some(WriteMultipart::new(upload)),
            before: None,
            bytes: 0,
            written: Positions::default(),
            visible: Positions::default(),
        })
    }

    fn closed(&self) -> Error {
        Error::Internal(format!("{} is closed already", self.location.name()))
    }

    fn failed(&self, error: object_store::Error) -> Error {
        Error::store(self.location.name(), error)
    }
}

/// Whether a file of `bytes` bytes is at `location` that is not the one from `before`, for all that the store said. The
/// answer to the last request of an upload may be lost: it is asked again, and the store knows of no such upload any more.
async fn is_written(location: &Location, bytes: u64, before: Option<&ObjectMeta>) -> bool {
    let Ok(Some(now)) = found(location).await else { return false };
    let is_new = |before: &ObjectMeta| before.e_tag != now.e_tag || before.last_modified != now.last_modified;
    now.size == bytes && before.is_none_or(is_new)
}

/// What lies at `location`, if something does.
async fn found(location: &Location) -> object_store::Result<Option<ObjectMeta>> {
    match location.store().head(location.path()).await {
        Ok(meta) => Ok(Some(meta)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl<E: Encode> UnitSink for FileSink<E> {
    fn parts(&self) -> Result<Vec<Part>> {
        let name = self.location.path().filename().unwrap_or_default().to_string();
        let (written, partition, statistics) = (None, Vec::new(), None);
        Ok(vec![Part { name, bytes: self.bytes, written, partition, statistics }])
    }
}

#[async_trait]
impl<E: Encode> Sink for FileSink<E> {
    async fn positions(&mut self, splits: &[Split]) -> Result<Positions> {
        Ok(self.visible.of(splits))
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.written.advance(&batch.covers)?;
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        let mut encoder = self.encoder.take().ok_or_else(|| self.closed())?;
        let (encoder, bytes) = on_worker(move || {
            let bytes = encoder.encode(&batch.rows)?;
            Ok((encoder, bytes))
        })
        .await?;
        self.encoder = Some(encoder);
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(upload) = &mut self.upload else { return Err(self.closed()) };
        if let Err(error) = upload.wait_for_capacity(PARTS_UNDER_WAY).await {
            return Err(self.failed(error));
        }
        self.bytes += bytes.len() as u64;
        upload.put(bytes.into());
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        let encoder = self.encoder.take().ok_or_else(|| self.closed())?;
        let bytes = on_worker(move || encoder.finish()).await?;
        let mut upload = self.upload.take().ok_or_else(|| self.closed())?;
        // The place was free when the run began; what came there since is not ours to replace.
        if let Err(error) = check(&self.location, self.overwrite).await {
            upload.abort().await.map_err(|error| self.failed(error))?;
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        upload.put(bytes.into());
        if let Err(error) = upload.finish().await
            && !is_written(&self.location, self.bytes, self.before.as_ref()).await
        {
            return Err(self.failed(error));
        }
        if let Some(grows) = &self.grows {
            let moved = self.location.store().rename(grows.path(), self.location.path()).await;
            moved.map_err(|error| self.failed(error))?;
        }
        self.visible = self.written.clone();
        Ok(())
    }

    async fn abort(&mut self) -> Result<()> {
        self.written = self.visible.clone();
        self.encoder = None;
        match self.upload.take() {
            Some(upload) => upload.abort().await.map_err(|error| self.failed(error)),
            None => Ok(()),
        }
    }
}
