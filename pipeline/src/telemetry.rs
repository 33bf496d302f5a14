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

/// Starts logging. `THEMA_LOG` chooses what is logged (`info` by default, as in `THEMA_LOG=thema=debug`).
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("THEMA_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,pipeline=info,operators=info,thema=info"));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (in tests) changes nothing.
    let _ = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text if std::io::stderr().is_terminal() => lines.without_time().try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
}
