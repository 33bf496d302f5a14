//! What a batch carries beside its rows: messages that are no rows, and yet must leave with them.
//!
//! One idea: a message that cannot be labelled becomes visible, as a dead letter or as the tombstone it was, in the same
//! commit as the rows around it, so that none is lost and none is told twice.

use crate::positions::Split;
use std::fmt;

/// Messages of a batch that are no rows.
#[derive(Debug, Clone, Default)]
pub struct Aside {
    /// Those that cannot be labelled.
    pub letters: Vec<DeadLetter>,
    /// Those without a payload, which delete what their key stands for.
    pub tombstones: Vec<Message>,
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

impl Aside {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.tombstones.is_empty()
    }
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, offset {}: {}", self.message.split, self.message.offset, self.reason)
    }
}
