//! Precomputed embeddings: from a list column to a matrix.
//!
//! Accepts fixed-size lists, lists and large lists of 16-, 32- or 64-bit floats. Every row must hold the same number
//! of finite numbers; the first that does not is named.

use crate::text::missing_top_level;
use crate::{Error, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Schema};
use kernels::Matrix;
use std::{borrow::Cow, ops::Range};

/// Checks that a column of this type can hold embeddings; returns their width if the type fixes it.
pub fn check_type(column: &str, data_type: &DataType) -> Result<Option<usize>> {
    let (item, width) = match data_type {
        DataType::FixedSizeList(item, width) => (item, usize::try_from(*width).ok()),
        DataType::List(item) | DataType::LargeList(item) => (item, None),
        other => return Err(wrong_type(column, other)),
    };
    match item.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Ok(width),
        _ => Err(wrong_type(column, data_type)),
    }
}

/// Checks that `schema` has a column of embeddings, of `dim` dimensions if that is said and the type says it too;
/// returns the column's place and its width if that is known.
pub fn check_field(column: &str, schema: &Schema, dim: Option<usize>) -> Result<(usize, Option<usize>)> {
    let (index, field) = schema.column_with_name(column).ok_or_else(|| missing_top_level(column, schema))?;
    let width = check_type(column, field.data_type())?;
    match (dim, width) {
        (Some(dim), Some(width)) if dim != width => {
            Err(Error::column(column, format!("has {width} dimensions, expected {dim}")))
        }
        _ => Ok((index, dim.or(width))),
    }
}

/// Reads the embeddings of `array`: rows × `dim` (without `dim`, as wide as the first row that has numbers).
///
/// 64-bit numbers are rounded to the nearest f32. The first row of [`faults`] is an error that names it; `first_row` is
/// the number of the first row.
pub fn embeddings(
    column: &str,
    array: &dyn Array,
    mut dim: Option<usize>,
    first_row: u64,
) -> Result<Matrix<f32>> {
    if let Some((row, reason)) = faults(column, array, &mut dim)?.into_iter().next() {
        return Err(Error::Row { row: first_row + row as u64, column: column.into(), reason });
    }
    let (values, rows) = lists(array);
    let numbers = floats(values);
    let dim = dim.unwrap_or(0);
    let mut data = Vec::with_capacity(rows.len() * dim);
    for range in &rows {
        data.extend_from_slice(&numbers[range.clone()]);
    }
    Ok(Matrix::try_from_vec(rows.len(), dim, data)?)
}

/// The rows of `array` that cannot be used, and why: one that is null, holds a null, is not `dim` long, or holds a
/// number that is NaN or infinite (as f32). Without a `dim`, the width of the first row that is not null is every
/// row's, and is left in `dim`.
pub fn faults(column: &str, array: &dyn Array, dim: &mut Option<usize>) -> Result<Vec<(usize, String)>> {
    let fixed = check_type(column, array.data_type())?;
    let (values, rows) = lists(array);
    let with_numbers = |(row, range): &(usize, &Range<usize>)| array.is_valid(*row) && !range.is_empty();
    let first = || rows.iter().enumerate().find(with_numbers).map(|(_, range)| range.len());
    *dim = dim.or(fixed).or_else(first);
    let wanted = dim.unwrap_or(0);
    let numbers = floats(values);
    let fault = |(row, range): (usize, &Range<usize>)| {
        let reason = if array.is_null(row) {
            "the embedding is null".into()
        } else if range.len() != wanted {
            format!("the embedding has {} dimensions, expected {wanted}", range.len())
        } else if let Some(at) = values.nulls().and_then(|nulls| range.clone().position(|i| nulls.is_null(i)))
        {
            format!("dimension {at} is null")
        } else {
            let row = &numbers[range.clone()];
            // All numbers are looked at before any is searched for: that runs many at a time.
            if row.iter().fold(true, |finite, number| finite & number.is_finite()) {
                return None;
            }
            let at = row.iter().position(|number| !number.is_finite())?;
            format!("dimension {at} is {}, expected a finite 32-bit number", row[at])
        };
        Some((row, reason))
    };
    Ok(rows.iter().enumerate().filter_map(fault).collect())
}

fn wrong_type(column: &str, found: &DataType) -> Error {
    Error::column(column, format!("is {found}, expected embeddings: lists of 16-, 32- or 64-bit floats"))
}

/// The items of a list column, and where each row's lie among them.
fn lists(array: &dyn Array) -> (&dyn Array, Vec<Range<usize>>) {
    // Offsets are not negative by Arrow's definition.
    match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let rows = lists.offsets().windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect();
            (lists.values().as_ref(), rows)
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            let rows = lists.offsets().windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect();
            (lists.values().as_ref(), rows)
        }
        DataType::FixedSizeList(_, width) => {
            let lists = array.as_fixed_size_list();
            let start = |row| lists.value_offset(row) as usize;
            let rows = (0..lists.len()).map(|row| start(row)..start(row) + *width as usize).collect();
            (lists.values().as_ref(), rows)
        }
        _ => unreachable!("check_type lets lists pass only"),
    }
}

/// All items as f32, without a copy if they are; what stands in place of nulls is not looked at.
fn floats(values: &dyn Array) -> Cow<'_, [f32]> {
    match values.data_type() {
        DataType::Float32 => Cow::Borrowed(values.as_primitive::<Float32Type>().values()),
        DataType::Float16 => {
            values.as_primitive::<Float16Type>().values().iter().map(|v| v.to_f32()).collect()
        }
        DataType::Float64 => {
            values.as_primitive::<Float64Type>().values().iter().map(|&v| v as f32).collect()
        }
        _ => unreachable!("check_type lets floats pass only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, FixedSizeListArray, Int32Array, ListArray, StringArray};
    use arrow::compute::cast;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    fn three_rows(rows: [Option<Vec<Option<f32>>>; 3]) -> ListArray {
        ListArray::from_iter_primitive::<Float32Type, _, _>(rows)
    }

    fn good() -> ListArray {
        let row = |v: f32| Some(vec![Some(v), Some(v + 0.5)]);
        three_rows([row(0.0), row(1.0), row(2.0)])
    }

    #[test]
    fn lists_of_any_kind_and_width_of_float_are_read_alike() {
        for number in [DataType::Float16, DataType::Float32, DataType::Float64] {
            let item = Arc::new(Field::new_list_field(number, true));
            let kinds = [
                DataType::List(item.clone()),
                DataType::LargeList(item.clone()),
                DataType::FixedSizeList(item.clone(), 2),
            ];
            for kind in kinds {
                let column = cast(&good(), &kind).unwrap();
                let matrix = embeddings("e", &column, None, 0).unwrap();
                assert_eq!(matrix.as_slice(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5], "{kind}");
                // A slice does not begin where its buffers do.
                let matrix = embeddings("e", &column.slice(1, 2), Some(2), 0).unwrap();
                assert_eq!(matrix.as_slice(), [1.0, 1.5, 2.0, 2.5], "{kind}");
            }
        }
    }

    #[test]
    fn a_bad_row_is_named_with_its_reason() {
        let row = |v: f32| Some(vec![Some(v), Some(v)]);
        let cases = [
            (three_rows([row(0.), None, row(2.)]), "row 101, column \"e\": the embedding is null"),
            (
                three_rows([row(0.), row(1.), Some(vec![Some(1.)])]),
                "row 102, column \"e\": the embedding has 1 dimensions, expected 2",
            ),
            (
                three_rows([row(0.), Some(vec![Some(1.), None]), row(2.)]),
                "row 101, column \"e\": dimension 1 is null",
            ),
            (
                three_rows([row(0.), row(1.), Some(vec![Some(f32::NAN), Some(0.)])]),
                "row 102, column \"e\": dimension 0 is NaN, expected a finite 32-bit number",
            ),
        ];
        for (column, expected) in cases {
            assert_eq!(embeddings("e", &column, None, 100).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_double_beyond_f32_is_refused() {
        let rows = [Some(vec![Some(1e300)])];
        let column = ListArray::from_iter_primitive::<Float64Type, _, _>(rows);
        let error = embeddings("e", &column, None, 0).unwrap_err().to_string();
        assert_eq!(error, "row 0, column \"e\": dimension 0 is inf, expected a finite 32-bit number");
    }

    #[test]
    fn what_stands_behind_a_null_row_of_fixed_size_is_not_read() {
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let column = FixedSizeListArray::new_null(item, 2, 1);
        assert!(embeddings("e", &column, None, 0).unwrap_err().to_string().contains("is null"));
    }

    #[test]
    fn a_width_that_is_not_the_models_is_refused() {
        let error = embeddings("e", &good(), Some(384), 0).unwrap_err().to_string();
        assert_eq!(error, "row 0, column \"e\": the embedding has 2 dimensions, expected 384");
    }

    #[test]
    fn a_column_of_another_type_is_refused_by_name() {
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let strings: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        for column in [ints, strings] {
            let error = embeddings("e", &column, None, 0).unwrap_err().to_string();
            assert!(
                error.starts_with("column \"e\": is ") && error.contains("expected embeddings"),
                "{error}"
            );
        }
    }

    #[test]
    fn no_rows_make_an_empty_matrix() {
        let column = good().slice(0, 0);
        assert_eq!(embeddings("e", &column, Some(2), 0).unwrap().rows(), 0);
        assert_eq!(embeddings("e", &column, None, 0).unwrap().rows(), 0);
    }
}
