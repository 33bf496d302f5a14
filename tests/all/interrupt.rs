//! Ctrl-C: a run stops soon, says so, and leaves what was there before.

use std::fs;

use anyhow::{Result, ensure};
use harness::program::start;
use harness::tables::{Folder, write_parquet};

use crate::models::{self, BLOBS, ENCODER, PAPERS};

#[test]
fn an_interrupted_label_leaves_no_file_behind() -> Result<()> {
    let folder = Folder::new()?;
    let input = many_rows(&folder)?;
    let out = folder.path("out.parquet");
    // So many voters that there is work for minutes.
    let mut run = start(&[
        "label",
        "--input",
        &input,
        "--model",
        &models::blobs().model,
        "--top-k",
        "600",
        "--out",
        &out,
    ])?;
    run.wait_for("threshold")?;
    run.interrupt()?;
    run.wait()?.fails(130, &["stopped"])?;
    assert_eq!(folder.names()?, ["rows.parquet"]);
    Ok(())
}

#[test]
fn an_interrupted_overwrite_leaves_the_old_output() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.write("out.parquet", "what was there before")?;
    // Thousands of abstracts take minutes.
    let arguments = ["embed", "--input", PAPERS, "--text", "{abstract}", "--encoder", ENCODER, "--out", &out];
    let mut run = start(&[&arguments[..], &["--overwrite"]].concat())?;
    run.wait_for("loaded")?;
    // As a cluster ends a program.
    run.signal("TERM")?;
    run.wait()?.fails(130, &["stopped"])?;
    assert_eq!(fs::read_to_string(&out)?, "what was there before");
    assert_eq!(folder.names()?, ["out.parquet"]);
    Ok(())
}

#[test]
fn an_interrupted_fit_leaves_no_model() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("model");
    let mut run =
        start(&["fit", "--input", PAPERS, "--text", "{abstract}", "--encoder", ENCODER, "--out", &out])?;
    run.wait_for("reading: ")?;
    run.interrupt()?;
    let run = run.wait()?.fails(130, &["stopped"])?;
    ensure!(run.stderr.contains("run the same command again"), "{}", run.stderr);
    assert_eq!(folder.names()?, [""; 0]);
    Ok(())
}

#[test]
fn an_interrupted_audit_leaves_no_empty_file_and_keeps_an_old_one() -> Result<()> {
    for old in [None, Some("what was there before")] {
        let folder = Folder::new()?;
        let out = folder.path("audit.json");
        if let Some(old) = old {
            folder.write("audit.json", old)?;
        }
        // Embedding thousands of abstracts takes minutes.
        let audit =
            ["eval", "--quantization", "--input", PAPERS, "--text", "{abstract}", "--encoder", ENCODER];
        let mut run = start(&[&audit[..], &["--out", &out, "--overwrite"]].concat())?;
        run.wait_for("reading: ")?;
        run.interrupt()?;
        run.wait()?.fails(130, &["stopped"])?;
        assert_eq!(fs::read_to_string(&out).ok().as_deref(), old);
    }
    Ok(())
}

fn many_rows(folder: &Folder) -> Result<String> {
    let path = folder.path("rows.parquet");
    let batch = BLOBS.rows(0, 50_000)?;
    write_parquet(&path, batch.schema(), (0..8).map(|_| Ok(batch.clone())), 50_000)?;
    Ok(path)
}
