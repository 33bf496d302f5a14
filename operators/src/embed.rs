//! The operator that adds an embedding column.

use crate::quantize::Quantizer;
use crate::vectors::{BoundVectors, Counters, Vectors};
use crate::{Error, Operator, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

/// The column that [`Embed`] adds.
pub const EMBEDDING: &str = "embedding";

/// Adds the column `embedding`: each row's vector in the quantizer's precision.
pub struct Embed {
    vectors: Vectors,
    quantizer: Quantizer,
    counters: Arc<Counters>,
    bound: Option<(BoundVectors, SchemaRef)>,
}

impl Embed {
    /// Makes the operator; it counts what it does in `counters`.
    pub fn new(vectors: Vectors, quantizer: Quantizer, counters: Arc<Counters>) -> Self {
        Self { vectors, quantizer, counters, bound: None }
    }
}

impl Operator for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn schema(&self, input: &SchemaRef) -> Result<SchemaRef> {
        self.vectors.bind(input, Arc::default())?;
        with_columns(input, [Field::new(EMBEDDING, self.quantizer.data_type(), false)])
    }

    fn process(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        let (bound, schema) = match &mut self.bound {
            Some(bound) => bound,
            empty => {
                let schema =
                    with_columns(&rows.schema(), [Field::new(EMBEDDING, self.quantizer.data_type(), false)])?;
                empty.insert((self.vectors.bind(&rows.schema(), Arc::clone(&self.counters))?, schema))
            }
        };
        let vectors = bound.of(&rows)?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(self.quantizer.column(vectors)?));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// Adds `fields` to a schema; one that is there already is an error.
pub(crate) fn with_columns(input: &SchemaRef, fields: impl IntoIterator<Item = Field>) -> Result<SchemaRef> {
    let mut all: Vec<_> = input.fields().iter().cloned().collect();
    for field in fields {
        if input.column_with_name(field.name()).is_some() {
            return Err(Error::column(
                field.name(),
                "is in the input already; rename it there, or give --prefix to name the new columns otherwise",
            ));
        }
        all.push(Arc::new(field));
    }
    Ok(Arc::new(Schema::new_with_metadata(all, input.metadata().clone())))
}
