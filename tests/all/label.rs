//! `thema label`: the columns it adds, and that a row's label depends on nothing but the row and the model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type};
use harness::program::{Run, thema};
use harness::tables::{
    Folder, column, copy_folder, damage_row_group, floats, ints, read_parquet, strings, write_parquet,
};
use serde_json::Value;

use crate::models::{self, BLOBS, BLOBS_ROWS, PAPERS};

/// What `label` adds.
const ADDED: [&str; 6] = ["topic", "topic_name", "topic_path", "score", "topics", "model_version"];

#[test]
fn label_passes_all_columns_and_adds_its_own_with_their_types() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("labelled.parquet");
    let model = &models::papers().model;
    let run = label(PAPERS, model, &out, &["--rows", "400..500"])?.succeeds()?;
    assert!(run.stdout.starts_with("100 rows labelled in "), "{}", run.stdout);

    let papers = read_parquet(PAPERS)?.slice(400, 100);
    let labelled = read_parquet(&out)?;
    let names: Vec<&str> = labelled.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
    let passed = papers.num_columns();
    assert_eq!(names[passed..], ADDED);
    for (at, field) in papers.schema().fields().iter().enumerate() {
        assert_eq!(names[at], field.name());
        let here = arrow::compute::cast(labelled.column(at), field.data_type())?;
        ensure!(&here == papers.column(at), "{} is changed", field.name());
    }
    let item = DataType::Struct(
        vec![Field::new("topic", DataType::Int32, false), Field::new("score", DataType::Float32, false)]
            .into(),
    );
    let list = DataType::List(Field::new_list_field(item, false).into());
    let types = [DataType::Int32, DataType::Utf8, DataType::Utf8, DataType::Float32, list, DataType::Utf8];
    for (name, expected) in ADDED.iter().zip(types) {
        let field = labelled.schema_ref().field_with_name(name)?;
        assert_eq!((field.data_type(), field.is_nullable()), (&expected, false), "{name}");
    }

    let known = names_of(model)?;
    let (topics, scores) = (ints(&labelled, "topic")?, floats(&labelled, "score")?);
    let (named, paths) = (strings(&labelled, "topic_name")?, strings(&labelled, "topic_path")?);
    let lists = column(&labelled, "topics")?.as_list::<i32>();
    for row in 0..labelled.num_rows() {
        assert_eq!(named[row], known[&topics[row]]);
        assert!(paths[row].ends_with(named[row].as_str()), "the way ends at the topic: {}", paths[row]);
        assert!((0.0..=1.0).contains(&scores[row]));
        let best = lists.value(row);
        let ids = best.as_struct().column(0).as_primitive::<Int32Type>();
        let shares = best.as_struct().column(1).as_primitive::<Float32Type>();
        assert!(ids.len() <= 3 && ids.values().iter().all(|id| *id >= 0));
        assert!(shares.values().is_sorted_by(|a, b| a >= b) || topics[row] >= 0);
        if topics[row] >= 0 {
            assert_eq!((ids.value(0), shares.value(0)), (topics[row], scores[row]), "the winner comes first");
        }
    }
    assert!(topics.iter().any(|t| *t >= 0), "no paper has a topic");
    assert!(strings(&labelled, "model_version")?.iter().all(|version| version == "v1"));
    Ok(())
}

#[test]
fn the_rows_of_the_sample_get_the_topics_of_the_fit() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let labelled = labelled(&blobs.input, &blobs.model, &folder, &["--coverage", "1"])?;
    let sample = read_parquet(&format!("{}/v1/sample.parquet", blobs.model))?;
    let ids = strings(&sample, "id")?;
    let fitted: BTreeMap<&str, i32> = ids.iter().map(String::as_str).zip(ints(&sample, "topic")?).collect();
    let mut same = 0;
    for (row, topic) in ints(&labelled, "topic")?.iter().enumerate() {
        let before = fitted[row.to_string().as_str()];
        assert!(before < 0 || *topic < 0 || before == *topic, "row {row} moves from {before} to {topic}");
        same += usize::from(before == *topic);
    }
    // The neighbours of a point at the edge of a cluster may overrule HDBSCAN.
    assert!(same * 100 >= 95 * BLOBS_ROWS, "{same} of {BLOBS_ROWS} keep their topic");
    Ok(())
}

#[test]
fn a_row_gets_the_same_label_in_any_order_and_batch() -> Result<()> {
    let folder = Folder::new()?;
    let model = &models::blobs().model;
    let rows = BLOBS.rows(5000, 1000)?;
    let input = folder.parquet("rows.parquet", &rows)?;
    let whole = labelled(&input, model, &folder, &[])?;

    let backwards = UInt32Array::from_iter_values((0..1000).rev());
    let turned = folder.parquet("backwards.parquet", &take_record_batch(&rows, &backwards)?)?;
    let back = take_record_batch(&labelled(&turned, model, &folder, &["--threads", "1"])?, &backwards)?;
    ensure!(back == whole, "the order of the rows changes a label");

    let job = format!("source: {{ table: {{ path: \"{input}\", batch_size: 7 }} }}\nmodel: \"{model}\"\n");
    let job = folder.write("job.yaml", job)?;
    let out = folder.path("small.parquet");
    thema(&["label", &job, "--out", &out])?.succeeds()?;
    ensure!(read_parquet(&out)? == whole, "the size of the batches changes a label");
    Ok(())
}

#[test]
fn a_text_gets_the_same_label_alone_as_among_others() -> Result<()> {
    let folder = Folder::new()?;
    let model = &models::papers().model;
    let together = labelled(PAPERS, model, &folder, &["--rows", "450..470"])?;
    for row in [3, 17] {
        let range = format!("{}..{}", 450 + row, 451 + row);
        let alone = labelled(PAPERS, model, &folder, &["--rows", &range])?;
        ensure!(alone == together.slice(row, 1), "row {row} is labelled otherwise alone");
    }
    Ok(())
}

#[test]
fn a_model_copied_elsewhere_labels_the_same_bits() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let copy = folder.path("elsewhere");
    copy_folder(Path::new(&blobs.model), Path::new(&copy))?;
    let (here, there) = (folder.path("here.parquet"), folder.path("there.parquet"));
    label(&blobs.input, &blobs.model, &here, &[])?.succeeds()?;
    label(&blobs.input, &copy, &there, &[])?.succeeds()?;
    ensure!(fs::read(here)? == fs::read(there)?, "the files differ");
    Ok(())
}

#[test]
fn labels_as_jsonl_say_the_same_as_parquet() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let table = labelled(&blobs.input, &blobs.model, &folder, &[])?;
    let out = folder.path("labelled.jsonl");
    label(&blobs.input, &blobs.model, &out, &[])?.succeeds()?;
    let text = fs::read_to_string(out)?;
    assert_eq!(text.lines().count(), BLOBS_ROWS);
    let (topics, names) = (ints(&table, "topic")?, strings(&table, "topic_name")?);
    for (row, line) in text.lines().enumerate() {
        let object: Value = serde_json::from_str(line)?;
        assert_eq!(object["id"], row);
        assert_eq!(object["topic"], topics[row]);
        assert_eq!(object["topic_name"], names[row].as_str());
        assert_eq!(object["embedding"].as_array().map(Vec::len), Some(BLOBS.dim));
        if topics[row] >= 0 {
            assert_eq!(object["topics"][0]["topic"], topics[row]);
        }
    }
    Ok(())
}

#[test]
fn keep_writes_only_the_rows_for_which_it_holds() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let all = labelled(&blobs.input, &blobs.model, &folder, &[])?;
    let expected =
        ints(&all, "topic")?.iter().zip(ints(&all, "truth")?).filter(|(t, c)| **t == 2 && *c < 3).count();
    let out = folder.path("kept.parquet");
    let run = label(&blobs.input, &blobs.model, &out, &["--keep", "topic = 2 and truth < 3"])?.succeeds()?;
    let kept = read_parquet(&out)?;
    assert!(
        run.stdout.starts_with(&format!("600 rows labelled, {} kept", kept.num_rows())),
        "{}",
        run.stdout
    );
    assert_eq!(kept.num_rows(), expected);
    assert!(ints(&kept, "topic")?.iter().all(|topic| *topic == 2));

    let wrong = label(&blobs.input, &blobs.model, &folder.path("x.parquet"), &["--keep", "topik = 2"])?;
    wrong.fails(2, &["topik", "there are", "\"topic\"", "\"score\""])?;
    Ok(())
}

#[test]
fn a_prefix_makes_room_beside_columns_of_the_same_names() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let first = folder.path("first.parquet");
    label(&blobs.input, &blobs.model, &first, &[])?.succeeds()?;
    let second = folder.path("second.parquet");
    label(&first, &blobs.model, &second, &[])?.fails(2, &["\"topic\"", "already", "--prefix"])?;
    assert_eq!(folder.names()?, ["first.parquet"]);

    label(&first, &blobs.model, &second, &["--prefix", "new_"])?.succeeds()?;
    let both = read_parquet(&second)?;
    for name in ADDED {
        let (old, new) = (column(&both, name)?, column(&both, &format!("new_{name}"))?);
        // What is read may be null; what is added may not.
        ensure!(&arrow::compute::cast(old, new.data_type())? == new, "{name} differs");
    }
    Ok(())
}

#[test]
fn fewer_voters_and_a_lower_coverage_change_labels_as_they_say() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    // Rows like those of the sample, but others: a row of the sample is its own nearest neighbour.
    let unseen = folder.parquet("unseen.parquet", &BLOBS.rows(5000, 1000)?)?;
    let kept = |coverage: &str| -> Result<f64> {
        let rows = labelled(&unseen, &blobs.model, &folder, &["--coverage", coverage])?;
        Ok(ints(&rows, "topic")?.iter().filter(|topic| **topic >= 0).count() as f64 / 1000.0)
    };
    for (coverage, wanted) in [("1", 1.0), ("0.9", 0.9), ("0.5", 0.5)] {
        // Three standard deviations of a share: of 1,000 rows here, of some 300 that set the threshold.
        let margin = 3.0 * f64::sqrt(wanted * (1.0 - wanted) * (1.0 / 1000.0 + 1.0 / 300.0)) + 0.01;
        let kept = kept(coverage)?;
        assert!((kept - wanted).abs() < margin, "{kept} of the rows keep a topic, not {wanted}");
    }

    let one = labelled(&blobs.input, &blobs.model, &folder, &["--top-k", "1", "--top-topics", "1"])?;
    let lists = column(&one, "topics")?.as_list::<i32>();
    assert!((0..lists.len()).all(|row| lists.value_length(row) <= 1));
    // A row's nearest neighbour in its own sample is itself.
    assert!(floats(&one, "score")?.iter().all(|score| *score > 0.99));

    for (flag, value, words) in [
        ("--coverage", "1.5", ["coverage", "1.5", "between 0 and 1"]),
        ("--top-k", "0", ["top_k", "0 neighbours", "at least 1"]),
    ] {
        let out = folder.path("none.parquet");
        label(&blobs.input, &blobs.model, &out, &[flag, value])?.fails(2, &words)?;
    }
    Ok(())
}

#[test]
fn an_output_that_exists_is_kept_unless_overwrite_is_said() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let out = folder.write("out.parquet", "what was there before")?;
    label(&blobs.input, &blobs.model, &out, &[])?
        .fails(2, &["out.parquet", "exists already", "--overwrite"])?;
    assert_eq!(fs::read_to_string(&out)?, "what was there before");
    label(&blobs.input, &blobs.model, &out, &["--overwrite"])?.succeeds()?;
    assert_eq!(read_parquet(&out)?.num_rows(), BLOBS_ROWS);
    assert_eq!(folder.names()?, ["out.parquet"]);
    Ok(())
}

#[test]
fn a_failed_run_leaves_the_old_output_as_it_was() -> Result<()> {
    let folder = Folder::new()?;
    let good = BLOBS.rows(0, 40_000)?;
    let path = folder.path("rows.parquet");
    write_parquet(&path, good.schema(), [Ok(good)], 10_000)?;
    damage_row_group(&path, 3)?;
    let out = folder.write("out.parquet", "what was there before")?;
    let run = label(&path, &models::blobs().model, &out, &["--overwrite"])?;
    run.fails(3, &["rows.parquet", "row group 3"])?;
    assert_eq!(fs::read_to_string(&out)?, "what was there before");
    assert_eq!(folder.names()?, ["out.parquet", "rows.parquet"]);
    Ok(())
}

/// Labels `input` and returns the rows written.
fn labelled(input: &str, model: &str, folder: &Folder, more: &[&str]) -> Result<RecordBatch> {
    let out = folder.path("labelled.parquet");
    label(input, model, &out, &[more, &["--overwrite"]].concat())?.succeeds()?;
    read_parquet(&out)
}

fn label(input: &str, model: &str, out: &str, more: &[&str]) -> Result<Run> {
    thema(&[&["label", "--input", input, "--model", model, "--out", out], more].concat())
}

/// Returns the names of a model's topics; -1 are the outliers.
fn names_of(model: &str) -> Result<BTreeMap<i32, String>> {
    let topics = thema(&["topics", model, "--format", "json"])?.succeeds()?;
    let topics: Vec<Value> = serde_json::from_str(&topics.stdout)?;
    let mut names = BTreeMap::from([(-1, "outlier".to_owned())]);
    for topic in topics {
        let id = topic["Topic"].as_i64().context("a topic without number")?;
        names.insert(i32::try_from(id)?, topic["Name"].as_str().unwrap_or_default().to_owned());
    }
    Ok(names)
}
