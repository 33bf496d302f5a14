//! The client that writes, and what it hears of its messages.

use crate::kafka::{ANSWER_TIMEOUT, Told};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Makes a client and fences off whoever wrote under its name before, an earlier client of ours among them; it is tried for
/// so long.
pub(super) fn connect(
    client: &ClientConfig,
    patience: Duration,
) -> Result<BaseProducer<Deliveries>, KafkaError> {
    let producer = client.create_with_context::<_, BaseProducer<_>>(Deliveries::default())?;
    let started = Instant::now();
    while let Err(error) = producer.init_transactions(ANSWER_TIMEOUT) {
        if !is_retriable(&error) || started.elapsed() > patience {
            return Err(error);
        }
        tracing::debug!("{error}; trying again");
    }
    Ok(producer)
}

/// Whether the same may be asked again.
pub(super) fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        // What is left to be flushed when its time is over.
        KafkaError::Flush(code) => *code == Code::OperationTimedOut,
        _ => false,
    }
}

/// What became of messages.
#[derive(Default)]
pub(super) struct Deliveries {
    delivered: AtomicU64,
    purged: AtomicU64,
    failed: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    /// How many were delivered.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many an abort has dropped.
    pub(super) fn purged(&self) -> u64 {
        self.purged.load(Ordering::Relaxed)
    }

    /// The first message that could not be delivered since this was asked last.
    pub(super) fn take_failed(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Told.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Told.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.delivered.fetch_add(1, Ordering::Relaxed)),
            // What an abort drops has not failed.
            Err((KafkaError::MessageProduction(Code::PurgeQueue | Code::PurgeInflight), _)) => {
                self.purged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}
