//! The program `thema`: parse, resolve, run.

use clap::Parser;
use pipeline::commands::{Cli, run};
use pipeline::{Error, telemetry};
use std::process::ExitCode;

fn main() -> ExitCode {
    bound_heaps();
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
                tracing::info!("nothing half-done is visible; run the same command again");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Bounds what glibc keeps of freed memory. By default each thread has a heap of its own, up to eight a core, and
/// batches that are made on one thread and dropped on another leave holes in all of them: memory then grows with the
/// length of a run. So there are two heaps, and what is as large as a batch goes back to the system at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn bound_heaps() {
    // SAFETY: sets numbers of the allocator, before any other thread is there to use it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn bound_heaps() {}
