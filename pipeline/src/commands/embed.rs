//! `thema embed`: texts to vectors.

use super::input::{EncoderArgs, InputArgs, VectorSource, check_apart};
use super::output::OutputArgs;
use super::{Context, count};
use crate::job::Job;
use crate::positions::Event;
use crate::sources::{BadUnits, Columns, Embeddings, SourceConfig, Table, TableConfig};
use crate::worker::on_worker;
use crate::{Error, Result, engine};
use clap::Args;
use kernels::quantize::{Ranges, Rule};
use operators::Operator;
use operators::calibration::{Calibration, load_ranges};
use operators::embed::{EMBEDDING, Embed};
use operators::embedding_column::check_field;
use operators::quantize::{Precision, Quantizer};
use operators::vectors::{Counters, Vectors};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Adds the column `embedding` to every row.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema embed --input papers.parquet --text '{title}: {abstract}' \\
      --encoder all-MiniLM-L6-v2 --out vectors.parquet
  thema embed --input papers.parquet --text '{title}' \\
      --encoder all-MiniLM-L6-v2 --precision ubinary --out codes.parquet
  thema embed --input papers.parquet --text '{title}' \\
      --encoder all-MiniLM-L6-v2 --precision int8 \\
      --calibration vectors.parquet --out codes.parquet")]
pub struct EmbedArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// How vectors are stored: float32, int8, uint8, binary or ubinary
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    /// Parquet file with a column `embedding` of float vectors whose ranges the 8-bit codes use
    #[arg(long, value_name = "FILE", conflicts_with = "ranges")]
    calibration: Option<PathBuf>,
    /// Ranges for the 8-bit codes: a model's calibration.safetensors, or a .npy of 2 x dimensions
    #[arg(long, value_name = "FILE")]
    ranges: Option<PathBuf>,
    /// Writes 8-bit codes by the rule of sentence-transformers before 5.7: truncated, and wrapped when out of range
    #[arg(long)]
    legacy: bool,
}

impl EmbedArgs {
    fn job(&self) -> Result<Job> {
        let mut job = self.input.job()?;
        self.encoder.fill(&mut job);
        self.output.fill(&mut job)?;
        if self.calibration.is_some() || self.ranges.is_some() {
            job.calibration.clone_from(&self.calibration);
            job.ranges.clone_from(&self.ranges);
        }
        job.precision = self.precision.unwrap_or(job.precision);
        job.legacy |= self.legacy;
        Ok(job)
    }
}

pub(super) async fn run(context: &Context, args: EmbedArgs) -> Result<()> {
    let job = args.job()?;
    let sink_config = job.sink()?;
    sink_config.check(args.output.overwrite).await?;
    check_codes(&job).await?;

    let vectors = VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?;
    let columns = Columns::all_with(vectors.columns().into_iter().chain(job.id.clone()));
    let mut source = vectors.open(&job, columns, job.id.as_deref()).await?;
    check_apart(source.as_ref(), sink_config.path()?)?;
    let schema = source.schema();
    let ranges = ranges(&job).await?;
    let vectors = vectors.load(context).await?;
    let dim = match vectors.dim() {
        Some(dim) => dim,
        None => width(&vectors, &schema)?,
    };
    let rule = if job.legacy { Rule::Legacy } else { Rule::Clipped };
    let quantizer = Quantizer::try_new(job.precision, rule, ranges, dim)?;
    let counters = Arc::new(Counters::default());
    let embed = Embed::new(vectors, quantizer, &job.prefix, Arc::clone(&counters));
    let mut sink = sink_config.open(&embed.schema(&schema)?, args.output.overwrite).await?;

    let started = Instant::now();
    context.progress.begin("embedding", "rows", source.rows_hint());
    let judge = |skipped: &BadUnits| args.input.judge_all(&counters, skipped);
    let operators: Vec<Box<dyn Operator>> = vec![Box::new(embed)];
    let summary =
        engine::run(source.as_mut(), operators, sink.as_mut(), &context.progress, &counters, judge).await?;
    let (rows, seconds) = (summary.rows_out, started.elapsed().as_secs_f64());
    let (precision, out) = (job.precision.name(), sink_config.path()?);
    context.tell(
        &format!("{} embedded as {precision} x {dim} in {seconds:.1} s -> {out}\n", count(rows, "row")),
        &json!({ "rows": rows, "precision": precision, "dimensions": dim, "seconds": seconds, "out": out }),
    )
}

/// Checks what the job says of 8-bit codes, without reading all of a calibration set.
pub(super) async fn check_codes(job: &Job) -> Result<()> {
    let needed = job.precision.needs_ranges();
    let wrong = |reason: String| Err(Error::setting("precision", reason));
    match (&job.ranges, &job.calibration) {
        (Some(_), Some(_)) => Err(Error::setting("ranges", "and calibration are both given, expected one")),
        (Some(_), None) | (None, Some(_)) if !needed => {
            wrong(format!("{} has no ranges: leave them out, or choose int8 or uint8", job.precision))
        }
        _ if job.legacy && !needed => {
            wrong(format!("{} has no legacy rule: choose int8 or uint8", job.precision))
        }
        (None, None) if needed => wrong(format!(
            "{} needs the ranges of a calibration set: give --calibration or --ranges, or the same in a job file",
            job.precision
        )),
        (Some(path), None) => load_ranges(path).map(drop).map_err(Into::into),
        (None, Some(path)) => {
            let table = Table::open(&TableConfig::new(path.display().to_string()), None).await?;
            check_field(EMBEDDING, table.schema(), None)?;
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

/// Reads or measures the ranges of 8-bit codes, where the job says them.
async fn ranges(job: &Job) -> Result<Option<Ranges>> {
    match (&job.ranges, &job.calibration) {
        (Some(path), _) => Ok(Some(load_ranges(path)?)),
        (None, Some(path)) => Ok(Some(calibrate(path).await?)),
        (None, None) => Ok(None),
    }
}

/// The width that the type of a column of precomputed vectors fixes.
fn width(vectors: &Vectors, schema: &arrow::datatypes::SchemaRef) -> Result<usize> {
    let Vectors::Column { name, .. } = vectors else {
        return Err(Error::Internal("an encoder without dimensions".into()));
    };
    let field = schema.field_with_name(name).map_err(|e| Error::Internal(e.to_string()))?;
    operators::embedding_column::check_type(name, field.data_type())?.ok_or_else(|| {
        operators::Error::column(name, "holds lists of any length, expected fixed-size lists").into()
    })
}

/// Measures the ranges of the column `embedding` of a Parquet file.
async fn calibrate(path: &Path) -> Result<Ranges> {
    let config = SourceConfig::Table(TableConfig::new(path.display().to_string()));
    let embeddings = Embeddings { column: EMBEDDING.into(), dim: None };
    let mut source = config.open(&Columns::only([EMBEDDING]).with_embeddings(Some(embeddings))).await?;
    let mut bound =
        Vectors::Column { name: EMBEDDING.into(), dim: None }.bind(&source.schema(), Arc::default())?;
    let mut calibration = Calibration::new();
    while let Event::Batch(batch) = source.next().await? {
        (bound, calibration) = on_worker(move || {
            calibration.observe(&bound.of(&batch.rows)?.vectors)?;
            Ok((bound, calibration))
        })
        .await?;
    }
    if calibration.rows() < Calibration::FEW_ROWS {
        let (rows, path) = (count(calibration.rows(), "row"), path.display());
        tracing::warn!("{path} has {rows}: ranges of so few will be left by many vectors");
    }
    Ok(calibration.ranges()?.clone())
}
