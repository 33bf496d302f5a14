//! Models that several tests read, fitted once a run; no test writes to them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Result;
use arrow::array::RecordBatch;
use harness::program::thema;
use harness::tables::{Blobs, write_parquet};

/// The real papers.
pub const PAPERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/papers.parquet");

/// The rows that [`papers`] is fitted on.
pub const PAPERS_ROWS: usize = 400;

/// The encoder.
pub const ENCODER: &str = "all-MiniLM-L6-v2";

/// Four clusters in 16 dimensions: what [`blobs`] is fitted on.
pub const BLOBS: Blobs = Blobs { clusters: 4, dim: 16, seed: 1 };

/// The rows that [`blobs`] is fitted on.
pub const BLOBS_ROWS: usize = 600;

/// A model, and what it was fitted on.
pub struct Fitted {
    /// Its folder.
    pub model: String,
    /// The table.
    pub input: String,
}

/// The model of the titles of the first 400 papers.
pub fn papers() -> &'static Fitted {
    static FITTED: LazyLock<Fitted> = LazyLock::new(|| once(fit_papers()));
    &FITTED
}

/// The model of 600 points in four clusters.
pub fn blobs() -> &'static Fitted {
    static FITTED: LazyLock<Fitted> = LazyLock::new(|| once(fit_blobs()));
    &FITTED
}

/// The rows that [`blobs`] is fitted on.
pub fn blob_rows() -> Result<RecordBatch> {
    BLOBS.rows(0, BLOBS_ROWS)
}

/// The arguments of a fit on a table of blobs; the caller adds what it changes.
pub fn fit_arguments<'a>(input: &'a str, out: &'a str) -> Vec<&'a str> {
    let what = ["fit", "--input", input, "--out", out, "--embeddings", "embedding"];
    let how = ["--text", "{text}", "--id", "id", "--min-cluster-size", "30"];
    what.into_iter().chain(how).collect()
}

fn fit_papers() -> Result<Fitted> {
    let model = place("papers")?;
    let rows = format!("0..{PAPERS_ROWS}");
    let run = thema(&[
        "fit",
        "--input",
        PAPERS,
        "--rows",
        &rows,
        "--id",
        "id",
        "--date",
        "date",
        "--text",
        "{title}",
        "--encoder",
        ENCODER,
        "--min-cluster-size",
        "8",
        "--title",
        "Papers",
        "--out",
        &model,
    ])?;
    run.succeeds()?;
    Ok(Fitted { model, input: PAPERS.into() })
}

fn fit_blobs() -> Result<Fitted> {
    let model = place("blobs")?;
    let input = format!("{model}.rows.parquet");
    let rows = blob_rows()?;
    write_parquet(&input, rows.schema(), [Ok(rows)], 1 << 20)?;
    thema(&fit_arguments(&input, &model))?.succeeds()?;
    Ok(Fitted { model, input })
}

/// An empty folder under the target folder: what statics hold is never dropped, so a temporary one would stay.
fn place(name: &str) -> Result<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder.join("model").display().to_string())
}

/// Fails every test that needs what could not be made.
fn once(fitted: Result<Fitted>) -> Fitted {
    fitted.unwrap_or_else(|error| panic!("{error:?}"))
}
