//! Runs that end before their time: what they have done stands, and the next one does the rest.

use super::Lake;
use super::units::rows_of;
use crate::models::{self, BLOBS};
use anyhow::{Result, ensure};
use harness::disk::SmallDisk;
use harness::program::thema;
use harness::tables::{Folder, ints, read_parquet};
use std::fs;

/// The rows of a file.
const ROWS: usize = 2000;

#[test]
fn a_full_disk_ends_a_run_and_the_next_one_does_the_rest() -> Result<()> {
    let folder = Folder::new()?;
    for file in 0..4 {
        folder.parquet(&format!("in/{file}.parquet"), &BLOBS.rows(1000 + file * ROWS, ROWS)?)?;
    }
    let (input, model, all) = (folder.path("in"), &models::blobs().model, folder.path("all.parquet"));
    thema(&["label", "--input", &input, "--model", model, "--out", &all])?.succeeds()?;
    let bytes = fs::metadata(&all)?.len() as usize;
    for what in ["", "delta:"] {
        let disk = folder.path(&format!("disk{}", what.len()));
        let Some(_mounted) = SmallDisk::mount(&disk, 2 * bytes)? else {
            println!("not run here: mounting a small file system is not allowed");
            return Ok(());
        };
        let filler = format!("{disk}/filler");
        fs::write(&filler, vec![1_u8; 3 * bytes / 2])?;
        let place = format!("{disk}/out");
        let out = if what.is_empty() { format!("{place}/") } else { format!("{what}{place}") };
        let label = ["label", "--input", &input, "--model", model, "--out", &out];
        thema(&label)?.fails(4, &["No space left on device"])?;
        fs::remove_file(&filler)?;
        thema(&label)?.succeeds()?;
        let found = match what {
            "" => ints(&rows_of(&place)?, "topic")?.len(),
            _ => harness::delta::rows(&place, &["id"])?.len(),
        };
        ensure!(found == 4 * ROWS, "{found} rows in {out}");
        let run = thema(&label)?.succeeds()?;
        ensure!(run.stdout.starts_with("nothing new: 4 files"), "{}", run.stdout);
    }
    Ok(())
}

#[test]
fn a_file_that_is_deleted_while_a_run_reads_is_named_and_the_rest_can_be_done() -> Result<()> {
    let lake = Lake::new()?;
    let gone = lake.store.path("lake/papers/2026/part-1.parquet");
    let kept = lake.folder.path("kept.parquet");
    fs::copy(&gone, &kept)?;
    let (place, done) = (gone.clone(), lake.store.path("lake/labelled/_thema/plans"));
    lake.store.fail(move |asked| {
        // Between the plan and the reading.
        if done.is_dir() && asked.method == "GET" {
            let _ = fs::remove_file(&place);
        }
        None
    });
    lake.label("s3://lake/labelled/")?.fails(3, &["part-1.parquet: is gone: it was deleted meanwhile"])?;
    lake.store.fail(|_| None);
    let run = lake.label("s3://lake/labelled/")?.succeeds()?;
    ensure!(run.stderr.contains("their files are gone"), "{}", run.stderr);
    let labelled = lake.store.path("lake/labelled").display().to_string();
    ensure!(rows_of(&labelled)?.num_rows() == 2 * super::ROWS, "other rows than those of two files");
    // And when it is there again, it is done.
    fs::copy(&kept, &gone)?;
    ensure!(read_parquet(&kept)?.num_rows() == super::ROWS);
    lake.label("s3://lake/labelled/")?.succeeds()?;
    ensure!(rows_of(&labelled)? == lake.expected, "the labels differ");
    Ok(())
}
