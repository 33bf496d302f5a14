//! `thema check`: everything that can be known of a job before it runs.

use super::fit::check_date;
use super::input::{InputArgs, VectorSource, load_encoder};
use super::stream::{check_sink, wanted};
use super::{Context, count, embed, print};
use crate::batch::Ledger;
use crate::filter::Filter;
use crate::job::{self, Job};
use crate::models;
use crate::sinks::SinkConfig;
use crate::sources::kafka::{KafkaSource, Keeper};
use crate::sources::{Columns, SourceConfig, Table};
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::Args;
use operators::assign::LabelConfig;
use operators::bundle::Wanted;
use operators::embed::check_free;
use operators::label::{Extras, labelled_schema};
use operators::labellers::LabellerConfig;
use operators::labellers::llm::{NameMode, Namer};
use operators::llm::ChatConfig;
use operators::llm::prompts::PROMPTS;
use operators::model::EncoderConfig;
use operators::taxonomy::llm::TaxonomyConfig;
use operators::text::Template;

/// Checks a job without running it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema check nightly.yaml
  thema check nightly.yaml --input 'new/*.parquet'
  thema check --reference > job.yaml
  thema check --prompts > prompts.yaml")]
pub struct CheckArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Prints a job file that says every key, with what it means, instead
    #[arg(long)]
    reference: bool,
    /// Prints the prompts that language models are asked by, to be edited, instead
    #[arg(long, conflicts_with = "reference")]
    prompts: bool,
}

pub(super) async fn run(context: &Context, args: CheckArgs) -> Result<()> {
    if args.reference {
        return print(job::REFERENCE);
    }
    if args.prompts {
        return print(PROMPTS);
    }
    if args.input.job.is_none() && args.input.input.is_none() {
        return Err(Error::setting("check", "there is nothing to check: give JOB.yaml or --input FILE"));
    }
    let job = args.input.job()?;
    let mut lines = vec![line("job", "every key and value is known")];
    job.fit.check()?;
    lines.extend(language_models(&job)?);
    job.label.of(&LabelConfig::default())?;
    let model = match &job.model {
        Some(place) => models::find(place).await.map(Some),
        None => Ok(None),
    };
    // A job that only labels may leave to the model what is embedded.
    let fitted = match &model {
        Ok(Some(found)) => Some(models::load(found, Wanted::Labelling).await?),
        _ => None,
    };
    let settings = fitted.as_ref().map(|model| &model.settings);
    let has_encoder = job.encoder != EncoderConfig::default();
    let encoder = if has_encoder { Some(&job.encoder) } else { settings.map(|settings| &settings.encoder) };
    let text = job.text.as_deref().or(settings.and_then(|settings| settings.text.as_deref()));
    let vectors = match encoder {
        Some(encoder) if encoder.column.is_some() || text.is_some() => {
            Some(VectorSource::try_new(encoder, text, fitted.as_ref().map(|model| model.codes.cols()))?)
        }
        _ => None,
    };
    if let Some(SourceConfig::Table(config)) = &job.source {
        let table = Table::open(config, job.id.as_deref()).await?;
        let rows = table.rows_hint().map_or("rows not counted".into(), |n| count(n, "row"));
        let files = count(table.files().count() as u64, "file");
        lines.push(line("source", &format!("{}: {files}, {rows}", config.path)));
        let columns = table.schema().fields().iter();
        lines.extend(columns.map(|field| line("", &format!("  {} {}", field.name(), field.data_type()))));
        args.input.judge_skipped(table.bad())?;
        let is_rated = matches!(&job.fit.labeller, LabellerConfig::Llm(llm) if llm.mode == NameMode::Rated);
        let wanted = Extras { rating: is_rated, source: !job.fit.given.topics.is_empty() };
        let extras = fitted.as_ref().map_or(wanted, Extras::of);
        check_columns(&job, &table, vectors.as_ref(), extras)?;
    }
    job.stream.check()?;
    if let (Some(SourceConfig::Kafka(source)), Some(_)) = (&job.source, &job.sink) {
        check_sink(&job, source)?;
    }
    if let (Some(SourceConfig::Kafka(config)), Some(vectors)) = (&job.source, &vectors) {
        let extras = fitted.as_ref().map_or(Extras::default(), Extras::of);
        let (config, wanted, stream) =
            (config.as_ref().clone(), wanted(&job, config, vectors, extras)?, job.stream.clone());
        lines.push(line("source", &format!("{}: {}", config.connection.place(), config.topics.join(", "))));
        let opened = on_worker(move || KafkaSource::open(&config, Keeper::Group, &stream, &wanted, false));
        let source = context.progress.until_cancelled(opened).await??;
        let columns = source.schema().fields().iter();
        lines.extend(columns.map(|field| line("", &format!("  {} {}", field.name(), field.data_type()))));
    }
    let said = [
        ("where", job.source.as_ref().and_then(SourceConfig::table).and_then(|table| table.filter.as_ref())),
        ("text", job.text.as_ref()),
        ("show", job.show.as_ref()),
        ("id", job.id.as_ref()),
        ("date", job.date.as_ref()),
        ("keep", job.keep.as_ref()),
    ];
    lines.extend(said.into_iter().filter_map(|(name, value)| Some(line(name, value?))));
    embed::check_codes(&job).await?;
    match vectors {
        Some(vectors) => lines.push(line("vectors", &vectors.load(context).await?.to_string())),
        None if has_encoder => {
            let encoder = load_encoder(context, &job.encoder).await?;
            lines.push(line(
                "vectors",
                &format!("encoder {}, {} dimensions", encoder.identity().name, encoder.dim()),
            ));
        }
        None => {}
    }
    if let Some(place) = &job.model {
        lines.push(line(
            "model",
            &match &model {
                Ok(found) => format!("{place}: version {}", found.as_ref().map_or(0, |found| found.version)),
                Err(why) => why.to_string(),
            },
        ));
    }
    let letters = |place: &Option<String>| {
        place.as_ref().map_or("no dead letters".into(), |place| format!("dead letters to {place}"))
    };
    if let Some(SinkConfig::Kafka(sink)) = &job.sink {
        lines.push(line("sink", &format!("topic {}, {}", sink.topic, letters(&sink.dead_letters))));
    } else if let Some(SinkConfig::Delta(sink)) = &job.sink {
        sink.check()?;
        lines.push(line("sink", &format!("Delta table {}, {}", sink.path, letters(&sink.dead_letters))));
    } else if let Some(SinkConfig::Folder(folder)) = &job.sink {
        let ledger = Ledger::open(&folder.check().await?).await?;
        let done = ledger.units().filter(|(id, _)| ledger.is_done(*id)).count();
        let units = count(ledger.units().count() as u64, "unit");
        lines.push(line("sink", &format!("{}: {units} planned, {done} done", folder.path)));
    } else if let Some(sink) = &job.sink {
        sink.check(true).await?;
        lines.push(line(
            "sink",
            &match sink.check(false).await {
                Ok(()) => format!("{}: free", sink.path()?),
                Err(why) => why.to_string(),
            },
        ));
    }
    lines.extend(commands(&job, fitted.is_some()));
    print(&lines.concat())
}

/// What is known of the language models that the job names: their keys and prompts are read, and nothing is sent.
fn language_models(job: &Job) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if let (LabellerConfig::Llm(config), Some(_)) = (&job.fit.labeller, Namer::open(&job.fit.labeller, None)?)
    {
        lines.push(line("names", &told(&config.chat)));
    }
    if let (TaxonomyConfig::Llm(chat), Some(_)) = (&job.fit.taxonomy, job.fit.taxonomy.open(None)?) {
        lines.push(line("taxonomy", &told(chat)));
    }
    Ok(lines)
}

fn told(chat: &ChatConfig) -> String {
    let ChatConfig { endpoint, model, prompts, .. } = chat;
    let key = endpoint.key.as_ref().map_or("no key".into(), |place| format!("key in {place}"));
    let prompts =
        prompts.as_ref().map_or("built-in prompts".into(), |file| format!("prompts of {}", file.display()));
    format!("{model} at {}, {key}, {prompts}; not asked", endpoint.url)
}

/// Checks what the job says of the source's columns.
fn check_columns(job: &Job, table: &Table, vectors: Option<&VectorSource>, extras: Extras) -> Result<()> {
    let templates = [&job.text, &job.show].into_iter().flatten();
    let mut columns = vectors.map(VectorSource::columns).unwrap_or_default();
    for template in templates {
        columns.extend(Template::parse(template)?.columns().into_iter().map(Into::into));
    }
    columns.extend([&job.id, &job.date].into_iter().flatten().cloned());
    table.check(&Columns::all_with(columns))?;
    let schema = table.schema();
    for template in [&job.text, &job.show].into_iter().flatten() {
        Template::parse(template)?.bind(schema)?;
    }
    if let Some(id) = &job.id {
        Template::parse(&format!("{{{id}}}"))?.bind(schema)?;
    }
    if let Some(date) = &job.date {
        check_date(date, schema)?;
    }
    if let Some(vectors) = vectors {
        vectors.check(schema)?;
    }
    match (&job.sink, &job.model) {
        (Some(_), None) => check_free(schema, &job.prefix)?,
        (Some(_), Some(_)) => drop(labelled_schema(schema, &job.prefix, extras)?),
        (None, _) => {}
    }
    if let Some(keep) = &job.keep {
        Filter::try_named("keep", keep, &labelled_schema(schema, &job.prefix, extras)?)?;
    }
    Ok(())
}

/// For each command, whether the job says all it needs; the rest must come from flags.
fn commands(job: &Job, is_fitted: bool) -> Vec<String> {
    let has_vectors = job.encoder != EncoderConfig::default();
    let (source, text) = (("source", job.source.is_some()), ("text", job.text.is_some()));
    let (model, sink) = (("model", job.model.is_some()), ("sink", job.sink.is_some()));
    let fitted = ("a model that is fitted", !model.1 || is_fitted);
    let needs = [
        ("fit", vec![source, text, ("encoder", has_vectors), model]),
        ("label", vec![source, model, fitted, sink]),
        ("embed", vec![source, ("encoder", has_vectors), sink]),
        ("stream", vec![source, model, fitted, sink]),
    ];
    // Files and topics are not for the same commands.
    let streams = job.source.as_ref().is_some_and(|source| source.table().is_none());
    let needs =
        needs.into_iter().filter(|(command, _)| (*command == "stream") == streams || job.source.is_none());
    needs
        .map(|(command, needs)| {
            let missing: Vec<&str> = needs.iter().filter(|(_, there)| !there).map(|(key, _)| *key).collect();
            let told = match missing.as_slice() {
                [] => "the job says all it needs".to_string(),
                missing => format!("still needs {}", missing.join(", ")),
            };
            line(command, &told)
        })
        .collect()
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<8} {text}\n")
}
