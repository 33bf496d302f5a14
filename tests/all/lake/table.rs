//! Delta tables as output: each row once, all of a run at once, and as other programs read them.

use super::Lake;
use crate::models::{self, BLOBS};
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use harness::delta;
use harness::program::{Run, Running, start, thema};
use harness::s3::Fault;
use harness::tables::{Folder, Random, column, read_parquet, strings};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The rows of a file.
const ROWS: usize = 200;

/// How often a run is killed before it may end.
const KILLS: usize = 6;

/// Files of rows, and a table for their labels.
struct Batch {
    folder: Folder,
}

impl Batch {
    fn new(files: usize) -> Result<Self> {
        let batch = Self { folder: Folder::new()? };
        (0..files).try_for_each(|file| batch.add(file))?;
        Ok(batch)
    }

    fn add(&self, file: usize) -> Result<()> {
        self.folder.parquet(&format!("in/{file:03}.parquet"), &BLOBS.rows(file * ROWS, ROWS)?)?;
        Ok(())
    }

    fn table(&self) -> String {
        self.folder.path("table")
    }

    fn arguments(&self) -> Vec<String> {
        let (input, out) = (self.folder.path("in"), format!("delta:{}", self.table()));
        let model = models::blobs().model.clone();
        let what = ["label", "--input", &input, "--model", &model, "--out", &out];
        what.iter().map(ToString::to_string).collect()
    }

    fn label(&self, more: &[&str]) -> Result<Run> {
        let arguments = self.arguments();
        thema(&arguments.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    }

    fn start(&self) -> Result<Running> {
        start(&self.arguments().iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Checks that other programs read the labels of the rows of so many files, each once.
    fn check(&self, files: usize) -> Result<()> {
        let (all, input) = (self.folder.path("all.parquet"), self.folder.path("in"));
        let model = &models::blobs().model;
        thema(&["label", "--input", &input, "--model", model, "--out", &all, "--overwrite"])?.succeeds()?;
        let expected = read_parquet(&all)?;
        ensure!(expected.num_rows() == files * ROWS);
        same_labels(&self.table(), &expected)
    }

    /// The commits of the table.
    fn commits(&self) -> Result<Vec<PathBuf>> {
        files(&Path::new(&self.table()).join("_delta_log"), ".json")
    }
}

/// Checks that other programs read the same labels from a table.
pub(super) fn same_labels(table: &str, expected: &RecordBatch) -> Result<()> {
    let rows = delta::rows(table, &["id", "topic_name", "score", "model_version"])?;
    let mut labels = BTreeMap::new();
    let ids = arrow::compute::cast(column(expected, "id")?, &arrow::datatypes::DataType::Utf8)?;
    let ids = arrow::array::AsArray::as_string::<i32>(&ids).iter().flatten();
    for (id, name) in ids.zip(strings(expected, "topic_name")?) {
        labels.insert(id.to_string(), name);
    }
    ensure!(rows.len() == labels.len(), "{table} has {} rows, expected {}", rows.len(), labels.len());
    for row in &rows {
        let name = labels.remove(&row[0]).with_context(|| format!("{} is not expected, or twice", row[0]))?;
        ensure!(row[1] == name && row[3] == "v1", "{row:?}, expected {name}");
    }
    Ok(())
}

/// The files of a folder whose names end so, sorted.
fn files(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    paths.sort();
    Ok(paths)
}

#[test]
fn each_run_adds_what_is_new_in_one_commit() -> Result<()> {
    let batch = Batch::new(3)?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("600 rows labelled"), "{}", run.stdout);
    batch.check(3)?;
    assert_eq!(batch.commits()?.len(), 2, "one makes the table, one has all rows");
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: 3 files, all labelled before"), "{}", run.stdout);
    assert_eq!(batch.commits()?.len(), 2);

    // A column more is a column of the table from then on.
    let plain = BLOBS.rows(3 * ROWS, ROWS)?;
    let mut columns: Vec<_> = Vec::new();
    for (field, column) in plain.schema().fields().iter().zip(plain.columns()) {
        columns.push((field.name().clone(), Arc::clone(column)));
    }
    columns.push(("lang".into(), Arc::clone(column(&plain, "text")?)));
    batch.folder.parquet("in/003.parquet", &RecordBatch::try_from_iter(columns)?)?;
    batch.label(&[])?.succeeds()?;
    batch.check(4)?;
    let langs = delta::rows(&batch.table(), &["lang"])?;
    assert_eq!(langs.iter().filter(|row| row[0] == "null").count(), 3 * ROWS);

    // All anew, in one commit that takes away what was there.
    batch.add(3)?;
    batch.label(&[])?.fails(2, &["have changed since"])?;
    let before = batch.commits()?.len();
    let run = batch.label(&["--overwrite"])?.succeeds()?;
    assert!(run.stdout.starts_with("800 rows labelled"), "{}", run.stdout);
    batch.check(4)?;
    assert_eq!(batch.commits()?.len(), before + 1);
    batch.add(4)?;
    batch.label(&[])?.succeeds()?;
    batch.check(5)
}

#[test]
fn a_run_that_is_killed_leaves_no_half_and_is_said_again() -> Result<()> {
    let files_count = 30;
    let batch = Batch::new(files_count)?;
    let mut random = Random::new(11, 0);
    for _ in 0..KILLS {
        let running = batch.start()?;
        std::thread::sleep(Duration::from_millis(40 + (random.next() * 400.0) as u64));
        drop(running.kill()?);
        let Ok(commits) = batch.commits() else { continue };
        if !commits.is_empty() {
            let rows = delta::rows(&batch.table(), &["id"])?.len();
            ensure!(rows == 0 || rows == files_count * ROWS, "{rows} rows are half of a run");
        }
    }
    batch.label(&[])?.succeeds()?;
    batch.check(files_count)
}

#[test]
fn a_commit_that_was_sealed_and_not_done_is_done_by_the_next_run() -> Result<()> {
    let batch = Batch::new(4)?;
    batch.label(&[])?.succeeds()?;
    // As if the process had died between the seal and the commit.
    let last = batch.commits()?.pop().context("no commits")?;
    for file in files(&Path::new(&batch.table()).join("_delta_log"), "")? {
        if file.to_string_lossy().contains("00000000000000000001") {
            fs::remove_file(file)?;
        }
    }
    ensure!(!last.exists());
    batch.add(4)?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("200 rows labelled"), "{}", run.stdout);
    batch.check(5)?;
    assert_eq!(batch.commits()?.len(), 3);

    // Without the ledger nobody knows what is there.
    fs::remove_dir_all(Path::new(&batch.table()).join("_thema"))?;
    batch.label(&[])?.fails(2, &["its ledger (_thema) knows 0", "--overwrite"])?;
    batch.label(&["--overwrite"])?.succeeds()?;
    batch.check(5)?;
    batch.add(5)?;
    batch.label(&[])?.succeeds()?;
    batch.check(6)
}

#[test]
fn files_that_are_removed_before_their_commit_are_written_anew() -> Result<()> {
    let batch = Batch::new(3)?;
    batch.label(&[])?.succeeds()?;
    // As if the run had died before the seal, and somebody had removed files that no commit names.
    let table = PathBuf::from(batch.table());
    for file in files(&table.join("_delta_log"), "")? {
        if file.to_string_lossy().contains("00000000000000000001") {
            fs::remove_file(file)?;
        }
    }
    fs::remove_dir_all(table.join("_thema/seals"))?;
    let parts = files(&table, ".parquet")?;
    fs::remove_file(&parts[1])?;
    batch.label(&[])?.fails(2, &["the files of 1 units were removed"])?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("200 rows labelled"), "{}", run.stdout);
    batch.check(3)?;
    // A table that is gone is not made again beside the ledger of the old one.
    fs::remove_dir_all(table.join("_delta_log"))?;
    batch.add(3)?;
    batch.label(&[])?.fails(2, &["was removed, but not its ledger"])?;
    Ok(())
}

#[test]
fn a_run_that_is_overtaken_by_one_that_begins_anew_adds_nothing() -> Result<()> {
    let batch = Batch::new(24)?;
    let overtaken = batch.start()?;
    while files(&Path::new(&batch.table()).join("_thema/done"), ".json").map_or(0, |marks| marks.len()) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    overtaken.signal("STOP")?;
    batch.label(&["--overwrite"])?.succeeds()?;
    overtaken.signal("CONT")?;
    overtaken.wait()?.fails(2, &["another run has begun anew"])?;
    batch.check(24)
}

#[test]
fn runs_at_once_add_each_row_once() -> Result<()> {
    let batch = Batch::new(24)?;
    let runs = (0..3).map(|_| batch.start()).collect::<Result<Vec<_>>>()?;
    for run in runs {
        run.wait()?.succeeds()?;
    }
    // Who ended first may have left what another was still at to that one.
    batch.check(24)
}

#[test]
fn partitions_are_laid_out_and_replaced_as_a_whole() -> Result<()> {
    let batch = Batch::new(2)?;
    let table = batch.table();
    let job = |mode: &str| -> Result<String> {
        let sink = format!("delta: {{ path: \"{table}\", partition_by: [truth], mode: {mode} }}");
        batch.folder.write("job.yaml", format!("sink: {{ {sink} }}\n"))
    };
    let (input, model) = (batch.folder.path("in"), &models::blobs().model);
    let label = |job: &str| thema(&["label", job, "--input", &input, "--model", model]);
    label(&job("append")?)?.succeeds()?;
    batch.check(2)?;
    assert!(Path::new(&table).join("truth=3").is_dir());
    let truths = delta::rows(&table, &["id", "truth"])?;
    assert!(truths.iter().all(|row| row[0].parse::<usize>().is_ok_and(|id| row[1] == (id % 4).to_string())));

    let whole = format!("sink: {{ delta: {{ path: \"{table}-whole\", mode: overwrite_partitions }} }}\n");
    label(&batch.folder.write("whole.yaml", whole)?)?.fails(2, &["the table has none", "partition_by"])?;

    // The rows of two partitions come anew; the others stay.
    let rows = BLOBS.rows(5000, 100)?;
    let truths = harness::tables::ints(&rows, "truth")?;
    let mask: arrow::array::BooleanArray = truths.iter().map(|truth| Some(*truth < 2)).collect();
    batch.folder.parquet("in/new.parquet", &arrow::compute::filter_record_batch(&rows, &mask)?)?;
    label(&job("overwrite_partitions")?)?.succeeds()?;
    let ids = delta::rows(&table, &["id"])?;
    let ids: Vec<usize> = ids.iter().map(|row| Ok(row[0].parse()?)).collect::<Result<_>>()?;
    let (old, new): (Vec<usize>, Vec<usize>) = ids.iter().partition(|id| **id < 5000);
    assert_eq!((old.len(), new.len()), (2 * ROWS / 2, 50));
    assert!(old.iter().all(|id| id % 4 > 1));
    batch.add(2)?;
    let other = format!("sink: {{ delta: {{ path: \"{table}\", partition_by: [text] }} }}\n");
    label(&batch.folder.write("other.yaml", other)?)?.fails(2, &["is partitioned by truth, not by text"])?;
    Ok(())
}

#[test]
fn a_table_on_a_store_bears_lost_answers() -> Result<()> {
    let lake = Lake::new()?;
    // The commit is done, and its answer is that it failed.
    let is_lost = AtomicBool::new(false);
    lake.store.fail(move |asked| {
        let is_commit = asked.method == "PUT" && asked.path.ends_with("00000000000000000001.json");
        match asked.method.as_str() {
            "PUT" if is_commit && !is_lost.swap(true, Ordering::Relaxed) => Some(Fault::Lost),
            "GET" if asked.nth % 6 == 5 => Some(Fault::Cut),
            _ if asked.nth % 9 == 4 => Some(Fault::Busy),
            _ => None,
        }
    });
    let run = lake.label("delta:s3://lake/table")?.succeeds()?;
    assert!(run.stdout.starts_with("1,500 rows labelled"), "{}", run.stdout);
    ensure!(lake.store.faults() > 0, "nothing went wrong");
    lake.store.fail(|_| None);
    let run = lake.label("delta:s3://lake/table")?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new"), "{}", run.stdout);
    same_labels(&lake.store.path("lake/table").display().to_string(), &lake.expected)
}
