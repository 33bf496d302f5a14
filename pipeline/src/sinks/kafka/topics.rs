//! What topics take, and for how long they keep it.

use crate::kafka::{ANSWER_TIMEOUT, Told};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether the broker will never take a message that it has refused.
pub(super) fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::MessageSizeTooLarge
                | Code::PolicyViolation
                | Code::TopicAuthorizationFailed
        )
    )
}

/// What topics say of messages, where we may know it.
#[derive(Default)]
pub(super) struct TopicConfigs {
    /// The longest message that all of them take.
    pub(super) most_bytes: Option<u64>,
    /// How old a message of a topic may become by the time that it was written with.
    pub(super) keeps: BTreeMap<String, Duration>,
}

impl TopicConfigs {
    /// Asks for those of `topics`; a broker may not let us know.
    pub(super) fn ask(asks: &AdminClient<Told>, topics: &[&str]) -> Self {
        let specifiers: Vec<ResourceSpecifier<'_>> =
            topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
        let mut configs = Self::default();
        let answer = futures::executor::block_on(asks.describe_configs(&specifiers, &options));
        for (topic, found) in topics.iter().zip(answer.unwrap_or_default()) {
            let Ok(found) = found else { continue };
            let value = |name: &str| found.get(name)?.value.as_deref();
            if let Some(bytes) = value("max.message.bytes").and_then(|bytes| bytes.parse().ok()) {
                configs.most_bytes = Some(configs.most_bytes.map_or(bytes, |most| most.min(bytes)));
            }
            let deletes = value("cleanup.policy").is_some_and(|policy| policy.contains("delete"));
            let by_own_time = value("message.timestamp.type") == Some("CreateTime");
            // Negative where nothing is deleted.
            let keeps = value("retention.ms").and_then(|millis| millis.parse().ok());
            if let Some(millis) = keeps.filter(|_| deletes && by_own_time) {
                configs.keeps.insert((*topic).to_string(), Duration::from_millis(millis));
            }
        }
        configs
    }
}
