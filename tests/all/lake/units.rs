//! Folders that grow by what is new: each row once, however runs end, and however many there are.

use super::Lake;
use crate::models::{self, BLOBS};
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use harness::program::{Run, Running, start, thema};
use harness::tables::{Folder, Random, column, damage_row_group, ints, read_parquet, strings, write_parquet};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The rows of a file.
const ROWS: usize = 300;

/// How often a run is killed before it may end.
const KILLS: u64 = 8;

/// Files of rows, and a folder for their labels.
struct Batch {
    folder: Folder,
    model: &'static str,
}

impl Batch {
    fn new(files: usize) -> Result<Self> {
        let batch = Self { folder: Folder::new()?, model: &models::blobs().model };
        (0..files).try_for_each(|file| batch.add(file))?;
        Ok(batch)
    }

    /// Writes file `file` of the input, in three row groups.
    fn add(&self, file: usize) -> Result<()> {
        let path = self.folder.write(&format!("in/{file:03}.parquet"), [])?;
        let rows = BLOBS.rows(1000 + file * ROWS, ROWS)?;
        write_parquet(&path, rows.schema(), [Ok(rows.clone())], ROWS / 3)
    }

    fn arguments<'a>(&'a self, paths: &'a [String; 2], more: &[&'a str]) -> Vec<&'a str> {
        let [input, out] = paths;
        let what = ["label", "--input", input, "--model", self.model, "--out", out];
        what.into_iter().chain(more.iter().copied()).collect()
    }

    fn paths(&self) -> [String; 2] {
        [self.folder.path("in"), format!("{}/", self.folder.path("out"))]
    }

    fn label(&self, more: &[&str]) -> Result<Run> {
        thema(&self.arguments(&self.paths(), more))
    }

    fn start(&self) -> Result<Running> {
        start(&self.arguments(&self.paths(), &[]))
    }

    /// Checks that the folder has the labels of the rows of so many files, each once, and nothing else that readers see.
    fn check(&self, files: usize) -> Result<()> {
        let out = self.folder.path("out");
        let labelled = rows_of(&out)?;
        let all = self.folder.path("all.parquet");
        let input = self.folder.path("in");
        thema(&["label", "--input", &input, "--model", self.model, "--out", &all, "--overwrite"])?
            .succeeds()?;
        let expected = read_parquet(&all)?;
        ensure!(expected.num_rows() == files * ROWS, "{} rows are expected", expected.num_rows());
        ensure!(labelled == expected, "{} rows, or others than expected", labelled.num_rows());
        Ok(())
    }

    fn parts(&self) -> Result<Vec<String>> {
        names(&self.folder.path("out"))
    }
}

/// The rows of all files that readers of a folder see, by their id.
pub(super) fn rows_of(folder: &str) -> Result<RecordBatch> {
    let mut batches = Vec::new();
    for name in names(folder)? {
        ensure!(name.ends_with(".parquet"), "{name} is no file of rows");
        batches.push(read_parquet(&format!("{folder}/{name}"))?);
    }
    let schema = batches.first().context("no rows")?.schema();
    let rows = concat_batches(&schema, &batches)?;
    let order = sort_to_indices(column(&rows, "id")?, None, None)?;
    Ok(take_record_batch(&rows, &order)?)
}

/// The names in a folder that readers see, sorted.
fn names(folder: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(['_', '.']) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[test]
fn each_run_takes_only_what_is_new() -> Result<()> {
    let batch = Batch::new(3)?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("900 rows labelled"), "{}", run.stdout);
    batch.check(3)?;
    let before = batch.parts()?;

    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: 3 files, all labelled before"), "{}", run.stdout);
    batch.add(3)?;
    batch.add(4)?;
    let run = batch.label(&["--log", "json"])?.succeeds()?;
    let facts: serde_json::Value = serde_json::from_str(&run.stdout)?;
    for (key, value) in [("rows", 600), ("files", 5), ("units", 2), ("bad_units", 0)] {
        assert_eq!(facts[key], value, "{key} of {facts}");
    }
    batch.check(5)?;
    let after = batch.parts()?;
    assert!(before.iter().all(|name| after.contains(name)) && after.len() == 5, "{before:?}, {after:?}");

    // A file that somebody takes away is told, and nothing else is done about it.
    let (taken, kept) = (batch.folder.path(&format!("out/{}", after[1])), batch.folder.path("kept"));
    fs::rename(&taken, &kept)?;
    let run = batch.label(&[])?.succeeds()?;
    let told = format!("300 rows are gone with 1 file, such as {}", after[1]);
    assert!(run.stderr.contains(&told) && run.stdout.starts_with("nothing new"), "{}", run.stderr);
    fs::rename(&kept, &taken)?;

    // The condition is another, which is told; and all can be labelled anew.
    batch.add(5)?;
    let run = batch.label(&["--where", "id < 2650"])?.succeeds()?;
    assert!(run.stdout.starts_with("150 rows labelled"), "{}", run.stdout);
    assert!(run.stderr.contains("where is \"id < 2650\", but was nothing"), "{}", run.stderr);
    let run = batch.label(&["--overwrite"])?.succeeds()?;
    assert!(run.stdout.starts_with("1,800 rows labelled"), "{}", run.stdout);
    batch.check(6)
}

#[test]
fn a_run_that_is_killed_is_said_again_and_no_row_is_lost_or_twice() -> Result<()> {
    let files = 40;
    let batch = Batch::new(files)?;
    let mut random = Random::new(7, 0);
    let mut done = Vec::new();
    for kill in 0..KILLS {
        let running = batch.start()?;
        // From before the plan to well after the first files.
        std::thread::sleep(Duration::from_millis(30 + (random.next() * 400.0) as u64));
        drop(running.kill()?);
        let marks = names(&batch.folder.path("out/_thema/done")).map_or(0, |marks| marks.len());
        done.push(marks);
        ensure!(kill == 0 || done[done.len() - 2] <= marks, "marks went away: {done:?}");
    }
    assert!(done.iter().any(|marks| *marks > 0), "no kill came after the first unit: {done:?}");
    batch.label(&[])?.succeeds()?;
    batch.check(files)
}

#[test]
fn runs_at_once_double_no_row_and_share_the_work() -> Result<()> {
    let files = 40;
    let batch = Batch::new(files)?;
    let runs = (0..3).map(|_| batch.start()).collect::<Result<Vec<_>>>()?;
    for run in runs {
        run.wait()?.succeeds()?;
    }
    batch.check(files)?;
    let plans = names(&batch.folder.path("out/_thema/plans"))?;
    assert_eq!(plans, ["000001.json"], "who came second took the plan that was there");
    // Who did what is told by the marks.
    let mut workers = Vec::new();
    for mark in names(&batch.folder.path("out/_thema/done"))? {
        let mark = fs::read(batch.folder.path(&format!("out/_thema/done/{mark}")))?;
        let mark: serde_json::Value = serde_json::from_slice(&mark)?;
        workers.push(mark["run"].as_str().context("a mark without a run")?.to_string());
    }
    assert_eq!(workers.len(), files);
    workers.sort();
    workers.dedup();
    assert!(workers.len() > 1, "one run did all");
    Ok(())
}

#[test]
fn a_run_that_is_overtaken_by_one_that_begins_anew_leaves_nothing() -> Result<()> {
    let files = 40;
    let batch = Batch::new(files)?;
    let overtaken = batch.start()?;
    while names(&batch.folder.path("out/_thema/done")).map_or(0, |marks| marks.len()) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    overtaken.signal("STOP")?;
    batch.label(&["--overwrite"])?.succeeds()?;
    overtaken.signal("CONT")?;
    overtaken.wait()?.fails(2, &["another run has begun anew"])?;
    batch.check(files)?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new"), "{}", run.stdout);
    batch.check(files)
}

#[test]
fn bad_files_and_row_groups_are_listed_and_the_rest_is_done() -> Result<()> {
    let batch = Batch::new(6)?;
    let file = |n: usize| batch.folder.path(&format!("in/{n:03}.parquet"));
    damage_row_group(&file(1), 2)?;
    let half = fs::read(file(4))?;
    fs::write(file(4), &half[..half.len() / 2])?;
    batch.label(&[])?.fails(3, &["004.parquet: not readable as Parquet"])?;
    assert!(!Path::new(&batch.folder.path("out/_thema/plans")).exists(), "something was planned");

    let run = batch.label(&["--on-bad-row", "skip", "--log", "json"])?.succeeds()?;
    let facts: serde_json::Value = serde_json::from_str(&run.stdout)?;
    assert_eq!((&facts["rows"], &facts["bad_units"]), (&(4 * 300 + 200).into(), &2.into()), "{facts}");
    let table = names(&batch.folder.path("out/_thema/bad"))?;
    let [table] = table.as_slice() else { panic!("{table:?}") };
    let listed = fs::read_to_string(batch.folder.path(&format!("out/_thema/bad/{table}")))?;
    assert!(run.stderr.contains(table), "{}", run.stderr);
    assert!(listed.contains("001.parquet") && listed.contains("\"row_group\":2"), "{listed}");
    assert!(listed.contains("004.parquet") && listed.lines().count() == 2, "{listed}");

    // What cannot be read is looked at again, and is new when it has been mended.
    let run = batch.label(&["--on-bad-row", "skip"])?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: 6 files, 1 left out"), "{}", run.stdout);
    batch.add(4)?;
    let run = batch.label(&["--on-bad-row", "skip"])?.succeeds()?;
    assert!(run.stdout.starts_with("300 rows labelled"), "{}", run.stdout);
    assert_eq!(rows_of(&batch.folder.path("out"))?.num_rows(), 5 * 300 + 200);
    Ok(())
}

#[test]
fn what_would_make_rows_stand_twice_is_refused() -> Result<()> {
    let batch = Batch::new(2)?;
    batch.label(&[])?.succeeds()?;
    // A file that has changed.
    let path = batch.folder.path("in/001.parquet");
    let rows = BLOBS.rows(5000, 100)?;
    write_parquet(&path, rows.schema(), [Ok(rows)], ROWS)?;
    batch.label(&[])?.fails(2, &["have changed since", "001.parquet", "--overwrite"])?;
    // It need not stop the rest.
    batch.add(2)?;
    let run = batch.label(&["--on-bad-row", "skip"])?.succeeds()?;
    assert!(run.stdout.starts_with("300 rows labelled"), "{}", run.stdout);
    assert!(run.stderr.contains("001.parquet: has changed since its rows were taken"), "{}", run.stderr);
    let run = batch.label(&["--on-bad-row", "skip"])?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: 3 files, 1 left out"), "{}", run.stdout);
    assert_eq!(rows_of(&batch.folder.path("out"))?.num_rows(), 3 * 300);
    fs::remove_file(batch.folder.path("in/002.parquet"))?;
    let run = batch.label(&["--overwrite"])?.succeeds()?;
    assert!(run.stdout.starts_with("400 rows labelled"), "{}", run.stdout);
    // One that is gone is no matter.
    fs::remove_file(path)?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: 1 file"), "{}", run.stdout);

    // The same files under another name would stand twice.
    fs::rename(batch.folder.path("in"), batch.folder.path("moved"))?;
    let (moved, out) = (batch.folder.path("moved"), format!("{}/", batch.folder.path("out")));
    thema(&["label", "--input", &moved, "--model", batch.model, "--out", &out])?
        .fails(2, &["are these the same rows under another name?"])?;
    fs::rename(moved, batch.folder.path("in"))?;

    let (input, blobs) = (batch.folder.path("in"), batch.model);
    let label = |out: &str, more: &[&str]| -> Result<Run> {
        thema(&[&["label", "--input", &input, "--model", blobs, "--out", out], more].concat())
    };
    label(&format!("{input}/labelled/"), &[])?.fails(2, &["lies in the folder that is read"])?;
    label(&format!("{}/", batch.folder.path("more")), &["--rows", "0..10"])?
        .fails(2, &["rows", "--where"])?;
    batch.folder.write("foreign/data.parquet", "x")?;
    label(&format!("{}/", batch.folder.path("foreign")), &[])?.fails(2, &["files that are not ours"])?;
    Ok(())
}

#[test]
fn files_may_have_more_columns_and_folders_may_tell_some() -> Result<()> {
    let batch = Batch::new(0)?;
    let plain = BLOBS.rows(0, ROWS)?;
    batch.folder.parquet("in/year=2025/a.parquet", &plain)?;
    batch.label(&[])?.succeeds()?;
    // The same and one column more.
    let mut columns: Vec<_> = plain
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(plain.columns().iter().cloned())
        .collect();
    columns.push(("lang".into(), std::sync::Arc::clone(column(&plain, "text")?)));
    batch.folder.parquet("in/year=2026/b.parquet", &RecordBatch::try_from_iter(columns)?)?;
    batch.label(&[])?.succeeds()?;
    let parts = batch.parts()?;
    let read = |name: &str| read_parquet(&batch.folder.path(&format!("out/{name}")));
    let (first, second) = (read(&parts[0])?, read(&parts[1])?);
    assert!(first.column_by_name("lang").is_none() && second.column_by_name("lang").is_some());
    let years = |rows: &RecordBatch| -> Result<Vec<i64>> {
        use arrow::array::AsArray;
        let years = column(rows, "year")?.as_primitive_opt::<arrow::datatypes::Int64Type>();
        Ok(years.context("year is not int64")?.values().iter().copied().collect())
    };
    assert!(years(&first)?.iter().all(|year| *year == 2025));
    assert!(years(&second)?.iter().all(|year| *year == 2026));
    assert_eq!(
        (ints(&first, "topic")?, strings(&first, "text")?),
        (ints(&second, "topic")?, strings(&second, "text")?)
    );

    // A column of another type would make of the folder what nobody can read.
    let mut typed: Vec<(String, arrow::array::ArrayRef)> = Vec::new();
    for (field, column) in plain.schema().fields().iter().zip(plain.columns()) {
        typed.push((field.name().clone(), std::sync::Arc::clone(column)));
    }
    typed[2].1 = std::sync::Arc::clone(column(&plain, "text")?);
    let other = batch.folder.parquet("in/year=2026/c.parquet", &RecordBatch::try_from_iter(typed)?)?;
    batch.label(&[])?.fails(2, &["column \"truth\" is Utf8 in what is new, but Int32"])?;
    fs::remove_file(other)?;

    // A file without a column that is needed is named, and nothing is done.
    let poor = plain.project(&[0, 1])?;
    batch.folder.parquet("in/year=2026/c.parquet", &poor)?;
    batch.label(&[])?.fails(2, &["no column \"embedding\"", "c.parquet"])?;
    assert_eq!(batch.parts()?, parts);
    Ok(())
}

#[test]
fn a_store_keeps_a_ledger_whatever_goes_wrong_on_the_way() -> Result<()> {
    use harness::s3::Fault;
    let lake = Lake::new()?;
    lake.store.fail(|asked| match asked.method.as_str() {
        // What is done but said to have failed: parts, ends of uploads, plans and marks.
        "PUT" | "POST" if asked.nth % 4 == 0 => Some(Fault::Lost),
        "GET" if asked.nth % 5 == 1 => Some(Fault::Cut),
        _ if asked.nth % 7 == 3 => Some(Fault::Busy),
        _ => None,
    });
    let run = lake.label("s3://lake/labelled/")?.succeeds()?;
    assert!(run.stdout.starts_with("1,500 rows labelled"), "{}", run.stdout);
    ensure!(lake.store.faults() > 0, "nothing went wrong");
    let run = lake.label("s3://lake/labelled/")?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: 3 files"), "{}", run.stdout);
    let rows = rows_of(&lake.store.path("lake/labelled").display().to_string())?;
    ensure!(rows == lake.expected, "the labels differ");
    let marks = names(&lake.store.path("lake/labelled/_thema/done").display().to_string())?;
    assert_eq!(marks, ["000001-00000.json", "000001-00001.json", "000001-00002.json"]);
    Ok(())
}

#[test]
fn a_model_tells_of_all_rows_whatever_files_they_came_in() -> Result<()> {
    let batch = Batch::new(3)?;
    let folder = &batch.folder;
    let (out, model) = (format!("{}/", folder.path("out")), folder.path("model"));
    harness::tables::copy_folder(Path::new(batch.model), Path::new(&model))?;
    let label = |input: &str, out: &str| {
        thema(&["label", "--input", input, "--model", &model, "--out", out, "--corpus"])?.succeeds()
    };
    label(&folder.path("in"), &out)?;
    batch.add(3)?;
    batch.add(4)?;
    label(&folder.path("in"), &out)?;
    // The same rows in one file.
    folder.parquet("one/all.parquet", &BLOBS.rows(1000, 5 * ROWS)?)?;
    let other = format!("delta:{}", folder.path("other"));
    label(&folder.path("one"), &other)?;

    let update = |out: &str| thema(&["topics", &model, "--update", "--corpus", out])?.succeeds();
    update(&out)?;
    let counts = || -> Result<BTreeMap<i64, u64>> {
        let topics = thema(&["topics", &model, "--format", "json"])?.succeeds()?;
        let topics: serde_json::Value = serde_json::from_str(&topics.stdout)?;
        let topics = topics.as_array().context("topics are a list")?.iter();
        topics.map(|topic| topic["Topic"].as_i64().zip(topic["Count"].as_u64()).context("a count")).collect()
    };
    let labelled = ints(&rows_of(&folder.path("out"))?, "topic")?;
    let mut expected: BTreeMap<i64, u64> = BTreeMap::new();
    labelled.iter().for_each(|topic| *expected.entry((*topic).into()).or_default() += 1);
    assert_eq!(counts()?, expected);
    // A model made of the same rows in other files is the same.
    fs::rename(format!("{model}/v2"), folder.path("v2"))?;
    update(&other)?;
    for part in ["topics.parquet", "terms.parquet"] {
        ensure!(
            fs::read(folder.path(&format!("v2/{part}")))? == fs::read(format!("{model}/v2/{part}"))?,
            "{part}"
        );
    }
    // Sums go on over versions of the same topics, and not over others.
    batch.add(5)?;
    let run = label(&folder.path("in"), &out)?;
    assert!(run.stdout.starts_with("300 rows labelled"), "{}", run.stdout);
    let run = update(&out)?;
    assert!(run.stderr.contains("1,800 rows summed"), "{}", run.stderr);
    let before = counts()?;
    let run = thema(&["topics", &model, "--merge", "0,1"])?.succeeds()?;
    assert!(!run.stderr.contains("of the sample again"), "{}", run.stderr);
    let after = counts()?;
    let merged: Vec<(&i64, &u64)> = after.iter().filter(|(topic, _)| [0, 1].contains(*topic)).collect();
    assert_eq!(merged.len(), 1, "{after:?}");
    assert_eq!(*merged[0].1, before[&0] + before[&1]);
    assert_eq!(after.values().sum::<u64>(), 1800);
    // Sums of the topics before are those of what they have become; and nothing new is nothing new.
    batch.add(6)?;
    label(&folder.path("in"), &out)?;
    let run = update(&out)?;
    assert!(run.stderr.contains("2,100 rows summed"), "{}", run.stderr);
    assert_eq!(counts()?.values().sum::<u64>(), 2100);
    let run = update(&out)?;
    assert!(run.stderr.contains("nothing has changed, so no version is written"), "{}", run.stderr);
    let merged = merged[0].0.to_string();
    let run = thema(&["topics", &model, "--split", &merged, "--n-clusters", "2"])?.succeeds()?;
    assert!(run.stderr.contains("of the sample again"), "{}", run.stderr);
    assert_eq!(counts()?.values().sum::<u64>(), models::BLOBS_ROWS as u64);
    thema(&["topics", &model, "--update", "--corpus", &out])?
        .fails(2, &["holds no sums of rows that", "label --corpus"])?;
    thema(&["topics", &model, "--update", "--corpus", &folder.path("nowhere")])?
        .fails(2, &["is no folder"])?;
    let run = batch.label(&[])?.succeeds()?;
    assert!(run.stderr.contains("has sums of its rows, but of these none are kept"), "{}", run.stderr);
    Ok(())
}
