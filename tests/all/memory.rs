//! Labelling in bounded memory: ten times the rows, the same peak.

use anyhow::Result;
use harness::program::thema;
use harness::tables::{Blobs, Folder, write_parquet};
use serde_json::Value;

use crate::models::fit_arguments;

/// Four clusters in 32 dimensions.
const WIDE: Blobs = Blobs { clusters: 4, dim: 32, seed: 3 };

/// Rows made once and written again and again: making them costs more than labelling them.
const REPEATED: usize = 50_000;

#[test]
fn a_million_rows_are_labelled_in_the_memory_of_a_hundred_thousand() -> Result<()> {
    let folder = Folder::new()?;
    let sample = folder.parquet("sample.parquet", &WIDE.rows(0, 400)?)?;
    let model = folder.path("model");
    thema(&fit_arguments(&sample, &model))?.succeeds()?;

    let batch = WIDE.rows(1000, REPEATED)?;
    let peak_kib = |rows: usize| -> Result<u64> {
        let input = folder.path("rows.parquet");
        let batches = (0..rows / REPEATED).map(|_| Ok(batch.clone()));
        write_parquet(&input, batch.schema(), batches, REPEATED)?;
        let out = folder.path("labelled.parquet");
        let label = ["label", "--input", &input, "--model", &model, "--out", &out];
        let run = thema(&[&label[..], &["--overwrite", "--log", "json"]].concat())?.succeeds()?;
        let told: Value = serde_json::from_str(&run.stdout)?;
        assert_eq!(told["rows"], rows);
        Ok(run.peak_kib)
    };
    let (few, many) = (peak_kib(100_000)?, peak_kib(1_000_000)?);
    // 900,000 more rows are 115 MB of vectors alone, before texts and labels. The longer run fills every queue, and has
    // more parts of the output on their way to the disk.
    assert!(many * 2 < few * 3, "{few} KiB for 100,000 rows, {many} KiB for 1,000,000");
    Ok(())
}
