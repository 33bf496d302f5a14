//! Text files as a plain [`Read`]: the store's bytes, fetched as they are wanted, unpacked if they are packed.

use super::{discover::FoundFile, output::Trouble};
use crate::location::Location;
use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::{StreamExt, stream::BoxStream};
use object_store::ObjectStoreExt;
use std::io::{self, Read};
use tokio::runtime::Handle;

/// How many rows of a text file are looked at to tell its columns and their types.
pub(super) const INFERRED_ROWS: usize = 1000;

/// Opens `file`. To be called, and read, on a thread that may block.
pub(super) fn open(
    location: &Location,
    file: &FoundFile,
    runtime: &Handle,
) -> Result<Box<dyn Read>, Trouble> {
    let got = runtime.block_on(location.store().get(&file.path)).map_err(|error| Trouble::of(file, error))?;
    let stored = Stored { chunks: got.into_stream(), chunk: Bytes::new(), runtime: runtime.clone() };
    Ok(if file.encoding.gzip { Box::new(MultiGzDecoder::new(stored)) } else { Box::new(stored) })
}

/// Tells a store that fails from bytes that are wrong.
pub(super) fn trouble(file: &FoundFile, error: io::Error) -> Trouble {
    match error.downcast::<object_store::Error>() {
        Ok(store) => Trouble::of(file, store),
        Err(error) => Trouble::Bad(error.to_string()),
    }
}

struct Stored {
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
    runtime: Handle,
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let n = into.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut into[..n]);
        Ok(n)
    }
}
