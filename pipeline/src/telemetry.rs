//! Log lines on standard error: for people by default, one JSON object a line for machines.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged unless `THEMA_LOG` says otherwise. What the Kafka client has to say of its end, `pipeline` says better.
const DEFAULT: &str = "warn,rdkafka=off,delta_kernel=off,delta_kernel_default_engine=off,pipeline=info,operators=info,kernels=info,thema=info";

/// Starts logging. `THEMA_LOG` chooses what is logged, as in `THEMA_LOG=pipeline=debug`; errors of the program itself
/// always are.
pub fn start(format: LogFormat) {
    let wanted = std::env::var("THEMA_LOG").ok().filter(|wanted| !wanted.is_empty());
    let parsed = wanted.as_ref().map(|wanted| EnvFilter::try_new(format!("{wanted},thema=error")));
    let (filter, wrong) = match parsed {
        None => (EnvFilter::new(DEFAULT), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(why)) => (EnvFilter::new(DEFAULT), Some(why)),
    };
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (in tests) changes nothing.
    let _ = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text if std::io::stderr().is_terminal() => lines.without_time().try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
    if let Some(why) = wrong {
        tracing::warn!("THEMA_LOG is no filter: {why}");
    }
}
