//! The stream engine: read, label and write for ever, and make rows visible together with their positions.
//!
//! One idea: three stages joined by short queues, as in the local engine, in which what the source asks (partitions that
//! come and go, the end) travels in order with the batches; so when the writer meets such a question, all before it has
//! been written. Whatever fails in a way that may pass undoes what is not committed, and the source goes back to what is.

use super::label::{Bounds, Stage, label, notice_last};
use super::watch::watch;
use super::write::{Totals, Writer};
use crate::metrics::StreamMetrics;
use crate::progress::Progress;
use crate::sinks::Sink;
use crate::sources::BadUnits;
use crate::sources::kafka::{Event, KafkaSource, Shared};
use crate::stream::StreamConfig;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What may wait before a stage.
const QUEUE: usize = 1;

/// The messages of the first batch, before it is known how long a row takes; one where each may hold many rows.
const FIRST_MESSAGES: usize = 64;

/// How long to go on in vain, with back-off, before the stream stops.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);

/// The longest wait before going on after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Runs until the source ends, or `progress` is asked to stop: then what is being labelled is finished, and committed.
pub(crate) async fn run(
    source: &mut KafkaSource,
    stage: Stage,
    sink: &mut dyn Sink,
    config: &StreamConfig,
    progress: &Progress,
    metrics: &Arc<StreamMetrics>,
) -> Result<(Totals, BadUnits)> {
    let shared = Arc::clone(source.shared());
    let first = if source.holds_many_rows() { 1 } else { FIRST_MESSAGES };
    shared.set_messages(first.min(config.batch_rows));
    let writer = Writer::new(sink, Arc::clone(&shared), config, Arc::clone(metrics));
    tokio::select! {
        done = go(source, stage, writer, progress) => done,
        () = watch(&shared, progress, metrics) => unreachable!("watching never ends"),
    }
}

/// Lets batches flow until the end, beginning anew after what may pass.
async fn go(
    source: &mut KafkaSource,
    stage: Stage,
    mut writer: Writer<'_>,
    progress: &Progress,
) -> Result<(Totals, BadUnits)> {
    let mut stage = Some(stage);
    let mut failing: Option<(Instant, Duration)> = None;
    let mut recovered = Ok(());
    source.start()?;
    loop {
        let ended = match recovered {
            Ok(()) => flow(source, &mut stage, &mut writer, progress).await,
            Err(error) => Err(error),
        };
        if writer.shared.trouble().is_none() {
            // Since the last failure it has committed, or there was nothing that it could have.
            failing = None;
        }
        let reason = match ended {
            Ok(()) => return Ok((writer.totals, writer.bad)),
            Err(Error::Aborted(reason)) => reason,
            Err(error) => {
                // The first error is the one to tell.
                if let Err(second) = writer.sink.abort().await {
                    tracing::debug!("could not abort: {second}");
                }
                return Err(error);
            }
        };
        let (since, wait) = failing.unwrap_or_else(|| (Instant::now(), Duration::from_millis(100)));
        if since.elapsed() > GIVE_UP {
            return Err(Error::Service {
                service: "the stream".into(),
                reason: format!(
                    "nothing could be committed for {} minutes: {reason}",
                    GIVE_UP.as_secs() / 60
                ),
            });
        }
        tracing::warn!("{reason}; what was not committed is read again");
        *writer.shared.trouble() = Some(reason);
        failing = Some((since, (wait * 2).min(LONGEST_WAIT)));
        recovered = writer.recover().await;
        source.rewind().await;
        if progress.is_cancelled() {
            // What is not committed is read again by the next run.
            return recovered.map(|()| (writer.totals, writer.bad));
        }
        // A stop is heard by the flow.
        drop(progress.until_cancelled(tokio::time::sleep(wait)).await);
    }
}

/// Moves batches until the end or a failure.
async fn flow(
    source: &mut KafkaSource,
    stage: &mut Option<Stage>,
    writer: &mut Writer<'_>,
    progress: &Progress,
) -> Result<()> {
    let lost = || Error::Internal("the operators of a stream were lost".into());
    let mut own = stage.take().ok_or_else(lost)?;
    let shared = Arc::clone(source.shared());
    let (to_label, to_be_labelled) = mpsc::channel::<Event>(QUEUE);
    let (to_write, mut labelled) = mpsc::channel::<Event>(QUEUE);
    let bounds = Bounds { rows: writer.config.batch_rows, tokens: writer.config.batch_tokens };
    let metrics = Arc::clone(&writer.metrics);
    let is_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&is_stopped);
    let labelling = tokio::task::spawn_blocking(move || {
        let outcome = label_all(&mut own, to_be_labelled, &to_write, &shared, bounds, &stopped, &metrics);
        (own, outcome)
    });
    let reading = async {
        let mut asked = false;
        loop {
            let event = tokio::select! {
                event = source.next() => event?,
                _ = progress.until_cancelled(std::future::pending::<()>()), if !asked => {
                    asked = true;
                    is_stopped.store(true, Ordering::Relaxed);
                    source.stop();
                    continue;
                }
            };
            let is_end = matches!(event, Event::End { .. });
            if to_label.send(event).await.is_err() {
                // The worker failed, and tells why.
                break;
            }
            if is_end {
                break;
            }
        }
        drop(to_label);
        Ok(())
    };
    let writing = async {
        while let Some(event) = writer.next(&mut labelled).await? {
            if writer.take(event).await? {
                break;
            }
        }
        drop(labelled);
        Ok(())
    };
    let moved: Result<()> = {
        tokio::pin!(reading, writing);
        // Reading may be left anywhere; writing never, for what becomes of a commit must be known.
        tokio::select! {
            written = &mut writing => written,
            read = &mut reading => read.and(writing.await),
        }
    };
    let died = |error| Error::Internal(format!("an operator's thread died: {error}"));
    let (own, outcome) = labelling.await.map_err(died)?;
    *stage = Some(own);
    // What failed in the middle made the others end.
    outcome.and(moved)
}

/// Labels what comes and hands it on, until nothing comes any more, or nobody takes it.
fn label_all(
    stage: &mut Stage,
    mut events: mpsc::Receiver<Event>,
    labelled: &mpsc::Sender<Event>,
    shared: &Shared,
    bounds: Bounds,
    is_stopped: &AtomicBool,
    metrics: &StreamMetrics,
) -> Result<()> {
    // Once one batch is left out, so are all after it: there must be no gap.
    let mut leaves_out = false;
    while let Some(event) = events.blocking_recv() {
        let event = match event {
            Event::Batch(read) => {
                leaves_out |= is_stopped.load(Ordering::Relaxed);
                if leaves_out || read.epoch != shared.epoch() {
                    continue;
                }
                let began = Instant::now();
                let done = label(stage, read, shared, bounds, metrics);
                metrics.label_seconds.observe(began.elapsed().as_secs_f64());
                Event::Batch(done?)
            }
            Event::End { epoch } => {
                notice_last(&stage.labeller.monitor, shared, is_stopped);
                Event::End { epoch }
            }
            question => question,
        };
        if labelled.blocking_send(event).is_err() {
            break;
        }
    }
    Ok(())
}
