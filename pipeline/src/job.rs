//! The job file: one strict struct that says all of a job; the same on a laptop and in a Kubernetes resource.
//!
//! A file may be partial: flags fill in and win. A key that does not exist is an error that names it, its place and
//! the choices.

use crate::report::MapOptions;
use crate::sinks::SinkConfig;
use crate::sources::SourceConfig;
use crate::stream::StreamConfig;
use crate::{Error, Result, error::first_line};
use operators::assign::LabelChanges;
use operators::fit::FitConfig;
use operators::labellers::LabellerConfig;
use operators::model::EncoderConfig;
use operators::quantize::Precision;
use operators::taxonomy::llm::TaxonomyConfig;
use operators::text::did_you_mean;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// A Parquet file with a column `embedding` of float vectors, by whose ranges `embed` makes 8-bit codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// The ranges themselves: a model's `calibration.safetensors`, or a `.npy` of 2 × dimensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranges: Option<PathBuf>,
    /// 8-bit codes by the rule of sentence-transformers before 5.7. Default no: that rule wraps what is out of range.
    pub legacy: bool,
    /// The model's folder: what `fit` writes and `label` reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How a model is fitted.
    pub fit: FitConfig,
    /// What is changed of how rows are labelled. Absent: nothing, the model says it.
    pub label: LabelChanges,
    /// An SQL condition on the labelled rows, such as `topic >= 0 and score >= 0.5`: others are not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// Whether `label` keeps sums of the rows by topic beside an output that grows. Default: no, since they cost a reading of
    /// every text.
    pub corpus: bool,
    /// What stands before the names of the columns that `label` and `embed` add. Default: nothing.
    pub prefix: String,
    /// How a stream flows.
    pub stream: StreamConfig,
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
            std::io::ErrorKind::InvalidData => {
                Error::place(&name, "is no job file in YAML; to read rows from it say --input")
            }
            _ => Error::place(&name, e.to_string()),
        })?;
        let mut job = Self::parse(&name, &text)?;
        job.make_paths_whole()?;
        Ok(job)
    }

    /// Makes paths whole that a model keeps with its settings.
    fn make_paths_whole(&mut self) -> Result<()> {
        if let LabellerConfig::Llm(namer) = &mut self.fit.labeller {
            namer.chat.make_paths_whole()?;
        }
        if let TaxonomyConfig::Llm(chat) = &mut self.fit.taxonomy {
            chat.make_paths_whole()?;
        }
        if let Some(remote) = &mut self.encoder.remote {
            remote.endpoint.make_paths_whole()?;
        }
        Ok(())
    }

    /// Reads a job from YAML; `name` stands for it in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| explained(name, text, &error))
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

/// A job file with every key, each with what it means.
pub(crate) const REFERENCE: &str = include_str!("job/reference.yaml");

/// Says where a job file is wrong and what was expected there, and shows the place.
fn explained(name: &str, text: &str, error: &serde_saphyr::Error) -> Error {
    use serde_saphyr::{Error as Yaml, MessageFormatter, UserMessageFormatter};
    let one_of = |name: &str, expected: &[&str]| {
        let meant = did_you_mean(name, expected.iter().copied());
        format!("{meant}, expected one of {} (thema check --reference explains each)", expected.join(", "))
    };
    let error = error.without_snippet();
    let reason = match error {
        Yaml::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key \"{field}\"{}", one_of(field, expected))
        }
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            format!("unknown choice \"{variant}\"{}", one_of(variant, expected))
        }
        Yaml::Unexpected { expected: "mapping start", .. } => {
            "expected keys with values, such as { key: value } (thema check --reference shows which)".into()
        }
        Yaml::Unexpected { expected: "string scalar", .. } => "expected one text".into(),
        Yaml::InvalidScalar { ty, .. } if ty.starts_with('u') => {
            "expected a whole number, 0 or more".to_string()
        }
        Yaml::InvalidScalar { ty, .. } if ty.starts_with('f') => "expected a number".into(),
        Yaml::InvalidBooleanStrict { .. } => "expected true or false".into(),
        Yaml::InvalidCharNotSingleScalar { .. } => "expected a single character".into(),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key \"{key}\" stands twice"),
        other => first_line(&UserMessageFormatter.format_message(other)),
    };
    let Some(at) = error.location() else { return Error::place(name, reason) };
    let line = usize::try_from(at.line()).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
    // A place far to the right is not shown: its line would wrap around it.
    let shown = match (line, usize::try_from(at.column())) {
        (Some(line), Ok(column @ 1..=100)) => {
            let line: String = line.chars().take(120).collect();
            format!("\n  {line}\n  {:>column$}", '^')
        }
        _ => String::new(),
    };
    Error::place(format!("{name}, line {}, column {}", at.line(), at.column()), format!("{reason}{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::TableConfig;
    use operators::assign::LabelConfig;
    use operators::clusterers::ClustererConfig;
    use operators::reducers::Reducer;

    /// What is known where `text` has the unknown `bogus`, and whether these are keys of a struct.
    fn known(text: &str) -> (Vec<String>, bool) {
        let error = Job::parse("job.yaml", text).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{text}: {error}"));
        let names = expected.split(" (").next().unwrap().split(", ").map(Into::into);
        (names.collect(), error.contains("unknown key"))
    }

    /// Whether `word` stands in the reference as a word of its own.
    fn is_in_reference(word: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '{';
        REFERENCE.match_indices(word).any(|(at, _)| {
            let after = &REFERENCE[at + word.len()..];
            !REFERENCE[..at].ends_with(is_part) && (word.ends_with(':') || !after.starts_with(is_part))
        })
    }

    #[test]
    fn the_reference_is_a_job_and_has_every_key_there_is() {
        let job = Job::parse("reference", REFERENCE).unwrap();
        job.fit.check().unwrap();
        // What is not marked as an example is the default.
        let mut fit = job.fit.clone();
        if let Reducer::Umap(umap) = &mut fit.reducer {
            umap.n_epochs = None;
        }
        if let ClustererConfig::Hdbscan(hdbscan) = &mut fit.clusterer {
            (hdbscan.min_samples, hdbscan.max_cluster_size) = (None, None);
        }
        assert_eq!(fit, FitConfig::default());
        assert_eq!(job.label, LabelConfig::default().into());
        let report = MapOptions { title: None, point_size: None, ..job.report.clone() };
        assert_eq!(report, MapOptions::default());
        let default = TableConfig::default();
        let table = job.source.as_ref().and_then(SourceConfig::table).cloned().unwrap();
        let stream =
            StreamConfig { batch_wait_ms: None, commit_ms: None, listen: None, ..job.stream.clone() };
        assert_eq!(stream, StreamConfig::default());
        let examples = TableConfig { path: String::new(), format: None, filter: None, rows: None, ..table };
        assert_eq!(TableConfig { types: default.types.clone(), ..examples }, default);
        let default = Job::default();
        assert_eq!((job.precision, job.legacy), (default.precision, default.legacy));
        assert_eq!(job.prefix, default.prefix);
        for place in [
            "BOGUS",
            "source: { BOGUS }",
            "source: { table: { BOGUS } }",
            "source: { table: { rows: { BOGUS } } }",
            "source: { table: { format: bogus } }",
            "source: { table: { on_bad_row: bogus } }",
            "source: { table: { types: { a: bogus } } }",
            "source: { kafka: { BOGUS } }",
            "source: { kafka: { connection: { BOGUS } } }",
            "source: { kafka: { connection: { tls: { BOGUS } } } }",
            "source: { kafka: { connection: { sasl: { BOGUS } } } }",
            "source: { kafka: { connection: { sasl: { mechanism: bogus } } } }",
            "source: { kafka: { protocol: bogus } }",
            "source: { kafka: { start: bogus } }",
            "source: { kafka: { format: bogus } }",
            "source: { kafka: { registry: { BOGUS } } }",
            "encoder: { BOGUS }",
            "encoder: { remote: { BOGUS } }",
            "precision: bogus",
            "fit: { BOGUS }",
            "fit: { sample: { BOGUS } }",
            "fit: { reducer: { BOGUS } }",
            "fit: { reducer: { umap: { BOGUS } } }",
            "fit: { reducer: { umap: { metric: bogus } } }",
            "fit: { reducer: { umap: { init: bogus } } }",
            "fit: { clusterer: { BOGUS } }",
            "fit: { clusterer: { hdbscan: { BOGUS } } }",
            "fit: { clusterer: { hdbscan: { cluster_selection_method: bogus } } }",
            "fit: { clusterer: { kmeans: { BOGUS } } }",
            "fit: { given: { BOGUS } }",
            "fit: { given: { topics: [ { BOGUS } ] } }",
            "fit: { words: { BOGUS } }",
            "fit: { words: { vocabulary: { BOGUS } } }",
            "fit: { words: { vocabulary: { token_pattern: bogus } } }",
            "fit: { words: { vocabulary: { stop_words: { BOGUS } } } }",
            "fit: { words: { vocabulary: { min_df: { BOGUS } } } }",
            "fit: { words: { ctfidf: { BOGUS } } }",
            "fit: { labeller: { BOGUS } }",
            "fit: { labeller: { keywords: { BOGUS } } }",
            "fit: { taxonomy: bogus }",
            "fit: { taxonomy: { llm: { BOGUS } } }",
            "fit: { labeller: { llm: { BOGUS } } }",
            "fit: { labeller: { llm: { mode: bogus } } }",
            "fit: { labeller: { llm: { examples: { BOGUS } } } }",
            "fit: { labeller: { llm: { examples: { select: bogus } } } }",
            "fit: { labeller: { llm: { examples: { cut: { BOGUS } } } } }",
            "fit: { labeller: { llm: { endpoint: { BOGUS } } } }",
            "fit: { labeller: { llm: { endpoint: { budget: { BOGUS } } } } }",
            "label: { BOGUS }",
            "label: { outliers: bogus }",
            "sink: { BOGUS }",
            "sink: { parquet: { BOGUS } }",
            "sink: { kafka: { BOGUS } }",
            "sink: { kafka: { format: bogus } }",
            "sink: { folder: { BOGUS } }",
            "sink: { delta: { BOGUS } }",
            "sink: { delta: { mode: bogus } }",
            "stream: { BOGUS }",
            "stream: { mode: bogus }",
            "stream: { on_bad_message: bogus }",
            "stream: { breaker: { BOGUS } }",
            "stream: { monitor: { BOGUS } }",
            "report: { BOGUS }",
            "report: { palette: bogus }",
            "report: { outliers: bogus }",
            "report: { theme: bogus }",
        ] {
            let (names, are_keys) = known(&place.replace("BOGUS", "bogus: 1"));
            assert!(!names.is_empty(), "{place}");
            for name in names {
                let word = if are_keys { format!("{name}:") } else { name };
                assert!(is_in_reference(&word), "the reference lacks {word} of {place}");
            }
        }
    }

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
            ("label: { top_k: many }", vec!["line 1", "column 17", "a whole number"]),
            ("encoder: all-MiniLM-L6-v2", vec!["keys with values", "--reference", "\n  encoder: all-MiniLM"]),
            ("id: a\nid: b", vec!["\"id\" stands twice", "line 2"]),
            ("fit: { reducer: { umap: { neigbors: 1 } } }", vec!["did you mean \"n_neighbors\"?"]),
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
