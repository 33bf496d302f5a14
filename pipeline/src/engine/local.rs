//! The local engine: read, compute and write at once, in order, in bounded memory.
//!
//! One idea: three stages joined by queues of a few batches. Reading and writing wait on the disk or the network, so
//! they are async; operators compute, so they run on a thread of their own. A batch is never copied into a second
//! queue: memory is what the queues hold, however long the source is.

use crate::positions::{Batch, Event};
use crate::progress::Progress;
use crate::sinks::Sink;
use crate::sources::{BadUnits, Source};
use crate::{Error, Result};
use operators::Operator;
use operators::vectors::Counters;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Batches that may wait before a stage: one being filled, one ready.
const QUEUE: usize = 2;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
}

/// Moves all rows of `source` through `operators` into `sink`, and commits if `judge`, who is told what was skipped,
/// agrees.
///
/// If anything fails, or `progress` is cancelled, the sink is told to abort: what was visible before stays as it was.
pub async fn run(
    source: &mut dyn Source,
    operators: Vec<Box<dyn Operator>>,
    sink: &mut dyn Sink,
    progress: &Progress,
    counters: &Counters,
    judge: impl FnOnce(&BadUnits) -> Result<()>,
) -> Result<Summary> {
    let moved = tokio::select! {
        moved = flow(source, operators, sink, progress) => moved,
        () = watch(progress, counters) => unreachable!("watching never ends"),
    };
    if let Ok(summary) = &moved {
        progress.set(summary.rows_in, "");
    }
    progress.finish();
    match moved.and_then(|summary| judge(source.bad()).map(|()| summary)) {
        Ok(summary) => {
            sink.commit().await?;
            Ok(summary)
        }
        Err(error) => {
            // What is being computed is of no more use.
            counters.stop();
            // The first error is the one to tell; one more from cleaning up would hide it.
            if let Err(second) = sink.abort().await {
                tracing::warn!("could not clean up: {second}");
            }
            Err(error)
        }
    }
}

/// How often progress is shown and Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(200);

/// Shows what the workers have done, and tells them to stop when the run is cancelled.
pub(crate) async fn watch(progress: &Progress, counters: &Counters) {
    let started = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        progress.set(counters.texts(), &token_rate(counters, started));
        if progress.is_cancelled() {
            counters.stop();
        }
    }
}

/// ", 5,708 tokens/s" for a progress line; nothing where no tokens were counted.
pub(crate) fn token_rate(counters: &Counters, started: Instant) -> String {
    match counters.tokens() {
        0 => String::new(),
        tokens => format!(", {:.0} tokens/s", tokens as f64 / started.elapsed().as_secs_f64().max(1e-9)),
    }
}

/// Moves all rows of `source` through `operators` into `sink`.
pub(crate) async fn flow(
    source: &mut dyn Source,
    mut operators: Vec<Box<dyn Operator>>,
    sink: &mut dyn Sink,
    progress: &Progress,
) -> Result<Summary> {
    let (to_work, mut work) = mpsc::channel::<Batch>(QUEUE);
    let (to_write, mut done) = mpsc::channel::<(u64, Batch)>(QUEUE);

    let computing = tokio::task::spawn_blocking(move || -> Result<()> {
        while let Some(mut batch) = work.blocking_recv() {
            let rows_in = batch.rows.num_rows() as u64;
            for operator in &mut operators {
                batch.rows = operator.process(batch.rows)?;
            }
            if to_write.blocking_send((rows_in, batch)).is_err() {
                // The writer failed, and tells why.
                break;
            }
        }
        Ok(())
    });
    let reading = async move {
        while let Event::Batch(batch) = source.next().await? {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if to_work.send(batch).await.is_err() {
                // The worker failed, and tells why.
                break;
            }
        }
        Ok(())
    };
    let writing = async {
        let mut summary = Summary::default();
        while let Some((rows_in, batch)) = done.recv().await {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            summary.rows_in += rows_in;
            summary.rows_out += batch.rows.num_rows() as u64;
            sink.write(batch).await?;
        }
        Ok(summary)
    };
    let computing =
        async { computing.await.map_err(|e| Error::Internal(format!("an operator's thread died: {e}")))? };
    let ((), (), summary) = tokio::try_join!(reading, computing, writing)?;
    Ok(summary)
}
