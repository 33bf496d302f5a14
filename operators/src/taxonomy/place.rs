//! Topics placed in a scheme by a language model.
//!
//! Similarity names the nodes that may be meant, the model says which of them is, or that the topic is new and where it
//! would hang. A topic without an answer stands where similarity placed it.
//!
//! Source: taxonomy-completion asks a model for each topic's relation to the nodes of a scheme; that only the nearest
//! nodes are shown keeps questions short where schemes have thousands.

use super::Node;
use super::complete::{Placement, Standing};
use super::llm::{check_definition, line, listed};
use crate::Result;
use crate::endpoint::chat::object;
use crate::endpoint::{Failure, Usage};
use crate::fit::Observer;
use crate::llm::{ChatConfig, Llm, lacking};
use crate::model::{Model, Topic};
use crate::text::cut;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Of a larger scheme so many nodes are shown, the most similar, with those above them.
const SHOWN_NODES: usize = 20;

/// Characters of a text that are shown.
const SHOWN_CHARACTERS: usize = 300;

/// The longest answer, in tokens: a definition and a reason are some hundred, and some models think before.
const ANSWER_TOKENS: u32 = 600;

/// What errors call the language model.
const NAME: &str = "language model";

/// What became of topics that a language model was to place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The model.
    pub model: String,
    /// Topics that it placed.
    pub placed: usize,
    /// Why the others stand where similarity placed them.
    pub failures: BTreeMap<i32, Failure>,
    /// What was asked and spent.
    pub usage: Usage,
}

impl Placed {
    /// What is to be said of topics that the language model did not place, if there are any.
    pub fn lacking(&self) -> Option<String> {
        lacking(&self.failures, self.placed, "placed by similarity")
    }
}

#[derive(Deserialize)]
struct Answer {
    node: String,
    belongs: bool,
    overlaps: String,
    definition: String,
    reason: String,
}

/// Opens a language model that places topics.
///
/// # Errors
/// What [`Llm::open`] fails with.
pub fn open(chat: &ChatConfig) -> Result<Llm> {
    Llm::open(NAME, chat, ANSWER_TOKENS)
}

impl Placement {
    /// Has the language model place each topic.
    ///
    /// # Errors
    /// `Stopped` if the observer breaks.
    pub async fn by_llm(&mut self, llm: &Llm, observer: &dyn Observer) -> Result<Placed> {
        let questions =
            (0..self.topics.len()).map(|at| self.asked(&self.model.topics[at], at, llm)).collect::<Vec<_>>();
        let answers = llm.all("places", questions, observer).await?;
        let mut placed = Placed {
            model: llm.model().to_string(),
            placed: 0,
            failures: BTreeMap::new(),
            usage: llm.usage(),
        };
        for (at, answer) in answers {
            match answer {
                Ok(answer) => {
                    self.take(at, answer);
                    placed.placed += 1;
                }
                Err(failure) => drop(placed.failures.insert(self.topics[at].topic, failure)),
            }
        }
        Ok(placed)
    }

    async fn asked(
        &self,
        topic: &Topic,
        at: usize,
        llm: &Llm,
    ) -> (usize, std::result::Result<Answer, Failure>) {
        let shown = self.shown(at);
        let topic_line = listed(std::iter::once(topic));
        let examples = examples(&self.model, topic);
        let nodes: Vec<String> = shown.iter().map(|node| self.told(node)).collect();
        let nodes = nodes.join("\n");
        let value = |variable: &str| match variable {
            "topic" => Some(topic_line.as_str()),
            "examples" => Some(examples.as_str()),
            "nodes" => Some(nodes.as_str()),
            _ => None,
        };
        let ids: BTreeSet<&str> = shown.iter().map(|node| node.id.as_str()).collect();
        let check = |answer: &Answer| check(answer, &ids);
        (at, llm.ask(&llm.prompts().place, value, ("place", schema()), check).await)
    }

    /// The nodes that a topic may belong to, in the scheme's order.
    fn shown(&self, at: usize) -> Vec<&Node> {
        let row = self.similarities.row(at);
        let mut nearest: Vec<usize> = (0..row.len()).collect();
        nearest.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        nearest.truncate(SHOWN_NODES);
        let near = nearest.iter().map(|place| &self.scheme.nodes[*place]);
        let ids: BTreeSet<&str> = near
            .flat_map(|node| self.scheme.above(&node.id).into_iter().chain([node]))
            .map(|node| node.id.as_str())
            .collect();
        self.scheme.nodes.iter().filter(|node| ids.contains(node.id.as_str())).collect()
    }

    /// A node as it is shown: id, path, definition.
    fn told(&self, node: &Node) -> String {
        let mut path: Vec<&str> = self.scheme.above(&node.id).iter().map(|node| node.name.as_str()).collect();
        path.reverse();
        path.push(&node.name);
        let definition =
            node.definition.as_ref().map_or(String::new(), |definition| format!(": {definition}"));
        format!("{} | {}{definition}", node.id, path.join(" > "))
    }

    /// Takes an answer that was checked.
    fn take(&mut self, at: usize, answer: Answer) {
        let Answer { node, belongs, overlaps, definition, reason } = answer;
        let place = self.scheme.nodes.iter().position(|known| known.id == node);
        let standing = &mut self.topics[at];
        *standing = Standing {
            similarity: place.map_or(0.0, |place| self.similarities.row(at)[place]),
            overlaps: Some(overlaps).filter(|other| belongs && !other.is_empty()),
            new: !belongs,
            under: Some(node.clone()).filter(|node| !belongs && !node.is_empty()),
            node,
            definition: line(&definition),
            reason: Some(line(&reason)),
            ..standing.clone()
        };
    }
}

/// Texts that stand for a topic, one a line.
fn examples(model: &Model, topic: &Topic) -> String {
    let texts =
        topic.representatives.iter().filter_map(|row| model.sample.texts.get(usize::try_from(*row).ok()?));
    let lines: Vec<String> = texts.map(|text| format!("- {}", cut(&line(text), SHOWN_CHARACTERS))).collect();
    if lines.is_empty() { "(none)".into() } else { lines.join("\n") }
}

/// Says what is wrong with an answer, so that the model can mend it.
fn check(answer: &Answer, ids: &BTreeSet<&str>) -> std::result::Result<(), String> {
    let is_top = answer.node.is_empty() && !answer.belongs;
    if !is_top && !ids.contains(answer.node.as_str()) {
        return Err(format!("names the node \"{}\", which is none of those listed", answer.node));
    }
    if !answer.overlaps.is_empty() && !ids.contains(answer.overlaps.as_str()) {
        return Err(format!("has an overlap with \"{}\", which is none of those listed", answer.overlaps));
    }
    if !answer.overlaps.is_empty() && answer.overlaps == answer.node {
        return Err(format!("has an overlap of \"{}\" with itself", answer.node));
    }
    if answer.reason.trim().is_empty() {
        return Err("has an empty reason".into());
    }
    check_definition(&answer.definition)
}

fn schema() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    object(json!({
        "node": text("the id of the node it belongs to or should hang under"),
        "belongs": { "type": "boolean", "description": "whether it belongs to the node" },
        "overlaps": text("the id of a second node, or empty"),
        "definition": text("one or two sentences"),
        "reason": text("one sentence"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_place_is_said() {
        let answer = |node: &str, belongs: bool, overlaps: &str| Answer {
            node: node.into(),
            belongs,
            overlaps: overlaps.into(),
            definition: "Texts.".into(),
            reason: "So it is.".into(),
        };
        let ids: BTreeSet<&str> = ["a", "a.1"].into();
        for right in
            [answer("a.1", true, ""), answer("a", true, "a.1"), answer("", false, ""), answer("a", false, "")]
        {
            check(&right, &ids).unwrap();
        }
        for (wrong, words) in [
            (answer("b", true, ""), "the node \"b\""),
            (answer("", true, ""), "the node \"\""),
            (answer("a", true, "b"), "overlap with \"b\""),
            (answer("a", true, "a"), "with itself"),
            (Answer { reason: " ".into(), ..answer("a", true, "") }, "empty reason"),
            (Answer { definition: " ".into(), ..answer("a", true, "") }, "empty definition"),
        ] {
            let told = check(&wrong, &ids).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }
}
