//! Taxonomies by a language model.

use crate::commands::Context;
use crate::commands::fit::draw_report;
use crate::commands::llm_args::{LlmArgs, until_cancelled};
use crate::commands::topics::job_of;
use crate::models::{self, Found};
use crate::worker::on_worker;
use crate::{Error, Result};
use operators::endpoint::Chat;
use operators::fit::FitConfig;
use operators::model::Model;
use operators::taxonomy::llm::{Arrangement, TaxonomistConfig, TaxonomyConfig, arrange};
use operators::vectors::Counters;
use std::sync::Arc;
use std::time::Duration;

/// A language model that arranges topics; opened before the work, so that a key that is missing is known by then.
pub(in crate::commands) struct Taxonomist {
    config: TaxonomistConfig,
    chat: Chat,
}

impl Taxonomist {
    /// Opens the language model of `config`, if it is one; `budget` are the tokens that this run may spend.
    pub(in crate::commands) fn open(config: &TaxonomyConfig, budget: Option<u64>) -> Result<Option<Self>> {
        match config {
            TaxonomyConfig::Clusters => Ok(None),
            TaxonomyConfig::Llm(llm) => {
                let mut config = (**llm).clone();
                config.endpoint.budget.tokens = budget.or(config.endpoint.budget.tokens);
                Ok(Some(Self { chat: config.open()?, config }))
            }
        }
    }
}

/// Has the topics of `model` arranged, where a language model is to; warns where it gave no order.
pub(in crate::commands) async fn arranged(
    context: &Context,
    taxonomist: Option<&Taxonomist>,
    mut model: Model,
) -> Result<(Model, Option<Arrangement>)> {
    let Some(Taxonomist { config, chat }) = taxonomist.filter(|_| !model.topics.is_empty()) else {
        return Ok((model, None));
    };
    let asked = arrange(&model.topics, config, chat, context.progress.as_ref());
    let arrangement = until_cancelled(&context.progress, asked).await??;
    context.progress.finish();
    if let Ok(taxonomy) = &arrangement.taxonomy {
        model.taxonomy.clone_from(taxonomy);
    }
    if let Some(told) = lacking(&arrangement) {
        tracing::warn!("{told}");
    }
    tracing::info!("taxonomy {}: {}", arrangement.model, arrangement.usage);
    Ok((model, Some(arrangement)))
}

/// Fails, where `strict`, if the language model did not do all that it was asked.
pub(in crate::commands) fn judge(arrangement: &Arrangement, strict: bool) -> Result<()> {
    match lacking(arrangement).filter(|_| strict) {
        None => Ok(()),
        Some(told) => {
            Err(Error::Service { service: arrangement.model.clone(), reason: format!("--strict: {told}") })
        }
    }
}

/// What is to be said of what a language model did not do.
fn lacking(arrangement: &Arrangement) -> Option<String> {
    match (&arrangement.taxonomy, arrangement.undefined.iter().next()) {
        (Err(failure), _) => Some(format!("the taxonomy is that of the clusters: {failure}")),
        (Ok(_), Some((class, failure))) => {
            Some(format!("the topics of \"{class}\" have no definitions: {failure}"))
        }
        (Ok(_), None) => None,
    }
}

/// Has a model's topics arranged, and writes it as a new version.
pub(super) async fn run(
    context: &Context,
    found: &Found,
    mut model: Model,
    flags: &LlmArgs,
) -> Result<(Arc<Model>, Option<Arrangement>)> {
    let place = found.model()?;
    let mut config = FitConfig::of(&model)?;
    let mut llm = match &config.taxonomy {
        TaxonomyConfig::Llm(llm) => (**llm).clone(),
        TaxonomyConfig::Clusters => TaxonomistConfig::default(),
    };
    flags.fill(&mut llm.endpoint, &mut llm.model, &mut llm.prompts);
    config.taxonomy = TaxonomyConfig::Llm(Box::new(llm));
    config.check()?;
    let taxonomist = Taxonomist::open(&config.taxonomy, flags.budget())?;
    model.settings.fit =
        serde_json::to_value(&config).map_err(|e| Error::Internal(format!("settings: {e}")))?;
    let before = model.taxonomy.clone();
    let (model, arrangement) = arranged(context, taxonomist.as_ref(), model).await?;
    let model = Arc::new(model);
    // What a language model did not give is there already.
    if model.taxonomy != before {
        let drawn = Arc::clone(&model);
        let extras =
            on_worker(move || draw_report(&drawn, &job_of(&drawn)?, &Counters::default(), Duration::ZERO))
                .await?;
        context.progress.check()?;
        tracing::info!("model {}", models::save(&place, &model, extras).await?);
    }
    Ok((model, arrangement))
}
