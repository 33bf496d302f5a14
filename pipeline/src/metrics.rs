//! What a stream tells of itself: metrics in the format of Prometheus (OpenMetrics), and whether it is well.
//!
//! | metric | is |
//! |---|---|
//! | `thema_messages_total` | messages that are done: their rows, letters or tombstones are visible |
//! | `thema_rows_total` | rows that were labelled and are visible |
//! | `thema_outliers_total` | of rows that were labelled, those that belong to no topic |
//! | `thema_dropped_total` | rows that were labelled and that `keep` left out |
//! | `thema_dead_letters_total` | messages that could not be labelled |
//! | `thema_tombstones_total` | messages without payload, passed on |
//! | `thema_commits_total`, `thema_aborts_total` | times rows became visible, times what was written was undone |
//! | `thema_latency_seconds` | from a batch's first message being polled to its commit |
//! | `thema_label_seconds`, `thema_commit_seconds` | the time a batch takes to label, and a commit |
//! | `thema_lag` | by `topic` and `partition`: messages that are there and not done |
//! | `thema_commit_age_seconds` | since the last commit, or the start |
//! | `thema_queue_bytes`, `thema_queue_batches` | what is in flight: polled, and not visible |
//! | `thema_batch_messages` | the messages that a batch may have now |
//! | `thema_model_version` | the version that labels |
//! | `thema_emerging_topics_total`, `thema_drift_alarms_total` | what was noticed of the outliers and the rows |
//! | `thema_window_outlier_share`, `..._neighbour_distance`, `..._clip_rate` | of the last window: outliers, the mean distance to the sample (1 − cosine), values that 8-bit codes clip |

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

/// The numbers of one stream.
pub(crate) struct StreamMetrics {
    registry: Registry,
    pub(crate) messages: Counter,
    pub(crate) rows: Counter,
    pub(crate) outliers: Counter,
    pub(crate) dropped: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) tombstones: Counter,
    pub(crate) commits: Counter,
    pub(crate) aborts: Counter,
    pub(crate) latency: Histogram,
    pub(crate) label_seconds: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) lag: Family<Partition, Gauge>,
    pub(crate) commit_age: Gauge<f64, AtomicU64>,
    pub(crate) queue_bytes: Gauge,
    pub(crate) queue_batches: Gauge,
    pub(crate) batch_messages: Gauge,
    pub(crate) model_version: Gauge,
    pub(crate) emerging_topics: Counter,
    pub(crate) drift_alarms: Counter,
    pub(crate) window_outlier_share: Gauge<f64, AtomicU64>,
    pub(crate) window_neighbour_distance: Gauge<f64, AtomicU64>,
    pub(crate) window_clip_rate: Gauge<f64, AtomicU64>,
    condition: Mutex<Condition>,
}

/// A partition, as a label of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

/// How a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Why the process should be ended and started anew; nothing while it should not.
    pub(crate) sick: Option<String>,
    /// Why messages do not get through; nothing while they do.
    pub(crate) not_ready: Option<String>,
}

impl StreamMetrics {
    /// All of them at zero.
    pub(crate) fn new() -> Self {
        // From a millisecond to about two minutes.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let mut metrics = Self {
            registry: Registry::with_prefix("thema"),
            messages: Counter::default(),
            rows: Counter::default(),
            outliers: Counter::default(),
            dropped: Counter::default(),
            dead_letters: Counter::default(),
            tombstones: Counter::default(),
            commits: Counter::default(),
            aborts: Counter::default(),
            latency: seconds(),
            label_seconds: seconds(),
            commit_seconds: seconds(),
            lag: Family::default(),
            commit_age: Gauge::default(),
            queue_bytes: Gauge::default(),
            queue_batches: Gauge::default(),
            batch_messages: Gauge::default(),
            model_version: Gauge::default(),
            emerging_topics: Counter::default(),
            drift_alarms: Counter::default(),
            window_outlier_share: Gauge::default(),
            window_neighbour_distance: Gauge::default(),
            window_clip_rate: Gauge::default(),
            condition: Mutex::new(Condition { sick: None, not_ready: Some("starting".into()) }),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let counters = [
            ("messages", "Messages that are done", &self.messages),
            ("rows", "Rows that were labelled and are visible", &self.rows),
            ("outliers", "Labelled rows that belong to no topic", &self.outliers),
            ("dropped", "Labelled rows that keep left out", &self.dropped),
            ("dead_letters", "Messages that could not be labelled", &self.dead_letters),
            ("tombstones", "Messages without payload that were passed on", &self.tombstones),
            ("commits", "Times rows became visible", &self.commits),
            ("aborts", "Times what was written was undone and read again", &self.aborts),
            ("emerging_topics", "Topics that were noticed among the outliers", &self.emerging_topics),
            ("drift_alarms", "Times rows were found unlike the sample", &self.drift_alarms),
        ];
        for (name, help, counter) in counters {
            self.registry.register(name, help, counter.clone());
        }
        let histograms = [
            ("latency_seconds", "From a batch's first message being polled to its commit", &self.latency),
            ("label_seconds", "Time to label a batch", &self.label_seconds),
            ("commit_seconds", "Time of a commit", &self.commit_seconds),
        ];
        for (name, help, histogram) in histograms {
            self.registry.register(name, help, histogram.clone());
        }
        let gauges = [
            ("queue_bytes", "Bytes of messages that are polled and not visible", &self.queue_bytes),
            ("queue_batches", "Batches that are polled and not visible", &self.queue_batches),
            ("batch_messages", "Messages that a batch may have now", &self.batch_messages),
            ("model_version", "The version of the model that labels", &self.model_version),
        ];
        for (name, help, gauge) in gauges {
            self.registry.register(name, help, gauge.clone());
        }
        self.registry.register("lag", "Messages that are there and not done", self.lag.clone());
        let gauges = [
            ("commit_age_seconds", "Since the last commit, or the start", &self.commit_age),
            (
                "window_outlier_share",
                "Outliers of the last window, a share of its rows",
                &self.window_outlier_share,
            ),
            (
                "window_neighbour_distance",
                "Mean distance to the sample in the last window",
                &self.window_neighbour_distance,
            ),
            (
                "window_clip_rate",
                "Values of the last window that 8-bit codes clip, a share",
                &self.window_clip_rate,
            ),
        ];
        for (name, help, gauge) in gauges {
            self.registry.register(name, help, gauge.clone());
        }
    }

    /// Says how the stream is.
    pub(crate) fn set_condition(&self, condition: Condition) {
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
    }

    /// How the stream is.
    pub(crate) fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of them, as Prometheus reads them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // A string takes whatever is written.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = StreamMetrics::new();
        metrics.rows.inc_by(3);
        metrics.latency.observe(0.2);
        metrics.lag.get_or_create(&Partition { topic: "papers".into(), partition: 2 }).set(7);
        let text = metrics.text();
        for line in [
            "thema_rows_total 3",
            "thema_latency_seconds_count 1",
            "thema_lag{topic=\"papers\",partition=\"2\"} 7",
            "# TYPE thema_commits counter",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
