//! The program `thema`: parse, resolve, run.

use clap::Parser;
use pipeline::commands::{Cli, run};
use pipeline::telemetry;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.global.log);
    // A decoder that panics on corrupt bytes is caught and told as bad data; its trace would only frighten.
    std::panic::set_hook(Box::new(|panic| tracing::debug!("{panic}")));
    match run(cli) {
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
