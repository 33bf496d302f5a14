//! Labelling a batch of a stream: by one model or the next, as fast as it may take, with the rows to blame set apart.
//!
//! A batch that cannot be labelled is halved until the rows to blame are alone: these become dead letters.

use crate::aside::{DeadLetter, Notice};
use crate::metrics::StreamMetrics;
use crate::positions::Batch;
use crate::sources::kafka::messages::message_of;
use crate::sources::kafka::{Read, Shared, letter};
use crate::{Error, Result};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, SchemaRef};
use operators::monitor::Monitor;
use operators::vectors::Counters;
use operators::{Kind, Operator};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a batch should take to label: much longer, and messages wait for nothing but their neighbours, and a stop
/// and a rebalance wait for all; much shorter, and the cost of a batch shows.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Labels by one model.
pub(crate) struct Labeller {
    /// In their order.
    pub(crate) operators: Vec<Box<dyn Operator>>,
    /// Watches what they label.
    pub(crate) monitor: Arc<Monitor>,
}

/// Gives another labeller, once there is one.
type Fresh = Box<dyn FnMut() -> Option<Labeller> + Send>;

/// What labels, and who may bring another.
pub(crate) struct Stage {
    /// What labels now.
    pub(crate) labeller: Labeller,
    /// The columns of labelled rows.
    pub(crate) schema: SchemaRef,
    /// The one of them that holds topics.
    pub(crate) topic: String,
    /// Gives another labeller, once there is one, between two batches.
    pub(crate) fresh: Fresh,
    /// Counts the tokens that are encoded.
    pub(crate) counters: Arc<Counters>,
}

/// What bounds a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its rows.
    pub(super) rows: usize,
    /// The tokens that are encoded of it.
    pub(super) tokens: usize,
}

/// What a batch was, and how long it took.
#[derive(Debug, Clone, Copy)]
struct Measured {
    messages: usize,
    rows: usize,
    tokens: u64,
    time: Duration,
}

impl Bounds {
    /// How many messages the next batch should have, after one that was to have `now`: what the bounds and the time allow,
    /// if its messages are like those. By the time it is twice as many at most, and half as many at least, for one batch
    /// tells little.
    fn next(self, now: usize, last: Measured) -> usize {
        let messages = last.messages as f64;
        let by = |most: f64, had: f64| most / had.max(1e-9) * messages;
        let by_time = by(BATCH_TIME.as_secs_f64(), last.time.as_secs_f64());
        let by_time = by_time.clamp((now / 2) as f64, (now * 2) as f64);
        let bounded = by(self.rows as f64, last.rows as f64).min(by(self.tokens as f64, last.tokens as f64));
        (by_time.min(bounded) as usize).max(1)
    }
}

/// Labels a batch, and says how many messages the next should have.
pub(super) fn label(
    stage: &mut Stage,
    read: Read,
    shared: &Shared,
    bounds: Bounds,
    metrics: &StreamMetrics,
) -> Result<Read> {
    if let Some(fresh) = (stage.fresh)() {
        notice(&stage.labeller.monitor, shared);
        stage.labeller = fresh;
    }
    let Labeller { operators, monitor } = &mut stage.labeller;
    let Read { batch, messages, epoch, at, held, .. } = read;
    let Batch { rows, covers, mut aside } = batch;
    let (began, count, tokens) = (Instant::now(), rows.num_rows(), stage.counters.tokens());
    let mut blamed = Vec::new();
    let rows = match process(operators, rows.clone()) {
        Ok(rows) => rows,
        Err(error) if is_of_rows(&error) => {
            tracing::debug!("a batch of {count} rows failed, and is halved: {error}");
            let mut good = Vec::new();
            halve(operators, &rows, error, &mut good, &mut blamed)?;
            concat_batches(&stage.schema, &good).map_err(|error| Error::Internal(error.to_string()))?
        }
        Err(error) => return Err(error),
    };
    if count > 0 {
        let tokens = stage.counters.tokens() - tokens;
        let last = Measured { messages, rows: count, tokens, time: began.elapsed() };
        shared.set_messages(bounds.next(shared.messages(), last));
    }
    let dropped = (count - rows.num_rows() - blamed.len()) as u64;
    aside.letters.append(&mut blamed);
    let outliers = outliers(&rows, &stage.topic);
    notice(monitor, shared);
    if let Some(numbers) = monitor.last_window() {
        metrics.window_outlier_share.set(numbers.outlier_share);
        metrics.window_neighbour_distance.set(numbers.neighbour_distance);
        metrics.window_clip_rate.set(numbers.clip_rate);
    }
    Ok(Read { batch: Batch { rows, covers, aside }, messages, epoch, at, outliers, dropped, held })
}

/// Waits at the end for outliers that are being clustered, unless it was asked to stop.
pub(super) fn notice_last(monitor: &Monitor, shared: &Shared, stopped: &AtomicBool) {
    while monitor.is_looking() && !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    notice(monitor, shared);
}

/// Hands on what was noticed since the last time, and logs it.
fn notice(monitor: &Monitor, shared: &Shared) {
    for event in monitor.take_events() {
        tracing::warn!("{event}");
        shared.notices().push(Notice::now(event));
    }
}

/// How many of `rows` belong to no topic.
fn outliers(rows: &RecordBatch, topic: &str) -> u64 {
    let topics = rows.column_by_name(topic).and_then(|column| column.as_primitive_opt::<Int32Type>());
    topics.map_or(0, |topics| topics.values().iter().filter(|topic| **topic < 0).count() as u64)
}

/// Passes `rows` through all operators; a panic is an error.
fn process(operators: &mut [Box<dyn Operator>], mut rows: RecordBatch) -> Result<RecordBatch> {
    let passed = catch_unwind(AssertUnwindSafe(|| {
        for operator in operators {
            rows = operator.process(rows)?;
        }
        Ok::<_, operators::Error>(rows)
    }));
    Ok(passed.unwrap_or_else(|_| Err(operators::Error::Internal("labelling panicked".into())))?)
}

/// Whether `error` may be the fault of single rows: not the job's, nor that of an outside service.
fn is_of_rows(error: &Error) -> bool {
    matches!(error.kind(), Kind::Data | Kind::Internal)
}

/// Finds the rows to blame for `error`, which all of `rows` together gave.
fn halve(
    operators: &mut [Box<dyn Operator>],
    rows: &RecordBatch,
    error: Error,
    good: &mut Vec<RecordBatch>,
    letters: &mut Vec<DeadLetter>,
) -> Result<()> {
    let count = rows.num_rows();
    if count == 0 {
        return Err(error);
    }
    if count == 1 {
        letters.push(letter(message_of(rows, 0)?, error.to_string()));
        return Ok(());
    }
    for half in [rows.slice(0, count / 2), rows.slice(count / 2, count - count / 2)] {
        match process(operators, half.clone()) {
            Ok(rows) => good.push(rows),
            Err(error) if is_of_rows(&error) => halve(operators, &half, error, good, letters)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_the_messages_that_its_bounds_allow() {
        let bounds = Bounds { rows: 1000, tokens: 10_000 };
        let ms = Duration::from_millis;
        for (now, messages, rows, tokens, time, expected) in [
            // 100 rows take a second.
            (100, 100, 100, 0, ms(1000), 100),
            (100, 50, 50, 0, ms(1000), 50),
            // They could be many more, but for the doubling, and for the most.
            (100, 100, 100, 0, ms(1), 200),
            (600, 600, 600, 0, ms(1), 1000),
            // They should be many fewer, but for the halving, which no bound knows.
            (100, 100, 100, 0, ms(60_000), 50),
            (100, 100, 100, 100_000, ms(1000), 10),
            // 200 tokens a row.
            (100, 100, 100, 20_000, ms(100), 50),
            (100, 80, 80, 16_000, ms(10), 50),
            (100, 10, 10, 2_000, ms(1000), 50),
            // A message that is more than a batch may hold goes alone.
            (1, 1, 1, 50_000, ms(5000), 1),
            // 250 rows a message.
            (2, 2, 500, 0, ms(1), 4),
            (4, 4, 1000, 0, ms(1), 4),
            (4, 2, 500, 0, ms(1000), 2),
        ] {
            let last = Measured { messages, rows, tokens, time };
            assert_eq!(bounds.next(now, last), expected, "{now} {last:?}");
        }
    }
}
