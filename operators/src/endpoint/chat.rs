//! Objects of a schema, asked of a language model.
//!
//! Where the endpoint takes a schema, the answer follows it; where it does not, the model is told the schema and its
//! answer is searched for an object. Either way the object is checked, and a wrong one goes back to the model with what
//! is wrong with it, a few times. What an endpoint does not take (a schema, `max_tokens`, a temperature) is found out
//! once, by its refusal.
//!
//! Source: OpenAI's guide to structured outputs, and its reference of chat completions (`refusal`, `finish_reason`).

use super::failure::shown;
use super::{Endpoint, Failure, Request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What follows the endpoint's base.
const PATH: &str = "chat/completions";

/// How often a model is told what is wrong with its answer.
const REPAIRS: usize = 2;

/// By how much an answer that was cut off may be longer the next time.
const LONGER: u32 = 4;

/// Bytes a token has at least, nearly: English has some four, and so have most languages.
const BYTES_PER_TOKEN: usize = 3;

/// A language model behind an endpoint.
pub struct Chat {
    endpoint: Arc<Endpoint>,
    model: String,
    temperature: f64,
    max_tokens: u32,
    /// What the endpoint was found not to take.
    no_schema: AtomicBool,
    no_max_tokens: AtomicBool,
    no_temperature: AtomicBool,
}

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    /// What the model is to be.
    pub system: String,
    /// What it is asked.
    pub user: String,
    /// The schema's name: letters, digits, `_` and `-`.
    pub name: &'static str,
    /// The JSON schema of the answer: all properties required, none additional.
    pub schema: Value,
}

/// What one exchange with the model gave.
enum Said {
    Whole(String),
    CutOff,
}

impl Chat {
    /// A model of the endpoint; answers have at most `max_tokens`.
    pub fn new(endpoint: Arc<Endpoint>, model: impl Into<String>, temperature: f64, max_tokens: u32) -> Self {
        Self {
            endpoint,
            model: model.into(),
            temperature,
            max_tokens,
            no_schema: AtomicBool::new(false),
            no_max_tokens: AtomicBool::new(false),
            no_temperature: AtomicBool::new(false),
        }
    }

    /// Another of the endpoint's models, asked in the same way.
    #[must_use]
    pub fn beside(&self, model: &str) -> Self {
        Self::new(Arc::clone(&self.endpoint), model, self.temperature, self.max_tokens)
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Asks `question` until the answer is a `T` that `check` finds nothing wrong with.
    ///
    /// # Errors
    /// `Useless` where the model refuses, or its answers stay cut off or wrong; what [`Endpoint`] fails with.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        question: &Question,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<T, Failure> {
        let mut messages = vec![message("system", &question.system), message("user", &question.user)];
        let (mut max_tokens, mut is_longer) = (self.max_tokens, false);
        let mut repairs = 0;
        // They are kept once one of them is accepted: what is wrong now may be right the next time.
        let mut answers: Vec<(Value, Value)> = Vec::new();
        loop {
            let text = match self.exchange(question, &messages, max_tokens, &mut answers).await? {
                Said::Whole(text) => text,
                Said::CutOff if !is_longer => {
                    (max_tokens, is_longer) = (max_tokens.saturating_mul(LONGER), true);
                    continue;
                }
                Said::CutOff => {
                    return Err(Failure::Useless(format!(
                        "the answer was cut off after {max_tokens} tokens"
                    )));
                }
            };
            let answer = found(&text).and_then(|found: T| check(&found).map(|()| found));
            let answer = answer.map_err(|wrong| shown(&wrong));
            let wrong = match answer {
                Ok(found) => {
                    answers.iter().for_each(|(asked, answer)| self.endpoint.keep(PATH, asked, answer));
                    return Ok(found);
                }
                Err(wrong) if repairs == REPAIRS => {
                    return Err(Failure::Useless(format!("the answer {wrong}")));
                }
                Err(wrong) => wrong,
            };
            repairs += 1;
            messages.push(message("assistant", &text));
            let again = format!("That answer {wrong}. Answer again, with the JSON object alone.");
            messages.push(message("user", &again));
        }
    }

    /// Sends the messages, and returns what the model says.
    async fn exchange(
        &self,
        question: &Question,
        messages: &[Value],
        max_tokens: u32,
        answers: &mut Vec<(Value, Value)>,
    ) -> Result<Said, Failure> {
        let Question { name, schema, .. } = question;
        // The answer is kept under what was meant, whichever way the endpoint takes it.
        let asked = json!({
            "model": self.model, "messages": messages, "temperature": self.temperature, "max_tokens": max_tokens,
            "name": name, "schema": schema,
        });
        let estimate = ((asked.to_string().len() / BYTES_PER_TOKEN) as u64, u64::from(max_tokens));
        if let Some(answer) = self.endpoint.kept(PATH, &asked) {
            return said(&answer);
        }
        loop {
            let body = self.body(question, messages, max_tokens);
            let request = Request { path: PATH, body: &body, estimate, is_answer };
            match self.endpoint.post(&request).await {
                Ok(answer) => {
                    let said = said(&answer);
                    match is_refusal(&answer) {
                        // The model would say it again.
                        true => self.endpoint.keep(PATH, &asked, &answer),
                        false => answers.push((asked, answer)),
                    }
                    return said;
                }
                Err(Failure::Refused { place, words }) => {
                    self.adapt(&words);
                    // Another request may have found it out meanwhile.
                    if self.body(question, messages, max_tokens) == body {
                        return Err(Failure::Refused { place, words });
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn body(&self, question: &Question, messages: &[Value], max_tokens: u32) -> Value {
        let set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let mut body = json!({ "model": self.model, "messages": messages });
        if !set(&self.no_temperature) {
            body["temperature"] = json!(self.temperature);
        }
        let limit = if set(&self.no_max_tokens) { "max_completion_tokens" } else { "max_tokens" };
        body[limit] = json!(max_tokens);
        if set(&self.no_schema) {
            let told = format!(
                "{}\n\nAnswer with one JSON object of this JSON schema, and with nothing else:\n{}",
                question.system, question.schema
            );
            body["messages"][0] = message("system", &told);
        } else {
            let schema = json!({ "name": question.name, "strict": true, "schema": question.schema });
            body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
        }
        body
    }

    /// Finds in a refusal's words what can be said in another way, and says it so from then on.
    fn adapt(&self, words: &str) {
        let words = words.to_lowercase();
        let names = |any: &[&str]| any.iter().any(|word| words.contains(word));
        // Not one that is too large, too long or wrong.
        let is_unknown =
            names(&["support", "unknown", "unrecognized", "extra", "not permitted", "not allowed"]);
        let flag = if names(&["response_format", "json_schema", "structured output", "guided", "schema"]) {
            &self.no_schema
        } else if names(&["max_completion_tokens"]) || (is_unknown && names(&["max_tokens"])) {
            &self.no_max_tokens
        } else if is_unknown && names(&["temperature"]) {
            &self.no_temperature
        } else {
            return;
        };
        if !flag.swap(true, Ordering::Relaxed) {
            tracing::info!("{}: not all of a request is taken; it is asked in another way", self.model);
        }
    }
}

fn message(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

fn is_answer(answer: &Value) -> Result<(), &'static str> {
    answer["choices"][0]["message"].as_object().map(|_| ()).ok_or("choices[0].message")
}

fn is_refusal(answer: &Value) -> bool {
    answer["choices"][0]["message"]["refusal"].as_str().is_some_and(|refusal| !refusal.is_empty())
}

/// What the model says, and whether it does.
fn said(answer: &Value) -> Result<Said, Failure> {
    let choice = &answer["choices"][0];
    let useless = |reason: String| Err(Failure::Useless(reason));
    if let Some(refusal) = choice["message"]["refusal"].as_str().filter(|refusal| !refusal.is_empty()) {
        return useless(format!("the model refuses: {}", shown(refusal)));
    }
    match choice["finish_reason"].as_str() {
        Some("content_filter") => return useless("the endpoint's filter withheld the answer".into()),
        Some("length") => return Ok(Said::CutOff),
        _ => {}
    }
    match choice["message"]["content"].as_str().map(str::trim) {
        None | Some("") => useless("the answer is empty".into()),
        Some(text) => Ok(Said::Whole(text.to_string())),
    }
}

/// The JSON schema of an object that has all of `properties` and no others, as strict schemas ask for.
pub fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|all| all.keys()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// The object in `text`, among whatever stands around it: thoughts, fences, an explanation.
fn found<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let text = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    let mut wrong = "holds no JSON object".to_string();
    for (at, _) in text.match_indices('{') {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else { continue };
        match serde_json::from_value(value) {
            Ok(found) => return Ok(found),
            Err(e) => wrong = format!("is not of the schema: {e}"),
        }
    }
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Name {
        topic: String,
    }

    fn read(text: &str) -> Result<Name, String> {
        found(text)
    }

    #[test]
    fn an_object_is_found_in_what_stands_around_it() {
        let expected = Name { topic: "graphs".into() };
        for text in [
            r#"{"topic": "graphs"}"#,
            "```json\n{\"topic\": \"graphs\"}\n```",
            "<think>maybe {\"topic\": \"trees\"}?</think>\n{\"topic\": \"graphs\"}",
            "Of the set {a, b} I would say: {\"topic\": \"graphs\"} I hope that helps {:",
        ] {
            assert_eq!(read(text).as_ref(), Ok(&expected), "{text}");
        }
        assert!(read("graphs").unwrap_err().contains("no JSON object"));
        assert!(read(r#"{"name": "graphs"}"#).unwrap_err().contains("missing field `topic`"));
        assert!(read(r#"{"topic": "gra"#).is_err(), "cut off");
    }

    #[test]
    fn refusals_filters_and_empty_answers_are_told() {
        let of = |choice: Value| match said(&json!({ "choices": [choice] })) {
            Ok(Said::Whole(text)) => text,
            Ok(Said::CutOff) => "cut off".into(),
            Err(failure) => failure.to_string(),
        };
        assert_eq!(of(json!({ "message": { "content": " a " }, "finish_reason": "stop" })), "a");
        assert!(of(json!({ "message": { "refusal": "I cannot", "content": null } })).contains("I cannot"));
        assert_eq!(of(json!({ "message": { "content": "{" }, "finish_reason": "length" })), "cut off");
        let filtered = json!({ "message": { "content": "" }, "finish_reason": "content_filter" });
        assert!(of(filtered).contains("filter"));
        assert!(of(json!({ "message": { "content": "  " } })).contains("empty"));
    }
}
