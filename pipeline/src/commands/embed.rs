//! `thema embed`: texts to vectors.

use super::input::{EncoderArgs, InputArgs, vectors};
use super::{Context, print};
use crate::sinks::SinkConfig;
use crate::sources::{BadUnits, Columns};
use crate::{Error, Result, engine};
use clap::Args;
use kernels::quantize::{Ranges, Rule};
use operators::Operator;
use operators::calibration::{Calibration, load_ranges};
use operators::embed::Embed;
use operators::quantize::{Precision, Quantizer};
use operators::vectors::{Counters, Vectors};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Adds the column `embedding` to every row.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema embed --input papers.parquet --text '{title}: {abstract}' --encoder all-MiniLM-L6-v2 --out vectors.parquet
  thema embed --input papers.parquet --text '{title}' --encoder all-MiniLM-L6-v2 --precision ubinary --out codes.parquet
  thema embed --input papers.parquet --text '{title}' --encoder all-MiniLM-L6-v2 --precision int8 \\
      --calibration vectors.parquet --out codes.parquet")]
pub struct EmbedArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The file to write: .parquet or .jsonl
    #[arg(long, short, value_name = "FILE")]
    out: Option<String>,
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
    /// What stands before the name of the new column
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Replaces an output that exists
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(context: &Context, args: EmbedArgs) -> Result<()> {
    let mut job = args.input.job()?;
    args.encoder.fill(&mut job);
    if let Some(out) = &args.out {
        job.sink = Some(SinkConfig::for_path(out)?);
    }
    let sink_config = job.sink()?;
    sink_config.check(args.overwrite).await?;
    let precision = args.precision.unwrap_or(job.precision);
    if precision.needs_ranges() && args.ranges.is_none() && args.calibration.is_none() {
        let reason =
            format!("{precision} needs the ranges of a calibration set: give --calibration or --ranges");
        return Err(Error::setting("precision", reason));
    }

    let vectors = vectors(context, &job.encoder, job.text.as_deref(), None).await?;
    let mut source = job.source()?.open(&Columns::all_with(vectors.columns())).await?;
    let schema = source.schema();
    let ranges = match (&args.ranges, &args.calibration) {
        (Some(path), _) => Some(load_ranges(path)?),
        (None, Some(path)) => Some(calibrate(path).await?),
        (None, None) => None,
    };
    let dim = match vectors.dim() {
        Some(dim) => dim,
        None => width(&vectors, &schema)?,
    };
    let rule = if args.legacy { Rule::Legacy } else { Rule::Clipped };
    let quantizer = Quantizer::try_new(precision, rule, ranges, dim)?;
    let counters = Arc::new(Counters::default());
    let embed = Embed::new(vectors, quantizer, &args.prefix, Arc::clone(&counters));
    let mut sink = sink_config.open(&embed.schema(&schema)?, args.overwrite).await?;

    let started = Instant::now();
    context.progress.begin("embedding", "rows", source.rows_hint());
    let judge = |skipped: &BadUnits| args.input.judge_all(&counters, skipped);
    let operators: Vec<Box<dyn Operator>> = vec![Box::new(embed)];
    let summary =
        engine::run(source.as_mut(), operators, sink.as_mut(), &context.progress, &counters, judge).await?;
    print(&format!(
        "{} rows embedded as {} x {dim} in {:.1} s -> {}\n",
        summary.rows_out,
        precision.name(),
        started.elapsed().as_secs_f64(),
        sink_config.path()
    ))
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
    use crate::positions::Event;
    use crate::sources::{SourceConfig, TableConfig};
    let config = SourceConfig::Table(TableConfig::new(path.display().to_string()));
    let column = operators::embed::EMBEDDING;
    let mut source = config.open(&Columns::only([column])).await?;
    let mut bound =
        Vectors::Column { name: column.into(), dim: None }.bind(&source.schema(), Arc::default())?;
    let mut calibration = Calibration::new();
    while let Event::Batch(batch) = source.next().await? {
        calibration.observe(&bound.of(&batch.rows)?)?;
    }
    Ok(calibration.ranges()?.clone())
}
