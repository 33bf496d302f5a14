//! `thema classify` and `thema similarity`: texts beside given topics, and beside each other.

use anyhow::{Result, ensure};
use harness::program::thema;
use harness::tables::{Folder, floats, ints, read_parquet, strings};
use serde_json::Value;

use crate::models::{ENCODER, PAPERS};

const TOPICS: &str = "- name: translation
  description: machine translation of text from one language into another
- { name: speech, description: recognition of speech and spoken language }
- { name: medicine, description: 'clinical notes, patients and diseases', threshold: 0.99 }
";

#[test]
fn papers_go_to_the_topic_that_they_are_most_similar_to() -> Result<()> {
    let folder = Folder::new()?;
    let topics = folder.write("topics.yaml", TOPICS)?;
    let (out, picture) = (folder.path("out.parquet"), folder.path("matrix.svg"));
    let run = |more: &[&str]| {
        let base =
            ["classify", "--input", PAPERS, "--rows", "0..120", "--text", "{title}", "--encoder", ENCODER];
        let rest = ["--topics", &topics, "--out", &out, "--overwrite"];
        thema(&[&base[..], &rest, more].concat())
    };
    run(&["--matrix", "--picture", &picture, "--picture-rows", "20"])?.succeeds()?;
    let rows = read_parquet(&out)?;
    let (titles, topic, names) =
        (strings(&rows, "title")?, ints(&rows, "topic")?, strings(&rows, "topic_name")?);
    assert_eq!(rows.num_rows(), 120);
    for ((title, topic), name) in titles.iter().zip(&topic).zip(&names) {
        ensure!(
            ["translation", "speech"].get(usize::try_from(*topic)?) == Some(&name.as_str()),
            "{topic} {name}"
        );
        if title.contains("Machine Translation") {
            assert_eq!(name, "translation", "{title}");
        }
        if title.contains("Speech Recognition") {
            assert_eq!(name, "speech", "{title}");
        }
    }
    let drawn = std::fs::read_to_string(&picture)?;
    assert_eq!(drawn.matches("<title>").count(), 20 * 3);
    // With a threshold for all, rows that no topic is near to are in none, and say how near the nearest was.
    run(&["--threshold", "0.3"])?.succeeds()?;
    let rows = read_parquet(&out)?;
    let (topic, scores) = (ints(&rows, "topic")?, floats(&rows, "score")?);
    let none: Vec<f32> =
        topic.iter().zip(scores).filter(|(topic, _)| **topic == -1).map(|(_, s)| s).collect();
    ensure!(!none.is_empty() && none.len() < 120 && none.iter().all(|score| *score < 0.99), "{}", none.len());
    ensure!(rows.column_by_name("similarities").is_none());
    Ok(())
}

#[test]
fn topics_that_cannot_be_are_refused() -> Result<()> {
    let folder = Folder::new()?;
    let twice = folder.write("twice.txt", "sports\nnews\nSports\n")?;
    let odd = folder.write("odd.yaml", "- { name: a, weight: 3 }\n")?;
    let out = folder.path("out.parquet");
    for (topics, says) in [
        (twice.as_str(), "\"Sports\" stands twice"),
        (odd.as_str(), "weight"),
        (" , ,", "there are none"),
        ("/nowhere/topics.yaml", "/nowhere/topics.yaml"),
    ] {
        let base =
            ["classify", "--input", PAPERS, "--rows", "0..5", "--text", "{title}", "--encoder", ENCODER];
        thema(&[&base[..], &["--topics", topics, "--out", &out]].concat())?.fails(2, &[says])?;
    }
    let columns = ["classify", "--input", PAPERS, "--embeddings", "title", "--topics", "a,b", "--out", &out];
    thema(&columns)?.fails(2, &["encoder that made"])?;
    Ok(())
}

#[test]
fn texts_are_compared_with_each_other() -> Result<()> {
    let texts = ["--texts", "a cat sleeps", "a kitten naps", "stock markets fell"];
    let base = ["similarity", "--encoder", ENCODER, "--format", "json"];
    let run = thema(&[&base[..], &texts].concat())?.succeeds()?;
    let rows: Vec<Value> = serde_json::from_str(&run.stdout)?;
    let at = |row: usize, column: &str| rows[row][column].as_f64().unwrap_or(f64::NAN);
    ensure!((at(0, "1") - 1.0).abs() < 1e-5 && (at(0, "2") - at(1, "1")).abs() < 1e-6, "{rows:?}");
    ensure!(at(0, "2") > 0.5 && at(0, "3") < 0.2, "{rows:?}");
    let far = thema(&[&base[..], &texts, &["--similarity", "euclidean"]].concat())?.succeeds()?;
    let far: Vec<Value> = serde_json::from_str(&far.stdout)?;
    let (cosine, distance) = (at(0, "3"), far[0]["3"].as_f64().unwrap_or(0.0));
    // Of vectors of length 1: |a − b|² = 2 − 2 cos.
    ensure!((distance + (2.0 - 2.0 * cosine).sqrt()).abs() < 1e-4, "{distance} {cosine}");
    Ok(())
}
