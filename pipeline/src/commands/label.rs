//! `thema label`: a topic for every row, by a fitted model.

use super::input::{InputArgs, VectorSource, check_apart};
use super::output::OutputArgs;
use super::{Context, count};
use crate::engine::Summary;
use crate::filter::Filter;
use crate::job::Job;
use crate::report::thousands;
use crate::sources::{BadUnits, Columns};
use crate::worker::on_worker;
use crate::{Error, Result, engine, models};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use kernels::Device;
use operators::Operator;
use operators::assign::{Assigner, LabelConfig};
use operators::bundle::Wanted;
use operators::label::{Extras, Label, labelled_schema};
use operators::model::{EncoderConfig, Model};
use operators::vectors::{Counters, Vectors};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Adds topic, topic_name, topic_path, score, topics and model_version to every row.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema label --input new.parquet --model model/ --out labelled.parquet
  thema label --input 's3://lake/papers/2026-*.parquet' \\
      --model s3://lake/models/papers --out labelled.parquet \\
      --keep 'topic >= 0 and score >= 0.5'
  thema label nightly.yaml --overwrite")]
pub struct LabelArgs {
    #[command(flatten)]
    input: InputArgs,
    /// The model's folder, local or in an object store; its newest version, or DIR/v3
    #[arg(long, short, value_name = "DIR")]
    model: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
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
}

impl LabelArgs {
    fn job(&self) -> Result<Job> {
        let mut job = self.input.job()?;
        if self.model.is_some() {
            job.model.clone_from(&self.model);
        }
        self.output.fill(&mut job)?;
        if self.keep.is_some() {
            job.keep.clone_from(&self.keep);
        }
        job.label.top_k = self.top_k.or(job.label.top_k);
        job.label.top_topics = self.top_topics.or(job.label.top_topics);
        job.label.coverage = self.coverage.or(job.label.coverage);
        Ok(job)
    }
}

pub(super) async fn run(context: &Context, args: LabelArgs) -> Result<()> {
    let job = args.job()?;
    let sink_config = job.sink()?;
    sink_config.check(args.output.overwrite).await?;

    let found = models::find(job.model("--model")?).await?;
    let model = Arc::new(models::load(&found, Wanted::Labelling).await?);
    let settings = &model.settings;
    let config = job.label.of(&settings.label)?;
    if config.top_k > model.sample.len() {
        let rows = count(model.sample.len() as u64, "row");
        tracing::warn!("top_k is {}, but the model's sample has {rows}: all of them vote", config.top_k);
    }
    // The job may say where the encoder lies on this machine; it must be the model's own.
    let named = job.encoder != EncoderConfig::default();
    let encoder = if named { &job.encoder } else { &settings.encoder };
    let text = job.text.as_deref().or(settings.text.as_deref());
    if let (Some(here), Some(fitted)) = (&job.text, &settings.text)
        && here != fitted
    {
        tracing::warn!("the text is \"{here}\", but the model was fitted on \"{fitted}\"");
    }
    let vectors = VectorSource::try_new(encoder, text, Some(model.codes.cols()))?;
    let columns = Columns::all_with(vectors.columns().into_iter().chain(job.id.clone()));
    let mut source = vectors.open(&job, columns, job.id.as_deref().or(settings.id.as_deref())).await?;
    check_apart(source.as_ref(), sink_config.path()?)?;
    let schema = labelled_schema(&source.schema(), &job.prefix, Extras::of(&model))?;
    let keep = job.keep.as_ref().map(|keep| Filter::try_named("keep", keep, &schema)).transpose()?;
    let vectors = vectors.load(context).await?;
    same_encoder(&model, &vectors, &found.folder)?;

    let assigner = assigner(&model, config, &context.device).await?;
    tracing::info!(
        "model {}: {}, {}, threshold {:.3}",
        found.folder,
        count(model.topics.len() as u64, "topic"),
        count(model.sample.len() as u64, "sample row"),
        assigner.threshold()
    );
    let counters = Arc::new(Counters::default());
    let version = format!("v{}", found.version);
    let label = Label::new(vectors, assigner, &model, version, job.prefix.clone(), Arc::clone(&counters));
    let mut operators: Vec<Box<dyn Operator>> = vec![Box::new(label)];
    operators.extend(keep.map(|keep| Box::new(Keep(keep)) as Box<dyn Operator>));
    let mut sink = sink_config.open(&schema, args.output.overwrite).await?;

    let started = Instant::now();
    context.progress.begin("labelling", "rows", source.rows_hint());
    let judge = |skipped: &BadUnits| args.input.judge_all(&counters, skipped);
    let Summary { rows_in, rows_out } =
        engine::run(source.as_mut(), operators, sink.as_mut(), &context.progress, &counters, judge).await?;
    let (seconds, out) = (started.elapsed().as_secs_f64(), sink_config.path()?);
    let outliers = counters.outliers() as f64 / rows_in.max(1) as f64;
    let kept = if rows_out == rows_in { String::new() } else { format!(", {} kept", thousands(rows_out)) };
    context.tell(
        &format!(
            "{} labelled{kept} in {seconds:.1} s, {:.0} % outliers -> {out}\n",
            count(rows_in, "row"),
            100.0 * outliers,
        ),
        &json!({
            "rows": rows_in, "rows_kept": rows_out, "outlier_share": outliers, "seconds": seconds,
            "model": found.folder, "out": out,
        }),
    )
}

/// Makes what labels rows; for settings that are not the fit's, measures the threshold anew.
pub(super) async fn assigner(model: &Arc<Model>, config: LabelConfig, device: &Device) -> Result<Assigner> {
    let (model, device) = (Arc::clone(model), device.clone());
    on_worker(move || {
        let threshold = model.threshold_for(&config, &device)?;
        Ok(model.assigner(config, &device)?.with_threshold(threshold.score))
    })
    .await
}

/// Refuses an encoder that is not the model's own.
pub(super) fn same_encoder(model: &Model, vectors: &Vectors, folder: &str) -> Result<()> {
    let Vectors::Encoded { encoder, .. } = vectors else {
        // Vectors from a column: their width is checked when they are read.
        return Ok(());
    };
    let here = encoder.identity();
    match &model.encoder {
        // The folder's name may differ from machine to machine; what it holds may not.
        Some(fitted) if fitted.differences(here).is_empty() => Ok(()),
        Some(fitted) => {
            let differences = fitted.differences(here).join(", ");
            let reason = format!("{folder} was fitted with another encoder than the one here: {differences}");
            Err(Error::setting("encoder", reason))
        }
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
pub(super) struct Keep(pub(super) Filter);

impl Operator for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn schema(&self, input: &SchemaRef) -> operators::Result<SchemaRef> {
        Ok(Arc::clone(input))
    }

    fn process(&mut self, rows: RecordBatch) -> operators::Result<RecordBatch> {
        self.0.apply(&rows).map_err(|error| match error {
            Error::Filter { name, expression, reason } => {
                operators::Error::setting(format!("{name} \"{expression}\""), reason)
            }
            Error::Internal(reason) => operators::Error::Internal(reason),
            other => operators::Error::Internal(other.to_string()),
        })
    }
}
