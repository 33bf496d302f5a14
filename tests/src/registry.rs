//! A real schema registry: Apicurio, as `tests/servers/registry.sh` installs it, in memory.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;

/// Longest wait for it to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// The part of its address that speaks as Confluent's registry does.
const API: &str = "/apis/ccompat/v7";

/// A registry that runs until it is dropped.
pub struct Registry {
    process: Child,
    place: String,
    _folder: TempDir,
}

impl Registry {
    /// Starts one on a free port of the loopback address.
    pub fn start() -> Result<Self> {
        let installed = crate::cache()?.join("servers/registry");
        ensure!(installed.is_dir(), "there is no registry: run tests/servers/registry.sh");
        let runner = fs::read_dir(&installed)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().ends_with("-runner.jar"))
            .with_context(|| format!("{} has no runner", installed.display()))?;
        let place = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let folder = TempDir::new()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let (_, port) = place.split_once(':').context("a port")?;
        let process = Command::new("java")
            .args([
                "-Xmx384m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dquarkus.http.host=127.0.0.1",
            ])
            .arg(format!("-Dquarkus.http.port={port}"))
            .arg("-jar")
            .arg(runner)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("java does not start")?;
        let registry = Self { process, place, _folder: folder };
        let started = Instant::now();
        // Until it listens there is no answer at all.
        while !http::get(&registry.place, &format!("{API}/subjects")).is_ok_and(|(status, _)| status == 200) {
            ensure!(started.elapsed() < PATIENCE, "the registry does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(registry)
    }

    /// Its address, as a job names it.
    pub fn url(&self) -> String {
        format!("http://{}{API}", self.place)
    }

    /// Stops it where it stands, or lets it go on: for clients it is a network that is gone for a while.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let name = if frozen { "STOP" } else { "CONT" };
        let sent =
            Command::new("sh").args(["-c", &format!("kill -{name} {}", self.process.id())]).status()?;
        ensure!(sent.success(), "the registry is gone");
        Ok(())
    }

    /// Adds a schema, and returns its id.
    pub fn register(&self, subject: &str, schema: &Value) -> Result<u32> {
        let body = json!({ "schema": schema.to_string() }).to_string();
        let (status, answer) = http::post(&self.place, &format!("{API}/subjects/{subject}/versions"), &body)?;
        ensure!(status == 200, "the registry answers {status}: {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(u32::try_from(answer["id"].as_u64().context("no id")?)?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that is gone is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
