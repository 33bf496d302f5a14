//! `thema stream` with a real broker: what leaves is what came, labelled, each message once.

mod avro;
mod bad;
mod delta;
mod faults;
mod kill;
mod lost;
mod secure;
mod soak;
mod start;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int64Type};
use harness::kafka::{Cluster, Record};
use harness::program::thema;
use harness::tables::{Blobs, Folder, column, floats, ints, read_parquet, strings};
use serde_json::{Value, json};

use crate::models::{self, BLOBS};

/// A stream from one topic to another, with dead letters.
struct Stream {
    kafka: Arc<Cluster>,
    folder: Folder,
    input: String,
    output: String,
    dead: String,
}

impl Stream {
    /// Makes the topics.
    fn new(kafka: &Arc<Cluster>, partitions: i32) -> Result<Self> {
        let topic = |name| kafka.topic(name, partitions);
        let (input, output, dead) = (topic("papers")?, topic("labelled")?, topic("dead")?);
        Ok(Self { kafka: Arc::clone(kafka), folder: Folder::new()?, input, output, dead })
    }

    /// The job file of a stream of blobs; `source`, `sink` and `more` are keys to add, each with a comma or a line's end.
    fn job_with(&self, source: &str, sink: &str, more: &str) -> Result<String> {
        let Self { output, dead, .. } = self;
        self.job_into(source, &format!("kafka: {{ {sink} topic: {output}, dead_letters: {dead} }}"), more)
    }

    /// The same with a sink of any kind.
    fn job_into(&self, source: &str, sink: &str, more: &str) -> Result<String> {
        let Self { kafka, input, .. } = self;
        let (bootstrap, model) = (kafka.bootstrap(), &models::blobs().model);
        let text = format!(
            "source: {{ kafka: {{ {source} connection: {{ bootstrap: \"{bootstrap}\" }}, topics: [{input}], \
             group: {input}, session_timeout_ms: 6000, columns: {{ id: int64 }} }} }}\n\
             sink: {{ {sink} }}\nmodel: \"{model}\"\n{more}"
        );
        self.folder.write("job.yaml", text)
    }

    fn job(&self) -> Result<String> {
        self.job_with("", "", "")
    }

    /// Runs it to the end of the topic.
    fn run(&self, job: &str) -> Result<String> {
        Ok(thema(&["stream", job, "--until-end"])?.succeeds()?.stdout)
    }
}

/// Blobs as messages: an object each, with a key and a header, in `partitions` partitions.
fn blobs(first: usize, count: usize, partitions: i32) -> Result<Vec<Record>> {
    blobs_of(BLOBS, first, count, partitions)
}

/// The same of other clusters.
fn blobs_of(blobs: Blobs, first: usize, count: usize, partitions: i32) -> Result<Vec<Record>> {
    let rows = blobs.rows(first, count)?;
    let texts = strings(&rows, "text")?;
    let ids = column(&rows, "id")?.as_primitive::<Int64Type>().clone();
    let vectors = column(&rows, "embedding")?.as_fixed_size_list().clone();
    let record = |row: usize| {
        let vector = vectors.value(row);
        let vector: Vec<f32> = vector.as_primitive::<Float32Type>().values().to_vec();
        let id = ids.value(row);
        let object =
            json!({ "id": id, "text": texts[row], "embedding": vector, "more": { "of": [1, null, "it"] } });
        Record {
            headers: vec![("trace".into(), format!("t-{id}").into_bytes())],
            partition: (id % i64::from(partitions)) as i32,
            timestamp: Some(1_700_000_000_000 + id),
            ..Record::of(object.to_string()).with_key(format!("k-{id}"))
        }
    };
    Ok((0..rows.num_rows()).map(record).collect())
}

/// The labels of blobs by `thema label`: topic and score by id.
fn labels(folder: &Folder, rows: &RecordBatch) -> Result<BTreeMap<i64, (i32, f32)>> {
    let (input, out) = (folder.parquet("rows.parquet", rows)?, folder.path("rows-labelled.parquet"));
    thema(&["label", "--input", &input, "--model", &models::blobs().model, "--out", &out, "--overwrite"])?
        .succeeds()?;
    let labelled = read_parquet(&out)?;
    let ids = column(&labelled, "id")?.as_primitive::<Int64Type>().values().to_vec();
    let labels = ints(&labelled, "topic")?.into_iter().zip(floats(&labelled, "score")?);
    Ok(ids.into_iter().zip(labels).collect())
}

/// Checks that `records` are exactly the messages of blobs with the ids of `labels`, each once and with its label.
fn check_labelled(records: &[Record], labels: &BTreeMap<i64, (i32, f32)>) -> Result<()> {
    let mut seen = BTreeMap::new();
    for record in records {
        let object = record.json()?;
        let id = object["id"].as_i64().with_context(|| format!("no id in {object}"))?;
        let (topic, score) = labels.get(&id).with_context(|| format!("{id} was never sent"))?;
        ensure!(object["topic"] == json!(topic), "{id} has topic {}, not {topic}", object["topic"]);
        let found = object["score"].as_f64().with_context(|| format!("no score in {object}"))? as f32;
        ensure!(found == *score, "{id} has score {found}, not {score}");
        seen.entry(id).or_insert_with(Vec::new).push((record.partition, record.offset));
    }
    let twice: Vec<_> = seen.iter().filter(|(_, places)| places.len() > 1).collect();
    ensure!(
        twice.is_empty(),
        "{} messages are there twice, such as (by id, at partition and offset) {:?}",
        twice.len(),
        &twice[..twice.len().min(5)]
    );
    let lost: Vec<&i64> = labels.keys().filter(|id| !seen.contains_key(id)).collect();
    ensure!(lost.is_empty(), "{} messages are lost, such as {:?}", lost.len(), &lost[..lost.len().min(5)]);
    Ok(())
}

#[test]
fn each_message_leaves_as_it_came_with_its_label_added() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 3)?;
    let sent = blobs(1000, 500, 3)?;
    kafka.produce(&stream.input, &sent)?;
    let told = stream.run(&stream.job()?)?;
    assert!(told.starts_with("500 messages: 500 rows labelled, 0 bad, 0 tombstones in "), "{told}");

    let received = kafka.read(&stream.output)?;
    check_labelled(&received, &labels(&stream.folder, &BLOBS.rows(1000, 500)?)?)?;
    let by_key: BTreeMap<_, _> = sent.iter().map(|record| (record.key.clone(), record)).collect();
    for record in &received {
        let before = by_key[&record.key];
        assert_eq!((&record.headers, record.timestamp), (&before.headers, before.timestamp));
        let (Value::Object(mut object), Value::Object(before)) = (record.json()?, before.json()?) else {
            panic!("no objects");
        };
        assert!(object["topic_name"].is_string() && object["topics"].is_array());
        assert_eq!(object["model_version"], "v1");
        for name in ["topic", "topic_name", "topic_path", "score", "topics", "model_version"] {
            object.remove(name);
        }
        assert_eq!(object, before, "nothing else is changed");
    }
    assert!(kafka.read(&stream.dead)?.is_empty());
    let committed = kafka.committed(&stream.input, &stream.input)?;
    assert_eq!(committed.values().sum::<i64>(), 500, "{committed:?}");
    Ok(())
}

#[test]
fn a_second_run_reads_only_what_is_new() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    let job = stream.job()?;
    let empty = stream.run(&job)?;
    assert!(empty.starts_with("0 messages"), "{empty}");
    for (first, count) in [(0, 100), (100, 50)] {
        kafka.produce(&stream.input, &blobs(first, count, 2)?)?;
        let told = stream.run(&job)?;
        assert!(told.starts_with(&format!("{count} messages: {count} rows")), "{told}");
    }
    check_labelled(&kafka.read(&stream.output)?, &labels(&stream.folder, &BLOBS.rows(0, 150)?)?)
}

#[test]
fn rows_that_keep_leaves_out_are_counted_and_their_messages_done() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    kafka.produce(&stream.input, &blobs(0, 200, 1)?)?;
    let told = stream.run(&stream.job_with("", "", "keep: topic = 0\n")?)?;
    let left = kafka.read(&stream.output)?.len();
    let expected = format!("200 messages: {left} rows labelled and {} left out by keep", 200 - left);
    assert!(left > 0 && left < 200 && told.starts_with(&expected), "{told}");
    assert_eq!(kafka.committed(&stream.input, &stream.input)?.values().sum::<i64>(), 200);
    Ok(())
}

#[test]
fn the_new_group_protocol_and_throughput_give_the_same() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    kafka.produce(&stream.input, &blobs(0, 300, 2)?)?;
    let more = "stream: { mode: throughput, batch_rows: 64 }\n";
    stream.run(&stream.job_with("protocol: consumer, instance: a,", "", more)?)?;
    check_labelled(&kafka.read(&stream.output)?, &labels(&stream.folder, &BLOBS.rows(0, 300)?)?)
}
