//! The command line: one file a subcommand, and what they share.

mod check;
mod classify;
mod columns;
mod draw;
mod embed;
mod encoders;
mod eval;
mod fit;
mod fit_settings;
mod given;
mod input;
mod label;
mod llm;
mod merge;
mod names;
mod output;
mod plan;
mod rows;
mod similarity;
mod stream;
mod taxonomy;
mod topics;
mod versions;
mod words_settings;

use crate::progress::Progress;
use crate::report::count;
use crate::telemetry::LogFormat;
use crate::{Error, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kernels::Device;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Signals within so short a time are one.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// How long workers that nobody waits for may go on at the end.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Finds the topics in a stream of texts, names them, and labels every text.
#[derive(Debug, Parser)]
#[command(name = "thema", version, about, max_term_width = 110)]
pub struct Cli {
    /// What every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where kernels run: cpu; cuda for all GPUs, cuda:0 for one, cuda:0,2 for some; auto for GPUs if there are any
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads that compute [default: one a core]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Log lines on standard error and the summary on standard output: text for people, json for machines
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log: LogFormat,
}

/// What thema can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find topics in a sample of texts, and write a model with a report
    Fit(Box<fit::FitArgs>),
    /// Give each row the topic of its nearest fitted rows
    Label(Box<label::LabelArgs>),
    /// Label the messages of a Kafka topic as they come, exactly once
    Stream(Box<stream::StreamArgs>),
    /// Turn texts into vectors
    Embed(Box<embed::EmbedArgs>),
    /// Show a model's topics and tables of them, or change them
    Topics(Box<topics::TopicsArgs>),
    /// Merge models into one
    Merge(merge::MergeArgs),
    /// Show a model's topics under classes and sub-classes
    Taxonomy(Box<taxonomy::TaxonomyArgs>),
    /// Put rows into given topics
    Classify(Box<classify::ClassifyArgs>),
    /// Show how similar texts are to each other
    Similarity(Box<similarity::SimilarityArgs>),
    /// Say how good a model's topics are, or audit what quantized embeddings would do to a job's
    Eval(Box<eval::EvalArgs>),
    /// Say what memory and time a fit will take, or labelling (plan label), before it runs
    Plan(Box<plan::PlanArgs>),
    /// Check a job file, its source and its encoder without running it
    Check(check::CheckArgs),
    /// List the encoders on this machine, or describe one
    Encoders(encoders::EncodersArgs),
}

/// What a command runs with.
pub(crate) struct Context {
    pub(crate) device: Device,
    pub(crate) progress: Arc<Progress>,
    log: LogFormat,
}

/// How a command shows what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One object
    Json,
}

impl Context {
    /// Shows on standard output what a command was asked for: as `format` says, or, where logs are JSON, as one line of
    /// it.
    fn show(&self, format: Format, table: impl FnOnce() -> String, facts: &serde_json::Value) -> Result<()> {
        match (format, self.log) {
            (Format::Table, LogFormat::Text) => print(&table()),
            (Format::Json, LogFormat::Text) => print(&format!("{facts:#}\n")),
            (_, LogFormat::Json) => print(&format!("{facts}\n")),
        }
    }

    /// Tells on standard output what a command has done: `text` for people, `facts` as one line for machines.
    fn tell(&self, text: &str, facts: &serde_json::Value) -> Result<()> {
        match self.log {
            LogFormat::Text => print(text),
            LogFormat::Json => print(&format!("{facts}\n")),
        }
    }
}

/// Runs a command to its end, or until Ctrl-C.
pub fn run(cli: Cli) -> Result<()> {
    let Global { device, threads, log } = &cli.global;
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = threads {
        if *threads == 0 {
            return Err(Error::setting("--threads", "0 threads cannot compute, expected at least 1"));
        }
        pool = pool.num_threads(*threads);
    }
    pool.build_global().map_err(|e| Error::Internal(format!("thread pool: {e}")))?;
    let mut left_out = Vec::new();
    let opened = Device::open_telling(device, |gpu| left_out.push(gpu)).map_err(operators::Error::from)?;
    let computes = match &cli.command {
        Command::Topics(args) => args.computes(),
        Command::Eval(args) => args.computes(),
        Command::Taxonomy(args) => args.computes(),
        Command::Check(_) | Command::Encoders(_) => false,
        _ => true,
    };
    for reason in left_out.iter().filter(|_| computes) {
        match opened {
            Device::Cpu(_) => tracing::info!("device {opened}: {reason}"),
            Device::Cuda(_) => tracing::warn!("{reason}"),
        }
    }
    let context =
        Context { device: opened, progress: Arc::new(Progress::new(*log == LogFormat::Json)), log: *log };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::Internal(format!("async runtime: {e}")))?;
    let done = runtime.block_on(async {
        let progress = Arc::clone(&context.progress);
        tokio::spawn(async move {
            let mut asked: Option<Instant> = None;
            // Without a handler the program just dies, which is safe too.
            while asked_to_stop().await.is_ok() {
                match asked {
                    None => {
                        tracing::warn!("stopping; press Ctrl-C again to stop at once");
                        progress.cancel();
                        asked = Some(Instant::now());
                    }
                    // A signal to a process and its group comes twice.
                    Some(at) if at.elapsed() < SAME_SIGNAL => {}
                    Some(_) => std::process::exit(130),
                }
            }
        });
        match cli.command {
            Command::Fit(args) => fit::run(&context, *args).await,
            Command::Label(args) => label::run(&context, *args).await,
            Command::Stream(args) => stream::run(&context, *args).await,
            Command::Embed(args) => embed::run(&context, *args).await,
            Command::Topics(args) => topics::run(&context, *args).await,
            Command::Merge(args) => merge::run(&context, args).await,
            Command::Taxonomy(args) => taxonomy::run(&context, *args).await,
            Command::Classify(args) => classify::run(&context, *args).await,
            Command::Similarity(args) => similarity::run(&context, *args).await,
            Command::Eval(args) => eval::run(&context, *args).await,
            Command::Plan(args) => plan::run(&context, *args).await,
            Command::Check(args) => check::run(&context, args).await,
            Command::Encoders(args) => encoders::run(&context, args).await,
        }
    });
    // What nobody waits for any more, such as a connection that is tried, must not keep the program.
    runtime.shutdown_timeout(LEFT_BEHIND);
    done
}

/// Waits for Ctrl-C, or for the signal by which a cluster ends a program.
async fn asked_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Prints a line of a command's result on standard output; a closed pipe (`| head`) ends the program quietly.
pub(crate) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Error::place("standard output", e.to_string())),
    }
}
