//! What a job says of a topic to write.

use crate::kafka::ConnectionConfig;
use crate::sources::kafka::KafkaConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A topic to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSinkConfig {
    /// Where the brokers are. Absent: where the source's are; transactions span one cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionConfig>,
    /// The topic.
    pub topic: String,
    /// The topic of messages that cannot be labelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<String>,
    /// The topic of what is noticed: emerging topics and drift. Absent: they are logged, and nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
    /// How payloads are written. Default: json.
    pub format: OutputFormat,
    /// How long a transaction may stay open before the broker aborts it. 60,000: Kafka's own.
    pub transaction_timeout_ms: u32,
}

impl Default for KafkaSinkConfig {
    fn default() -> Self {
        Self {
            connection: None,
            topic: String::new(),
            dead_letters: None,
            events: None,
            format: OutputFormat::Json,
            transaction_timeout_ms: 60_000,
        }
    }
}

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// One JSON object a row. A message that was one keeps all that it had, and gets the labels added.
    #[default]
    Json,
    /// An Arrow IPC stream for all rows of a message.
    Arrow,
}

impl KafkaSinkConfig {
    /// Checks what can be known without a broker.
    pub(crate) fn check(&self, commit_every: Duration, source: &KafkaConfig) -> Result<()> {
        if self.topic.is_empty() {
            return Err(Error::setting("sink.kafka.topic", "names no topic"));
        }
        let others = [("dead_letters", &self.dead_letters), ("events", &self.events)];
        let others = others.iter().filter_map(|(key, topic)| Some((*key, topic.as_ref()?)));
        let reads = |topic: &str| source.topics.iter().any(|read| is_read(read, topic));
        for (key, topic) in [("topic", &self.topic)].into_iter().chain(others) {
            let name = format!("sink.kafka.{key}");
            if key != "topic" && *topic == self.topic {
                return Err(Error::setting(name, "is the topic of the rows itself"));
            }
            if self.connection.as_ref().is_none_or(|own| *own == source.connection) && reads(topic) {
                let reason =
                    format!("\"{topic}\" is among the topics that are read: what is written would come back");
                return Err(Error::setting(name, reason));
            }
        }
        let wrong = |reason: String| Err(Error::setting("sink.kafka.transaction_timeout_ms", reason));
        let timeout = Duration::from_millis(self.transaction_timeout_ms.into());
        if timeout < commit_every * 2 {
            return wrong(format!(
                "is less than twice stream.commit_ms: no transaction would last; give {} or more",
                commit_every.as_millis() * 2
            ));
        }
        // A partition whose last owner was killed is read once its transaction is over.
        if self.transaction_timeout_ms > source.max_poll_interval_ms / 3 {
            return wrong(format!(
                "is more than a third of source.kafka.max_poll_interval_ms ({}): a rebalance could not wait for it",
                source.max_poll_interval_ms
            ));
        }
        match &self.connection {
            Some(connection) => connection.check("sink.kafka.connection"),
            None => Ok(()),
        }
    }
}

/// Whether a source that reads `read`, a name or a regular expression that begins with `^`, reads `topic`.
fn is_read(read: &str, topic: &str) -> bool {
    match read.starts_with('^') {
        // One that is no expression to us is left to the broker's client.
        true => regex::Regex::new(read).is_ok_and(|expression| expression.is_match(topic)),
        false => read == topic,
    }
}
