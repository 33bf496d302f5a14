//! A language model that is asked: where it is, by what prompts, and many questions at a time.
//!
//! Names ([`crate::labellers::llm`]), taxonomies ([`crate::taxonomy::llm`]) and places in a scheme
//! ([`crate::taxonomy::place`]) are all asked for through an [`Llm`], each step of the one that its settings name.

pub mod prompts;

use crate::endpoint::chat::Question;
use crate::endpoint::{Chat, Endpoint, EndpointConfig, Failure, Usage, whole};
use crate::fit::Observer;
use crate::{Error, Result};
use futures::{StreamExt, stream};
use prompts::{Prompt, Prompts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A language model as the job file says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChatConfig {
    /// The endpoint.
    pub endpoint: EndpointConfig,
    /// The model's name there.
    pub model: String,
    /// 0 by default, so that the same question has the same answer.
    pub temperature: f64,
    /// The longest answer, in tokens. Absent: as long as what is asked for may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// A file of prompts, in the place of the built-in ones (`thema check --prompts` prints those).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
}

impl ChatConfig {
    /// Checks every setting that neither a network nor a file is needed for; `name` is what the job file calls it.
    pub fn check(&self, name: &str) -> Result<()> {
        let wrong = |key: &str, reason: &str| Err(Error::setting(format!("{name}.{key}"), reason));
        if self.model.is_empty() {
            return wrong(
                "model",
                "is not given, expected the name of one of the endpoint's models (--llm-model)",
            );
        }
        if self.endpoint.url.is_empty() {
            return wrong(
                "endpoint.url",
                "is not given, expected the API's base, such as http://localhost:8000/v1 (--llm-url)",
            );
        }
        if self.max_tokens == Some(0) {
            return wrong("max_tokens", "0 tokens hold no answer, expected 1 or more");
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            return wrong("temperature", "expected a number from 0 to 2");
        }
        self.endpoint.check(&format!("{name}.endpoint"))
    }

    /// Makes paths whole, so that they lead to the same files wherever the settings, which a model keeps, are used next.
    ///
    /// # Errors
    /// What the system says where there is no current folder.
    pub fn make_paths_whole(&mut self) -> Result<()> {
        if let Some(prompts) = &mut self.prompts {
            *prompts = whole(prompts)?;
        }
        self.endpoint.make_paths_whole()
    }

    /// The same with another budget of tokens, if there is one: what one run may spend is no setting of a model.
    #[must_use]
    pub fn within(&self, budget: Option<u64>) -> Self {
        let mut config = self.clone();
        config.endpoint.budget.tokens = budget.or(config.endpoint.budget.tokens);
        config
    }
}

/// A language model, with its prompts.
pub struct Llm {
    chat: Chat,
    prompts: Arc<Prompts>,
}

impl Llm {
    /// Makes the client, and reads the prompts; nothing is sent yet. Answers have at most `max_tokens`, unless the
    /// settings say another number.
    ///
    /// # Errors
    /// `Setting` for one out of range, a variable that is not set, a key or prompts that cannot be read.
    pub fn open(name: &str, config: &ChatConfig, max_tokens: u32) -> Result<Self> {
        config.check(name)?;
        let prompts = Arc::new(Prompts::load(config.prompts.as_deref())?);
        let endpoint = Arc::new(Endpoint::open(&format!("{name}.endpoint"), &config.endpoint)?);
        let max_tokens = config.max_tokens.unwrap_or(max_tokens);
        Ok(Self { chat: Chat::new(endpoint, &config.model, config.temperature, max_tokens), prompts })
    }

    /// Another of the endpoint's models, through the same connection.
    #[must_use]
    pub fn beside(&self, model: &str) -> Self {
        Self { chat: self.chat.beside(model), prompts: Arc::clone(&self.prompts) }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        self.chat.model()
    }

    /// Its prompts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// What was asked, answered and spent through the connection so far.
    pub fn usage(&self) -> Usage {
        self.chat.endpoint().usage()
    }

    /// Asks by `prompt`, whose variables have the values of `value`, for an object of `schema` that `check` finds
    /// nothing wrong with.
    pub(crate) async fn ask<'v, T: DeserializeOwned>(
        &self,
        prompt: &Prompt,
        value: impl Fn(&str) -> Option<&'v str>,
        (name, schema): (&'static str, Value),
        check: impl Fn(&T) -> std::result::Result<(), String>,
    ) -> std::result::Result<T, Failure> {
        let user = prompt.user.fill(value);
        self.chat.ask(&Question { system: prompt.system.clone(), user, name, schema }, check).await
    }

    /// Waits for all `questions`, as many at a time as the endpoint takes; their answers come in any order.
    ///
    /// # Errors
    /// `Stopped` if the observer breaks.
    pub(crate) async fn all<T>(
        &self,
        stage: &'static str,
        questions: impl IntoIterator<Item = impl Future<Output = T>>,
        observer: &dyn Observer,
    ) -> Result<Vec<T>> {
        let questions: Vec<_> = questions.into_iter().collect();
        observer.begin(stage, questions.len() as u64);
        let mut answers = Vec::with_capacity(questions.len());
        let mut asked = stream::iter(questions).buffer_unordered(self.chat.endpoint().concurrency());
        while let Some(answer) = asked.next().await {
            answers.push(answer);
            if observer.advance(answers.len() as u64).is_break() {
                return Err(Error::Stopped("the asking of a language model"));
            }
        }
        Ok(answers)
    }
}

/// What is to be said of topics without an answer, if there are any, beside so many that have one: what became of them,
/// and why.
pub(crate) fn lacking(failures: &BTreeMap<i32, Failure>, answered: usize, fate: &str) -> Option<String> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for failure in failures.values() {
        *reasons.entry(failure.to_string()).or_default() += 1;
    }
    let (most, _) = reasons.iter().rev().max_by_key(|(_, topics)| **topics)?;
    let more = match reasons.len() {
        1 => String::new(),
        2 => " (and another reason)".into(),
        many => format!(" (and {} other reasons)", many - 1),
    };
    let (lacking, all) = (failures.len(), answered + failures.len());
    let topics = if lacking == 1 { "topic" } else { "topics" };
    Some(format!("{lacking} {topics} of {all} {fate}: {most}{more}"))
}

/// Texts as a list that a language model is shown, one a line.
pub(crate) fn lines(texts: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = texts.map(|text| format!("- {text}")).collect();
    if lines.is_empty() { "(none)".into() } else { lines.join("\n") }
}
