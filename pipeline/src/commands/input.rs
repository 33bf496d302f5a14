//! What commands that read rows share: the job file, the flags that fill it in, the encoder they name.

use super::{Context, count};
use crate::job::Job;
use crate::location::Location;
use crate::sources::{BadUnits, Columns, Embeddings, OnBadRow, RowRange, Source, SourceConfig, TableConfig};
use crate::worker::on_worker;
use crate::{Error, Result, hub};
use arrow::datatypes::Schema;
use clap::Args;
use operators::embedding_column::check_field;
use operators::encoders::{Encoder, WeightPrecision};
use operators::endpoint::EndpointConfig;
use operators::endpoint::embeddings::RemoteConfig;
use operators::model::EncoderConfig;
use operators::text::Template;
use operators::vectors::{Counters, Vectors};
use std::path::PathBuf;
use std::sync::Arc;

/// Where rows come from.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// A job file; flags fill it in and win
    #[arg(value_name = "JOB.yaml")]
    pub job: Option<PathBuf>,
    /// Parquet, CSV or JSONL: a file, a folder, a glob, s3://..., or hf://datasets/owner/name
    #[arg(long, short, value_name = "PATH")]
    pub input: Option<String>,
    /// Reads only rows for which this SQL condition holds; a name such as "meta.title" stands in double quotes
    #[arg(long = "where", value_name = "SQL")]
    pub filter: Option<String>,
    /// Reads only these rows of the input, counted from 0: 0..6000, 6000..
    #[arg(long, value_name = "A..B", value_parser = parse_rows)]
    pub rows: Option<RowRange>,
    /// The column that names a row; in a CSV file its 2302.08150 stays as it is
    #[arg(long, value_name = "COLUMN")]
    pub id: Option<String>,
    /// What a file, row group or row that cannot be read does
    #[arg(long, value_name = "fail|skip", value_parser = parse_on_bad_row)]
    pub on_bad_row: Option<OnBadRow>,
    /// Treats warnings (texts that are missing or cut, rows that are skipped) as errors
    #[arg(long)]
    pub strict: bool,
}

/// Where vectors come from.
#[derive(Debug, Args)]
pub struct EncoderArgs {
    /// The text to embed, from columns: '{title}: {abstract}'
    #[arg(long, short, value_name = "TEMPLATE")]
    pub text: Option<String>,
    /// A sentence-transformers folder, or the name of a model in a cache
    #[arg(long, short, value_name = "DIR|NAME", conflicts_with = "embeddings")]
    pub encoder: Option<String>,
    /// The base of an OpenAI-compatible API whose model of that name makes the vectors: https://api.openai.com/v1
    #[arg(long, value_name = "URL", requires = "encoder")]
    pub encoder_url: Option<String>,
    /// Where its key is, never the key: '${VARIABLE}' of the environment, or file:PATH
    #[arg(long, value_name = "PLACE", requires = "encoder_url")]
    pub encoder_key: Option<String>,
    /// Dimensions that it is to shorten vectors to, for models that can [default: the model's own]
    #[arg(long, value_name = "N", requires = "encoder_url")]
    pub dimensions: Option<usize>,
    /// A column of precomputed vectors
    #[arg(long, value_name = "COLUMN")]
    pub embeddings: Option<String>,
    /// The longest text in tokens [default: what the encoder says]
    #[arg(long, value_name = "TOKENS")]
    pub max_length: Option<usize>,
    /// The name of one of the encoder's prompts
    #[arg(long, value_name = "NAME")]
    pub prompt: Option<String>,
    /// In which numbers the encoder computes: on a processor float32, or int8, which is several times faster; on a GPU
    /// float16, bfloat16, or (H100, H200) float8, less exact and not measured yet [default: float32, float16]
    #[arg(long, value_name = "PRECISION")]
    pub weights: Option<WeightPrecision>,
}

impl InputArgs {
    /// Reads the job file, and fills in the flags.
    pub fn job(&self) -> Result<Job> {
        let mut job = self.job.as_deref().map(Job::load).transpose()?.unwrap_or_default();
        if let Some(path) = &self.input {
            match &mut job.source {
                Some(SourceConfig::Table(table)) => table.path.clone_from(path),
                other => *other = Some(SourceConfig::Table(TableConfig::new(path))),
            }
        }
        if let Some(SourceConfig::Table(table)) = &mut job.source {
            if self.filter.is_some() {
                table.filter.clone_from(&self.filter);
            }
            table.rows = self.rows.or(table.rows);
            table.on_bad_row = self.on_bad_row.unwrap_or(table.on_bad_row);
        }
        if self.id.is_some() {
            job.id.clone_from(&self.id);
        }
        Ok(job)
    }

    /// Warns, or with `--strict` fails, of texts that were missing or cut.
    pub fn judge(&self, counters: &Counters) -> Result<()> {
        let missing = counters.missing();
        let (texts, tokens) = counters.truncated();
        let mut warnings: Vec<String> = missing
            .nulls
            .iter()
            .filter(|(_, nulls)| **nulls > 0)
            .map(|(column, nulls)| {
                format!("column \"{column}\" is missing in {nulls} of {} rows", missing.rows)
            })
            .collect();
        if missing.empty_rows > 0 {
            warnings.push(format!("{} of {} rows have no text at all", missing.empty_rows, missing.rows));
        }
        if texts > 0 && counters.tokens() > 0 {
            let share = 100.0 * tokens as f64 / (tokens + counters.tokens()) as f64;
            warnings.push(format!(
                "{texts} texts were cut to the encoder's length: {tokens} tokens ({share:.1} %) lost"
            ));
        }
        if missing.rows == 0 && counters.texts() == 0 {
            warnings.push("there were no rows: look at the input, --rows and --where".into());
        }
        if self.strict && !warnings.is_empty() {
            return Err(operators::Error::Unfit(format!("--strict: {}", warnings.join("; "))).into());
        }
        warnings.iter().for_each(|w| tracing::warn!("{w}"));
        Ok(())
    }

    /// Warns, or with `--strict` fails, of texts that were missing or cut and of input that was skipped; to be asked
    /// before anything is made visible.
    pub fn judge_all(&self, counters: &Counters, bad: &BadUnits) -> Result<()> {
        self.judge(counters)?;
        self.judge_skipped(bad)
    }

    /// Warns, or with `--strict` fails, of input that was skipped.
    pub fn judge_skipped(&self, bad: &BadUnits) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let skipped = if bad.units() == 1 { "was skipped" } else { "were skipped" };
        let summary = format!("{} {skipped}, {}", count(bad.units(), "bad unit"), count(bad.rows(), "row"));
        if self.strict {
            let shown = bad.listed().iter().take(10).map(|unit| format!("\n  {unit}"));
            let listed = shown.collect::<String>();
            return Err(operators::Error::Unfit(format!("--strict: {summary}:{listed}")).into());
        }
        tracing::warn!("{summary}");
        Ok(())
    }
}

impl EncoderArgs {
    /// The encoder behind an endpoint, if one is named.
    fn remote(&self) -> Option<Box<RemoteConfig>> {
        let (url, model) = (self.encoder_url.clone()?, self.encoder.clone()?);
        let endpoint = EndpointConfig { url, key: self.encoder_key.clone(), ..EndpointConfig::default() };
        let dimensions = self.dimensions;
        Some(Box::new(RemoteConfig { endpoint, model, dimensions, ..RemoteConfig::default() }))
    }

    /// Fills in the flags.
    pub fn fill(&self, job: &mut Job) {
        if self.text.is_some() {
            job.text.clone_from(&self.text);
        }
        let EncoderConfig { max_length, truncate_dim, prompt, weights, .. } = job.encoder.clone();
        if self.encoder.is_some() || self.embeddings.is_some() {
            let remote = self.remote();
            job.encoder = EncoderConfig {
                name: self.encoder.clone().filter(|_| remote.is_none()),
                column: self.embeddings.clone(),
                remote,
                max_length,
                truncate_dim,
                weights,
                prompt,
                path: None,
            };
        }
        job.encoder.weights = self.weights.or(job.encoder.weights);
        job.encoder.max_length = self.max_length.or(job.encoder.max_length);
        if self.prompt.is_some() {
            job.encoder.prompt.clone_from(&self.prompt);
        }
    }
}

/// Fails if the output is one of the files that are read: it would be gone before all of it is.
pub(crate) fn check_apart(source: &dyn Source, output: &str) -> Result<()> {
    if source.reads(&Location::parse(output)?) {
        return Err(Error::place(output, "is also the input, which would be lost; choose another output"));
    }
    Ok(())
}

/// Where vectors come from: known and checked before an encoder is loaded, which takes time.
pub(crate) struct VectorSource {
    config: EncoderConfig,
    kind: Kind,
}

enum Kind {
    /// An encoder of the texts that this template makes.
    Encoder(Template),
    /// A column of precomputed vectors.
    Column(Embeddings),
}

impl VectorSource {
    /// Takes what the job says of the encoder and the text, and the dimensions where a model says them.
    pub(crate) fn try_new(config: &EncoderConfig, text: Option<&str>, dim: Option<usize>) -> Result<Self> {
        if *config == EncoderConfig::default() {
            let choices = "give --encoder DIR|NAME or --embeddings COLUMN, or encoder: in a job file";
            let reason = format!("nothing says where vectors come from: {choices}");
            return Err(Error::setting("encoder", reason));
        }
        config.check()?;
        let kind = match (&config.column, text) {
            (Some(column), _) => Kind::Column(Embeddings { column: column.clone(), dim }),
            (None, Some(text)) => Kind::Encoder(Template::parse(text)?),
            (None, None) => {
                let reason = "no text to embed: give --text '{column}', or text: in a job file";
                return Err(Error::setting("text", reason));
            }
        };
        Ok(Self { config: config.clone(), kind })
    }

    /// The columns that vectors are made of.
    pub(crate) fn columns(&self) -> Vec<String> {
        match &self.kind {
            Kind::Encoder(template) => template.columns().into_iter().map(Into::into).collect(),
            Kind::Column(embeddings) => vec![embeddings.column.clone()],
        }
    }

    /// The template of the text, if it is texts that are encoded.
    pub(crate) fn template(&self) -> Option<&Template> {
        match &self.kind {
            Kind::Encoder(template) => Some(template),
            Kind::Column(_) => None,
        }
    }

    /// The column of vectors, if they come in one.
    pub(crate) fn embeddings(&self) -> Option<&Embeddings> {
        match &self.kind {
            Kind::Encoder(_) => None,
            Kind::Column(embeddings) => Some(embeddings),
        }
    }

    /// Fails if `schema` lacks one of the columns or has it in a type that will not do.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        match &self.kind {
            Kind::Encoder(template) => drop(template.bind(schema)?),
            Kind::Column(Embeddings { column, dim }) => drop(check_field(column, schema, *dim)?),
        }
        Ok(())
    }

    /// `columns`, among which are those of the vectors, with what is special about some.
    pub(crate) fn told(&self, columns: Columns, id: Option<&str>) -> Columns {
        columns.with_id(id).with_embeddings(self.embeddings().cloned())
    }

    /// Opens the job's source for `columns`, among which are those of the vectors, and checks these.
    pub(crate) async fn open(
        &self,
        job: &Job,
        columns: Columns,
        id: Option<&str>,
    ) -> Result<Box<dyn Source>> {
        let source = job.source()?.open(&self.told(columns, id)).await?;
        self.check(&source.schema())?;
        Ok(source)
    }

    /// Loads the encoder, if there is one.
    pub(crate) async fn load(&self, context: &Context) -> Result<Vectors> {
        Ok(match &self.kind {
            Kind::Encoder(template) => {
                let (template, encoder) = (template.clone(), load_encoder(context, &self.config).await?);
                Vectors::Encoded { template, encoder: Arc::new(encoder) }
            }
            Kind::Column(Embeddings { column, dim }) => Vectors::Column { name: column.clone(), dim: *dim },
        })
    }
}

/// Loads the encoder that `config` names.
pub(crate) async fn load_encoder(context: &Context, config: &EncoderConfig) -> Result<Encoder> {
    if let Some(remote) = &config.remote {
        let remote = remote.clone();
        return on_worker(move || Ok(Encoder::remote(&remote)?)).await;
    }
    let folder = match (&config.path, &config.name) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(name)) => hub::encoder(name).await?,
        (None, None) => return Err(Error::setting("encoder", "names neither path nor name")),
    };
    let started = std::time::Instant::now();
    let (place, options, device) = (folder.clone(), config.options(), context.device.clone());
    let encoder = on_worker(move || Ok(Encoder::load(&place, &options, &device)?)).await?;
    tracing::info!(
        "encoder {} loaded in {:.1} s: {} dimensions, {} tokens at most, {} on {}, {} threads",
        folder.display(),
        started.elapsed().as_secs_f64(),
        encoder.dim(),
        encoder.max_length(),
        encoder.identity().weight_precision.name(),
        context.device,
        rayon::current_num_threads(),
    );
    Ok(encoder)
}

pub(super) fn parse_rows(text: &str) -> std::result::Result<RowRange, String> {
    let wrong = || format!("\"{text}\" is no range of rows, expected A..B, A.. or ..B");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    Ok(RowRange {
        start: if start.trim().is_empty() { 0 } else { number(start)? },
        end: if end.trim().is_empty() { None } else { Some(number(end)?) },
    })
}

fn parse_on_bad_row(text: &str) -> std::result::Result<OnBadRow, String> {
    match text {
        "fail" => Ok(OnBadRow::Fail),
        "skip" => Ok(OnBadRow::Skip),
        _ => Err(format!("\"{text}\" is unknown, expected fail or skip")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_rows_are_read_with_open_ends() {
        assert_eq!(parse_rows("2..5"), Ok(RowRange { start: 2, end: Some(5) }));
        assert_eq!(parse_rows("2.."), Ok(RowRange { start: 2, end: None }));
        assert_eq!(parse_rows("..5"), Ok(RowRange { start: 0, end: Some(5) }));
        assert!(parse_rows("5").unwrap_err().contains("A..B"));
        assert!(parse_rows("a..b").is_err());
    }
}
