//! Jobs on object stores: the same results as on files, whatever goes wrong on the way.

mod check;
mod delta;
mod ends;
mod plan;
mod stores;
mod table;
mod units;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use harness::program::{Run, thema, thema_with};
use harness::s3::{Asked, Fault, S3};
use harness::tables::{Folder, Random, read_parquet, write_parquet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::models::{self, BLOBS};

/// The rows of a file.
const ROWS: usize = 500;

/// Files of rows that no model has seen.
const FILES: usize = 3;

/// A store with rows in files and a model, and the labels that the rows get on this machine.
struct Lake {
    store: S3,
    folder: Folder,
    expected: RecordBatch,
}

impl Lake {
    fn new() -> Result<Self> {
        let (store, folder) = (S3::start(&["lake"])?, Folder::new()?);
        for n in 0..FILES {
            let name = format!("papers/2026/part-{n}.parquet");
            let file = folder.parquet(&name, &BLOBS.rows(1000 + n * ROWS, ROWS)?)?;
            store.put(&file, &format!("lake/{name}"))?;
        }
        let blobs = models::blobs();
        let (input, out) = (folder.path("papers"), folder.path("expected.parquet"));
        thema(&["label", "--input", &input, "--model", &blobs.model, "--out", &out])?.succeeds()?;
        let model = std::path::Path::new(&blobs.model);
        harness::tables::copy_folder(model, &store.path("lake/models/blobs"))?;
        Ok(Self { expected: read_parquet(&out)?, store, folder })
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        thema_with(arguments, &self.store.variables())
    }

    /// Labels the rows by the model, all in the store.
    fn label(&self, out: &str) -> Result<Run> {
        self.run(&[
            "label",
            "--input",
            "s3://lake/papers/",
            "--model",
            "s3://lake/models/blobs",
            "--out",
            out,
        ])
    }

    /// Checks that the object `key` holds the labels that are expected, and that nothing was left beside it.
    fn check(&self, key: &str) -> Result<()> {
        let object = self.store.path(&format!("lake/{key}"));
        let labelled = read_parquet(&object.display().to_string())?;
        ensure!(labelled == self.expected, "{key} differs from what the same rows give on this machine");
        Ok(())
    }
}

#[test]
fn a_store_gives_what_files_give() -> Result<()> {
    let lake = Lake::new()?;
    let run = lake.label("s3://lake/labelled/all.parquet")?.succeeds()?;
    assert!(run.stdout.starts_with("1,500 rows labelled"), "{}", run.stdout);
    lake.check("labelled/all.parquet")?;
    lake.label("s3://lake/labelled/all.parquet")?
        .fails(2, &["s3://lake/labelled/all.parquet", "exists already"])?;

    // A model is fitted from and to a store, too, and is the same.
    let fit = |input: &str, out: &str| -> Result<Run> { lake.run(&models::fit_arguments(input, out)) };
    fit("s3://lake/papers/2026/part-*.parquet", "s3://lake/models/fresh")?.succeeds()?;
    fit(&lake.folder.path("papers"), &lake.folder.path("model"))?.succeeds()?;
    for part in ["codes.safetensors", "topics.parquet", "sample.parquet"] {
        let on_store = std::fs::read(lake.store.path(&format!("lake/models/fresh/v1/{part}")));
        let on_disk = std::fs::read(lake.folder.path(&format!("model/v1/{part}")));
        ensure!(on_store.context(part)? == on_disk.context(part)?, "{part} differs");
    }
    Ok(())
}

#[test]
fn whatever_goes_wrong_on_the_way_the_result_is_the_same() -> Result<()> {
    let lake = Lake::new()?;
    type Rule = fn(&Asked) -> Option<Fault>;
    let rules: [(&str, Rule); 4] = [
        ("busy", |asked| (asked.nth % 3 == 0).then_some(Fault::Busy)),
        ("cut", |asked| (asked.method == "GET" && asked.nth % 3 == 1).then_some(Fault::Cut)),
        // Parts of an upload are written again, and its beginning is made again.
        ("part-lost", |asked| (asked.method == "PUT" && asked.nth == 0).then_some(Fault::Lost)),
        ("end-lost", |asked| {
            (asked.method == "POST" && asked.query.starts_with("uploadId") && asked.nth <= 2)
                .then_some(Fault::Lost)
        }),
    ];
    for (name, rule) in rules {
        lake.store.fail(rule);
        let key = format!("labelled/{name}.parquet");
        lake.label(&format!("s3://lake/{key}"))?.succeeds()?;
        ensure!(lake.store.faults() > 0, "{name}: nothing went wrong");
        lake.store.fail(|_| None);
        lake.check(&key).context(name)?;
    }
    Ok(())
}

#[test]
fn a_model_whose_last_answer_is_lost_is_one_model() -> Result<()> {
    let lake = Lake::new()?;
    let is_lost = AtomicBool::new(false);
    lake.store.fail(move |asked| {
        let is_last = asked.method == "PUT" && asked.path.ends_with("/v1/model.json");
        (is_last && !is_lost.swap(true, Ordering::Relaxed)).then_some(Fault::Lost)
    });
    lake.run(&models::fit_arguments("s3://lake/papers/", "s3://lake/models/fresh"))?.succeeds()?;
    ensure!(lake.store.faults() == 1, "nothing was lost");
    ensure!(lake.store.path("lake/models/fresh/v1/model.json").is_file(), "no model");
    ensure!(!lake.store.path("lake/models/fresh/v2").exists(), "it was written twice");
    Ok(())
}

#[test]
fn only_the_columns_and_row_groups_that_are_needed_travel() -> Result<()> {
    let lake = Lake::new()?;
    let rows = BLOBS.rows(0, 2000)?;
    let mut random = Random::new(1, 1);
    let mut text = || (0..2000).map(|_| char::from(b'a' + (random.next() * 26.0) as u8)).collect::<String>();
    let heavy: ArrayRef = Arc::new(StringArray::from((0..2000).map(|_| text()).collect::<Vec<_>>()));
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        columns.push((field.name().clone(), Arc::clone(column)));
    }
    columns.push(("heavy".into(), heavy));
    let wide = RecordBatch::try_from_iter(columns)?;
    let file = lake.folder.path("wide.parquet");
    write_parquet(&file, wide.schema(), [Ok(wide)], 200)?;
    lake.store.put(&file, "lake/wide/all.parquet")?;
    let whole = std::fs::metadata(&file)?.len();

    let travelled = |name: &str, more: &[&str]| -> Result<u64> {
        lake.store.fail(|_| None);
        let out = lake.folder.path(name);
        let mut arguments = models::fit_arguments("s3://lake/wide/all.parquet", &out);
        arguments.extend(more);
        lake.run(&arguments)?.succeeds()?;
        Ok(lake.store.bytes())
    };
    let (all, some) = (travelled("all", &[])?, travelled("some", &["--where", "id < 600"])?);
    assert!(all * 5 < whole, "{all} of {whole} bytes travelled, and most are of a column that nobody reads");
    // Of either, the footer is a good part.
    assert!(some * 3 < all * 2, "{some} bytes travelled of three row groups in ten, {all} of all");
    Ok(())
}

#[test]
fn what_is_wrong_with_a_store_is_told_without_its_secret() -> Result<()> {
    let lake = Lake::new()?;
    let blobs = &models::blobs().model;
    let out = lake.folder.path("out.parquet");
    let label = |input: &str, wrong: Option<(&'static str, &str)>| -> Result<Run> {
        let mut variables = lake.store.variables();
        variables.extend(wrong.map(|(name, value)| (name, value.to_string())));
        thema_with(&["label", "--input", input, "--model", blobs, "--out", &out], &variables)
    };
    for (input, wrong, code, words) in [
        ("s3://lake/papers/", Some(("AWS_SECRET_ACCESS_KEY", "guessed")), 2, "does not let us in"),
        ("s3://lake/papers/", Some(("AWS_ACCESS_KEY_ID", "nobody")), 2, "does not let us in"),
        ("s3://no-such-bucket/papers/", None, 2, "no such bucket"),
        ("s3://lake/empty/", None, 2, "no such file, and no folder with files in it"),
        ("s3://lake/papers/2026/part-9.parquet", None, 2, "no such file"),
    ] {
        let run = label(input, wrong)?.fails(code, &[input, words])?;
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(!said.contains(lake.store.secret()) && !said.contains("guessed"), "{said}");
    }
    Ok(())
}
