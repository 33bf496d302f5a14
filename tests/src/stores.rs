//! Object stores that others wrote: moto, which speaks as S3 does, and Azurite, Azure's own for tests, as
//! `tests/servers/moto.sh` and `tests/servers/azurite.sh` install them. Both hold what they have in memory.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use crate::http;

/// Longest wait for one to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The only bucket, or container.
const BUCKET: &str = "lake";

/// What Azurite calls the account of development, known to everybody.
const AZURE: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// A store that runs until it is dropped.
pub struct Store {
    process: Child,
    scheme: &'static str,
    variables: Vec<(&'static str, String)>,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl Store {
    /// Starts moto.
    pub fn moto() -> Result<Self> {
        let program = crate::cache()?.join("servers/moto/bin/moto_server");
        ensure!(program.is_file(), "there is no moto: run tests/servers/moto.sh");
        let port = free_port()?;
        let process = start(Command::new(program).args(["-H", "127.0.0.1", "-p", &port.to_string()]))?;
        let url = format!("http://127.0.0.1:{port}");
        let variables = vec![
            ("AWS_ENDPOINT", url.clone()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "anybody".into()),
            ("AWS_SECRET_ACCESS_KEY", "is let in".into()),
        ];
        let store = AmazonS3Builder::new()
            .with_endpoint(&url)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id("anybody")
            .with_secret_access_key("is let in")
            .with_bucket_name(BUCKET)
            .build()?;
        let runtime = runtime()?;
        let moto = Self { process, scheme: "s3", variables, store: Arc::new(store), runtime };
        let place = format!("127.0.0.1:{port}");
        moto.wait(|| http::put(&place, &format!("/{BUCKET}"), "").is_ok_and(|(status, _)| status == 200))?;
        Ok(moto)
    }

    /// Starts Azurite.
    pub fn azurite() -> Result<Self> {
        let place = crate::cache()?.join("servers/azurite");
        ensure!(place.is_dir(), "there is no Azurite: run tests/servers/azurite.sh");
        let port = free_port()?;
        let program = place.join("node_modules/azurite/dist/src/blob/main.js");
        let port_said = port.to_string();
        let process = start(
            Command::new("node")
                .arg(program)
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port_said])
                .args(["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]),
        )?;
        let (url, (account, key)) = (format!("http://127.0.0.1:{port}"), AZURE);
        let endpoint = format!("{url}/{account}");
        let variables = vec![
            ("AZURE_STORAGE_ENDPOINT", endpoint.clone()),
            ("AZURE_ALLOW_HTTP", "true".into()),
            ("AZURE_STORAGE_ACCOUNT_NAME", account.into()),
            ("AZURE_STORAGE_ACCOUNT_KEY", key.into()),
        ];
        let store = MicrosoftAzureBuilder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_account(account)
            .with_access_key(key)
            .with_container_name(BUCKET)
            .build()?;
        let runtime = runtime()?;
        let azurite = Self { process, scheme: "az", variables, store: Arc::new(store), runtime };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/azurite/container.py");
        let made = || {
            let python = Command::new("python3").args([script, &url, BUCKET]).stderr(Stdio::null()).status();
            python.is_ok_and(|status| status.success())
        };
        azurite.wait(made)?;
        Ok(azurite)
    }

    /// The address of a key, as an argument.
    pub fn url(&self, key: &str) -> String {
        format!("{}://{BUCKET}/{key}", self.scheme)
    }

    /// The variables by which a program finds it and comes in.
    pub fn variables(&self) -> &[(&'static str, String)] {
        &self.variables
    }

    /// Puts the files of a folder, and of those in it, below a key.
    pub fn put(&self, folder: &Path, key: &str) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let below = format!("{key}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.put(&entry.path(), &below)?;
            } else {
                let bytes = fs::read(entry.path())?;
                self.runtime.block_on(self.store.put(&Key::from(below), bytes.into()))?;
            }
        }
        Ok(())
    }

    /// Copies what is below a key into a folder.
    pub fn get(&self, key: &str, folder: &Path) -> Result<()> {
        let prefix = Key::from(key);
        let found: Vec<_> = self.runtime.block_on(self.store.list(Some(&prefix)).try_collect())?;
        ensure!(!found.is_empty(), "there is nothing below {key}");
        for meta in found {
            let relative = meta.location.as_ref().strip_prefix(key).context("a key below the prefix")?;
            let place = folder.join(relative.trim_start_matches('/'));
            fs::create_dir_all(place.parent().context("a file is in a folder")?)?;
            let bytes =
                self.runtime.block_on(async { self.store.get(&meta.location).await?.bytes().await })?;
            fs::write(place, bytes)?;
        }
        Ok(())
    }

    fn wait(&self, answers: impl Fn() -> bool) -> Result<()> {
        let started = Instant::now();
        while !answers() {
            ensure!(started.elapsed() < PATIENCE, "the store does not answer");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn start(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("{:?} does not start", command.get_program()))
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}
