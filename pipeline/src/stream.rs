//! How a stream flows: the size of batches, how often they become visible, what bad messages do.

use crate::{Error, Result};
use operators::monitor::MonitorConfig;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a stream flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// What is to be short: the time to a label, or the time for all. Default: latency.
    pub mode: Mode,
    /// The most rows of a batch. It has fewer where that many would take longer than a second or two. 8,192: as in files.
    pub batch_rows: usize,
    /// The most bytes of a batch, as its messages have them. 8 MiB.
    pub batch_bytes: usize,
    /// About the most tokens of a batch, where texts are encoded: as many rows as had so many before. 1,048,576: what
    /// fast hardware encodes in seconds; slower ones are bounded by the time.
    pub batch_tokens: usize,
    /// How long a batch waits to be filled. Absent: 50 in mode latency (and not at all while nothing else is under way),
    /// 500 in mode throughput.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_wait_ms: Option<u64>,
    /// How often what was written becomes visible. Absent: with each batch in mode latency, 1,000 in mode throughput.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<u64>,
    /// The most bytes of messages that are taken and not written yet; beyond it no more are taken. 64 MiB.
    pub in_flight_bytes: usize,
    /// What a message does that cannot be labelled. Default: it goes to the sink's dead letters.
    pub on_bad_message: OnBadMessage,
    /// When so many messages are bad that the fault must lie elsewhere, and the stream stops.
    pub breaker: Breaker,
    /// What is watched of the rows: drift, and topics that emerge among the outliers.
    pub monitor: MonitorConfig,
    /// How often to look for a newer version of the model. 0: never. 30.
    pub reload_seconds: u64,
    /// Where metrics and health are served, such as `0.0.0.0:9464`. Absent: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
}

/// What is to be short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The time from a message to its label: batches are as small as the work at hand allows.
    Latency,
    /// The time for all messages: batches are as large as they may be.
    Throughput,
}

/// What a message does that cannot be labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadMessage {
    /// It goes to the sink's dead letters.
    DeadLetter,
    /// It is counted and left out.
    Skip,
    /// The stream stops before it.
    Fail,
}

/// When a stream stops because of bad messages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// How many of the last messages are looked at, once there are a tenth as many. 1,000.
    pub window: usize,
    /// The share of them that may be bad. 0.5; 1: it never stops.
    pub share: f64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { window: 1000, share: 0.5 }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Latency,
            batch_rows: 8192,
            batch_bytes: 8 << 20,
            batch_tokens: 1 << 20,
            batch_wait_ms: None,
            commit_ms: None,
            in_flight_bytes: 64 << 20,
            on_bad_message: OnBadMessage::DeadLetter,
            breaker: Breaker::default(),
            monitor: MonitorConfig::default(),
            reload_seconds: 30,
            listen: None,
        }
    }
}

impl StreamConfig {
    /// Checks each setting against its range.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("stream.batch_rows", self.batch_rows),
            ("stream.batch_bytes", self.batch_bytes),
            ("stream.batch_tokens", self.batch_tokens),
            ("stream.in_flight_bytes", self.in_flight_bytes),
            ("stream.breaker.window", self.breaker.window),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Err(Error::setting(name, "is 0, expected at least 1"));
            }
        }
        self.monitor.check()?;
        if !(0.0..=1.0).contains(&self.breaker.share) {
            let reason = format!("{} is not between 0 and 1", self.breaker.share);
            return Err(Error::setting("stream.breaker.share", reason));
        }
        Ok(())
    }

    /// How long a batch waits to be filled.
    pub(crate) fn batch_wait(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms.unwrap_or(match self.mode {
            Mode::Latency => 50,
            Mode::Throughput => 500,
        }))
    }

    /// Whether a batch does not wait while nothing else is under way.
    pub(crate) fn hurries(&self) -> bool {
        self.mode == Mode::Latency
    }

    /// How often what was written becomes visible; zero for each batch.
    pub(crate) fn commit_every(&self) -> Duration {
        Duration::from_millis(self.commit_ms.unwrap_or(match self.mode {
            Mode::Latency => 0,
            Mode::Throughput => 1000,
        }))
    }
}
