//! A payload that is a text, whole.

use super::{Decode, Decoded, Wanted, internal};
use crate::{Error, Result};
use arrow::array::{Array, BinaryArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The one column.
const COLUMN: &str = "text";

/// Texts as rows.
pub(super) struct Text {
    schema: SchemaRef,
}

impl Text {
    /// Checks that nothing but the text is wanted.
    pub(super) fn try_new(wanted: &Wanted) -> Result<Self> {
        let embeddings = wanted.embeddings.iter().map(|found| &found.column);
        for name in wanted.needed.iter().chain(wanted.types.keys()).chain(embeddings) {
            if name != COLUMN {
                let reason = format!(
                    "payloads of format text have one column, \"{COLUMN}\"; write text: \"{{text}}\""
                );
                return Err(Error::setting(format!("column {name}"), reason));
            }
        }
        Ok(Self { schema: Arc::new(Schema::new(vec![Field::new(COLUMN, DataType::Utf8, true)])) })
    }
}

impl Decode for Text {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, payloads: &BinaryArray) -> Result<Decoded> {
        let mut texts = StringBuilder::with_capacity(payloads.len(), payloads.value_data().len());
        let (mut from, mut bad) = (Vec::new(), Vec::new());
        for (at, payload) in payloads.iter().flatten().enumerate() {
            match std::str::from_utf8(payload) {
                Ok(text) => {
                    texts.append_value(text);
                    from.push(at as u32);
                }
                Err(error) => bad.push((at, format!("is no UTF-8 from byte {} on", error.valid_up_to()))),
            }
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(texts.finish())]);
        Ok(Decoded { rows: rows.map_err(internal)?, from, bad })
    }
}
