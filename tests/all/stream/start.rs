//! What keeps a stream from starting is told before anything is read.

use anyhow::Result;
use harness::kafka::Cluster;
use harness::program::{start, thema};

use super::{Stream, blobs, check_labelled, labels};
use crate::models::{self, BLOBS};

#[test]
fn a_topic_that_is_not_there_is_named_with_those_that_are() -> Result<()> {
    let kafka = Cluster::shared()?;
    let mut stream = Stream::new(&kafka, 1)?;
    let there = std::mem::replace(&mut stream.output, "no-such-topic".into());
    thema(&["stream", &stream.job()?])?.fails(2, &["no topic \"no-such-topic\"", "there are"])?;
    stream.output = there.clone();
    stream.input = format!("{}x", stream.input);
    thema(&["stream", &stream.job()?])?.fails(2, &["no topic", "did you mean"])?;
    Ok(())
}

#[test]
fn where_no_broker_answers_the_address_is_told() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let job = std::fs::read_to_string(stream.job()?)?.replace(kafka.bootstrap(), "127.0.0.1:9");
    let job = stream.folder.write("nowhere.yaml", job)?;
    let words = ["Kafka at 127.0.0.1:9", "no broker answers", "Connection refused"];
    thema(&["stream", &job])?.fails(4, &words)?;
    Ok(())
}

#[test]
fn a_stream_that_waits_for_a_broker_hears_that_it_is_to_end() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let job = std::fs::read_to_string(stream.job()?)?.replace(kafka.bootstrap(), "127.0.0.1:9");
    let mut worker = start(&["stream", &stream.folder.write("nowhere.yaml", job)?])?;
    worker.wait_for("no broker answers yet")?;
    worker.signal("TERM")?;
    let run = worker.wait()?.succeeds()?;
    assert!(run.stdout.starts_with("0 messages"), "{}", run.stdout);
    assert!(!run.stderr.contains("ERROR"), "{}", run.stderr);
    Ok(())
}

#[test]
fn what_the_job_lacks_is_told() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let job = std::fs::read_to_string(stream.job()?)?;
    let model = &models::blobs().model;
    for (from, to, words) in [
        (format!(", dead_letters: {}", stream.dead), String::new(), "bad messages have nowhere to go"),
        (format!("topics: [{}]", stream.input), "topics: []".into(), "names no topic"),
        (format!(" group: {},", stream.input), String::new(), "names no consumer group"),
        (model.clone(), "nowhere".into(), "holds no model"),
        ("bootstrap:".into(), "bootstraps:".into(), "unknown key \"bootstraps\""),
        (
            "session_timeout_ms: 6000".into(),
            "start: { timestamp: tomorrow }".into(),
            "\"tomorrow\" is no time",
        ),
        ("topics:".into(), "format: text, topics:".into(), "have one column"),
    ] {
        let changed = job.replace(&from, &to);
        assert_ne!(changed, job, "{from} is in the job");
        let changed = stream.folder.write("wrong.yaml", changed)?;
        thema(&["stream", &changed])?.fails(2, &[words])?;
    }
    let files = "source: { table: { path: a.parquet } }\nmodel: m\nsink: { parquet: { path: b.parquet } }\n";
    let files = stream.folder.write("files.yaml", files)?;
    thema(&["stream", &files])?.fails(2, &["thema label"])?;
    let out = stream.folder.path("out.parquet");
    thema(&["label", &stream.job()?, "--out", &out])?.fails(2, &["thema stream"])?;
    Ok(())
}

#[test]
fn a_stream_that_would_read_what_it_writes_is_refused() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let Stream { input, output, dead, .. } = &stream;
    for (topics, sink, words) in [
        (input.as_str(), format!("topic: {input}, dead_letters: {dead}"), "sink.kafka.topic"),
        (input, format!("topic: {output}, dead_letters: {input}"), "sink.kafka.dead_letters"),
        ("^papers", format!("topic: {output}, dead_letters: {input}"), "would come back"),
        (input, format!("topic: {output}, dead_letters: {output}"), "is the topic of the rows itself"),
    ] {
        let job = stream.job_into("", &format!("kafka: {{ {sink} }}"), "")?;
        let text = std::fs::read_to_string(&job)?.replace(&format!("[{input}]"), &format!("[\"{topics}\"]"));
        let job = stream.folder.write("loop.yaml", text)?;
        for command in ["stream", "check"] {
            thema(&[command, &job])?.fails(2, &[words])?;
        }
    }
    Ok(())
}

#[test]
fn a_session_that_the_broker_does_not_take_is_told() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let text = std::fs::read_to_string(stream.job()?)?;
    let job = text.replace("session_timeout_ms: 6000", "session_timeout_ms: 500");
    let job = stream.folder.write("short.yaml", job)?;
    thema(&["stream", &job, "--until-end"])?.fails(2, &["session_timeout_ms"])?;
    Ok(())
}

#[test]
fn a_stream_begins_where_it_is_told() -> Result<()> {
    let kafka = Cluster::shared()?;
    // The blobs' timestamps rise by a millisecond from 2023-11-14T22:13:20Z.
    for (start, first) in
        [("earliest", 0), ("latest", 100), ("{ timestamp: \"2023-11-14T22:13:20.040Z\" }", 40)]
    {
        let stream = Stream::new(&kafka, 1)?;
        kafka.produce(&stream.input, &blobs(0, 100, 1)?)?;
        stream.run(&stream.job_with(&format!("start: {start},"), "", "")?)?;
        check_labelled(
            &kafka.read(&stream.output)?,
            &labels(&stream.folder, &BLOBS.rows(first, 100 - first)?)?,
        )?;
    }
    let stream = Stream::new(&kafka, 1)?;
    kafka.produce(&stream.input, &blobs(0, 10, 1)?)?;
    let job = stream.job_with("start: stored,", "", "")?;
    thema(&["stream", &job, "--until-end"])?.fails(2, &["nothing is committed there", "earliest"])?;
    Ok(())
}

#[test]
fn a_check_knows_the_topics_and_the_columns() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let told = thema(&["check", &stream.job()?])?.succeeds()?.stdout;
    for words in
        ["kafka_offset", "embedding", &stream.input, &stream.output, "stream   the job says all it needs"]
    {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
    Ok(())
}
