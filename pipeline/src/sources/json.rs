//! JSON objects as rows, for all sources that hold such.

use crate::error::first_line;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use serde_json::Value;

/// Decodes `objects`, each of which must be one JSON object; fails if any is not, or does not fit `schema`.
pub(super) fn decoded<'a>(
    schema: &SchemaRef,
    objects: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<RecordBatch, String> {
    let reason = |error: ArrowError| {
        let text = error.to_string();
        first_line(text.strip_prefix("Json error: ").unwrap_or(&text))
    };
    let count = objects.len();
    let mut decoder = ReaderBuilder::new(SchemaRef::clone(schema))
        .with_batch_size(count + 1)
        .with_coerce_primitive(true)
        .build_decoder()
        .map_err(reason)?;
    for (at, object) in objects.enumerate() {
        decoder.decode(object).map_err(reason)?;
        // Half an object would go on in the next one, and two would be two rows.
        if decoder.has_partial_record() || decoder.len() != at + 1 {
            return Err("is not one object".into());
        }
    }
    let rows = decoder.flush().map_err(reason)?;
    match rows {
        Some(rows) if rows.num_rows() == count => Ok(rows),
        None if count == 0 => Ok(RecordBatch::new_empty(SchemaRef::clone(schema))),
        _ => Err("is not one object".into()),
    }
}

/// Says why `text` is not one JSON object; nothing if it is one.
pub(super) fn explain(text: &[u8], expected: &str) -> Option<String> {
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(_)) => None,
        Ok(Value::Array(_)) => Some(format!("is an array, {expected}")),
        Ok(_) => Some(format!("is a single value, {expected}")),
        Err(error) => {
            // The parser's own place is in the text, whose own place the caller knows.
            let told = error.to_string();
            let told = told.split(" at line ").next().unwrap_or(&told);
            Some(format!("{told} at character {}, {expected}", error.column()))
        }
    }
}
