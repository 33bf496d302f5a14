//! Exactly once, whatever is killed: workers by SIGKILL at random moments, by SIGTERM, a broker of three; and what comes
//! out at the end is what one uninterrupted worker would have written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use harness::kafka::{Cluster, Record};
use harness::program::{Running, start, thema};
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

/// Workers of one stream, each by its name.
struct Workers {
    job: String,
    running: BTreeMap<String, Running>,
}

impl Workers {
    fn start(&mut self, name: &str) -> Result<()> {
        let worker = start(&["stream", &self.job, "--instance", name])?;
        self.running.insert(name.to_string(), worker);
        Ok(())
    }

    /// Fails with the log of a worker that ended by itself.
    fn check(&mut self) -> Result<()> {
        let mut ended = None;
        for (name, worker) in &mut self.running {
            if worker.has_ended()? {
                ended = Some(name.clone());
            }
        }
        if let Some(worker) = ended.and_then(|name| self.running.remove(&name)) {
            let run = worker.wait()?;
            bail!("a worker ended by itself with {:?}:\n{}", run.code, run.stderr);
        }
        Ok(())
    }
}

#[test]
#[ignore = "under way: a run with a broker lost does not end yet"]
fn whatever_is_killed_each_message_leaves_once() -> Result<()> {
    let cycles = std::env::var("CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(CYCLES);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random::new(seed, 0);
    let kafka = Arc::new(Cluster::start(3)?);
    let corpus = corpus()?;
    let topic = |name| kafka.topic(name, PARTITIONS);
    let (input, output, dead) = (topic("papers")?, topic("labelled")?, topic("dead")?);
    let folder = Folder::new()?;
    let (bootstrap, model) = (kafka.bootstrap(), &models::papers().model);
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ kafka: {{ connection: {{ bootstrap: \"{bootstrap}\" }}, topics: [{input}], group: {input}, \
             session_timeout_ms: 6000 }} }}\n\
             sink: {{ kafka: {{ topic: {output}, dead_letters: {dead} }} }}\n\
             id: id\nencoder: {{ column: embedding }}\nmodel: \"{model}\"\n\
             stream: {{ batch_rows: 200 }}\n"
        ),
    )?;
    let started = Instant::now();

    // Messages come while workers come and go: a share with each kill.
    let share = corpus.records.len().div_ceil(cycles as usize);
    let mut workers = Workers { job, running: BTreeMap::new() };
    let names: Vec<String> = (0..WORKERS).map(|n| format!("worker-{n}")).collect();
    let (mut kills, mut terms, mut brokers) = (0, 0, 0);
    let mut lost_broker = None;
    for cycle in 0..cycles {
        let sending = {
            let (kafka, input) = (Arc::clone(&kafka), input.clone());
            let part: Vec<Record> =
                corpus.records.iter().skip(cycle as usize * share).take(share).cloned().collect();
            thread::spawn(move || kafka.produce(&input, &part))
        };
        for name in &names {
            if !workers.running.contains_key(name) && (workers.running.is_empty() || random.next() < 0.7) {
                workers.start(name)?;
            }
        }
        // A moment at random: while it starts, joins, reads, writes, commits.
        thread::sleep(Duration::from_millis((random.next() * 2500.0) as u64));
        workers.check()?;
        let at = (random.next() * workers.running.len() as f32) as usize;
        let name = workers.running.keys().nth(at).context("no worker runs")?.clone();
        let worker = workers.running.remove(&name).context("it runs")?;
        if random.next() < 0.8 {
            worker.kill()?;
            kills += 1;
        } else {
            worker.signal("TERM")?;
            worker.wait()?.succeeds()?;
            terms += 1;
        }
        // Every fifth time a broker is gone for one cycle.
        match lost_broker.take() {
            Some(broker) => kafka.launch(broker)?,
            None if cycle % 5 == 2 => {
                let broker = (random.next() * 3.0) as usize % 3;
                kafka.kill(broker)?;
                brokers += 1;
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
    for worker in std::mem::take(&mut workers.running).into_values() {
        worker.signal("TERM")?;
        worker.wait()?.succeeds()?;
    }
    // One finishes. What the others had is its own once their sessions are over.
    workers.start(&names[0])?;
    let patience = Instant::now();
    loop {
        workers.check()?;
        let committed: i64 = kafka.committed(&input, &input)?.values().sum();
        if committed == corpus.records.len() as i64 {
            break;
        }
        ensure!(patience.elapsed() < Duration::from_secs(120), "only {committed} messages are done");
        thread::sleep(Duration::from_millis(100));
    }
    let last = workers.running.remove(&names[0]).context("it runs")?;
    last.signal("TERM")?;
    let last = last.wait()?.succeeds()?;

    let received = kafka.read(&output)?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut differing = 0;
    for record in &received {
        let object = record.json()?;
        let name = object["id"].as_str().context("no id")?.to_string();
        let (topic, score) = corpus.labels[&name];
        let same = object["topic"] == json!(topic)
            && object["score"].as_f64().map(|found| found as f32) == Some(score);
        differing += usize::from(!same);
        *seen.entry(name).or_insert(0) += 1;
    }
    let duplicates: usize = seen.values().map(|times| times - 1).sum();
    let lost = corpus.labels.len() - seen.len();
    let letters = kafka.read(&dead)?.len();
    println!(
        "{}",
        json!({
            "kills": kills, "terms": terms, "brokers_lost": brokers, "seed": seed, "messages": corpus.records.len(),
            "received": received.len(), "duplicates": duplicates, "lost": lost, "differing": differing,
            "dead_letters": letters, "seconds": started.elapsed().as_secs_f64().round(),
        })
    );
    ensure!(
        (duplicates, lost, differing, letters) == (0, 0, 0, 0),
        "{duplicates} twice, {lost} lost, {differing} with another label, {letters} dead letters; the last worker:\n{}",
        last.stderr
    );
    Ok(())
}
