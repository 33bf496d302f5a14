//! `thema eval`: numbers that say how good a model's topics are, and what would change them.

mod model;
mod quantization;

use super::fit_settings::FitSettings;
use super::input::{EncoderArgs, InputArgs};
use super::{Context, Format};
use crate::Result;
use crate::job::Job;
use clap::Args;
use std::path::PathBuf;

/// Says how good a model's topics are, or audits what quantized embeddings would do to a job's.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema eval model/
  thema eval model/ --input papers.parquet --labels category
  thema eval --quantization --input vectors.parquet --embeddings embedding --id id \\
      --n-neighbors 100 --min-dist 0.1 --min-cluster-size 100 --method leaf
  thema eval nightly.yaml --quantization --seeds 10 --out audit.json

Labels are those of the fitted rows, found by their ids. Of the audit: each form of the embeddings (float32, int8, uint8,
binary, ...) is laid out and clustered once a seed. AMI counts the outliers as one group. \"to float32\" is to be read beside
\"between seeds\": what a seed alone changes, no form has done. The sample is drawn and put in order as by a fit with the
same --id, or, without one, the same --text.")]
pub struct EvalArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    #[command(flatten)]
    settings: FitSettings,
    /// The column of --input that holds the true classes of the fitted rows
    #[arg(long, value_name = "COLUMN", conflicts_with = "quantization")]
    labels: Option<String>,
    /// Fits float32 embeddings and each quantized form of them, and compares the topics
    #[arg(long)]
    quantization: bool,
    /// Seeds that each form is laid out with: the job's, and those after it
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// How to show the result (as JSON with --log json, too)
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Writes everything as JSON, too
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replaces that file if it is there
    #[arg(long)]
    overwrite: bool,
}

impl EvalArgs {
    /// Whether kernels will run.
    pub(super) fn computes(&self) -> bool {
        self.quantization
    }

    fn job(&self) -> Result<Job> {
        let mut job = self.input.job()?;
        self.encoder.fill(&mut job);
        self.settings.fill(&mut job)?;
        Ok(job)
    }
}

pub(super) async fn run(context: &Context, args: EvalArgs) -> Result<()> {
    match args.quantization {
        true => quantization::run(context, args).await,
        false => model::run(context, args).await,
    }
}
