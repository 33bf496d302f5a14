//! An Arrow IPC stream a payload: many rows in one message, with their schema.

use super::{Decode, Decoded, fitted, internal};
use crate::Result;
use crate::error::first_line;
use arrow::array::{BinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;

/// What was made of a payload, or why it is bad.
type Fitted<T> = std::result::Result<T, String>;

/// Streams as rows.
pub(super) struct ArrowIpc {
    schema: SchemaRef,
}

impl ArrowIpc {
    /// Reads `schema`'s columns.
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }

    /// The rows of one payload.
    fn rows(&self, payload: &[u8]) -> Fitted<RecordBatch> {
        let told = |error: ArrowError| format!("is no Arrow IPC stream: {}", first_line(&error.to_string()));
        // A stream that is not whole panics in places.
        let read = || -> Fitted<Vec<RecordBatch>> {
            let reader = StreamReader::try_new(payload, None).map_err(told)?;
            reader.map(|batch| batch.map_err(told)).collect()
        };
        let batches =
            std::panic::catch_unwind(read).unwrap_or_else(|_| Err("is no Arrow IPC stream".into()))?;
        let fitted = batches.iter().map(|batch| fitted(batch, &self.schema)).collect::<Fitted<Vec<_>>>()?;
        concat_batches(&self.schema, &fitted).map_err(|error| error.to_string())
    }
}

impl Decode for ArrowIpc {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, payloads: &BinaryArray) -> Result<Decoded> {
        let (mut batches, mut from, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (at, payload) in payloads.iter().flatten().enumerate() {
            match self.rows(payload) {
                Ok(rows) => {
                    from.extend(std::iter::repeat_n(at as u32, rows.num_rows()));
                    batches.push(rows);
                }
                Err(reason) => bad.push((at, reason)),
            }
        }
        let rows = concat_batches(&self.schema, &batches).map_err(internal)?;
        Ok(Decoded { rows, from, bad })
    }
}
