//! The job file: partial or whole, with flags that win; and `thema check`, which only looks.

use std::fs;

use anyhow::{Result, ensure};
use harness::program::thema;
use harness::tables::{Folder, ints, read_parquet};

use crate::models::{self, BLOBS, ENCODER, PAPERS};

#[test]
fn a_job_file_says_all_of_a_fit_and_of_a_label_run() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let (model, out) = (folder.path("model"), folder.path("labelled.jsonl"));
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ table: {{ path: \"{input}\", where: \"truth < 3\" }} }}\n\
             id: id\n\
             text: \"{{text}}\"\n\
             encoder: {{ column: embedding }}\n\
             model: \"{model}\"\n\
             fit:\n  clusterer: {{ hdbscan: {{ min_cluster_size: 30 }} }}\n\
             label: {{ top_k: 5, coverage: 1.0 }}\n\
             keep: \"topic = 1\"\n\
             sink: {{ jsonl: {{ path: \"{out}\" }} }}\n"
        ),
    )?;
    let fit = thema(&["fit", &job])?.succeeds()?;
    assert!(fit.stdout.starts_with("3 topics in 450 rows"), "{}", fit.stdout);
    thema(&["label", &job])?.succeeds()?;
    let text = fs::read_to_string(&out)?;
    assert!(text.lines().count() > 100 && text.lines().all(|line| line.contains("\"topic\":1,")));

    // Flags win over the file, and what they do not name stays.
    let other = folder.path("other.parquet");
    let flags = ["--out", &other, "--where", "truth < 2", "--keep", "topic = 0"];
    let run = thema(&[&["label", &job], &flags[..]].concat())?.succeeds()?;
    assert!(run.stdout.starts_with("300 rows labelled"), "{}", run.stdout);
    assert!(ints(&read_parquet(&other)?, "topic")?.iter().all(|topic| *topic == 0));
    assert_eq!(fs::read_to_string(&out)?, text);
    Ok(())
}

#[test]
fn flags_fill_in_a_partial_job_file() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let job = folder.write(
        "job.yaml",
        "fit: { clusterer: { hdbscan: { min_cluster_size: 500 } } }\ntext: \"{text}\"\n",
    )?;
    let arguments = ["fit", &job, "--input", &input, "--embeddings", "embedding", "--id", "id", "--out"];
    // Clusters of at least 500 of 600 rows: there are none. The flag wins.
    let none = folder.path("none");
    let run = thema(&[&arguments[..], &[&none]].concat())?.succeeds()?;
    assert!(
        run.stdout.starts_with("0 topics") && run.stderr.contains("--min-cluster-size"),
        "{}",
        run.stderr
    );
    let four = folder.path("four");
    let run = thema(&[&arguments[..], &[&four, "--min-cluster-size", "30"]].concat())?.succeeds()?;
    assert!(run.stdout.starts_with("4 topics"), "{}", run.stdout);
    Ok(())
}

#[test]
fn what_neither_file_nor_flags_say_is_asked_for() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("out.parquet");
    let model = &models::blobs().model;
    for (arguments, words) in [
        (vec!["label", "--model", model, "--out", &out], ["--input", "source:"]),
        (vec!["label", "--input", PAPERS, "--out", &out], ["--model", "model:"]),
        (vec!["label", "--input", PAPERS, "--model", model], ["--out", "sink:"]),
        (vec!["fit", "--input", PAPERS, "--encoder", ENCODER, "--out", &out], ["--text", "text:"]),
        (vec!["fit", "--input", PAPERS, "--text", "{title}", "--out", &out], ["--encoder", "--embeddings"]),
    ] {
        thema(&arguments)?.fails(2, &words)?;
    }
    assert_eq!(folder.names()?, [""; 0]);
    Ok(())
}

#[test]
fn check_tells_what_a_job_would_read_and_writes_nothing() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("labelled.parquet");
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ table: {{ path: \"{PAPERS}\", where: \"year >= 2024\" }} }}\n\
             id: id\ntext: \"{{title}}: {{abstract}}\"\nencoder: {{ name: {ENCODER} }}\n\
             model: \"{}\"\nsink: {{ parquet: {{ path: \"{out}\" }} }}\n",
            models::blobs().model
        ),
    )?;
    let run = thema(&["check", &job])?.succeeds()?;
    for words in
        ["papers.parquet: 1 file", "title Utf8", "384 dimensions", "version 1", "free", "year >= 2024"]
    {
        ensure!(run.stdout.contains(words), "no {words:?} in\n{}", run.stdout);
    }
    assert_eq!(folder.names()?, ["job.yaml"]);

    let wrong = folder.write("wrong.yaml", "source: { table: { path: x.parquet } }\nmodell: x\n")?;
    thema(&["check", &wrong])?.fails(2, &["wrong.yaml", "modell", "line 2", "model"])?;
    let rows = folder.parquet("rows.parquet", &BLOBS.rows(0, 10)?)?;
    let column = "text: \"{titel}\"\nencoder: { column: embedding }\n";
    let missing = folder.write("missing.yaml", column)?;
    thema(&["check", &missing, "--input", &rows])?.fails(2, &["titel", "there are", "text", "truth"])?;
    Ok(())
}
