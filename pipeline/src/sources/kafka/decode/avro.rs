//! An Avro record a payload, framed as Confluent's serializers do it: a zero byte, the schema's id in the registry (four
//! bytes, the highest first), the record. Messages with different versions of a schema may lie side by side.

use super::registry::{Registry, RegistryConfig};
use super::{Decode, Decoded, fitted, internal};
use crate::Result;
use crate::error::first_line;
use arrow::array::UInt32Array;
use arrow::array::{BinaryArray, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow_avro::reader::{Decoder as AvroDecoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes before a record.
const FRAME: usize = 5;

/// What was made of a payload, or why it is bad.
type Fitted<T> = std::result::Result<T, String>;

/// Records as rows.
pub(super) struct Avro {
    schema: SchemaRef,
    registry: Registry,
    /// The writers' schemas by their ids.
    known: HashMap<u32, AvroSchema>,
}

impl Avro {
    /// Reads `schema`'s columns.
    pub(super) fn new(schema: SchemaRef, registry: &RegistryConfig) -> Result<Self> {
        Ok(Self { schema, registry: Registry::open(registry)?, known: HashMap::new() })
    }

    /// The writer's schema of this id.
    fn known(&mut self, id: u32) -> Result<Fitted<AvroSchema>> {
        if let Some(schema) = self.known.get(&id) {
            return Ok(Ok(schema.clone()));
        }
        let schema = match self.registry.schema(id)? {
            Ok(text) => AvroSchema::new(text),
            Err(reason) => return Ok(Err(reason)),
        };
        self.known.insert(id, schema.clone());
        Ok(Ok(schema))
    }
}

/// What decodes payloads of one schema, so many at once.
fn decoder(id: u32, schema: &AvroSchema, most: usize) -> Fitted<AvroDecoder> {
    let unusable = |error: arrow::error::ArrowError| {
        format!("schema {id} cannot be used: {}", first_line(&error.to_string()))
    };
    let fingerprint = Fingerprint::Id(id);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(fingerprint, schema.clone()).map_err(unusable)?;
    let builder = ReaderBuilder::new().with_batch_size(most).with_writer_schema_store(store);
    builder.with_active_fingerprint(fingerprint).build_decoder().map_err(unusable)
}

/// Decodes `payloads`, which all have the schema `id`; an error if one of them is bad.
fn rows(id: u32, schema: &AvroSchema, payloads: &[&[u8]]) -> Fitted<RecordBatch> {
    // Bytes that are no record of the schema panic in places.
    let read = AssertUnwindSafe(|| -> Fitted<RecordBatch> {
        let mut decoder = decoder(id, schema, payloads.len())?;
        let broken = |what: String| format!("is no record of schema {id}: {what}");
        for payload in payloads {
            let before = decoder.capacity();
            let read = decoder.decode(payload).map_err(|error| broken(first_line(&error.to_string())))?;
            if decoder.capacity() + 1 != before || read != payload.len() {
                return Err(broken(format!("it has {} bytes, of which {read} could be read", payload.len())));
            }
        }
        let rows = decoder.flush().map_err(|error| broken(first_line(&error.to_string())))?;
        rows.ok_or_else(|| broken("it has no row".into()))
    });
    catch_unwind(read).unwrap_or_else(|_| Err(format!("is no record of schema {id}")))
}

impl Decode for Avro {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, payloads: &BinaryArray) -> Result<Decoded> {
        let mut bad: Vec<(usize, String)> = Vec::new();
        let mut of_schema: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, payload) in payloads.iter().flatten().enumerate() {
            match payload {
                [0, a, b, c, d, _rest @ ..] => {
                    of_schema.entry(u32::from_be_bytes([*a, *b, *c, *d])).or_default().push(at);
                }
                _ => bad.push((
                    at,
                    format!("has no schema's id: expected a zero byte, then the id, {FRAME} bytes"),
                )),
            }
        }
        let (mut batches, mut from) = (Vec::new(), Vec::new());
        for (id, places) in of_schema {
            let schema = match self.known(id)? {
                Ok(schema) => schema,
                Err(reason) => {
                    bad.extend(places.into_iter().map(|at| (at, reason.clone())));
                    continue;
                }
            };
            let read = |places: &[usize]| -> Fitted<RecordBatch> {
                let payloads: Vec<&[u8]> = places.iter().map(|&at| payloads.value(at)).collect();
                fitted(&rows(id, &schema, &payloads)?, &self.schema)
            };
            if let Ok(all) = read(&places) {
                batches.push(all);
                from.extend(places.iter().map(|&at| at as u32));
                continue;
            }
            // One by one, to find the bad ones.
            for at in places {
                match read(&[at]) {
                    Ok(row) => {
                        batches.push(row);
                        from.push(at as u32);
                    }
                    Err(reason) => bad.push((at, reason)),
                }
            }
        }
        bad.sort_unstable();
        let rows = concat_batches(&self.schema, &batches).map_err(internal)?;
        // In the order in which they came.
        let mut order: Vec<u32> = (0..from.len() as u32).collect();
        order.sort_unstable_by_key(|&row| from[row as usize]);
        let rows = take_record_batch(&rows, &UInt32Array::from(order.clone())).map_err(internal)?;
        let from = order.into_iter().map(|row| from[row as usize]).collect();
        Ok(Decoded { rows, from, bad })
    }
}
