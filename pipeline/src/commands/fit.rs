//! `thema fit`: topics from a sample of texts, a model and its report.

use super::input::{EncoderArgs, InputArgs, VectorSource};
use super::{Context, count};
use crate::engine::token_rate;
use crate::job::Job;
use crate::positions::Event;
use crate::sources::{Columns, Source};
use crate::worker::on_worker;
use crate::{Error, Result, models, report};
use arrow::array::{Array, AsArray, LargeStringArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Schema};
use clap::{Args, ValueEnum};
use operators::assign::LabelConfig;
use operators::clusterers::ClustererConfig;
use operators::clusterers::hdbscan::ClusterSelectionMethod;
use operators::fit::{Rows, fit};
use operators::model::{Model, Settings};
use operators::reducers::Reducer;
use operators::sample::{self, Identity, Sampler, Selection};
use operators::text::{BoundTemplate, Template, missing_top_level};
use operators::vectors::{Counters, Vectors, encode};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Finds topics, and writes a model with report.html and map.png.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema fit --input papers.parquet --text '{title}: {abstract}' \\
      --show '{title}' --encoder all-MiniLM-L6-v2 --out model/
  thema fit --input 's3://lake/papers/*.parquet' --text '{title}' \\
      --encoder all-MiniLM-L6-v2 --sample 200000 --min-cluster-size 100 \\
      --method leaf --out s3://lake/models/papers
  thema fit --input vectors.parquet --embeddings embedding --text '{title}' --out model/
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
    /// Rows to fit on: those with the smallest seeded hash of their id [default: 200000]
    #[arg(long, value_name = "ROWS")]
    sample: Option<usize>,
    /// The seed of the sample and of the layouts
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Neighbours of a row in UMAP, itself included [default: 15]
    #[arg(long, value_name = "N")]
    n_neighbors: Option<usize>,
    /// Dimensions to cluster in; 0 clusters the embeddings themselves [default: 5]
    #[arg(long, value_name = "N")]
    n_components: Option<usize>,
    /// The fewest rows of a topic [default: 10]
    #[arg(long, value_name = "ROWS")]
    min_cluster_size: Option<usize>,
    /// The neighbour that measures density [default: min-cluster-size]
    #[arg(long, value_name = "N")]
    min_samples: Option<usize>,
    /// How HDBSCAN chooses clusters [default: eom]
    #[arg(long, value_enum, value_name = "eom|leaf")]
    method: Option<Method>,
    /// Of rows that belong to a topic, the share that keeps one when labelled [default: 0.95]
    #[arg(long, value_name = "0..1")]
    coverage: Option<f64>,
    /// Headline of the report
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Adds a version where there is a model already
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Excess of mass: few, stable clusters of any size
    Eom,
    /// Leaves of the tree: many, even clusters
    Leaf,
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
        if let Some(wanted) = self.sample {
            let seed = self.seed.unwrap_or(0);
            job.fit.sample = Selection::Hash { rows: wanted, seed };
        }
        job.label.coverage = self.coverage.or(job.label.coverage);
        self.fill_reducer(&mut job)?;
        self.fill_clusterer(&mut job)?;
        Ok(job)
    }

    fn fill_reducer(&self, job: &mut Job) -> Result<()> {
        if self.n_components == Some(0) {
            job.fit.reducer = Reducer::None;
        }
        if let Some(seed) = self.seed {
            match &mut job.fit.sample {
                Selection::Hash { seed: s, .. } | Selection::Shuffle { seed: s, .. } => *s = seed,
                Selection::Range { .. } | Selection::All => {}
            }
        }
        match &mut job.fit.reducer {
            Reducer::Umap(umap) => {
                umap.n_neighbors = self.n_neighbors.unwrap_or(umap.n_neighbors);
                umap.n_components = self.n_components.unwrap_or(umap.n_components);
                umap.seed = self.seed.unwrap_or(umap.seed);
            }
            Reducer::None if self.n_neighbors.is_some() => {
                return Err(Error::setting(
                    "--n-neighbors",
                    "needs UMAP, but the job clusters the embeddings themselves",
                ));
            }
            Reducer::None => {}
        }
        Ok(())
    }

    fn fill_clusterer(&self, job: &mut Job) -> Result<()> {
        let asked = self.min_cluster_size.is_some() || self.min_samples.is_some() || self.method.is_some();
        match &mut job.fit.clusterer {
            ClustererConfig::Hdbscan(config) => {
                config.min_cluster_size = self.min_cluster_size.unwrap_or(config.min_cluster_size);
                config.min_samples = self.min_samples.or(config.min_samples);
                match self.method {
                    Some(Method::Eom) => config.cluster_selection_method = ClusterSelectionMethod::Eom,
                    Some(Method::Leaf) => config.cluster_selection_method = ClusterSelectionMethod::Leaf,
                    None => {}
                }
            }
            _ if asked => {
                return Err(Error::setting(
                    "--min-cluster-size, --min-samples, --method",
                    "are HDBSCAN's, but the job names another clusterer: set its own in the job file",
                ));
            }
            _ => {}
        }
        Ok(())
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

    let templates = Templates::parse(&job)?;
    let vectors = VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?;
    let columns = Columns::only(templates.columns().into_iter().chain(vectors.columns()));
    let mut source = vectors.open(&job, columns, job.id.as_deref()).await?;
    let bound = templates.bind(&source.schema())?;
    let vectors = vectors.load(context).await?;
    let mut drawn = draw(context, &job, source.as_mut(), &bound).await?;
    args.input.judge_skipped(source.bad())?;
    if drawn.rows.num_rows() == 0 {
        let reason = "the source has no rows, or --rows and --where leave none";
        return Err(operators::Error::Unfit(reason.into()).into());
    }
    if matches!(vectors, Vectors::Encoded { .. }) {
        bound.leave_out_blank(&mut drawn)?;
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
        fit: serde_json::to_value(&job.fit).map_err(|e| Error::Internal(format!("settings: {e}")))?,
    };
    let identity = match &vectors {
        Vectors::Encoded { encoder, .. } => Some(encoder.identity().clone()),
        Vectors::Column { .. } => None,
    };
    let (progress, device, config) = (Arc::clone(&context.progress), context.device, job.fit.clone());
    let shared = Arc::clone(&counters);
    let model = on_worker(move || {
        let rows = bound.rows(&drawn, &vectors, &shared, &progress)?;
        let model = fit(rows, settings, identity, &config, device, progress.as_ref())?;
        progress.finish();
        Ok(Arc::new(model))
    })
    .await?;
    args.input.judge(&counters)?;
    if let Some(warning) = report::coverage_missed(&model) {
        tracing::warn!("{warning}");
    }
    if model.topics.is_empty() {
        tracing::warn!("no topics were found: every row is an outlier; try a smaller --min-cluster-size");
    }
    let (fitted, took) = (Arc::clone(&model), started.elapsed());
    let extras = on_worker(move || draw_report(&fitted, &job, &counters, took)).await?;
    let folder = models::save(&place, &model, extras).await?;
    tell(context, &model, &place, &folder, started.elapsed().as_secs_f64())
}

/// Draws the report and the picture of the map, as files beside the model.
fn draw_report(
    model: &Model,
    job: &Job,
    counters: &Counters,
    took: Duration,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let started = Instant::now();
    let report = report::of_model(model, job, counters, took)?;
    let (mut page, mut picture) = (Vec::new(), Vec::new());
    report::write_html(&report, &mut page)?;
    report::write_png(&report, &mut picture)?;
    tracing::info!("report: {:.1} s", started.elapsed().as_secs_f64());
    Ok(vec![("report.html", page), ("map.png", picture)])
}

fn tell(context: &Context, model: &Model, place: &str, folder: &str, seconds: f64) -> Result<()> {
    let (topics, rows) = (model.topics.len() as u64, model.sample.len() as u64);
    let outliers = model.metrics.get("outlier_share").copied().unwrap_or_default();
    let place = place.trim_end_matches('/');
    let (page, picture) = (format!("{place}/report.html"), format!("{place}/map.png"));
    context.tell(
        &format!(
            "{} in {} ({:.0} % outliers) in {seconds:.1} s\nmodel   {folder}\nreport  {page}\nmap     {picture}\n",
            count(topics, "topic"),
            count(rows, "row"),
            100.0 * outliers,
        ),
        &json!({
            "topics": topics, "rows": rows, "outlier_share": outliers, "seconds": seconds,
            "model": folder, "report": page, "map": picture,
        }),
    )
}

/// Streams the source once and keeps the rows of the sample.
async fn draw(
    context: &Context,
    job: &Job,
    source: &mut dyn Source,
    bound: &Bound,
) -> Result<sample::Sample> {
    let identity = match &job.id {
        Some(column) => Identity::Id(column.clone()),
        None => Identity::Text(bound.text.clone()),
    };
    let mut sampler = Sampler::try_new(job.fit.sample, identity, source.schema())?;
    context.progress.begin("reading", "rows", source.rows_hint());
    let mut first_row = 0;
    while let Event::Batch(batch) = source.next().await? {
        if context.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        sampler.push(first_row, &batch.rows)?;
        first_row += batch.rows.num_rows() as u64;
        context.progress.set(first_row, "");
        if job.fit.sample.end().is_some_and(|end| first_row >= end) {
            break;
        }
    }
    context.progress.finish();
    let drawn = sampler.finish()?;
    if let Selection::Hash { rows, .. } = job.fit.sample {
        // All distinct records were taken, so what is missing are repetitions.
        let (taken, seen) = (drawn.rows.num_rows() as u64, drawn.seen);
        if taken < seen && taken < rows as u64 {
            let what = if job.id.is_some() { "id" } else { "text (there is no --id)" };
            tracing::info!("{taken} of {seen} rows are taken: the others repeat the {what} of one of them");
        }
    }
    Ok(drawn)
}

/// The columns and templates of a fit.
struct Templates {
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
    fn parse(job: &Job) -> Result<Self> {
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

    fn columns(&self) -> Vec<String> {
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
}

impl Bound {
    /// Leaves out the rows without any text: all alike, they would make a topic of nothing.
    fn leave_out_blank(&self, drawn: &mut sample::Sample) -> Result<()> {
        let texts = self.text.render(&drawn.rows)?.texts;
        if texts.null_count() == 0 {
            return Ok(());
        }
        tracing::warn!("{} without any text left out", count(texts.null_count() as u64, "row"));
        drawn.retain(|row| texts.is_valid(row))?;
        if drawn.rows.num_rows() == 0 {
            return Err(operators::Error::Unfit("no row of the sample has any text".into()).into());
        }
        Ok(())
    }

    /// Makes the fit's rows of the sample: names, texts, dates and vectors.
    fn rows(
        &self,
        drawn: &sample::Sample,
        vectors: &Vectors,
        counters: &Arc<Counters>,
        progress: &crate::progress::Progress,
    ) -> Result<Rows> {
        let owned = |texts: &LargeStringArray| -> Vec<String> {
            texts.iter().map(|t| t.unwrap_or_default().to_string()).collect()
        };
        let texts = |template: &BoundTemplate| -> Result<Vec<String>> {
            Ok(owned(&template.render(&drawn.rows)?.texts))
        };
        let rendered = self.text.render(&drawn.rows)?;
        counters.note_missing(&rendered.missing);
        let embedded = owned(&rendered.texts);
        let encoded = match vectors {
            Vectors::Column { .. } => {
                vectors.bind(&drawn.rows.schema(), Arc::clone(counters))?.of(&drawn.rows)?.vectors
            }
            Vectors::Encoded { encoder, .. } => {
                progress.begin("embedding", "rows", Some(embedded.len() as u64));
                let started = Instant::now();
                let vectors = encode(encoder, &embedded, counters, || {
                    progress.set(counters.texts(), &token_rate(counters, started));
                    !progress.is_cancelled()
                })?;
                progress.finish();
                vectors
            }
        };
        Ok(Rows {
            ids: match &self.id {
                Some(id) => texts(id)?,
                None => drawn.row_numbers.iter().map(u64::to_string).collect(),
            },
            shown: texts(&self.show)?,
            texts: embedded,
            dates: self.date.as_deref().map(|date| dates(&drawn.rows, date)).transpose()?.unwrap_or_default(),
            vectors: encoded,
        })
    }
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
