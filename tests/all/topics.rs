//! `thema topics`: a model's topics for people and for other programs.

use anyhow::{Context, Result, ensure};
use harness::program::thema;
use serde_json::Value;

use crate::models::{self, PAPERS_ROWS};

#[test]
fn topics_come_as_a_table_of_one_line_each() -> Result<()> {
    let run = thema(&["topics", &models::papers().model])?.succeeds()?;
    let lines: Vec<&str> = run.stdout.lines().collect();
    let heads: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heads, ["Topic", "Count", "Name", "Words"]);
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
    assert_eq!(rows[0], ["Topic", "Count", "Name", "Representation", "Representative_Docs"]);
    assert_eq!(rows.len(), json.len() + 1);
    for (row, topic) in rows[1..].iter().zip(&json) {
        assert_eq!(Some(row[2].as_str()), topic["Name"].as_str());
        for (at, key) in [(0, "Topic"), (1, "Count"), (3, "Representation"), (4, "Representative_Docs")] {
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
