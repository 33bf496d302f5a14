//! Delta tables of other programs as input: what their log says, and only what is new.

use super::units::rows_of;
use crate::models::{self, BLOBS};
use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use harness::delta;
use harness::program::{Run, thema};
use harness::tables::{Folder, column, ints, read_parquet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A table that another program writes, and where its rows' labels go.
struct Source {
    folder: Folder,
}

impl Source {
    /// A table of the columns of blobs, partitioned by one of them if that is wanted.
    fn new(partition: Option<&str>) -> Result<Self> {
        let source = Self { folder: Folder::new()? };
        source.append(0..100, partition)?;
        Ok(source)
    }

    fn table(&self) -> String {
        self.folder.path("table")
    }

    fn append(&self, rows: std::ops::Range<usize>, partition: Option<&str>) -> Result<()> {
        let file = self.folder.parquet("rows.parquet", &BLOBS.rows(rows.start, rows.len())?)?;
        let table = self.table();
        delta::change(&[&["append", &table, &file], partition.as_slice()].concat())
    }

    fn change(&self, what: &str, more: &[&str]) -> Result<()> {
        delta::change(&[&[what, &self.table()], more].concat())
    }

    /// Labels the rows of the table with more keys of the source, into `out`.
    fn label(&self, keys: &str, out: &str, more: &[&str]) -> Result<Run> {
        let source = format!("source: {{ table: {{ path: \"{}\", {keys} }} }}\n", self.table());
        let job = self.folder.write("job.yaml", source)?;
        let out = self.folder.path(out);
        let model = &models::blobs().model;
        thema(&[&["label", &job, "--model", model, "--out", &out, "--overwrite"], more].concat())
    }

    /// The same into a folder that grows.
    fn label_new(&self) -> Result<Run> {
        let (table, out) = (self.table(), format!("{}/", self.folder.path("out")));
        thema(&["label", "--input", &table, "--model", &models::blobs().model, "--out", &out])
    }

    fn ids_of(&self, out: &str) -> Result<Vec<i64>> {
        ids(&read_parquet(&self.folder.path(out))?)
    }
}

fn ids(rows: &RecordBatch) -> Result<Vec<i64>> {
    let ids = column(rows, "id")?.as_primitive_opt::<Int64Type>().context("id is not int64")?;
    let mut ids = ids.values().to_vec();
    ids.sort_unstable();
    Ok(ids)
}

#[test]
fn a_table_is_what_its_log_says_at_a_version() -> Result<()> {
    let source = Source::new(Some("truth"))?;
    source.append(100..200, None)?;
    source.change("delete", &["id < 50"])?;
    let labelled = |keys: &str| -> Result<Vec<i64>> {
        source.label(keys, "out.parquet", &[])?.succeeds()?;
        source.ids_of("out.parquet")
    };
    // The files of rows that were deleted still lie there.
    assert_eq!(labelled("")?, (50..200).collect::<Vec<_>>());
    assert_eq!(labelled("version: 1")?, (0..200).collect::<Vec<_>>());
    assert_eq!(labelled("version: 1, since: 0")?, (100..200).collect::<Vec<_>>());
    // A partition's column is in no file, and is there all the same.
    assert!(labelled("version: 1, where: truth = 2")?.iter().all(|id| id % 4 == 2));
    let rows = read_parquet(&source.folder.path("out.parquet"))?;
    ensure!(rows.num_rows() == 50 && ints(&rows, "truth")?.iter().all(|truth| *truth == 2));
    let plain = source.folder.path("plain.parquet");
    let (file, model) = (source.folder.path("rows.parquet"), &models::blobs().model);
    thema(&["label", "--input", &file, "--where", "truth = 2", "--model", model, "--out", &plain])?
        .succeeds()?;
    let plain = ints(&read_parquet(&plain)?, "topic")?;
    let topics = ints(&rows, "topic")?;
    ensure!(topics.iter().filter(|topic| plain.contains(topic)).count() == 50, "{topics:?}, {plain:?}");
    Ok(())
}

#[test]
fn only_what_came_to_a_table_is_taken_and_a_compaction_brings_nothing() -> Result<()> {
    let source = Source::new(None)?;
    source.label_new()?.succeeds()?;
    source.append(100..150, None)?;
    source.append(150..200, None)?;
    source.change("compact", &[])?;
    let run = source.label_new()?.succeeds()?;
    assert!(run.stdout.starts_with("100 rows labelled"), "{}", run.stdout);
    let out = source.folder.path("out");
    assert_eq!(ids(&rows_of(&out)?)?, (0..200).collect::<Vec<_>>());
    source.change("compact", &[])?;
    let run = source.label_new()?.succeeds()?;
    assert!(run.stdout.starts_with("nothing new: the table's version"), "{}", run.stdout);
    source.append(200..220, None)?;
    source.label_new()?.succeeds()?;
    assert_eq!(ids(&rows_of(&out)?)?, (0..220).collect::<Vec<_>>());

    // Units that were planned and not done are done, though the table has given up their file.
    source.append(220..240, None)?;
    source.label_new()?.succeeds()?;
    let done = Path::new(&out).join("_thema/done");
    let mut marks: Vec<_> = fs::read_dir(&done)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    marks.sort();
    let last = marks.pop().context("no marks")?;
    let name = last.file_stem().context("a mark has a name")?.to_string_lossy().into_owned();
    fs::remove_file(last)?;
    fs::remove_file(Path::new(&out).join(format!("part-{name}.parquet")))?;
    source.change("compact", &[])?;
    let run = source.label_new()?.succeeds()?;
    assert!(run.stdout.starts_with("20 rows labelled"), "{}", run.stdout);
    assert_eq!(ids(&rows_of(&out)?)?, (0..240).collect::<Vec<_>>());

    // Deleted rows cannot be told from new ones.
    source.change("delete", &["id < 5"])?;
    source.label_new()?.fails(2, &["deleted or changed rows", "label all anew"])?;
    Ok(())
}

#[test]
fn values_of_partitions_are_what_they_were_however_a_log_writes_them() -> Result<()> {
    let source = Source { folder: Folder::new()? };
    let rows = BLOBS.rows(0, 40)?;
    let fields = [Some("a/b"), Some("50%"), Some("12:30 #1"), None];
    let texts: StringArray = (0..40).map(|row| fields[row % 4]).collect();
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        columns.push((field.name().clone(), Arc::clone(column)));
    }
    columns.push(("field".into(), Arc::new(texts)));
    let file = source.folder.parquet("rows.parquet", &RecordBatch::try_from_iter(columns)?)?;
    delta::change(&["append", &source.table(), &file, "field"])?;
    source.label_new()?.succeeds()?;
    let rows = rows_of(&source.folder.path("out"))?;
    assert_eq!(ids(&rows)?, (0..40).collect::<Vec<_>>());
    let found = column(&rows, "field")?.as_string::<i32>().iter();
    assert!(found.zip(0..).all(|(field, row)| field == fields[row % 4]));
    // The same from what a plan remembers, when nothing is done.
    fs::remove_dir_all(source.folder.path("out/_thema/done"))?;
    let run = source.label_new()?.succeeds()?;
    assert!(run.stdout.starts_with("40 rows labelled"), "{}", run.stdout);

    // Another table at the same place is not the one that rows were taken of.
    fs::remove_dir_all(source.table())?;
    source.append(0..10, None)?;
    source.label_new()?.fails(2, &["of another table"])?;
    Ok(())
}

#[test]
fn a_table_that_cannot_be_read_says_why() -> Result<()> {
    let source = Source::new(None)?;
    source.append(100..150, None)?;
    let refused = |keys: &str, words: &[&str]| -> Result<()> {
        source.label(keys, "out.parquet", &[])?.fails(2, words)?;
        Ok(())
    };
    refused("version: 7", &["table", "version 7"])?;
    refused("since: 7", &["has no version 7 yet: it is at version 1"])?;
    let plain = source.folder.path("rows.parquet");
    let model = &models::blobs().model;
    let job = source
        .folder
        .write("plain.yaml", format!("source: {{ table: {{ path: \"{plain}\", version: 1 }} }}\n"))?;
    let out = source.folder.path("plain-out.parquet");
    thema(&["label", &job, "--model", model, "--out", &out])?.fails(2, &["is no Delta table"])?;

    // A file that a version needs and that was removed.
    source.change("compact", &[])?;
    source.change("vacuum", &[])?;
    source.label("version: 1", "out.parquet", &[])?.fails(3, &["is gone"])?;

    // A log whose beginning is gone.
    let log = Path::new(&source.table()).join("_delta_log");
    let first = log.join("00000000000000000001.json");
    let kept = fs::read(&first)?;
    fs::remove_file(&first)?;
    refused("since: 0", &["version 1 is missing"])?;
    fs::write(&first, kept)?;

    // Rows that are marked as deleted; columns by other names.
    let newest = log.join("00000000000000000002.json");
    let text = fs::read_to_string(&newest)?;
    let marked = "\"deletionVector\":{\"storageType\":\"u\",\"pathOrInlineDv\":\"ab^-aqEH.-t@S}K{vb[*k^\",\"offset\":4,\
                  \"sizeInBytes\":40,\"cardinality\":6},\"dataChange\"";
    let protocol = "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":\
                    [\"deletionVectors\"],\"writerFeatures\":[\"deletionVectors\"]}}\n";
    let add = text.lines().find(|line| line.contains("\"add\"")).context("a compaction adds a file")?;
    let with_vector = add.replacen("\"dataChange\"", marked, 1);
    ensure!(with_vector != *add);
    fs::write(&newest, format!("{protocol}{}", text.replace(add, &with_vector)))?;
    refused("", &["by a deletion vector", ".parquet"])?;
    fs::write(&newest, text)?;
    let zero = log.join("00000000000000000000.json");
    let text = fs::read_to_string(&zero)?;
    let mapped = text
        .replace("\"configuration\":{}", "\"configuration\":{\"delta.columnMapping.mode\":\"name\"}")
        .replace("\"minReaderVersion\":1", "\"minReaderVersion\":2")
        .replace("\"minWriterVersion\":2", "\"minWriterVersion\":5");
    ensure!(mapped != text, "{text}");
    fs::write(&zero, mapped)?;
    refused("", &["olumn"])
}
