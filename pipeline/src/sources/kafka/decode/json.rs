//! One JSON object a payload. Many are decoded at once; where that fails, one by one, to find the bad ones.

use super::{Decode, Decoded, internal};
use crate::Result;
use crate::sources::json::{decoded, explain};
use arrow::array::{Array, BinaryArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::ops::Range;
use std::sync::Arc;

/// About how many bytes a thread takes at a time.
const PART_BYTES: usize = 256 << 10;

/// What is expected of a payload.
const EXPECTED: &str = "expected one JSON object";

/// Objects as rows.
pub(super) struct Json {
    schema: SchemaRef,
    /// The names that labels add, each as it would stand in an object.
    added: Vec<(String, String)>,
}

impl Json {
    /// Reads `schema`'s columns; an object that has a name of `added` is bad.
    pub(super) fn new(schema: SchemaRef, added: Vec<String>) -> Self {
        let quoted = |name: String| (format!("\"{name}\""), name);
        Self { schema, added: added.into_iter().map(quoted).collect() }
    }

    /// Decodes the payloads `part`.
    fn part(&self, payloads: &BinaryArray, part: Range<usize>) -> Result<Decoded> {
        let mut bad: Vec<(usize, String)> =
            part.clone().filter_map(|at| Some((at, self.clash(payloads.value(at))?))).collect();
        let good = |bad: &[(usize, String)]| -> Vec<usize> {
            part.clone().filter(|at| !bad.iter().any(|(found, _)| found == at)).collect()
        };
        let kept = good(&bad);
        if let Ok(rows) = decoded(&self.schema, kept.iter().map(|&at| payloads.value(at))) {
            return Ok(Decoded { rows, from: kept.into_iter().map(|at| at as u32).collect(), bad });
        }
        let (mut batches, mut from) = (Vec::new(), Vec::new());
        for at in kept {
            match decoded(&self.schema, std::iter::once(payloads.value(at))) {
                Ok(row) => {
                    batches.push(row);
                    from.push(at as u32);
                }
                Err(reason) => bad.push((at, explain(payloads.value(at), EXPECTED).unwrap_or(reason))),
            }
        }
        bad.sort_unstable();
        let rows = concat_batches(&self.schema, &batches).map_err(internal)?;
        Ok(Decoded { rows, from, bad })
    }

    /// Why labels cannot be added to the object `payload`, if they cannot.
    fn clash(&self, payload: &[u8]) -> Option<String> {
        // Most objects have none of the names anywhere, which is quick to see.
        let maybe = |quoted: &String| memchr::memmem::find(payload, quoted.as_bytes()).is_some();
        if !self.added.iter().any(|(quoted, _)| maybe(quoted)) {
            return None;
        }
        let mut payload = serde_json::Deserializer::from_slice(payload);
        let name = payload.deserialize_map(Clash(&self.added)).ok()??;
        Some(format!("has a field \"{name}\" already, which is what labels add: give another prefix"))
    }
}

impl Decode for Json {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, payloads: &BinaryArray) -> Result<Decoded> {
        let mut parts = Vec::new();
        let mut start = 0;
        let offsets = payloads.value_offsets();
        for at in 0..payloads.len() {
            if (offsets[at + 1] - offsets[start]) as usize >= PART_BYTES || at + 1 == payloads.len() {
                parts.push(start..at + 1);
                start = at + 1;
            }
        }
        let parts: Vec<Decoded> =
            parts.into_par_iter().map(|part| self.part(payloads, part)).collect::<Result<_>>()?;
        let rows = match parts.as_slice() {
            [] => empty(&self.schema)?,
            [only] => only.rows.clone(),
            many => concat_batches(&self.schema, many.iter().map(|part| &part.rows)).map_err(internal)?,
        };
        let (mut from, mut bad) = (Vec::new(), Vec::new());
        for part in parts {
            from.extend(part.from);
            bad.extend(part.bad);
        }
        Ok(Decoded { rows, from, bad })
    }
}

/// No rows of `schema`, which may have no columns.
fn empty(schema: &SchemaRef) -> Result<RecordBatch> {
    let none = RecordBatchOptions::new().with_row_count(Some(0));
    let columns =
        schema.fields().iter().map(|field| arrow::array::new_empty_array(field.data_type())).collect();
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &none).map_err(internal)
}

/// Finds the first of the names among an object's own.
struct Clash<'a>(&'a [(String, String)]);

impl<'de> Visitor<'de> for Clash<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if found.is_none() && self.0.iter().any(|(_, name)| *name == key) {
                found = Some(key);
            }
        }
        Ok(found)
    }
}
