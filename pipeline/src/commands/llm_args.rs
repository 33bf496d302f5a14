//! What commands that ask language models share: the flags that say which, and waiting for its answers.

use crate::progress::Progress;
use crate::{Error, Result};
use clap::Args;
use operators::endpoint::EndpointConfig;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at whether the user wants a wait to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    /// Tokens that may be spent; what has no answer by then stays as it is without a language model [default: any number]
    #[arg(long, value_name = "TOKENS")]
    llm_budget: Option<u64>,
}

impl LlmArgs {
    /// Whether any flag is given.
    pub(super) fn is_given(&self) -> bool {
        let Self { llm_url, llm_model, llm_key, prompts, llm_budget } = self;
        [llm_url, llm_model, llm_key].iter().any(|flag| flag.is_some())
            || prompts.is_some()
            || llm_budget.is_some()
    }

    /// Fills in the flags.
    pub(super) fn fill(
        &self,
        endpoint: &mut EndpointConfig,
        model: &mut String,
        prompts: &mut Option<PathBuf>,
    ) {
        if let Some(url) = self.llm_url.as_ref().filter(|url| **url != endpoint.url) {
            endpoint.url.clone_from(url);
            // A key is for one place alone.
            endpoint.key = None;
        }
        if let Some(named) = &self.llm_model {
            model.clone_from(named);
        }
        if self.llm_key.is_some() {
            endpoint.key.clone_from(&self.llm_key);
        }
        if self.prompts.is_some() {
            prompts.clone_from(&self.prompts);
        }
    }

    /// The tokens that this run may spend, if it says so; no model remembers them.
    pub(super) fn budget(&self) -> Option<u64> {
        self.llm_budget
    }
}

/// Waits for `work`, or until the user wants no more of it.
pub(super) async fn until_cancelled<T>(progress: &Progress, work: impl Future<Output = T>) -> Result<T> {
    let asked = async {
        while !progress.is_cancelled() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        done = work => Ok(done),
        () = asked => Err(Error::Cancelled),
    }
}
