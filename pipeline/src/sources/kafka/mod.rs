//! Kafka topics as a source of streams: a member of a consumer group, which reads the partitions it is given.
//!
//! One idea: the group's protocol runs on one thread that polls, and asks the pipeline only by events that travel in
//! order with the batches: `Event::Assigned` asks where to begin, `Event::Revoked` asks for what is in flight to be
//! committed, and both wait for the answer. What is in flight when that cannot be waited for belongs to an epoch that
//! is over, and is never committed. Offsets are never stored by the consumer: the sink makes them visible with the rows.
//!
//! Memory is bounded by bytes: when batches that are not committed yet hold too many, partitions are paused, and polling
//! goes on, so that the group does not take a slow member for a dead one.

mod decode;
mod ends;
mod group;
mod membership;
pub(crate) mod messages;
mod poll;
mod shared;

pub(crate) use decode::{ATTEMPT, letter};
pub use decode::{PayloadFormat, RegistryConfig, Wanted};
pub use membership::Membership;
pub(crate) use shared::{Held, Shared};

use crate::aside::Aside;
use crate::kafka::{ConnectionConfig, check_topics, explained};
use crate::positions::{Batch, Covers, Positions, Split};
use crate::sources::ColumnType;
use crate::stream::StreamConfig;
use crate::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use decode::Decoder;
use ends::Ends;
use group::Group;
use operators::endpoint::secret::expanded;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Topics to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Where the brokers are.
    pub connection: ConnectionConfig,
    /// The topics: names, or regular expressions that begin with `^`.
    pub topics: Vec<String>,
    /// The consumer group: its members share the partitions, and its offsets say what is done.
    pub group: String,
    /// A name of this member that outlives it, or `${VARIABLE}`: a process that is started again under it gets its
    /// partitions back without a rebalance, and ends what it left open. Absent: each start is a new member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How the group agrees. Default: `classic` (cooperative-sticky), which every broker knows.
    pub protocol: GroupProtocol,
    /// Where to begin in a partition of which nothing is committed. Default: earliest, so that nothing is missed.
    pub start: Start,
    /// How payloads are written. Default: json.
    pub format: PayloadFormat,
    /// Where the schemas of Avro payloads are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryConfig>,
    /// Types of columns, and columns to read beside those that the job names. Absent: those alone, as utf8.
    pub columns: BTreeMap<String, ColumnType>,
    /// After how long without a sign of life a member is taken for dead. 45,000: Kafka's own.
    pub session_timeout_ms: u32,
    /// How long a rebalance may wait for what is in flight; a third of it is what a batch may take. 600,000: ten minutes,
    /// for batches that are slow to encode.
    pub max_poll_interval_ms: u32,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            connection: ConnectionConfig::default(),
            topics: Vec::new(),
            group: String::new(),
            instance: None,
            protocol: GroupProtocol::Classic,
            start: Start::Earliest,
            format: PayloadFormat::Json,
            registry: None,
            columns: BTreeMap::new(),
            session_timeout_ms: 45_000,
            max_poll_interval_ms: 600_000,
        }
    }
}

/// How a group agrees on who reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// The members agree, cooperatively and with as few changes as can be.
    Classic,
    /// The broker decides (KIP-848): Kafka 4 and later.
    Consumer,
}

/// Where to begin in a partition of which nothing is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At its first message.
    Earliest,
    /// At its end.
    Latest,
    /// Nowhere: that something is committed is taken for granted, and its absence is an error.
    Stored,
    /// At the first message that is not older, such as `2026-11-01T00:00:00Z`.
    Timestamp(String),
}

/// Who knows how far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The consumer group: its offsets are committed with the rows.
    Group,
    /// The sink: the group's offsets follow, and are no more than a hint.
    Sink,
}

impl Start {
    /// What is said after `timestamp:`, in milliseconds of the Unix epoch.
    fn millis(&self) -> Result<Option<i64>> {
        let Self::Timestamp(text) = self else { return Ok(None) };
        let parsed = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text);
        let wrong = |_| {
            Error::setting("start.timestamp", format!("\"{text}\" is no time, expected 2026-11-01T00:00:00Z"))
        };
        Ok(Some(parsed.map_err(wrong)?.div_euclid(1_000_000)))
    }
}

impl KafkaConfig {
    /// Checks what can be known without a broker.
    pub fn check(&self) -> Result<()> {
        self.connection.check("source.kafka.connection")?;
        if self.topics.is_empty() || self.topics.iter().any(String::is_empty) {
            return Err(Error::setting("source.kafka.topics", "names no topic, expected at least one"));
        }
        if self.group.is_empty() {
            let reason =
                "names no consumer group: give one of its own to each pipeline that reads the topics";
            return Err(Error::setting("source.kafka.group", reason));
        }
        self.instance()?;
        self.start.millis().map(drop)
    }

    /// The member's name, if it has one.
    pub(crate) fn instance(&self) -> Result<Option<String>> {
        let name = "source.kafka.instance";
        let instance = self.instance.as_ref().map(|text| expanded(name, text)).transpose()?;
        match instance.as_deref() {
            Some(text) if text.trim().is_empty() => Err(Error::setting(name, "is empty, expected a name")),
            _ => Ok(instance),
        }
    }
}

/// What a stream's source says next.
pub(crate) enum Event {
    /// More rows.
    Batch(Read),
    /// Partitions are ours from now on: where does the sink want them read from? An absent one is read from what the
    /// group has committed.
    Assigned {
        /// The partitions.
        splits: Vec<Split>,
        /// Takes the answer.
        reply: SyncSender<Positions>,
    },
    /// Some partitions will be another's: all batches before this are to be committed.
    Revoked {
        /// Takes the word that it is done.
        done: SyncSender<()>,
    },
    /// Nothing more comes; unless this epoch is over, for then what came before is read again.
    End {
        /// The epoch of all that came before.
        epoch: u64,
    },
}

/// A batch that was read.
pub(crate) struct Read {
    /// Its rows.
    pub batch: Batch,
    /// The messages it was made of.
    pub messages: usize,
    /// The epoch it belongs to; it may be committed while that lasts.
    pub epoch: u64,
    /// When its first message was polled.
    pub at: Instant,
    /// Of its rows, once they are labelled, those that belong to no topic.
    pub outliers: u64,
    /// How many rows `keep` has left out.
    pub dropped: u64,
    /// Its share of the memory.
    pub held: Held,
}

/// What the thread that polls sends.
enum Polled {
    Messages { messages: RecordBatch, covers: Covers, epoch: u64, at: Instant, held: Held },
    Event(Event),
    Failed(Error),
}

/// Messages that are being turned into rows.
struct Decoding {
    task: JoinHandle<(Decoder, Result<(RecordBatch, Aside)>)>,
    messages: usize,
    covers: Covers,
    epoch: u64,
    at: Instant,
    held: Held,
}

/// A member of a consumer group that reads.
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Group>>,
    shared: Arc<Shared>,
    topics: Vec<String>,
    polled: mpsc::UnboundedReceiver<Polled>,
    /// Absent while it decodes.
    decoder: Option<Decoder>,
    decoding: Option<Decoding>,
    format: PayloadFormat,
    schema: SchemaRef,
    thread: Option<std::thread::JoinHandle<()>>,
    setting: poll::Setting,
}

impl KafkaSource {
    /// Finds the topics and makes ready to join the group; [`Self::start`] joins it. It blocks: call it on a worker.
    ///
    /// # Errors
    /// No broker answers, a topic is not there, a setting or a column is of no use.
    pub(crate) fn open(
        config: &KafkaConfig,
        keeper: Keeper,
        stream: &StreamConfig,
        wanted: &Wanted,
        until_end: bool,
    ) -> Result<Self> {
        config.check()?;
        let decoder = Decoder::try_new(config.format, wanted)?;
        let schema = Arc::clone(decoder.schema());
        let longest_quiet = Duration::from_millis(config.max_poll_interval_ms.into());
        let shared = Arc::new(Shared::new(stream, longest_quiet));
        let (sender, polled) = mpsc::unbounded_channel();
        let group = Group::new(config, keeper, until_end, Arc::clone(&shared), sender)?;
        let place = config.connection.place();
        let mut client = config.connection.client("source.kafka.connection")?;
        client
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("max.poll.interval.ms", config.max_poll_interval_ms.to_string())
            .set("statistics.interval.ms", "500");
        // Where to begin is said with each assignment: this is for offsets that the topic does not keep any more, whose
        // next messages are its first.
        client.set("auto.offset.reset", "earliest");
        // What waits within the client beside what we hold. What the user says wins.
        for (property, value) in [("queued.max.messages.kbytes", "16384"), ("queued.min.messages", "10000")] {
            if client.get(property).is_none() {
                client.set(property, value);
            }
        }
        match config.protocol {
            GroupProtocol::Classic => {
                client.set("partition.assignment.strategy", "cooperative-sticky");
                client.set("session.timeout.ms", config.session_timeout_ms.to_string());
            }
            // The broker says what members would.
            GroupProtocol::Consumer => drop(client.set("group.protocol", "consumer")),
        }
        if let Some(instance) = config.instance()? {
            client.set("group.instance.id", instance);
        }
        let ends = until_end.then(|| Ends::new(&client, &place));
        let consumer =
            BaseConsumer::from_config_and_context(&client, group).map_err(|e| explained(&place, &e))?;
        let named: Vec<&str> =
            config.topics.iter().map(String::as_str).filter(|topic| !topic.starts_with('^')).collect();
        check_topics(&config.connection, "source.kafka.connection", &named)?;
        Ok(Self {
            consumer: Arc::new(consumer),
            shared,
            topics: config.topics.clone(),
            polled,
            decoder: Some(decoder),
            decoding: None,
            format: config.format,
            schema,
            thread: None,
            setting: poll::Setting::new(stream, ends, place),
        })
    }

    /// The schema of every batch: the columns of the payloads, then those of `messages`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a message may hold many rows.
    pub(crate) fn holds_many_rows(&self) -> bool {
        self.format == PayloadFormat::Arrow
    }

    /// How this member shows that it is one.
    pub fn membership(&self) -> Membership {
        Membership::new(Arc::clone(&self.consumer))
    }

    /// What the thread that polls and the pipeline know of each other.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Joins the group and begins to read.
    pub fn start(&mut self) -> Result<()> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.consumer.subscribe(&topics).map_err(|error| explained(&self.setting.place, &error))?;
        let (consumer, setting) = (Arc::clone(&self.consumer), self.setting.clone());
        let spawned = std::thread::Builder::new().name("kafka".into()).spawn(move || {
            // The pipeline must not wait for a thread that is no more.
            if catch_unwind(AssertUnwindSafe(|| poll::run(&consumer, &setting))).is_err() {
                let reason = "the thread that polls has panicked".into();
                consumer.context().send(Polled::Failed(Error::Internal(reason)));
            }
        });
        self.thread = Some(spawned.map_err(|error| Error::Internal(format!("no thread: {error}")))?);
        Ok(())
    }

    /// Waits for what comes next. May be dropped while it waits, and then nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(decoding) = &mut self.decoding {
                let done = (&mut decoding.task).await;
                return self
                    .decoded(done.map_err(|error| Error::Internal(format!("a decoder died: {error}")))?);
            }
            let polled = self.polled.recv().await;
            match polled.ok_or_else(|| Error::Internal("the thread that polls has died".into()))? {
                Polled::Event(Event::End { epoch }) if epoch != self.shared.epoch() => {}
                Polled::Event(event) => return Ok(event),
                Polled::Failed(error) => return Err(error),
                Polled::Messages { epoch, .. } if epoch != self.shared.epoch() => {}
                Polled::Messages { messages, covers, epoch, at, held } => {
                    let lost = || Error::Internal("a stream's decoder was lost".into());
                    let mut decoder = self.decoder.take().ok_or_else(lost)?;
                    let count = messages.num_rows();
                    let task = tokio::task::spawn_blocking(move || {
                        let rows = decoder.decode(&messages);
                        (decoder, rows)
                    });
                    self.decoding = Some(Decoding { task, messages: count, covers, epoch, at, held });
                }
            }
        }
    }

    /// Makes a batch of what was decoded.
    fn decoded(&mut self, (decoder, rows): (Decoder, Result<(RecordBatch, Aside)>)) -> Result<Event> {
        self.decoder = Some(decoder);
        let lost = || Error::Internal("what was decoded belongs nowhere".into());
        let Decoding { messages, covers, epoch, at, held, .. } = self.decoding.take().ok_or_else(lost)?;
        let (rows, aside) = rows?;
        Ok(Event::Batch(Read {
            batch: Batch { rows, covers, aside },
            messages,
            epoch,
            at,
            outliers: 0,
            dropped: 0,
            held,
        }))
    }

    /// Asks for the end: what was polled is still to come, then `Event::End`.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Goes back to what was committed, after an abort: nothing of what was read since then will come but anew.
    pub(crate) async fn rewind(&mut self) {
        self.shared.next_epoch().await;
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            // One that panicked has told why.
            let _ = thread.join();
        }
    }
}
