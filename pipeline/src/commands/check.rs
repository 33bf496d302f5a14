//! `thema check`: everything that can be known of a job before it runs.

use super::fit::Templates;
use super::input::{InputArgs, VectorSource};
use super::{Context, count, embed, print};
use crate::filter::Filter;
use crate::job::{self, Job};
use crate::models;
use crate::sources::{SourceConfig, Table};
use crate::{Error, Result};
use arrow::datatypes::SchemaRef;
use clap::Args;
use operators::assign::LabelConfig;
use operators::label::labelled_schema;
use operators::model::EncoderConfig;

/// Checks a job without running it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema check nightly.yaml
  thema check nightly.yaml --input 'new/*.parquet'
  thema check --reference > job.yaml")]
pub struct CheckArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Prints a job file that says every key, with what it means, instead
    #[arg(long)]
    reference: bool,
}

pub(super) async fn run(context: &Context, args: CheckArgs) -> Result<()> {
    if args.reference {
        return print(job::REFERENCE);
    }
    if args.input.job.is_none() && args.input.input.is_none() {
        return Err(Error::setting("check", "there is nothing to check: give JOB.yaml or --input FILE"));
    }
    let job = args.input.job()?;
    let mut lines = vec![line("job", "every key and value is known")];
    job.fit.check()?;
    job.label.of(&LabelConfig::default())?;
    let vectors = match job.encoder == EncoderConfig::default() {
        true => None,
        false => Some(VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?),
    };
    if let Some(SourceConfig::Table(config)) = &job.source {
        let table = Table::open(config, job.id.as_deref()).await?;
        let rows = table.rows_hint().map_or("rows not counted".into(), |n| count(n, "row"));
        let files = count(table.files().count() as u64, "file");
        lines.push(line("source", &format!("{}: {files}, {rows}", config.path)));
        let columns = table.schema().fields().iter();
        lines.extend(columns.map(|field| line("", &format!("  {} {}", field.name(), field.data_type()))));
        args.input.judge_skipped(table.bad())?;
        if let Some(filter) = &config.filter {
            Filter::try_new(filter, table.schema())?;
            lines.push(line("where", filter));
        }
        lines.extend(columns_used(&job, table.schema())?);
        if let Some(vectors) = &vectors {
            vectors.check(table.schema())?;
        }
    }
    if job.precision.needs_ranges() || job.ranges.is_some() || job.calibration.is_some() {
        embed::ranges(&job).await?;
        lines.push(line("codes", &format!("{}, with ranges", job.precision)));
    }
    if let Some(vectors) = vectors {
        lines.push(line("vectors", &vectors.load(context).await?.to_string()));
    }
    if let Some(place) = &job.model {
        lines.push(line(
            "model",
            &match models::find(place).await {
                Ok(found) => format!("{place}: version {}", found.version),
                Err(why) => why.to_string(),
            },
        ));
    }
    if let Some(sink) = &job.sink {
        lines.push(line(
            "sink",
            &match sink.check(false).await {
                Ok(()) => format!("{}: free", sink.path()),
                Err(why) => why.to_string(),
            },
        ));
    }
    lines.extend(commands(&job));
    print(&lines.concat())
}

/// Checks what the job says of the source's columns, and repeats it.
fn columns_used(job: &Job, schema: &SchemaRef) -> Result<Vec<String>> {
    if job.text.is_some() {
        Templates::parse(job)?.bind(schema)?;
    }
    if let Some(keep) = &job.keep {
        Filter::named("keep", keep, &labelled_schema(schema, &job.prefix)?)?;
    }
    let said =
        [("text", &job.text), ("show", &job.show), ("id", &job.id), ("date", &job.date), ("keep", &job.keep)];
    Ok(said.into_iter().filter_map(|(name, value)| Some(line(name, value.as_ref()?))).collect())
}

/// For each command, whether the job says all it needs; the rest must come from flags.
fn commands(job: &Job) -> Vec<String> {
    let has_vectors = job.encoder != EncoderConfig::default();
    let (source, text) = (("source", job.source.is_some()), ("text", job.text.is_some()));
    let (model, sink) = (("model", job.model.is_some()), ("sink", job.sink.is_some()));
    let needs = [
        ("fit", vec![source, text, ("encoder", has_vectors), model]),
        ("label", vec![source, model, sink]),
        ("embed", vec![source, ("encoder", has_vectors), sink]),
    ];
    needs
        .into_iter()
        .map(|(command, needs)| {
            let missing: Vec<&str> = needs.iter().filter(|(_, there)| !there).map(|(key, _)| *key).collect();
            line(
                command,
                &match missing.as_slice() {
                    [] => "the job says all it needs".to_string(),
                    missing => format!("still needs {}", missing.join(", ")),
                },
            )
        })
        .collect()
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<8} {text}\n")
}
