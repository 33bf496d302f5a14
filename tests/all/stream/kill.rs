//! Exactly once, whatever is killed: workers by SIGKILL at random moments, by SIGTERM, a broker of three; and what comes
//! out at the end is what one uninterrupted worker would have written.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use harness::delta;
use harness::kafka::{Cluster, Record};
use harness::program::{Run, Running, start_with, thema};
use harness::tables::{Folder, Random, column, floats, ints, read_parquet, strings};
use serde_json::json;

use crate::models;

/// Kills of workers, unless `CYCLES` says otherwise.
const CYCLES: u64 = 20;

/// Papers that are sent; each has a name of its own.
const MESSAGES: usize = 20_000;

/// Of which so many are different.
const PAPERS: usize = 2_000;

/// Partitions of each topic.
const PARTITIONS: i32 = 6;

/// After how long a killed worker's partitions are free.
const SESSION: Duration = Duration::from_secs(8);

/// Longest wait for the rest of the work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Workers that there may be at once.
const WORKERS: usize = 3;

/// What is sent, and what is to come out of it.
struct Corpus {
    records: Vec<Record>,
    /// The topic and the score of each name.
    labels: BTreeMap<String, (i32, f32)>,
}

/// Papers with vectors of their titles, and their labels by `thema label`.
fn corpus() -> Result<Corpus> {
    let folder = Folder::new()?;
    let (vectors, labelled) = (folder.path("vectors.parquet"), folder.path("labelled.parquet"));
    let rows = format!("0..{PAPERS}");
    let embed = [
        "embed",
        "--input",
        models::PAPERS,
        "--rows",
        &rows,
        "--text",
        "{title}",
        "--encoder",
        models::ENCODER,
    ];
    thema(&[&embed[..], &["--out", &vectors]].concat())?.succeeds()?;
    let model = &models::papers().model;
    let job = format!("encoder: {{ column: embedding }}\nmodel: \"{model}\"\n");
    let job = folder.write("label.yaml", job)?;
    thema(&["label", &job, "--input", &vectors, "--out", &labelled])?.succeeds()?;
    let rows = read_parquet(&labelled)?;
    let (titles, ids) = (strings(&rows, "title")?, strings(&rows, "id")?);
    let (topics, scores) = (ints(&rows, "topic")?, floats(&rows, "score")?);
    let embeddings = column(&rows, "embedding")?.as_fixed_size_list();
    let (mut records, mut labels) = (Vec::new(), BTreeMap::new());
    for n in 0..MESSAGES {
        let row = n % PAPERS;
        let name = format!("{}-{}", ids[row], n / PAPERS);
        let vector = embeddings.value(row);
        let vector = vector.as_primitive::<Float32Type>().values().to_vec();
        let object = json!({ "id": name, "title": titles[row], "embedding": vector });
        let partition = n as i32 % PARTITIONS;
        records.push(Record { partition, ..Record::of(object.to_string()).with_key(name.clone()) });
        labels.insert(name, (topics[row], scores[row]));
    }
    Ok(Corpus { records, labels })
}

/// Whether a worker has ended by itself as it may when a broker is lost at the wrong moment, to be started again: because
/// a call of the Kafka client did not come back (librdkafka's issues 5456 and 5511), or because the group knows its name
/// by an id whose announcement was lost with the broker.
fn lost_its_place(run: &Run) -> bool {
    run.code == Some(4) && run.stderr.contains("the client has lost a call")
        || run.code == Some(1) && run.stderr.contains("another process goes on under our name")
}

/// Workers of one stream, each by its name, and what those before them have logged.
struct Workers {
    job: String,
    running: BTreeMap<String, Running>,
    logs: Vec<(String, String)>,
    /// How many ended by themselves, because they had lost their place.
    places_lost: u64,
}

impl Workers {
    fn start(&mut self, name: &str) -> Result<()> {
        let log = [("THEMA_LOG", "info,pipeline=debug")];
        let worker = start_with(&["stream", &self.job, "--instance", name], &log)?;
        self.running.insert(name.to_string(), worker);
        Ok(())
    }

    /// Fails if a worker has ended by itself, but for one that has lost its place: it is started again later.
    fn check(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for (name, worker) in &mut self.running {
            if worker.has_ended()? {
                ended.push(name.clone());
            }
        }
        for name in ended {
            let worker = self.running.remove(&name).context("it runs")?;
            let run = worker.wait()?;
            self.logs.push((name.clone(), run.stderr.clone()));
            ensure!(lost_its_place(&run), "{name} has ended by itself");
            self.places_lost += 1;
        }
        Ok(())
    }

    /// One of them at random.
    fn any(&self, random: &mut Random) -> Result<String> {
        let at = random.below(self.running.len());
        self.running.keys().nth(at).cloned().context("no worker runs")
    }

    fn kill(&mut self, name: &str) -> Result<()> {
        let worker = self.running.remove(name).context("it runs")?;
        self.logs.push((name.to_string(), worker.kill()?));
        Ok(())
    }

    /// Ends one as a cluster does, which must end well; one that has not begun to listen yet is simply gone.
    fn end(&mut self, name: &str) -> Result<()> {
        let worker = self.running.remove(name).context("it runs")?;
        worker.signal("TERM")?;
        let run = worker.wait()?;
        self.logs.push((name.to_string(), run.stderr.clone()));
        let is_well = run.code == Some(0) || run.stderr.is_empty() || lost_its_place(&run);
        ensure!(is_well, "{name} ended with {:?}", run.code);
        self.places_lost += u64::from(lost_its_place(&run));
        Ok(())
    }

    /// Writes what all have logged into a folder that outlives the test, and returns it.
    fn save_logs(&mut self, sink: &str, seed: u64) -> Result<PathBuf> {
        for (name, mut worker) in std::mem::take(&mut self.running) {
            self.logs.push((name, worker.log().to_string()));
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kill-{sink}-{seed}"));
        // There may be none yet.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        for (at, (name, log)) in self.logs.iter().enumerate() {
            fs::write(folder.join(format!("{at:03}-{name}.log")), log)?;
        }
        Ok(folder)
    }
}

/// What was done to a stream.
#[derive(Default)]
struct Done {
    kills: u64,
    terms: u64,
    brokers_lost: u64,
}

/// Sends `records` to `input` while workers are killed, and waits until they have done them all.
fn torment(
    kafka: &Arc<Cluster>,
    workers: &mut Workers,
    input: &str,
    records: &[Record],
    cycles: u64,
    random: &mut Random,
) -> Result<Done> {
    let names: Vec<String> = (0..WORKERS).map(|n| format!("worker-{n}")).collect();
    let mut done = Done::default();
    let mut lost_broker = None;
    // A share with each kill.
    for (cycle, part) in records.chunks(records.len().div_ceil(cycles as usize)).enumerate() {
        let (sends, to, part) = (Arc::clone(kafka), input.to_string(), part.to_vec());
        let sending = thread::spawn(move || sends.produce(&to, &part));
        for name in &names {
            if !workers.running.contains_key(name) && (workers.running.is_empty() || random.next() < 0.7) {
                workers.start(name)?;
            }
        }
        // A moment at random: while it starts, joins, reads, writes, commits.
        thread::sleep(Duration::from_millis((random.next() * 2500.0) as u64));
        workers.check()?;
        if workers.running.is_empty() {
            workers.start(&names[0])?;
        }
        let name = workers.any(random)?;
        if random.next() < 0.8 {
            workers.kill(&name)?;
            done.kills += 1;
        } else {
            workers.end(&name)?;
            done.terms += 1;
        }
        // Every fifth time a broker is gone for one cycle.
        match lost_broker.take() {
            Some(broker) => kafka.launch(broker)?,
            None if cycle % 5 == 2 => {
                let broker = random.below(3);
                kafka.kill(broker)?;
                done.brokers_lost += 1;
                lost_broker = Some(broker);
            }
            None => {}
        }
        match sending.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("sending panicked"),
        }
    }
    if let Some(broker) = lost_broker {
        kafka.launch(broker)?;
    }
    kafka.until_ready(3)?;
    for name in workers.running.keys().cloned().collect::<Vec<_>>() {
        workers.end(&name)?;
    }
    // One finishes. What killed ones had is its own once their sessions are over, so it may take several runs.
    let last_kill = Instant::now();
    loop {
        let run = thema(&["stream", &workers.job, "--until-end"])?;
        workers.logs.push(("last".into(), run.stderr.clone()));
        let run = run.succeeds()?;
        if run.stdout.starts_with("0 messages") && last_kill.elapsed() > SESSION {
            break;
        }
        ensure!(last_kill.elapsed() < PATIENCE, "the last worker still says {}", run.stdout);
    }
    Ok(done)
}

/// Runs a stream into `sink` (its YAML) while workers are killed; `received` reads name, topic and score of what came out,
/// and how many dead letters there are.
#[expect(clippy::print_stdout, reason = "its figures are what a run of many cycles is for")]
fn trial(
    name: &str,
    sink: impl FnOnce(&Cluster, &Folder) -> Result<String>,
    received: impl FnOnce(&Cluster, &Folder) -> Result<(Vec<(String, i32, f32)>, usize)>,
) -> Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (cycles, seed) = (number("CYCLES").unwrap_or(CYCLES), number("SEED").unwrap_or(1));
    let mut random = Random::new(seed, 0);
    let kafka = Arc::new(Cluster::start(3)?);
    let corpus = corpus()?;
    let input = kafka.topic("papers", PARTITIONS)?;
    let folder = Folder::new()?;
    // Tables are committed to now and then, topics with each batch.
    let commit = if name == "delta" { 300 } else { 0 };
    let (bootstrap, model, sink) = (kafka.bootstrap(), &models::papers().model, sink(&kafka, &folder)?);
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ kafka: {{ connection: {{ bootstrap: \"{bootstrap}\" }}, topics: [{input}], group: {input}, \
             session_timeout_ms: 6000 }} }}\n\
             sink: {{ {sink} }}\nid: id\nencoder: {{ column: embedding }}\nmodel: \"{model}\"\n\
             stream: {{ batch_rows: 200, commit_ms: {commit} }}\n"
        ),
    )?;
    let started = Instant::now();
    let mut workers = Workers { job, running: BTreeMap::new(), logs: Vec::new(), places_lost: 0 };
    let done = match torment(&kafka, &mut workers, &input, &corpus.records, cycles, &mut random) {
        Ok(done) => done,
        Err(error) => {
            let logs = workers.save_logs(name, seed)?;
            return Err(error.context(format!("seed {seed}; the workers' logs are in {}", logs.display())));
        }
    };
    let seconds = started.elapsed().as_secs_f64();

    // A producer that writes a message twice would make the stream look as if it did.
    let written = kafka.read(&input)?.len();
    ensure!(written == corpus.records.len(), "{written} messages were sent, not {}", corpus.records.len());
    let (rows, letters) = received(&kafka, &folder)?;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut differing = 0;
    for (name, topic, score) in &rows {
        differing += usize::from(corpus.labels.get(name) != Some(&(*topic, *score)));
        *seen.entry(name).or_insert(0) += 1;
    }
    let duplicates: usize = seen.values().map(|times| times - 1).sum();
    let lost = corpus.labels.keys().filter(|name| !seen.contains_key(name.as_str())).count();
    println!(
        "{}",
        json!({
            "sink": name, "kills": done.kills, "terms": done.terms, "brokers_lost": done.brokers_lost,
            "places_lost": workers.places_lost, "seed": seed,
            "messages": corpus.records.len(), "received": rows.len(), "duplicates": duplicates, "lost": lost,
            "differing": differing, "dead_letters": letters, "seconds": seconds.round(),
        })
    );
    ensure!(workers.places_lost <= done.brokers_lost * WORKERS as u64, "workers end without a broker's loss");
    if (duplicates, lost, differing, letters) != (0, 0, 0, 0) {
        let logs = workers.save_logs(name, seed)?;
        bail!(
            "{duplicates} twice, {lost} lost, {differing} with another label, {letters} dead letters; the logs are in {}",
            logs.display()
        );
    }
    Ok(())
}

#[test]
fn whatever_is_killed_each_message_leaves_once() -> Result<()> {
    let topics = OnceCell::new();
    trial(
        "kafka",
        |kafka, _| {
            let (output, dead) = (kafka.topic("labelled", PARTITIONS)?, kafka.topic("dead", PARTITIONS)?);
            let sink =
                format!("kafka: {{ topic: {output}, dead_letters: {dead}, transaction_timeout_ms: 10000 }}");
            drop(topics.set((output, dead)));
            Ok(sink)
        },
        |kafka, _| {
            let (output, dead) = topics.get().context("the topics were made")?;
            let row = |record: &Record| -> Result<(String, i32, f32)> {
                let object = record.json()?;
                let name = object["id"].as_str().context("no id")?.to_string();
                let topic = object["topic"].as_i64().context("no topic")? as i32;
                Ok((name, topic, object["score"].as_f64().context("no score")? as f32))
            };
            let rows = kafka.read(output)?.iter().map(row).collect::<Result<_>>()?;
            Ok((rows, kafka.read(dead)?.len()))
        },
    )
}

#[test]
fn whatever_is_killed_a_table_holds_each_message_once() -> Result<()> {
    trial(
        "delta",
        |_, folder| {
            let (rows, dead) = (folder.path("rows"), folder.path("dead"));
            Ok(format!("delta: {{ path: \"{rows}\", dead_letters: \"{dead}\" }}"))
        },
        |_, folder| {
            let rows = delta::rows(&folder.path("rows"), &["id", "topic", "score"])?;
            let row = |row: &Vec<String>| Ok((row[0].clone(), row[1].parse()?, row[2].parse()?));
            let rows = rows.iter().map(row).collect::<Result<_>>()?;
            Ok((rows, delta::rows(&folder.path("dead"), &["kafka_offset"])?.len()))
        },
    )
}
