//! The same on stores that others wrote: a second S3, and Azure.

use super::table::same_labels;
use super::units::rows_of;
use crate::models::{self, BLOBS};
use anyhow::{Result, ensure};
use harness::program::{Run, thema, thema_with};
use harness::stores::Store;
use harness::tables::{Folder, read_parquet};
use std::path::Path;

/// The rows of a file.
const ROWS: usize = 200;

/// Labels what is new in a store by a model in it, into a folder and a table, and checks what is there then.
fn the_same_as_on_files(store: &Store) -> Result<()> {
    let (folder, model) = (Folder::new()?, &models::blobs().model);
    for file in 0..3 {
        folder.parquet(&format!("in/{file}.parquet"), &BLOBS.rows(file * ROWS, ROWS)?)?;
    }
    let (input, expected) = (folder.path("in"), folder.path("expected.parquet"));
    thema(&["label", "--input", &input, "--model", model, "--out", &expected])?.succeeds()?;
    let expected = read_parquet(&expected)?;
    store.put(Path::new(&input), "in")?;
    store.put(Path::new(model), "model")?;

    let (input, model) = (store.url("in/"), store.url("model"));
    let label = |out: &str| -> Result<Run> {
        let what = ["label", "--input", &input, "--model", &model, "--out", out];
        thema_with(&what, store.variables())?.succeeds()
    };
    for (name, out) in [("out", store.url("out/")), ("table", format!("delta:{}", store.url("table")))] {
        let run = label(&out)?;
        assert!(run.stdout.starts_with("600 rows labelled"), "{}", run.stdout);
        let run = label(&out)?;
        assert!(run.stdout.starts_with("nothing new: 3 files"), "{}", run.stdout);
        store.get(name, Path::new(&folder.path(name)))?;
    }
    ensure!(rows_of(&folder.path("out"))? == expected, "the labels differ");
    same_labels(&folder.path("table"), &expected)?;
    let file = store.url("one.parquet");
    label(&file)?;
    let what = ["label", "--input", &input, "--model", &model, "--out", &file];
    thema_with(&what, store.variables())?.fails(2, &["exists already"])?;
    Ok(())
}

#[test]
fn a_second_s3_does_as_the_first() -> Result<()> {
    the_same_as_on_files(&Store::moto()?)
}

#[test]
fn azure_does_as_s3() -> Result<()> {
    let azurite = Store::azurite()?;
    the_same_as_on_files(&azurite)?;
    // A signature in the address is a secret.
    let mut variables = azurite.variables().to_vec();
    variables.retain(|(name, _)| *name != "AZURE_STORAGE_ACCOUNT_KEY");
    variables.push(("AZURE_STORAGE_SAS_TOKEN", "sv=2021-08-06&sig=never-to-be-printed".into()));
    let out = Folder::new()?.path("out.parquet");
    let (input, model) = (azurite.url("in/"), &models::blobs().model);
    let what = ["label", "--input", &input, "--model", model, "--out", &out];
    let run = thema_with(&what, &variables)?.fails(2, &["does not let us in"])?;
    ensure!(!format!("{}{}", run.stdout, run.stderr).contains("never-to-be-printed"), "{}", run.stderr);
    Ok(())
}
