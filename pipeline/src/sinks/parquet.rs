//! Parquet: zstd, row groups of a size that a reader can hold.

use super::file::Encode;
use crate::{Error, Result};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{
    arrow::{ArrowSchemaConverter, ArrowWriter},
    basic::{Compression, Type as PhysicalType, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
};

/// The most rows of a row group: enough for the columns to compress well, few enough to spread over many readers.
pub(crate) const ROW_GROUP_ROWS: usize = 64 << 10;

/// The most bytes of a row group: it is in memory until it is full, so this bounds the memory of a run.
pub(crate) const ROW_GROUP_BYTES: usize = 64 << 20;

/// How many bytes are gathered before they go to the store.
const READY_BYTES: usize = 4 << 20;

/// Rows as the bytes of a Parquet file.
pub(super) struct Encoder(ArrowWriter<Vec<u8>>);

impl Encoder {
    /// Makes the encoder of rows of `schema`.
    pub(super) fn try_new(schema: &SchemaRef) -> Result<Self> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_created_by(concat!("thema version ", env!("CARGO_PKG_VERSION")).into());
        // Vectors hardly repeat a value, and nobody looks for rows by the bounds of one: neither helps, both cost.
        let leaves = ArrowSchemaConverter::new().convert(schema).map_err(refused)?;
        for leaf in leaves.columns() {
            let is_float = matches!(leaf.physical_type(), PhysicalType::FLOAT | PhysicalType::DOUBLE);
            if is_float && leaf.max_rep_level() > 0 {
                properties = properties
                    .set_column_dictionary_enabled(leaf.path().clone(), false)
                    .set_column_statistics_enabled(leaf.path().clone(), EnabledStatistics::None);
            }
        }
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties.build()));
        Ok(Self(writer.map_err(refused)?))
    }
}

impl Encoder {
    /// About how long the file would be if it ended now.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes_written() + self.0.in_progress_size()
    }
}

impl Encode for Encoder {
    fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<u8>> {
        self.0.write(rows).map_err(refused)?;
        let ready = self.0.inner_mut();
        Ok(if ready.len() >= READY_BYTES { std::mem::take(ready) } else { Vec::new() })
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().map_err(refused)
    }
}

/// The rows were made by us: what Parquet refuses of them is our fault, but for types that it cannot hold.
fn refused(error: ParquetError) -> Error {
    match error {
        ParquetError::NYI(text) => Error::setting("output", format!("Parquet cannot hold a column: {text}")),
        error => Error::Internal(error.to_string()),
    }
}
