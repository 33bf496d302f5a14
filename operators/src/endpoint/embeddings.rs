//! Vectors of texts, asked of an endpoint.
//!
//! Texts go out in requests within the API's limits, several at a time, and their vectors are told apart by `index`.
//! Each vector is kept by its text, so that a text that came once is never sent again, in whatever company. A request
//! that is refused goes out again in halves: the limits of small servers are found, and one text too long harms no
//! other.
//!
//! Source: OpenAI's API reference (embeddings: at most 2,048 inputs and 300,000 tokens a request, `encoding_format`
//! base64 of little-endian float32, `dimensions`).

use super::{Endpoint, EndpointConfig, Failure, Request};
use crate::{Error, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use kernels::Matrix;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// The most inputs of a request that any API takes.
const MOST_INPUTS: usize = 2048;

/// Bytes of text in a request: well below 300,000 tokens in any language.
const MOST_BYTES: usize = 300_000;

/// What follows the endpoint's base.
const PATH: &str = "embeddings";

/// A model of vectors behind an endpoint, as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteConfig {
    /// The endpoint.
    pub endpoint: EndpointConfig,
    /// The model's name there.
    pub model: String,
    /// Dimensions that the endpoint is to shorten vectors to, for models that can. Absent: the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<usize>,
    /// Texts in a request. 128: fewer calls than small requests, and little lost when one fails.
    pub inputs: usize,
    /// Characters that a text is cut to, for models that refuse longer ones. Absent: none is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_characters: Option<usize>,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            endpoint: EndpointConfig::default(),
            model: String::new(),
            dimensions: None,
            inputs: 128,
            max_characters: None,
        }
    }
}

impl RemoteConfig {
    /// Checks every setting that no network is needed for; `name` is what the job file calls it.
    pub fn check(&self, name: &str) -> Result<()> {
        let wrong = |key: &str, reason: String| Err(Error::setting(format!("{name}.{key}"), reason));
        if self.model.is_empty() {
            return wrong("model", "is not given, expected the name of one of the endpoint's models".into());
        }
        if !(1..=MOST_INPUTS).contains(&self.inputs) {
            return wrong("inputs", format!("{}, expected 1 to {MOST_INPUTS}", self.inputs));
        }
        if self.dimensions == Some(0) || self.max_characters == Some(0) {
            return wrong("dimensions, max_characters", "0 leave nothing, expected 1 or more".into());
        }
        self.endpoint.check(&format!("{name}.endpoint"))
    }
}

/// A model of vectors behind an endpoint.
pub struct Embeddings {
    endpoint: Endpoint,
    config: RemoteConfig,
    no_base64: AtomicBool,
}

/// A text to be sent: its place among all, and the text.
type Input<'t> = (usize, &'t str);

/// The vectors of a request's texts, with their places among all.
type Answer = std::result::Result<Vec<(usize, Vec<f32>)>, Failure>;

impl Embeddings {
    /// Makes a client; nothing is sent yet.
    pub fn open(name: &str, config: &RemoteConfig) -> Result<Self> {
        config.check(name)?;
        let endpoint = Endpoint::open(&format!("{name}.endpoint"), &config.endpoint)?;
        Ok(Self { endpoint, config: config.clone(), no_base64: AtomicBool::new(false) })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The settings.
    pub fn config(&self) -> &RemoteConfig {
        &self.config
    }

    /// Returns the vectors of `texts`, texts × dimensions; a text without any letter has one of zeros, since no API
    /// takes it.
    ///
    /// # Errors
    /// What the endpoint fails with; `Useless` for vectors that are missing or of unequal lengths.
    pub async fn embed(&self, texts: &[&str]) -> std::result::Result<Matrix<f32>, Failure> {
        let cut = |text| self.config.max_characters.map_or(text, |most| crate::text::cut(text, most));
        let mut vectors: Vec<Option<Vec<f32>>> = Vec::with_capacity(texts.len());
        let mut missing: Vec<Input<'_>> = Vec::new();
        for (place, text) in texts.iter().map(|text| cut(text)).enumerate() {
            let kept = match text.trim().is_empty() {
                true => Some(Vec::new()),
                false => self.kept(text),
            };
            if kept.is_none() {
                missing.push((place, text));
            }
            vectors.push(kept);
        }
        let requests = self.requests(&missing);
        let mut answers =
            stream::iter(requests).map(|inputs| self.ask(inputs)).buffered(self.endpoint.concurrency());
        while let Some(answer) = answers.try_next().await? {
            for (place, vector) in answer {
                vectors[place] = Some(vector);
            }
        }
        let dim = vectors.iter().flatten().map(Vec::len).max().unwrap_or(0);
        let mut values = Vec::with_capacity(texts.len() * dim);
        for (place, vector) in vectors.into_iter().enumerate() {
            match vector {
                Some(vector) if vector.len() == dim => values.extend(vector),
                Some(vector) if vector.is_empty() => values.extend(std::iter::repeat_n(0.0, dim)),
                _ => return Err(Failure::Useless(format!("text {place} has no vector of {dim} numbers"))),
            }
        }
        Matrix::try_from_vec(texts.len(), dim, values).map_err(|e| Failure::Useless(e.to_string()))
    }

    /// Cuts inputs into requests.
    fn requests<'i, 't>(&self, inputs: &'i [Input<'t>]) -> Vec<&'i [Input<'t>]> {
        let mut requests = Vec::new();
        let mut rest = inputs;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(self.config.inputs).take_while(|(_, text)| {
                bytes += text.len();
                bytes <= MOST_BYTES
            });
            let (request, later) = rest.split_at(fits.count().max(1));
            requests.push(request);
            rest = later;
        }
        requests
    }

    /// Asks for the vectors of some texts, in halves where all of them are refused.
    fn ask<'a>(&'a self, inputs: &'a [Input<'a>]) -> BoxFuture<'a, Answer> {
        async move {
            match self.request(inputs).await {
                Err(Failure::Refused(_)) if inputs.len() > 1 => {
                    let (first, second) = inputs.split_at(inputs.len() / 2);
                    let mut vectors = self.ask(first).await?;
                    vectors.extend(self.ask(second).await?);
                    Ok(vectors)
                }
                Err(Failure::Refused(told)) => {
                    let (_, text) = inputs[0];
                    let start = crate::text::cut(text, 40);
                    let hint = "set max_characters to cut such texts";
                    Err(Failure::Refused(format!(
                        "{told} (a text of {} characters: \"{start}...\"; {hint})",
                        text.chars().count()
                    )))
                }
                answer => answer,
            }
        }
        .boxed()
    }

    async fn request(&self, inputs: &[Input<'_>]) -> Answer {
        let texts: Vec<&str> = inputs.iter().map(|(_, text)| *text).collect();
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let answer = loop {
            let mut body = json!({ "model": self.config.model, "input": texts });
            if let Some(dimensions) = self.config.dimensions {
                body["dimensions"] = json!(dimensions);
            }
            if !self.no_base64.load(Ordering::Relaxed) {
                body["encoding_format"] = json!("base64");
            }
            let estimate = ((bytes / 3) as u64, 0);
            let request = Request { path: PATH, body: &body, estimate, is_answer };
            match self.endpoint.post(&request).await {
                Ok(answer) => break answer,
                // From now on as decimal numbers, which every server has.
                Err(Failure::Refused(told))
                    if told.contains("encoding_format") && !body["encoding_format"].is_null() =>
                {
                    self.no_base64.store(true, Ordering::Relaxed);
                }
                Err(failure) => return Err(failure),
            }
        };
        let useless = |reason: String| Failure::Useless(format!("of {} vectors {reason}", texts.len()));
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
        for (at, item) in answer["data"].as_array().into_iter().flatten().enumerate() {
            let index = item["index"].as_u64().map_or(at, |index| index as usize);
            let place =
                vectors.get_mut(index).ok_or_else(|| useless(format!("one has the index {index}")))?;
            let vector = numbers(&item["embedding"])
                .ok_or_else(|| useless(format!("that of index {index} is neither numbers nor base64")))?;
            if place.replace(vector).is_some() {
                return Err(useless(format!("two have the index {index}")));
            }
        }
        let mut found = Vec::with_capacity(texts.len());
        for ((place, text), vector) in inputs.iter().zip(vectors) {
            let vector = vector.filter(|vector| !vector.is_empty());
            let vector = vector.ok_or_else(|| useless("some are missing".into()))?;
            self.endpoint.keep(PATH, &self.asked(text), &json!(BASE64_STANDARD.encode(bytes_of(&vector))));
            found.push((*place, vector));
        }
        Ok(found)
    }

    /// What a text's vector is kept under.
    fn asked(&self, text: &str) -> Value {
        json!({ "model": self.config.model, "dimensions": self.config.dimensions, "input": text })
    }

    fn kept(&self, text: &str) -> Option<Vec<f32>> {
        self.endpoint.kept(PATH, &self.asked(text)).and_then(|answer| numbers(&answer))
    }
}

fn is_answer(answer: &Value) -> std::result::Result<(), &'static str> {
    answer["data"].as_array().filter(|data| !data.is_empty()).map(|_| ()).ok_or("data")
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Reads a vector: a list of numbers, or base64 of little-endian float32; finite all of them.
fn numbers(embedding: &Value) -> Option<Vec<f32>> {
    let vector: Vec<f32> = match embedding {
        Value::String(text) => {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            let (numbers, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())?
        }
        Value::Array(numbers) => {
            numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    vector.iter().all(|number| number.is_finite()).then_some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_read_in_both_forms() {
        let vector = [0.5f32, -2.0, 1e-3];
        let text = BASE64_STANDARD.encode(bytes_of(&vector));
        assert_eq!(numbers(&json!(text)).as_deref(), Some(&vector[..]));
        assert_eq!(numbers(&json!([0.5, -2, 0.001])).as_deref(), Some(&vector[..]));
        for broken in [json!("AAA="), json!("not base64!"), json!([1, "2"]), json!(null), json!([1e300])] {
            assert_eq!(numbers(&broken), None, "{broken}");
        }
    }

    #[test]
    fn requests_stay_within_the_limits() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = EndpointConfig {
            url: "http://localhost:1".into(),
            cache: Some(folder.path().into()),
            ..EndpointConfig::default()
        };
        let config = RemoteConfig { endpoint, model: "m".into(), inputs: 3, ..RemoteConfig::default() };
        let embeddings = Embeddings::open("remote", &config).unwrap();
        let long = "x".repeat(MOST_BYTES - 1);
        let texts = ["a", "b", "c", "d", &long, "e", "f"];
        let inputs: Vec<Input<'_>> = texts.into_iter().enumerate().collect();
        let sizes: Vec<usize> = embeddings.requests(&inputs).iter().map(|request| request.len()).collect();
        assert_eq!(sizes, [3, 2, 2]);
        assert_eq!(embeddings.requests(&[(0, "x".repeat(MOST_BYTES * 2).as_str())]).len(), 1);
    }
}
