//! Avro payloads whose schemas lie in a registry.

use anyhow::Result;
use arrow::array::AsArray;
use arrow::datatypes::{Float32Type, Int64Type};
use harness::kafka::{Cluster, Record};
use harness::program::start;
use harness::registry::Registry;
use harness::tables::{column, strings};
use serde_json::{Value, json};

use super::{Stream, check_labelled, labels};
use crate::models::BLOBS;

/// A paper, with `more` fields behind those that labelling needs.
fn schema(more: &[Value]) -> Value {
    let mut fields = vec![
        json!({ "name": "id", "type": "long" }),
        json!({ "name": "text", "type": ["null", "string"] }),
        json!({ "name": "embedding", "type": { "type": "array", "items": "float" } }),
    ];
    fields.extend(more.iter().cloned());
    json!({ "type": "record", "name": "Paper", "fields": fields })
}

/// A number as Avro writes it: zigzag, then seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Blobs as records of the schema `id`; `more` is what its other fields hold.
fn records(first: usize, count: usize, id: u32, more: &[u8]) -> Result<Vec<Record>> {
    let rows = BLOBS.rows(first, count)?;
    let texts = strings(&rows, "text")?;
    let ids = column(&rows, "id")?.as_primitive::<Int64Type>().clone();
    let vectors = column(&rows, "embedding")?.as_fixed_size_list().clone();
    let record = |row: usize| {
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        number(&mut bytes, ids.value(row));
        // The second of the union.
        number(&mut bytes, 1);
        number(&mut bytes, texts[row].len() as i64);
        bytes.extend(texts[row].as_bytes());
        let vector = vectors.value(row);
        let vector = vector.as_primitive::<Float32Type>().values();
        number(&mut bytes, vector.len() as i64);
        vector.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        number(&mut bytes, 0);
        bytes.extend(more);
        Record::of(bytes)
    };
    Ok((0..count).map(record).collect())
}

#[test]
fn records_of_several_schemas_are_labelled_and_bad_ones_are_told() -> Result<()> {
    let kafka = Cluster::shared()?;
    let registry = Registry::start()?;
    let stream = Stream::new(&kafka, 1)?;
    let first = registry.register("papers-value", &schema(&[]))?;
    let more = json!({ "name": "venue", "type": "string" });
    let second = registry.register("papers-value-2", &schema(&[more]))?;
    let source = format!("format: avro, registry: {{ url: \"{}\" }},", registry.url());
    let job = stream.job_with(&source, "", "id: id\n")?;
    // The two lie side by side.
    let mut sent = Vec::new();
    for (a, b) in records(0, 100, first, &[])?.into_iter().zip(records(100, 100, second, b"\x06ACL")?) {
        sent.extend([a, b]);
    }
    kafka.produce(&stream.input, &sent)?;
    let bad = [
        (Record::of("{}"), "has no schema's id"),
        (Record::of([0, 0, 0, 3, 231, 0]), "schema 999 is not in the registry"),
        (Record::of([vec![0, 0, 0, 0, first as u8], vec![2, 2]].concat()), "is no record of schema"),
        (
            Record { value: sent[0].value.clone().map(|v| [v, vec![7]].concat()), ..Record::default() },
            "could be read",
        ),
    ];
    kafka.produce(&stream.input, &bad.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>())?;
    let told = stream.run(&job)?;
    assert!(told.starts_with("204 messages: 200 rows labelled, 4 bad"), "{told}");
    check_labelled(&kafka.read(&stream.output)?, &labels(&stream.folder, &BLOBS.rows(0, 200)?)?)?;
    for (letter, (_, words)) in kafka.read(&stream.dead)?.iter().zip(&bad) {
        let error = letter.header("x-error").unwrap_or_default();
        assert!(error.contains(words), "{error}");
    }
    Ok(())
}

#[test]
fn a_registry_that_is_away_is_waited_for() -> Result<()> {
    let kafka = Cluster::shared()?;
    let registry = Registry::start()?;
    let stream = Stream::new(&kafka, 1)?;
    let id = registry.register("papers-value", &schema(&[]))?;
    let source = format!("format: avro, registry: {{ url: \"{}\" }},", registry.url());
    let job = stream.job_with(&source, "", "id: id\n")?;
    kafka.produce(&stream.input, &records(0, 50, id, &[])?)?;
    registry.freeze(true)?;
    let mut worker = start(&["stream", &job])?;
    worker.wait_for("schema registry http://127.0.0.1")?;
    registry.freeze(false)?;
    kafka.wait_for(&stream.output, 50)?;
    worker.signal("TERM")?;
    worker.wait()?.succeeds()?;
    assert!(kafka.read(&stream.dead)?.is_empty());
    check_labelled(&kafka.read(&stream.output)?, &labels(&stream.folder, &BLOBS.rows(0, 50)?)?)
}
