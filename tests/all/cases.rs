//! The job files of published runs (`tests/cases`) are jobs that fit.

use anyhow::{Context, Result, ensure};
use harness::program::thema;
use harness::tables::Folder;
use serde_json::Value;

use crate::models;

#[test]
fn each_case_fits_with_the_settings_that_it_names() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    for (case, clusterer, setting) in [
        ("text-clustering", "dbscan", serde_json::json!({"eps": 0.08, "min_samples": 50})),
        ("taxonomy-completion", "hdbscan", serde_json::json!({"min_cluster_size": 100})),
        ("bertopic", "hdbscan", serde_json::json!({"min_cluster_size": 10})),
    ] {
        let file = format!("{}/cases/{case}.yaml", env!("CARGO_MANIFEST_DIR"));
        let out = folder.path(case);
        let with = [
            "--embeddings",
            "embedding",
            "--text",
            "{text}",
            "--show",
            "{text}",
            "--id",
            "id",
            "--out",
            &out,
        ];
        thema(&[&["fit", &file, "--input", &input], &with[..]].concat())?.succeeds()?;
        let manifest: Value = serde_json::from_slice(&std::fs::read(format!("{out}/v1/model.json"))?)?;
        let fitted = &manifest["settings"]["fit"]["clusterer"][clusterer];
        for (name, value) in setting.as_object().context("no settings")? {
            assert_eq!(&fitted[name], value, "{case}");
        }
        ensure!(manifest["counts"]["rows"] == models::BLOBS_ROWS, "{case}: {}", manifest["counts"]);
    }
    Ok(())
}
