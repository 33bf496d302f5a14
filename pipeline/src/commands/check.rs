//! `thema check`: everything that can be known of a job before it runs.

use super::input::{InputArgs, vectors};
use super::{Context, print};
use crate::Result;
use crate::filter::Filter;
use crate::models;
use crate::sources::{SourceConfig, Table};
use clap::Args;
use operators::model::EncoderConfig;
use operators::text::Template;
use std::sync::Arc;

/// Checks a job without running it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema check nightly.yaml
  thema check nightly.yaml --input new/*.parquet")]
pub struct CheckArgs {
    #[command(flatten)]
    input: InputArgs,
}

pub(super) async fn run(context: &Context, args: CheckArgs) -> Result<()> {
    let job = args.input.job()?;
    let mut lines = vec!["job      every key and value is known".to_string()];
    let named = job.encoder != EncoderConfig::default();
    if named {
        job.encoder.check()?;
    }
    if let Some(SourceConfig::Table(config)) = &job.source {
        let table = Table::open(config).await?;
        let rows = table.rows_hint().map_or("rows not counted".into(), |n| format!("{n} rows"));
        lines.push(format!("source   {}: {} files, {rows}", config.path, table.files().count()));
        for field in table.schema().fields() {
            lines.push(format!("           {} {}", field.name(), field.data_type()));
        }
        if let Some(filter) = &config.filter {
            Filter::try_new(filter, table.schema())?;
            lines.push(format!("where    {filter}"));
        }
        for (name, template) in [("text", &job.text), ("show", &job.show)] {
            if let Some(template) = template {
                Template::parse(template)?.bind(table.schema())?;
                lines.push(format!("{name:<8} {template}"));
            }
        }
        for (name, column) in [("id", &job.id), ("date", &job.date)] {
            if let Some(column) = column {
                Template::parse(&format!("{{{column}}}"))?.bind(table.schema())?;
                lines.push(format!("{name:<8} {column}"));
            }
        }
        args.input.judge_skipped(table.bad())?;
        if named {
            vectors(context, &job.encoder, job.text.as_deref(), None)
                .await?
                .bind(table.schema(), Arc::default())?;
        }
    }
    if named && job.encoder.column.is_none() {
        let encoder = super::input::load_encoder(context, &job.encoder).await?;
        lines.push(format!("encoder  {} ({} dimensions)", encoder.identity().name, encoder.dim()));
    }
    job.fit.check()?;
    if let Some(label) = &job.label {
        label.check()?;
    }
    if let Some(place) = &job.model {
        lines.push(match models::find(place).await {
            Ok(found) => format!("model    {}: version {}", place, found.version),
            Err(why) => format!("model    {why}"),
        });
    }
    if let Some(sink) = &job.sink {
        lines.push(match sink.check(false).await {
            Ok(()) => format!("sink     {}: free", sink.path()),
            Err(why) => format!("sink     {why}"),
        });
    }
    print(&format!("{}\n", lines.join("\n")))
}
