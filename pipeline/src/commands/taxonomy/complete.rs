//! Schemes completed by a model's topics.

use crate::commands::input::load_encoder;
use crate::commands::output::Output;
use crate::commands::{Context, count, print};
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::Args;
use operators::model::{EncoderConfig, Model};
use operators::taxonomy::complete::{CompleteConfig, Completion, complete};
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

pub(super) async fn run(
    context: &Context,
    model: Model,
    args: &CompleteArgs,
    form: Option<Scheme>,
    out: Option<Output>,
) -> Result<()> {
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
    let completion = on_worker(move || {
        let counters = Counters::default();
        let embed = |texts: &[&str]| encode(&encoder, texts, &counters, || !progress.is_cancelled());
        Ok(complete(&scheme, &model, &config, &embed)?)
    })
    .await?;
    match (form, out) {
        (Some(form), Some(out)) => {
            out.write(&form.write(&completion.scheme)?)?;
            context.tell(&told(&completion, nodes), &facts(&completion))
        }
        (Some(form), None) => print(&form.write(&completion.scheme)?),
        (None, _) => context.tell(&told(&completion, nodes), &facts(&completion)),
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
        let place = completion.scheme.nodes.iter().find(|node| node.topics.contains(&at.topic));
        let parent = place.and_then(|node| node.parent.as_deref());
        let place = parent
            .map_or("at the top".to_string(), |id| format!("under {id} {}", name(&completion.scheme, id)));
        text.push_str(&format!(
            "  {} {} ({}), {place}; nearest: {} {} ({:.2})\n",
            at.topic,
            at.name,
            count(at.size, "row"),
            at.node,
            name(&completion.scheme, &at.node),
            at.similarity
        ));
    }
    text
}

fn name<'s>(scheme: &'s Taxonomy, id: &str) -> &'s str {
    scheme.node(id).map_or("", |node| &node.name)
}

fn facts(completion: &Completion) -> serde_json::Value {
    json!({ "topics": completion.topics, "empty": completion.empty, "scheme": completion.scheme })
}
