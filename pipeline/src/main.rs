//! The program `thema`: parse, resolve, run.

use clap::Parser;
use pipeline::commands::{Cli, run};
use pipeline::{Error, telemetry};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.global.log);
    // A decoder that panics on corrupt bytes is caught and told as bad data, where its trace would only frighten;
    // any other panic is told below.
    std::panic::set_hook(Box::new(|panic| tracing::debug!("{panic}")));
    let result = std::panic::catch_unwind(|| run(cli));
    match result.unwrap_or_else(|_| Err(Error::Internal("a bug; set THEMA_LOG=debug to see where".into()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            if error.is_cancelled() {
                tracing::info!("nothing half-done is visible; run the same command again to start over");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
