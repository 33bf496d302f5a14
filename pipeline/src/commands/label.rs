//! `thema label`: a topic for every row, by a fitted model.

use super::input::{InputArgs, vectors};
use super::{Context, print};
use crate::filter::Filter;
use crate::sinks::SinkConfig;
use crate::sources::{BadUnits, Columns};
use crate::{Error, Result, engine, models};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use operators::Operator;
use operators::assign::LabelConfig;
use operators::encoders::Identity;
use operators::label::Label;
use operators::model::{EncoderConfig, Model};
use operators::vectors::{Counters, Vectors};
use std::sync::Arc;
use std::time::Instant;

/// Adds topic, topic_name, topic_path, score, topics and model_version to every row.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema label --input new.parquet --model model/ --out labelled.parquet
  thema label --input 's3://lake/papers/2026-*.parquet' --model s3://lake/models/papers --out labelled.parquet \\
      --keep 'topic >= 0 and score >= 0.5'
  thema label nightly.yaml --overwrite")]
pub struct LabelArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The model's folder, local or in an object store; its newest version, or DIR/v3
    #[arg(long, short, value_name = "DIR")]
    model: Option<String>,
    /// The file to write: .parquet or .jsonl
    #[arg(long, short, value_name = "FILE")]
    out: Option<String>,
    /// Writes only rows for which this SQL condition holds; it sees the input's columns and the new ones
    #[arg(long, value_name = "SQL")]
    keep: Option<String>,
    /// Sample rows that vote [default: the model's]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Topics listed for each row [default: the model's]
    #[arg(long, value_name = "N")]
    top_topics: Option<usize>,
    /// Of rows that belong to a topic, the share that keeps one [default: the model's]
    #[arg(long, value_name = "0..1")]
    coverage: Option<f64>,
    /// What stands before the names of the new columns
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Replaces an output that exists
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(context: &Context, args: LabelArgs) -> Result<()> {
    let mut job = args.input.job()?;
    if args.model.is_some() {
        job.model.clone_from(&args.model);
    }
    if let Some(out) = &args.out {
        job.sink = Some(SinkConfig::for_path(out)?);
    }
    if args.keep.is_some() {
        job.keep.clone_from(&args.keep);
    }
    let sink_config = job.sink()?;
    sink_config.check(args.overwrite).await?;

    let found = models::find(job.model("--model")?).await?;
    let model = models::load(&found).await?;
    let mut config: LabelConfig = job.label.clone().unwrap_or_else(|| model.settings.label.clone());
    config.top_k = args.top_k.unwrap_or(config.top_k);
    config.top_topics = args.top_topics.unwrap_or(config.top_topics);
    config.coverage = args.coverage.unwrap_or(config.coverage);
    config.check()?;
    let threshold = model.threshold_for(&config)?;
    let assigner = model.assigner(config)?.with_threshold(threshold.score);
    tracing::info!(
        "model {}: {} topics, {} sample rows, threshold {:.3}",
        found.folder,
        model.topics.len(),
        model.sample.len(),
        threshold.score
    );

    // The job may say where the encoder lies on this machine; it must be the model's own.
    let settings = &model.settings;
    let named = job.encoder != EncoderConfig::default();
    let encoder = if named { &job.encoder } else { &settings.encoder };
    let text = job.text.as_deref().or(settings.text.as_deref());
    let vectors = vectors(context, encoder, text, Some(model.codes.cols())).await?;
    same_encoder(&model, &vectors, &found.folder)?;

    let mut source = job.source()?.open(&Columns::all_with(vectors.columns())).await?;
    let counters = Arc::new(Counters::default());
    let version = format!("v{}", found.version);
    let label = Label::new(vectors, assigner, &model, version, args.prefix.clone(), Arc::clone(&counters));
    let schema = label.schema(&source.schema())?;
    let mut operators: Vec<Box<dyn Operator>> = vec![Box::new(label)];
    if let Some(keep) = &job.keep {
        operators.push(Box::new(Keep(Filter::try_new(keep, &schema)?)));
    }
    let mut sink = sink_config.open(&schema, args.overwrite).await?;

    let started = Instant::now();
    context.progress.begin("labelling", "rows", source.rows_hint());
    let judge = |skipped: &BadUnits| args.input.judge_all(&counters, skipped);
    let summary =
        engine::run(source.as_mut(), operators, sink.as_mut(), &context.progress, &counters, judge).await?;
    let kept = match summary.rows_out {
        all if all == summary.rows_in => String::new(),
        some => format!(", {some} kept"),
    };
    print(&format!(
        "{} rows labelled{kept} in {:.1} s, {:.0} % outliers -> {}\n",
        summary.rows_in,
        started.elapsed().as_secs_f64(),
        100.0 * counters.outliers() as f64 / summary.rows_in.max(1) as f64,
        sink_config.path()
    ))
}

/// Refuses an encoder that is not the model's own.
fn same_encoder(model: &Model, vectors: &Vectors, folder: &str) -> Result<()> {
    let Vectors::Encoded { encoder, .. } = vectors else {
        // Vectors from a column: their width is checked when they are read.
        return Ok(());
    };
    let here = encoder.identity();
    match &model.encoder {
        // The folder's name may differ from machine to machine; what it holds may not.
        Some(fitted) if *fitted == (Identity { name: fitted.name.clone(), ..here.clone() }) => Ok(()),
        Some(fitted) => Err(Error::setting(
            "encoder",
            format!("{folder} was fitted with {fitted:?}, but the encoder here is {here:?}"),
        )),
        None if encoder.dim() == model.codes.cols() => {
            tracing::warn!("{folder} was fitted on precomputed vectors: is this the encoder that made them?");
            Ok(())
        }
        None => Err(Error::setting(
            "encoder",
            format!(
                "{folder} was fitted on vectors of {} dimensions, this encoder makes {}",
                model.codes.cols(),
                encoder.dim()
            ),
        )),
    }
}

/// Keeps the rows for which a condition holds.
struct Keep(Filter);

impl Operator for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn schema(&self, input: &SchemaRef) -> operators::Result<SchemaRef> {
        Ok(Arc::clone(input))
    }

    fn process(&mut self, rows: RecordBatch) -> operators::Result<RecordBatch> {
        self.0.apply(&rows).map_err(|e| operators::Error::setting("keep", e.to_string()))
    }
}
