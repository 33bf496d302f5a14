//! Vectors from an endpoint, which is a test double ([`harness::endpoint`]): a text's vector counts its letters.

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use harness::endpoint::{DIMENSIONS, Endpoint, Fault};
use harness::program::{Run, start_with, thema_with};
use harness::tables::{Folder, read_parquet, strings};
use std::sync::Arc;
use std::time::Duration;

use crate::models;

/// An endpoint, and a folder with a cache of its own.
struct Setting {
    folder: Folder,
    endpoint: Endpoint,
}

impl Setting {
    fn new() -> Result<Self> {
        Ok(Self { folder: Folder::new()?, endpoint: Endpoint::start()? })
    }

    fn run(&self, arguments: &[&str]) -> Result<Run> {
        let remote = [
            "--encoder",
            "letters",
            "--encoder-url",
            &self.endpoint.url,
            "--encoder-key",
            "${THEMA_TEST_KEY}",
        ];
        let variables = [("THEMA_CACHE", self.folder.path("cache")), ("THEMA_TEST_KEY", "sk-letters".into())];
        thema_with(&[arguments, &remote].concat(), &variables)
    }

    /// Embeds these texts to a file.
    fn embed(&self, texts: &[String], more: &[&str]) -> Result<Run> {
        let column = Arc::new(StringArray::from_iter_values(texts));
        let input =
            self.folder.parquet("texts.parquet", &RecordBatch::try_from_iter([("text", column as _)])?)?;
        let out = self.folder.path("out.parquet");
        let arguments = ["embed", "--input", &input, "--text", "{text}", "--out", &out, "--overwrite"];
        self.run(&[&arguments[..], more].concat())
    }

    /// The vectors of the file, with their texts.
    fn embedded(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let rows = read_parquet(&self.folder.path("out.parquet"))?;
        let column = rows.column_by_name("embedding").context("no embedding")?.as_fixed_size_list();
        let width = column.value_length() as usize;
        let values =
            column.values().as_primitive::<Float32Type>().values().chunks(width).map(<[f32]>::to_vec);
        Ok(strings(&rows, "text")?.into_iter().zip(values).collect())
    }
}

fn letters(text: &str) -> Vec<f32> {
    let count = |letter: u8| text.to_lowercase().bytes().filter(|byte| *byte == letter).count() as f32;
    (b'a'..=b'z').map(count).collect()
}

fn texts(rows: std::ops::Range<usize>) -> Vec<String> {
    rows.map(|row| format!("row {row} of {}", ["apples", "pears", "plums"][row % 3])).collect()
}

/// The requests for more than the one vector that tells the dimensions.
fn asked(endpoint: &Endpoint) -> Vec<usize> {
    let inputs = endpoint
        .requests()
        .iter()
        .filter_map(|request| request["input"].as_array().map(Vec::len))
        .collect::<Vec<_>>();
    inputs.into_iter().skip(1).collect()
}

#[test]
fn every_row_has_its_own_vector_and_no_text_is_sent_twice() -> Result<()> {
    let setting = Setting::new()?;
    setting.embed(&texts(0..300), &[])?.succeeds()?;
    let found = setting.embedded()?;
    assert_eq!(found.len(), 300);
    for (text, vector) in &found {
        assert_eq!(*vector, letters(text), "{text}");
    }
    assert_eq!(asked(&setting.endpoint).iter().sum::<usize>(), 300);
    ensure!(setting.endpoint.keys().iter().all(|key| key.as_deref() == Some("Bearer sk-letters")));
    let before = setting.endpoint.calls();
    setting.embed(&texts(0..300), &[])?.succeeds()?;
    assert_eq!(setting.endpoint.calls(), before, "a second run asks nothing");
    // Other company, another order: only what is new is sent.
    let mut mixed = texts(250..320);
    mixed.reverse();
    setting.embed(&mixed, &[])?.succeeds()?;
    assert_eq!(asked(&setting.endpoint)[before - 1..].iter().sum::<usize>(), 20);
    for (text, vector) in setting.embedded()? {
        assert_eq!(vector, letters(&text), "{text}");
    }
    Ok(())
}

#[test]
fn repeated_texts_are_sent_once_and_blank_ones_never() -> Result<()> {
    let setting = Setting::new()?;
    let repeated: Vec<String> = (0..60).map(|row| ["apples", " ", "pears"][row % 3].to_string()).collect();
    setting.embed(&repeated, &[])?.succeeds()?;
    assert_eq!(asked(&setting.endpoint).iter().sum::<usize>(), 2);
    for (text, vector) in setting.embedded()? {
        assert_eq!(vector, letters(&text), "{text:?}");
    }
    setting.embed(&vec![String::new(); 5], &[])?.succeeds()?;
    assert_eq!(setting.embedded()?[4].1, vec![0.0; DIMENSIONS]);
    Ok(())
}

#[test]
fn ctrl_c_ends_the_waiting_for_vectors() -> Result<()> {
    let setting = Setting::new()?;
    setting.embed(&texts(0..1), &[])?.succeeds()?;
    setting.endpoint.always(Some(Fault::Slow(Duration::from_secs(3600))));
    let (input, out) = (setting.folder.path("texts.parquet"), setting.folder.path("other.parquet"));
    let column = Arc::new(StringArray::from_iter_values(texts(10..20)));
    setting.folder.parquet("texts.parquet", &RecordBatch::try_from_iter([("text", column as _)])?)?;
    let what = ["embed", "--input", &input, "--text", "{text}", "--out", &out, "--encoder", "letters"];
    let remote = ["--encoder-url", &setting.endpoint.url, "--encoder-key", "${THEMA_TEST_KEY}"];
    let variables = [("THEMA_CACHE", setting.folder.path("cache")), ("THEMA_TEST_KEY", "sk-letters".into())];
    let calls = setting.endpoint.calls();
    let running = start_with(&[&what[..], &remote].concat(), &variables)?;
    setting.endpoint.wait_for_calls(calls + 1)?;
    running.interrupt()?;
    running.wait()?.fails(130, &["stopped"])?;
    ensure!(!std::path::Path::new(&out).exists());
    Ok(())
}

#[test]
fn what_is_for_encoders_here_is_refused() -> Result<()> {
    let setting = Setting::new()?;
    setting
        .embed(&texts(0..2), &["--prompt", "query"])?
        .fails(2, &["encoder.prompt", "stands in the text's template"])?;
    setting.embed(&texts(0..2), &["--weights", "int8"])?.fails(2, &["encoder.weights"])?;
    assert_eq!(setting.endpoint.calls(), 0);
    Ok(())
}

#[test]
fn limits_of_small_servers_are_found() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.refuse("encoding_format", "unknown field encoding_format");
    setting.endpoint.take_at_most(32);
    let run = setting.embed(&texts(0..200), &[])?.succeeds()?;
    for (text, vector) in setting.embedded()? {
        assert_eq!(vector, letters(&text), "{text}");
    }
    ensure!(run.stderr.contains("encoder letters: "), "{}", run.stderr);
    // Faults that pass do no harm.
    setting.endpoint.fail([
        Fault::Status(429, vec![("retry-after-ms", "10")], "{}"),
        Fault::Body("application/json", "{\"data\": []}"),
        Fault::Status(502, vec![("retry-after", "0")], "<html>"),
    ]);
    setting.embed(&texts(200..300), &[])?.succeeds()?;
    assert_eq!(setting.embedded()?.len(), 100);
    Ok(())
}

#[test]
fn shorter_vectors_are_asked_for() -> Result<()> {
    let setting = Setting::new()?;
    setting.embed(&texts(0..10), &["--dimensions", "8"])?.succeeds()?;
    for (text, vector) in setting.embedded()? {
        assert_eq!(vector, letters(&text)[..8], "{text}");
    }
    ensure!(DIMENSIONS > 8);
    Ok(())
}

#[test]
fn failures_say_who_must_act() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.refuse("poison", "This model's maximum context length is 8192 tokens");
    let mut poisoned = texts(0..20);
    poisoned[7] = "poison of the row".into();
    setting
        .embed(&poisoned, &[])?
        .fails(2, &["maximum context length", "poison of the row", "max_characters"])?;
    setting.endpoint.always(Some(Fault::Status(
        401,
        vec![],
        "{\"error\": {\"message\": \"wrong key: sk-letters\"}}",
    )));
    let run = setting.embed(&texts(20..30), &[])?.fails(2, &["wrong key: (the key)"])?;
    ensure!(!run.stderr.contains("sk-letters"));
    let quota = "{\"error\": {\"message\": \"pay first\", \"code\": \"insufficient_quota\"}}";
    setting.endpoint.always(Some(Fault::Status(429, vec![], quota)));
    setting.embed(&texts(20..30), &[])?.fails(4, &["pay first"])?;
    Ok(())
}

#[test]
fn a_model_is_fitted_and_labels_by_an_endpoint() -> Result<()> {
    let setting = Setting::new()?;
    let (model, out) = (setting.folder.path("model"), setting.folder.path("labelled.parquet"));
    let input = &models::blobs().input;
    let fit = [
        "fit",
        "--input",
        input,
        "--text",
        "{text}",
        "--id",
        "id",
        "--min-cluster-size",
        "30",
        "--out",
        &model,
    ];
    setting.run(&fit)?.succeeds()?;
    let before = setting.endpoint.calls();
    // The model says by itself which encoder it is; its texts' vectors are kept.
    let label = ["label", "--input", input, "--model", &model, "--out", &out];
    let variables = [("THEMA_CACHE", setting.folder.path("cache")), ("THEMA_TEST_KEY", "sk-letters".into())];
    thema_with(&label, &variables)?.succeeds()?;
    assert_eq!(setting.endpoint.calls(), before);
    assert_eq!(read_parquet(&out)?.num_rows(), models::BLOBS_ROWS);
    let manifest = std::fs::read_to_string(format!("{model}/v1/model.json"))?;
    ensure!(manifest.contains("${THEMA_TEST_KEY}") && !manifest.contains("sk-letters"));
    Ok(())
}
