//! `thema plan label`: the bytes, the time and the memory of labelling, before it is done.
//!
//! What there is to read is looked up as a run does it, so of an output that grows only what is new counts. What a row
//! costs is measured: the first rows go through all stages, into a file that is thrown away. Memory is what the process
//! holds when the model is loaded, and what units hold while they are under way, counted.

use super::{Growing, LabelArgs, Ready, Work};
use crate::batch::{AT_ONCE, Batch, Ledger, UNIT_BYTES};
use crate::commands::plan::{bytes, seconds};
use crate::commands::{Context, Format, count};
use crate::engine::Summary;
use crate::memory::{most_bytes, resident_bytes};
use crate::progress::Progress;
use crate::report::thousands;
use crate::sinks::{ROW_GROUP_BYTES, ROW_GROUP_ROWS, SinkConfig, UPLOAD_BYTES};
use crate::sources::{Columns, Source, Table, WINDOW_BYTES};
use crate::{Error, Result, engine};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use clap::Args;
use operators::Operator;
use operators::corpus::Corpus;
use operators::vectors::Vectors;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Says what labelling will take.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema plan label nightly.yaml
  thema plan label --input s3://lake/papers/ --model s3://lake/models/papers --out s3://lake/labelled/
  thema plan label nightly.yaml --count 1000000,15000000 --format json")]
pub struct PlanLabelArgs {
    #[command(flatten)]
    label: LabelArgs,
    /// Plans for so many rows of the input instead of those that there are
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',')]
    count: Vec<u64>,
    /// How to show the plan (as JSON with --log json, too); sizes are in bytes there, times in seconds
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Rows that a trial begins with, and how many times as many each further one has, until it takes long enough.
const FIRST_ROWS: u64 = 64;
const GROWTH: u64 = 4;

/// Rows that no trial goes beyond.
const MOST_ROWS: u64 = 1 << 17;

/// How long a trial is to take: shorter ones are mostly beginnings.
const TRIAL_SECONDS: f64 = 2.0;

/// Batches that a unit holds at once: one that is decoded, two that wait for the engine, two in its queue, one at work, one
/// that waits to be written and one that is.
const BATCHES: f64 = 8.0;

/// What is to be read.
struct ToRead {
    /// Its rows, if its files say how many they have.
    rows: Option<u64>,
    bytes: u64,
    files: u64,
    /// Units of work; nothing where all goes into one file.
    units: Option<u64>,
    /// The rows of a unit.
    unit_rows: f64,
    /// The rows of the largest row group, where files are Parquet.
    group_rows: Option<u64>,
    /// The most rows of a batch.
    batch_rows: usize,
    /// What a trial reads: what is new, or all if nothing is.
    table: Table,
}

/// What a row costs; each number is of a row that is read, labelled or (`where`) not.
struct Trial {
    /// Rows that were read, and those of them that were labelled.
    rows: u64,
    labelled_rows: u64,
    seconds: f64,
    /// Bytes of a row as it is read, in each column, and all of them when it is labelled.
    columns: Vec<f64>,
    labelled: f64,
    /// Bytes of a row in the files that are read, where they say how many rows they have.
    read: Option<f64>,
    /// Bytes of a row in the file that is written.
    written: f64,
    /// Bytes of the sums that its rows made.
    sums: f64,
}

/// A plan.
#[derive(Debug, Serialize)]
struct Forecast {
    /// Rows that are read, and those of them that are labelled.
    rows: u64,
    labelled: f64,
    read_bytes: f64,
    written_bytes: f64,
    peak_bytes: f64,
    seconds: f64,
}

pub(in crate::commands) async fn run(context: &Context, args: PlanLabelArgs) -> Result<()> {
    let job = args.label.job()?;
    let started = Instant::now();
    let work = Work::of(context, &args.label, &job).await?;
    let found = work.to_read(job.sink()?).await?;
    if found.rows == Some(0) && found.units.is_some() && args.count.is_empty() {
        return nothing_new(context, &args, &work, started.elapsed().as_secs_f64(), most_bytes());
    }
    let ready = work.load(None).await?;
    let (loading, held, most) = (started.elapsed().as_secs_f64(), resident_bytes(), most_bytes());
    let counts = match found.rows {
        _ if !args.count.is_empty() => args.count,
        Some(rows) => vec![rows],
        None => {
            let reason = "is needed: text files do not say how many rows they have";
            return Err(Error::setting("--count", reason));
        }
    };
    let trial = work.trial(&found.table, &ready, &context.progress).await?;
    context.progress.finish();
    if trial.labelled_rows == 0 {
        tracing::warn!(
            "none of the first {} is labelled, so that the plan says little",
            count(trial.rows, "row")
        );
    }
    // Those that an encoder works on would only end later side by side.
    let at_once = match (&found.units, &ready.vectors) {
        (Some(_), Vectors::Column { .. }) => AT_ONCE as f64,
        _ => 1.0,
    };
    let plan = |&count: &u64| {
        let (rows, of_trial) = (count as f64, trial.rows.max(1) as f64);
        let in_unit = if found.units.is_some() { found.unit_rows.min(rows) } else { rows };
        let at_once = at_once.min((rows / in_unit.max(1.0)).ceil());
        let working = trial.units_bytes(at_once, &found, in_unit, work.model.codes.cols());
        Forecast {
            rows: count,
            labelled: (rows * trial.labelled_rows as f64 / of_trial).round(),
            read_bytes: found.bytes_of(rows, &trial).round(),
            written_bytes: (trial.written * rows).round(),
            peak_bytes: (held as f64 + working).max(most as f64).round(),
            seconds: loading + trial.seconds / of_trial * rows,
        }
    };
    let plans: Vec<Forecast> = counts.iter().map(plan).collect();
    let facts = json!({
        "model": work.found.folder, "vectors": ready.vectors.to_string(), "threads": rayon::current_num_threads(),
        "files": found.files, "units": found.units, "trial": { "rows": trial.rows, "seconds": trial.seconds },
        "plans": plans,
    });
    context.show(args.format, || text(&work, &ready, &found, &trial, &plans), &facts)
}

/// Says that a run would find nothing to do.
fn nothing_new(
    context: &Context,
    args: &PlanLabelArgs,
    work: &Work<'_>,
    seconds: f64,
    most: u64,
) -> Result<()> {
    let (rows, labelled, read_bytes, written_bytes, peak_bytes) = (0, 0.0, 0.0, 0.0, most as f64);
    let plan = Forecast { rows, labelled, read_bytes, written_bytes, peak_bytes, seconds };
    let facts = json!({ "model": work.found.folder, "files": 0, "units": 0, "plans": [plan] });
    context.show(args.format, || "nothing new: there is nothing to label\n".into(), &facts)
}

impl ToRead {
    /// The bytes of `rows` rows, which may be others than those that are there.
    fn bytes_of(&self, rows: f64, trial: &Trial) -> f64 {
        let own = self.rows.filter(|rows| *rows > 0).map(|rows| self.bytes as f64 / rows as f64);
        own.or(trial.read).map_or(self.bytes as f64, |each| each * rows)
    }
}

impl Work<'_> {
    /// Looks at what a run would read.
    async fn to_read(&self, sink: &SinkConfig) -> Result<ToRead> {
        let config = self.job.source()?;
        let config = config.table().ok_or_else(|| config.is_no_table())?;
        let (id, batch_rows) = (self.id.as_deref(), config.batch_size);
        let Some(units) = sink.units() else {
            let table = Table::open(config, id).await?;
            return Ok(ToRead {
                rows: table.rows_scanned(),
                unit_rows: 0.0,
                bytes: table.bytes(),
                files: table.files().count() as u64,
                units: None,
                group_rows: table.largest_row_group(),
                batch_rows,
                table,
            });
        };
        let Growing { place, listing, settings } = self.growing(units).await?;
        let (model, anew) = (self.found.folder.as_str(), self.args.output.overwrite);
        let batch = Batch { place: &place, listing: &listing, id, model, settings, anew };
        let ledger = Ledger::open(&place).await?;
        let look = batch.look(&ledger).await?;
        let units = look.to_read(&ledger);
        let table = match look.table {
            Some(table) if !units.is_empty() => table,
            _ => Table::open(config, id).await?,
        };
        let group_rows = units.iter().filter_map(|(table, _)| table.largest_row_group()).max();
        let rows: Option<u64> = units.iter().map(|(table, _)| table.rows_scanned()).sum();
        // Where nothing is new, as all that there is would be cut.
        let (of_units, all) = match units.is_empty() {
            true => (table.parts(UNIT_BYTES).len(), table.rows_scanned()),
            false => (units.len(), rows),
        };
        Ok(ToRead {
            rows,
            unit_rows: all.unwrap_or(0) as f64 / of_units.max(1) as f64,
            bytes: units.iter().map(|(_, bytes)| bytes).sum(),
            files: units.iter().flat_map(|(table, _)| table.files()).collect::<BTreeSet<_>>().len() as u64,
            units: Some(units.len() as u64),
            group_rows: group_rows.or(table.largest_row_group()),
            batch_rows,
            table,
        })
    }

    /// Labels ever more of the first rows, until that takes long enough.
    async fn trial(&self, table: &Table, ready: &Ready, progress: &Progress) -> Result<Trial> {
        let columns = self.vectors.told(self.columns.clone(), self.id.as_deref());
        table.check(&columns)?;
        self.vectors.check(table.schema())?;
        let mut rows = FIRST_ROWS;
        loop {
            let trial = self.trial_of(&table.first(rows), &columns, ready, progress).await?;
            if trial.seconds >= TRIAL_SECONDS || trial.rows < rows || rows >= MOST_ROWS {
                return Ok(trial);
            }
            rows = (rows * GROWTH).min(MOST_ROWS);
        }
    }

    async fn trial_of(
        &self,
        table: &Table,
        columns: &Columns,
        ready: &Ready,
        progress: &Progress,
    ) -> Result<Trial> {
        let mut source = table.read(columns)?;
        let (schema, keep) = self.output(&Source::schema(&source))?;
        let corpus: Arc<Mutex<Corpus>> = Arc::default();
        let sums = self.counting(&schema).await?.map(|counting| (counting, Arc::clone(&corpus)));
        let folder =
            tempfile::tempdir().map_err(|error| Error::place("a folder for the trial", error.to_string()))?;
        let is_jsonl = matches!(self.job.sink()?, SinkConfig::Jsonl(_));
        let file = folder.path().join(if is_jsonl { "trial.jsonl" } else { "trial.parquet" });
        let mut sink = SinkConfig::for_path(&file.display().to_string())?.open(&schema, false).await?;
        let sizes = Arc::new(Mutex::new(Sizes::default()));
        let measured = |of: Of| Box::new(Measure(Arc::clone(&sizes), of)) as Box<dyn Operator>;
        let labelling = Ready { keep, ..ready.clone() }.operators(&self.model, &self.job.prefix, sums);
        let operators =
            [measured(Of::Input)].into_iter().chain(labelling).chain([measured(Of::Output)]).collect();
        let started = Instant::now();
        let counters = &ready.counters;
        let Summary { rows_in, .. } =
            engine::run(&mut source, operators, sink.as_mut(), progress, counters, |_| Ok(())).await?;
        let seconds = started.elapsed().as_secs_f64();
        let written = std::fs::metadata(&file).map_or(0, |file| file.len());
        let Sizes { columns, labelled } =
            std::mem::take(&mut *sizes.lock().unwrap_or_else(PoisonError::into_inner));
        let rows = table.rows_scanned().unwrap_or(rows_in);
        let each = |bytes: f64| bytes / rows.max(1) as f64;
        Ok(Trial {
            rows,
            labelled_rows: rows_in,
            seconds,
            columns: columns.into_iter().map(each).collect(),
            labelled: each(labelled),
            read: table.largest_row_group().map(|_| each(table.bytes() as f64)),
            written: each(written as f64),
            sums: corpus.lock().unwrap_or_else(PoisonError::into_inner).memory_bytes() as f64,
        })
    }
}

/// Bytes of rows in memory.
#[derive(Debug, Default)]
struct Sizes {
    columns: Vec<f64>,
    labelled: f64,
}

/// Which rows are measured.
enum Of {
    Input,
    Output,
}

/// Measures the rows that pass.
struct Measure(Arc<Mutex<Sizes>>, Of);

impl Operator for Measure {
    fn name(&self) -> &'static str {
        "measure"
    }

    fn schema(&self, input: &SchemaRef) -> operators::Result<SchemaRef> {
        Ok(Arc::clone(input))
    }

    fn process(&mut self, rows: RecordBatch) -> operators::Result<RecordBatch> {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |column: &ArrayRef| column.get_array_memory_size() as f64;
        match self.1 {
            Of::Input => {
                sizes.columns.resize(rows.num_columns(), 0.0);
                sizes.columns.iter_mut().zip(rows.columns()).for_each(|(sum, column)| *sum += bytes(column));
            }
            Of::Output => sizes.labelled += rows.columns().iter().map(bytes).sum::<f64>(),
        }
        drop(sizes);
        Ok(rows)
    }
}

impl Trial {
    /// What `at_once` units of `rows` rows each hold while they are under way.
    fn units_bytes(&self, at_once: f64, found: &ToRead, rows: f64, dim: usize) -> f64 {
        let input: f64 = self.columns.iter().sum();
        let group = found.group_rows.map_or(0.0, |group| (group as f64).min(rows));
        let windows: f64 = self.columns.iter().map(|column| (column * group).min(WINDOW_BYTES as f64)).sum();
        let batch = (found.batch_rows as f64).min(rows);
        // A row is in one place: in a batch, or among those of a row group that is not full yet.
        let in_batches = (BATCHES * batch).min(rows);
        let group = |rows: f64| (self.written * rows.min(ROW_GROUP_ROWS as f64)).min(ROW_GROUP_BYTES as f64);
        let held = in_batches * input.max(self.labelled) + group(rows - in_batches);
        // The vectors, the same with length 1, and their codes.
        let vectors = batch * dim as f64 * (4.0 + 4.0 + 1.0);
        // Of one at a time a row group stands twice when it is full, and parts of it wait for the store.
        let ending = group(rows) + (self.written * rows).min(UPLOAD_BYTES as f64);
        at_once * (windows + held + vectors + self.sums) + ending
    }
}

/// The plans side by side, for people.
fn text(work: &Work<'_>, ready: &Ready, found: &ToRead, trial: &Trial, plans: &[Forecast]) -> String {
    let model = &work.model;
    let mut text = format!(
        "{}, model {}: {}, {}; {}\n\n",
        ready.vectors,
        work.found.folder,
        count(model.topics.len() as u64, "topic"),
        count(model.sample.len() as u64, "sample row"),
        count(rayon::current_num_threads() as u64, "thread"),
    );
    let mut line = |name: &str, cell: &dyn Fn(&Forecast) -> String| {
        let cells: String = plans.iter().map(|plan| format!("{:>14}", cell(plan))).collect();
        text.push_str(&format!("{name:<9}{cells}\n"));
    };
    line("rows", &|plan| thousands(plan.rows));
    if trial.labelled_rows != trial.rows {
        line("labelled", &|plan| thousands(plan.labelled as u64));
    }
    line("read", &|plan| bytes(plan.read_bytes));
    line("written", &|plan| bytes(plan.written_bytes));
    line("memory", &|plan| bytes(plan.peak_bytes));
    line("time", &|plan| seconds(plan.seconds));
    let what = match found.units {
        Some(units) => format!("{} of {}", count(units, "unit"), count(found.files, "file")),
        None => count(found.files, "file"),
    };
    text.push_str(&format!(
        "\nTo be read: {what}. Time is an estimate, from {} labelled on this machine as busy as it was ({:.1} s).\n",
        count(trial.rows, "row"),
        trial.seconds,
    ));
    text
}
