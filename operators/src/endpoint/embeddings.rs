//! Vectors of texts, asked of an endpoint.
//!
//! Texts go out in requests within the API's limits, several at a time, and their vectors are told apart by `index`.
//! Each vector is kept by its text, so that a text that came once is never sent again, in whatever company
//! (`packs.rs`). A request that is refused goes out again in halves: the limits of small servers are found, and one text too long harms no
//! other.
//!
//! Source: OpenAI's API reference (embeddings: at most 2,048 inputs and 300,000 tokens a request, `encoding_format`
//! base64 of little-endian float32, `dimensions`).

use super::packs::Packs;
use super::{Endpoint, EndpointConfig, Failure, Request};
use crate::{Error, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use kernels::Matrix;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    kept: Packs,
    no_base64: AtomicBool,
    /// The most inputs of a request that the endpoint was found to take.
    most_inputs: AtomicUsize,
}

/// The vectors of a request's texts.
type Answer<'t> = std::result::Result<Vec<(&'t str, Vec<f32>)>, Failure>;

impl Embeddings {
    /// Makes a client; nothing is sent yet.
    pub fn open(name: &str, config: &RemoteConfig) -> Result<Self> {
        config.check(name)?;
        let endpoint = Endpoint::open(&format!("{name}.endpoint"), &config.endpoint)?;
        let of = json!({ "model": config.model, "dimensions": config.dimensions });
        Ok(Self {
            kept: Packs::open(endpoint.kept_under(PATH, &of)),
            endpoint,
            config: config.clone(),
            no_base64: AtomicBool::new(false),
            most_inputs: AtomicUsize::new(MOST_INPUTS),
        })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The settings.
    pub fn config(&self) -> &RemoteConfig {
        &self.config
    }

    /// Returns the vectors of `texts`, texts × dimensions: `dim`, or as many as the first has where that is 0. A text
    /// without any letter has a vector of zeros, since no API takes it.
    ///
    /// # Errors
    /// What the endpoint fails with; `Useless` for vectors that are missing or of other lengths.
    pub async fn embed(&self, texts: &[&str], dim: usize) -> std::result::Result<Matrix<f32>, Failure> {
        let cut = |text| self.config.max_characters.map_or(text, |most| crate::text::cut(text, most));
        // The same text is sent once.
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, text) in
            texts.iter().map(|text| cut(text)).enumerate().filter(|(_, text)| !text.trim().is_empty())
        {
            places.entry(text).or_default().push(place);
        }
        let mut vectors: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
        let mut missing: Vec<&str> = Vec::new();
        for text in places.keys() {
            match self.kept.get(text) {
                Some(vector) => {
                    self.endpoint.note_kept();
                    vectors.insert(text, vector);
                }
                None => missing.push(text),
            }
        }
        let requests = self.requests(&missing);
        let mut answers = stream::iter(requests)
            .map(|inputs| self.ask(inputs))
            .buffer_unordered(self.endpoint.concurrency());
        while let Some(answer) = answers.try_next().await? {
            vectors.extend(answer);
        }
        drop(answers);
        let dim = if dim > 0 { dim } else { vectors.values().map(Vec::len).next().unwrap_or(0) };
        let mut made = Matrix::zeros(texts.len(), dim);
        for (text, places) in places {
            let vector = vectors.remove(text).unwrap_or_default();
            if vector.len() != dim {
                let reason = format!(
                    "vectors of {} and of {dim} numbers by one model: if it was changed behind its name, remove the kept \
                     ones in {}",
                    vector.len(),
                    self.kept.folder().display()
                );
                return Err(Failure::Useless(reason));
            }
            places.into_iter().for_each(|place| made.row_mut(place).copy_from_slice(&vector));
        }
        Ok(made)
    }

    /// Cuts inputs into requests.
    fn requests<'i, 't>(&self, inputs: &'i [&'t str]) -> Vec<&'i [&'t str]> {
        let mut requests = Vec::new();
        let mut rest = inputs;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(self.config.inputs).take_while(|text| {
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
    fn ask<'a>(&'a self, texts: &'a [&'a str]) -> BoxFuture<'a, Answer<'a>> {
        async move {
            let halves = || async {
                let (first, second) = texts.split_at(texts.len() / 2);
                let mut vectors = self.ask(first).await?;
                vectors.extend(self.ask(second).await?);
                Ok(vectors)
            };
            if texts.len() > self.most_inputs.load(Ordering::Relaxed) {
                return halves().await;
            }
            match self.request(texts).await {
                Err(Failure::Refused { words, .. }) if texts.len() > 1 => {
                    // Of too many texts, not of one among them.
                    let words = words.to_lowercase();
                    if ["batch", "inputs", "too many"].iter().any(|many| words.contains(many)) {
                        self.most_inputs.fetch_min(texts.len() / 2, Ordering::Relaxed);
                    }
                    halves().await
                }
                Err(Failure::Refused { place, words }) => {
                    let text = texts[0];
                    let start = crate::text::cut(text, 40);
                    let words = format!(
                        "{words} (a text of {} characters: \"{start}...\"; set max_characters to cut such texts)",
                        text.chars().count()
                    );
                    Err(Failure::Refused { place, words })
                }
                answer => answer,
            }
        }
        .boxed()
    }

    async fn request<'a>(&self, texts: &[&'a str]) -> Answer<'a> {
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
                Err(Failure::Refused { words, .. })
                    if words.contains("encoding_format") && !body["encoding_format"].is_null() =>
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
        for (text, vector) in texts.iter().zip(vectors) {
            let vector = vector.filter(|vector| !vector.is_empty());
            let vector = vector.ok_or_else(|| useless("some are missing".into()))?;
            found.push((*text, vector));
        }
        if found.windows(2).any(|pair| pair[0].1.len() != pair[1].1.len()) {
            return Err(useless("some are longer than others".into()));
        }
        self.kept.put(&found);
        Ok(found)
    }
}

fn is_answer(answer: &Value) -> std::result::Result<(), &'static str> {
    answer["data"].as_array().filter(|data| !data.is_empty()).map(|_| ()).ok_or("data")
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
        let text = BASE64_STANDARD.encode(vector.map(f32::to_le_bytes).concat());
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
        let sizes: Vec<usize> = embeddings.requests(&texts).iter().map(|request| request.len()).collect();
        assert_eq!(sizes, [3, 2, 2]);
        assert_eq!(embeddings.requests(&["x".repeat(MOST_BYTES * 2).as_str()]).len(), 1);
    }
}
