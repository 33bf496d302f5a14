//! Parquet: footers are read at the start, row groups one after another.
//!
//! The idea: each projected column of a row group is fetched in [`Windows`] and decoded page by page, so that memory
//! does not grow with the row group. What is corrupt is known by its row group; a panic of the decoder on corrupt
//! bytes is such a case too.

use super::{
    discover::{DataFile, FoundFile, RowGroupSize},
    output::{Output, Stop, Trouble},
    prune::prunable,
    windows::Windows,
};
use crate::{error::first_line, location::Location, sources::BadUnit};
use arrow::datatypes::Schema;
use bytes::Bytes;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use object_store::ObjectStoreExt;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        async_reader::MetadataFetch,
    },
    errors::{ParquetError, Result as ParquetResult},
    file::metadata::{ParquetMetaDataReader, RowGroupMetaData},
};
use std::{
    fmt::Display,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::runtime::Handle;

/// Reads the footer: the schema, and the row groups.
pub(super) async fn inspect(
    location: &Location,
    file: &FoundFile,
) -> Result<(Schema, Option<Vec<RowGroupSize>>), Trouble> {
    let metadata = footer(location, file).await?;
    let size = |group: &RowGroupMetaData| {
        let bytes = u64::try_from(group.compressed_size()).unwrap_or_default();
        Some(RowGroupSize { rows: u64::try_from(group.num_rows()).ok()?, bytes })
    };
    let row_groups = metadata.metadata().row_groups().iter().map(size).collect::<Option<_>>();
    let wrong = || Trouble::Bad("not readable as Parquet: a row group of fewer than no rows".into());
    let row_groups = row_groups.ok_or_else(wrong)?;
    Ok((metadata.schema().as_ref().clone(), Some(row_groups)))
}

/// Reads the rows `wanted` of `file`.
pub(super) fn read(
    location: &Location,
    file: &DataFile,
    wanted: Range<u64>,
    runtime: &Handle,
    output: &mut Output,
) -> Result<(), Stop> {
    let split = &file.found.split;
    let metadata = match runtime.block_on(footer(location, &file.found)) {
        Ok(metadata) => metadata,
        Err(Trouble::Failed(error)) => return Err(Stop::Failed(error)),
        Err(Trouble::Bad(reason)) => {
            let rows = wanted.end - wanted.start;
            output.bad(BadUnit::file(split.as_str(), reason), rows)?;
            return output.pass(split, wanted);
        }
    };
    let prunable = match &output.filter {
        Some(filter) => prunable(filter, &metadata),
        None => vec![false; metadata.metadata().num_row_groups()],
    };
    let mut first = 0;
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = first..first + u64::try_from(group.num_rows()).unwrap_or(0);
        first = rows.end;
        let wanted = rows.start.max(wanted.start)..rows.end.min(wanted.end);
        if wanted.is_empty() {
            continue;
        }
        if prunable[index] {
            output.pass(split, wanted)?;
            continue;
        }
        let unit = RowGroup { location, file, metadata: &metadata, index, first: rows.start, runtime };
        unit.read(wanted, output)?;
    }
    Ok(())
}

async fn footer(location: &Location, file: &FoundFile) -> Result<ArrowReaderMetadata, Trouble> {
    let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_GUESS_BYTES));
    let load =
        AssertUnwindSafe(reader.load_and_finish(Fetch { location, file }, file.size_bytes)).catch_unwind();
    let metadata = load.await.unwrap_or_else(|_| Err(ParquetError::General(CORRUPT.into())));
    metadata
        .and_then(|metadata| ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()))
        .map_err(|error| match error {
            ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
                Ok(store) => Trouble::of(file, *store),
                Err(inner) => Trouble::Bad(format!("not readable as Parquet: {}", plain(&inner))),
            },
            error => Trouble::Bad(format!("not readable as Parquet: {}", plain(&error))),
        })
}

/// Fetches the bytes of a footer.
struct Fetch<'a> {
    location: &'a Location,
    file: &'a FoundFile,
}

impl MetadataFetch for Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        let bytes = self.location.store().get_range(&self.file.path, range);
        bytes.map_err(|error| ParquetError::External(error.into())).boxed()
    }
}

/// What is fetched at once in the hope that it holds the footer: most are smaller, and one request is saved.
const FOOTER_GUESS_BYTES: usize = 64 << 10;

/// One row group to read.
struct RowGroup<'a> {
    location: &'a Location,
    file: &'a DataFile,
    metadata: &'a ArrowReaderMetadata,
    index: usize,
    /// The file's row that is its first.
    first: u64,
    runtime: &'a Handle,
}

impl RowGroup<'_> {
    /// Hands the rows `wanted` (of the file) to `output`; corrupt ones are reported as this row group's.
    fn read(&self, wanted: Range<u64>, output: &mut Output) -> Result<(), Stop> {
        let split = &self.file.found.split;
        let mut at = wanted.start;
        let reason = match guarded(|| self.windows(output)) {
            Err(reason) => reason,
            Ok((windows, projection)) => {
                let decoded = match windows.fill() {
                    Ok(()) => {
                        let reason = self.decode(&windows, projection, &wanted, &mut at, output)?;
                        windows.take_failure().map_or(Ok(reason), Err)
                    }
                    Err(error) => Err(error),
                };
                match decoded.map_err(|error| Trouble::of(&self.file.found, error)) {
                    Ok(reason) | Err(Trouble::Bad(reason)) => reason,
                    Err(Trouble::Failed(error)) => return Err(Stop::Failed(error)),
                }
            }
        };
        if at == wanted.end {
            return Ok(());
        }
        let reason = if at > wanted.start { format!("unreadable from row {at}: {reason}") } else { reason };
        output.bad(BadUnit::row_group(split.as_str(), self.index, reason), wanted.end - at)?;
        output.pass(split, at..wanted.end)
    }

    /// The bytes of the columns to read.
    fn windows(&self, output: &Output) -> ParquetResult<(Windows, ProjectionMask)> {
        let fields = self.metadata.schema().fields().iter().enumerate();
        let roots = fields.filter(|(_, field)| output.wanted.field_with_name(field.name()).is_ok());
        let projection = ProjectionMask::roots(self.metadata.parquet_schema(), roots.map(|(index, _)| index));
        let columns = self.metadata.metadata().row_group(self.index).columns().iter().enumerate();
        let chunks = columns
            .filter(|(leaf, _)| projection.leaf_included(*leaf))
            .map(|(_, column)| column.byte_range())
            .map(|(start, length)| start..start.saturating_add(length))
            .collect();
        Ok((Windows::try_new(self.location, &self.file.found, chunks, self.runtime)?, projection))
    }

    /// Decodes until the end or until something is wrong, which it returns; `at` says how far it came.
    fn decode(
        &self,
        windows: &Windows,
        projection: ProjectionMask,
        wanted: &Range<u64>,
        at: &mut u64,
        output: &mut Output,
    ) -> Result<String, Stop> {
        let batch_size = output.batch_size;
        let opened = guarded(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(windows.clone(), self.metadata.clone())
                .with_projection(projection)
                .with_row_groups(vec![self.index])
                .with_batch_size(batch_size)
                .with_offset((wanted.start - self.first) as usize)
                .with_limit((wanted.end - wanted.start) as usize)
                .build()
        });
        let mut rows = match opened {
            Ok(rows) => rows,
            Err(reason) => return Ok(reason),
        };
        loop {
            match guarded(|| rows.next().transpose()) {
                Ok(Some(batch)) => {
                    let range = *at..*at + batch.num_rows() as u64;
                    *at = range.end;
                    output.rows(&self.file.found.split, range, &batch, None)?;
                }
                Ok(None) => return Ok("ends before its last row".into()),
                Err(reason) => return Ok(reason),
            }
        }
    }
}

/// What is said when the decoder panics.
const CORRUPT: &str = "the decoder gave up on corrupt bytes";

/// Runs a step of the decoder, which may panic on corrupt bytes; says what went wrong in one line.
fn guarded<T, E: Display>(step: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|error| plain(&error)),
        Err(_) => Err(CORRUPT.into()),
    }
}

/// An error of the parquet or arrow crate without the crate's prefixes.
fn plain(error: &impl Display) -> String {
    let text = error.to_string();
    let prefixes = ["Parquet argument error: ", "Parquet error: ", "External: ", "EOF: "];
    let mut text = text.as_str();
    while let Some(rest) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    first_line(text)
}
