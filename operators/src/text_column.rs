//! What the values of a column read as: strings as they are, numbers and dates in decimal, lists joined by commas.

use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, StringViewArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field};
use std::sync::Arc;

/// A column's values as text.
#[derive(Debug)]
pub(crate) struct TextColumn {
    values: Values,
    nulls: Option<NullBuffer>,
    /// What every value ends in.
    suffix: &'static str,
}

#[derive(Debug)]
enum Values {
    Strings(StringViewArray),
    Lists(LargeListArray),
}

impl TextColumn {
    /// Checks that values of `data_type` have a text.
    pub(crate) fn check_type(column: &str, data_type: &DataType) -> Result<()> {
        let fits = match data_type {
            DataType::Dictionary(_, value) => is_string(value),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                is_string(item.data_type())
            }
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
            other => is_string(other) || other.is_numeric(),
        };
        let choices = "strings, numbers, dates or lists of strings";
        match data_type {
            _ if fits => Ok(()),
            DataType::Struct(fields) if !fields.is_empty() => {
                let names: Vec<_> =
                    fields.iter().map(|field| format!("\"{column}.{}\"", field.name())).collect();
                Err(Error::column(
                    column,
                    format!("is a struct, expected one of its fields: {}", names.join(", ")),
                ))
            }
            other => Err(Error::column(column, format!("is {other}, expected {choices}"))),
        }
    }

    /// Reads `array`, whose type [`TextColumn::check_type`] has let pass; `outer` are the nulls of structs around it.
    pub(crate) fn try_new(column: &str, array: &ArrayRef, outer: Option<&NullBuffer>) -> Result<Self> {
        let nulls = NullBuffer::union(array.logical_nulls().as_ref(), outer);
        let (array, suffix) = without_zone(array)?;
        let list = matches!(
            array.data_type(),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
        );
        let target = match list {
            true => DataType::LargeList(Arc::new(Field::new_list_field(DataType::Utf8View, true))),
            false => DataType::Utf8View,
        };
        // Not `safe`: a date beyond the calendar is an error, not a missing value.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let text = cast_with_options(&array, &target, &options)
            .map_err(|error| Error::column(column, format!("cannot be read as text: {error}")))?;
        let values = match list {
            true => Values::Lists(text.as_list().clone()),
            false => Values::Strings(text.as_string_view().clone()),
        };
        Ok(Self { values, nulls, suffix })
    }

    /// Whether row `row` has no value.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the text of row `row`, which is not null.
    pub(crate) fn push_to(&self, row: usize, text: &mut String) {
        match &self.values {
            Values::Strings(strings) => text.push_str(strings.value(row)),
            Values::Lists(lists) => {
                let items = lists.value(row);
                for (i, item) in items.as_string_view().iter().flatten().enumerate() {
                    if i > 0 {
                        text.push_str(", ");
                    }
                    text.push_str(item);
                }
            }
        }
        text.push_str(self.suffix);
    }
}

fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Reads instants of any time zone in UTC, so that their text does not depend on a table of zones.
fn without_zone(array: &ArrayRef) -> Result<(ArrayRef, &'static str)> {
    let DataType::Timestamp(unit, Some(_)) = array.data_type() else {
        return Ok((array.clone(), ""));
    };
    let plain = array.to_data().into_builder().data_type(DataType::Timestamp(*unit, None)).build()?;
    Ok((make_array(plain), "Z"))
}
