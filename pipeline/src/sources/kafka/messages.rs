//! Messages as a record batch: what every message has, whatever its payload means.
//!
//! | column | type |
//! |---|---|
//! | `kafka_topic` | utf8 |
//! | `kafka_partition` | int32 |
//! | `kafka_offset` | int64 |
//! | `kafka_timestamp` | timestamp (ms, UTC) |
//! | `kafka_key` | binary |
//! | `kafka_headers` | list of struct<key: utf8, value: binary> |
//! | `kafka_value` | binary: the payload |

use crate::aside::Message;
use crate::positions::Split;
use crate::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, RecordBatch,
    StringBuilder, StructBuilder, TimestampMillisecondBuilder, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    DataType, Field, Fields, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType,
};
use std::sync::{Arc, LazyLock};

/// A name and what is said under it.
type Header = (String, Option<Vec<u8>>);

/// The names of the columns, in order.
pub const COLUMNS: [&str; 7] = [
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
    "kafka_timestamp",
    "kafka_key",
    "kafka_headers",
    "kafka_value",
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let [topic, partition, offset, timestamp, key, headers, value] = COLUMNS;
    Arc::new(Schema::new(vec![
        Field::new(topic, DataType::Utf8, false),
        Field::new(partition, DataType::Int32, false),
        Field::new(offset, DataType::Int64, false),
        Field::new(timestamp, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new(key, DataType::Binary, true),
        Field::new_list(headers, Field::new_list_field(DataType::Struct(header()), true), true),
        Field::new(value, DataType::Binary, true),
    ]))
});

fn header() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// The schema of messages.
pub fn schema() -> &'static SchemaRef {
    &SCHEMA
}

/// The columns of messages beside the rows that are made of them, of which a message may make many: `kafka_value` is
/// binary view, which all of them share.
pub(super) fn columns_of_rows() -> Fields {
    let [.., value] = COLUMNS;
    let shared = |field: &Arc<Field>| match field.name() == value {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView)),
        false => Arc::clone(field),
    };
    SCHEMA.fields().iter().map(shared).collect()
}

/// The same of each row, which was made of the message that `from` says.
pub(super) fn beside_rows(messages: &RecordBatch, from: &UInt32Array) -> Result<Vec<ArrayRef>> {
    let wanted = columns_of_rows();
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| match column.data_type() == field.data_type() {
        true => take(column, from, None),
        false => take(&cast(column, field.data_type())?, from, None),
    };
    let columns = messages.columns().iter().zip(&wanted).map(column);
    columns.collect::<std::result::Result<_, _>>().map_err(|error| Error::Internal(error.to_string()))
}

/// Messages that are being gathered.
pub(super) struct Messages {
    topic: StringBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    timestamp: TimestampMillisecondBuilder,
    key: BinaryBuilder,
    headers: ListBuilder<StructBuilder>,
    value: BinaryBuilder,
    bytes: usize,
}

impl Messages {
    /// None yet.
    pub(super) fn new() -> Self {
        let header = StructBuilder::from_fields(header(), 0);
        Self {
            topic: StringBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            timestamp: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            key: BinaryBuilder::new(),
            headers: ListBuilder::new(header),
            value: BinaryBuilder::new(),
            bytes: 0,
        }
    }

    /// Adds `message`. Its headers are left out where a name is no text, for the client cannot read these.
    pub(super) fn push(&mut self, message: &impl rdkafka::Message) {
        let headers = headers_as_read(message);
        let place = (message.topic(), message.partition(), message.offset());
        let parts = (message.timestamp().to_millis(), message.key(), message.payload());
        self.append(place, parts, headers.as_deref());
    }

    fn append(
        &mut self,
        (topic, partition, offset): (&str, i32, i64),
        (timestamp, key, value): (Option<i64>, Option<&[u8]>, Option<&[u8]>),
        headers: Option<&[Header]>,
    ) {
        self.topic.append_value(topic);
        self.partition.append_value(partition);
        self.offset.append_value(offset);
        self.timestamp.append_option(timestamp);
        self.key.append_option(key);
        self.value.append_option(value);
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + 64;
        for (key, value) in headers.unwrap_or_default() {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            let header = self.headers.values();
            if let Some(keys) = header.field_builder::<StringBuilder>(0) {
                keys.append_value(key);
            }
            if let Some(values) = header.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_deref());
            }
            header.append(true);
        }
        self.headers.append(headers.is_some());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.offset.values_slice().len()
    }

    /// About how much memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> Result<RecordBatch> {
        self.bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.value.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&SCHEMA), columns).map_err(|e| Error::Internal(e.to_string()))
    }
}

/// The headers of a message as the client has it; nothing where it has none, or cannot read them.
fn headers_as_read(message: &impl rdkafka::Message) -> Option<Vec<Header>> {
    use rdkafka::message::Headers;
    let headers = message.headers()?;
    let read = std::panic::AssertUnwindSafe(|| {
        let all = headers.iter().map(|header| (header.key.to_string(), header.value.map(Vec::from)));
        all.collect::<Vec<_>>()
    });
    // rdkafka panics at a name that is no UTF-8.
    let read = std::panic::catch_unwind(read).ok();
    if read.is_none() {
        tracing::warn!(
            "{}:{}, offset {}: the headers are left out: a name among them is no UTF-8",
            message.topic(),
            message.partition(),
            message.offset()
        );
    }
    read
}

/// Messages as rows.
pub(crate) fn rows_of<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Result<RecordBatch> {
    let mut rows = Messages::new();
    for message in messages {
        let (topic, partition) = partition_of(&message.split)?;
        let parts = (message.timestamp, message.key.as_deref(), message.value.as_deref());
        rows.append((topic, partition, message.offset), parts, Some(&message.headers));
    }
    rows.take()
}

/// The message that `row` of `rows` comes from; rows without `kafka_value` give one without a payload.
pub(crate) fn message_of(rows: &RecordBatch, row: usize) -> Result<Message> {
    let lost = |name: &str| Error::Internal(format!("rows of a stream without {name}"));
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| lost(name));
    let bytes = |name: &str| -> Option<Vec<u8>> {
        let column = rows.column_by_name(name).filter(|column| column.is_valid(row))?;
        match column.as_binary_view_opt() {
            Some(views) => Some(views.value(row).into()),
            None => Some(column.as_binary_opt::<i32>()?.value(row).into()),
        }
    };
    let [topic, partition, offset, timestamp, key, headers, value] = COLUMNS;
    let topic = column(topic)?.as_string_opt::<i32>().ok_or_else(|| lost("text"))?.value(row);
    let partition =
        column(partition)?.as_primitive_opt::<Int32Type>().ok_or_else(|| lost("int32"))?.value(row);
    let timestamp = column(timestamp)?.as_primitive_opt::<TimestampMillisecondType>();
    let timestamp = timestamp.filter(|times| times.is_valid(row)).map(|times| times.value(row));
    Ok(Message {
        split: split(topic, partition),
        offset: column(offset)?.as_primitive_opt::<Int64Type>().ok_or_else(|| lost("int64"))?.value(row),
        timestamp,
        key: bytes(key),
        headers: rows.column_by_name(headers).map(|column| headers_of(column, row)).unwrap_or_default(),
        value: bytes(value),
    })
}

/// The headers of `row`.
pub(crate) fn headers_of(column: &ArrayRef, row: usize) -> Vec<Header> {
    let Some(lists) = column.as_list_opt::<i32>().filter(|lists| lists.is_valid(row)) else {
        return Vec::new();
    };
    let pairs = lists.value(row);
    let Some(pairs) = pairs.as_struct_opt() else { return Vec::new() };
    let (Some(keys), Some(values)) =
        (pairs.column(0).as_string_opt::<i32>(), pairs.column(1).as_binary_opt::<i32>())
    else {
        return Vec::new();
    };
    (0..keys.len())
        .map(|at| (keys.value(at).to_string(), values.is_valid(at).then(|| values.value(at).to_vec())))
        .collect()
}

/// The name of a partition; no topic has a colon in its name.
pub(crate) fn split(topic: &str, partition: i32) -> Split {
    Split::new(format!("{topic}:{partition}"))
}

/// The topic and the partition that `split` names.
pub(crate) fn partition_of(split: &Split) -> Result<(&str, i32)> {
    let parts =
        split.as_str().rsplit_once(':').and_then(|(topic, number)| Some((topic, number.parse().ok()?)));
    parts.ok_or_else(|| Error::Internal(format!("\"{split}\" is no partition")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage, Timestamp};

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "a", value: Some("1") })
            .insert(Header { key: "b", value: None::<&str> });
        let mut messages = Messages::new();
        for (key, value, headers) in [
            (Some("k"), Some("v"), Some(headers)),
            (None, None, None),
            (None, Some(""), Some(OwnedHeaders::new())),
        ] {
            let (key, value) = (key.map(Vec::from), value.map(Vec::from));
            let at = Timestamp::CreateTime(1_700_000_000_123);
            messages.push(&OwnedMessage::new(value, key, "papers".into(), at, 3, 42, headers));
        }
        assert_eq!(messages.len(), 3);
        assert!(messages.bytes() > 3 * 64);
        let rows = messages.take().unwrap();
        assert_eq!((messages.len(), messages.bytes()), (0, 0));
        let first = message_of(&rows, 0).unwrap();
        assert_eq!(first.split.as_str(), "papers:3");
        assert_eq!((first.offset, first.timestamp), (42, Some(1_700_000_000_123)));
        assert_eq!((first.key, first.value), (Some(b"k".to_vec()), Some(b"v".to_vec())));
        assert_eq!(first.headers, [("a".to_string(), Some(b"1".to_vec())), ("b".to_string(), None)]);
        let second = message_of(&rows, 1).unwrap();
        assert_eq!((second.key, second.value, second.headers), (None, None, vec![]));
        assert_eq!(message_of(&rows, 2).unwrap().value, Some(vec![]));
    }

    #[test]
    fn a_partition_has_a_name_that_says_which() {
        assert_eq!(partition_of(&split("a.b-c_d", 12)).unwrap(), ("a.b-c_d", 12));
        assert!(partition_of(&Split::new("papers.parquet")).is_err());
    }
}
