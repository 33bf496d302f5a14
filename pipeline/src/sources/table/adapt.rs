//! Fits the rows of one file to the table's columns: by name, in the table's types, null where the file has none.

use super::discover::Constant;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef, SchemaRef},
    error::ArrowError,
};
use std::sync::Arc;

/// Brings `rows` to the columns of `wanted`, of which `constants` have one value.
pub(super) fn adapt(
    rows: &RecordBatch,
    wanted: &SchemaRef,
    constants: &[Constant],
) -> Result<RecordBatch, ArrowError> {
    let constant = |field: &FieldRef| constants.iter().find(|constant| constant.field.name() == field.name());
    let columns = wanted
        .fields()
        .iter()
        .map(|field| match (constant(field), rows.column_by_name(field.name())) {
            (Some(constant), _) => {
                strict_cast(&constant.value.to_array_of_size(rows.num_rows())?, field.data_type())
            }
            (None, Some(column)) => strict_cast(column, field.data_type()),
            (None, None) => Ok(new_null_array(field.data_type(), rows.num_rows())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &count)
}

/// The type in its plain layout: offsets of 32 bits, no views, no dictionaries, nothing but null that is not said.
pub(super) fn plain(data_type: &DataType) -> DataType {
    // Writers call a list's inner field "item", "element" or "array"; the name carries nothing.
    let item = |field: &FieldRef| Arc::new(Field::new_list_field(plain(field.data_type()), true));
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => plain(value),
        DataType::RunEndEncoded(_, value) => plain(value.data_type()),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => DataType::List(item(field)),
        DataType::FixedSizeList(field, width) => DataType::FixedSizeList(item(field), *width),
        DataType::Struct(fields) => DataType::Struct(
            fields.iter().map(|field| Field::new(field.name(), plain(field.data_type()), true)).collect(),
        ),
        other => other.clone(),
    }
}

/// Casts, or fails at the first value that the type cannot hold.
fn strict_cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{array::*, datatypes::*};

    #[test]
    fn columns_are_found_by_name_and_missing_ones_are_null() {
        let rows = RecordBatch::try_from_iter([
            ("b", Arc::new(LargeStringArray::from(vec!["x", "y"])) as ArrayRef),
            ("a", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ])
        .unwrap();
        let wanted: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Float64, true),
        ]));
        let adapted = adapt(&rows, &wanted, &[]).unwrap();
        assert_eq!(adapted.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
        assert_eq!(adapted.column(1).as_string::<i32>().value(1), "y");
        assert_eq!(adapted.column(2).null_count(), 2);
        let field = Arc::new(Field::new("c", DataType::Int64, true));
        let constants = [Constant { field, value: 7i64.into() }];
        let adapted = adapt(&rows, &wanted, &constants).unwrap();
        assert_eq!(adapted.column(2).as_primitive::<Float64Type>().values(), &[7.0, 7.0]);
    }

    #[test]
    fn layouts_inside_lists_and_structs_become_plain_and_their_rows_follow() {
        let rows = RecordBatch::try_from_iter([("words", large_list_of_views())]).unwrap();
        let to = plain(rows.column(0).data_type());
        assert_eq!(to, DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))));
        let wanted: SchemaRef = Arc::new(Schema::new(vec![Field::new("words", to, true)]));
        let adapted = adapt(&rows, &wanted, &[]).unwrap();
        assert_eq!(adapted.column(0).as_list::<i32>().value(0).as_string::<i32>().value(1), "b");
    }

    fn large_list_of_views() -> ArrayRef {
        let mut builder = LargeListBuilder::new(StringViewBuilder::new()).with_field(Field::new(
            "element",
            DataType::Utf8View,
            false,
        ));
        builder.append_value([Some("a"), Some("b")]);
        Arc::new(builder.finish())
    }
}
