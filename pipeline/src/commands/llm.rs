//! What commands that ask language models share: the flags that say which, and what follows from what it did not do.

use crate::{Error, Result};
use clap::Args;
use operators::llm::ChatConfig;
use std::path::PathBuf;

/// A language model.
#[derive(Debug, Args)]
pub struct LlmArgs {
    /// The base of an OpenAI-compatible API whose model is asked: http://localhost:8000/v1 [default: none is]
    #[arg(long, value_name = "URL")]
    llm_url: Option<String>,
    /// The model's name there
    #[arg(long, value_name = "NAME")]
    llm_model: Option<String>,
    /// Where the key is, never the key: '${VARIABLE}' of the environment, or file:PATH
    #[arg(long, value_name = "PLACE")]
    llm_key: Option<String>,
    /// A file of prompts; thema check --prompts prints the built-in ones
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Tokens that a language model may spend, each one of a job as many; what has no answer by then stays as it is
    /// without one [default: any number]
    #[arg(long, value_name = "TOKENS")]
    llm_budget: Option<u64>,
}

impl LlmArgs {
    /// Whether any flag is given.
    pub(super) fn is_given(&self) -> bool {
        self.says_which() || self.llm_budget.is_some()
    }

    /// Whether any flag is given that says which language model is asked, and how.
    pub(super) fn says_which(&self) -> bool {
        let Self { llm_url, llm_model, llm_key, prompts, llm_budget: _ } = self;
        [llm_url, llm_model, llm_key].iter().any(|flag| flag.is_some()) || prompts.is_some()
    }

    /// Fills in the flags.
    pub(super) fn fill(&self, chat: &mut ChatConfig) -> Result<()> {
        if let Some(url) = self.llm_url.as_ref().filter(|url| **url != chat.endpoint.url) {
            chat.endpoint.url.clone_from(url);
            // A key is for one place alone.
            chat.endpoint.key = None;
        }
        if let Some(model) = &self.llm_model {
            chat.model.clone_from(model);
        }
        if self.llm_key.is_some() {
            chat.endpoint.key.clone_from(&self.llm_key);
        }
        if self.prompts.is_some() {
            chat.prompts.clone_from(&self.prompts);
        }
        Ok(chat.make_paths_whole()?)
    }

    /// The tokens that this run may spend, if it says so; no model remembers them.
    pub(super) fn budget(&self) -> Option<u64> {
        self.llm_budget
    }
}

/// Fails, where `strict`, if there is anything that the language model `model` did not do; `hint` says what follows.
pub(super) fn judge(strict: bool, model: &str, lacking: Option<String>, hint: &str) -> Result<()> {
    match lacking.filter(|_| strict) {
        None => Ok(()),
        Some(told) => {
            Err(Error::Service { service: model.into(), reason: format!("--strict: {told}{hint}") })
        }
    }
}
