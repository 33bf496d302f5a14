//! Kafka, as sources and sinks share it: where the brokers are and how to be let in, and what their errors mean.
//!
//! The client is librdkafka. What exactly-once rests on is set here and by the source and the sink, and cannot be set
//! otherwise; any other property of librdkafka can.

use crate::report::thousands;
use crate::{Error, Result};
use operators::endpoint::secret::{Secret, expanded};
use operators::text::did_you_mean;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a start waits for a broker before it gives up: long enough for one that is starting too.
pub const START_PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait for the first answer of a broker, which is then tried again.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// The last failure of a connection, in the words of the client, which does not say itself why no broker answers.
static LAST_FAILURE: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// How long such a failure may be the reason: connections are tried every other second.
const FAILURE_COUNTS: Duration = Duration::from_secs(10);

/// How soon it is told again that no broker answers.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How soon brokers are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The longest wait for one answer of a broker.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the brokers are, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// Brokers to begin with, `host:port,host:port`, or `${VARIABLE}` of the environment. The others are found by them.
    pub bootstrap: String,
    /// Encryption. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Who we are. Absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslConfig>,
    /// Other properties of librdkafka, by their names there. Those that thema answers for are refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// Encryption, and who the brokers are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The file of the authorities that vouch for the brokers. Absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The file of our certificate, where brokers ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Where the key's password is: `${VARIABLE}` or `file:PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password: Option<String>,
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// How the password is shown.
    pub mechanism: Mechanism,
    /// The name.
    pub username: String,
    /// Where the password is: `${VARIABLE}` or `file:PATH`; never the password itself.
    pub password: String,
}

/// How a password is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// As it is: only with TLS.
    #[serde(rename = "plain")]
    Plain,
    /// By a challenge.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// By a challenge, with the longer hash.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// What thema answers for: offsets, transactions, membership. Each is set by a key of the job, or fixed.
const OURS: [&str; 26] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "statistics.interval.ms",
    "transactional.id",
];

impl ConnectionConfig {
    /// Checks what can be known without a broker; `name` is what the job calls this.
    pub fn check(&self, name: &str) -> Result<()> {
        self.client(name).map(drop)
    }

    /// What a client begins with.
    pub(crate) fn client(&self, name: &str) -> Result<ClientConfig> {
        let bootstrap = expanded(&format!("{name}.bootstrap"), &self.bootstrap)?;
        if bootstrap.trim().is_empty() {
            let reason = "names no broker: give bootstrap: \"host:9092\"";
            return Err(Error::setting(name, reason));
        }
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &bootstrap);
        client.set("client.id", "thema");
        // A broker that is away for a while is tried again soon after it is back.
        client.set("reconnect.backoff.max.ms", "2000");
        for (property, value) in &self.properties {
            if OURS.contains(&property.as_str()) {
                let reason =
                    "is not to be set as a property: thema answers for it, or has a key of its own for it";
                return Err(Error::setting(format!("{name}.properties.{property}"), reason));
            }
            client.set(property, value);
        }
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            tls.fill(name, &mut client)?;
        }
        if let Some(SaslConfig { mechanism, username, password }) = &self.sasl {
            let password = Secret::read(&format!("{name}.sasl.password"), password)?;
            let mechanism = match mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            client.set("sasl.mechanisms", mechanism);
            client.set("sasl.username", username).set("sasl.password", password.reveal());
        }
        Ok(client)
    }

    /// The brokers, for logs and errors.
    pub fn place(&self) -> String {
        format!("Kafka at {}", self.bootstrap)
    }
}

impl TlsConfig {
    fn fill(&self, name: &str, client: &mut ClientConfig) -> Result<()> {
        let files = [
            ("ca", "ssl.ca.location", &self.ca),
            ("certificate", "ssl.certificate.location", &self.certificate),
            ("key", "ssl.key.location", &self.key),
        ];
        for (key, property, file) in files {
            let Some(file) = file else { continue };
            if !file.is_file() {
                let reason = format!("{} is no file", file.display());
                return Err(Error::setting(format!("{name}.tls.{key}"), reason));
            }
            client.set(property, file.display().to_string());
        }
        if let Some(password) = &self.key_password {
            let password = Secret::read(&format!("{name}.tls.key_password"), password)?;
            client.set("ssl.key.password", password.reveal());
        }
        Ok(())
    }
}

/// What the client tells beside its answers: into our log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told;

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(&error, reason);
    }
}

impl ConsumerContext for Told {}

/// Logs a line of librdkafka. It warns of what passes, such as a broker that closes a connection: only what is an error
/// to it is a warning to us.
pub(crate) fn tell(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::debug!("{facility}: {message}"),
        _ => tracing::trace!("{facility}: {message}"),
    }
}

/// Why no broker answers, as far as the client has told just now: nothing, or its words in brackets.
fn last_failure() -> String {
    let last = LAST_FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((_, text)) = last.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_COUNTS) else {
        return String::new();
    };
    // Behind it stands how long it took and how often it was so.
    format!(" ({})", text.split(" (after ").next().unwrap_or_default())
}

/// Logs what librdkafka tells of a connection.
pub(crate) fn tell_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown) => {
            // Each client says it, again and again.
            static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
            let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
                *told = Some(Instant::now());
                tracing::warn!("Kafka: no broker answers{}; trying again", last_failure());
            }
        }
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) => {
            *LAST_FAILURE.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Instant::now(), reason.into()));
            tracing::debug!("Kafka: {reason}");
        }
        _ => tracing::debug!("Kafka: {reason}"),
    }
}

/// Waits for the brokers of `connection`, which the job calls `name`, and fails if one of `topics` is not there; returns
/// the number of partitions of each.
pub(crate) fn check_topics(
    connection: &ConnectionConfig,
    name: &str,
    topics: &[&str],
) -> Result<BTreeMap<String, usize>> {
    let place = &connection.place();
    let client: BaseConsumer<Told> = BaseConsumer::from_config_and_context(&connection.client(name)?, Told)
        .map_err(|error| explained(place, &error))?;
    let (started, mut is_told) = (Instant::now(), false);
    let metadata = loop {
        let error = match client.fetch_metadata(None, METADATA_TIMEOUT) {
            Ok(found) => break found,
            Err(error) => error,
        };
        let error = why(&client).unwrap_or(error);
        if is_lasting(&error) || started.elapsed() > START_PATIENCE {
            return Err(explained(place, &error));
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                "{place}: no broker answers yet{}; trying for {} s",
                last_failure(),
                START_PATIENCE.as_secs()
            );
        }
    };
    let all: BTreeMap<String, usize> = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| (topic.name().to_string(), topic.partitions().len()))
        .collect();
    for topic in topics {
        if !all.contains_key(*topic) {
            // Topics that brokers keep for themselves are no choice.
            let names: Vec<&str> =
                all.keys().map(String::as_str).filter(|name| !name.starts_with("__")).collect();
            let meant = did_you_mean(topic, names.iter().copied());
            let there = match names.len() {
                0 => "there is none".into(),
                1..=20 => format!("there are: {}", names.join(", ")),
                many => format!("there are {}", thousands(many as u64)),
            };
            return Err(Error::place(place, format!("no topic \"{topic}\"{meant}; {there}")));
        }
    }
    Ok(topics.iter().map(|topic| (topic.to_string(), all[*topic])).collect())
}

/// Why no answer came, if no other will: the client tells it beside, and an event at a time.
fn why(client: &BaseConsumer<Told>) -> Option<KafkaError> {
    let started = Instant::now();
    while started.elapsed() < ASK_AGAIN {
        if let Some(Err(error)) = client.poll(ASK_AGAIN / 20)
            && is_lasting(&error)
        {
            return Some(error);
        }
    }
    None
}

/// Asks the brokers again and again, as long as `may_wait` (which is told how long it has been) and the answer may change.
pub(crate) fn patiently<T>(
    place: &str,
    may_wait: impl Fn(Duration) -> bool,
    mut ask: impl FnMut() -> std::result::Result<T, KafkaError>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if !is_lasting(&error) && may_wait(started.elapsed()) => {
                tracing::debug!("{place}: {error}; trying again");
                std::thread::sleep(ASK_AGAIN);
            }
            Err(error) => return Err(explained(place, &error)),
        }
    }
}

/// Whether no later try will fare better: we are not let in, or another has our name. Brokers that are away, leaders that
/// change and coordinators that move come back.
pub(crate) fn is_lasting(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    match error {
        KafkaError::Transaction(error) => return !error.is_retriable(),
        KafkaError::MessageConsumptionFatal(_) | KafkaError::ClientConfig(..) => return true,
        _ => {}
    }
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication
                | Code::SSL
                | Code::UnsupportedVersion
                | Code::UnsupportedFeature
                | Code::InvalidArgument
                | Code::AutoOffsetReset
                | Code::Fatal
                | Code::Fenced
                | Code::FencedInstanceId
                | Code::InvalidSessionTimeout
                | Code::InconsistentGroupProtocol
        )
    )
}

/// Says what an error of the client means to the user.
pub(crate) fn explained(place: &str, error: &KafkaError) -> Error {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    let reason = match error {
        KafkaError::ClientConfig(_, text, key, value) => {
            return Error::setting(format!("property {key}"), format!("\"{value}\": {text}"));
        }
        KafkaError::Transaction(error) => error.string(),
        other => other.to_string(),
    };
    let denied = |what: &str| Error::place(place, format!("{what} ({reason})"));
    match code {
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
            denied("we may not read or write there: ask for the rights")
        }
        Some(Code::TransactionalIdAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
            denied("we may not use transactions there: ask for the rights")
        }
        Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
            denied("the broker does not accept our name and password")
        }
        Some(Code::InvalidSessionTimeout) => denied(
            "the broker does not take source.kafka.session_timeout_ms: it is less or more than it allows",
        ),
        Some(Code::SSL) => denied("no encrypted connection: look at tls:"),
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId) => {
            Error::Fenced(format!(
                "{place}: another process goes on under our name (the same `instance`, or transactional id): {reason}"
            ))
        }
        Some(
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve,
        ) => Error::Service {
            service: place.into(),
            reason: format!("no broker answers: is it running, and the address right?{}", last_failure()),
        },
        _ => Error::Service { service: place.into(), reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(yaml: &str) -> ConnectionConfig {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn what_exactly_once_rests_on_cannot_be_set_as_a_property() {
        for property in OURS {
            let config =
                connection(&format!("{{ bootstrap: \"a:1\", properties: {{ {property}: \"1\" }} }}"));
            let error = config.check("source.kafka.connection").unwrap_err().to_string();
            assert!(error.contains(property), "{error}");
        }
        connection("{ bootstrap: \"a:1\", properties: { socket.keepalive.enable: \"true\" } }")
            .check("x")
            .unwrap();
    }

    #[test]
    fn tls_and_a_name_choose_the_protocol() {
        for (yaml, expected) in [
            ("{ bootstrap: \"a:1\" }", "plaintext"),
            ("{ bootstrap: \"a:1\", tls: {} }", "ssl"),
            (
                "{ bootstrap: \"a:1\", sasl: { mechanism: plain, username: u, password: \"${PATH}\" } }",
                "sasl_plaintext",
            ),
            (
                "{ bootstrap: \"a:1\", tls: {}, sasl: { mechanism: scram-sha-512, username: u, password: \"${PATH}\" } }",
                "sasl_ssl",
            ),
        ] {
            assert_eq!(connection(yaml).client("x").unwrap().get("security.protocol"), Some(expected));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (yaml, words) in [
            ("{}", "names no broker"),
            ("{ bootstrap: \"${THEMA_NO_SUCH_VARIABLE}\" }", "THEMA_NO_SUCH_VARIABLE"),
            ("{ bootstrap: \"a:1\", tls: { ca: nowhere.pem } }", "nowhere.pem is no file"),
            (
                "{ bootstrap: \"a:1\", sasl: { mechanism: plain, username: u, password: secret } }",
                "says not where the key is",
            ),
        ] {
            let error = connection(yaml).check("source.kafka.connection").unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        }
    }
}
