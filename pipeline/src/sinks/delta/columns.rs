//! Columns as a Delta table can hold them.
//!
//! | column | in the table |
//! |---|---|
//! | unsigned integers | the next larger signed ones; uint64 as decimal(20, 0) |
//! | float16 | float |
//! | timestamps of any unit | timestamps in microseconds |
//! | lists of a fixed size | lists |
//! | views, large texts, dictionaries | plain texts and binaries |
//!
//! All columns may be null, for what is written later may lack one.

use crate::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

/// The columns of a table for rows of `schema`.
pub(super) fn of(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Fields>()))
}

/// `rows` as columns of `schema`, each found by its name.
pub(super) fn stored(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &FieldRef| -> Result<ArrayRef> {
        let lost = || Error::Internal(format!("rows for a table without {}", field.name()));
        let column = rows.column_by_name(field.name()).ok_or_else(lost)?;
        cast(column, field.data_type()).map_err(internal)
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(SchemaRef::clone(schema), columns).map_err(internal)
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::Internal(error.to_string())
}

fn field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), storable(field.data_type()), true))
}

fn storable(of: &DataType) -> DataType {
    use DataType as Type;
    match of {
        Type::UInt8 => Type::Int16,
        Type::UInt16 => Type::Int32,
        Type::UInt32 => Type::Int64,
        Type::UInt64 => Type::Decimal128(20, 0),
        Type::Float16 => Type::Float32,
        Type::Timestamp(_, zone) => {
            Type::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        Type::Date64 => Type::Date32,
        Type::LargeUtf8 | Type::Utf8View => Type::Utf8,
        Type::LargeBinary | Type::BinaryView | Type::FixedSizeBinary(_) => Type::Binary,
        Type::Dictionary(_, value) => storable(value),
        Type::List(item)
        | Type::LargeList(item)
        | Type::ListView(item)
        | Type::LargeListView(item)
        | Type::FixedSizeList(item, _) => Type::List(field(item)),
        Type::Struct(fields) => Type::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        AsArray, FixedSizeListArray, StringViewArray, TimestampMillisecondArray, UInt64Array,
    };
    use arrow::datatypes::{Decimal128Type, Float32Type, TimestampMicrosecondType};

    #[test]
    fn what_a_table_cannot_hold_is_stored_as_what_is_next_to_it() {
        let vectors: FixedSizeListArray =
            FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0), Some(2.0)])], 2);
        let rows = RecordBatch::try_from_iter([
            ("number", Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef),
            ("text", Arc::new(StringViewArray::from(vec!["a"])) as ArrayRef),
            ("time", Arc::new(TimestampMillisecondArray::from(vec![1_700]).with_timezone("UTC")) as ArrayRef),
            ("vector", Arc::new(vectors) as ArrayRef),
            ("left out", Arc::new(StringViewArray::from(vec!["b"])) as ArrayRef),
        ])
        .unwrap();
        let schema = of(&rows.schema().project(&[3, 0, 1, 2]).unwrap());
        let rows = stored(&rows, &schema).unwrap();
        assert_eq!(rows.schema(), schema);
        assert_eq!(rows["number"].as_primitive::<Decimal128Type>().value(0), i128::from(u64::MAX));
        assert_eq!(rows["text"].as_string::<i32>().value(0), "a");
        assert_eq!(rows["time"].as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000);
        assert_eq!(rows["vector"].as_list::<i32>().value(0).len(), 2);
    }
}
