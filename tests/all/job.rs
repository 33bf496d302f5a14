//! The job file: partial or whole, with flags that win; and `thema check`, which only looks.

use std::fs;

use anyhow::{Result, ensure};
use arrow::array::{Array, AsArray};
use harness::program::thema;
use harness::tables::{Folder, column, ints, read_parquet};
use serde_json::{Value, json};

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
    thema(&["check", &missing, "--input", &rows])?
        .fails(2, &["no column \"titel\"", "\"text\"", "\"truth\""])?;
    thema(&["check"])?.fails(2, &["nothing to check", "JOB.yaml"])?;
    Ok(())
}

#[test]
fn check_finds_what_a_run_would_stumble_over() -> Result<()> {
    let folder = Folder::new()?;
    let rows = folder.parquet("rows.parquet", &BLOBS.rows(0, 10)?)?;
    for (text, words) in [
        ("keep: topik = 1", ["keep \"topik = 1\"", "did you mean \"topic\"?"]),
        ("keep: new_topic = 1", ["keep", "new_topic"]),
        ("keep: topic = 'a'", ["keep", "'a'"]),
        ("id: idd", ["\"idd\"", "did you mean \"id\"?"]),
        ("precision: int8\nlegacy: true", ["precision", "calibration"]),
        ("legacy: true", ["float32", "no legacy rule"]),
        ("prefix: new_\nsink: { jsonl: { path: out.parquet } }", ["out.parquet", "another format"]),
        ("precision: int8", ["precision", "calibration"]),
        ("precision: int8\nranges: none.npy", ["none.npy", ""]),
        ("text: \"{text}\"\ndate: embedding", ["\"embedding\"", "expected a date"]),
        ("text: \"{text}\"\nshow: \"{txt}\"", ["\"txt\"", "did you mean \"text\"?"]),
        ("label: { coverage: 2 }", ["coverage", "between 0 and 1"]),
        ("encoder: { column: text }", ["\"text\"", "expected embeddings"]),
        ("fit: { labeller: { llm: { chat: { model: m } } } }", ["chat.endpoint.url", "is not given"]),
        (
            "fit: { taxonomy: { llm: { endpoint: { url: 'http://a/v1', key: '${NO_SUCH_KEY}' }, model: m } } }",
            ["fit.taxonomy.llm.endpoint.key", "NO_SUCH_KEY"],
        ),
        (
            "fit: { taxonomy: { llm: { endpoint: { url: 'http://a/v1' }, model: m, prompts: none.yaml } } }",
            ["none.yaml", "No such file"],
        ),
        ("fit: { given: { topics: [{ name: a }, { name: A }] } }", ["\"A\"", "twice"]),
        ("encoder: { name: none-such }\ntext: \"{text}\"", ["none-such", "is not on this machine"]),
    ] {
        let job = folder.write("job.yaml", text)?;
        thema(&["check", &job, "--input", &rows])?.fails(2, &words)?;
    }
    let llm = "fit: { labeller: { llm: { chat: { endpoint: { url: 'http://a/v1' }, model: m } } } }";
    let run = thema(&["check", &folder.write("job.yaml", llm)?, "--input", &rows])?.succeeds()?;
    let told = "names    m at http://a/v1, no key, built-in prompts; not asked";
    ensure!(run.stdout.contains(told), "no {told:?} in\n{}", run.stdout);
    let job =
        folder.write("job.yaml", "keep: new_topic = 1\nprefix: new_\nencoder: { column: embedding }\n")?;
    let run = thema(&["check", &job, "--input", &rows])?.succeeds()?;
    for words in ["fit      still needs text, model", "label    still needs model, sink", "column embedding"]
    {
        ensure!(run.stdout.contains(words), "no {words:?} in\n{}", run.stdout);
    }
    Ok(())
}

#[test]
fn the_reference_of_a_job_file_is_a_job_file() -> Result<()> {
    let folder = Folder::new()?;
    let reference = thema(&["check", "--reference"])?.succeeds()?.stdout;
    let job = folder.write("job.yaml", &reference)?;
    // It is read to the end: what it names is not there.
    thema(&["check", &job])?.fails(2, &["papers/", "no such file"])?;
    Ok(())
}

#[test]
fn a_label_section_changes_only_what_it_names() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let input = folder.parquet("rows.parquet", &models::blob_rows()?)?;
    // The model was fitted to list no topics; a job that names top_k alone keeps that.
    let model = folder.path("model");
    let text = "label: { top_topics: 0, outliers: abstain }\n";
    let fit = folder.write("fit.yaml", text)?;
    thema(&[&["fit", &fit][..], &models::fit_arguments(&input, &model)[1..]].concat())?.succeeds()?;
    let label = folder.write("label.yaml", "label: { top_k: 3 }\n")?;
    let out = folder.path("out.parquet");
    thema(&["label", &label, "--input", &blobs.input, "--model", &model, "--out", &out])?.succeeds()?;
    let rows = read_parquet(&out)?;
    let lists = column(&rows, "topics")?.as_list::<i32>();
    ensure!((0..lists.len()).all(|row| lists.value_length(row) == 0), "topics are listed");
    Ok(())
}

#[test]
fn the_summary_is_one_line_of_json_where_that_is_wanted() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let out = folder.path("out.parquet");
    let label = ["label", "--input", &blobs.input, "--model", &blobs.model, "--out", &out, "--log", "json"];
    let run = thema(&label)?.succeeds()?;
    let told: Value = serde_json::from_str(&run.stdout)?;
    assert_eq!((&told["rows"], &told["out"]), (&json!(600), &json!(out)));
    let lines = run.stderr.lines().map(serde_json::from_str::<Value>);
    assert!(lines.collect::<Result<Vec<_>, _>>()?.iter().all(|line| line["level"].is_string()));
    Ok(())
}
