//! The job file: one strict struct that says all of a job; the same on a laptop and in a Kubernetes resource.
//!
//! A file may be partial: flags fill in and win. A key that does not exist is an error that names it, its place and
//! the choices.

use crate::report::MapOptions;
use crate::sinks::SinkConfig;
use crate::sources::SourceConfig;
use crate::{Error, Result};
use operators::assign::LabelConfig;
use operators::fit::FitConfig;
use operators::model::EncoderConfig;
use operators::quantize::Precision;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// All of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Job {
    /// Where rows come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceConfig>,
    /// The column that names a row. Absent: rows are known by their text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The template of the text that is embedded, such as `{title}: {abstract}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The template of the text that is shown on the map and as a topic's representative. Absent: `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show: Option<String>,
    /// The column that dates a row, for the report's time filter. Absent: no dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Where vectors come from.
    pub encoder: EncoderConfig,
    /// How `embed` stores vectors. Default float32, because nothing is lost.
    pub precision: Precision,
    /// The model's folder: what `fit` writes and `label` reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How a model is fitted.
    pub fit: FitConfig,
    /// How rows are labelled. Absent: as the model says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelConfig>,
    /// An SQL condition on the labelled rows, such as `topic >= 0 and score >= 0.5`: others are not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// Where rows go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkConfig>,
    /// How the report looks.
    pub report: MapOptions,
}

impl Job {
    /// Reads the job file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read; a key or value that does not fit, with its line and the choices.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::place(&name, "no such file"),
            _ => Error::place(&name, e.to_string()),
        })?;
        Self::parse(&name, &text)
    }

    /// Reads a job from YAML; `name` stands for it in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|e| Error::place(name, e.to_string()))
    }

    /// The job as YAML.
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self).map_err(|e| Error::Internal(format!("job as YAML: {e}")))
    }

    /// The source, or what to say where none is given.
    pub fn source(&self) -> Result<&SourceConfig> {
        self.source
            .as_ref()
            .ok_or_else(|| Error::setting("source", "no input: give --input FILE, or source: in a job file"))
    }

    /// The model's folder, or what to say where none is given.
    pub fn model(&self, flag: &str) -> Result<&str> {
        let missing =
            || Error::setting("model", format!("no model folder: give {flag} DIR, or model: in a job file"));
        self.model.as_deref().ok_or_else(missing)
    }

    /// The sink, or what to say where none is given.
    pub fn sink(&self) -> Result<&SinkConfig> {
        self.sink
            .as_ref()
            .ok_or_else(|| Error::setting("sink", "no output: give --out FILE, or sink: in a job file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_job_is_read_and_written_back() {
        let text = r#"
source:  { table: { path: "papers/", where: "category = 'cs.CL'" } }
id:      id
text:    "{title}: {abstract}"
encoder: { path: models/all-MiniLM-L6-v2 }
precision: int8
model:   models/papers
fit:
  sample: { hash: { rows: 200000 } }
  reducer: { umap: { n_neighbors: 15, n_components: 5, min_dist: 0.0 } }
  clusterer: { hdbscan: { min_cluster_size: 100, cluster_selection_method: leaf } }
label:   { top_k: 10, coverage: 0.95 }
sink:    { parquet: { path: "labelled.parquet" } }
"#;
        let job = Job::parse("job.yaml", text).unwrap();
        assert_eq!(job.precision, Precision::Int8);
        assert_eq!(Job::parse("again", &job.to_yaml().unwrap()).unwrap(), job);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_place_and_the_choices() {
        for (text, words) in [
            ("sauce: {}", vec!["sauce", "source", "line 1"]),
            ("fit:\n  reducer: { umap: { neighbours: 5 } }", vec!["neighbours", "n_neighbors", "line 2"]),
            ("source: { tabel: {} }", vec!["tabel", "table"]),
            ("precision: int9", vec!["int9", "ubinary"]),
            ("label: { top_k: many }", vec!["many"]),
        ] {
            let error = Job::parse("job.yaml", text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            for word in words.into_iter().chain(["job.yaml"]) {
                assert!(error.to_string().contains(word), "{word} in {error}");
            }
        }
    }

    #[test]
    fn an_empty_file_is_a_job_of_defaults() {
        assert_eq!(Job::parse("job.yaml", "\n").unwrap(), Job::default());
    }
}
