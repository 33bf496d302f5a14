//! `thema fit`: what it finds, what it writes, and that it repeats.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float32Type};
use harness::program::thema;
use harness::tables::{Folder, ints, read_parquet, strings};
use serde_json::Value;

use crate::models::{self, BLOBS, BLOBS_ROWS, fit_arguments};

#[test]
fn a_fit_on_precomputed_embeddings_finds_the_clusters_there_are() -> Result<()> {
    let sample = read_parquet(&format!("{}/v1/sample.parquet", models::blobs().model))?;
    assert_eq!(sample.num_rows(), BLOBS_ROWS);
    // The bundle's rows are in the order of the sample: the id is the row of the input.
    let ids = strings(&sample, "id")?;
    let mut topic_of = [None; BLOBS.clusters];
    for (id, topic) in ids.iter().zip(ints(&sample, "topic")?) {
        let cluster = id.parse::<usize>()? % BLOBS.clusters;
        if topic >= 0 {
            assert_eq!(*topic_of[cluster].get_or_insert(topic), topic, "row {id}");
        }
    }
    let mut topics: Vec<i32> = topic_of.into_iter().flatten().collect();
    topics.sort_unstable();
    assert_eq!(topics, [0, 1, 2, 3]);
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_bytes_at_any_thread_count() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let fit = |name: &str, more: &[&str]| -> Result<Value> {
        let out = folder.path(name);
        let arguments = [fit_arguments(&input, &out), more.to_vec()].concat();
        thema(&arguments)?.succeeds()?;
        hashes(&format!("{out}/v1"))
    };
    let one = fit("one", &["--seed", "7", "--threads", "1"])?;
    let two = fit("two", &["--seed", "7", "--threads", "2"])?;
    let other = fit("other", &["--seed", "8", "--threads", "2"])?;
    assert_eq!(one, two);
    ensure!(one.as_object().is_some_and(|parts| parts.len() == 8), "{one}");
    assert_ne!(one["sample.parquet"], other["sample.parquet"], "another seed moves the points");
    Ok(())
}

#[test]
fn kmeans_makes_as_many_topics_as_are_asked_for_even_of_seven_rows() -> Result<()> {
    let folder = Folder::new()?;
    for (rows, topics, more) in [(7, "3", vec!["--n-components", "0"]), (7, "3", vec![]), (600, "4", vec![])]
    {
        let input = folder.parquet(&format!("{rows}.parquet"), &BLOBS.rows(0, rows)?)?;
        let out = folder.path(&format!("{rows} {}", more.len()));
        let what = ["fit", "--input", &input, "--out", &out, "--embeddings", "embedding", "--text", "{text}"];
        let how = ["--id", "id", "--n-clusters", topics];
        let run = thema(&[&what[..], &how, &more].concat())?.succeeds()?;
        assert!(
            run.stdout.starts_with(&format!("{topics} topics in {rows} rows (0 % outliers)")),
            "{}",
            run.stdout
        );
        let sample = read_parquet(&format!("{out}/v1/sample.parquet"))?;
        let found: BTreeSet<i32> = ints(&sample, "topic")?.into_iter().collect();
        assert_eq!(found, (0..topics.parse()?).collect());
        let labels = folder.path("labels.parquet");
        thema(&["label", "--input", &input, "--model", &out, "--out", &labels, "--overwrite"])?.succeeds()?;
    }
    let input = folder.path("7.parquet");
    let out = folder.path("none");
    let what = ["fit", "--input", &input, "--out", &out, "--embeddings", "embedding", "--text", "{text}"];
    let nine = thema(&[&what[..], &["--id", "id", "--n-clusters", "9"]].concat())?;
    nine.fails(3, &["7 rows are fewer than n_clusters 9"])?;
    Ok(())
}

#[test]
fn vectors_that_are_all_zero_say_nothing() -> Result<()> {
    let folder = Folder::new()?;
    let rows = models::blob_rows()?;
    let zeros = |share: usize| -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        let place = rows.schema().index_of("embedding")?;
        let lists = columns[place].as_fixed_size_list();
        let dim = lists.value_length() as usize;
        let mut values = lists.values().as_primitive::<Float32Type>().values().to_vec();
        values.chunks_mut(dim).step_by(share).for_each(|row| row.fill(0.0));
        let DataType::FixedSizeList(item, _) = lists.data_type().clone() else {
            bail!("no list of a fixed size")
        };
        let values = Arc::new(Float32Array::from(values));
        columns[place] = Arc::new(FixedSizeListArray::try_new(item, dim as i32, values, None)?);
        Ok(RecordBatch::try_new(rows.schema(), columns)?)
    };
    let out = folder.path("model");
    let all = folder.parquet("all.parquet", &zeros(1)?)?;
    thema(&fit_arguments(&all, &out))?.fails(3, &["all 600 vectors are zero"])?;
    let some = folder.parquet("some.parquet", &zeros(6)?)?;
    let run = thema(&fit_arguments(&some, &out))?.succeeds()?;
    assert!(run.stderr.contains("100 of 600 vectors are zero"), "{}", run.stderr);
    Ok(())
}

#[test]
fn a_model_is_the_same_whatever_files_its_rows_lie_in() -> Result<()> {
    let folder = Folder::new()?;
    let rows = models::blob_rows()?;
    folder.parquet("one/all.parquet", &rows)?;
    // In other files, of other lengths, in another order.
    for (name, start, length) in [("z", 0, 150), ("b/c", 150, 1), ("b/a", 151, 400), ("a", 551, 49)] {
        folder.parquet(&format!("many/{name}.parquet"), &rows.slice(start, length))?;
    }
    let parts = |name: &str| -> Result<Value> {
        let (input, out) = (folder.path(name), folder.path(&format!("model of {name}")));
        thema(&[fit_arguments(&input, &out), vec!["--sample", "400"]].concat())?.succeeds()?;
        hashes(&format!("{out}/v1"))
    };
    assert_eq!(parts("one")?, parts("many")?);
    Ok(())
}

#[test]
fn near_duplicates_count_but_are_fitted_once() -> Result<()> {
    let folder = Folder::new()?;
    let once = models::blob_rows()?;
    // Texts that tell rows apart, as those of a stranger's copy do: the last word is another one.
    let texts = |last: &str| -> Result<RecordBatch> {
        let texts = strings(&once, "text")?;
        let row = |(row, text): (usize, &String)| {
            let words: Vec<String> = (0..20).map(|at| format!("{text} number{}", row * 31 + at)).collect();
            format!("{} {last}", words.join(" "))
        };
        replaced(&once, "text", Arc::new(StringArray::from_iter_values(texts.iter().enumerate().map(row))))
    };
    let ids = Int64Array::from_iter_values(10_000..10_000 + BLOBS_ROWS as i64);
    let (first, second) = (texts("end")?, replaced(&texts("finish")?, "id", Arc::new(ids))?);
    let once = folder.parquet("once.parquet", &first)?;
    let twice = folder.parquet("twice.parquet", &concat_batches(&first.schema(), [&first, &second])?)?;
    let topics = |input: &str, name: &str, more: &[&str]| -> Result<(Vec<u64>, String)> {
        let out = folder.path(name);
        let run = thema(&[fit_arguments(input, &out), more.to_vec()].concat())?.succeeds()?;
        let told = thema(&["topics", &out, "--format", "json"])?.succeeds()?;
        let told: Value = serde_json::from_str(&told.stdout)?;
        let counts = told.as_array().context("no list")?.iter().filter_map(|topic| topic["Count"].as_u64());
        Ok((counts.collect(), run.stderr))
    };
    let (counts, stderr) = topics(&once, "of once", &[])?;
    assert!(!stderr.contains("duplicates"), "{stderr}");
    let (doubled, stderr) = topics(&twice, "of twice", &[])?;
    assert!(stderr.contains("600 of 1200 rows are near duplicates"), "{stderr}");
    assert_eq!(counts.len(), doubled.len());
    assert_eq!((counts.iter().sum::<u64>(), doubled.iter().sum::<u64>()), (600, 1200));
    let sample = read_parquet(&format!("{}/v1/sample.parquet", folder.path("of twice")))?;
    assert_eq!(sample.num_rows(), BLOBS_ROWS);
    let (_, stderr) = topics(&twice, "all of twice", &["--keep-duplicates"])?;
    assert!(!stderr.contains("duplicates"), "{stderr}");
    let sample = read_parquet(&format!("{}/v1/sample.parquet", folder.path("all of twice")))?;
    assert_eq!(sample.num_rows(), 2 * BLOBS_ROWS);
    Ok(())
}

#[test]
fn ids_that_stand_in_several_rows_are_told() -> Result<()> {
    let folder = Folder::new()?;
    let rows = models::blob_rows()?;
    let ids =
        Int64Array::from_iter_values((0..BLOBS_ROWS as i64).map(|row| if row < 6 { row % 2 } else { row }));
    let input = folder.parquet("rows.parquet", &replaced(&rows, "id", Arc::new(ids))?)?;
    let out = folder.path("model");
    let strict = [fit_arguments(&input, &out), vec!["--strict"]].concat();
    let told = [
        "column \"id\"",
        "2 of the sample's 596 ids stand in more than one row",
        "in 3",
        "4 rows are left out",
    ];
    thema(&strict)?.fails(3, &told)?;
    let run = thema(&fit_arguments(&input, &out))?.succeeds()?;
    for part in told {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    Ok(())
}

/// The rows with another column in the place of one.
fn replaced(rows: &RecordBatch, name: &str, column: ArrayRef) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of(name)?] = column;
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

#[test]
fn dbscan_sees_as_far_as_it_is_told() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let out = folder.path("model");
    let what = [
        "fit",
        "--input",
        &input,
        "--out",
        &out,
        "--embeddings",
        "embedding",
        "--text",
        "{text}",
        "--id",
        "id",
    ];
    let how = ["--eps", "0.5", "--min-samples", "5", "--overwrite"];
    let run = thema(&[&what[..], &how].concat())?.succeeds()?;
    assert!(run.stdout.starts_with("4 topics in 600 rows"), "{}", run.stdout);
    // One that sees nobody else finds no topics, and one that sees all finds one.
    let run =
        thema(&[&what[..], &["--eps", "0.5", "--min-samples", "200", "--overwrite"]].concat())?.succeeds()?;
    assert!(run.stdout.starts_with("0 topics in 600 rows"), "{}", run.stdout);
    let run = thema(&[&what[..], &["--eps", "1000", "--overwrite"]].concat())?.succeeds()?;
    assert!(run.stdout.starts_with("1 topic in 600 rows"), "{}", run.stdout);
    thema(&[&what[..], &["--eps", "0", "--overwrite"]].concat())?.fails(2, &["eps", "above 0"])?;
    thema(&[&what[..], &["--eps", "1", "--method", "leaf"]].concat())?.fails(2, &["--method"])?;
    Ok(())
}

#[test]
fn a_fit_says_where_the_model_the_report_and_the_map_are() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let out = folder.path("model");
    let run = thema(&fit_arguments(&input, &out))?.succeeds()?;
    assert!(run.stdout.starts_with("4 topics in 600 rows"), "{}", run.stdout);
    let told = |name: &str| -> Result<String> {
        let line = run.stdout.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name} in {}", run.stdout))?.trim().to_owned())
    };
    assert!(fs::read(told("map")?)?.starts_with(b"\x89PNG"));
    assert!(fs::read_to_string(told("report")?)?.contains("<html"));
    assert!(told("model")?.ends_with("/v1"));
    thema(&["topics", &told("model")?])?.succeeds()?;
    Ok(())
}

#[test]
fn a_second_fit_adds_a_version_and_leaves_the_first_alone() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let out = folder.path("model");
    thema(&fit_arguments(&input, &out))?.succeeds()?;
    let before = hashes(&format!("{out}/v1"))?;
    let report = fs::read(format!("{out}/report.html"))?;

    thema(&fit_arguments(&input, &out))?
        .fails(2, &[&out, "holds a model already", "version 1", "--overwrite"])?;
    assert_eq!(folder.names()?, ["blobs.parquet", "model"]);
    ensure!(fs::read(format!("{out}/report.html"))? == report, "the report was written again");

    let again =
        [fit_arguments(&input, &out), vec!["--overwrite", "--n-components", "0", "--title", "Second"]]
            .concat();
    thema(&again)?.succeeds()?;
    assert_eq!(hashes(&format!("{out}/v1"))?, before);
    assert!(fs::read_to_string(format!("{out}/report.html"))?.contains("Second"));

    // The newest is taken where no version is named.
    for (model, version) in [(out.clone(), "v2"), (format!("{out}/v1"), "v1")] {
        let labelled = folder.path("labelled.parquet");
        thema(&["label", "--input", &input, "--model", &model, "--out", &labelled, "--overwrite"])?
            .succeeds()?;
        let versions = strings(&read_parquet(&labelled)?, "model_version")?;
        assert!(versions.iter().all(|found| found == version), "{model} is not {version}");
    }
    Ok(())
}

/// Returns the sha256 of each part, as the manifest has them.
fn hashes(bundle: &str) -> Result<Value> {
    let manifest: Value = serde_json::from_slice(&fs::read(format!("{bundle}/model.json"))?)?;
    Ok(manifest["parts"].clone())
}
