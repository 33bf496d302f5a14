//! A Kafka topic as a sink of streams: rows, dead letters, tombstones and the offsets of what they were made of become
//! visible in one transaction (KIP-98, KIP-447).
//!
//! One idea: a transaction's outcome is never guessed. A commit whose answer is lost is asked for again until it is
//! known; what must be aborted is aborted, and the rows are read again from what was committed; what says that another
//! process has taken our place stops this one.

mod config;
mod encode;
mod producer;
mod topics;
mod watchdog;

pub use config::{KafkaSinkConfig, OutputFormat};

use crate::aside::{Aside, DeadLetter, Message, Notice};
use crate::kafka::{ANSWER_TIMEOUT, ConnectionConfig, START_PATIENCE, Told, check_topics, explained};
use crate::positions::{Batch, Positions, Split};
use crate::sinks::Sink;
use crate::sources::kafka::messages::{message_of, partition_of};
use crate::sources::kafka::{ATTEMPT, Membership, letter};
use crate::stream::OnBadMessage;
use crate::worker::on_worker;
use crate::{Error, Result};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use encode::Encoder;
use producer::{Deliveries, connect, is_retriable};
use rdkafka::admin::AdminClient;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use topics::{TopicConfigs, is_refusal};
use watchdog::Watchdog;

/// How long storing offsets and an abort are tried again before all is undone, or the process ends: the transaction is
/// over soon after in any case.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait for one answer to an abort.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the source and the job say of the sink's surroundings.
pub(crate) struct Surroundings {
    /// The source's brokers.
    pub(crate) connection: ConnectionConfig,
    /// The name of our transactions: the same for one that takes our place.
    pub(crate) transactional_id: String,
    /// The group, for the headers of dead letters.
    pub(crate) group: String,
    /// How we show that we are one of its members.
    pub(crate) membership: Membership,
    /// The columns of rows as they are read.
    pub(crate) read: SchemaRef,
    /// The columns of rows as they are written.
    pub(crate) written: SchemaRef,
    /// Whether payloads were JSON objects, which labels are added to.
    pub(crate) extends_json: bool,
    /// What a message does that no topic takes.
    pub(crate) on_bad_message: OnBadMessage,
}

/// Writes to a topic, in transactions.
pub(crate) struct KafkaSink {
    writer: Option<Writer>,
}

/// What writes, on a worker.
struct Writer {
    producer: BaseProducer<Deliveries>,
    client: ClientConfig,
    /// Whether the next transaction takes another client.
    is_spent: bool,
    config: KafkaSinkConfig,
    place: String,
    group: String,
    membership: Membership,
    on_bad_message: OnBadMessage,
    encoder: Encoder,
    /// Whether a transaction is open.
    is_open: bool,
    /// Of each partition whose messages the transaction stands for, the next one to read.
    next: Positions,
    /// How old a message of the topic may become by its own time; absent once it has been said that some are older.
    keeps: Option<Duration>,
}

impl KafkaSink {
    /// Finds the topics and fences off whoever wrote under our name before. It blocks: call it on a worker.
    pub(crate) fn open(config: &KafkaSinkConfig, around: Surroundings) -> Result<Self> {
        let connection = config.connection.as_ref().unwrap_or(&around.connection);
        let place = connection.place();
        let mut client = connection.client("sink.kafka.connection")?;
        client
            .set("transactional.id", &around.transactional_id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("transaction.timeout.ms", config.transaction_timeout_ms.to_string());
        // A key goes to the partition that Java's clients would choose for it. What the user says wins.
        let timeout = config.transaction_timeout_ms.to_string();
        for (property, value) in [
            ("linger.ms", "5"),
            // zstd would be a third of a stream's work where embeddings come ready, and numbers hardly shrink.
            ("compression.type", "lz4"),
            ("partitioner", "murmur2_random"),
            ("message.timeout.ms", timeout.as_str()),
            // What waits to be sent is written, as far as the pipeline knows.
            ("queue.buffering.max.kbytes", "65536"),
        ] {
            if client.get(property).is_none() {
                client.set(property, value);
            }
        }
        let asks: AdminClient<Told> =
            AdminClient::from_config_and_context(&connection.client("sink.kafka.connection")?, Told)
                .map_err(|error| explained(&place, &error))?;
        let topics: Vec<&str> = [Some(&config.topic), config.dead_letters.as_ref(), config.events.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        check_topics(connection, "sink.kafka.connection", &topics)?;
        let configs = TopicConfigs::ask(&asks, &topics);
        if client.get("message.max.bytes").is_none()
            && let Some(most) = configs.most_bytes
        {
            // What the broker would refuse is refused here, where the one message to blame is known.
            client.set("message.max.bytes", most.to_string());
        }
        let producer = connect(&client, START_PATIENCE).map_err(|error| explained(&place, &error))?;
        let encoder = Encoder::new(config.format, &around.read, &around.written, around.extends_json)?;
        let writer = Writer {
            producer,
            client,
            is_spent: false,
            config: config.clone(),
            place,
            group: around.group,
            membership: around.membership,
            on_bad_message: around.on_bad_message,
            encoder,
            is_open: false,
            next: Positions::default(),
            keeps: configs.keeps.get(&config.topic).copied(),
        };
        Ok(Self { writer: Some(writer) })
    }

    /// Runs `work` with the writer on a worker. To be waited for to its end.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lost = || Error::Internal("the writer of a transaction was lost".into());
        let mut writer = self.writer.take().ok_or_else(lost)?;
        let (writer, done) = on_worker(move || {
            let done = work(&mut writer);
            Ok((writer, done))
        })
        .await?;
        self.writer = Some(writer);
        done
    }
}

#[async_trait]
impl Sink for KafkaSink {
    /// The group's committed offsets say it, which the source asks for itself.
    async fn positions(&mut self, _splits: &[Split]) -> Result<Positions> {
        Ok(Positions::default())
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.with(move |writer| writer.write(&batch)).await
    }

    async fn commit(&mut self) -> Result<()> {
        self.with(Writer::commit).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.with(Writer::abort).await
    }
}

impl Writer {
    fn write(&mut self, batch: &Batch) -> Result<()> {
        self.begin()?;
        for (split, range) in &batch.covers {
            self.next.set(split.clone(), range.end);
        }
        // What was noticed may come alone.
        let rows = if batch.rows.num_rows() > 0 { self.encoder.encode(&batch.rows)? } else { Vec::new() };
        self.warn_of_old(rows.iter().filter_map(|row| row.timestamp).min());
        for row in rows {
            let Some(payload) = self.encoder.payload(&row) else { continue };
            let message = BaseRecord::<[u8], [u8]> {
                key: row.key,
                payload: Some(payload),
                timestamp: row.timestamp,
                headers: headers(&row.headers),
                ..BaseRecord::to(&self.config.topic)
            };
            if let Err(refused) = self.send(message)? {
                let bytes = payload.len();
                let whole = message_of(&batch.rows, row.at)?;
                let reason = format!("its labelled payload of {bytes} bytes is more than {refused}");
                self.refuse(&letter(whole, reason))?;
            }
        }
        let Aside { letters, tombstones, notices } = &batch.aside;
        for letter in letters {
            self.write_letter(letter)?;
        }
        for tombstone in tombstones {
            let message = BaseRecord::<[u8], [u8]> {
                key: tombstone.key.as_deref(),
                timestamp: tombstone.timestamp,
                headers: headers(&tombstone.headers),
                ..BaseRecord::to(&self.config.topic)
            };
            if let Err(refused) = self.send(message)? {
                let reason = format!("its key and headers are more than {refused}");
                self.refuse(&letter(tombstone.clone(), reason))?;
            }
        }
        for notice in notices {
            self.write_notice(notice)?;
        }
        self.hear();
        Ok(())
    }

    /// Warns, once, of messages that the topic will not keep: they have the times of those that they were made of.
    fn warn_of_old(&mut self, oldest: Option<i64>) {
        let (Some(keeps), Some(oldest)) = (self.keeps, oldest) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_millis(oldest.max(0).unsigned_abs()));
        if age > keeps {
            self.keeps = None;
            let said = |time: Duration| match time.as_secs() / 3600 {
                hours @ 0..48 => format!("{hours} hours"),
                hours => format!("{} days", hours / 24),
            };
            tracing::warn!(
                "topic \"{}\" deletes messages older than {} by their own time, and what is written to it now is of \
                 {} ago: raise its retention.ms, or set its message.timestamp.type to LogAppendTime",
                self.config.topic,
                said(keeps),
                said(age)
            );
        }
    }

    /// Does with a message that the topic does not take what is done with bad ones.
    fn refuse(&self, letter: &DeadLetter) -> Result<()> {
        match self.on_bad_message {
            OnBadMessage::DeadLetter => self.write_letter(letter),
            OnBadMessage::Skip => {
                tracing::warn!("{letter}; skipped");
                Ok(())
            }
            OnBadMessage::Fail => Err(Error::Bad(letter.unit())),
        }
    }

    fn write_notice(&self, notice: &Notice) -> Result<()> {
        let Some(topic) = &self.config.events else { return Ok(()) };
        let payload = notice.json()?;
        let message = BaseRecord::<[u8], [u8]> {
            key: Some(notice.kind().as_bytes()),
            payload: Some(payload.as_bytes()),
            timestamp: Some(notice.at),
            ..BaseRecord::to(topic)
        };
        if let Err(refused) = self.send(message)? {
            tracing::warn!("an event is more than {refused}, and is left out");
        }
        Ok(())
    }

    /// Writes a message that cannot be labelled, as it was, with why and whence in its headers. One whose payload is too
    /// long goes without it.
    fn write_letter(&self, letter: &DeadLetter) -> Result<()> {
        let Some(topic) = &self.config.dead_letters else {
            return Err(Error::Internal("a dead letter, but no topic for it".into()));
        };
        let DeadLetter { message, reason, attempt } = letter;
        let (source, partition) = partition_of(&message.split)?;
        let told = [
            ("x-error", reason.clone()),
            ("x-source-topic", source.to_string()),
            ("x-source-partition", partition.to_string()),
            ("x-source-offset", message.offset.to_string()),
            ("x-pipeline", self.group.clone()),
            (ATTEMPT, attempt.to_string()),
        ];
        let is_told = |name: &str| told.iter().any(|(ours, _)| *ours == name);
        let own = message.headers.iter().filter(|(name, _)| !is_told(name)).cloned();
        let mut all: Vec<(String, Option<Vec<u8>>)> = own.collect();
        all.extend(told.iter().map(|(name, text)| ((*name).to_string(), Some(text.clone().into_bytes()))));
        let Message { key, timestamp, value, .. } = message;
        let record = |payload, all: &[_]| BaseRecord::<[u8], [u8]> {
            key: key.as_deref(),
            payload,
            timestamp: *timestamp,
            headers: headers(all),
            ..BaseRecord::to(topic)
        };
        if self.send(record(value.as_deref(), &all))?.is_ok() {
            return Ok(());
        }
        let bytes = value.as_ref().map_or(0, Vec::len).to_string();
        all.push(("x-value-omitted-bytes".into(), Some(bytes.into_bytes())));
        if self.send(record(None, &all))?.is_ok() {
            return Ok(());
        }
        // Not even its key and headers: then what we know of it alone.
        let ours = all.split_off(all.len() - told.len() - 1);
        let least = BaseRecord::<[u8], [u8]> { key: None, ..record(None, &ours) };
        match self.send(least)? {
            Ok(()) => Ok(()),
            Err(refused) => {
                let reason = format!("{letter}: what we tell of it is more than {refused}");
                Err(Error::Service { service: self.place.clone(), reason })
            }
        }
    }

    /// Hands a message to the client, waiting for room; the inner error says which size it is beyond.
    fn send(&self, mut message: BaseRecord<'_, [u8], [u8]>) -> Result<std::result::Result<(), String>> {
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(Ok(())),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    message = back;
                    self.wait_for_deliveries();
                }
                Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), back)) => {
                    return Ok(Err(format!("topic \"{}\" takes", back.topic)));
                }
                Err((error, _)) => return Err(self.failed("write", &error)),
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        if !self.is_open {
            self.renew()?;
            self.producer.context().take_failed();
            self.producer.begin_transaction().map_err(|error| self.failed("begin a transaction", &error))?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Takes another client where the numbers of the old one are no longer to be trusted.
    ///
    /// What an abort drops may have been written, its answer being lost on the way. librdkafka (2.12) gives the sequence
    /// numbers of what it has dropped to the next messages: a broker that knows them takes those for the same, and does not
    /// write them, or refuses them for ever. A new client has an epoch of its own, in which all numbers are new.
    fn renew(&mut self) -> Result<()> {
        if self.is_spent {
            self.producer = connect(&self.client, PATIENCE).map_err(|error| match is_retriable(&error) {
                true => Error::Aborted(format!("{}: cannot begin a transaction: {error}", self.place)),
                false => self.failed("begin a transaction", &error),
            })?;
            self.is_spent = false;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        if self.next.is_empty() && !self.is_open {
            return Ok(());
        }
        self.begin()?;
        let mut offsets = TopicPartitionList::new();
        for (split, next) in self.next.iter() {
            let (topic, partition) = partition_of(split)?;
            let next = i64::try_from(next).map_err(|_| Error::Internal(format!("{split}: offset {next}")))?;
            let add = offsets.add_partition_offset(topic, partition, Offset::Offset(next));
            add.map_err(|error| explained(&self.place, &error))?;
        }
        if offsets.count() > 0 {
            self.until_known("store offsets", Some(PATIENCE), || {
                let metadata = self.membership.metadata()?;
                let _watched = Watchdog::start(&self.place);
                Ok(self.producer.send_offsets_to_transaction(&offsets, &metadata, ANSWER_TIMEOUT))
            })?;
        }
        self.flush();
        self.until_known("commit", None, || Ok(self.producer.commit_transaction(ANSWER_TIMEOUT)))?;
        self.is_open = false;
        self.next = Positions::default();
        Ok(())
    }

    /// Waits until all messages are delivered, or it takes so long that the commit will say why. What is to be
    /// delivered is looked at often: the client's own wait looks ten times a second, which would be most of a commit.
    fn flush(&self) {
        let started = Instant::now();
        while self.producer.in_flight_count() > 0 && started.elapsed() < ANSWER_TIMEOUT {
            self.wait_for_deliveries();
        }
    }

    /// Waits a moment, and hears what became of messages. `poll` with a time would take all of a core for the last
    /// millisecond of it: it waits in whole ones.
    fn wait_for_deliveries(&self) {
        thread::sleep(Duration::from_millis(1));
        self.hear();
    }

    /// Hears all that is known of what became of messages: each poll takes one batch of one partition.
    fn hear(&self) {
        let mut before = i32::MAX;
        loop {
            let left = self.producer.in_flight_count();
            if left == 0 || left >= before {
                return;
            }
            before = left;
            self.producer.poll(Duration::ZERO);
        }
    }

    fn abort(&mut self) -> Result<()> {
        self.next = Positions::default();
        if !self.is_open {
            return Ok(());
        }
        // librdkafka#4849: an abort that overtakes the first message of a transaction is fatal. So one is waited for.
        let before = self.producer.context().delivered();
        let started = Instant::now();
        while self.producer.in_flight_count() > 0
            && self.producer.context().delivered() == before
            && started.elapsed() < ANSWER_TIMEOUT
        {
            self.wait_for_deliveries();
        }
        // A short time each, for only between them is it seen what became of messages.
        self.until_known("abort", Some(PATIENCE), || Ok(self.producer.abort_transaction(ABORT_TIMEOUT)))?;
        self.is_open = false;
        self.is_spent = self.producer.context().purged() > 0;
        Ok(())
    }

    /// Asks again and again for what may be asked again, so that its outcome is known; without `patience` for ever.
    fn until_known(
        &self,
        what: &'static str,
        patience: Option<Duration>,
        mut ask: impl FnMut() -> Result<std::result::Result<(), KafkaError>>,
    ) -> Result<()> {
        let (started, mut wait) = (Instant::now(), Duration::from_millis(100));
        loop {
            let error = match ask()? {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !is_retriable(&error) {
                return Err(self.failed(what, &error));
            }
            if patience.is_some_and(|patience| started.elapsed() > patience) {
                return Err(Error::Aborted(format!("{}: cannot {what}: {error}", self.place)));
            }
            tracing::warn!("{}: cannot {what} yet: {error}; trying again", self.place);
            self.producer.poll(wait);
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// What a failure within a transaction means.
    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        // What became of messages is told by polling.
        self.hear();
        let why = self.producer.context().take_failed();
        if let Some(refused) = why.as_ref().filter(|why| is_refusal(why)) {
            // Read again and written again, it would be refused again.
            return Error::place(&self.place, format!("a message is refused: {refused}"));
        }
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        let is_fatal = match error {
            KafkaError::Transaction(error) => error.is_fatal(),
            _ => self.producer.client().fatal_error().is_some(),
        };
        let aborts = match error {
            KafkaError::Transaction(error) => error.txn_requires_abort(),
            // The transaction has failed before, and says so at its next step; or a message was purged.
            KafkaError::MessageProduction(_) | KafkaError::Flush(_) => true,
            _ => false,
        };
        match explained(&self.place, error) {
            fenced @ Error::Fenced(_) if is_fatal => fenced,
            _ if is_fatal => {
                let fatal =
                    self.producer.client().fatal_error().map_or_else(|| error.to_string(), |(_, text)| text);
                Error::Fenced(format!("{}: cannot {what}, nor go on: {fatal}{why}", self.place))
            }
            _ if aborts => Error::Aborted(format!("{}: cannot {what}: {error}{why}", self.place)),
            other => other,
        }
    }
}

fn headers(all: &[(String, Option<Vec<u8>>)]) -> Option<OwnedHeaders> {
    if all.is_empty() {
        return None;
    }
    let none = OwnedHeaders::new_with_capacity(all.len());
    Some(all.iter().fold(none, |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() })))
}
