//! The operator that adds an embedding column.

use crate::quantize::Quantizer;
use crate::vectors::{BoundVectors, Counters, Vectors};
use crate::{Error, Operator, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The column that [`Embed`] adds, after its prefix.
pub const EMBEDDING: &str = "embedding";

/// Adds the column `embedding`: each row's vector in the quantizer's precision.
pub struct Embed {
    vectors: Vectors,
    quantizer: Quantizer,
    column: String,
    counters: Arc<Counters>,
    bound: Option<(BoundVectors, SchemaRef)>,
}

impl Embed {
    /// Makes the operator; `prefix` stands before the new column's name, and what is done is counted in `counters`.
    pub fn new(vectors: Vectors, quantizer: Quantizer, prefix: &str, counters: Arc<Counters>) -> Self {
        Self { vectors, quantizer, column: format!("{prefix}{EMBEDDING}"), counters, bound: None }
    }

    fn field(&self) -> Field {
        Field::new(&self.column, self.quantizer.data_type(), false)
    }
}

impl Operator for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn schema(&self, input: &SchemaRef) -> Result<SchemaRef> {
        self.vectors.bind(input, Arc::default())?;
        with_columns(input, [self.field()])
    }

    fn process(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.bound.is_none() {
            let schema = with_columns(&rows.schema(), [self.field()])?;
            self.bound = Some((self.vectors.bind(&rows.schema(), Arc::clone(&self.counters))?, schema));
        }
        let Some((bound, schema)) = &mut self.bound else { unreachable!("bound just above") };
        let made = match self.quantizer.code() {
            Some(code) => bound.codes_of(&rows, code)?,
            None => None,
        };
        let column = match made {
            Some(codes) => self.quantizer.column_of_codes(codes)?,
            None => self.quantizer.column(bound.of(&rows)?.vectors)?,
        };
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(column));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// Fails if `input` has the column that [`Embed`] adds already.
pub fn check_free(input: &SchemaRef, prefix: &str) -> Result<()> {
    with_columns(input, [Field::new(format!("{prefix}{EMBEDDING}"), DataType::Null, true)]).map(drop)
}

/// Adds `fields` to a schema; one that is there already is an error.
pub(crate) fn with_columns(input: &SchemaRef, fields: impl IntoIterator<Item = Field>) -> Result<SchemaRef> {
    let mut all: Vec<_> = input.fields().iter().cloned().collect();
    for field in fields {
        if input.column_with_name(field.name()).is_some() {
            return Err(Error::column(
                field.name(),
                "is in the input already; rename it there, or let the new columns have a prefix (--prefix)",
            ));
        }
        all.push(Arc::new(field));
    }
    Ok(Arc::new(Schema::new_with_metadata(all, input.metadata().clone())))
}
