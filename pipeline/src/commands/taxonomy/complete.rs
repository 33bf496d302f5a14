//! Schemes completed by a model's topics.

use crate::commands::input::load_encoder;
use crate::commands::llm::judge;
use crate::commands::output::Output;
use crate::commands::{Context, count, print};
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::Args;
use operators::llm::Llm;
use operators::model::{EncoderConfig, Model};
use operators::taxonomy::complete::{CompleteConfig, Completion, Placement, Standing};
use operators::taxonomy::{Scheme, Taxonomy};
use operators::vectors::{Counters, encode};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a scheme is completed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Completion of a scheme")]
pub(super) struct CompleteArgs {
    /// A scheme to complete by the model's topics: what of it is covered, what is empty, what is new
    #[arg(long, value_name = "FILE")]
    scheme: Option<String>,
    /// The least similarity of a topic and the node it belongs to [default: 0.35]
    #[arg(long, value_name = "0..1", requires = "scheme")]
    min_similarity: Option<f32>,
    /// Arranges the topics of this node under it
    #[arg(long, value_name = "NODE", requires = "scheme")]
    grow: Option<String>,
    /// What embeds the scheme's nodes, where the model's vectors come from a column: the encoder that made those
    #[arg(long, value_name = "DIR|NAME", requires = "scheme")]
    scheme_encoder: Option<String>,
}

impl CompleteArgs {
    /// Whether a scheme is given.
    pub(super) fn is_given(&self) -> bool {
        self.scheme.is_some()
    }
}

/// Who places topics, and where the scheme that they complete is shown.
pub(super) struct Means {
    /// The language model that is asked; similarity alone without one.
    pub(super) llm: Option<Llm>,
    /// Whether it fails where the language model did not place every topic.
    pub(super) strict: bool,
    /// The form of the scheme; none: what became of it is told.
    pub(super) form: Option<Scheme>,
    /// The file that is written; standard output without one.
    pub(super) out: Option<Output>,
}

pub(super) async fn run(context: &Context, model: Model, args: &CompleteArgs, means: Means) -> Result<()> {
    let Some(path) = &args.scheme else { return Err(Error::Internal("completion without a scheme".into())) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::place(path, e.to_string()))?;
    let scheme = Scheme::of(path)?.read(path, &text)?;
    let encoder = match (&args.scheme_encoder, &model.encoder) {
        (Some(name), _) => EncoderConfig { name: Some(name.clone()), ..EncoderConfig::default() },
        (None, Some(_)) => model.settings.encoder.clone(),
        (None, None) => {
            let reason = "the model's vectors come from a column: give the encoder that made them";
            return Err(Error::setting("--scheme-encoder", reason));
        }
    };
    let encoder = load_encoder(context, &encoder).await?;
    if let Some(fitted) = &model.encoder {
        let differences = fitted.differences(encoder.identity());
        if !differences.is_empty() {
            let reason = format!("the model was fitted with another encoder: {}", differences.join(", "));
            return Err(Error::setting("--scheme-encoder", reason));
        }
    }
    let progress = Arc::clone(&context.progress);
    let config = CompleteConfig {
        min_similarity: args.min_similarity.unwrap_or(CompleteConfig::default().min_similarity),
        grow: args.grow.clone(),
        ..CompleteConfig::default()
    };
    let nodes = scheme.nodes.len();
    let mut placement = on_worker(move || {
        let counters = Counters::default();
        let embed = |texts: &[&str]| encode(&encoder, texts, &counters, || !progress.is_cancelled());
        Ok(Placement::by_similarity(scheme, Arc::new(model), &config, &embed)?)
    })
    .await?;
    let mut placed = None;
    if let Some(llm) = &means.llm {
        let asked = placement.by_llm(llm, context.progress.as_ref());
        let asked = context.progress.until_cancelled(asked).await??;
        context.progress.finish();
        if let Some(told) = asked.lacking() {
            tracing::warn!("{told}");
        }
        tracing::info!("places {}: {}", asked.model, asked.usage);
        placed = Some(asked);
    }
    let completion = on_worker(move || Ok(placement.complete()?)).await?;
    let verdict = placed.map_or(Ok(()), |placed| judge(means.strict, &placed.model, placed.lacking(), ""));
    let scheme = means.form.map(|form| form.write(&completion.scheme)).transpose()?;
    match (scheme, means.out) {
        (Some(scheme), None) => print(&scheme).and(verdict),
        (scheme, out) => {
            context.tell(&told(&completion, nodes), &facts(&completion))?;
            verdict?;
            match (scheme, out) {
                (Some(scheme), Some(out)) => out.write(&scheme),
                _ => Ok(()),
            }
        }
    }
}

/// What is told to people: the nodes with their topics, then what is new.
fn told(completion: &Completion, nodes: usize) -> String {
    let new: Vec<_> = completion.topics.iter().filter(|at| at.new).collect();
    let mut text = format!(
        "{} of {}: {} belong to it, {} are new; {} of {nodes} nodes are empty\n",
        count(nodes as u64, "node"),
        if completion.scheme.title.is_empty() { "the scheme" } else { &completion.scheme.title },
        count((completion.topics.len() - new.len()) as u64, "topic"),
        new.len(),
        completion.empty.len(),
    );
    let by_node = completion.topics.iter().filter(|at| !at.new).fold(
        BTreeMap::<&str, Vec<_>>::new(),
        |mut nodes, at| {
            nodes.entry(&at.node).or_default().push(at);
            nodes
        },
    );
    text.push_str("\ncovered\n");
    for node in completion.scheme.nodes.iter().filter(|node| by_node.contains_key(node.id.as_str())) {
        text.push_str(&format!("  {} {}\n", node.id, node.name));
        for at in &by_node[node.id.as_str()] {
            let overlaps = at.overlaps.as_ref().map_or(String::new(), |other| format!(", overlaps {other}"));
            text.push_str(&format!(
                "    {} {} ({}, {:.2}{overlaps})\n",
                at.topic,
                at.name,
                count(at.size, "row"),
                at.similarity
            ));
        }
    }
    text.push_str("\nempty\n");
    for id in &completion.empty {
        text.push_str(&format!("  {id} {}\n", name(&completion.scheme, id)));
    }
    text.push_str("\nnew\n");
    for at in new {
        let under = at.under.as_ref();
        let place =
            under.map_or("at the top".into(), |id| format!("under {id} {}", name(&completion.scheme, id)));
        let why = why(at, &completion.scheme);
        text.push_str(&format!("  {} {} ({}), {place}; {why}\n", at.topic, at.name, count(at.size, "row")));
    }
    text
}

/// Why a new topic hangs where it does: by the language model's word, or the node that it is most similar to.
fn why(at: &Standing, scheme: &Taxonomy) -> String {
    let nearest = || format!("nearest: {} {} ({:.2})", at.node, name(scheme, &at.node), at.similarity);
    at.reason.clone().unwrap_or_else(nearest)
}

fn name<'s>(scheme: &'s Taxonomy, id: &str) -> &'s str {
    scheme.node(id).map_or("", |node| &node.name)
}

fn facts(completion: &Completion) -> serde_json::Value {
    json!({ "topics": completion.topics, "empty": completion.empty, "scheme": completion.scheme })
}
