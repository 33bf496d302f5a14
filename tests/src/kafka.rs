//! A real broker: Apache Kafka in one process, or three, as `tests/servers/kafka.sh` installs it, or where that cannot be
//! had, what it installs instead.
//!
//! One broker serves all tests of a process, each with topics of its own; it ends with the last test that holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tempfile::TempDir;

/// Longest wait for a broker to start or to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Brokers that form one cluster.
pub struct Cluster {
    brokers: Mutex<Vec<Broker>>,
    bootstrap: String,
    _folder: Option<TempDir>,
}

struct Broker {
    /// Absent where it is none of Apache Kafka's.
    properties: Option<PathBuf>,
    log: PathBuf,
    process: Option<Child>,
}

/// One more listener of a broker, beside the plain one that tests use themselves.
#[derive(Default)]
pub struct Listener {
    /// How it is secured, as Kafka names it.
    pub protocol: &'static str,
    /// Its settings, without `listener.name.other.`.
    pub settings: Vec<(&'static str, String)>,
    /// The port at which clients are told to find it, where something stands before it.
    pub advertised: Option<u16>,
    /// Arguments of the tool that formats the broker's storage.
    pub format: Vec<String>,
}

/// A message as it lies in a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Where it lies.
    pub partition: i32,
    /// Where in its partition.
    pub offset: i64,
    /// When it was made, in milliseconds of the Unix epoch.
    pub timestamp: Option<i64>,
}

impl Record {
    /// A message of a payload alone.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The same with a key.
    pub fn with_key(self, key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// The header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The payload as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let value = self.value.as_ref().context("a tombstone is no JSON")?;
        Ok(serde_json::from_slice(value)?)
    }
}

impl Cluster {
    /// The broker that all tests of this process share: the user's, if `KAFKA_BOOTSTRAP` names one.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Ok(cluster);
        }
        let users = std::env::var("KAFKA_BOOTSTRAP").ok().filter(|name| !name.is_empty());
        let cluster = match users {
            Some(bootstrap) => Self { brokers: Mutex::default(), bootstrap, _folder: None },
            None if !jars()?.is_dir() && stand_in()?.exists() => Self::start_stand_in()?,
            None => Self::start(1)?,
        };
        let cluster = Arc::new(cluster);
        *shared = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    /// Starts what `tests/servers/kafka.sh` has found where Kafka cannot be had: enough for the tests that are not left out.
    fn start_stand_in() -> Result<Self> {
        let folder = TempDir::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = folder.path().join("broker.log");
        let file = fs::File::create(&log)?;
        let mut command = Command::new(stand_in()?);
        command.args(["start", "--only", "kafka", "--kafka-port", &port.to_string(), "--data-dir"]);
        command.arg(folder.path().join("data"));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = Some(command.spawn().context("noida-db does not start")?);
        let broker = Broker { properties: None, log, process };
        let bootstrap = format!("127.0.0.1:{port}");
        let cluster = Self { brokers: Mutex::new(vec![broker]), bootstrap, _folder: Some(folder) };
        cluster.until_ready(1)?;
        Ok(cluster)
    }

    /// Starts brokers on free ports of the loopback address; of three each topic has a replica on all, and takes
    /// writes while two live.
    pub fn start(brokers: usize) -> Result<Self> {
        Ok(Self::start_all(brokers, None)?.0)
    }

    /// Starts one broker that has a second listener, and returns its port.
    pub fn start_with(listener: &Listener) -> Result<(Self, u16)> {
        Self::start_all(1, Some(listener))
    }

    fn start_all(brokers: usize, listener: Option<&Listener>) -> Result<(Self, u16)> {
        let folder = TempDir::new()?;
        // All ports are held at once, so that none is given twice, and let go before the brokers take them.
        let held: Vec<TcpListener> =
            (0..2 * brokers + 1).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let ports = held.iter().map(|held| Ok(held.local_addr()?.port())).collect::<Result<Vec<u16>>>()?;
        drop(held);
        let (&behind, ports) = ports.split_last().context("there are ports")?;
        let (clients, controllers) = ports.split_at(brokers);
        let quorum =
            join(controllers.iter().enumerate().map(|(n, port)| format!("{}@127.0.0.1:{port}", n + 1)));
        let replicas = brokers.to_string();
        let least = brokers.saturating_sub(1).max(1).to_string();
        let mut started = Vec::new();
        for (n, (client, controller)) in clients.iter().zip(controllers).enumerate() {
            let data = folder.path().join(format!("data-{}", n + 1));
            let properties = folder.path().join(format!("server-{}.properties", n + 1));
            let mut text = SETTINGS.to_string();
            for (name, value) in [
                ("node.id", (n + 1).to_string()),
                ("listeners", format!("PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}")),
                ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{client}")),
                ("controller.quorum.voters", quorum.clone()),
                ("log.dirs", data.display().to_string()),
                ("default.replication.factor", replicas.clone()),
                ("min.insync.replicas", least.clone()),
                ("offsets.topic.replication.factor", replicas.clone()),
                ("transaction.state.log.replication.factor", replicas.clone()),
                ("transaction.state.log.min.isr", least.clone()),
                ("share.coordinator.state.topic.replication.factor", replicas.clone()),
                ("share.coordinator.state.topic.min.isr", least.clone()),
            ] {
                text.push_str(&format!("{name}={value}\n"));
            }
            if let Some(listener) = listener {
                let outside = listener.advertised.unwrap_or(behind);
                text.push_str(&format!(
                    "listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller},OTHER://127.0.0.1:{behind}\n\
                     advertised.listeners=PLAINTEXT://127.0.0.1:{client},OTHER://127.0.0.1:{outside}\n\
                     listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OTHER:{}\n",
                    listener.protocol
                ));
                for (name, value) in &listener.settings {
                    text.push_str(&format!("listener.name.other.{name}={value}\n"));
                }
            }
            fs::write(&properties, text)?;
            let path = properties.display().to_string();
            let format = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", &path];
            let more = listener.map_or(&[][..], |listener| &listener.format);
            let formatted = java()?.args(format).args(more).stdin(Stdio::null()).output()?;
            ensure!(
                formatted.status.success(),
                "Kafka's storage cannot be formatted: {}{}",
                String::from_utf8_lossy(&formatted.stdout),
                String::from_utf8_lossy(&formatted.stderr)
            );
            let log = folder.path().join(format!("broker-{}.log", n + 1));
            started.push(Broker { properties: Some(properties), log, process: None });
        }
        let bootstrap = join(clients.iter().map(|port| format!("127.0.0.1:{port}")));
        let cluster = Self { brokers: Mutex::new(started), bootstrap, _folder: Some(folder) };
        for n in 0..brokers {
            cluster.launch(n)?;
        }
        cluster.until_ready(brokers)?;
        Ok((cluster, behind))
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Kills broker `n` of those that were started, as a power cut does.
    pub fn kill(&self, n: usize) -> Result<()> {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = brokers.get_mut(n).context("no such broker of ours")?;
        let mut process = broker.process.take().context("that broker is dead already")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Starts broker `n` again, which was killed.
    pub fn launch(&self, n: usize) -> Result<()> {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = brokers.get_mut(n).context("no such broker of ours")?;
        let properties =
            broker.properties.as_ref().context("what stands in for Kafka is not started again")?;
        let log = fs::File::options().create(true).append(true).open(&broker.log)?;
        let mut command = java()?;
        command.arg("kafka.Kafka").arg(properties);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        broker.process = Some(command.spawn().context("java does not start")?);
        Ok(())
    }

    /// Stops broker `n` where it stands, or lets it go on: for clients it is a network that is gone for a while.
    pub fn freeze(&self, n: usize, frozen: bool) -> Result<()> {
        let brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let process = brokers.get(n).and_then(|broker| broker.process.as_ref()).context("no such broker")?;
        let name = if frozen { "STOP" } else { "CONT" };
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", process.id())]).status()?;
        ensure!(sent.success(), "the broker is gone");
        Ok(())
    }

    /// Waits until `brokers` of them answer.
    pub fn until_ready(&self, brokers: usize) -> Result<()> {
        let client: BaseConsumer = self.config().create()?;
        let started = Instant::now();
        loop {
            let found = client.fetch_metadata(None, Duration::from_secs(2));
            if found.is_ok_and(|found| found.brokers().len() >= brokers) {
                return Ok(());
            }
            self.check_alive()?;
            ensure!(started.elapsed() < PATIENCE, "Kafka does not answer at {}", self.bootstrap);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Fails with the log of a broker that has ended by itself.
    fn check_alive(&self) -> Result<()> {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        for broker in brokers.iter_mut() {
            if let Some(process) = &mut broker.process
                && let Some(status) = process.try_wait()?
            {
                bail!("Kafka ended with {status}:\n{}", fs::read_to_string(&broker.log)?);
            }
        }
        Ok(())
    }

    /// What every client begins with.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Makes a topic with a name of its own that begins with `name`, and waits until it takes messages.
    pub fn topic(&self, name: &str, partitions: i32) -> Result<String> {
        self.topic_with(name, partitions, &[])
    }

    /// The same with settings.
    pub fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(-1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
        for topic in made {
            topic.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        let client: BaseConsumer = self.config().create()?;
        let started = Instant::now();
        loop {
            let found = client.fetch_metadata(Some(&name), Duration::from_secs(5));
            let led = found.is_ok_and(|found| {
                let partitions_led = |topic: &rdkafka::metadata::MetadataTopic| {
                    topic.partitions().iter().filter(|partition| partition.leader() >= 0).count()
                };
                found.topics().first().is_some_and(|topic| partitions_led(topic) == partitions as usize)
            });
            if led {
                return Ok(name);
            }
            ensure!(started.elapsed() < PATIENCE, "topic {name} has no leaders");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Writes messages; each goes to the partition it names.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Result<()> {
        // Else a message whose answer is lost with a broker is written twice.
        let producer: BaseProducer = self
            .config()
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.max.bytes", "20000000")
            .create()?;
        for record in records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            loop {
                let mut message: BaseRecord<'_, [u8], [u8]> =
                    BaseRecord::to(topic).partition(record.partition);
                message.key = record.key.as_deref();
                message.payload = record.value.as_deref();
                message.timestamp = record.timestamp;
                message.headers = (!record.headers.is_empty()).then(|| headers.clone());
                match producer.send(message) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        producer.poll(Duration::from_millis(50));
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
        producer.flush(PATIENCE)?;
        ensure!(producer.in_flight_count() == 0, "messages were not written");
        Ok(())
    }

    /// Waits until no transaction is under way in `topic`: what a commit has made visible is seen a moment later, and what
    /// a killed process left open hides what comes after it, until the broker aborts it.
    fn until_settled(&self, topic: &str) -> Result<()> {
        let client =
            |level| -> Result<BaseConsumer> { Ok(self.config().set("isolation.level", level).create()?) };
        let (all, committed) = (client("read_uncommitted")?, client("read_committed")?);
        let started = Instant::now();
        for partition in self.partitions(topic)? {
            loop {
                let end = |client: &BaseConsumer| {
                    patiently("ends", || client.fetch_watermarks(topic, partition, Duration::from_secs(5)))
                };
                if end(&all)?.1 == end(&committed)?.1 {
                    break;
                }
                ensure!(
                    started.elapsed() < PATIENCE,
                    "{topic}:{partition} has a transaction that does not end"
                );
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Reads all messages of `topic` that are committed, by partition and offset.
    pub fn read(&self, topic: &str) -> Result<Vec<Record>> {
        self.until_settled(topic)?;
        self.read_now(topic)
    }

    /// The same, without what transactions under way may hide.
    fn read_now(&self, topic: &str) -> Result<Vec<Record>> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "reads-for-tests")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()?;
        let partitions = self.partitions(topic)?;
        let mut all = TopicPartitionList::new();
        for &partition in &partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut records, mut ended) = (Vec::new(), BTreeSet::new());
        let started = Instant::now();
        while ended.len() < partitions.len() {
            ensure!(started.elapsed() < PATIENCE, "{topic} does not end");
            match consumer.poll(Duration::from_millis(500)) {
                None => {}
                // One partition's end may be told more than once.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(message)) => records.push(owned(&message)),
            }
        }
        records.sort_by_key(|record: &Record| (record.partition, record.offset));
        Ok(records)
    }

    /// Waits until `topic` holds `count` committed messages, and reads them.
    pub fn wait_for(&self, topic: &str, count: usize) -> Result<Vec<Record>> {
        let started = Instant::now();
        loop {
            let records = self.read_now(topic)?;
            if records.len() >= count {
                return Ok(records);
            }
            ensure!(started.elapsed() < PATIENCE, "{topic} has {} of {count} messages", records.len());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The offset that `group` has committed of each partition of `topic` of which it has.
    pub fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer: BaseConsumer =
            self.config().set("group.id", group).set("isolation.level", "read_committed").create()?;
        let mut all = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            all.add_partition(topic, partition);
        }
        let committed =
            patiently("offsets", || consumer.committed_offsets(all.clone(), Duration::from_secs(5)))?;
        let offsets = committed.elements().into_iter().filter_map(|found| match found.offset() {
            Offset::Offset(offset) => Some((found.partition(), offset)),
            _ => None,
        });
        Ok(offsets.collect())
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let client: BaseConsumer = self.config().create()?;
        let found = patiently("metadata", || client.fetch_metadata(Some(topic), Duration::from_secs(5)))?;
        let topic = found.topics().first().context("no such topic")?;
        Ok(topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let brokers = self.brokers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for process in brokers.iter_mut().filter_map(|broker| broker.process.as_mut()) {
            // One that is gone is what we want.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn owned(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        let all = headers.iter().map(|header| (header.key.into(), header.value.unwrap_or_default().into()));
        all.collect()
    });
    Record {
        key: message.key().map(Into::into),
        value: message.payload().map(Into::into),
        headers: headers.unwrap_or_default(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
    }
}

/// Asks again and again, for brokers come and go.
fn patiently<T>(what: &str, mut ask: impl FnMut() -> KafkaResult<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("no {what} within {PATIENCE:?}"));
            }
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Where Kafka's jars are, if it is installed.
fn jars() -> Result<PathBuf> {
    Ok(crate::cache()?.join("servers/kafka/libs"))
}

/// Where the broker is that stands in for it.
fn stand_in() -> Result<PathBuf> {
    Ok(crate::cache()?.join("servers/noida/broker"))
}

/// A Java machine with Kafka's jars, and little memory.
fn java() -> Result<Command> {
    let jars = jars()?;
    ensure!(jars.is_dir(), "Kafka is not installed: run tests/servers/kafka.sh (`make servers` does)");
    let log4j = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("servers/kafka/log4j2.properties");
    let mut command = Command::new("java");
    command.args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
    command.arg("-cp").arg(jars.join("*"));
    Ok(command)
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// Any id will do: all brokers of a cluster have the same.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// Settings of every broker: small, and quick to notice what a real cluster takes its time for. Tests write messages of
/// long ago, which a broker that keeps a week would delete.
const SETTINGS: &str = "\
process.roles=broker,controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
num.partitions=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=300
group.consumer.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
message.max.bytes=1048588
log.cleaner.dedupe.buffer.size=4194304
log.retention.ms=-1
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=2000
num.network.threads=2
num.io.threads=2
";
