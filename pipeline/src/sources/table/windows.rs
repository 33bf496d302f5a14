//! The bytes of some column chunks, of each a window that moves forward as it is read.
//!
//! The decoder reads each chunk from front to back, but turns from chunk to chunk: so one window per chunk. The first
//! windows of all chunks come in one request, which the store may merge and send at the same time.

use super::discover::FoundFile;
use crate::location::Location;
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    errors::{ParquetError, Result},
    file::reader::{ChunkReader, Length},
};
use std::{
    io::{self, Read},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::runtime::Handle;

/// How much of a chunk is in memory: several pages (of 1 MiB by default), and so much that an object store's latency
/// (tens of milliseconds) is small beside the transfer.
pub const WINDOW_BYTES: u64 = 8 << 20;

/// A [`ChunkReader`] for threads that may block. Clones share their windows.
#[derive(Clone)]
pub(super) struct Windows(Arc<Shared>);

struct Shared {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size_bytes: u64,
    chunks: Vec<Range<u64>>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For each chunk the start of its window and the bytes in it.
    windows: Vec<(u64, Bytes)>,
    /// The store's failure, which parquet's own error cannot carry as it is.
    failure: Option<object_store::Error>,
}

impl Windows {
    /// Makes windows on `chunks` of `file`; an error if one does not lie in the file.
    pub(super) fn try_new(
        location: &Location,
        file: &FoundFile,
        chunks: Vec<Range<u64>>,
        runtime: &Handle,
    ) -> Result<Self> {
        if let Some(chunk) = chunks.iter().find(|chunk| chunk.end > file.size_bytes) {
            let text =
                format!("a column should end at byte {}, the file ends at {}", chunk.end, file.size_bytes);
            return Err(ParquetError::General(text));
        }
        let windows = chunks.iter().map(|chunk| (chunk.start, Bytes::new())).collect();
        Ok(Self(Arc::new(Shared {
            store: Arc::clone(location.store()),
            path: file.path.clone(),
            size_bytes: file.size_bytes,
            chunks,
            runtime: runtime.clone(),
            state: Mutex::new(State { windows, failure: None }),
        })))
    }

    /// Fetches the first window of each chunk.
    pub(super) fn fill(&self) -> object_store::Result<()> {
        let shared = &self.0;
        let ranges: Vec<Range<u64>> = shared
            .chunks
            .iter()
            .map(|chunk| chunk.start..chunk.end.min(chunk.start + WINDOW_BYTES))
            .collect();
        let fetched = shared.runtime.block_on(shared.store.get_ranges(&shared.path, &ranges))?;
        for (window, bytes) in shared.lock().windows.iter_mut().zip(fetched) {
            window.1 = bytes;
        }
        Ok(())
    }

    /// Takes the store's failure, if it failed.
    pub(super) fn take_failure(&self) -> Option<object_store::Error> {
        self.0.lock().failure.take()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes from `start` to the end of their window, but at least `least`, for which the window moves if need
    /// be. Nothing is left of a chunk at its end.
    fn bytes(&self, start: u64, least: usize) -> Result<Bytes> {
        let end = start.saturating_add(least as u64);
        let within = |chunk: &Range<u64>| chunk.start <= start && end <= chunk.end;
        let Some(index) = self.chunks.iter().position(within) else {
            return Err(ParquetError::General(format!("bytes {start} to {end} are in none of its columns")));
        };
        let mut state = self.lock();
        let (from, window) = &state.windows[index];
        if *from <= start && end <= from + window.len() as u64 {
            return Ok(window.slice((start - from) as usize..));
        }
        let until = self.chunks[index].end.min(start + WINDOW_BYTES.max(least as u64));
        match self.runtime.block_on(self.store.get_range(&self.path, start..until)) {
            Ok(bytes) => {
                state.windows[index] = (start, bytes.clone());
                Ok(bytes)
            }
            Err(error) => {
                let text = error.to_string();
                state.failure = Some(error);
                Err(ParquetError::General(text))
            }
        }
    }
}

impl Length for Windows {
    fn len(&self) -> u64 {
        self.0.size_bytes
    }
}

impl ChunkReader for Windows {
    type T = Forward;

    fn get_read(&self, start: u64) -> Result<Forward> {
        Ok(Forward { shared: Arc::clone(&self.0), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        Ok(self.0.bytes(start, length)?.slice(..length))
    }
}

/// Reads on from a place, to the end of what chunks lie there.
pub(super) struct Forward {
    shared: Arc<Shared>,
    at: u64,
}

impl Read for Forward {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || !self.shared.chunks.iter().any(|chunk| chunk.contains(&self.at)) {
            return Ok(0);
        }
        let bytes = self.shared.bytes(self.at, 1).map_err(io::Error::other)?;
        let n = into.len().min(bytes.len());
        into[..n].copy_from_slice(&bytes[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, discover::Encoding};
    use super::*;
    use crate::location::FileVersion;
    use crate::positions::Split;
    use object_store::{PutPayload, memory::InMemory};

    const SIZE: usize = 30 << 20;

    /// Windows on a file whose bytes are known: the byte at `i` is `i / 1000` cut to a byte.
    async fn windows(chunks: Vec<Range<u64>>) -> Result<Windows> {
        let bytes: Vec<u8> = (0..SIZE).map(|i| (i / 1000) as u8).collect();
        let location = Location::new(Arc::new(InMemory::new()), Path::from("x"), "x");
        location.store().put(location.path(), PutPayload::from(bytes)).await.unwrap();
        let encoding = Encoding { format: Format::Parquet, delimiter: b',', gzip: false };
        let (path, size_bytes) = (Path::from("x"), SIZE as u64);
        let (version, partition) = (FileVersion::default(), Vec::new());
        let file = FoundFile { split: Split::new("x"), path, size_bytes, encoding, version, partition };
        Windows::try_new(&location, &file, chunks, &Handle::current())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_are_the_files_wherever_a_window_ends() {
        let windows = windows(vec![4..20 << 20, 21 << 20..SIZE as u64]).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            windows.fill().unwrap();
            // The second step crosses the end of a window, the last is larger than one.
            for (start, length) in [(4, 10), (WINDOW_BYTES - 5, 1000), (22 << 20, 77), (5 << 20, 9 << 20)] {
                let bytes = windows.get_bytes(start, length).unwrap();
                assert_eq!(bytes.len(), length);
                assert!(bytes.iter().enumerate().all(|(i, &b)| b == ((start as usize + i) / 1000) as u8));
            }
            let mut rest = Vec::new();
            windows.get_read(11 << 20).unwrap().read_to_end(&mut rest).unwrap();
            assert_eq!(rest.len(), 9 << 20, "to the end of the chunk");
            assert!(windows.get_bytes((20 << 20) + 5, 1).is_err(), "between the chunks");
            assert!(windows.get_bytes((20 << 20) - 5, 6).is_err(), "past the end of a chunk");
        });
        read.await.unwrap();
    }

    #[tokio::test]
    async fn a_chunk_past_the_end_of_the_file_is_refused() {
        let chunks = [4..100, 100..SIZE as u64 + 1];
        assert!(windows(chunks.into()).await.is_err());
    }
}
