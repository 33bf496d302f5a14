//! Watching a stream: what is in flight, how far behind it is, and how it is.

use crate::metrics::{Condition, Partition, StreamMetrics};
use crate::progress::Progress;
use crate::report::thousands;
use crate::sources::kafka::Shared;
use crate::sources::kafka::messages::partition_of;
use std::time::{Duration, Instant};

/// How often the numbers that are no counters are told.
const TICK: Duration = Duration::from_millis(500);

/// Tells the numbers and the condition of a stream, for ever.
pub(super) async fn watch(shared: &Shared, progress: &Progress, metrics: &StreamMetrics) {
    let mut committed_at = (Instant::now(), 0);
    let mut behind = 0;
    loop {
        tokio::time::sleep(TICK).await;
        let load = shared.flight().load();
        // Beyond what a gauge holds is beyond what memory holds.
        metrics.queue_bytes.set(load.bytes as i64);
        metrics.queue_batches.set(load.batches as i64);
        metrics.batch_messages.set(shared.messages() as i64);
        let commits = metrics.commits.get();
        if commits != committed_at.1 {
            committed_at = (Instant::now(), commits);
        }
        metrics.commit_age.set(committed_at.0.elapsed().as_secs_f64());
        // While a commit is under way it is as it was.
        behind = lag(shared, metrics).unwrap_or(behind);
        if behind == 0 && load.batches == 0 && shared.pulse().is_connected {
            // There is nothing that could not be committed.
            shared.trouble().take();
        }
        metrics.set_condition(condition(shared));
        let place = match shared.pulse().is_assigned {
            true => format!("{} behind", thousands(behind)),
            false => "waiting for the consumer group".into(),
        };
        progress.set(metrics.messages.get(), &format!(", {place}"));
    }
}

/// How the stream is.
fn condition(shared: &Shared) -> Condition {
    let (pulse, is_stopping) = (*shared.pulse(), shared.is_stopping());
    let quiet = pulse.polled.elapsed();
    let sick = (quiet > shared.longest_quiet() && !is_stopping)
        .then(|| format!("Kafka was not polled for {} s", quiet.as_secs()));
    let not_ready = if is_stopping {
        Some("stopping".into())
    } else if !pulse.is_connected {
        Some("no broker answers".into())
    } else if !pulse.is_assigned {
        Some("waiting for the consumer group".into())
    } else {
        shared.trouble().clone()
    };
    Condition { sick, not_ready }
}

/// Tells how many messages of each of our partitions are there and not done, and returns how many of all; nothing while
/// a commit is under way.
fn lag(shared: &Shared, metrics: &StreamMetrics) -> Option<u64> {
    let committed = shared.try_committed()?;
    let partitions = shared.partitions().clone();
    metrics.lag.clear();
    let mut all = 0;
    for (split, told) in partitions {
        let Ok((topic, partition)) = partition_of(&split) else { continue };
        let done = committed.next(&split).map_or(told.low, |next| next as i64);
        let lag = (told.end - done).max(0);
        metrics.lag.get_or_create(&Partition { topic: topic.into(), partition }).set(lag);
        all += lag.unsigned_abs();
    }
    Some(all)
}
