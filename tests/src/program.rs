//! The program as a user runs it: the real binary, its exit code and what it prints.
//!
//! The binary is the one that lies beside the test's own (`target/release/thema` for `target/release/deps/all-...`):
//! cargo does not build another package's binary for a test, so whoever runs the tests builds it first.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longest wait for a line or an end: far beyond what any test's run takes on a machine under load.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at a running program's memory.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// The command line.
    pub command: String,
    /// The exit code; none if a signal killed it.
    pub code: Option<i32>,
    /// What it printed as its result.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// The most memory it held, in KiB, as the kernel counts it (`VmHWM`).
    pub peak_kib: u64,
}

/// A run under way.
pub struct Running {
    command: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    lines: Receiver<String>,
    stderr: String,
    peak_kib: u64,
}

/// Runs `thema` with `arguments` to its end.
pub fn thema(arguments: &[&str]) -> Result<Run> {
    start(arguments)?.wait()
}

/// Runs `thema` with `arguments` where `library_path` comes first of the places in which libraries are looked for.
pub fn thema_with_libraries(arguments: &[&str], library_path: &str) -> Result<Run> {
    start_with(arguments, &[("LD_LIBRARY_PATH", library_path)])?.wait()
}

/// The same with a variable of the environment.
pub fn thema_with_libraries_and(
    arguments: &[&str],
    library_path: &str,
    variable: (&str, &str),
) -> Result<Run> {
    start_with(arguments, &[("LD_LIBRARY_PATH", library_path), variable])?.wait()
}

/// Runs `thema` with `arguments` and variables of the environment to its end.
pub fn thema_with(arguments: &[&str], variables: &[(&str, String)]) -> Result<Run> {
    start_with(arguments, variables)?.wait()
}

/// Starts `thema` with `arguments`.
pub fn start(arguments: &[&str]) -> Result<Running> {
    start_with(arguments, &[] as &[(&str, &str)])
}

/// Starts `thema` with `arguments` and variables of the environment.
pub fn start_with(arguments: &[&str], variables: &[(&str, impl AsRef<OsStr>)]) -> Result<Running> {
    let program = program()?;
    let mut child = Command::new(&program)
        .args(arguments)
        // Whoever runs the tests may have set it.
        .env_remove("THEMA_LOG")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        // No test may ask the hub.
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} does not start", program.display()))?;
    let mut output = child.stdout.take().context("the program has no output")?;
    let log = child.stderr.take().context("the program has no log")?;
    let stdout = thread::spawn(move || {
        let mut text = String::new();
        // What is no UTF-8 ends the text, and the test that looks for the rest fails.
        let _ = output.read_to_string(&mut text);
        text
    });
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let command = format!("thema {}", arguments.join(" "));
    Ok(Running { command, child, stdout: Some(stdout), lines, stderr: String::new(), peak_kib: 0 })
}

/// The program's path.
fn program() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(|deps| deps.parent()).context("the test lies in no target folder")?;
    let program = folder.join("thema");
    ensure!(
        program.is_file(),
        "there is no {}: build it first, by `cargo build --release --bin thema` (`make test` does)",
        program.display()
    );
    Ok(program)
}

impl Running {
    /// Waits until a line of the log contains `words`, and returns it.
    pub fn wait_for(&mut self, words: &str) -> Result<String> {
        let started = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    let found = line.contains(words);
                    self.note(&line);
                    if found {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{}: no {words:?} yet in\n{}", self.command, self.stderr)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{}: ended without {words:?} in\n{}", self.command, self.stderr)
                }
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) -> Result<()> {
        self.signal("INT")
    }

    /// Sends the signal of this name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status()?;
        ensure!(sent.success(), "{} is gone already", self.command);
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it at once, as a power cut does, and returns what it had logged.
    pub fn kill(mut self) -> Result<String> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.log().to_string())
    }

    /// What it has logged so far.
    pub fn log(&mut self) -> &str {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
        }
        &self.stderr
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<Run> {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end, so long at most.
    pub fn wait_within(mut self, patience: Duration) -> Result<Run> {
        let started = Instant::now();
        let status = loop {
            // A high-water mark misses nothing between two looks, only what comes after the last.
            self.peak_kib = self.peak_kib.max(peak_kib(self.child.id()).unwrap_or(0));
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if started.elapsed() > patience {
                self.child.kill()?;
                bail!("{}: still runs after {patience:?}, and has logged\n{}", self.command, self.stderr);
            }
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => {}
                // The log is closed: only the end is left to wait for.
                Err(RecvTimeoutError::Disconnected) => thread::yield_now(),
            }
        };
        while let Ok(line) = self.lines.recv() {
            self.note(&line);
        }
        let stdout = self.stdout.take().and_then(|reading| reading.join().ok());
        let Some(stdout) = stdout else { bail!("{}: its output could not be read", self.command) };
        Ok(Run {
            command: std::mem::take(&mut self.command),
            code: status.code(),
            stdout,
            stderr: std::mem::take(&mut self.stderr),
            peak_kib: self.peak_kib,
        })
    }

    fn note(&mut self, line: &str) {
        self.stderr.push_str(line);
        self.stderr.push('\n');
    }
}

impl Drop for Running {
    /// Leaves no process behind where a test fails; one that has ended is gone already.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// Checks that it succeeded.
    pub fn succeeds(self) -> Result<Self> {
        ensure!(self.code == Some(0), "{} ends with {:?}:\n{}", self.command, self.code, self.stderr);
        self.no_panic()?;
        Ok(self)
    }

    /// Checks that it failed as it should: with `code`, one error that has all of `words`, no result, no panic.
    pub fn fails(self, code: i32, words: &[&str]) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "{} ends with {:?}, not {code}:\n{}",
            self.command,
            self.code,
            self.stderr
        );
        self.no_panic()?;
        let errors = self.errors();
        ensure!(errors.len() == 1, "{} logs {} errors:\n{}", self.command, errors.len(), self.stderr);
        for word in words {
            ensure!(errors[0].contains(word), "{}: no {word:?} in the error\n{}", self.command, errors[0]);
        }
        ensure!(self.stdout.is_empty(), "{} fails, but prints {}", self.command, self.stdout);
        Ok(self)
    }

    /// The errors it logged, each with the lines that belong to it.
    fn errors(&self) -> Vec<String> {
        let mut errors: Vec<String> = Vec::new();
        let mut within = false;
        for line in self.stderr.lines() {
            let level = line.split_whitespace().nth(1);
            if matches!(level, Some("ERROR" | "WARN" | "INFO")) {
                within = level == Some("ERROR");
                if within {
                    errors.push(String::new());
                }
            }
            // The command line's own errors have no level.
            if line.starts_with("error: ") {
                within = true;
                errors.push(String::new());
            }
            if let (true, Some(error)) = (within, errors.last_mut()) {
                error.push_str(line);
                error.push('\n');
            }
        }
        errors
    }

    fn no_panic(&self) -> Result<()> {
        for trace in ["panicked", "RUST_BACKTRACE", "internal error"] {
            ensure!(!self.stderr.contains(trace), "{}: {trace:?} in\n{}", self.command, self.stderr);
        }
        Ok(())
    }
}

/// The high-water mark of a process' memory; nothing once it has ended.
fn peak_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
