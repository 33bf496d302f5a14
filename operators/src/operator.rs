//! The one trait that every step of a pipeline has.

use crate::Result;
use arrow::{array::RecordBatch, datatypes::SchemaRef};

/// A step from record batch to record batch.
pub trait Operator: Send {
    /// The name that logs and errors show.
    fn name(&self) -> &'static str;

    /// Returns the output schema, or why the input does not fit. Called once, before any row is read.
    fn schema(&self, input: &SchemaRef) -> Result<SchemaRef>;

    /// Turns `rows` into the output rows. Runs on a worker thread: it may compute and block.
    fn process(&mut self, rows: RecordBatch) -> Result<RecordBatch>;
}
