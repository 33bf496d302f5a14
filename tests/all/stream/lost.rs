//! Answers that get lost on the way: a broker that has done what it was asked, and a worker that does not know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Result, anyhow, bail, ensure};
use harness::kafka::{Cluster, Listener};
use harness::program::{Run, start, thema};
use harness::proxy::Proxy;
use harness::tables::Folder;

use super::{Stream, blobs, check_labelled, labels};
use crate::models::BLOBS;

/// What a stream asks of brokers, by the protocol's keys.
const ASKED: [(i16, &str); 9] = [
    (0, "Produce"),
    (1, "Fetch"),
    (9, "OffsetFetch"),
    (11, "JoinGroup"),
    (22, "InitProducerId"),
    (24, "AddPartitionsToTxn"),
    (25, "AddOffsetsToTxn"),
    (26, "EndTxn"),
    (28, "TxnOffsetCommit"),
];

/// A broker before which answers get lost, and a stream through it.
fn stream(loses: impl Fn(i16, u64) -> bool + Send + 'static) -> Result<(Proxy, Stream, String)> {
    stream_with("stream: { batch_rows: 50 }\n", loses)
}

/// The same with more of the job.
fn stream_with(
    more: &str,
    loses: impl Fn(i16, u64) -> bool + Send + 'static,
) -> Result<(Proxy, Stream, String)> {
    let proxy = Proxy::open(loses)?;
    let listener = Listener { protocol: "PLAINTEXT", advertised: Some(proxy.port()), ..Listener::default() };
    let (kafka, port) = Cluster::start_with(&listener)?;
    proxy.lead_to(port);
    let stream = Stream::new(&Arc::new(kafka), 2)?;
    let job = stream.job_with("", "", more)?;
    let text = std::fs::read_to_string(job)?;
    let outside = text.replace(stream.kafka.bootstrap(), &format!("127.0.0.1:{}", proxy.port()));
    let job = stream.folder.write("outside.yaml", outside)?;
    Ok((proxy, stream, job))
}

/// Runs a stream to its end, and again where the Kafka client has lost a call (librdkafka's issues 5456 and 5511).
fn run(job: &str) -> Result<Run> {
    for _ in 0..3 {
        let run = thema(&["stream", job, "--until-end"])?;
        if !(run.code == Some(4) && run.stderr.contains("the client has lost a call")) {
            return run.succeeds();
        }
    }
    bail!("the client has lost a call in each of three runs")
}

#[test]
fn whichever_answer_is_lost_each_message_leaves_once() -> Result<()> {
    // The first of each kind, and then now and then one.
    let (proxy, stream, job) = stream(|_, seen| seen < 300 && seen % 9 == 0)?;
    stream.kafka.produce(&stream.input, &blobs(0, 3000, 2)?)?;
    let ran = run(&job)?;
    let lost = proxy.lost();
    for (key, name) in ASKED {
        ensure!(lost.contains_key(&key), "no answer to {name} was lost: {lost:?}");
    }
    let committed = stream.kafka.committed(&stream.input, &stream.input)?;
    check_labelled(&stream.kafka.read(&stream.output)?, &labels(&Folder::new()?, &BLOBS.rows(0, 3000)?)?)
        .map_err(|error| anyhow!("{error}; committed {committed:?}; {}{}", ran.stdout, ran.stderr))
}

#[test]
fn a_commit_of_unknown_outcome_is_asked_for_until_it_is_known() -> Result<()> {
    // Of every commit the first answers are lost, though it is done.
    let (proxy, stream, job) = stream(|key, seen| key == 26 && seen % 3 < 2)?;
    stream.kafka.produce(&stream.input, &blobs(0, 300, 2)?)?;
    run(&job)?;
    ensure!(proxy.lost()[&26] >= 4, "{:?}", proxy.lost());
    check_labelled(&stream.kafka.read(&stream.output)?, &labels(&Folder::new()?, &BLOBS.rows(0, 300)?)?)
}

#[test]
fn what_an_abort_has_dropped_and_the_broker_has_is_written_again() -> Result<()> {
    // The first messages are written, but nobody hears of it, and the group takes the partitions away meanwhile: Produce
    // is unanswered until that transaction is over, and Heartbeat until the second assignment. Then the same messages come
    // again, in equal batches.
    let (is_over, assignments) = (AtomicBool::new(false), AtomicU64::new(0));
    let (proxy, stream, job) =
        stream_with("stream: { batch_rows: 50, commit_ms: 12000 }\n", move |key, _| {
            match key {
                0 => return !is_over.load(Ordering::Relaxed),
                12 => return assignments.load(Ordering::Relaxed) < 2,
                14 => assignments.store(assignments.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
                26 => is_over.store(true, Ordering::Relaxed),
                _ => {}
            }
            false
        })?;
    stream.kafka.produce(&stream.input, &blobs(0, 300, 2)?)?;
    let mut worker = start(&["stream", &job])?;
    worker.wait_for("what was in flight is dropped")?;
    let written = stream.kafka.wait_for(&stream.output, 300);
    let written = written.map_err(|error| anyhow!("{error}; {}", worker.log()))?;
    worker.interrupt()?;
    let ran = worker.wait()?.succeeds()?;
    ensure!(proxy.lost().contains_key(&0), "no answer to Produce was lost");
    check_labelled(&written, &labels(&Folder::new()?, &BLOBS.rows(0, 300)?)?)
        .map_err(|error| anyhow!("{error}; {}{}", ran.stdout, ran.stderr))
}
