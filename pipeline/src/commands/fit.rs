//! `thema fit`: topics from a sample of texts, a model and its report.

use super::draw::{draw, embed, judge_repeated, leave_out_blank};
use super::fit_settings::FitSettings;
use super::input::{EncoderArgs, InputArgs, VectorSource};
use super::names::{self, NameSettings, judge_names, named};
use super::taxonomy::{arranged, judge_taxonomy};
use super::words_settings::{WordsSettings, words_encoder};
use super::{Context, count};
use crate::job::Job;
use crate::progress::Progress;
use crate::sources::{Columns, SourceConfig};
use crate::worker::on_worker;
use crate::{Error, Result, models, report};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Schema};
use clap::Args;
use kernels::Matrix;
use operators::assign::LabelConfig;
use operators::bundle::Wanted;
use operators::clusterers::ClustererConfig;
use operators::describe::needs_encoder;
use operators::evaluate::GateConfig;
use operators::fit::{Means, Rows, fit};
use operators::grouping::GivenConfig;
use operators::labellers::llm::{Namer, Naming, keep_names};
use operators::lineage;
use operators::model::{Model, NamedBy, Settings};
use operators::sample;
use operators::text::{BoundTemplate, MissingText, Template, missing_top_level};
use operators::vectors::{Counters, Vectors, encode};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Finds topics, and writes a model with report.html and map.png.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema fit --input papers.parquet --text '{title}: {abstract}' \\
      --show '{title}' --encoder all-MiniLM-L6-v2 --out model/
  thema fit --input 's3://lake/papers/*.parquet' --text '{title}' \\
      --encoder all-MiniLM-L6-v2 --sample 200000 --min-cluster-size 100 \\
      --method leaf --out s3://lake/models/papers
  thema fit --input vectors.parquet --embeddings embedding --text '{title}' --out model/
  thema fit --input papers.parquet --text '{title}: {abstract}' --encoder all-MiniLM-L6-v2 \\
      --llm-url http://localhost:8000/v1 --llm-model mistral-7b-instruct --out model/
  thema fit nightly.yaml --overwrite")]
pub struct FitArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The text to show on the map and as a topic's examples [default: the text that is embedded]
    #[arg(long, value_name = "TEMPLATE")]
    show: Option<String>,
    /// The column that dates a row, for the report's time filter
    #[arg(long, value_name = "COLUMN")]
    date: Option<String>,
    /// The model's folder to write, local or in an object store
    #[arg(long, short, value_name = "DIR")]
    out: Option<String>,
    #[command(flatten)]
    settings: FitSettings,
    #[command(flatten)]
    words: WordsSettings,
    #[command(flatten)]
    names: NameSettings,
    /// Of rows that belong to a topic, the share that keeps one when labelled [default: 0.95]
    #[arg(long, value_name = "0..1")]
    coverage: Option<f64>,
    /// Keeps the topic numbers of this model, and says what became of its topics [default: the version before in --out]
    #[arg(long, value_name = "MODEL", conflicts_with = "new_ids")]
    follow: Option<String>,
    /// Numbers topics from 0 again, whatever model was there before
    #[arg(long)]
    new_ids: bool,
    /// Headline of the report
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Adds a version where there is a model already
    #[arg(long)]
    overwrite: bool,
}

impl FitArgs {
    fn job(&self) -> Result<Job> {
        let mut job = self.input.job()?;
        self.encoder.fill(&mut job);
        for (flag, field) in [
            (&self.show, &mut job.show),
            (&self.date, &mut job.date),
            (&self.out, &mut job.model),
            (&self.title, &mut job.report.title),
        ] {
            if flag.is_some() {
                field.clone_from(flag);
            }
        }
        job.label.coverage = self.coverage.or(job.label.coverage);
        self.settings.fill(&mut job)?;
        self.words.fill(&mut job.fit.words)?;
        self.names.fill(&mut job.fit.labeller)?;
        Ok(job)
    }
}

impl FitArgs {
    /// The model whose topics are continued.
    async fn before(&self, place: &str) -> Result<Option<Model>> {
        let found = match &self.follow {
            Some(model) => Some(models::find(model).await?),
            None if self.new_ids => None,
            None => models::newest(place).await.map_err(|e| {
                Error::place(
                    place,
                    format!("{e}; to number topics anew instead of continuing those, say --new-ids"),
                )
            })?,
        };
        let Some(found) = found else { return Ok(None) };
        let model = models::load(&found, Wanted::Labelling).await?;
        tracing::info!("topics of {} are continued", found.folder);
        Ok(Some(model))
    }
}

pub(super) async fn run(context: &Context, args: FitArgs) -> Result<()> {
    let started = Instant::now();
    let mut job = args.job()?;
    job.fit.check()?;
    let label = job.label.of(&LabelConfig::default())?;
    // The report shows every setting, also those that nobody set.
    job.label = label.clone().into();
    let place = job.model("--out")?.to_string();
    models::check_free(&place, args.overwrite).await?;
    let namer = Namer::open(&job.fit.labeller, args.names.budget())?;
    let llm = job.fit.taxonomy.open(args.names.budget())?;
    let before = args.before(&place).await?.map(Arc::new);

    let templates = Templates::parse(&job)?;
    let vectors = VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?;
    let columns = Columns::only(templates.columns().into_iter().chain(vectors.columns()));
    let mut source = vectors.open(&job, columns, job.id.as_deref()).await?;
    let bound = templates.bind(&source.schema())?;
    let vectors = vectors.load(context).await?;
    if let Some(before) = &before {
        let identity = match &vectors {
            Vectors::Encoded { encoder, .. } => Some(encoder.identity()),
            Vectors::Column { .. } => None,
        };
        lineage::check(before, identity, vectors.dim())?;
    }
    let mut drawn = draw(context, &job, source.as_mut(), Some(&bound.text)).await?;
    args.input.judge_skipped(source.bad())?;
    judge_repeated(&drawn, job.id.as_deref(), args.input.strict)?;
    if matches!(vectors, Vectors::Encoded { .. }) {
        leave_out_blank(&mut drawn, &bound.text)?;
    }
    job.fit.clusterer.check_rows(drawn.rows.num_rows())?;

    let counters = Arc::new(Counters::default());
    let settings = Settings {
        encoder: job.encoder.clone(),
        text: job.text.clone(),
        show: job.show.clone(),
        id: job.id.clone(),
        date: job.date.clone(),
        label,
        fit: to_json(&job.fit)?,
        source: job.source.as_ref().and_then(SourceConfig::table).map(|table| table.path.clone()),
        report: to_json(&job.report)?,
    };
    let identity = match &vectors {
        Vectors::Encoded { encoder, .. } => Some(encoder.identity().clone()),
        Vectors::Column { .. } => None,
    };
    let own = match &vectors {
        Vectors::Encoded { encoder, .. } => Some(Arc::clone(encoder)),
        Vectors::Column { .. } => None,
    };
    let words = words_encoder(context, &job.fit.words, job.fit.embeds(), own).await?;
    let (progress, device, config) = (Arc::clone(&context.progress), context.device.clone(), job.fit.clone());
    let shared = Arc::clone(&counters);
    let continued = before.clone();
    let mut model = on_worker(move || {
        let rows = templates.rows(drawn, &vectors, &shared, &progress)?;
        // The encoder has done its work, unless it is to embed words: a fit needs its room.
        drop(vectors);
        let of_words = Arc::new(Counters::default());
        let embed = |texts: &[&str]| {
            let encoder = words.as_ref().ok_or_else(needs_encoder)?;
            encode(encoder, texts, &of_words, || !progress.is_cancelled())
        };
        let before = continued.as_deref();
        let means =
            Means { embed: Some(&embed), observer: progress.as_ref(), before, ..Means::only(&device) };
        let model = fit(rows, settings, identity, &config, &means)?;
        progress.finish();
        Ok(model)
    })
    .await?;
    args.input.judge(&counters)?;
    if let Some(warning) = report::coverage_missed(&model) {
        tracing::warn!("{warning}");
    }
    if model.topics.is_empty() {
        let advice = match &job.fit.clusterer {
            ClustererConfig::Dbscan(_) => "a larger --eps or a smaller --min-samples",
            _ => "a smaller --min-cluster-size",
        };
        tracing::warn!("no topics were found: every row is an outlier; try {advice}");
    }
    pass_gate(&job.fit.gate, &model, &place).await?;
    warn_of_lost(&model, &job.fit.given);
    if let Some(before) = &before {
        let others = lineage::other_topics(&model.lineage, model.generation);
        keep_names(&mut model, before, |topic| {
            matches!(topic.named_by, NamedBy::Llm(_)) && !others.contains(&topic.id)
        });
    }
    warn_of_mixed(&model, namer.is_some());
    let (model, naming) = named(context, namer.as_ref(), model).await?;
    let (model, arrangement) = arranged(context, llm.as_ref(), model).await?;
    let model = Arc::new(model);
    let (fitted, took) = (Arc::clone(&model), started.elapsed());
    context.progress.check()?;
    let files = on_worker(move || report::files(&fitted, &job, &counters, took)).await?;
    context.progress.check()?;
    let folder = models::save(&place, &model, files).await?;
    tell(context, &model, naming.as_ref(), &place, &folder, started.elapsed().as_secs_f64())?;
    judge_names(naming.as_ref(), args.input.strict, &folder)?;
    judge_taxonomy(arrangement.as_ref(), args.input.strict)
}

/// Warns of given topics that no row belongs to.
fn warn_of_lost(model: &Model, given: &GivenConfig) {
    let is_there = |name: &str| model.topics.iter().any(|topic| topic.name == name);
    for topic in given.topics.iter().filter(|topic| !is_there(&topic.name)) {
        let hint = "lower --min-similarity, or its threshold";
        tracing::warn!("no row belongs to the given topic \"{}\": {hint}", topic.name);
    }
}

/// Warns of topics without the kind of name that those have which are continued, where no language model is asked.
fn warn_of_mixed(model: &Model, is_named: bool) {
    let count_of = |is: fn(&NamedBy) -> bool| model.topics.iter().filter(|topic| is(&topic.named_by)).count();
    let words = count_of(|by| *by == NamedBy::Words);
    if !is_named && words > 0 && count_of(|by| matches!(by, NamedBy::Llm(_))) > 0 {
        tracing::warn!(
            "{} named by words, beside topics that keep a language model's names: thema topics MODEL --name --llm-url URL \
             --llm-model NAME names all",
            count(words as u64, "topic")
        );
    }
}

/// Fails where the model does not reach what the gate asks for, also in comparison with the one that is there.
async fn pass_gate(gate: &GateConfig, model: &Model, place: &str) -> Result<()> {
    let with_topics = |metrics: &BTreeMap<String, f64>, topics: u64| {
        let mut metrics = metrics.clone();
        metrics.insert("topics".into(), topics as f64);
        metrics
    };
    let serving = match gate.not_worse_by.is_empty() {
        true => None,
        false => models::newest(place).await?,
    };
    let serving = serving.map(|found| {
        let topics = found.manifest.counts.get("topics").copied().unwrap_or_default();
        with_topics(&found.manifest.metrics, topics)
    });
    let failures = gate.failures(&with_topics(&model.metrics, model.topics.len() as u64), serving.as_ref());
    if failures.is_empty() {
        return Ok(());
    }
    let reason = format!("the gate refuses the model, and nothing is written: {}", failures.join("; "));
    Err(operators::Error::Unfit(reason).into())
}

fn to_json(settings: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(settings).map_err(|e| Error::Internal(format!("settings: {e}")))
}

/// What became of the topics of the model before, in a line; empty where there is none.
fn lineage_told(model: &Model) -> String {
    if model.generation == 0 {
        return String::new();
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for event in model.lineage.iter().filter(|event| event.generation == model.generation) {
        *counts.entry(event.change.name()).or_default() += 1;
    }
    let told: Vec<String> = counts.iter().map(|(change, count)| format!("{count} {change}")).collect();
    let told = if told.is_empty() { "every topic goes on".into() } else { told.join(", ") };
    format!("lineage {told}\n")
}

fn tell(
    context: &Context,
    model: &Model,
    naming: Option<&Naming>,
    place: &str,
    folder: &str,
    seconds: f64,
) -> Result<()> {
    let (topics, rows, fitted) = (model.topics.len() as u64, model.rows(), model.sample.len() as u64);
    let outliers = model.outlier_share();
    let place = place.trim_end_matches('/');
    let (page, picture) = (format!("{place}/report.html"), format!("{place}/map.png"));
    let lineage = lineage_told(model);
    context.tell(
        &format!(
            "{} in {} ({:.0} % outliers) in {seconds:.1} s\n{lineage}model   {folder}\nreport  {page}\nmap     {picture}\n{}",
            count(topics, "topic"),
            count(rows, "row"),
            100.0 * outliers,
            naming.map(names::line).unwrap_or_default(),
        ),
        &json!({
            "names": naming.map(names::facts), "topics": topics, "rows": rows, "fitted": fitted, "outlier_share": outliers, "seconds": seconds,
            "model": folder, "report": page, "map": picture,
        }),
    )
}

/// The columns and templates of a fit.
pub(super) struct Templates {
    text: Template,
    show: Template,
    id: Option<Template>,
    date: Option<String>,
}

/// The same, found in the source's schema.
struct Bound {
    text: BoundTemplate,
    show: BoundTemplate,
    id: Option<BoundTemplate>,
    date: Option<String>,
}

impl Templates {
    pub(super) fn parse(job: &Job) -> Result<Self> {
        let Some(text) = job.text.as_deref() else {
            return Err(Error::setting(
                "text",
                "no text for topic words: give --text '{column}', or text: in a job file",
            ));
        };
        let text = Template::parse(text)?;
        Ok(Self {
            show: job.show.as_deref().map(Template::parse).transpose()?.unwrap_or_else(|| text.clone()),
            text,
            id: job.id.as_ref().map(|id| Template::parse(&format!("{{{id}}}"))).transpose()?,
            date: job.date.clone(),
        })
    }

    pub(super) fn columns(&self) -> Vec<String> {
        let of = |t: &Template| t.columns().into_iter().map(str::to_string).collect::<Vec<_>>();
        let mut columns = of(&self.text);
        columns.extend(of(&self.show));
        columns.extend(self.id.iter().flat_map(of));
        columns.extend(self.date.clone());
        columns
    }

    /// Finds the columns in `schema`; an error names one that is missing or of a type that will not do.
    fn bind(&self, schema: &Schema) -> Result<Bound> {
        if let Some(date) = &self.date {
            check_date(date, schema)?;
        }
        Ok(Bound {
            text: self.text.bind(schema)?,
            show: self.show.bind(schema)?,
            id: self.id.as_ref().map(|id| id.bind(schema)).transpose()?,
            date: self.date.clone(),
        })
    }

    /// Makes the fit's rows of the sample: names, texts, dates and vectors. The sample is given up piece by piece, so
    /// that no vector and no text is held twice.
    pub(super) fn rows(
        &self,
        drawn: sample::Sample,
        vectors: &Vectors,
        counters: &Arc<Counters>,
        progress: &Progress,
    ) -> Result<Rows> {
        let sample::Sample { mut rows, row_numbers, .. } = drawn;
        let mut taken = None;
        if let Vectors::Column { name, .. } = vectors {
            taken = Some(embed(&rows, vectors, &[], counters, progress)?);
            let schema = rows.schema();
            let others = schema.fields().iter().enumerate().filter(|(_, field)| field.name() != name);
            rows = rows
                .project(&others.map(|(at, _)| at).collect::<Vec<_>>())
                .map_err(operators::Error::from)?;
        }
        let mut made = self.texts(&rows, &row_numbers, counters)?;
        made.vectors = match taken {
            Some(vectors) => vectors,
            None => embed(&rows, vectors, &made.texts, counters, progress)?,
        };
        Ok(made)
    }

    /// Makes rows without vectors.
    pub(super) fn texts(&self, rows: &RecordBatch, row_numbers: &[u64], counters: &Counters) -> Result<Rows> {
        let bound = self.bind(&rows.schema())?;
        let (texts, missing) = rendered(&bound.text, rows)?;
        counters.note_missing(&missing);
        Ok(Rows {
            ids: match &bound.id {
                Some(id) => rendered(id, rows)?.0,
                None => row_numbers.iter().map(u64::to_string).collect(),
            },
            shown: rendered(&bound.show, rows)?.0,
            texts,
            dates: bound.date.as_deref().map(|date| dates(rows, date)).transpose()?.unwrap_or_default(),
            vectors: Matrix::default(),
            weights: Vec::new(),
        })
    }
}

/// Writes the text of each row, some rows at a time, so that only those are held twice; and what was missing.
fn rendered(template: &BoundTemplate, rows: &RecordBatch) -> Result<(Vec<String>, MissingText)> {
    const AT_A_TIME_ROWS: usize = 8192;
    let mut texts = Vec::with_capacity(rows.num_rows());
    let mut missing = MissingText::default();
    for start in (0..rows.num_rows()).step_by(AT_A_TIME_ROWS) {
        let part = rows.slice(start, AT_A_TIME_ROWS.min(rows.num_rows() - start));
        let rendered = template.render(&part)?;
        missing.add(&rendered.missing);
        texts.extend(rendered.texts.iter().map(|text| text.unwrap_or_default().to_string()));
    }
    Ok((texts, missing))
}

/// Fails unless `schema` has the column `date` in a type that can be read as days.
pub(super) fn check_date(date: &str, schema: &Schema) -> Result<()> {
    let (_, field) = schema.column_with_name(date).ok_or_else(|| missing_top_level(date, schema))?;
    if !arrow::compute::can_cast_types(field.data_type(), &DataType::Date32) {
        let reason = format!("is {}, expected a date or text like 2026-08-21", field.data_type());
        return Err(operators::Error::column(date, reason).into());
    }
    Ok(())
}

/// The days of a column; what is no date is missing.
fn dates(rows: &RecordBatch, column: &str) -> Result<Vec<Option<i32>>> {
    let array =
        rows.column_by_name(column).ok_or_else(|| Error::Internal(format!("column {column} is gone")))?;
    let days = arrow::compute::cast(array, &DataType::Date32).map_err(operators::Error::from)?;
    let days = days.as_primitive::<Date32Type>();
    let lost = days.null_count() - array.null_count();
    if lost > 0 {
        tracing::warn!("column \"{column}\": {lost} of {} values are no dates", array.len());
    }
    Ok(days.iter().collect())
}
