//! A real S3 server in this process: s3s-fs, over HTTP, on a folder of this machine; and a way before it on which things
//! go wrong as they do with real ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::StreamExt;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Who may come in.
const KEY: &str = "thema-tests";

/// And their word.
const SECRET: &str = "never-to-be-printed";

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503, "slow down": nothing is done.
    Busy,
    /// It is done, but the connection breaks in the middle of the answer.
    Cut,
    /// It is done, but its answer is lost: one comes that it failed (500).
    Lost,
}

/// A request, as rules of faults see it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// GET, PUT and so on.
    pub method: Method,
    /// The bucket and the key.
    pub path: String,
    /// What stands behind `?`.
    pub query: String,
    /// How many requests with this method there were before.
    pub nth: u64,
}

/// Says how a request goes wrong, if it does.
type Rule = Box<dyn Fn(&Asked) -> Option<Fault> + Send>;

/// The server, until it is dropped.
pub struct S3 {
    folder: TempDir,
    url: String,
    log: Arc<Mutex<Log>>,
    _runtime: Runtime,
}

struct Log {
    rule: Rule,
    asked: BTreeMap<String, u64>,
    faults: u64,
    bytes: u64,
}

#[derive(Clone)]
struct App {
    service: S3Service,
    log: Arc<Mutex<Log>>,
}

impl S3 {
    /// Starts it on a free port, with `buckets`.
    pub fn start(buckets: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        for bucket in buckets {
            fs::create_dir(folder.path().join(bucket))?;
        }
        let files = FileSystem::new(folder.path()).map_err(|error| anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let log = Log { rule: Box::new(|_| None), asked: BTreeMap::new(), faults: 0, bytes: 0 };
        let app = App { service: service.build(), log: Arc::new(Mutex::new(log)) };
        let log = Arc::clone(&app.log);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr().context("the server has no address")?);
        let router = Router::new().fallback(answer).with_state(app);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { folder, url, log, _runtime: runtime })
    }

    /// The variables by which a program finds it and comes in.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.url.clone()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
    }

    /// What must stand in nothing that is printed.
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// Where an object lies on this machine: `bucket/key`.
    pub fn path(&self, object: &str) -> PathBuf {
        self.folder.path().join(object)
    }

    /// Puts a file of this machine there as an object, `bucket/key`.
    pub fn put(&self, file: &str, object: &str) -> Result<()> {
        let place = self.path(object);
        fs::create_dir_all(place.parent().context("an object is in a bucket")?)?;
        fs::copy(file, place)?;
        self.tag(object)
    }

    /// Gives an object that was written to its place on this machine a tag, as an upload would; the server reads one that
    /// has none whole at each request, to compute it.
    pub fn tag(&self, object: &str) -> Result<()> {
        let (bucket, key) = object.split_once('/').context("an object is in a bucket")?;
        let facts = fs::metadata(self.path(object))?;
        let tag =
            format!("{}-{:?}", facts.len(), facts.modified()?).replace(|c: char| !c.is_alphanumeric(), "");
        let [bucket, key] = [bucket, key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
        let place = self.folder.path().join(format!(".bucket-{bucket}.object-{key}.internal.json"));
        fs::write(place, format!("{{\"e_tag\": \"{tag}\"}}"))?;
        Ok(())
    }

    /// Lets requests go wrong by a rule, from now on, and begins to count anew.
    pub fn fail(&self, rule: impl Fn(&Asked) -> Option<Fault> + Send + 'static) {
        *lock(&self.log) = Log { rule: Box::new(rule), asked: BTreeMap::new(), faults: 0, bytes: 0 };
    }

    /// How many requests went wrong.
    pub fn faults(&self) -> u64 {
        lock(&self.log).faults
    }

    /// How many bytes the bodies of its answers had.
    pub fn bytes(&self) -> u64 {
        lock(&self.log).bytes
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first `length` bytes of an answer: of a range s3s-fs reads the file on to its end, and sends nothing more.
async fn first(body: Body, length: usize) -> Result<Bytes, axum::Error> {
    let (mut bytes, mut parts) = (Vec::new(), body.into_data_stream());
    while bytes.len() < length
        && let Some(part) = parts.next().await
    {
        bytes.extend_from_slice(&part?);
    }
    Ok(bytes.into())
}

/// Answers a request, well or not.
async fn answer(State(app): State<App>, request: Request) -> Response {
    let fault = {
        let mut log = lock(&app.log);
        let method = request.method().clone();
        let nth = log.asked.entry(method.to_string()).or_default();
        *nth += 1;
        let (path, query) =
            (request.uri().path().to_string(), request.uri().query().unwrap_or_default().into());
        let asked = Asked { method, path, query, nth: *nth - 1 };
        let fault = (log.rule)(&asked);
        log.faults += u64::from(fault.is_some());
        fault
    };
    if fault == Some(Fault::Busy) {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let done = app.service.call(request.map(s3s::Body::http_body_unsync)).await;
    let Ok(done) = done else { return failed(StatusCode::INTERNAL_SERVER_ERROR, "InternalError") };
    if fault == Some(Fault::Lost) {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let (head, body) = done.into_parts();
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let Ok(bytes) = first(Body::new(body), length.unwrap_or(usize::MAX)).await else {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    };
    let body = match fault {
        Some(_) => cut(bytes),
        None => {
            lock(&app.log).bytes += bytes.len() as u64;
            Body::from(bytes)
        }
    };
    Response::from_parts(head, body)
}

/// Half of an answer; then the connection breaks.
fn cut(mut bytes: Bytes) -> Body {
    bytes.truncate(bytes.len() / 2);
    let parts = [Ok(bytes), Err(std::io::Error::other("cut"))];
    Body::from_stream(futures::stream::iter(parts))
}

fn failed(status: StatusCode, code: &str) -> Response {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}
