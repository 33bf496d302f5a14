//! Memory over a long run: a stream that is fed without a pause holds as much at the end as it did in the beginning.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::kafka::Cluster;
use harness::program::start;
use serde_json::json;

use super::{Stream, blobs};

/// How long it runs, unless `MINUTES` says otherwise.
const MINUTES: f64 = 0.5;

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Messages that are sent at once.
const ROUND: usize = 5_000;

/// What a topic keeps: enough for what is not labelled yet.
const KEEPS: [(&str, &str); 2] = [("retention.bytes", "67108864"), ("segment.bytes", "16777216")];

/// The memory a process holds, in KiB (`VmRSS`).
fn resident_kib(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn a_stream_holds_no_more_memory_the_longer_it_runs() -> Result<()> {
    let minutes = std::env::var("MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(MINUTES);
    let length = Duration::from_secs_f64(minutes * 60.0);
    let kafka = Arc::new(Cluster::start(1)?);
    let mut stream = Stream::new(&kafka, 3)?;
    for (name, topic) in [("long", &mut stream.input), ("long-labelled", &mut stream.output)] {
        *topic = kafka.topic_with(name, 3, &KEEPS)?;
    }
    let mut worker = start(&["stream", &stream.job()?])?;
    worker.wait_for("reads ")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let sending = {
        let (kafka, input, is_over) = (Arc::clone(&kafka), stream.input.clone(), Arc::clone(&is_over));
        let round = blobs(0, ROUND, 3)?;
        thread::spawn(move || -> Result<usize> {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Never far ahead, so that it is the stream's pace.
                let done: i64 = kafka.committed(&input, &input)?.values().sum();
                if sent as i64 - done > 4 * ROUND as i64 {
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
                kafka.produce(&input, &round)?;
                sent += round.len();
            }
            Ok(sent)
        })
    };
    let started = Instant::now();
    let mut held = Vec::new();
    while started.elapsed() < length {
        ensure!(!worker.has_ended()?, "the stream has ended by itself:\n{}", worker.log());
        held.push(resident_kib(worker.id())?);
        thread::sleep(LOOK_EVERY);
    }
    is_over.store(true, Ordering::Relaxed);
    let sent = match sending.join() {
        Ok(sent) => sent?,
        Err(_) => bail!("sending panicked"),
    };
    worker.signal("TERM")?;
    let run = worker.wait()?.succeeds()?;
    let messages: usize = run.stdout.split(' ').next().unwrap_or_default().replace(',', "").parse()?;
    // The first quarter is for caches and buffers to fill.
    let quarter = held.len() / 4;
    let (early, late) = (median(&held[quarter..2 * quarter]), median(&held[3 * quarter..]));
    println!(
        "{}",
        json!({
            "minutes": minutes, "sent": sent, "messages": messages, "early_mib": early / 1024, "late_mib": late / 1024,
            "peak_mib": run.peak_kib / 1024, "messages_per_second": (messages as f64 / length.as_secs_f64()).round(),
        })
    );
    ensure!(messages * 2 > sent, "only {messages} of {sent} messages were labelled");
    ensure!(late < early + early / 10 + 8192, "memory grew from {early} to {late} KiB");
    Ok(())
}
