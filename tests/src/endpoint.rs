//! An OpenAI-compatible endpoint for tests: **a test double**, which counts what it is asked and fails as it is told to.
//! It answers at once and always the same: names made of a prompt's first words, vectors made of a text's letters.

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The longest wait for a request: far beyond what any program takes under load.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers of a vector that it answers with.
pub const DIMENSIONS: usize = 26;

/// How one request fails.
#[derive(Debug, Clone)]
pub enum Fault {
    /// With this status, these headers and this body.
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// With this body, as if all were well.
    Body(&'static str, &'static str),
    /// With this as the model's words.
    Says(&'static str),
    /// The model's words are cut off.
    CutOff,
    /// The model refuses.
    Refuses,
    /// After so long, well.
    Slow(Duration),
}

/// What is asked of the endpoint when no fault is left, and always.
#[derive(Debug, Default)]
struct Asked {
    requests: Vec<Value>,
    keys: Vec<Option<String>>,
    faults: VecDeque<Fault>,
    /// The fault of every request for which none is left.
    always: Option<Fault>,
    /// Words of a request's body that are refused, with the refusal.
    refused: Vec<(&'static str, &'static str)>,
    /// The most inputs of a request for vectors.
    most_inputs: Option<usize>,
    /// A name that every topic gets.
    same_name: Option<&'static str>,
}

type Shared = Arc<Mutex<Asked>>;

/// The endpoint, until it is dropped.
pub struct Endpoint {
    /// Its base.
    pub url: String,
    asked: Shared,
    _runtime: Runtime,
}

impl Endpoint {
    /// Starts it on a free port of this machine.
    pub fn start() -> Result<Self> {
        let asked = Shared::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embeddings))
            .with_state(Arc::clone(&asked));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}/v1", listener.local_addr().context("the endpoint has no address")?);
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, asked, _runtime: runtime })
    }

    /// Lets the next requests fail so, one after the other.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.asked).faults.extend(faults);
    }

    /// Lets every request fail so for which no other fault is left; `None`: they go well again.
    pub fn always(&self, fault: Option<Fault>) {
        lock(&self.asked).always = fault;
    }

    /// Refuses (400) every request in whose body `words` stand.
    pub fn refuse(&self, words: &'static str, refusal: &'static str) {
        lock(&self.asked).refused.push((words, refusal));
    }

    /// Refuses (413) requests for more vectors than these, as small servers do.
    pub fn take_at_most(&self, inputs: usize) {
        lock(&self.asked).most_inputs = Some(inputs);
    }

    /// Gives every topic this name, until it is asked for another.
    pub fn always_name(&self, name: &'static str) {
        lock(&self.asked).same_name = Some(name);
    }

    /// The bodies of all requests so far.
    pub fn requests(&self) -> Vec<Value> {
        lock(&self.asked).requests.clone()
    }

    /// How many requests came so far.
    pub fn calls(&self) -> usize {
        lock(&self.asked).requests.len()
    }

    /// Waits until so many requests have come.
    pub fn wait_for_calls(&self, calls: usize) -> Result<()> {
        let started = Instant::now();
        while self.calls() < calls {
            ensure!(started.elapsed() < PATIENCE, "only {} of {calls} requests came", self.calls());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The keys that came with them.
    pub fn keys(&self) -> Vec<Option<String>> {
        lock(&self.asked).keys.clone()
    }
}

/// Notes a request; answers for a fault, and says what remains of one that only changes the answer.
async fn received(
    asked: &Shared,
    headers: &HeaderMap,
    body: &Bytes,
) -> std::result::Result<(Value, Option<Fault>), Response> {
    let text = String::from_utf8_lossy(body).into_owned();
    let request: Value = serde_json::from_str(&text).unwrap_or_default();
    let fault = {
        let mut asked = lock(asked);
        asked.requests.push(request.clone());
        let key = headers.get("authorization").and_then(|key| key.to_str().ok());
        asked.keys.push(key.map(str::to_string));
        if let Some((_, refusal)) = asked.refused.iter().find(|(words, _)| text.contains(words)) {
            let error = json!({ "error": { "message": refusal, "type": "invalid_request_error" } });
            return Err((StatusCode::BAD_REQUEST, error.to_string()).into_response());
        }
        asked.faults.pop_front().or_else(|| asked.always.clone())
    };
    match fault {
        Some(Fault::Status(status, pairs, body)) => {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err((status, headers, body).into_response())
        }
        Some(Fault::Body(kind, body)) => Err(([("content-type", kind)], body).into_response()),
        Some(Fault::Slow(wait)) => {
            tokio::time::sleep(wait).await;
            Ok((request, None))
        }
        fault => Ok((request, fault)),
    }
}

async fn chat(State(asked): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (request, fault) = match received(&asked, &headers, &body).await {
        Ok(received) => received,
        Err(response) => return response,
    };
    let same_name = lock(&asked).same_name;
    let (mut message, mut finish) =
        (json!({ "role": "assistant", "content": said(&request, same_name) }), "stop");
    match fault {
        Some(Fault::Says(words)) => message["content"] = json!(words),
        Some(Fault::CutOff) => (message["content"], finish) = (json!("{\"topic\": \"Neu"), "length"),
        Some(Fault::Refuses) => message = json!({ "content": null, "refusal": "I cannot help with that." }),
        _ => {}
    }
    let usage = json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110 });
    let choice = json!({ "index": 0, "message": message, "finish_reason": finish });
    let answer = json!({ "model": request["model"], "choices": [choice], "usage": usage });
    ([("content-type", "application/json")], answer.to_string()).into_response()
}

/// What the model says: an object of the schema that the request names.
fn said(request: &Value, same_name: Option<&str>) -> String {
    let user = request["messages"][1]["content"].as_str().unwrap_or_default();
    let model = request["model"].as_str().unwrap_or_default();
    // The line of keywords: the first with three commas.
    let keywords = user.lines().find(|line| line.matches(", ").count() >= 3).unwrap_or_default();
    let words: Vec<&str> = keywords.split(", ").take(3).collect();
    let is_again = user.contains("so were others");
    let name = match same_name.filter(|_| !is_again) {
        Some(name) => name.to_string(),
        None => format!("{model} on {}", words.join(" and ")),
    };
    let told = request.to_string();
    // Topics as they are listed: "7. name (...)".
    let topics: Vec<i64> = user.lines().filter_map(|line| line.split_once(". ")?.0.parse().ok()).collect();
    if told.contains("cross_references") {
        return order(&topics).to_string();
    }
    if told.contains("definitions") {
        let define = |topic: &i64| json!({ "topic": topic, "definition": format!("Of topic {topic}.") });
        return json!({ "definitions": topics.iter().map(define).collect::<Vec<_>>() }).to_string();
    }
    if told.contains("overlaps") {
        return place(user).to_string();
    }
    let object = if told.contains("educational_score") {
        json!({ "topic": name, "educational_score": 1 + name.len() % 10 })
    } else if told.contains("topic_words") || told.contains("three words\"") {
        json!({ "words": words })
    } else {
        json!({ "topic": name })
    };
    object.to_string()
}

/// A place in a scheme: the first node that is shown, or below it for topics whose names have an even number of bytes.
fn place(user: &str) -> Value {
    let node = user.lines().find_map(|line| line.split_once(" | ")).map_or("", |(id, _)| id);
    let topic = user.lines().find(|line| line.contains(" texts; "));
    let name = topic.and_then(|line| line.rsplit_once(" (")).map_or("", |(name, _)| name);
    json!({
        "node": node, "belongs": name.len() % 2 == 1, "overlaps": "", "definition": format!("Of {name}."),
        "reason": "It is read there.",
    })
}

/// An order of topics: two classes, the first of two sub-classes, and a reference from the first topic to the last.
fn order(topics: &[i64]) -> Value {
    let third = topics.len().div_ceil(3);
    let mut parts = topics.chunks(third.max(1)).enumerate().map(|(at, topics)| {
        json!({ "name": format!("Part {at}"), "definition": "A third of all.", "topics": topics })
    });
    let first: Vec<Value> = parts.by_ref().take(2).collect();
    let class =
        |name: &str, parts: Vec<Value>| json!({ "name": name, "definition": "Some.", "subclasses": parts });
    let reference = json!({ "from": topics.first(), "to": topics.last(), "reason": "Both are read." });
    json!({ "classes": [class("First", first), class("Second", parts.collect())], "cross_references": [reference] })
}

async fn embeddings(State(asked): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (request, _) = match received(&asked, &headers, &body).await {
        Ok(received) => received,
        Err(response) => return response,
    };
    let inputs: Vec<&str> =
        request["input"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if lock(&asked).most_inputs.is_some_and(|most| inputs.len() > most) {
        let error =
            json!({ "message": format!("batch size {} is too large", inputs.len()), "type": "Validation" });
        return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response();
    }
    let item = |(index, text): (usize, &&str)| {
        let mut counts = [0f32; DIMENSIONS];
        for letter in text.to_lowercase().bytes().filter(u8::is_ascii_lowercase) {
            counts[usize::from(letter - b'a')] += 1.0;
        }
        let dimensions = request["dimensions"].as_u64().map_or(DIMENSIONS, |dimensions| dimensions as usize);
        let counts = &counts[..dimensions.min(DIMENSIONS)];
        let vector = match request["encoding_format"].as_str() {
            Some("base64") => {
                let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
                json!(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes))
            }
            _ => json!(counts),
        };
        json!({ "object": "embedding", "index": index, "embedding": vector })
    };
    let mut data: Vec<Value> = inputs.iter().enumerate().map(item).collect();
    // No API promises an order.
    data.reverse();
    let tokens = inputs.iter().map(|text| text.split_whitespace().count()).sum::<usize>();
    let answer = json!({ "data": data, "model": request["model"], "usage": { "prompt_tokens": tokens, "total_tokens": tokens } });
    ([("content-type", "application/json")], answer.to_string()).into_response()
}

fn lock(asked: &Shared) -> std::sync::MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}
