//! `thema taxonomy`: topics under classes, in the forms that people use; and as the path of each label.

use anyhow::{Context, Result, ensure};
use harness::program::thema;
use harness::tables::{Folder, ints, read_parquet, strings};
use serde_json::Value;

use crate::models::{self, PAPERS};

#[test]
fn every_topic_has_one_place_and_labels_say_the_way_to_it() -> Result<()> {
    let model = &models::papers().model;
    let run = thema(&["taxonomy", model, "--format", "json"])?.succeeds()?;
    let taxonomy: Value = serde_json::from_str(&run.stdout)?;
    let nodes = taxonomy["nodes"].as_array().context("no nodes")?;
    let mut placed: Vec<i64> = nodes
        .iter()
        .filter_map(|node| node["topics"].as_array())
        .flatten()
        .filter_map(Value::as_i64)
        .collect();
    placed.sort_unstable();
    let topics = thema(&["topics", model, "--format", "json"])?.succeeds()?;
    let topics: Vec<Value> = serde_json::from_str(&topics.stdout)?;
    let ids: Vec<i64> =
        topics.iter().filter_map(|topic| topic["Topic"].as_i64()).filter(|id| *id >= 0).collect();
    assert_eq!(placed, ids, "each topic once");
    let classes = nodes.iter().filter(|node| node["parent"].is_null()).count();
    ensure!(classes >= 2 && classes < ids.len(), "{classes} classes of {} topics", ids.len());

    let folder = Folder::new()?;
    let out = folder.path("labelled.parquet");
    thema(&["label", "--input", PAPERS, "--rows", "0..60", "--model", model, "--out", &out])?.succeeds()?;
    let rows = read_parquet(&out)?;
    let (topic, names, paths) =
        (ints(&rows, "topic")?, strings(&rows, "topic_name")?, strings(&rows, "topic_path")?);
    for ((topic, name), path) in topic.iter().zip(&names).zip(&paths) {
        ensure!(path.ends_with(name.as_str()), "{path} does not end in {name}");
        if *topic >= 0 {
            let node =
                nodes.iter().find(|node| node["topics"][0] == *topic).context("a topic without a node")?;
            assert_eq!(
                node["id"].as_str().map(|id| id.matches('.').count()),
                Some(path.matches(" > ").count())
            );
        }
    }
    Ok(())
}

#[test]
fn each_form_holds_each_topic() -> Result<()> {
    let model = &models::papers().model;
    let shown = |form: &str| -> Result<String> {
        Ok(thema(&["taxonomy", model, "--format", form])?.succeeds()?.stdout)
    };
    let json: Value = serde_json::from_str(&shown("json")?)?;
    let (markdown, dotted, skos) = (shown("md")?, shown("dotted")?, shown("skos")?);
    let nodes = json["nodes"].as_array().context("no nodes")?;
    assert_eq!(skos.matches("a skos:Concept ;").count(), nodes.len());
    for node in nodes {
        let (id, name) = (node["id"].as_str().context("no id")?, node["name"].as_str().context("no name")?);
        ensure!(markdown.contains(name) && skos.contains(&format!("skos:notation \"{id}\"")), "{id} {name}");
        ensure!(dotted.lines().any(|line| line.trim().starts_with(&format!("{id} "))), "{id} {name}");
    }
    let folder = Folder::new()?;
    let out = folder.path("scheme.md");
    thema(&["taxonomy", model, "--out", &out])?.succeeds()?;
    assert_eq!(std::fs::read_to_string(&out)?, markdown);
    thema(&["taxonomy", model, "--out", &out])?.fails(2, &["scheme.md", "exists already"])?;
    thema(&["taxonomy", model, "--out", &folder.path("scheme.pdf")])?
        .fails(2, &[".md, .txt, .json or .ttl"])?;
    Ok(())
}
