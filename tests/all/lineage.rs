//! Topics over time: refits keep their numbers and say what became of them; models are merged in any order; topics that
//! are given stand among those that are found.

use anyhow::{Context, Result, ensure};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use harness::endpoint::{Endpoint, Fault};
use harness::program::{thema, thema_with};
use harness::tables::{Folder, ints, read_parquet, strings};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::models::{self, BLOBS, ENCODER, PAPERS};

/// Rows of clusters: of each (cluster, first, rows), counted in that cluster.
fn rows(parts: &[(usize, usize, usize)]) -> Result<RecordBatch> {
    let all = BLOBS.rows(0, 400 * BLOBS.clusters)?;
    let picked = parts.iter().map(|&(cluster, first, rows)| {
        let rows = (first..first + rows).map(|row| (row * BLOBS.clusters + cluster) as u32);
        Ok(take_record_batch(&all, &UInt32Array::from_iter_values(rows))?)
    });
    Ok(concat_batches(&all.schema(), &picked.collect::<Result<Vec<_>>>()?)?)
}

/// Fits a model to such rows.
fn fit(folder: &Folder, model: &str, parts: &[(usize, usize, usize)], more: &[&str]) -> Result<()> {
    let input = folder.parquet("rows.parquet", &rows(parts)?)?;
    let arguments: Vec<&str> =
        models::fit_arguments(&input, model).into_iter().chain(more.iter().copied()).collect();
    thema(&arguments)?.succeeds().map(drop)
}

fn table(model: &str, table: &str) -> Result<Vec<Value>> {
    let run = thema(&["topics", model, "--table", table, "--format", "json"])?.succeeds()?;
    Ok(serde_json::from_str(&run.stdout)?)
}

/// The topic of most rows of each cluster.
fn topics_of_clusters(model: &str) -> Result<BTreeMap<usize, i64>> {
    let mut votes: BTreeMap<(usize, i64), usize> = BTreeMap::new();
    for row in table(model, "documents")? {
        let id: usize = row["id"].as_str().context("no id")?.parse()?;
        *votes.entry((id % BLOBS.clusters, row["Topic"].as_i64().context("no topic")?)).or_default() += 1;
    }
    let mut best: BTreeMap<usize, (usize, i64)> = BTreeMap::new();
    for ((cluster, topic), votes) in votes {
        let entry = best.entry(cluster).or_insert((0, -1));
        *entry = (*entry).max((votes, topic));
    }
    Ok(best.into_iter().map(|(cluster, (_, topic))| (cluster, topic)).collect())
}

/// The events of a generation: what happened, to which topics, and to which they came.
fn events(model: &str, generation: i64) -> Result<Vec<(String, Value, Value)>> {
    let events = table(model, "lineage")?.into_iter().filter(|event| event["Generation"] == generation);
    Ok(events
        .map(|event| {
            (event["Event"].as_str().unwrap_or_default().into(), event["From"].clone(), event["To"].clone())
        })
        .collect())
}

#[test]
fn topics_that_go_on_keep_their_names() -> Result<()> {
    let folder = Folder::new()?;
    let (model, endpoint) = (folder.path("model"), Endpoint::start()?);
    let variables = [("THEMA_CACHE", folder.path("cache"))];
    let input = folder.parquet("rows.parquet", &rows(&[(0, 0, 120), (1, 0, 80), (2, 0, 60)])?)?;
    let named = ["--llm-url", &endpoint.url, "--llm-model", "scribe"];
    let fit_named: Vec<&str> = models::fit_arguments(&input, &model).into_iter().chain(named).collect();
    thema_with(&fit_named, &variables)?.succeeds()?;
    let before = table(&model, "topics")?;
    let of = |topics: &[Value], number: i64, key: &str| {
        topics.iter().find(|topic| topic["Topic"] == number).map(|topic| topic[key].clone())
    };
    // 2 dies, 3 is born; no language model is asked.
    let calls = endpoint.calls();
    let input = folder.parquet("others.parquet", &rows(&[(0, 120, 120), (1, 0, 100), (3, 0, 90)])?)?;
    let refit = models::fit_arguments(&input, &model).into_iter().chain(["--overwrite"]);
    let run = thema_with(&refit.collect::<Vec<_>>(), &variables)?.succeeds()?;
    ensure!(run.stderr.contains("1 topic named by words"), "{}", run.stderr);
    assert_eq!(endpoint.calls(), calls);
    let after = table(&model, "topics")?;
    for number in [0, 1] {
        assert_eq!(of(&after, number, "Name"), of(&before, number, "Name"));
        assert_eq!(of(&after, number, "named_by"), Some(Value::from("llm:scribe")));
    }
    assert_eq!(of(&after, 3, "named_by"), Some(Value::from("words")));
    // One that is asked and refuses leaves the same names, and says so.
    endpoint.always(Some(Fault::Refuses));
    let again = models::fit_arguments(&input, &model).into_iter().chain(named).chain(["--overwrite"]);
    let run = thema_with(&again.collect::<Vec<_>>(), &variables)?.succeeds()?;
    ensure!(run.stderr.contains("3 topics of 3 not named by scribe"), "{}", run.stderr);
    let names = |topics: &[Value]| topics.iter().map(|topic| topic["Name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&table(&model, "topics")?), names(&after));
    let died = table(&model, "lineage")?.into_iter().find(|event| event["Event"] == "died");
    let died = died.context("no topic died")?;
    assert_eq!(died["Names"][0], of(&before, 2, "Name").context("no name")?);
    let born = table(&model, "lineage")?.into_iter().find(|event| event["Event"] == "born");
    assert_eq!(born.context("no topic is born")?["Names"][0], of(&after, 3, "Name").context("no name")?);
    Ok(())
}

#[test]
fn refits_keep_numbers_and_say_what_became_of_topics() -> Result<()> {
    let folder = Folder::new()?;
    let model = folder.path("model");
    fit(&folder, &model, &[(0, 0, 120), (1, 0, 80), (2, 0, 60)], &[])?;
    assert_eq!(topics_of_clusters(&model)?, [(0, 0), (1, 1), (2, 2)].into());
    assert_eq!(table(&model, "lineage")?.len(), 0);

    // Other rows of cluster 0, more of 1, none of 2, and 3 is new: alone, 1 would be the largest, topic 0.
    fit(&folder, &model, &[(0, 120, 120), (1, 0, 200), (3, 0, 90)], &["--overwrite"])?;
    assert_eq!(topics_of_clusters(&model)?, [(0, 0), (1, 1), (3, 3)].into());
    let happened = events(&model, 1)?;
    let list = |topics: &[i64]| Value::from(topics.to_vec());
    for event in
        [("born", list(&[]), list(&[3])), ("died", list(&[2]), list(&[])), ("grown", list(&[1]), list(&[1]))]
    {
        let event = (event.0.to_string(), event.1, event.2);
        ensure!(happened.contains(&event), "no {event:?} in {happened:?}");
    }

    // A number that was given is never given again, not even to what comes back.
    fit(&folder, &model, &[(0, 0, 100), (1, 0, 100), (2, 0, 100), (3, 0, 100)], &["--overwrite"])?;
    assert_eq!(topics_of_clusters(&model)?, [(0, 0), (1, 1), (2, 4), (3, 3)].into());
    let born = ("born".to_string(), list(&[]), list(&[4]));
    ensure!(events(&model, 2)?.contains(&born), "{:?}", events(&model, 2)?);
    ensure!(!events(&model, 1)?.is_empty(), "what happened before is kept");

    // Changes by hand are told too.
    thema(&["topics", &model, "--merge", "0,3"])?.succeeds()?;
    let merged = ("merged".to_string(), list(&[0, 3]), list(&[0]));
    ensure!(events(&model, 3)?.contains(&merged), "{:?}", events(&model, 3)?);

    // Another place follows if it is told to; numbers begin again if not.
    let other = folder.path("other");
    fit(&folder, &other, &[(3, 0, 100), (1, 0, 50)], &["--follow", &format!("{model}/v3")])?;
    assert_eq!(topics_of_clusters(&other)?, [(1, 1), (3, 3)].into());
    fit(&folder, &other, &[(3, 0, 100), (1, 0, 50)], &["--overwrite", "--new-ids"])?;
    assert_eq!(topics_of_clusters(&other)?, [(1, 1), (3, 0)].into());
    assert_eq!(table(&other, "lineage")?.len(), 0);
    Ok(())
}

#[test]
fn models_merged_in_any_order_are_one() -> Result<()> {
    let folder = Folder::new()?;
    let place = |name: &str| folder.path(name);
    fit(&folder, &place("a"), &[(0, 0, 100), (1, 0, 80)], &[])?;
    fit(&folder, &place("b"), &[(1, 60, 120), (2, 0, 60)], &[])?;
    fit(&folder, &place("c"), &[(3, 0, 60), (2, 0, 70)], &[])?;
    let merge = |models: &[&str], out: &str| -> Result<()> {
        let models: Vec<String> = models.iter().map(|model| place(model)).collect();
        let models = models.iter().map(String::as_str);
        let arguments: Vec<&str> = ["merge"].into_iter().chain(models).chain(["--out", out]).collect();
        thema(&arguments)?.succeeds().map(drop)
    };
    let (one, other) = (place("one"), place("other"));
    merge(&["a", "b", "c"], &one)?;
    merge(&["c", "a", "b"], &other)?;
    for part in ["model.json", "sample.parquet", "topics.parquet", "terms.parquet", "codes.safetensors"] {
        let read = |model: &str| std::fs::read(format!("{model}/v1/{part}"));
        ensure!(read(&one)? == read(&other)?, "{part} differs");
    }
    assert_eq!(topics_of_clusters(&one)?, [(0, 1), (1, 0), (2, 2), (3, 3)].into());
    let sizes: Vec<i64> = table(&one, "topics")?
        .iter()
        .filter(|row| row["Topic"] != -1)
        .filter_map(|row| row["Count"].as_i64())
        .collect();
    let rows = table(&one, "documents")?.len();
    assert_eq!((sizes.len(), rows), (4, 100 + 180 + 70 + 60), "rows of two models count once");
    thema(&["merge", &place("a"), &place("a"), "--out", &place("twice")])?.fails(2, &["two are the same"])?;
    thema(&["merge", &place("a"), &models::papers().model, "--out", &place("mixed")])?
        .fails(2, &["different encoders"])?;
    thema(&["merge", &place("a"), &place("b"), "--out", &one])?.fails(2, &["holds a model already"])?;
    Ok(())
}

#[test]
fn given_topics_stand_among_those_that_are_found() -> Result<()> {
    let folder = Folder::new()?;
    let (model, out) = (folder.path("model"), folder.path("labelled.parquet"));
    let rows = format!("0..{}", models::PAPERS_ROWS);
    let input = ["--input", PAPERS, "--rows", &rows];
    let what =
        ["--id", "id", "--text", "{title}", "--encoder", ENCODER, "--min-cluster-size", "8", "--out", &model];
    let given = ["--topics", "knitting patterns, machine translation", "--min-similarity", "0.4"];
    let arguments: Vec<&str> = ["fit"].into_iter().chain(input).chain(what).chain(given).collect();
    thema(&arguments)?.succeeds()?;
    let topics = table(&model, "topics")?;
    let of = |id: i64| topics.iter().find(|row| row["Topic"] == id).context("no such topic");
    // No paper knits: that topic is none, and the other comes first.
    assert_eq!((&of(0)?["Name"], &of(0)?["named_by"]), (&"machine translation".into(), &"user".into()));
    assert_eq!(of(1)?["named_by"], "words");
    ensure!(topics.iter().all(|row| row["Name"] != "knitting patterns"));

    let label: Vec<&str> = ["label"]
        .into_iter()
        .chain(input)
        .chain(["--model", &model, "--out", &out, "--keep", "topic >= 0"])
        .collect();
    thema(&label)?.succeeds()?;
    let labelled = read_parquet(&out)?;
    let found: BTreeSet<(bool, String)> = ints(&labelled, "topic")?
        .into_iter()
        .zip(strings(&labelled, "topic_source")?)
        .map(|(topic, source)| (topic == 0, source))
        .collect();
    assert_eq!(found, [(true, "given".to_string()), (false, "discovered".to_string())].into());
    // Nothing can embed them where vectors come from a column.
    let other = folder.path("other");
    let column = models::fit_arguments(&models::blobs().input, &other);
    thema(&[&column[..], &["--topics", "harbours"]].concat())?.fails(2, &["--words-encoder"])?;
    Ok(())
}

#[test]
fn rows_that_are_only_numbered_are_not_taken_for_each_other() -> Result<()> {
    let folder = Folder::new()?;
    let fit = |model: &str, parts: &[(usize, usize, usize)]| -> Result<()> {
        let input = folder.parquet("rows.parquet", &rows(parts)?)?;
        let what = ["fit", "--input", &input, "--out", model, "--overwrite", "--embeddings", "embedding"];
        thema(&[&what[..], &["--text", "{text}", "--min-cluster-size", "30"]].concat())?.succeeds().map(drop)
    };
    let (model, other) = (folder.path("model"), folder.path("other"));
    fit(&model, &[(0, 0, 100), (1, 0, 80)])?;
    fit(&other, &[(1, 100, 100), (0, 100, 90)])?;
    let merged = folder.path("merged");
    thema(&["merge", &model, &other, "--out", &merged])?.succeeds()?;
    // Rows without names are known by their texts in a fit: those of a model differ.
    let documents = |model: &str| Ok::<_, anyhow::Error>(table(model, "documents")?.len());
    assert_eq!(documents(&merged)?, documents(&model)? + documents(&other)?);
    // By the places of their rows, the topics would have changed their numbers.
    fit(&model, &[(1, 100, 100), (0, 100, 90)])?;
    let words = |topic: i64| -> Result<Value> {
        let topics = table(&model, "topics")?;
        Ok(topics.iter().find(|row| row["Topic"] == topic).context("no topic")?["Representation"].clone())
    };
    ensure!(
        words(0)?.to_string().contains("harbour") || words(0)?.to_string().contains("anchor"),
        "{}",
        words(0)?
    );
    assert_eq!(events(&model, 1)?.iter().filter(|event| event.0 == "born" || event.0 == "died").count(), 0);
    Ok(())
}

#[test]
fn topics_are_not_continued_by_other_vectors() -> Result<()> {
    let folder = Folder::new()?;
    let (model, input) = (folder.path("model"), folder.path("wide.parquet"));
    fit(&folder, &model, &[(0, 0, 100), (1, 0, 80)], &[])?;
    let wide = harness::tables::Blobs { dim: 24, ..BLOBS }.rows(0, 400)?;
    folder.parquet("wide.parquet", &wide)?;
    let arguments = [&models::fit_arguments(&input, &model)[..], &["--overwrite"]].concat();
    thema(&arguments)?.fails(2, &["dimensions 24, expected 16", "--new-ids"])?;
    thema(&[&arguments[..], &["--new-ids"]].concat())?.succeeds().map(drop)
}
