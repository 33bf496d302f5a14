//! `thema taxonomy`: topics under classes, in the forms that people use; and as the path of each label.

use anyhow::{Context, Result, ensure};
use harness::endpoint::{Endpoint, Fault};
use harness::program::{thema, thema_with};
use harness::tables::{Folder, copy_folder, ints, read_parquet, strings};
use serde_json::Value;
use std::path::{Path, PathBuf};

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

/// A copy of the papers' model that a test may change.
fn copied() -> Result<(Folder, String)> {
    let folder = Folder::new()?;
    let model = folder.path("model");
    copy_folder(Path::new(&models::papers().model), Path::new(&model))?;
    Ok((folder, model))
}

fn nodes(model: &str) -> Result<Vec<Value>> {
    let run = thema(&["taxonomy", model, "--format", "json"])?.succeeds()?;
    let taxonomy: Value = serde_json::from_str(&run.stdout)?;
    Ok(taxonomy["nodes"].as_array().context("no nodes")?.clone())
}

#[test]
fn a_language_model_arranges_defines_and_connects_the_topics() -> Result<()> {
    let (folder, model) = copied()?;
    let endpoint = Endpoint::start()?;
    let variables = [("THEMA_CACHE", folder.path("cache"))];
    let arguments = ["taxonomy", &model, "--llm-url", &endpoint.url, "--llm-model", "scribe", "--strict"];
    // The first order lacks all topics but one: the model hears which, and mends it.
    endpoint.fail([Fault::Says(
        r#"{"classes": [{"name": "All", "definition": "All.", "subclasses": [{"name": "One", "definition": "One.",
            "topics": [0]}]}], "cross_references": []}"#,
    )]);
    thema_with(&arguments, &variables)?.succeeds()?;
    let asked = endpoint.requests();
    ensure!(asked[1].to_string().contains("does not place the topics 1, 2"), "{}", asked[1]);
    let found = nodes(&model)?;
    let topics: Vec<&Value> = found.iter().filter(|node| node["topics"][0].is_i64()).collect();
    ensure!(
        topics.iter().all(|node| node["definition"].as_str().is_some_and(|text| text.starts_with("Of ")))
    );
    ensure!(found.iter().any(|node| node["see_also"][0]["reason"] == "Both are read."), "{found:?}");
    let depth = |node: &&Value| node["id"].as_str().map_or(0, |id| id.matches('.').count());
    ensure!(topics.iter().all(|node| depth(node) == 2), "class, sub-class, topic");
    let calls = endpoint.calls();
    thema_with(&arguments, &variables)?.succeeds()?;
    assert_eq!(endpoint.calls(), calls, "a second run asks nothing");
    // Other names change no order and no definition.
    let before = nodes(&model)?;
    let name = ["topics", &model, "--name", "--llm-url", &endpoint.url, "--llm-model", "poet"];
    thema_with(&name, &variables)?.succeeds()?;
    let told = |nodes: &[Value], key: &str| nodes.iter().map(|node| node[key].clone()).collect::<Vec<_>>();
    let after = nodes(&model)?;
    assert_eq!(told(&before, "id"), told(&after, "id"));
    assert_eq!(told(&before, "definition"), told(&after, "definition"));
    assert_ne!(told(&before, "name"), told(&after, "name"));
    Ok(())
}

#[test]
fn a_language_model_that_fails_leaves_the_taxonomy_as_it_was() -> Result<()> {
    let (folder, model) = copied()?;
    let before = nodes(&model)?;
    let endpoint = Endpoint::start()?;
    let variables = [("THEMA_CACHE", folder.path("cache"))];
    let arguments = ["taxonomy", &model, "--llm-url", &endpoint.url, "--llm-model", "scribe"];
    endpoint.always(Some(Fault::Says("I would rather write a poem.")));
    let run = thema_with(&arguments, &variables)?.succeeds()?;
    ensure!(run.stderr.contains("scribe gave no taxonomy, and it stays as it was"), "{}", run.stderr);
    let run = thema_with(&[&arguments[..], &["--strict"]].concat(), &variables)?;
    ensure!(run.code == Some(4), "{:?} {}", run.code, run.stderr);
    assert_eq!(nodes(&model)?, before);
    ensure!(!Path::new(&model).join("v2").exists(), "nothing has changed, but a version is written");
    Ok(())
}

/// A scheme of which the papers cover some.
const SCHEME: &str = "# Computing

## Language
What is said and written.

- **Machine translation**: Translating text or speech from one language into another.
- **Speech recognition**: Turning spoken language into text.
- **Cuneiform archaeology**: Clay tablets of Mesopotamia.

## Fluid dynamics of pipes
";

#[test]
fn a_scheme_is_completed_by_topics() -> Result<()> {
    let model = &models::papers().model;
    let folder = Folder::new()?;
    let (scheme, out) = (folder.write("scheme.md", SCHEME)?, folder.path("completed.json"));
    let run = thema(&["taxonomy", model, "--scheme", &scheme, "--out", &out, "--log", "json"])?.succeeds()?;
    let told: Value = serde_json::from_str(&run.stdout)?;
    let completed: Value = serde_json::from_slice(&std::fs::read(&out)?)?;
    let found = completed["nodes"].as_array().context("no nodes")?;
    let of = |name: &str| found.iter().find(|node| node["name"] == name).context(name.to_string());
    let empty: Vec<&str> =
        told["empty"].as_array().context("nothing empty")?.iter().filter_map(Value::as_str).collect();
    for name in ["Cuneiform archaeology", "Fluid dynamics of pipes"] {
        ensure!(
            empty.contains(&of(name)?["id"].as_str().context("no id")?),
            "{name} is not empty: {empty:?}"
        );
    }
    // Each topic stands somewhere, once; the new ones are marked.
    let mut placed: Vec<i64> =
        found.iter().flat_map(|node| node["topics"].as_array()).flatten().filter_map(Value::as_i64).collect();
    placed.sort_unstable();
    let topics = told["topics"].as_array().context("no topics")?;
    assert_eq!(placed, (0..topics.len() as i64).collect::<Vec<_>>());
    for topic in topics {
        let node = found
            .iter()
            .find(|node| node["topics"].as_array().is_some_and(|topics| topics.contains(&topic["topic"])));
        let node = node.context("a topic without a node")?;
        assert_eq!(node["new"] == true, topic["new"] == true, "{topic}");
        ensure!(topic["new"] == true || node["id"] == topic["node"], "{topic}");
        ensure!((topic["similarity"].as_f64() < Some(0.35)) == (topic["new"] == true), "{topic}");
        ensure!(topic["similarity"].as_f64() >= Some(0.175) || topic["under"].is_null(), "{topic}");
    }
    // What is written can be read and completed again: then everything is there.
    let again = thema(&["taxonomy", model, "--scheme", &out, "--log", "json", "--min-similarity", "0.2"])?
        .succeeds()?;
    let again: Value = serde_json::from_str(&again.stdout)?;
    ensure!(
        again["topics"].as_array().is_some_and(|topics| topics.iter().all(|topic| topic["new"] == false))
    );
    Ok(())
}

#[test]
fn a_language_model_places_topics_in_a_scheme() -> Result<()> {
    let model = &models::papers().model;
    let folder = Folder::new()?;
    let endpoint = Endpoint::start()?;
    // A cache of its own, with the encoders that there are.
    let variables = [("THEMA_CACHE", folder.path("cache"))];
    std::fs::create_dir(folder.path("cache"))?;
    let own = std::env::var_os("THEMA_CACHE").map(PathBuf::from);
    let own = own.or_else(|| Some(std::env::home_dir()?.join(".cache/thema"))).context("no home")?;
    std::os::unix::fs::symlink(own.join("encoders"), folder.path("cache/encoders"))?;
    let scheme = folder.write("scheme.md", SCHEME)?;
    let arguments =
        ["taxonomy", model, "--scheme", &scheme, "--llm-url", &endpoint.url, "--llm-model", "scribe"];
    let arguments: Vec<&str> = arguments.into_iter().chain(["--strict", "--log", "json"]).collect();
    // The first answer names a node that is not there: the model hears so, and mends it.
    endpoint.fail([Fault::Says(
        r#"{"node": "9.9", "belongs": true, "overlaps": "", "definition": "A.", "reason": "B."}"#,
    )]);
    let told: Value = serde_json::from_str(&thema_with(&arguments, &variables)?.succeeds()?.stdout)?;
    let mended =
        endpoint.requests().iter().filter(|asked| asked.to_string().contains("names the node")).count();
    assert_eq!(mended, 1);
    let topics = told["topics"].as_array().context("no topics")?;
    assert_eq!(endpoint.calls(), topics.len() + 1);
    let new = topics.iter().filter(|topic| topic["new"] == true).count();
    ensure!(new > 0 && new < topics.len(), "{new} of {}", topics.len());
    let nodes = told["scheme"]["nodes"].as_array().context("no nodes")?;
    for topic in topics {
        let name = topic["name"].as_str().context("no name")?;
        assert_eq!(topic["new"], name.len() % 2 == 0, "{topic}");
        assert_eq!(topic["reason"], "It is read there.");
        let of = |node: &&Value| node["topics"].as_array().is_some_and(|all| all.contains(&topic["topic"]));
        let node = nodes.iter().find(of).context("a topic without a node")?;
        if topic["new"] == true {
            assert_eq!((&node["parent"], &node["new"]), (&topic["node"], &Value::Bool(true)));
            assert_eq!(node["definition"], format!("Of {name}."));
        } else {
            assert_eq!(node["id"], topic["node"]);
        }
    }
    // A second run asks nothing, and one that fails leaves topics where similarity places them.
    let calls = endpoint.calls();
    thema_with(&arguments, &variables)?.succeeds()?;
    assert_eq!(endpoint.calls(), calls);
    endpoint.always(Some(Fault::Refuses));
    let other: Vec<&str> =
        arguments.iter().map(|word| if *word == "scribe" { "poet" } else { *word }).collect();
    let run = thema_with(&other, &variables)?;
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    ensure!(run.stderr.contains("placed by similarity"), "{}", run.stderr);
    let told: Value = serde_json::from_str(&run.stdout)?;
    let by_similarity = ["taxonomy", model, "--scheme", &scheme, "--log", "json"];
    let expected: Value = serde_json::from_str(&thema(&by_similarity)?.succeeds()?.stdout)?;
    assert_eq!(told, expected);
    Ok(())
}

#[test]
fn a_node_grows_a_scheme_of_its_own() -> Result<()> {
    let model = &models::papers().model;
    let folder = Folder::new()?;
    let scheme = folder
        .write("scheme.txt", "cs Computer Science\ncs.CL Computation and Language\ncs.RO Robotics\n")?;
    let arguments = ["taxonomy", model, "--scheme", &scheme, "--min-similarity", "0", "--grow", "cs.CL"];
    let run = thema(&[&arguments[..], &["--format", "json"]].concat())?.succeeds()?;
    let completed: Value = serde_json::from_str(&run.stdout)?;
    let found = completed["nodes"].as_array().context("no nodes")?;
    let grown: Vec<&Value> =
        found.iter().filter(|node| node["id"].as_str().is_some_and(|id| id.starts_with("cs.CL."))).collect();
    ensure!(grown.len() > 5 && grown.iter().all(|node| node["new"] == true), "{found:?}");
    ensure!(
        found.iter().any(|node| node["id"] == "cs.CL" && node["topics"].is_null()),
        "its topics went below"
    );
    let run = thema(&[&arguments[..5], &["0", "--grow", "cs.XX"]].concat())?;
    run.fails(2, &["the scheme has no node cs.XX"])?;
    let broken = folder.write(
        "broken.json",
        r#"{"nodes": [{"id": "a", "name": "A", "parent": "b"}, {"id": "b", "name": "B", "parent": "a"}]}"#,
    )?;
    thema(&["taxonomy", model, "--scheme", &broken])?.fails(2, &["broken.json", "is below itself"])?;
    let titled = folder.write("titled.txt", "Computer science\n1 Language\n1.1 Speech\n")?;
    thema(&["taxonomy", model, "--scheme", &titled])?.fails(2, &["titled.txt", "a title stands behind #"])?;
    thema(&["taxonomy", model, "--strict"])?.fails(2, &["--strict", "--llm-url"])?;
    let out = folder.path("taxonomy.ttl");
    thema(&["taxonomy", model, "--format", "json", "--out", &out])?
        .fails(2, &["--format", "taxonomy.ttl"])?;
    Ok(())
}
