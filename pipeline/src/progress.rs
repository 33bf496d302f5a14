//! Progress: a bar on a terminal, a log line every few seconds otherwise; and the flag that Ctrl-C sets.

use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use operators::fit::Observer;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Time between log lines where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Shows what a run is doing and how long it will take; shared by the threads that do it.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    stage: Mutex<Option<Stage>>,
    done: AtomicU64,
    cancelled: AtomicBool,
    /// Wakes those that wait for a cancellation.
    waiting: Notify,
}

#[derive(Debug)]
struct Stage {
    name: String,
    unit: &'static str,
    total: Option<u64>,
    started: Instant,
    logged: Instant,
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    /// Draws on standard error if that is a terminal, and logs otherwise (or if `logged`).
    pub fn new(logged: bool) -> Self {
        Self {
            terminal: !logged && std::io::stderr().is_terminal(),
            stage: Mutex::new(None),
            done: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            waiting: Notify::new(),
        }
    }

    /// Begins a stage of `total` units, 0 where its steps are not counted, nothing where their number is not known; the
    /// one before is finished.
    pub fn begin(&self, name: &str, unit: &'static str, total: Option<u64>) {
        self.finish();
        let bar = if self.terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if self.terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            let template = match total {
                Some(0) => "{prefix:>20} {spinner} {elapsed}",
                Some(_) => "{prefix:>20} {bar:30} {human_pos}/{human_len} {msg} {eta} left",
                None => "{prefix:>20} {spinner} {human_pos} {msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_prefix(name.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        self.done.store(0, Ordering::Relaxed);
        let now = Instant::now();
        let stage =
            Stage { name: name.into(), unit, total, started: now, logged: now, bar, quiet: total == Some(0) };
        *lock(&self.stage) = Some(stage);
    }

    /// Says how many units of the stage are done, with a note such as a second rate.
    pub fn set(&self, done: u64, note: &str) {
        self.done.store(done, Ordering::Relaxed);
        let mut stage = lock(&self.stage);
        let Some(stage) = stage.as_mut() else { return };
        let rate = done as f64 / stage.started.elapsed().as_secs_f64().max(1e-9);
        stage.bar.set_position(done);
        stage.bar.set_message(if stage.unit.is_empty() {
            String::new()
        } else {
            format!("{rate:.0} {}/s{note}", stage.unit)
        });
        if self.terminal || stage.logged.elapsed() < LOG_EVERY {
            return;
        }
        stage.logged = Instant::now();
        if stage.quiet {
            tracing::info!("{}: {:.0} s so far", stage.name, stage.started.elapsed().as_secs_f64());
            return;
        }
        let of = stage.total.map(|t| format!(" of {t}")).unwrap_or_default();
        let left = stage.total.filter(|_| rate > 0.0).map(|t| t.saturating_sub(done) as f64 / rate);
        let left = left.map(|seconds| format!(", {seconds:.0} s left")).unwrap_or_default();
        let unit =
            if stage.unit.is_empty() { String::new() } else { format!(" {}, {rate:.0}/s", stage.unit) };
        tracing::info!("{}: {done}{of}{unit}{note}{left}", stage.name);
    }

    /// Ends the stage and logs what it took.
    pub fn finish(&self) {
        let Some(stage) = lock(&self.stage).take() else { return };
        stage.bar.finish_and_clear();
        let done = self.done.load(Ordering::Relaxed);
        let seconds = stage.started.elapsed().as_secs_f64();
        if stage.quiet && seconds < 1.0 {
            tracing::debug!("{}: {seconds:.1} s", stage.name);
            return;
        }
        if stage.unit.is_empty() {
            tracing::info!("{}: {seconds:.1} s", stage.name);
        } else {
            let rate = done as f64 / seconds.max(1e-9);
            tracing::info!("{}: {done} {} in {seconds:.1} s ({rate:.0}/s)", stage.name, stage.unit);
        }
    }

    /// Asks the run to stop at the next good place.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.waiting.notify_waiters();
    }

    /// Waits for `work`; fails as soon as the run is asked to stop.
    pub async fn until_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        // Listens before it looks, so that no cancellation comes between.
        let asked = self.waiting.notified();
        self.check()?;
        tokio::select! {
            done = work => Ok(done),
            () = asked => Err(Error::Cancelled),
        }
    }

    /// Fails if the run is asked to stop: for the gaps between what asks itself.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Whether the run is asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

impl Observer for Progress {
    fn begin(&self, stage: &'static str, total: u64) {
        Self::begin(self, stage, "", Some(total));
    }

    fn advance(&self, done: u64) -> ControlFlow<()> {
        self.set(done, "");
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Locks `mutex`; a panic elsewhere leaves nothing half-done in it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
