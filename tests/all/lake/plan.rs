//! `thema plan label`: what it says labelling takes is what labelling takes.

use super::Lake;
use crate::models::{self, BLOBS};
use anyhow::{Context, Result, ensure};
use harness::program::thema;
use harness::tables::{Folder, write_parquet};
use serde_json::Value;
use std::fs;

fn plan(told: &str) -> Result<Value> {
    let told: Value = serde_json::from_str(told)?;
    ensure!(told["plans"].as_array().context("no plans")?.len() == 1, "{told}");
    Ok(told["plans"][0].clone())
}

#[test]
fn what_is_planned_is_what_labelling_takes() -> Result<()> {
    let (folder, model) = (Folder::new()?, &models::blobs().model);
    let path = folder.write("in/rows.parquet", [])?;
    let rows = BLOBS.rows(1000, 1)?;
    write_parquet(&path, rows.schema(), (0..60).map(|n| BLOBS.rows(n * 8192, 8192)), 1 << 20)?;
    for out in ["out.parquet".to_string(), "grown/".into()] {
        let out = format!("{}/{out}", folder.path("out"));
        fs::create_dir_all(folder.path("out"))?;
        let label = ["label", "--input", &path, "--model", model, "--out", &out];
        let told = thema(&[&["plan"], &label[..], &["--format", "json"]].concat())?.succeeds()?;
        let planned = plan(&told.stdout)?;
        ensure!(
            fs::read_dir(folder.path("out"))?.count() == usize::from(out.ends_with('/')),
            "a plan writes nothing"
        );
        let run = thema(&label)?.succeeds()?;
        let file = match out.ends_with('/') {
            true => format!("{out}part-000001-00000.parquet"),
            false => out.clone(),
        };
        let near = |key: &str, measured: f64, percent: f64| {
            let planned = planned[key].as_f64().unwrap_or(f64::NAN);
            let off = 100.0 * (planned / measured - 1.0);
            ensure!(
                off.abs() <= percent,
                "{key}: {planned} planned, {measured} measured: {off:.1} % off, for {out}"
            );
            Ok(())
        };
        near("rows", 60.0 * 8192.0, 0.0)?;
        near("read_bytes", fs::metadata(&path)?.len() as f64, 0.01)?;
        near("written_bytes", fs::metadata(file)?.len() as f64, 5.0)?;
        near("peak_bytes", run.peak_kib as f64 * 1024.0, 30.0)?;
    }
    Ok(())
}

#[test]
fn of_an_output_that_grows_what_is_new_is_planned() -> Result<()> {
    let lake = Lake::new()?;
    let plan_of = ["plan", "label", "--input", "s3://lake/papers/", "--model", "s3://lake/models/blobs"];
    let of = |more: &[&str]| {
        lake.run(&[&plan_of[..], &["--out", "s3://lake/labelled/", "--log", "json"], more].concat())
    };
    let rows =
        |run: harness::program::Run| Ok::<_, anyhow::Error>(plan(&run.succeeds()?.stdout)?["rows"].as_u64());
    assert_eq!(rows(of(&[])?)?, Some(1500));
    lake.label("s3://lake/labelled/")?.succeeds()?;
    assert_eq!(rows(of(&[])?)?, Some(0));
    let file = lake.folder.parquet("more.parquet", &BLOBS.rows(9000, 70)?)?;
    lake.store.put(&file, "lake/papers/2027/more.parquet")?;
    assert_eq!(rows(of(&[])?)?, Some(70));
    assert_eq!(rows(of(&["--overwrite"])?)?, Some(1570));
    assert_eq!(rows(of(&["--count", "1000000"])?)?, Some(1_000_000));
    lake.label("s3://lake/labelled/")?.succeeds()?;
    let run = lake.run(&[&plan_of[..], &["--out", "s3://lake/labelled/"]].concat())?.succeeds()?;
    assert_eq!(run.stdout, "nothing new: there is nothing to label\n");
    let planned = plan(&of(&["--count", "100000"])?.succeeds()?.stdout)?;
    let of_one = fs::metadata(lake.store.path("lake/papers/2026/part-0.parquet"))?.len() as f64 / 500.0;
    let read = planned["read_bytes"].as_f64().context("bytes")? / 100_000.0;
    ensure!((read / of_one - 1.0).abs() < 0.2, "{read} bytes a row, {of_one} in a file");

    let run = lake.run(&[
        "plan",
        "label",
        "--input",
        "s3://lake/papers/",
        "--model",
        "s3://lake/models/blobs",
        "--out",
        "x.parquet",
    ])?;
    let text = run.succeeds()?.stdout;
    for part in ["rows", "1,570", "read", "written", "memory", "time", "To be read: 4 files"] {
        assert!(text.contains(part), "{text}");
    }
    let input = lake.folder.path("papers");
    let what = ["plan", "label", "--input", &input, "--model", &models::blobs().model, "--out", "x.parquet"];
    // Of a condition what it leaves is estimated: here ids are from 1000 to 2499.
    let run = thema(&[&what[..], &["--where", "id < 1750", "--format", "json"]].concat())?.succeeds()?;
    let planned = plan(&run.stdout)?;
    assert_eq!((planned["rows"].as_u64(), planned["labelled"].as_f64()), (Some(1500), Some(750.0)));
    let text = lake.folder.write("rows.csv", "id,text\n1,harbour\n")?;
    let model = &models::blobs().model;
    thema(&["plan", "label", "--input", &text, "--model", model, "--out", "x.parquet"])?
        .fails(2, &["--count", "text files do not say how many rows they have"])?;
    let run = of(&[])?.succeeds()?;
    ensure!(run.stdout.contains("\"read_bytes\""), "{}", run.stdout);
    Ok(())
}
