//! `thema topics`: a model's topics for people and for other programs.

use anyhow::{Context, Result, ensure};
use harness::program::thema;
use harness::tables::{Folder, copy_folder};
use serde_json::Value;
use std::path::Path;

use crate::models::{self, PAPERS_ROWS};

#[test]
fn topics_come_as_a_table_of_one_line_each() -> Result<()> {
    let run = thema(&["topics", &models::papers().model])?.succeeds()?;
    let lines: Vec<&str> = run.stdout.lines().collect();
    let heads: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heads, ["Topic", "Count", "Name", "Representation"]);
    let mut rows = 0;
    for line in &lines[1..] {
        let count = line.split_whitespace().nth(1).context("a line without a count")?;
        rows += count.parse::<usize>()?;
    }
    assert_eq!(rows, PAPERS_ROWS, "every row is in a topic or an outlier");
    Ok(())
}

#[test]
fn topics_as_json_have_the_columns_of_bertopic() -> Result<()> {
    let run = thema(&["topics", &models::papers().model, "--format", "json"])?.succeeds()?;
    let topics: Vec<Value> = serde_json::from_str(&run.stdout)?;
    ensure!(topics.len() > 3, "{} topics", topics.len());
    assert_eq!(topics[0]["Topic"], -1);
    for (at, topic) in topics.iter().enumerate() {
        let keys: Vec<&String> = topic.as_object().context("a topic is no object")?.keys().collect();
        let expected = ["Topic", "Count", "Name", "Representation", "Representative_Docs"];
        assert_eq!(&keys[..5], &expected, "BERTopic's columns in its order");
        assert_eq!(topic["Topic"], at as i64 - 1);
        let of = |key: &str| topic[key].as_array().map_or(0, Vec::len);
        if at > 0 {
            ensure!(topic["Name"].as_str().is_some_and(|name| !name.is_empty()), "no name: {topic}");
            ensure!((of("Representation"), of("Representative_Docs")) == (10, 3), "too few: {topic}");
        }
    }
    let counts: Vec<u64> = topics[1..].iter().filter_map(|topic| topic["Count"].as_u64()).collect();
    ensure!(counts.is_sorted_by(|a, b| a >= b), "topic 0 is not the largest: {counts:?}");

    let two = thema(&["topics", &models::papers().model, "--format", "json", "--top", "2"])?.succeeds()?;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&two.stdout)?, topics[..3], "outliers and the two largest");
    Ok(())
}

#[test]
fn topics_as_csv_say_the_same_as_json() -> Result<()> {
    let model = &models::papers().model;
    let json = thema(&["topics", model, "--format", "json"])?.succeeds()?;
    let json: Vec<Value> = serde_json::from_str(&json.stdout)?;
    let csv = thema(&["topics", model, "--format", "csv"])?.succeeds()?;
    let rows = records(&csv.stdout);
    assert_eq!(
        rows[0],
        ["Topic", "Count", "Name", "Representation", "Representative_Docs", "weights", "named_by"]
    );
    assert_eq!(rows.len(), json.len() + 1);
    for (row, topic) in rows[1..].iter().zip(&json) {
        assert_eq!(Some(row[2].as_str()), topic["Name"].as_str());
        for (at, key) in
            [(0, "Topic"), (1, "Count"), (3, "Representation"), (4, "Representative_Docs"), (5, "weights")]
        {
            assert_eq!(serde_json::from_str::<Value>(&row[at])?, topic[key]);
        }
    }
    Ok(())
}

/// Splits CSV into its records (RFC 4180).
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut letters = text.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            _ => field.push(letter),
        }
    }
    records
}

/// A copy of the papers' model, which a test may change.
fn copied() -> Result<(Folder, String)> {
    let folder = Folder::new()?;
    let model = folder.path("model");
    copy_folder(Path::new(&models::papers().model), Path::new(&model))?;
    Ok((folder, model))
}

fn json(arguments: &[&str]) -> Result<Vec<Value>> {
    let run = thema(&[&["topics"], arguments, &["--format", "json"]].concat())?.succeeds()?;
    Ok(serde_json::from_str(&run.stdout)?)
}

fn sizes(model: &str) -> Result<Vec<(i64, u64)>> {
    let of = |topic: &Value| Some((topic["Topic"].as_i64()?, topic["Count"].as_u64()?));
    json(&[model])?.iter().map(|topic| of(topic).context("no topic or count")).collect()
}

#[test]
fn merged_topics_are_one_under_the_number_of_the_largest_and_the_old_version_stays() -> Result<()> {
    let (_folder, model) = copied()?;
    let before = sizes(&model)?;
    let run = thema(&["topics", &model, "--merge", "3,1"])?.succeeds()?;
    ensure!(run.stdout.contains("/v2"), "{}", run.stdout);
    let after = sizes(&model)?;
    let size = |sizes: &[(i64, u64)], topic: i64| sizes.iter().find(|(id, _)| *id == topic).map(|(_, n)| *n);
    assert_eq!(size(&after, 3), None);
    assert_eq!(size(&after, 1), Some(size(&before, 1).unwrap_or(0) + size(&before, 3).unwrap_or(0)));
    assert_eq!(after.len(), before.len() - 1);
    assert_eq!(sizes(&format!("{model}/v1"))?, before, "the version before is as it was");
    ensure!(std::fs::metadata(format!("{model}/v2/report.html"))?.len() > 10_000, "no report");
    // The number 3 is gone for good: what is split off gets new ones.
    thema(&["topics", &model, "--split", "1", "--n-clusters", "2"])?.succeeds()?;
    let last = sizes(&model)?;
    let new: Vec<i64> = last.iter().map(|(id, _)| *id).filter(|id| size(&after, *id).is_none()).collect();
    assert_eq!(new, [before.iter().map(|(id, _)| id + 1).max().unwrap_or(0)]);
    // And the new version labels.
    let out = format!("{model}/labelled.jsonl");
    let papers = models::PAPERS;
    thema(&["label", "--input", papers, "--rows", "0..50", "--model", &model, "--out", &out])?.succeeds()?;
    let names = json(&[&model])?;
    let known =
        |row: &Value| names.iter().any(|t| t["Topic"] == row["topic"] && t["Name"] == row["topic_name"]);
    for line in std::fs::read_to_string(&out)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        ensure!(known(&row), "{row}");
    }
    Ok(())
}

#[test]
fn outliers_that_get_a_topic_keep_where_they_came_from() -> Result<()> {
    let (_folder, model) = copied()?;
    let before = sizes(&model)?;
    thema(&["topics", &model, "--reduce-outliers", "embeddings", "--threshold", "0.6"])?.succeeds()?;
    let after = sizes(&model)?;
    ensure!(after[0].0 == -1 && after[0].1 < before[0].1, "{after:?}");
    let documents = json(&[&model, "--table", "documents"])?;
    let moved = documents.iter().filter(|row| row["topic_original"] == -1 && row["Topic"] != -1).count();
    assert_eq!(moved as u64, before[0].1 - after[0].1);
    let kept = documents.iter().filter(|row| row["topic_original"] != -1);
    for row in kept {
        assert_eq!(row["topic_original"], row["Topic"]);
    }
    Ok(())
}

#[test]
fn words_are_updated_without_a_fit_and_shown_beside_the_old_ones() -> Result<()> {
    let (_folder, model) = copied()?;
    let before = json(&[&model])?;
    let update = ["topics", &model, "--update", "--ngrams", "1..1", "--top-n-words", "7"];
    let run = thema(&update)?.succeeds()?;
    let heads: Vec<&str> = run.stdout.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heads, ["Topic", "Original", "Updated"]);
    ensure!(run.stdout.lines().nth(1).is_some_and(|line| line.matches(" | ").count() == 8), "{}", run.stdout);
    let after = json(&[&model])?;
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after).skip(1) {
        assert_eq!((&before["Topic"], &before["Count"]), (&after["Topic"], &after["Count"]));
        let words = after["Representation"].as_array().context("no words")?;
        ensure!(words.len() == 7 && words.iter().all(|word| !word.as_str().unwrap_or(" ").contains(' ')));
    }
    let update = ["topics", &model, "--update", "--then", "keybert,mmr", "--diversity", "0.3"];
    thema(&update)?.succeeds()?;
    ensure!(json(&[&model])?[1]["Representation"] != after[1]["Representation"], "the same words");
    // What words mean needs an encoder, which a column of vectors does not name.
    let error = thema(&["topics", &models::blobs().model, "--update", "--then", "keybert"])?;
    ensure!(error.code == Some(2) && error.stderr.contains("--words-encoder"), "{}", error.stderr);
    Ok(())
}

#[test]
fn tables_have_bertopics_columns() -> Result<()> {
    let model = &models::papers().model;
    let columns = |table: &[&str]| -> Result<(Vec<String>, usize)> {
        let rows = json(&[&[model.as_str(), "--table"], table].concat())?;
        let first = rows[0].as_object().context("no object")?;
        Ok((first.keys().cloned().collect(), rows.len()))
    };
    let (documents, rows) = columns(&["documents"])?;
    let expected = [
        "Document",
        "Topic",
        "Name",
        "Representation",
        "Representative_Docs",
        "Top_n_words",
        "Probability",
        "Representative_document",
    ];
    assert_eq!((&documents[..8], rows), (&expected.map(String::from)[..], PAPERS_ROWS));
    let topics = sizes(model)?.len() - 1;
    let (hierarchy, rows) = columns(&["hierarchy"])?;
    let expected = [
        "Parent_ID",
        "Parent_Name",
        "Topics",
        "Child_Left_ID",
        "Child_Left_Name",
        "Child_Right_ID",
        "Child_Right_Name",
        "Distance",
    ];
    assert_eq!((hierarchy, rows), (expected.map(String::from).to_vec(), topics - 1));
    assert_eq!(columns(&["distributions"])?.1, PAPERS_ROWS);
    assert_eq!(columns(&["similarity"])?, {
        let names = ["Topic".to_string(), "Name".into()].into_iter();
        (names.chain((0..topics).map(|topic| topic.to_string())).collect(), topics)
    });
    let three = json(&[model, "--table", "documents", "--topic", "0", "--first", "3", "--chars", "9"])?;
    ensure!(three.len() == 3, "{three:?}");
    for row in three {
        ensure!(row["Topic"] == 0 && row["Document"].as_str().is_some_and(|text| text.chars().count() <= 9));
    }
    let tree = thema(&["topics", model, "--table", "hierarchy", "--tree"])?.succeeds()?;
    assert_eq!(tree.stdout.matches("■──").count(), topics);
    Ok(())
}

#[test]
fn changes_that_cannot_be_say_why_and_write_nothing() -> Result<()> {
    let (_folder, model) = copied()?;
    for (arguments, code, says) in [
        (vec!["--merge", "1,999"], 2, "topic 999: is not there"),
        (vec!["--merge", "1,-1"], 2, "are the outliers"),
        (vec!["--merge", "1,2", "--merge", "2,3"], 2, "topic 2 is named twice"),
        (vec!["--merge", "1"], 2, "one topic alone"),
        (vec!["--merge", "1,x"], 2, "no list of topics"),
        (vec!["--reduce", "999"], 2, "expected fewer than"),
        (vec!["--reduce", "many"], 2, "neither a number of topics nor auto"),
        (vec!["--split", "999"], 2, "topic 999: is not there"),
        (vec!["--split", "1", "--min-cluster-size", "100000"], 3, "rows"),
        (vec!["--reduce-outliers", "embeddings", "--threshold", "NaN"], 2, "expected a number"),
        (vec!["--table", "per-class"], 2, "--class"),
        (vec!["--update", "--stop-words", "xx"], 2, "no list for language"),
        (vec!["--merge", "1,2", "--reduce", "3"], 2, "cannot be used with"),
        (vec!["--ngrams", "1..3"], 2, "say --update"),
        (vec!["--tree"], 2, "says nothing of this table"),
        (vec!["--table", "distributions", "--first", "3"], 2, "--first"),
        (vec!["--table", "documents", "--bins", "4"], 2, "--bins"),
        (vec!["--update", "--min-cluster-size", "5"], 2, "--split"),
        (vec!["--update", "--strict"], 2, "--name"),
        (vec!["--split", "1", "--threshold", "0.5"], 2, "--reduce-outliers"),
    ] {
        let run = thema(&[&["topics", model.as_str()], &arguments[..]].concat())?;
        ensure!(
            run.code == Some(code) && run.stderr.contains(says),
            "{arguments:?}: {:?} {}",
            run.code,
            run.stderr
        );
    }
    ensure!(!Path::new(&model).join("v2").exists(), "a change that failed has written something");
    Ok(())
}
