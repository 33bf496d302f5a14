//! `thema label`: a topic for every row, by a fitted model.

pub(super) mod plan;

use super::input::{InputArgs, VectorSource, check_apart};
use super::output::OutputArgs;
use super::{Context, count};
use crate::batch::{AT_ONCE, Batch, Ledger, Look, Settings, Way};
use crate::engine::Summary;
use crate::filter::Filter;
use crate::job::Job;
use crate::location::{Location, without_secrets};
use crate::models::Found;
use crate::report::thousands;
use crate::sinks::{SinkConfig, UnitSinks, UnitsConfig};
use crate::sources::{BadUnits, Columns, Listing, TableConfig};
use crate::worker::on_worker;
use crate::{Error, Result, batch, engine, models};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::Args;
use kernels::Device;
use operators::Operator;
use operators::assign::{Assigner, LabelConfig};
use operators::bundle::Wanted;
use operators::corpus::{Corpus, basis};
use operators::fit::FitConfig;
use operators::label::{Counting, Extras, Label, labelled_schema};
use operators::model::{self, EncoderConfig, Model};
use operators::text::Template;
use operators::vectors::{Counters, Vectors};
use operators::words::TermCounter;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Adds topic, topic_name, topic_path, score, topics and model_version to every row.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema label --input new.parquet --model model/ --out labelled.parquet
  thema label --input 's3://lake/papers/2026-*.parquet' \\
      --model s3://lake/models/papers --out labelled.parquet \\
      --keep 'topic >= 0 and score >= 0.5'
  thema label nightly.yaml --overwrite
  thema label --input s3://lake/papers/ --model s3://lake/models/papers \\
      --out s3://lake/labelled/     # each time only what is new
  thema label --input s3://lake/papers/ --model s3://lake/models/papers \\
      --out delta:s3://lake/labelled --corpus
  thema topics s3://lake/models/papers --update --corpus delta:s3://lake/labelled")]
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
    /// Keeps sums of the rows by topic beside an output that grows: for thema topics MODEL --update --corpus OUT
    #[arg(long)]
    corpus: bool,
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
        job.corpus |= self.corpus;
        job.label.top_k = self.top_k.or(job.label.top_k);
        job.label.top_topics = self.top_topics.or(job.label.top_topics);
        job.label.coverage = self.coverage.or(job.label.coverage);
        Ok(job)
    }
}

pub(super) async fn run(context: &Context, args: LabelArgs) -> Result<()> {
    let job = args.job()?;
    let work = Work::of(context, &args, &job).await?;
    let sink = job.sink()?;
    match sink.units() {
        Some(units) => work.label_new(units).await,
        None => work.label_all(sink).await,
    }
}

/// What is to be done, by which model.
struct Work<'a> {
    context: &'a Context,
    args: &'a LabelArgs,
    job: &'a Job,
    found: Found,
    model: Arc<Model>,
    config: LabelConfig,
    vectors: VectorSource,
    columns: Columns,
    /// The column that names rows.
    id: Option<String>,
}

/// An output that grows, and what it is to grow by.
struct Growing {
    place: Location,
    listing: Listing,
    settings: Settings,
}

/// A model, ready to label.
#[derive(Clone)]
struct Ready {
    vectors: Vectors,
    assigner: Assigner,
    keep: Option<Filter>,
    version: String,
    counters: Arc<Counters>,
}

impl<'a> Work<'a> {
    /// Checks what can be known before rows are read, and loads the model.
    async fn of(context: &'a Context, args: &'a LabelArgs, job: &'a Job) -> Result<Self> {
        let sink = job.sink()?;
        match sink.units() {
            Some(units) => drop(units.check().await?),
            None if job.corpus => {
                let reason = "keeps sums beside an output that grows: end --out with / for a folder, or begin it with delta:";
                return Err(Error::setting("corpus (--corpus)", reason));
            }
            None => sink.check(args.output.overwrite).await?,
        }
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
        let id = job.id.clone().or_else(|| settings.id.clone());
        Ok(Self { context, args, job, found, model, config, vectors, columns, id })
    }

    /// Labels all rows into one file.
    async fn label_all(self, sink_config: &SinkConfig) -> Result<()> {
        let Self { context, args, job, .. } = self;
        let mut source = self.vectors.open(job, self.columns.clone(), self.id.as_deref()).await?;
        check_apart(source.as_ref(), sink_config.path()?)?;
        let (schema, keep) = self.output(&source.schema())?;
        let folder = self.found.folder.clone();
        let ready = self.load(keep).await?;
        let mut sink = sink_config.open(&schema, args.output.overwrite).await?;

        let started = Instant::now();
        context.progress.begin("labelling", "rows", source.rows_hint());
        let counters = &ready.counters;
        let judge = |skipped: &BadUnits| args.input.judge_all(counters, skipped);
        let operators = ready.operators(&self.model, &job.prefix, None);
        let rows = engine::run(source.as_mut(), operators, sink.as_mut(), &context.progress, counters, judge)
            .await?;
        tell(context, rows, Some(counters.outliers()), started, (&folder, sink_config.path()?), json!({}))
    }

    /// Looks at an output that grows, and at the files that there are.
    async fn growing(&self, config: UnitsConfig<'_>) -> Result<Growing> {
        let place = config.check().await?;
        if self.job.corpus && config.replaces() {
            let reason =
                "cannot be kept where partitions are replaced: sums of rows that are gone would stay";
            return Err(Error::setting("corpus (--corpus)", reason));
        }
        let source = self.job.source()?;
        let table = source.table().ok_or_else(|| source.is_no_table())?;
        if table.rows.is_some() {
            let reason = "chooses rows of one table, but this output takes what is new of many files: say --where instead";
            return Err(Error::setting("rows", reason));
        }
        let listing = Listing::of(table).await?;
        if listing.would_have(&place, "part-000001-00000.parquet") {
            let reason = "lies in the folder that is read, so that a run would read what one has written; choose another";
            return Err(Error::place(config.path(), reason));
        }
        Ok(Growing { place, listing, settings: self.settings(table) })
    }

    /// Labels the rows of files that are new into an output that grows.
    async fn label_new(self, config: UnitsConfig<'_>) -> Result<()> {
        let Self { context, args, job, .. } = self;
        let Growing { place, listing, settings } = self.growing(config).await?;
        let (out, anew, model) = (config.path(), args.output.overwrite, self.found.folder.as_str());
        let batch = Batch { place: &place, listing: &listing, id: self.id.as_deref(), model, settings, anew };
        let (mut sink, mut ledger) = (config.open(&place), Ledger::open(&place).await?);
        sink.check(&ledger, anew).await?;
        batch.warn_of_changes(&ledger);
        if !job.corpus && !anew && ledger.has_sums().await? {
            tracing::warn!(
                "{out} has sums of its rows, but of these none are kept: say --corpus (corpus: true in a job)"
            );
        }
        let columns = self.vectors.told(self.columns.clone(), self.id.as_deref());
        let (mut ready, mut counting) = (None::<Ready>, None::<Arc<Counting>>);
        let (look, tasks, schema) = loop {
            let look = batch.look(&ledger).await?;
            if args.input.strict {
                args.input.judge_skipped(&look.bad)?;
            }
            let mut schema = None;
            if let Some(table) = look.table.as_ref().filter(|_| look.has_work()) {
                table.check(&columns)?;
                self.vectors.check(table.schema())?;
                let (output, keep) = self.output(table.schema())?;
                ready = Some(match ready {
                    Some(ready) => Ready { keep, ..ready },
                    None => self.load(keep).await?,
                });
                counting = self.counting(&output).await?;
                sink.begin(&output).await?;
                schema = Some(output);
            }
            // Nothing is planned before all that can be known beforehand is known to be well.
            if let Some(tasks) = batch.plan(&look, schema.as_ref(), &mut ledger).await? {
                break (look, tasks, schema);
            }
        };
        sink.tidy(&ledger).await?;
        let (Some(ready), Some(schema), false) = (ready, schema, tasks.is_empty()) else {
            return self.tell_nothing(&look, &mut ledger, &sink, out).await;
        };

        let started = Instant::now();
        let hint = tasks.iter().map(|task| task.table.rows_hint()).sum();
        context.progress.begin("labelling", "rows", hint);
        let counters = &ready.counters;
        let sums = if job.corpus { Some(basis_of(&self.model).await?) } else { None };
        let way = Way {
            sink: &sink,
            columns: &columns,
            schema: &schema,
            model,
            operators: |corpus| {
                ready.operators(
                    &self.model,
                    &job.prefix,
                    counting.as_ref().map(|counting| (Arc::clone(counting), corpus)),
                )
            },
            sums,
            counters,
            at_once: if matches!(ready.vectors, Vectors::Encoded { .. }) { 1 } else { AT_ONCE },
        };
        // What is wrong is told once, in the end; what must not be wrong is looked for before a unit becomes visible.
        let judge =
            |bad: &BadUnits| if args.input.strict { args.input.judge_all(counters, bad) } else { Ok(()) };
        let totals = batch::run(&ledger, tasks, &look.bad, &way, &context.progress, judge).await?;
        args.input.judge_all(counters, &totals.bad)?;
        sink.seal(&mut ledger).await?;
        let facts = json!({
            "files": look.listing.files().count(), "table_version": look.listing.version(), "units": totals.units,
            "bad_units": totals.bad.units(),
        });
        // What another run labelled is among what was counted, and not among the rows.
        let outliers = (totals.left == 0).then(|| counters.outliers());
        if totals.left > 0 {
            tracing::info!("{} done by another run meanwhile", count(totals.left as u64, "unit"));
        }
        tell(context, totals.rows, outliers, started, (model, out), facts)
    }

    /// Tells that there is nothing to do.
    async fn tell_nothing(
        &self,
        look: &Look,
        ledger: &mut Ledger,
        sink: &UnitSinks,
        out: &str,
    ) -> Result<()> {
        self.args.input.judge_skipped(&look.bad)?;
        if !look.bad.is_empty() {
            tracing::warn!("what could not be read is listed in {}", ledger.note_bad(&look.bad).await?);
        }
        // A run may have been killed when all units were done.
        if sink.seal(ledger).await? > 0 {
            tracing::info!("{out}: what an earlier run did is visible now");
        }
        let (files, version) = (look.listing.files().count() as u64, look.listing.version());
        let seen = match version {
            Some(version) => format!("the table's version {version}"),
            None => count(files, "file"),
        };
        let bad = look.bad.units();
        let text = match bad {
            0 => format!("nothing new: {seen}, all labelled before -> {out}\n"),
            bad => format!("nothing new: {seen}, {bad} left out, all else labelled before -> {out}\n"),
        };
        let facts =
            json!({ "rows": 0, "files": files, "table_version": version, "bad_units": bad, "out": out });
        self.context.tell(&text, &facts)
    }

    /// The columns that are written for rows of the columns `input`, and the condition on them.
    fn output(&self, input: &SchemaRef) -> Result<(SchemaRef, Option<Filter>)> {
        let schema = labelled_schema(input, &self.job.prefix, Extras::of(&self.model))?;
        let keep = self.job.keep.as_ref().map(|keep| Filter::try_named("keep", keep, &schema)).transpose()?;
        Ok((schema, keep))
    }

    /// What sums rows of the columns `schema`, where sums are wanted.
    async fn counting(&self, schema: &SchemaRef) -> Result<Option<Arc<Counting>>> {
        if !self.job.corpus {
            return Ok(None);
        }
        let model::Settings { label, text, .. } = &self.model.settings;
        // How many topics are listed changes none.
        let is_other = LabelConfig { top_topics: label.top_topics, ..self.config.clone() } != *label;
        if is_other || self.job.text.as_ref().is_some_and(|own| Some(own) != text.as_ref()) {
            let reason = "sums what the model's own settings give: leave text, top_k, coverage and the rest of label as they are";
            return Err(Error::setting("corpus (--corpus)", reason));
        }
        let text = text
            .as_ref()
            .ok_or_else(|| Error::setting("corpus (--corpus)", "counts words, but the model has no text"))?;
        let template = Template::parse(text)?;
        template.bind(schema)?;
        let model = Arc::clone(&self.model);
        on_worker(move || {
            let words = FitConfig::of(&model)?.words;
            let terms = TermCounter::try_new(model.terms.terms(), &words.vocabulary)?;
            Ok(Some(Arc::new(Counting { template, terms })))
        })
        .await
    }

    /// What rows depend on, beside the model.
    fn settings(&self, table: &TableConfig) -> Settings {
        let said = [
            ("source", Some(without_secrets(&table.path))),
            ("where", table.filter.clone()),
            ("text", self.vectors.template().map(ToString::to_string)),
            ("embeddings", self.vectors.embeddings().map(|embeddings| embeddings.column.clone())),
            ("keep", self.job.keep.clone()),
            ("prefix", Some(self.job.prefix.clone()).filter(|prefix| !prefix.is_empty())),
        ];
        said.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect()
    }

    /// Loads what makes vectors, and makes what labels them.
    async fn load(&self, keep: Option<Filter>) -> Result<Ready> {
        let Self { context, found, model, config, .. } = self;
        let vectors = self.vectors.load(context).await?;
        same_encoder(model, &vectors, &found.folder)?;
        let assigner = assigner(model, config.clone(), &context.device).await?;
        tracing::info!(
            "model {}: {}, {}, threshold {:.3}",
            found.folder,
            count(model.topics.len() as u64, "topic"),
            count(model.sample.len() as u64, "sample row"),
            assigner.threshold()
        );
        let version = format!("v{}", found.version);
        Ok(Ready { vectors, assigner, keep, version, counters: Arc::default() })
    }
}

impl Ready {
    /// What rows pass through.
    fn operators(
        &self,
        model: &Model,
        prefix: &str,
        sums: Option<(Arc<Counting>, Arc<Mutex<Corpus>>)>,
    ) -> Vec<Box<dyn Operator>> {
        let Self { vectors, assigner, keep, version, counters } = self;
        let (vectors, assigner) = (vectors.clone(), assigner.clone());
        let label =
            Label::new(vectors, assigner, model, version.clone(), prefix.into(), Arc::clone(counters));
        let label = match sums {
            Some((counting, corpus)) => label.adding_to(counting, corpus),
            None => label,
        };
        let keep = keep.clone().map(|keep| Box::new(Keep(keep)) as Box<dyn Operator>);
        std::iter::once(Box::new(label) as Box<dyn Operator>).chain(keep).collect()
    }
}

/// Tells what was done, since `started`, by the model in a folder for an output, and `more` facts to machines.
fn tell(
    context: &Context,
    Summary { rows_in, rows_out }: Summary,
    outliers: Option<u64>,
    started: Instant,
    (model, out): (&str, &str),
    more: serde_json::Value,
) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let outliers = outliers.map(|outliers| outliers as f64 / rows_in.max(1) as f64);
    let kept = if rows_out == rows_in { String::new() } else { format!(", {} kept", thousands(rows_out)) };
    let mut facts = json!({
        "rows": rows_in, "rows_kept": rows_out, "outlier_share": outliers, "seconds": seconds, "model": model, "out": out,
    });
    if let (Some(facts), serde_json::Value::Object(more)) = (facts.as_object_mut(), more) {
        facts.extend(more);
    }
    context.tell(
        &format!(
            "{} labelled{kept} in {seconds:.1} s{} -> {out}\n",
            count(rows_in, "row"),
            outliers.map(|share| format!(", {:.0} % outliers", 100.0 * share)).unwrap_or_default(),
        ),
        &facts,
    )
}

/// What sums of the rows that `model` labels depend on.
pub(super) async fn basis_of(model: &Arc<Model>) -> Result<String> {
    let model = Arc::clone(model);
    on_worker(move || Ok(basis(&model)?)).await
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
