//! From payloads to rows.
//!
//! One idea: a format turns many payloads into rows at once and names the ones it cannot; what else a row needs to be
//! labelled (a text, a sound vector) is checked here for all formats alike. What is wrong with a message becomes a dead
//! letter that says so; its neighbours go on. To add a format: one file with its `Decode`, and one line in
//! [`PayloadFormat`].

mod arrow_ipc;
mod avro;
mod json;
mod registry;
mod text;

pub use registry::RegistryConfig;

use super::messages;
use crate::aside::{Aside, DeadLetter, Message};
use crate::sources::{ColumnType, Embeddings};
use crate::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array,
    new_null_array,
};
use arrow::compute::{cast, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use operators::embedding_column::faults;
use operators::text::{BoundTemplate, Template};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// One JSON object a message.
    #[default]
    Json,
    /// UTF-8, whole: a row has the one column `text`.
    Text,
    /// An Arrow IPC stream a message: many rows in one.
    Arrow,
    /// One Avro record a message, whose schema is in a registry.
    Avro,
}

/// Turns payloads into rows.
trait Decode: Send {
    /// The columns of the rows.
    fn schema(&self) -> &SchemaRef;

    /// Decodes `payloads`, none of which is null.
    fn decode(&mut self, payloads: &BinaryArray) -> Result<Decoded>;
}

/// What became of payloads.
struct Decoded {
    /// The rows.
    rows: RecordBatch,
    /// The payload that each row comes from, rising.
    from: Vec<u32>,
    /// The payloads that could not be decoded, rising, and why.
    bad: Vec<(usize, String)>,
}

/// What rows are to be made of messages.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Columns that something reads: those of the text, the id.
    pub needed: Vec<String>,
    /// The types of columns; utf8 where it is not said.
    pub types: BTreeMap<String, ColumnType>,
    /// The text without which a row is of no use.
    pub text: Option<Template>,
    /// The column of vectors, if they come in one.
    pub embeddings: Option<Embeddings>,
    /// The names that labels add: a message must not have them already.
    pub added: Vec<String>,
    /// Where schemas are, for payloads whose schema lies elsewhere.
    pub registry: Option<RegistryConfig>,
}

/// Turns messages into rows that can be labelled.
pub(super) struct Decoder {
    format: Box<dyn Decode>,
    text: Option<(BoundTemplate, String)>,
    embeddings: Option<Embeddings>,
    schema: SchemaRef,
}

impl Decoder {
    /// Checks that `wanted` can be made of payloads of `format`.
    pub(super) fn try_new(format: PayloadFormat, wanted: &Wanted) -> Result<Self> {
        let decode: Box<dyn Decode> = match format {
            PayloadFormat::Json => Box::new(json::Json::new(columns(wanted)?, wanted.added.clone())),
            PayloadFormat::Arrow => Box::new(arrow_ipc::ArrowIpc::new(columns(wanted)?)),
            PayloadFormat::Avro => {
                let lacks = || {
                    let reason = "is absent, and Avro's schemas lie there: give registry: { url: \"https://host:port\" }";
                    Error::setting("source.kafka.registry", reason)
                };
                let registry = wanted.registry.as_ref().ok_or_else(lacks)?;
                Box::new(avro::Avro::new(columns(wanted)?, registry)?)
            }
            PayloadFormat::Text => Box::new(text::Text::try_new(wanted)?),
        };
        let of_rows = decode.schema();
        for field in of_rows.fields() {
            if messages::COLUMNS.contains(&field.name().as_str()) {
                let reason = "is what thema calls a part of every message; name the column otherwise";
                return Err(Error::setting(format!("column {}", field.name()), reason));
            }
        }
        let text = wanted.text.as_ref().map(|template| {
            let lacks = format!("has no text: {} missing or blank", named(&template.columns()));
            Ok::<_, Error>((template.bind(of_rows)?, lacks))
        });
        let beside = messages::columns_of_rows();
        let fields = of_rows.fields().iter().chain(&beside).cloned();
        let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
        Ok(Self { text: text.transpose()?, embeddings: wanted.embeddings.clone(), schema, format: decode })
    }

    /// The columns of the payloads, then those of `messages`.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Turns `messages` into rows, and what is no row.
    pub(super) fn decode(&mut self, messages: &RecordBatch) -> Result<(RecordBatch, Aside)> {
        let mut aside = Aside::default();
        let value = messages.column(messages::COLUMNS.len() - 1);
        let payloads = value.as_binary::<i32>();
        let sound: Vec<u32> =
            (0..payloads.len() as u32).filter(|&at| payloads.is_valid(at as usize)).collect();
        for at in (0..payloads.len()).filter(|&at| payloads.is_null(at)) {
            aside.tombstones.push(messages::message_of(messages, at)?);
        }
        let decoded = if sound.len() == payloads.len() {
            self.format.decode(payloads)?
        } else {
            let taken = take(payloads, &UInt32Array::from(sound.clone()), None).map_err(internal)?;
            self.format.decode(taken.as_binary::<i32>())?
        };
        for (at, reason) in decoded.bad {
            aside.letters.push(letter(messages::message_of(messages, sound[at] as usize)?, reason));
        }
        let from: Vec<u32> = decoded.from.iter().map(|&at| sound[at as usize]).collect();
        let (rows, from) = self.without_useless(decoded.rows, from, messages, &mut aside)?;
        let beside = messages::beside_rows(messages, &UInt32Array::from(from))?;
        let columns: Vec<ArrayRef> = rows.columns().iter().cloned().chain(beside).collect();
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(internal)?;
        Ok((rows, aside))
    }

    /// Leaves out rows without text and rows whose vector is of no use, each with a letter. Of a message with many rows
    /// one such row makes a letter of the whole message.
    fn without_useless(
        &mut self,
        rows: RecordBatch,
        from: Vec<u32>,
        messages: &RecordBatch,
        aside: &mut Aside,
    ) -> Result<(RecordBatch, Vec<u32>)> {
        let mut reasons: BTreeMap<u32, String> = BTreeMap::new();
        if let Some((template, lacks)) = &self.text {
            let texts = template.render(&rows)?.texts;
            let blank = (0..rows.num_rows()).filter(|&row| texts.is_null(row));
            reasons.extend(blank.map(|row| (from[row], lacks.clone())));
        }
        if let Some(Embeddings { column, dim }) = &mut self.embeddings
            && let Some(array) = rows.column_by_name(column)
        {
            let faults = faults(column, array, dim)?;
            let told =
                faults.into_iter().map(|(row, why)| (from[row], format!("column \"{column}\": {why}")));
            reasons.extend(told);
        }
        if reasons.is_empty() {
            return Ok((rows, from));
        }
        let kept: BooleanArray = from.iter().map(|at| Some(!reasons.contains_key(at))).collect();
        let rows = filter_record_batch(&rows, &kept).map_err(internal)?;
        let from = from.into_iter().filter(|at| !reasons.contains_key(at)).collect();
        for (at, reason) in reasons {
            aside.letters.push(letter(messages::message_of(messages, at as usize)?, reason));
        }
        Ok((rows, from))
    }
}

/// The columns of `schema`, taken from `batch` by name and cast; one that it lacks is null.
fn fitted(batch: &RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, String> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()).map_err(|_| {
            let (is, wanted) = (column.data_type(), field.data_type());
            format!("column \"{}\" is {is}, expected {wanted}", field.name())
        }),
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, String>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows).map_err(|error| error.to_string())
}

/// The header that counts how many times a message has been tried.
pub(crate) const ATTEMPT: &str = "x-attempt";

/// A dead letter of `message`, which counts the attempts that its headers tell of.
pub(crate) fn letter(message: Message, reason: String) -> DeadLetter {
    let before = message.headers.iter().rev().find(|(name, _)| name == ATTEMPT);
    let before =
        before.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse::<u32>().ok());
    DeadLetter { message, reason, attempt: before.unwrap_or(0).saturating_add(1) }
}

/// "title is", "title and abstract are".
fn named(columns: &[&str]) -> String {
    match columns {
        [only] => format!("{only} is"),
        [most @ .., last] => format!("{} and {last} are", most.join(", ")),
        [] => "it is".into(),
    }
}

/// The columns that are read of a payload: those that are needed and those whose type is said, fields of structs within
/// their structs. Each may be absent from a payload, and is null then.
fn columns(wanted: &Wanted) -> Result<SchemaRef> {
    let mut types: BTreeMap<&str, DataType> =
        wanted.types.iter().map(|(name, column)| (name.as_str(), column.data_type())).collect();
    let mut order: Vec<&str> = Vec::new();
    let embeddings = wanted.embeddings.as_ref();
    for name in wanted.needed.iter().chain(wanted.types.keys()).chain(embeddings.map(|found| &found.column)) {
        if !order.contains(&name.as_str()) {
            order.push(name);
        }
    }
    if let Some(Embeddings { column, dim }) = embeddings {
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let width = dim.and_then(|dim| i32::try_from(dim).ok());
        let list =
            width.map_or(DataType::List(Arc::clone(&item)), |width| DataType::FixedSizeList(item, width));
        types.insert(column, list);
    }
    let mut fields = Vec::new();
    for name in order {
        let data_type = types.get(name).cloned().unwrap_or(DataType::Utf8);
        let path: Vec<&str> = name.split('.').collect();
        insert(&mut fields, &path, data_type).map_err(|clash| {
            Error::setting(
                format!("column {name}"),
                format!("is a field of {clash}, which is said to be no struct"),
            )
        })?;
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Adds the field at `path`; fails with the name of what is no struct on its way.
fn insert(fields: &mut Vec<Field>, path: &[&str], data_type: DataType) -> std::result::Result<(), String> {
    let (Some(first), rest) = (path.first(), path.get(1..).unwrap_or_default()) else { return Ok(()) };
    let at = fields.iter().position(|field| field.name() == first);
    if rest.is_empty() {
        return match at {
            Some(_) => Err((*first).into()),
            None => {
                fields.push(Field::new(*first, data_type, true));
                Ok(())
            }
        };
    }
    let mut within: Vec<Field> = match at.map(|at| fields[at].data_type()) {
        None => Vec::new(),
        Some(DataType::Struct(fields)) => fields.iter().map(|field| field.as_ref().clone()).collect(),
        Some(_) => return Err((*first).into()),
    };
    insert(&mut within, rest, data_type)?;
    let field = Field::new_struct(*first, within, true);
    match at {
        Some(at) => fields[at] = field,
        None => fields.push(field),
    }
    Ok(())
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::Internal(error.to_string())
}

#[cfg(test)]
mod tests;
