//! `thema plan`: the memory, the time and the disk of a fit, before it runs; `thema plan label` is in [`super::label::plan`].
//!
//! Memory is computed, stage by stage, from the sizes of what each holds ([`forecast`]); time is an estimate, from a
//! trial on the first rows of the input ([`trial`]). Both are told for the rows that the input has, or for any number.

mod forecast;
mod trial;

use super::fit::Templates;
use super::fit_settings::FitSettings;
use super::input::{EncoderArgs, InputArgs, VectorSource, parse_rows};
use super::label::plan as label;
use super::{Context, Format, count};
use crate::job::Job;
use crate::report::thousands;
use crate::sources::{Columns, RowRange, Table};
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::{Args, Subcommand};
use forecast::{Forecast, Input};
use operators::assign::LabelConfig;
use operators::clusterers::ClustererConfig;
use operators::fit::map_config;
use operators::plan::Asked;
use operators::reducers::{EXACT_ROWS, Metric};
use operators::sample::Selection;
use serde_json::json;
use std::path::PathBuf;
use trial::{Loaded, Trial};

/// Says what a fit will take; or labelling: see thema plan label --help.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  thema plan nightly.yaml
  thema plan label nightly.yaml
  thema plan nightly.yaml --rows 100000,1000000 --sample 1000000
  thema plan --input vectors.parquet --embeddings embedding --text '{title}'
  thema plan nightly.yaml --format json | jq '.plans[0].peak_bytes'"
)]
pub struct PlanArgs {
    #[command(subcommand)]
    other: Option<Other>,
    /// A job file; flags fill it in and win
    #[arg(value_name = "JOB.yaml")]
    job: Option<PathBuf>,
    /// Parquet, CSV or JSONL: a file, a folder, a glob, s3://..., or hf://datasets/owner/name
    #[arg(long, short, value_name = "PATH")]
    input: Option<String>,
    /// Reads only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Plans for inputs of so many rows, or for these rows of the input (A..B) [default: all that the input has, or
    /// 10000,100000,1000000 where it does not say]
    #[arg(long, value_name = "N[,N...]|A..B", value_parser = parse_planned)]
    rows: Option<Planned>,
    /// The column that names a row; in a CSV file its 2302.08150 stays as it is
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The text to show on the map and as a topic's examples [default: the text that is embedded]
    #[arg(long, value_name = "TEMPLATE")]
    show: Option<String>,
    /// The column that dates a row, for the report's time filter
    #[arg(long, value_name = "COLUMN")]
    date: Option<String>,
    #[command(flatten)]
    settings: FitSettings,
    /// How to show the plan (as JSON with --log json, too); sizes are in bytes there, times in seconds
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// What is planned instead of a fit.
#[derive(Debug, Subcommand)]
enum Other {
    /// Say what labelling will take: bytes, memory and time
    Label(Box<label::PlanLabelArgs>),
}

/// Which rows are planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Planned {
    /// Inputs of so many rows.
    Counts(Vec<u64>),
    /// These rows of the input.
    Range(RowRange),
}

/// Rows to plan for where the input does not say how many it has.
const ROWS: [u64; 3] = [10_000, 100_000, 1_000_000];

/// The most rows that are planned for: a hundred thousand times as many as stages' laws were ever held to.
const MOST_ROWS: u64 = 100_000_000_000;

impl PlanArgs {
    fn job(&self) -> Result<Job> {
        let rows = match &self.rows {
            Some(Planned::Range(range)) => Some(*range),
            _ => None,
        };
        let input = InputArgs {
            job: self.job.clone(),
            input: self.input.clone(),
            filter: self.filter.clone(),
            rows,
            id: self.id.clone(),
            on_bad_row: None,
            strict: false,
        };
        let mut job = input.job()?;
        self.encoder.fill(&mut job);
        for (flag, field) in [(&self.show, &mut job.show), (&self.date, &mut job.date)] {
            if flag.is_some() {
                field.clone_from(flag);
            }
        }
        self.settings.fill(&mut job)?;
        Ok(job)
    }
}

pub(super) async fn run(context: &Context, mut args: PlanArgs) -> Result<()> {
    if let Some(Other::Label(args)) = args.other.take() {
        return label::run(context, *args).await;
    }
    let job = args.job()?;
    job.fit.check()?;
    let label = job.label.of(&LabelConfig::default())?;
    let templates = Templates::parse(&job)?;
    let vectors = VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?;
    let columns = Columns::only(templates.columns().into_iter().chain(vectors.columns()));
    let source = job.source()?;
    let config = source.table().ok_or_else(|| source.is_no_table())?;
    let table = Table::open(config, job.id.as_deref()).await?;
    let drawn = trial::draw(context, &job, &vectors, columns).await?;
    let read = drawn.sample.rows.num_rows();
    let counts = match (&args.rows, table.rows_hint()) {
        (Some(Planned::Counts(counts)), _) => counts.clone(),
        (_, Some(rows)) => vec![rows],
        // All that there are.
        (_, None) if read < trial::ROWS => vec![read as u64],
        (Some(Planned::Range(RowRange { start, end: Some(end) })), None) => vec![end.saturating_sub(*start)],
        (_, None) => ROWS.to_vec(),
    };
    if let Some(rows) = counts.iter().find(|rows| **rows > MOST_ROWS) {
        let reason = format!("{rows} rows cannot be planned for, expected at most {}", thousands(MOST_ROWS));
        return Err(Error::setting("--rows", reason));
    }
    let input = Input::of(&drawn.sample.rows, config, table.largest_row_group(), &job);
    let loaded = Loaded::load(vectors, context).await?;
    let what = loaded.vectors.to_string();
    let (device, progress) = (context.device.clone(), std::sync::Arc::clone(&context.progress));
    let (of_trial, settings) = (job.clone(), label.clone());
    let trial =
        on_worker(move || Trial::run(&of_trial, settings, drawn, &templates, loaded, &device, &progress))
            .await?;
    context.progress.finish();
    let plan = |&rows: &u64| Forecast::of(rows, &job, &label, &input, &trial);
    let plans: Vec<Forecast> = counts.iter().map(plan).collect::<Result<_>>()?;
    for plan in &plans {
        job.fit.clusterer.check_rows(usize::try_from(plan.fitted).unwrap_or(usize::MAX))?;
    }
    let facts = json!({
        "vectors": what, "dimensions": trial.dim, "threads": rayon::current_num_threads(),
        "trial": { "rows": trial.rows, "seconds": trial.seconds }, "texts": trial.texts, "plans": plans,
    });
    context.show(args.format, || text(&what, &plans, &trial, &job), &facts)
}

/// The plans side by side, for people.
fn text(what: &str, plans: &[Forecast], trial: &Trial, job: &Job) -> String {
    let mut text = format!("{what}, {}\n\n", count(rayon::current_num_threads() as u64, "thread"));
    let mut line = |name: &str, cells: Vec<(String, String)>| {
        let cells = cells.iter().map(|(memory, time)| format!("{memory:>13} {time:>9}"));
        text.push_str(format!("{name:<17}{}", cells.collect::<String>()).trim_end());
        text.push('\n');
    };
    let each = |cell: &dyn Fn(&Forecast) -> (String, String)| plans.iter().map(cell).collect::<Vec<_>>();
    line("rows of the input", each(&|plan| (thousands(plan.rows), String::new())));
    line("rows fitted", each(&|plan| (thousands(plan.fitted), String::new())));
    line("", each(&|_| ("memory".into(), "time".into())));
    let stages = plans.first().map_or(0, |plan| plan.stages.len());
    for at in 0..stages {
        let cell = |plan: &Forecast| (bytes(plan.stages[at].bytes), seconds(plan.stages[at].seconds));
        line(plans[0].stages[at].stage, each(&cell));
    }
    line("in all", each(&|plan| (bytes(plan.peak_bytes), seconds(plan.seconds))));
    if plans.iter().any(|plan| plan.gpu_peak_bytes.is_some()) {
        line("on the GPU", each(&|plan| (bytes(plan.gpu_peak_bytes.unwrap_or_default()), String::new())));
    }
    line("model on disk", each(&|plan| (bytes(plan.disk_bytes), String::new())));
    for at in 0..plans.first().map_or(0, |plan| plan.asked.len()) {
        let Asked { step, money, .. } = plans[0].asked[at];
        line(&format!("{step} asked"), each(&|plan| (count_of(plan.asked[at].tokens), "tokens".into())));
        if money.is_some() {
            let price = |plan: &Forecast| format!("{:.2}", plan.asked[at].money.unwrap_or_default());
            line("", each(&|plan| (price(plan), "money".into())));
        }
    }
    text.push_str(&format!(
        "\nMemory is the most that is held at once, computed from the sizes of what each stage holds; topics are taken\n\
         to be {}. Time is an estimate, from a trial fit of {} rows on this\n\
         machine as busy as it was ({:.1} s).\n",
        match &job.fit.clusterer {
            ClustererConfig::Hdbscan(config) | ClustererConfig::HdbscanCrate(config) =>
                format!("a tenth of what a smallest topic of {} allows", config.min_cluster_size),
            ClustererConfig::Dbscan(config) =>
                format!("a tenth of what min_samples {} allows", config.min_samples),
            ClustererConfig::Kmeans(config) => format!("the {} clusters asked for", config.n_clusters),
        },
        thousands(trial.rows as u64),
        trial.seconds,
    ));
    let searches_cells = map_config(&job.fit).metric == Metric::Cosine;
    if plans
        .iter()
        .any(|plan| searches_cells && plan.fitted > EXACT_ROWS as u64 && plan.gpu_peak_bytes.is_none())
    {
        text.push_str(&format!(
            "Of more than {} rows nearly all nearest rows are found (by 8-bit codes, then measured exactly); the report says\n\
             which share.\n",
            thousands(EXACT_ROWS as u64)
        ));
    }
    if plans.iter().any(|plan| !plan.asked.is_empty()) {
        text.push_str("Tokens are bytes over three, rather too many, if no answer is kept.\n");
    }
    if let Selection::Hash { rows, .. } | Selection::Shuffle { rows, .. } = job.fit.sample
        && plans.iter().any(|plan| plan.rows > plan.fitted)
    {
        let sample = thousands(rows as u64);
        text.push_str(&format!(
            "The sample is {sample} rows (--sample): a larger input is read, but not fitted.\n"
        ));
    }
    text
}

/// A number of things, whole.
fn count_of(number: f64) -> String {
    thousands(number as u64) // as an integer even an infinity is one
}

/// Bytes as people read them: MiB, from 1 GiB on GiB.
pub(super) fn bytes(bytes: f64) -> String {
    let mib = bytes / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

/// Seconds as people read them: from two minutes on minutes, from two hours on hours.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn parse_planned(text: &str) -> std::result::Result<Planned, String> {
    if text.contains("..") {
        return parse_rows(text).map(Planned::Range);
    }
    let number = |text: &str| match text.trim().parse::<u64>() {
        Ok(rows @ 3..) => Ok(rows),
        Ok(rows) => Err(format!("{rows} rows cannot be fitted, expected 3 or more")),
        Err(_) => Err(format!("\"{text}\" is no number of rows, expected N, N,N,... or A..B")),
    };
    text.split(',').map(number).collect::<std::result::Result<_, _>>().map(Planned::Counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbers_or_a_range() {
        assert_eq!(parse_planned("10000, 20"), Ok(Planned::Counts(vec![10_000, 20])));
        assert_eq!(parse_planned("5.."), Ok(Planned::Range(RowRange { start: 5, end: None })));
        assert!(parse_planned("many").unwrap_err().contains("N,N"));
        assert!(parse_planned("2").unwrap_err().contains("3 or more"));
    }

    #[test]
    fn sizes_and_times_are_told_in_the_units_that_people_use() {
        assert_eq!((bytes(5.2e8), bytes(5.4e9)), ("496 MiB".into(), "5.03 GiB".into()));
        assert_eq!((seconds(0.42), seconds(61.0)), ("0.4 s".into(), "61 s".into()));
        assert_eq!((seconds(600.0), seconds(9000.0)), ("10 min".into(), "2.5 h".into()));
    }
}
