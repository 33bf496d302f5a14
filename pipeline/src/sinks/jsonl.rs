//! JSONL: one object per line with all columns; lists and structs as JSON, dates and times as ISO 8601, missing values
//! and numbers that are none (NaN, infinite) as null.

use super::file::Encode;
use crate::{Error, Result};
use arrow::{
    array::RecordBatch,
    json::{WriterBuilder, writer::LineDelimited},
};

/// Rows as the bytes of a JSONL file.
pub(super) struct Encoder;

impl Encode for Encoder {
    fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<u8>> {
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        let written = writer.write(rows).and_then(|()| writer.finish());
        written.map_err(|error| Error::setting("output", format!("JSONL cannot hold a column: {error}")))?;
        Ok(writer.into_inner())
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}
