//! `thema stream`: a topic for every message, as it comes, exactly once.

use super::input::VectorSource;
use super::label::{Keep, assigner, same_encoder};
use super::{Context, count};
use crate::engine::{Labeller, Stage, Totals, run_stream};
use crate::filter::Filter;
use crate::job::Job;
use crate::metrics::StreamMetrics;
use crate::models::Found;
use crate::service::watch;
use crate::sinks::delta::{DeltaSink, DeltaSinkConfig};
use crate::sinks::kafka::{KafkaSink, KafkaSinkConfig, Surroundings};
use crate::sinks::{Sink, SinkConfig};
use crate::sources::SourceConfig;
use crate::sources::kafka::{KafkaConfig, KafkaSource, Keeper, PayloadFormat, Wanted};
use crate::stream::{OnBadMessage, StreamConfig};
use crate::worker::on_worker;
use crate::{Error, Result, models};
use arrow::datatypes::{Schema, SchemaRef};
use clap::Args;
use kernels::Device;
use operators::Operator;
use operators::assign::LabelConfig;
use operators::bundle::Wanted as Parts;
use operators::label::{Extras, Label, labelled_schema};
use operators::model::{EncoderConfig, Model};
use operators::monitor::{Monitor, MonitorConfig};
use operators::text::Template;
use operators::vectors::{Counters, Vectors};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Labels the messages of a Kafka topic as they come, exactly once, until it is stopped.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema stream papers.yaml
  thema stream papers.yaml --until-end
  thema stream papers.yaml --instance worker-1

A job file for it:
  source: { kafka: { connection: { bootstrap: \"localhost:9092\" }, topics: [papers], group: labels } }
  text:   \"{title}: {abstract}\"
  model:  models/papers
  sink:   { kafka: { topic: papers-labelled, dead_letters: papers-dead } }
  # or:   { delta: { path: \"s3://lake/labelled\", dead_letters: \"s3://lake/dead\" } }

`thema check --reference` prints every key of a job. Several processes with the same group share the partitions. Ctrl-C
or SIGTERM commits what is being labelled, and ends. THEMA_LOG=debug tells what the brokers and the client say.")]
pub struct StreamArgs {
    /// The job file
    #[arg(value_name = "JOB.yaml")]
    job: PathBuf,
    /// Stops at the end of the topics, as it is when they are first read
    #[arg(long)]
    until_end: bool,
    /// A name of this process that outlives it: one that is started again under it takes over at once
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// The model's folder, local or in an object store
    #[arg(long, short, value_name = "DIR")]
    model: Option<String>,
    /// Where metrics and health are served, such as 0.0.0.0:9464
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// How often a table is committed to, unless the job says otherwise: each commit is a file or more, and readers like few.
const TABLE_COMMIT_MS: u64 = 30_000;

pub(super) async fn run(context: &Context, args: StreamArgs) -> Result<()> {
    let settings = settings(&args)?;
    let stream = settings.stream.clone();
    // Brokers and stores may be waited for, and a stop is heard meanwhile.
    let opened = Opened::open(context, settings, args.until_end);
    let Ok(opened) = context.progress.until_cancelled(opened).await else {
        // It is asked to end before it has read a message: there is nothing to finish.
        return tell(context, &Totals::default(), 0.0);
    };
    let Opened { mut source, mut sink, stage, slot, labelling, place, version, metrics } = opened?;
    // A port that is taken is told before a message is read.
    let server = match &stream.listen {
        Some(address) => Some(watch(address, Arc::clone(&metrics)).await?),
        None => None,
    };
    let serves = async {
        match server {
            Some(server) => server.await,
            None => std::future::pending().await,
        }
    };
    let reloads = async {
        match stream.reload_seconds {
            0 => std::future::pending().await,
            seconds => {
                let every = Duration::from_secs(seconds);
                reload(&place, version, &labelling, &slot, every, &metrics).await;
            }
        }
    };
    let started = Instant::now();
    context.progress.begin("labelling", "messages", None);
    let ended = tokio::select! {
        ended = run_stream(&mut source, stage, sink.as_mut(), &stream, &context.progress, &metrics) => ended,
        () = reloads => unreachable!("looking for models never ends"),
        () = serves => unreachable!("serving metrics never ends"),
    };
    context.progress.set(metrics.messages.get(), "");
    context.progress.finish();
    let (totals, skipped) = ended?;
    if !skipped.is_empty() {
        tracing::warn!("{} skipped", count(skipped.units(), "bad message"));
    }
    tell(context, &totals, started.elapsed().as_secs_f64())
}

/// What must be there before the first message is read.
struct Opened {
    source: KafkaSource,
    sink: Box<dyn Sink>,
    stage: Stage,
    /// Where a newer labeller is laid for the stage.
    slot: Slot,
    labelling: Labelling,
    /// Where models are looked for.
    place: String,
    /// The version of the model that labels first.
    version: u64,
    metrics: Arc<StreamMetrics>,
}

impl Opened {
    /// Finds the model, the brokers, the topics or tables, and loads what labels.
    async fn open(context: &Context, settings: Settings, until_end: bool) -> Result<Self> {
        let Settings { job, source: source_config, sink: sink_config, stream } = settings;
        let place = job.model("--model")?.to_string();
        let found = models::find(&place).await?;
        let model = Arc::new(models::load(&found, Parts::Labelling).await?);
        let labels = job.label.of(&model.settings.label)?;
        let encoder =
            if job.encoder == EncoderConfig::default() { &model.settings.encoder } else { &job.encoder };
        let text = job.text.as_deref().or(model.settings.text.as_deref());
        let vectors = VectorSource::try_new(encoder, text, Some(model.codes.cols()))?;
        let shown = shown(&job, &vectors)?;
        let wanted = wanted(&job, &source_config, &vectors, Extras::of(&model))?;
        let (config, flow, keeper) = (source_config.clone(), stream.clone(), sink_config.keeper());
        let source = on_worker(move || KafkaSource::open(&config, keeper, &flow, &wanted, until_end)).await?;
        vectors.check(source.schema())?;
        let schema = labelled_schema(source.schema(), &job.prefix, Extras::of(&model))?;
        // A wrong condition is told before an encoder is loaded.
        if let Some(keep) = &job.keep {
            Filter::try_named("keep", keep, &schema)?;
        }
        let sink = sink_config.open(&source_config, &stream, &source, &schema).await?;
        let vectors = vectors.load(context).await?;
        same_encoder(&model, &vectors, &found.folder)?;

        let labelling = Labelling {
            vectors,
            shown,
            id: job.id.clone(),
            monitor: stream.monitor.clone(),
            labels,
            prefix: job.prefix.clone(),
            keep: job.keep.clone(),
            read: Arc::clone(source.schema()),
            schema: Arc::clone(&schema),
            counters: Arc::new(Counters::default()),
            device: context.device.clone(),
        };
        let labeller = labelling.labeller(&model, &found).await?;
        tracing::info!(
            "model {}: {}; reads {} as {}",
            found.folder,
            count(model.topics.len() as u64, "topic"),
            source_config.topics.join(", "),
            source_config.group,
        );
        let slot: Slot = Arc::default();
        let mine = Arc::clone(&slot);
        let fresh = Box::new(move || mine.lock().unwrap_or_else(PoisonError::into_inner).take());
        let topic = format!("{}topic", job.prefix);
        let stage = Stage { labeller, schema, topic, fresh, counters: Arc::clone(&labelling.counters) };
        let metrics = Arc::new(StreamMetrics::new());
        metrics.model_version.set(i64::try_from(found.version).unwrap_or(i64::MAX));
        Ok(Self { source, sink, stage, slot, labelling, place, version: found.version, metrics })
    }
}

/// What the job and the command line say.
struct Settings {
    job: Job,
    source: KafkaConfig,
    sink: StreamSink,
    stream: StreamConfig,
}

/// Reads and checks what can be known without a broker.
fn settings(args: &StreamArgs) -> Result<Settings> {
    let mut job = Job::load(&args.job)?;
    if args.model.is_some() {
        job.model.clone_from(&args.model);
    }
    if args.listen.is_some() {
        job.stream.listen.clone_from(&args.listen);
    }
    let mut source = source_of(&job)?.clone();
    if args.instance.is_some() {
        source.instance.clone_from(&args.instance);
    }
    let sink = sink_of(&job)?;
    let mut stream = job.stream.clone();
    if sink.keeper() == Keeper::Sink {
        stream.commit_ms.get_or_insert(TABLE_COMMIT_MS);
    }
    stream.check()?;
    source.check()?;
    sink.check(&stream, &source)?;
    Ok(Settings { job, source, sink, stream })
}

/// Says what was done.
fn tell(context: &Context, totals: &Totals, seconds: f64) -> Result<()> {
    let Totals { messages, rows, outliers, dropped, bad, tombstones, commits, aborts } = *totals;
    let outliers = outliers as f64 / rows.max(1) as f64;
    let left_out = if dropped > 0 { format!(" and {dropped} left out by keep") } else { String::new() };
    context.tell(
        &format!(
            "{}: {} labelled{left_out}, {bad} bad, {} in {seconds:.1} s, {}, {:.0} % outliers\n",
            count(messages, "message"),
            count(rows, "row"),
            count(tombstones, "tombstone"),
            count(commits, "commit"),
            100.0 * outliers,
        ),
        &json!({
            "messages": messages, "rows": rows, "dropped": dropped, "bad": bad, "tombstones": tombstones, "commits": commits,
            "aborts": aborts, "outlier_share": outliers, "seconds": seconds,
        }),
    )
}

/// What rows are to be made of messages, so that they can be labelled.
pub(super) fn wanted(
    job: &Job,
    config: &KafkaConfig,
    vectors: &VectorSource,
    extras: Extras,
) -> Result<Wanted> {
    let none: SchemaRef = Arc::new(Schema::empty());
    let added = labelled_schema(&none, &job.prefix, extras)?;
    let shown = shown(job, vectors)?;
    let templates = vectors.template().into_iter().chain(&shown);
    let of_text: BTreeSet<String> = templates.flat_map(Template::columns).map(Into::into).collect();
    Ok(Wanted {
        needed: of_text.into_iter().chain(job.id.clone()).collect(),
        types: config.columns.clone(),
        text: vectors.template().cloned(),
        embeddings: vectors.embeddings().cloned(),
        registry: config.registry.clone(),
        added: added.fields().iter().map(|field| field.name().clone()).collect(),
    })
}

fn source_of(job: &Job) -> Result<&KafkaConfig> {
    match job.source()? {
        SourceConfig::Kafka(config) => Ok(config),
        SourceConfig::Table(_) => {
            let reason = "is files, which end: label them by `thema label`, or give source: { kafka: ... }";
            Err(Error::setting("source", reason))
        }
    }
}

/// Checks what can be known of the sink of a stream from `source`, without a broker and a store.
pub(super) fn check_sink(job: &Job, source: &KafkaConfig) -> Result<()> {
    sink_of(job)?.check(&job.stream, source)
}

fn sink_of(job: &Job) -> Result<StreamSink> {
    let lacks = || Error::setting("sink", "is absent: give sink: { kafka: ... } or sink: { delta: ... }");
    match job.sink.as_ref().ok_or_else(lacks)? {
        SinkConfig::Kafka(config) => Ok(StreamSink::Kafka((**config).clone())),
        SinkConfig::Delta(config) => Ok(StreamSink::Delta(config.clone())),
        SinkConfig::Parquet(_) | SinkConfig::Jsonl(_) | SinkConfig::Folder(_) => {
            let reason = "is a file, which a stream cannot go on writing exactly once: give sink: { kafka: ... } or \
                          sink: { delta: ... }";
            Err(Error::setting("sink", reason))
        }
    }
}

/// The sinks that a stream can go on writing exactly once.
enum StreamSink {
    Kafka(KafkaSinkConfig),
    Delta(DeltaSinkConfig),
}

impl StreamSink {
    /// Who knows how far the stream is.
    fn keeper(&self) -> Keeper {
        match self {
            Self::Kafka(_) => Keeper::Group,
            Self::Delta(_) => Keeper::Sink,
        }
    }

    fn check(&self, stream: &StreamConfig, source: &KafkaConfig) -> Result<()> {
        let (letters, place) = match self {
            Self::Kafka(config) => (&config.dead_letters, "sink.kafka.dead_letters: TOPIC"),
            Self::Delta(config) => (&config.dead_letters, "sink.delta.dead_letters: FOLDER"),
        };
        if stream.on_bad_message == OnBadMessage::DeadLetter && letters.is_none() {
            let reason = format!(
                "bad messages have nowhere to go: give {place}, or stream.on_bad_message: skip or fail"
            );
            return Err(Error::setting("stream", reason));
        }
        match self {
            Self::Kafka(config) => config.check(stream.commit_every(), source),
            Self::Delta(config) => config.check(),
        }
    }

    /// Opens it for rows of `schema` that are made of what `source` reads.
    async fn open(
        self,
        config: &KafkaConfig,
        stream: &StreamConfig,
        source: &KafkaSource,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Sink>> {
        let membership = source.membership();
        Ok(match self {
            Self::Kafka(sink) => {
                let around = Surroundings {
                    connection: config.connection.clone(),
                    transactional_id: transactional_id(config)?,
                    group: config.group.clone(),
                    membership,
                    read: Arc::clone(source.schema()),
                    written: Arc::clone(schema),
                    extends_json: config.format == PayloadFormat::Json,
                    on_bad_message: stream.on_bad_message,
                };
                Box::new(on_worker(move || KafkaSink::open(&sink, around)).await?)
            }
            Self::Delta(sink) => Box::new(DeltaSink::open(&sink, schema, &config.group, membership).await?),
        })
    }
}

/// The name of the transactions: an instance's own, so that one that takes its place ends what it left open; or one that
/// nobody has.
fn transactional_id(config: &KafkaConfig) -> Result<String> {
    let own = match config.instance()? {
        Some(instance) => instance,
        None => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            format!("{}-{:x}", std::process::id(), now.as_nanos())
        }
    };
    Ok(format!("thema-{}-{own}", config.group))
}

type Slot = Arc<Mutex<Option<Labeller>>>;

/// What people are shown of a row: what the job says, or the text that is embedded.
fn shown(job: &Job, vectors: &VectorSource) -> Result<Option<Template>> {
    let said = job.show.as_deref().or(job.text.as_deref()).map(Template::parse).transpose()?;
    Ok(said.or_else(|| vectors.template().cloned()))
}

/// What labels messages, whichever the model.
struct Labelling {
    vectors: Vectors,
    shown: Option<Template>,
    id: Option<String>,
    monitor: MonitorConfig,
    labels: LabelConfig,
    prefix: String,
    keep: Option<String>,
    read: SchemaRef,
    schema: SchemaRef,
    counters: Arc<Counters>,
    device: Device,
}

impl Labelling {
    /// What labels by `model`.
    async fn labeller(&self, model: &Arc<Model>, found: &Found) -> Result<Labeller> {
        let schema = labelled_schema(&self.read, &self.prefix, Extras::of(model))?;
        if schema != self.schema {
            let reason = "adds other columns than the one that runs; start the stream anew to use it";
            return Err(Error::place(&found.folder, reason));
        }
        let assigner = assigner(model, self.labels.clone(), &self.device).await?;
        let version = format!("v{}", found.version);
        let (vectors, prefix, counters) =
            (self.vectors.clone(), self.prefix.clone(), Arc::clone(&self.counters));
        let (watched, shown, id) = (Arc::clone(model), self.shown.clone(), self.id.clone());
        let (config, device) = (self.monitor.clone(), self.device.clone());
        let (voters, name) = (assigner.clone(), version.clone());
        let monitor = on_worker(move || {
            Ok(Arc::new(Monitor::try_new(&watched, voters, &name, shown, id, config, &device)?))
        })
        .await?;
        let label = Label::new(vectors, assigner, model, version, prefix, counters);
        let mut operators: Vec<Box<dyn Operator>> = vec![Box::new(label.watched_by(Arc::clone(&monitor)))];
        if let Some(keep) = &self.keep {
            operators.push(Box::new(Keep(Filter::try_named("keep", keep, &schema)?)));
        }
        Ok(Labeller { operators, monitor })
    }
}

/// Looks for newer versions of the model for ever, and lays what labels by them into `slot`.
async fn reload(
    place: &str,
    mut version: u64,
    labelling: &Labelling,
    slot: &Slot,
    every: Duration,
    metrics: &StreamMetrics,
) {
    // A version that cannot be used is told once.
    let mut refused = version;
    loop {
        tokio::time::sleep(every).await;
        let found = match models::find(place).await {
            Ok(found) if found.version > version.max(refused) => found,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!("no look at newer models: {error}");
                continue;
            }
        };
        match load(labelling, &found).await {
            Ok(labeller) => {
                version = found.version;
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(labeller);
                metrics.model_version.set(i64::try_from(version).unwrap_or(i64::MAX));
                tracing::info!("model {}: labels from the next batch on", found.folder);
            }
            Err(error) => {
                refused = found.version;
                tracing::error!("the newer model is not used: {error}");
            }
        }
    }
}

async fn load(labelling: &Labelling, found: &Found) -> Result<Labeller> {
    let model = Arc::new(models::load(found, Parts::Labelling).await?);
    same_encoder(&model, &labelling.vectors, &found.folder)?;
    labelling.labeller(&model, found).await
}
