//! `thema merge`: one model of several.

use super::words_settings::own_words_encoder;
use super::{Context, count, versions};
use crate::worker::on_worker;
use crate::{Error, Result, models};
use clap::Args;
use operators::bundle::Wanted;
use operators::describe::needs_encoder;
use operators::fit::{FitConfig, Means};
use operators::union::{MIN_SIMILARITY, Parts};
use operators::vectors::{Counters, encode};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Merges models that were fitted with the same encoder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema merge papers-2025/ papers-2026/ --out papers/
  thema merge a/ b/ c/ --min-similarity 0.8 --out all/

The rows of all models are put together by their ids; topics that are each other's most similar become one if their
centroids' cosine is large enough. The result is the same in whatever order the models are given. Topics are numbered
anew, by falling size.")]
pub struct MergeArgs {
    /// The models' folders
    #[arg(value_name = "MODEL", num_args = 2.., required = true)]
    models: Vec<String>,
    /// The merged model's folder
    #[arg(long, short, value_name = "DIR")]
    out: String,
    /// The least cosine of topics that become one
    #[arg(long, value_name = "0..1", default_value_t = MIN_SIMILARITY)]
    min_similarity: f32,
    /// Adds a version where there is a model already
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(context: &Context, args: MergeArgs) -> Result<()> {
    let started = Instant::now();
    if !(-1.0..=1.0).contains(&args.min_similarity) {
        return Err(Error::setting(
            "--min-similarity",
            format!("{}, expected a cosine", args.min_similarity),
        ));
    }
    models::check_free(&args.out, args.overwrite).await?;
    let mut parts = Vec::new();
    for model in &args.models {
        parts.push(models::load(&models::find(model).await?, Wanted::All).await?);
    }
    let before: usize = parts.iter().map(|model| model.topics.len()).sum();
    let parts = on_worker(move || Ok(Parts::try_new(parts)?)).await?;
    let config = FitConfig::of(parts.first())?;
    let encoder = own_words_encoder(context, parts.first(), &config).await?;
    let (progress, device) = (Arc::clone(&context.progress), context.device.clone());
    let merged = on_worker(move || {
        let counters = Arc::new(Counters::default());
        let embed = |texts: &[&str]| {
            let encoder = encoder.as_ref().ok_or_else(needs_encoder)?;
            encode(encoder, texts, &counters, || !progress.is_cancelled())
        };
        let means = Means { embed: Some(&embed), observer: progress.as_ref(), ..Means::only(&device) };
        let merged = parts.merge(args.min_similarity, &means)?;
        progress.finish();
        Ok(Arc::new(merged))
    })
    .await?;
    let folder = versions::write(context, &args.out, &merged).await?;
    let (topics, rows) = (merged.topics.len() as u64, merged.sample.len() as u64);
    context.tell(
        &format!(
            "{} of {before}, {} in {:.1} s\nmodel   {folder}\n",
            count(topics, "topic"),
            count(rows, "row"),
            started.elapsed().as_secs_f64()
        ),
        &json!({ "topics": topics, "topics_before": before, "rows": rows, "model": folder }),
    )
}
