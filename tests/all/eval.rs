//! `thema eval`: numbers that judge topics, the gate of a fit, and the audit of quantized embeddings.

use anyhow::{Result, ensure};
use harness::program::{Run, thema};
use harness::tables::Folder;
use serde_json::Value;

use crate::models::{self, BLOBS_ROWS};

#[test]
fn every_form_of_embeddings_is_fitted_and_compared_with_float32() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let out = folder.path("audit.json");
    let arguments =
        ["eval", "--quantization", "--input", &input, "--embeddings", "embedding", "--seeds", "2"];
    let more = ["--min-cluster-size", "50", "--min-dist", "0.1", "--out", &out];
    let run = thema(&[&arguments[..], &more].concat())?.succeeds()?;
    let shown = thema(&[&arguments[..], &more[..4], &["--format", "json"]].concat())?.succeeds()?;
    assert!(run.stdout.starts_with("600 rows, 2 fits a form; 8-bit ranges of 60 rows"), "{}", run.stdout);
    let audit: Value = serde_json::from_slice(&std::fs::read(&out)?)?;
    assert_eq!(serde_json::from_str::<Value>(&shown.stdout)?, audit, "the same fits");
    let forms = audit["forms"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<&str> = forms.iter().filter_map(|form| form["form"].as_str()).collect();
    let expected = ["float32", "int8", "int8_wrapped", "uint8", "uint8_wrapped", "int8_dequantized"];
    assert_eq!(names[..6], expected);
    assert_eq!(names[6..], ["search_codes", "binary"]);
    assert_eq!((&audit["rows"], &forms[0]["topics"]), (&BLOBS_ROWS.into(), &4.0.into()));
    assert_eq!((&forms[0]["ami_to_float32"], &forms[0]["recall_at_10"]), (&1.0.into(), &1.0.into()));
    assert_eq!(forms[5]["topics"], 4.0, "dequantized codes are close to what they stand for: {}", forms[5]);
    // float32, int8, ...: a line each below the head.
    assert_eq!(run.stdout.lines().filter(|line| line.contains(" ± ")).count(), forms.len());
    Ok(())
}

#[test]
fn an_audit_asks_for_layouts_and_for_embeddings() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let arguments = ["eval", "--quantization", "--input", &input];
    thema(&arguments)?.fails(2, &["nothing says where vectors come from", "--embeddings COLUMN"])?;
    let flat = [&arguments[..], &["--embeddings", "embedding", "--n-components", "0"]].concat();
    thema(&flat)?.fails(2, &["fit.reducer", "needs umap"])?;
    let nowhere = folder.path("missing/audit.json");
    let unwritable = [&arguments[..], &["--embeddings", "embedding", "--out", &nowhere]].concat();
    thema(&unwritable)?.fails(2, &["missing/audit.json"])?;
    // Neither another file nor the input itself goes without being asked for.
    let other = folder.write("other.json", "what was there before")?;
    let onto = |out: &str, more: &[&str]| {
        thema(&[&arguments[..], &["--embeddings", "embedding", "--seeds", "1", "--out", out], more].concat())
    };
    onto(&other, &[])?.fails(2, &["other.json", "exists already", "--overwrite"])?;
    assert_eq!(std::fs::read_to_string(&other)?, "what was there before");
    let before = std::fs::read(&input)?;
    onto(&input, &["--overwrite"])?.fails(2, &["blobs.parquet", "is also the input"])?;
    assert_eq!(std::fs::read(&input)?, before);
    onto(&other, &["--overwrite"])?.succeeds()?;
    let audit: Value = serde_json::from_slice(&std::fs::read(&other)?)?;
    assert_eq!(audit["rows"], BLOBS_ROWS);
    let small = [&arguments[..], &["--embeddings", "embedding", "--min-cluster-size", "601"]].concat();
    thema(&small)?.fails(3, &["601"])?;
    Ok(())
}

#[test]
fn topics_are_judged_against_the_classes_of_their_rows() -> Result<()> {
    let model = models::blobs();
    let run =
        thema(&["eval", &model.model, "--input", &model.input, "--labels", "truth", "--format", "json"])?;
    let found: Value = serde_json::from_str(&run.succeeds()?.stdout)?;
    let folder = Folder::new()?;
    let out = folder.path("judged.json");
    thema(&["eval", &model.model, "--out", &out])?.succeeds()?;
    let written: Value = serde_json::from_slice(&std::fs::read(&out)?)?;
    assert_eq!(written["metrics"], found["metrics"]);
    for number in ["npmi", "topic_diversity", "dbcv", "outlier_share", "coverage_reached"] {
        ensure!(found["metrics"][number].as_f64().is_some_and(f64::is_finite), "{number}: {found}");
    }
    let inside = &found["agreement"]["inside"];
    ensure!(inside["ari"].as_f64().is_some_and(|ari| ari > 0.99), "{found}");
    ensure!(inside["v_measure"].as_f64().is_some_and(|v| v > 0.99), "{found}");
    ensure!(found["agreement"]["coverage"].as_f64().is_some_and(|share| share > 0.5), "{found}");
    for (arguments, says) in [
        (vec!["eval", &model.model, "--labels", "text"], "--input"),
        (vec!["eval"], "nothing to judge"),
        (vec!["eval", "/nowhere", "--labels", "text", "--input", &model.input], "/nowhere"),
        (vec!["eval", &model.model, "--input", &model.input, "--labels", "colour"], "colour"),
    ] {
        let run = thema(&arguments)?;
        ensure!(
            run.code == Some(2) && run.stderr.contains(says),
            "{arguments:?}: {:?} {}",
            run.code,
            run.stderr
        );
    }
    Ok(())
}

#[test]
fn a_fit_that_does_not_pass_its_gate_writes_nothing() -> Result<()> {
    let folder = Folder::new()?;
    let (job, out) = (folder.path("job.yaml"), folder.path("model"));
    let input = &models::blobs().input;
    let with_gate = |gate: &str| -> Result<Run> {
        std::fs::write(&job, format!("fit: {{ gate: {gate} }}"))?;
        let mut arguments = models::fit_arguments(input, &out);
        arguments.insert(1, &job);
        arguments.push("--overwrite");
        thema(&arguments)
    };
    let run = with_gate("{ at_least: { topics: 100 } }")?;
    ensure!(run.code == Some(3) && run.stderr.contains("topics is 4.0000"), "{:?} {}", run.code, run.stderr);
    ensure!(!std::path::Path::new(&out).exists(), "a refused model was written");
    with_gate("{ at_least: { topics: 4 }, not_worse_by: { dbcv: 0 } }")?.succeeds()?;
    with_gate("{ not_worse_by: { dbcv: 0, topics: 0, outlier_share: 0 } }")?.succeeds()?;
    let run = with_gate("{ at_most: { beauty: 1 } }")?;
    ensure!(run.code == Some(2) && run.stderr.contains("fit.gate.at_most.beauty"), "{}", run.stderr);
    Ok(())
}
