//! A client of OpenAI-compatible endpoints, for language models and for embeddings.
//!
//! One idea: an answer is looked up by what was asked before anything is sent, and kept as soon as it can be used. So a
//! second run makes no call, and a run that was killed pays for no answer twice. All that is sent goes through
//! `Endpoint::post`, which knows five things:
//!
//! | what | file |
//! |---|---|
//! | answers kept by what was asked, and vectors by their texts | `cache.rs`, `packs.rs` |
//! | when the endpoint wants to be asked next | `limits.rs` |
//! | what may be spent, in tokens and in money | `budget.rs` |
//! | the key, which nothing prints | `secret.rs` |
//! | what an answer means that is none | `failure.rs` |
//!
//! [`chat`] asks a language model for an object of a schema, [`embeddings`] for vectors.
//!
//! Source: OpenAI's API reference (chat completions, embeddings, rate limits), which vLLM, TEI, Ollama, llama.cpp and
//! others follow.

mod budget;
mod cache;
pub mod chat;
pub mod embeddings;
mod failure;
mod limits;
mod packs;
pub mod secret;

pub use budget::{Budget, Usage};
pub use chat::Chat;
pub use failure::Failure;

use crate::{Error, Result};
use budget::Purse;
use cache::Cache;
use failure::Trouble;
use limits::Pace;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The first wait before a request is sent again; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The largest answer that is read: a request's 2,048 vectors of 4,096 numbers as decimals are some 100 MB.
const MOST_BYTES: usize = 256 << 20;

/// Of an error's body so much is read.
const MOST_ERROR_BYTES: usize = 64 << 10;

/// More requests than this at a time are none that an endpoint serves.
const MOST_CONCURRENCY: usize = 1024;

/// An endpoint as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// The API's base, which `chat/completions` and `embeddings` follow: `http://localhost:8000/v1`, or `${VARIABLE}` of
    /// the environment.
    pub url: String,
    /// Where the key is: `${VARIABLE}` of the environment, or `file:PATH`. Absent: none is sent. Never the key itself,
    /// which would be kept in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Requests under way at a time. 8: what small servers batch.
    pub concurrency: usize,
    /// Seconds until a request is given up. 120: a long answer of a large model takes a minute.
    pub timeout_seconds: u64,
    /// How often a request is sent again after a failure that may pass, with waits that double. 5: a quarter of a
    /// minute.
    pub retries: u32,
    /// The longest wait, in seconds, that the endpoint may ask for before the next try; one that asks for more has
    /// failed. 60: the span of most rate limits.
    pub max_wait_seconds: u64,
    /// The folder of kept answers. Absent: `answers` in thema's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// What one run may spend.
    pub budget: Budget,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            key: None,
            concurrency: 8,
            timeout_seconds: 120,
            retries: 5,
            max_wait_seconds: 60,
            cache: None,
            budget: Budget::default(),
        }
    }
}

/// A path as it is from the file system's root.
pub(crate) fn whole(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io(path, e))
}

impl EndpointConfig {
    /// Makes paths whole, so that they lead to the same files wherever the settings are used next.
    ///
    /// # Errors
    /// What the system says where there is no current folder.
    pub fn make_paths_whole(&mut self) -> Result<()> {
        if let Some(cache) = &mut self.cache {
            *cache = whole(cache)?;
        }
        if let Some(file) = self.key.as_deref().and_then(|key| key.strip_prefix("file:")) {
            self.key = Some(format!("file:{}", whole(Path::new(file))?.display()));
        }
        Ok(())
    }

    /// Checks every setting that no network is needed for; `name` is what the job file calls the endpoint.
    pub fn check(&self, name: &str) -> Result<()> {
        let wrong = |key: &str, reason: &str| Err(Error::setting(format!("{name}.{key}"), reason));
        if self.url.is_empty() {
            return wrong("url", "is not given, expected the API's base, such as http://localhost:8000/v1");
        }
        if !(1..=MOST_CONCURRENCY).contains(&self.concurrency) {
            return wrong("concurrency", "expected 1 to 1024 requests at a time");
        }
        if self.timeout_seconds == 0 {
            return wrong("timeout_seconds", "0 seconds are too few for any answer, expected 1 or more");
        }
        self.key.as_deref().map_or(Ok(()), |key| Secret::check(&format!("{name}.key"), key))?;
        self.budget.check(&format!("{name}.budget"))
    }
}

/// A connection to an endpoint.
pub struct Endpoint {
    /// The base without a slash at its end.
    url: String,
    key: Option<Secret>,
    http: reqwest::Client,
    retries: u32,
    max_wait: Duration,
    concurrency: usize,
    /// One until the first answer: if the first request finds nobody or a key that is wrong, so would all others.
    slots: Semaphore,
    has_answered: AtomicBool,
    pace: Pace,
    cache: Cache,
    purse: Purse,
    /// Why nothing is asked any more: what every other request would meet, too.
    ended: Mutex<Option<Failure>>,
}

/// What is sent to an endpoint.
struct Request<'a> {
    /// What follows the base.
    path: &'static str,
    body: &'a Value,
    /// Tokens that the question has, and that the answer may have, as far as one can tell before.
    estimate: (u64, u64),
    /// Whether an object is an answer at all; says what is missing.
    is_answer: fn(&Value) -> std::result::Result<(), &'static str>,
}

impl Endpoint {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// `Setting` for a URL that is none, a variable that is not set, a key that cannot be read.
    pub fn open(name: &str, config: &EndpointConfig) -> Result<Self> {
        config.check(name)?;
        let url = secret::expanded(&format!("{name}.url"), &config.url)?;
        let url = url.trim().trim_end_matches('/').to_string();
        // What a variable holds is not shown: it may be a key that was put there.
        let wrong = |reason: &str| Error::setting(format!("{name}.url"), format!("{}: {reason}", config.url));
        let parsed = reqwest::Url::parse(&url).ok();
        if parsed.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
            let reason = "holds a user or a password: name the place of a key instead";
            return Err(Error::setting(format!("{name}.url"), reason));
        }
        match parsed {
            None => {
                return Err(wrong("is no URL, expected the API's base, such as http://localhost:8000/v1"));
            }
            Some(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
                return Err(wrong("is not served by http or https"));
            }
            Some(parsed) if parsed.query().is_some() || parsed.fragment().is_some() => {
                let reason = "holds more than a place (\"?\" or \"#\"), expected the API's base alone";
                return Err(Error::setting(format!("{name}.url"), reason));
            }
            Some(_) => {}
        }
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(config.timeout_seconds))
            .connect_timeout(Duration::from_secs(config.timeout_seconds.min(10)))
            .user_agent(concat!("thema/", env!("CARGO_PKG_VERSION")))
            // An answer from elsewhere is none, and the key is for this place alone.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Error::Internal(format!("HTTP client: {e}")))?;
        Ok(Self {
            key: config.key.as_deref().map(|key| Secret::read(&format!("{name}.key"), key)).transpose()?,
            url,
            http,
            retries: config.retries,
            max_wait: Duration::from_secs(config.max_wait_seconds),
            concurrency: config.concurrency,
            slots: Semaphore::new(1),
            has_answered: AtomicBool::new(false),
            pace: Pace::default(),
            cache: Cache::open(config.cache.clone()),
            purse: Purse::new(config.budget.clone()),
            ended: Mutex::default(),
        })
    }

    /// Requests under way at a time.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// What was asked, answered and spent so far.
    pub fn usage(&self) -> Usage {
        self.purse.usage()
    }

    /// The folder for answers at `path` to whatever `asked` describes.
    fn kept_under(&self, path: &str, asked: &Value) -> PathBuf {
        self.cache.folder().join(path).join(self.cache.key(&self.url, path, asked))
    }

    /// Counts an answer that was kept elsewhere.
    fn note_kept(&self) {
        self.purse.note_kept();
    }

    /// The answer that is kept for what was `asked` at `path`.
    fn kept(&self, path: &str, asked: &Value) -> Option<Value> {
        let answer = self.cache.get(&self.cache.key(&self.url, path, asked))?;
        self.purse.note_kept();
        Some(answer)
    }

    /// Keeps an answer under what was `asked`, whatever it was asked in.
    fn keep(&self, path: &str, asked: &Value, answer: &Value) {
        self.cache.put(&self.cache.key(&self.url, path, asked), answer);
    }

    /// Sends a request, again and again while an answer may come; nothing once another one has met a failure that all
    /// would meet.
    async fn post(&self, request: &Request<'_>) -> std::result::Result<Value, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::Down("the client is closed".into()))?;
        if let Some(failure) = self.ended().clone() {
            return Err(failure);
        }
        let answer = self.post_slowly(request).await;
        if let Err(failure) = &answer
            && failure.is_general()
        {
            self.ended().get_or_insert_with(|| failure.clone());
        } else if !self.has_answered.swap(true, Ordering::Relaxed) {
            self.slots.add_permits(self.concurrency - 1);
        }
        answer
    }

    fn ended(&self) -> MutexGuard<'_, Option<Failure>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post_slowly(&self, request: &Request<'_>) -> std::result::Result<Value, Failure> {
        let reserved = self.purse.reserve(request.estimate).await?;
        let mut tries = 0;
        loop {
            if let Some(failure) = self.ended().clone() {
                return Err(failure);
            }
            self.pace.wait(request.estimate.0 + request.estimate.1).await;
            self.purse.note_call(tries > 0);
            let (reason, asked) = match self.send(request).await {
                Ok(answer) => {
                    self.purse.settle(reserved, &answer);
                    return Ok(answer);
                }
                Err(Trouble::Lasting(failure)) => return Err(failure),
                Err(Trouble::Passing { reason, wait }) => (reason, wait),
            };
            let own = || limits::back_off(FIRST_WAIT, tries, request.body).min(self.max_wait);
            let wait = asked.unwrap_or_else(own);
            if tries == self.retries || wait > self.max_wait {
                let times = if tries == 0 { String::new() } else { format!(", {} times", tries + 1) };
                let place =
                    if reason.starts_with(&self.url) { String::new() } else { format!("{}: ", self.url) };
                return Err(Failure::Down(format!("{place}{reason}{times}")));
            }
            tracing::debug!("{}: {reason}; again in {:.1} s", self.url, wait.as_secs_f64());
            if asked.is_some() {
                self.pace.hold(wait);
            }
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    /// Sends a request once.
    async fn send(&self, request: &Request<'_>) -> std::result::Result<Value, Trouble> {
        let url = format!("{}/{}", self.url, request.path);
        let mut post =
            self.http.post(&url).header(CONTENT_TYPE, "application/json").body(request.body.to_string());
        if let Some(key) = &self.key {
            post = post.header(AUTHORIZATION, key.bearer());
        }
        let response = post.send().await.map_err(|error| Trouble::of_network(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        self.pace.heed(&headers, self.max_wait);
        let most = if status.is_success() { MOST_BYTES } else { MOST_ERROR_BYTES };
        let body = read(response, most).await.map_err(|error| Trouble::of_network(&error))?;
        let text = String::from_utf8_lossy(&body);
        // Endpoints repeat the key in their errors.
        let hidden = |text: &str| self.key.as_ref().map_or_else(|| text.to_string(), |key| key.hide(text));
        if !status.is_success() {
            return Err(Trouble::of_status(&url, status, &headers, &hidden(&text)));
        }
        let is_page = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if is_page || text.trim_start().starts_with('<') {
            let reason = "answers with a page, not with JSON: is this the API's base, such as .../v1?";
            return Err(Trouble::Lasting(Failure::NoApi(format!("{url} {reason}"))));
        }
        if body.len() >= MOST_BYTES {
            return Err(Trouble::Lasting(Failure::NoApi(format!("{url} answers with more than 256 MiB"))));
        }
        let answer = serde_json::from_str(&text).map_err(|e| format!("an answer that is no JSON ({e})"));
        let answer = answer.and_then(|answer: Value| match (request.is_answer)(&answer) {
            Ok(()) => Ok(answer),
            Err(missing) => Err(format!("an answer without {missing}")),
        });
        answer.map_err(|reason| Trouble::Passing { reason, wait: None })
    }
}

/// Reads an answer's body, up to `most` bytes of it, however long it says it is.
async fn read(mut response: reqwest::Response, most: usize) -> std::result::Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        body.extend_from_slice(&part[..part.len().min(most - body.len())]);
        if body.len() == most {
            break;
        }
    }
    Ok(body)
}
