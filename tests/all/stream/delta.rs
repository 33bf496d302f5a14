//! Streams into a Delta table: the table says how far they are, and others read it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use harness::delta;
use harness::disk::SmallDisk;
use harness::kafka::{Cluster, Record};
use harness::program::{start, thema};
use harness::tables::{Folder, column};
use serde_json::json;

use super::{Stream, blobs, labels};
use crate::models::BLOBS;

/// Longest wait for a stream to do its work.
const PATIENCE: Duration = Duration::from_secs(120);

impl Stream {
    /// The job file of a stream into the tables `rows` and `dead` of this test's folder.
    fn table_job(&self, sink: &str, more: &str) -> Result<String> {
        let (rows, dead) = (self.folder.path("rows"), self.folder.path("dead"));
        let sink = format!("delta: {{ {sink} path: \"{rows}\", dead_letters: \"{dead}\" }}");
        self.job_into("", &sink, more)
    }

    /// Checks that the table holds exactly the first `count` blobs, each once and with its label.
    fn check_table(&self, count: usize) -> Result<()> {
        let labels = labels(&self.folder, &BLOBS.rows(0, count)?)?;
        let rows = delta::rows(&self.folder.path("rows"), &["id", "topic", "score", "model_version"])?;
        let mut seen = BTreeMap::new();
        for row in &rows {
            let id: i64 = row[0].parse()?;
            let (topic, score) = labels.get(&id).with_context(|| format!("{id} was never sent"))?;
            ensure!(row[1] == topic.to_string() && row[2].parse() == Ok(*score), "{id} has {row:?}");
            ensure!(row[3] == "v1", "{id} was labelled by {}", row[3]);
            *seen.entry(id).or_insert(0) += 1;
        }
        ensure!(seen.len() == count && rows.len() == count, "{} rows, {} messages", rows.len(), seen.len());
        Ok(())
    }
}

/// How many commits a table has.
fn commits(folder: &Folder, table: &str) -> Result<usize> {
    let log = Path::new(&folder.path(table)).join("_delta_log");
    let names = fs::read_dir(log)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<String>>>()?;
    Ok(names.iter().filter(|name| name.ends_with(".json")).count())
}

#[test]
fn a_table_gets_each_message_once_and_says_how_far_the_stream_is() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 3)?;
    let job = stream.table_job("", "")?;
    kafka.produce(&stream.input, &blobs(0, 300, 3)?)?;
    let told = stream.run(&job)?;
    assert!(told.starts_with("300 messages: 300 rows labelled, 0 bad"), "{told}");
    stream.check_table(300)?;
    assert_eq!(commits(&stream.folder, "rows")?, 2, "one that makes the table, one with all rows");
    let again = stream.run(&job)?;
    assert!(again.starts_with("0 messages"), "{again}");
    // The group's offsets follow the table's; a new table is filled from the beginning all the same.
    let committed: i64 = kafka.committed(&stream.input, &stream.input)?.values().sum();
    assert_eq!(committed, 300);
    fs::remove_dir_all(stream.folder.path("rows"))?;
    kafka.produce(&stream.input, &blobs(300, 100, 3)?)?;
    let told = stream.run(&job)?;
    assert!(told.starts_with("400 messages: 400 rows"), "{told}");
    stream.check_table(400)
}

#[test]
fn bad_messages_go_to_a_table_of_their_own() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let job = stream.table_job("", "")?;
    kafka.produce(&stream.input, &blobs(0, 50, 1)?)?;
    kafka.produce(&stream.input, &[Record::of("no json").with_key("k"), Record::default()])?;
    kafka.produce(&stream.input, &blobs(50, 50, 1)?)?;
    let told = stream.run(&job)?;
    assert!(told.starts_with("102 messages: 100 rows labelled, 1 bad, 1 tombstone"), "{told}");
    stream.check_table(100)?;
    let dead =
        delta::rows(&stream.folder.path("dead"), &["kafka_topic", "kafka_offset", "attempt", "error"])?;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0][..3], [stream.input.clone(), "50".into(), "1".into()]);
    assert!(dead[0][3].contains("JSON"), "{dead:?}");
    // What is in the dead letters is not written there again when the rows' table is filled anew.
    fs::remove_dir_all(stream.folder.path("rows"))?;
    stream.run(&job)?;
    stream.check_table(100)?;
    let letters = || delta::rows(&stream.folder.path("dead"), &["kafka_offset"]);
    assert_eq!(letters()?.len(), 1);
    // But one that was good before is, though the dead letters were ahead of it.
    let row = BLOBS.rows(0, 1)?;
    let vector = column(&row, "embedding")?.as_fixed_size_list().value(0);
    let vector = vector.as_primitive::<Float32Type>().values().to_vec();
    let object = json!({ "id": 7, "rank": "first", "embedding": vector });
    kafka.produce(&stream.input, &[Record::of(object.to_string()), Record::of("no json")])?;
    assert!(stream.run(&job)?.starts_with("2 messages: 1 row labelled, 1 bad"));
    fs::remove_dir_all(stream.folder.path("rows"))?;
    let other = fs::read_to_string(&job)?.replace("id: int64", "id: int64, rank: int64");
    let told = stream.run(&stream.folder.write("other.yaml", other)?)?;
    assert!(told.starts_with("104 messages: 100 rows labelled, 3 bad"), "{told}");
    assert_eq!(letters()?, [["102"], ["103"], ["50"]]);
    Ok(())
}

#[test]
fn a_file_that_is_long_enough_is_committed_at_once() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let job = stream.table_job("file_bytes: 4000,", "stream: { batch_rows: 50, commit_ms: 3600000 }\n")?;
    kafka.produce(&stream.input, &blobs(0, 500, 1)?)?;
    stream.run(&job)?;
    stream.check_table(500)?;
    let commits = commits(&stream.folder, "rows")?;
    assert!(commits >= 4, "{commits} commits");
    Ok(())
}

#[test]
fn a_worker_that_was_away_writes_nothing_twice_into_a_table() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 2)?;
    let job = stream.table_job("", "stream: { batch_rows: 20, commit_ms: 500 }\n")?;
    let log = |count: usize| -> Result<()> {
        let started = Instant::now();
        loop {
            let done: i64 = kafka.committed(&stream.input, &stream.input)?.values().sum();
            if done >= count as i64 {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "only {done} of {count} messages are done");
            thread::sleep(Duration::from_millis(50));
        }
    };
    let first = start(&["stream", &job])?;
    kafka.produce(&stream.input, &blobs(0, 1000, 2)?)?;
    log(40)?;
    // Longer than its session: to the group it is dead, wherever it stood.
    first.signal("STOP")?;
    let second = start(&["stream", &job])?;
    log(1000)?;
    first.signal("CONT")?;
    kafka.produce(&stream.input, &blobs(1000, 200, 2)?)?;
    log(1200)?;
    for worker in [first, second] {
        worker.signal("TERM")?;
        worker.wait()?.succeeds()?;
    }
    stream.check_table(1200)
}

#[test]
fn a_place_that_is_no_table_for_the_rows_is_refused() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let job = stream.table_job("", "")?;
    let rows = stream.folder.path("rows");
    fs::create_dir_all(&rows)?;
    fs::write(Path::new(&rows).join("a.csv"), "a")?;
    thema(&["stream", &job, "--until-end"])?.fails(2, &["holds files but no Delta table"])?;
    fs::remove_dir_all(&rows)?;
    stream.run(&job)?;
    let other = fs::read_to_string(&job)? + "prefix: my_\n";
    let other = stream.folder.write("other.yaml", other)?;
    thema(&["stream", &other, "--until-end"])?
        .fails(2, &["has no column \"my_topic\"; it has ", "kafka_offset"])?;
    let same = stream.folder.write("same.yaml", fs::read_to_string(&job)?.replace("/dead\"", "/rows/\""))?;
    thema(&["stream", &same, "--until-end"])?.fails(2, &["is the table of the rows itself"])?;
    Ok(())
}

#[test]
fn a_disk_that_is_full_is_waited_for() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let place = stream.folder.path("disk");
    let Some(_disk) = SmallDisk::mount(&place, 256 << 10)? else {
        println!("not run here: mounting a small file system is not allowed");
        return Ok(());
    };
    let job = stream.job_into(
        "",
        &format!("delta: {{ path: \"{place}/rows\", dead_letters: \"{place}/dead\" }}"),
        "stream: { batch_rows: 100, commit_ms: 200 }\n",
    )?;
    let filler = Path::new(&place).join("filler");
    fs::write(&filler, vec![1_u8; 200 << 10])?;
    let mut worker = start(&["stream", &job])?;
    kafka.produce(&stream.input, &blobs(0, 1000, 1)?)?;
    worker.wait_for("No space left on device")?;
    worker.wait_for("what was not committed is read again")?;
    fs::remove_file(&filler)?;
    let started = Instant::now();
    while kafka.committed(&stream.input, &stream.input)?.values().sum::<i64>() < 1000 {
        ensure!(started.elapsed() < PATIENCE, "the stream does not go on");
        thread::sleep(Duration::from_millis(100));
    }
    worker.signal("TERM")?;
    worker.wait()?.succeeds()?;
    let ids = delta::rows(&format!("{place}/rows"), &["id"])?;
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (1000, 1000));
    Ok(())
}
