//! Names by a language model: the flags that say which, the asking, and what is told of it.

use super::Context;
use super::llm::{LlmArgs, judge};
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use operators::labellers::LabellerConfig;
use operators::labellers::llm::{NameMode, Namer, NamerConfig, Naming};
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
    pub(super) fn fill(&self, labeller: &mut LabellerConfig) -> Result<()> {
        if !(self.llm.says_which() || self.name_mode.is_some()) {
            return Ok(());
        }
        let mut namer = match labeller {
            LabellerConfig::Llm(namer) => (**namer).clone(),
            LabellerConfig::Keywords(_) => NamerConfig::default(),
        };
        self.llm.fill(&mut namer.chat)?;
        if let Some(mode) = self.name_mode {
            namer.mode = match mode {
                Mode::Label => NameMode::Label,
                Mode::Words => NameMode::Words,
                Mode::Rated => NameMode::Rated,
            };
        }
        *labeller = LabellerConfig::Llm(Box::new(namer));
        Ok(())
    }
}

/// Another of the endpoint's models beside `namer`.
pub(super) fn beside(namer: &Namer, model: &str) -> Result<Namer> {
    if model == namer.model() {
        let reason = format!("\"{model}\" is the first model too, expected another of the endpoint's models");
        return Err(Error::setting("--beside", reason));
    }
    Ok(namer.beside(model))
}

/// Asks for names of the topics of `model`, and warns of those without one.
pub(super) async fn asked(context: &Context, namer: &Namer, model: &Arc<Model>) -> Result<Naming> {
    let (shared, config) = (Arc::clone(model), namer.config().clone());
    let subjects = on_worker(move || Ok(subjects(&shared, &config)?)).await?;
    let naming = namer.name(&subjects, context.progress.as_ref());
    let naming = context.progress.until_cancelled(naming).await??;
    context.progress.finish();
    if let Some(told) = naming.lacking() {
        tracing::warn!("{told}");
    }
    Ok(naming)
}

/// Has the topics of `model` named, where a language model is to.
pub(super) async fn named(
    context: &Context,
    namer: Option<&Namer>,
    model: Model,
) -> Result<(Model, Option<Naming>)> {
    let Some(namer) = namer.filter(|_| !model.topics.is_empty()) else { return Ok((model, None)) };
    let model = Arc::new(model);
    let naming = asked(context, namer, &model).await?;
    let mut model = Arc::unwrap_or_clone(model);
    naming.apply(&mut model);
    Ok((model, Some(naming)))
}

/// Fails, where `strict`, if the language model did not name every topic of the model that is written at `folder`.
pub(super) fn judge_names(naming: Option<&Naming>, strict: bool, folder: &str) -> Result<()> {
    let Some(naming) = naming else { return Ok(()) };
    let model = folder.trim_end_matches('/').rsplit_once('/').map_or(folder, |(model, _)| model);
    let hint =
        format!("; {folder} is there, and `thema topics {model} --name` asks for what has no answer yet");
    judge(strict, &naming.model, naming.lacking(), &hint)
}

/// A line of what is told of names, for people.
pub(super) fn line(naming: &Naming) -> String {
    format!("names   {}: {}\n", naming.model, naming.usage)
}

/// What is told of names, for machines.
pub(super) fn facts(naming: &Naming) -> Value {
    json!({
        "model": naming.model, "named": naming.names.len(), "not_named": naming.failures.len(),
        "usage": naming.usage,
    })
}
