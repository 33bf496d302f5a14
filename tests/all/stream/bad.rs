//! Messages that cannot be labelled: each becomes a dead letter that says why, and its neighbours go on.

use anyhow::{Context, Result};
use harness::kafka::{Cluster, Record};
use harness::program::thema;

use super::{Stream, blobs, check_labelled, labels};
use crate::models::BLOBS;

/// Payloads that are bad, each with a word of why.
fn bad() -> Vec<(Vec<u8>, &'static str)> {
    let vector = |values: &str| format!(r#"{{"id": 7, "embedding": {values}}}"#).into_bytes();
    vec![
        (b"not json".to_vec(), "expected one JSON object"),
        (br#"{"id": 7}"#.to_vec(), "the embedding is null"),
        (vector("[1, 2]"), "FixedSizeList"),
        (vector(r#""text""#), "expected"),
        (br#"{"id": "seven", "embedding": null}"#.to_vec(), "seven"),
        (br#"{"id": 7, "topic": 3}"#.to_vec(), "has a field \"topic\" already"),
        (Vec::new(), "expected one JSON object"),
    ]
}

#[test]
fn a_bad_message_is_a_dead_letter_that_says_why_and_whence() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let mut sent = blobs(0, 100, 1)?;
    for (at, (payload, _)) in bad().into_iter().enumerate() {
        let headers = vec![("trace".to_string(), b"t".to_vec()), ("x-attempt".to_string(), b"2".to_vec())];
        let record = Record { headers, ..Record::of(payload).with_key(format!("bad-{at}")) };
        sent.insert(at * 10, record);
    }
    sent.insert(50, Record { key: Some(b"gone".to_vec()), ..Record::default() });
    kafka.produce(&stream.input, &sent)?;
    let told = stream.run(&stream.job()?)?;
    assert!(told.starts_with("108 messages: 100 rows labelled, 7 bad, 1 tombstone in "), "{told}");

    let received = kafka.read(&stream.output)?;
    let (tombstones, labelled): (Vec<_>, Vec<_>) =
        received.into_iter().partition(|record| record.value.is_none());
    check_labelled(&labelled, &labels(&stream.folder, &BLOBS.rows(0, 100)?)?)?;
    assert_eq!(tombstones.len(), 1);
    assert_eq!(tombstones[0].key.as_deref(), Some(&b"gone"[..]));

    let letters = kafka.read(&stream.dead)?;
    assert_eq!(letters.len(), bad().len());
    for letter in &letters {
        let key = String::from_utf8(letter.key.clone().unwrap_or_default())?;
        let at: usize = key.trim_start_matches("bad-").parse()?;
        let (payload, why) = &bad()[at];
        assert_eq!(letter.value.as_ref(), Some(payload), "the payload is as it was");
        let said = letter.header("x-error").unwrap_or_default();
        assert!(said.contains(why), "{said}");
        assert_eq!(letter.header("x-source-topic"), Some(stream.input.as_str()));
        assert_eq!(letter.header("x-source-partition"), Some("0"));
        let offset: usize = letter.header("x-source-offset").unwrap_or_default().parse()?;
        assert_eq!(sent[offset].key, letter.key);
        assert_eq!(letter.header("x-pipeline"), Some(stream.input.as_str()));
        assert_eq!((letter.header("x-attempt"), letter.header("trace")), (Some("3"), Some("t")));
        assert_eq!(letter.headers.iter().filter(|(name, _)| name == "x-attempt").count(), 1);
    }
    Ok(())
}

#[test]
fn a_text_that_the_output_topic_does_not_take_is_a_dead_letter_too() -> Result<()> {
    let kafka = Cluster::shared()?;
    let mut stream = Stream::new(&kafka, 1)?;
    stream.input = kafka.topic_with("large", 1, &[("max.message.bytes", "20000000")])?;
    let mut sent = blobs(0, 10, 1)?;
    let large = format!(r#"{{"id": 99, "embedding": {}, "text": "{}"}}"#, vector(), "x".repeat(10 << 20));
    sent.insert(5, Record::of(large).with_key("large"));
    kafka.produce(&stream.input, &sent)?;
    stream.run(&stream.job()?)?;
    check_labelled(&kafka.read(&stream.output)?, &labels(&stream.folder, &BLOBS.rows(0, 10)?)?)?;
    let letters = kafka.read(&stream.dead)?;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value, None, "its payload is too long for dead letters as well");
    let omitted: usize = letters[0].header("x-value-omitted-bytes").unwrap_or_default().parse()?;
    assert!(omitted > 10 << 20);
    let said = letters[0].header("x-error").unwrap_or_default();
    assert!(said.contains("is more than topic"), "{said}");
    Ok(())
}

fn vector() -> String {
    format!("[{}]", ["0.5"; 16].join(", "))
}

#[test]
fn bad_messages_may_be_skipped_or_stop_the_stream_before_them() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let mut sent = blobs(0, 20, 1)?;
    sent.insert(10, Record::of("bad"));
    kafka.produce(&stream.input, &sent)?;
    let job = stream.job_with("", "", "stream: { on_bad_message: fail, batch_rows: 5 }\n")?;
    let said = format!("{}:0, offset 10", stream.input);
    thema(&["stream", &job, "--until-end"])?.fails(3, &[&said, "expected one JSON object"])?;
    let committed = kafka.committed(&stream.input, &stream.input)?;
    assert!(committed.get(&0).copied().unwrap_or(0) <= 10, "{committed:?}");

    let job = stream.job_with("", "", "stream: { on_bad_message: skip }\n")?;
    let told = stream.run(&job)?;
    assert!(told.contains("1 bad"), "{told}");
    let received = kafka.read(&stream.output)?;
    let places: Vec<i64> = received.iter().map(|record| record.offset).collect();
    check_labelled(&received, &labels(&stream.folder, &BLOBS.rows(0, 20)?)?).with_context(|| {
        format!("after the first run {committed:?} was committed, the second said {told}; at {places:?}")
    })?;
    assert!(kafka.read(&stream.dead)?.is_empty());
    Ok(())
}

#[test]
fn a_topic_of_bad_messages_is_not_drained_into_the_dead_letters() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let bad: Vec<Record> = (0..5000).map(|n| Record::of(format!("bad {n}"))).collect();
    kafka.produce(&stream.input, &bad)?;
    let run = thema(&["stream", &stream.job()?, "--until-end"])?;
    run.fails(3, &["of the last", "could not be labelled", "expected one JSON object", "stream.breaker"])?;
    assert!(kafka.read(&stream.dead)?.len() < 1000);
    Ok(())
}

#[test]
fn a_message_that_the_broker_refuses_for_good_stops_the_stream() -> Result<()> {
    let kafka = Cluster::shared()?;
    let mut stream = Stream::new(&kafka, 1)?;
    // The messages are of 2023.
    stream.output = kafka.topic_with("recent", 1, &[("message.timestamp.before.max.ms", "3600000")])?;
    kafka.produce(&stream.input, &blobs(0, 10, 1)?)?;
    thema(&["stream", &stream.job()?, "--until-end"])?.fails(2, &["a message is refused"])?;
    assert!(kafka.read(&stream.output)?.is_empty());
    assert!(
        kafka.committed(&stream.input, &stream.input)?.is_empty(),
        "they are read again when it takes them"
    );
    Ok(())
}

#[test]
fn a_topic_that_will_not_keep_what_is_written_is_told() -> Result<()> {
    let kafka = Cluster::shared()?;
    let mut stream = Stream::new(&kafka, 1)?;
    for (settings, is_told) in [
        (&[("retention.ms", "604800000")][..], true),
        (&[("retention.ms", "604800000"), ("message.timestamp.type", "LogAppendTime")], false),
        (&[("retention.ms", "604800000"), ("cleanup.policy", "compact")], false),
    ] {
        stream.input = kafka.topic("old", 1)?;
        stream.output = kafka.topic_with("short", 1, settings)?;
        kafka.produce(&stream.input, &blobs(0, 10, 1)?)?;
        let run = thema(&["stream", &stream.job()?, "--until-end"])?.succeeds()?;
        let told = run.stderr.matches("deletes messages older than 7 days").count();
        assert_eq!(told, usize::from(is_told), "{}", run.stderr);
    }
    Ok(())
}
