//! Whether a partition is read to its end, where its last offsets are no messages.
//!
//! Behind the last message may lie marks of transactions and what was aborted, which the client skips without a word, and
//! what it tells of them now and then is ahead of what was polled. So where that is all that is missing, a consumer that
//! reads this partition alone is asked what comes next: a message, or the end.

use crate::kafka::{Told, explained, is_lasting};
use crate::{Error, Result};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// The longest wait for one answer; it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks what comes next in partitions.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    client: ClientConfig,
    place: String,
}

impl Ends {
    /// By a client of the same settings as the one that reads, which is no member of its group.
    pub(super) fn new(reader: &ClientConfig, place: &str) -> Self {
        let mut client = reader.clone();
        client.remove("group.instance.id").remove("statistics.interval.ms");
        // Another replica than the leader may see an earlier end.
        client.remove("client.rack");
        // The end is told as soon as it is seen.
        client.set("fetch.wait.max.ms", "10");
        Self { client, place: place.into() }
    }

    /// Whether from `next` on, which is the beginning if absent, no message lies before `end`; false where no broker
    /// said it in time.
    pub(super) fn is_empty(
        &self,
        (topic, partition): (&str, i32),
        next: Option<u64>,
        end: i64,
    ) -> Result<bool> {
        let failed = |error: KafkaError| -> Error { explained(&self.place, &error) };
        let client: BaseConsumer<Told> =
            BaseConsumer::from_config_and_context(&self.client, Told).map_err(failed)?;
        let mut from = TopicPartitionList::new();
        // An offset is an i64 there.
        let next = next.map_or(Offset::Beginning, |next| Offset::Offset(next as i64));
        from.add_partition_offset(topic, partition, next).map_err(failed)?;
        client.assign(&from).map_err(failed)?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match client.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => return Ok(message.offset() >= end),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
                Some(Err(error)) if is_lasting(&error) => return Err(failed(error)),
                // The client tries again by itself what may pass.
                Some(Err(_)) | None => {}
            }
        }
        Ok(false)
    }
}
