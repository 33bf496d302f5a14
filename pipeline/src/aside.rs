//! What a batch carries beside its rows: messages that are no rows, and yet must leave with them.
//!
//! One idea: a message that cannot be labelled becomes visible, as a dead letter or as the tombstone it was, in the same
//! commit as the rows around it, so that none is lost and none is told twice. So does what is noticed of the rows.

use crate::positions::Split;
use crate::sources::BadUnit;
use crate::{Error, Result};
use operators::monitor::Event;
use serde::Serialize;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Messages of a batch that are no rows.
#[derive(Debug, Clone, Default)]
pub struct Aside {
    /// Those that cannot be labelled.
    pub letters: Vec<DeadLetter>,
    /// Those without a payload, which delete what their key stands for.
    pub tombstones: Vec<Message>,
    /// What was noticed of the rows, for people.
    pub notices: Vec<Notice>,
}

/// Something that was noticed of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// What.
    pub event: Event,
    /// When, in milliseconds of the Unix epoch.
    pub at: i64,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The partition that it comes from.
    pub split: Split,
    /// Where in it.
    pub offset: i64,
    /// When it was made, in milliseconds of the Unix epoch.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its payload.
    pub value: Option<Vec<u8>>,
}

/// A message that cannot be labelled, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// Why.
    pub reason: String,
    /// How many times it has been tried, by us and, as its headers tell, before.
    pub attempt: u32,
}

impl DeadLetter {
    /// The message as what could not be read.
    pub(crate) fn unit(&self) -> BadUnit {
        let Message { split, offset, .. } = &self.message;
        BadUnit::file(format!("{split}, offset {offset}"), self.reason.clone())
    }
}

impl Notice {
    /// Something that is noticed now.
    pub(crate) fn now(event: Event) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { event, at: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }
    }

    /// Its kind, as machines know it.
    pub fn kind(&self) -> &'static str {
        match self.event {
            Event::EmergingTopic(_) => "emerging_topic",
            Event::Drift(_) => "drift",
        }
    }

    /// As one JSON object: `at`, `kind`, `message` for people, and what there is to know of its kind.
    pub fn json(&self) -> Result<String> {
        let whole = Told { at: self.at, message: self.event.to_string(), event: &self.event };
        serde_json::to_string(&whole).map_err(|error| Error::Internal(error.to_string()))
    }
}

#[derive(Serialize)]
struct Told<'a> {
    at: i64,
    message: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, offset {}: {}", self.message.split, self.message.offset, self.reason)
    }
}
