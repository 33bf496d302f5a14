//! Names by a language model: the flags that say which, the asking, and what is told of it.

use super::llm_args::{LlmArgs, until_cancelled};
use super::{Context, count};
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use operators::endpoint::Chat;
use operators::labellers::LabellerConfig;
use operators::labellers::llm::{LlmConfig, NameMode, Naming, name};
use operators::labellers::subjects::subjects;
use operators::model::Model;
use serde_json::{Value, json};
use std::sync::Arc;

/// What language model names topics.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names by a language model")]
pub struct NameSettings {
    #[command(flatten)]
    llm: LlmArgs,
    /// What is asked: one concise name; three words; or a name and an educational score from 1 to 10, which labelled
    /// rows carry [default: label]
    #[arg(long, value_enum, value_name = "MODE")]
    name_mode: Option<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Label,
    Words,
    Rated,
}

impl NameSettings {
    /// Whether any flag is given.
    pub(super) fn is_given(&self) -> bool {
        self.llm.is_given() || self.name_mode.is_some()
    }

    /// The tokens that this run may spend, if it says so.
    pub(super) fn budget(&self) -> Option<u64> {
        self.llm.budget()
    }

    /// Fills in the flags.
    pub(super) fn fill(&self, labeller: &mut LabellerConfig) {
        if !self.is_given() {
            return;
        }
        let mut llm = match labeller {
            LabellerConfig::Llm(llm) => (**llm).clone(),
            LabellerConfig::Keywords(_) => LlmConfig::default(),
        };
        self.llm.fill(&mut llm.endpoint, &mut llm.model, &mut llm.prompts);
        if let Some(mode) = self.name_mode {
            llm.mode = match mode {
                Mode::Label => NameMode::Label,
                Mode::Words => NameMode::Words,
                Mode::Rated => NameMode::Rated,
            };
        }
        *labeller = LabellerConfig::Llm(Box::new(llm));
    }
}

/// A language model that names topics; opened before the work, so that a key that is missing is known by then.
pub(super) struct Namer {
    config: LlmConfig,
    chat: Chat,
}

impl Namer {
    /// Opens the language model of `labeller`, if it is one; `budget` are the tokens that this run may spend.
    pub(super) fn open(labeller: &LabellerConfig, budget: Option<u64>) -> Result<Option<Self>> {
        match labeller {
            LabellerConfig::Keywords(_) => Ok(None),
            LabellerConfig::Llm(llm) => {
                let mut config = (**llm).clone();
                config.endpoint.budget.tokens = budget.or(config.endpoint.budget.tokens);
                Ok(Some(Self { chat: config.open()?, config }))
            }
        }
    }

    /// The same with another of the endpoint's models, through the same connection.
    pub(super) fn beside(&self, model: &str) -> Result<Self> {
        if model == self.config.model {
            let reason =
                format!("\"{model}\" is the first model too, expected another of the endpoint's models");
            return Err(Error::setting("--beside", reason));
        }
        let config = LlmConfig { model: model.into(), ..self.config.clone() };
        Ok(Self { chat: config.with(self.chat.endpoint()), config })
    }

    /// Names the topics of `model`, whose names are those of words.
    pub(super) async fn name(&self, context: &Context, model: &Arc<Model>) -> Result<Naming> {
        let (shared, config) = (Arc::clone(model), self.config.clone());
        let subjects = on_worker(move || Ok(subjects(&shared, &config)?)).await?;
        let naming = name(&subjects, &self.config, &self.chat, context.progress.as_ref());
        let naming = until_cancelled(&context.progress, naming).await??;
        context.progress.finish();
        Ok(naming)
    }
}

/// Warns of topics that the language model did not name.
pub(super) fn warn(naming: &Naming) {
    if let Some(told) = lacking(naming) {
        tracing::warn!("{told}");
    }
}

/// Fails, where `strict`, if the language model did not name every topic of the model that is written at `folder`.
pub(super) fn judge(naming: &Naming, strict: bool, folder: &str) -> Result<()> {
    match lacking(naming).filter(|_| strict) {
        None => Ok(()),
        Some(told) => {
            let model = folder.trim_end_matches('/').rsplit_once('/').map_or(folder, |(model, _)| model);
            let reason = format!(
                "--strict: {told}; {folder} is there, and `thema topics {model} --name` asks for what has no answer yet"
            );
            Err(Error::Service { service: naming.model.clone(), reason })
        }
    }
}

/// What is to be said of topics without a name by the language model.
fn lacking(naming: &Naming) -> Option<String> {
    let mut reasons: Vec<String> = naming.failures.values().map(ToString::to_string).collect();
    let lacking = count(reasons.len() as u64, "topic");
    reasons.sort();
    reasons.dedup();
    let more = match reasons.len() {
        0 => return None,
        1 => String::new(),
        many => format!(" (and {} other reasons)", many - 1),
    };
    Some(format!(
        "{lacking} of {} named by words: {}{more}",
        naming.names.len() + naming.failures.len(),
        reasons[0]
    ))
}

/// A line of what is told of names, for people.
pub(super) fn line(naming: &Naming) -> String {
    format!("names   {}: {}\n", naming.model, naming.usage)
}

/// What is told of names, for machines.
pub(super) fn facts(naming: &Naming) -> Value {
    json!({
        "model": naming.model, "named": naming.names.len(), "named_by_words": naming.failures.len(),
        "usage": naming.usage,
    })
}
