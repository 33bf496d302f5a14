//! What fails while a stream runs: each case of the design, with the fault where it happens.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http;
use harness::kafka::{Cluster, Record};
use harness::program::{Running, start, start_with, thema};
use harness::tables::Folder;

use super::{Stream, blobs, check_labelled, labels};
use crate::models::{self, BLOBS};

/// Longest wait for a stream to do its work.
const PATIENCE: Duration = Duration::from_secs(120);

impl Stream {
    /// Starts a worker of the given name.
    fn worker(&self, job: &str, name: &str) -> Result<Running> {
        start(&["stream", job, "--instance", name])
    }

    /// Waits until `count` messages have left.
    fn until(&self, count: usize) -> Result<Vec<Record>> {
        self.kafka.wait_for(&self.output, count)
    }

    /// The same, by a worker whose log tells why they have not.
    fn until_by(&self, worker: &mut Running, count: usize) -> Result<()> {
        self.until(count).map(drop).map_err(|error| error.context(worker.log().to_string()))
    }

    /// Checks that exactly the first `count` blobs have left, each once.
    fn check_first(&self, count: usize) -> Result<()> {
        check_labelled(&self.kafka.read(&self.output)?, &labels(&self.folder, &BLOBS.rows(0, count)?)?)
    }
}

/// Ends a worker as a cluster does, and checks that it ends well.
fn end(worker: Running) -> Result<String> {
    worker.signal("TERM")?;
    Ok(worker.wait()?.succeeds()?.stdout)
}

/// Starts a worker whose clock of the day is as far off as the file `clock` says; other clocks go as they do.
fn faketime(clock: &str, arguments: &[&str]) -> Result<Running> {
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|library| Path::new(library).is_file())
        .context("there is no libfaketime: run tests/servers/faketime.sh")?;
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("THEMA_LOG", "info,pipeline=debug"),
    ];
    start_with(arguments, &variables)
}

#[test]
fn a_stream_that_is_asked_to_end_commits_what_it_has_and_ends() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    let worker = stream.worker(&stream.job()?, "a")?;
    for part in 0..5 {
        kafka.produce(&stream.input, &blobs(part * 100, 100, 2)?)?;
        stream.until(part * 100 + 1)?;
    }
    let told = end(worker)?;
    let received = kafka.read(&stream.output)?.len();
    assert!(
        told.starts_with(&format!("{received} messages: {received} rows labelled")),
        "{received}: {told}"
    );
    let committed: i64 = kafka.committed(&stream.input, &stream.input)?.values().sum();
    assert_eq!(committed, received as i64);
    stream.run(&stream.job()?)?;
    stream.check_first(500)
}

#[test]
fn a_worker_whose_name_another_takes_is_fenced_off() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    let job = stream.job()?;
    kafka.produce(&stream.input, &blobs(0, 100, 2)?)?;
    let first = stream.worker(&job, "same")?;
    stream.until(100)?;
    let second = stream.worker(&job, "same")?;
    first.wait()?.fails(1, &["another process goes on under our name"])?;
    kafka.produce(&stream.input, &blobs(100, 100, 2)?)?;
    stream.until(200)?;
    end(second)?;
    stream.check_first(200)
}

#[test]
fn a_worker_that_was_away_while_others_took_over_writes_nothing_twice() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    let job = stream.job_with("", "", "stream: { batch_rows: 20 }\n")?;
    let first = stream.worker(&job, "first")?;
    kafka.produce(&stream.input, &blobs(0, 1000, 2)?)?;
    stream.until(100)?;
    // Longer than its session: to the group it is dead, wherever it stood.
    first.signal("STOP")?;
    let second = stream.worker(&job, "second")?;
    stream.until(1000)?;
    first.signal("CONT")?;
    kafka.produce(&stream.input, &blobs(1000, 200, 2)?)?;
    stream.until(1200)?;
    end(second)?;
    // It joins again, or finds that its name or its transactions are over; what counts is what was written.
    first.signal("TERM")?;
    let run = first.wait()?;
    ensure!(matches!(run.code, Some(0 | 1)), "{:?}\n{}", run.code, run.stderr);
    stream.check_first(1200)
}

#[test]
fn workers_that_join_and_leave_share_the_partitions() -> Result<()> {
    let kafka = Cluster::shared()?;
    for protocol in ["classic", "consumer"] {
        let stream = Stream::new(&kafka, 4)?;
        let source = format!("protocol: {protocol},");
        let job = stream.job_with(&source, "", "stream: { batch_rows: 50 }\n")?;
        kafka.produce(&stream.input, &blobs(0, 1000, 4)?)?;
        let start_one = || start(&["stream", &job]);
        let mut first = start_one()?;
        first.wait_for("reads ")?;
        let mut second = start_one()?;
        second.wait_for("reads ")?;
        kafka.produce(&stream.input, &blobs(1000, 500, 4)?)?;
        end(first)?;
        kafka.produce(&stream.input, &blobs(1500, 500, 4)?)?;
        stream.until(2000)?;
        end(second)?;
        stream.check_first(2000)?;
    }
    Ok(())
}

#[test]
fn workers_that_run_to_the_end_together_leave_nothing_unread() -> Result<()> {
    let kafka = Cluster::shared()?;
    let sent = blobs(0, 8000, 3)?;
    let labels = labels(&Folder::new()?, &BLOBS.rows(0, 8000)?)?;
    // The first may be done with its own while the second waits for what the first has given up.
    for wait in [0, 500, 1000] {
        let stream = Stream::new(&kafka, 3)?;
        kafka.produce(&stream.input, &sent)?;
        let job = stream.job()?;
        let mut first = start(&["stream", &job, "--until-end"])?;
        first.wait_for("reads papers-")?;
        thread::sleep(Duration::from_millis(wait));
        let second = start(&["stream", &job, "--until-end"])?;
        first.wait()?.succeeds()?;
        second.wait()?.succeeds()?;
        check_labelled(&kafka.read(&stream.output)?, &labels)?;
    }
    Ok(())
}

#[test]
fn a_broker_that_is_away_for_a_while_is_waited_for() -> Result<()> {
    let kafka = Arc::new(Cluster::start(1)?);
    let stream = Stream::new(&kafka, 2)?;
    // The transaction that is open is over before the broker is back.
    let job = stream.job_with("", "transaction_timeout_ms: 3000,", "stream: { batch_rows: 20 }\n")?;
    kafka.produce(&stream.input, &blobs(0, 500, 2)?)?;
    // Without a name: a member with one that is given up while its own join is under way is fenced off by itself, and ends.
    let mut worker = start(&["stream", &job])?;
    stream.until_by(&mut worker, 50)?;
    kafka.freeze(0, true)?;
    thread::sleep(Duration::from_secs(8));
    kafka.freeze(0, false)?;
    stream.until_by(&mut worker, 500)?;
    kafka.kill(0)?;
    kafka.launch(0)?;
    kafka.until_ready(1)?;
    kafka.produce(&stream.input, &blobs(500, 500, 2)?)?;
    stream.until_by(&mut worker, 1000)?;
    end(worker)?;
    stream.check_first(1000)
}

#[test]
fn a_broker_that_is_not_up_yet_is_waited_for() -> Result<()> {
    let kafka = Arc::new(Cluster::start(1)?);
    let stream = Stream::new(&kafka, 2)?;
    kafka.produce(&stream.input, &blobs(0, 100, 2)?)?;
    kafka.kill(0)?;
    let mut worker = start(&["stream", &stream.job()?, "--until-end"])?;
    worker.wait_for("no broker answers")?;
    kafka.launch(0)?;
    worker.wait()?.succeeds()?;
    stream.check_first(100)
}

#[test]
fn a_clock_that_jumps_is_not_looked_at() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    let clock = stream.folder.write("clock", "+0")?;
    let mut worker = faketime(&clock, &["stream", &stream.job()?])?;
    for (part, jump) in ["+0", "+3d", "-400d", "+0"].into_iter().enumerate() {
        stream.folder.write("clock", jump)?;
        kafka.produce(&stream.input, &blobs(part * 100, 100, 2)?)?;
        stream.until_by(&mut worker, part * 100 + 100)?;
    }
    // The days of its log, which it took from that clock.
    let days: BTreeSet<String> =
        worker.log().lines().filter_map(|line| Some(line.get(..10)?.into())).collect();
    assert!(days.len() >= 3, "the clock did not jump: {days:?}");
    let told = end(worker)?;
    assert!(told.starts_with("400 messages: 400 rows labelled"), "{told}");
    stream.check_first(400)
}

#[test]
fn a_newer_model_labels_from_the_next_batch_on() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    // A model of its own, to which a version is added.
    let model = stream.folder.path("model");
    let fit = models::fit_arguments(&models::blobs().input, &model);
    thema(&fit)?.succeeds()?;
    let job = std::fs::read_to_string(stream.job_with("", "", "stream: { reload_seconds: 1 }\n")?)?;
    let job = stream.folder.write("own.yaml", job.replace(&models::blobs().model, &model))?;
    let mut worker = stream.worker(&job, "a")?;
    kafka.produce(&stream.input, &blobs(0, 100, 1)?)?;
    stream.until(100)?;
    thema(&[&fit[..], &["--overwrite"]].concat())?.succeeds()?;
    worker.wait_for("v2: labels from the next batch on")?;
    kafka.produce(&stream.input, &blobs(100, 100, 1)?)?;
    let received = stream.until(200)?;
    end(worker)?;
    for record in &received {
        let object = record.json()?;
        let expected = if object["id"].as_i64() < Some(100) { "v1" } else { "v2" };
        assert_eq!(object["model_version"], expected, "{object}");
    }
    assert_eq!(received.len(), 200);
    Ok(())
}

#[test]
fn metrics_and_health_tell_the_truth() -> Result<()> {
    let kafka = Arc::new(Cluster::start(1)?);
    let stream = Stream::new(&kafka, 2)?;
    kafka.produce(&stream.input, &blobs(0, 300, 2)?)?;
    kafka.produce(&stream.input, &[Record::of("bad")])?;
    let job = stream.job_with("", "", "stream: { listen: \"127.0.0.1:0\" }\n")?;
    let mut worker = stream.worker(&job, "a")?;
    let line = worker.wait_for("metrics and health at ")?;
    let place =
        line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_string();
    let get = |path: &str| http::get(&place, path);
    stream.until(300)?;
    let until = |path: &str, code: u16, words: &str| -> Result<String> {
        let started = Instant::now();
        loop {
            let (status, body) = get(path)?;
            if status == code && body.contains(words) {
                return Ok(body);
            }
            ensure!(started.elapsed() < PATIENCE, "{path} says {status}: {body}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    until("/ready", 200, "ok")?;
    let told = until("/metrics", 200, &format!("thema_lag{{topic=\"{}\",partition=\"1\"}} 0", stream.input))?;
    for line in [
        "thema_messages_total 301",
        "thema_rows_total 300",
        "thema_dead_letters_total 1",
        "thema_model_version 1",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
    }
    kafka.kill(0)?;
    until("/ready", 503, "no broker answers")?;
    until("/health", 200, "ok")?;
    kafka.launch(0)?;
    until("/ready", 200, "ok")?;
    end(worker)?;
    Ok(())
}
