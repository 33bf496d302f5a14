//! Taxonomies by a language model.

use crate::commands::Context;
use crate::commands::llm::{LlmArgs, judge};
use crate::commands::versions::{self, Newest};
use crate::models::Found;
use crate::{Error, Result};
use operators::fit::FitConfig;
use operators::llm::{ChatConfig, Llm};
use operators::model::Model;
use operators::taxonomy::llm::{Arrangement, TaxonomyConfig, arrange};
use std::sync::Arc;

/// Has the topics of `model` arranged, where a language model is to; warns where it gave no order.
pub(in crate::commands) async fn arranged(
    context: &Context,
    llm: Option<&Llm>,
    mut model: Model,
) -> Result<(Model, Option<Arrangement>)> {
    let Some(llm) = llm.filter(|_| !model.topics.is_empty()) else { return Ok((model, None)) };
    let asked = arrange(&model.topics, llm, context.progress.as_ref());
    let arrangement = context.progress.until_cancelled(asked).await??;
    context.progress.finish();
    if let Ok(taxonomy) = &arrangement.taxonomy {
        model.taxonomy.clone_from(taxonomy);
    }
    if let Some(told) = arrangement.lacking() {
        tracing::warn!("{told}");
    }
    tracing::info!("taxonomy {}: {}", arrangement.model, arrangement.usage);
    Ok((model, Some(arrangement)))
}

/// Fails, where `strict`, if the language model did not do all that it was asked.
pub(in crate::commands) fn judge_taxonomy(arrangement: Option<&Arrangement>, strict: bool) -> Result<()> {
    arrangement.map_or(Ok(()), |made| judge(strict, &made.model, made.lacking(), ""))
}

/// Has a model's topics arranged, and writes it as a new version.
pub(super) async fn run(
    context: &Context,
    found: &Found,
    mut model: Model,
    flags: &LlmArgs,
) -> Result<(Arc<Model>, Option<Arrangement>)> {
    let place = found.model()?;
    let newest = Newest::at(&place).await?;
    let mut config = FitConfig::of(&model)?;
    config.taxonomy = TaxonomyConfig::Llm(Box::new(chat(&config, flags)?));
    config.check()?;
    let llm = config.taxonomy.open(flags.budget())?;
    model.settings.fit =
        serde_json::to_value(&config).map_err(|e| Error::Internal(format!("settings: {e}")))?;
    let before = model.taxonomy.clone();
    let (model, arrangement) = arranged(context, llm.as_ref(), model).await?;
    let model = Arc::new(model);
    // What a language model did not give is there already.
    if model.taxonomy != before {
        newest.check().await?;
        tracing::info!("model {}", versions::write(context, &place, &model).await?);
    }
    Ok((model, arrangement))
}

/// The language model that arranges a model's topics, or that the flags say.
pub(super) fn chat(config: &FitConfig, flags: &LlmArgs) -> Result<ChatConfig> {
    let mut chat = match &config.taxonomy {
        TaxonomyConfig::Llm(chat) => (**chat).clone(),
        TaxonomyConfig::Clusters => ChatConfig::default(),
    };
    flags.fill(&mut chat)?;
    Ok(chat)
}
