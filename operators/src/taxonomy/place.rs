//! Topics placed in a scheme by a language model.
//!
//! Similarity names the nodes that may be meant, the model says which of them is, or that the topic is new and where it
//! would hang. A topic without an answer stands where similarity placed it.
//!
//! Source: taxonomy-completion asks a model for each topic's relation to the nodes of a scheme; that only the nearest
//! nodes are shown keeps questions short where schemes have thousands.

use super::complete::{Placement, Standing};
use super::llm::{check_definition, line, shown_words};
use super::{Node, Taxonomy};
use crate::Result;
use crate::endpoint::chat::object;
use crate::endpoint::{Failure, Usage};
use crate::fit::Observer;
use crate::llm::{ChatConfig, Llm, lacking, lines};
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
const NAME: &str = "fit.taxonomy.llm";

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
        let questions = (0..self.topics.len()).map(|at| self.asked(at, llm));
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

    async fn asked(&self, at: usize, llm: &Llm) -> (usize, std::result::Result<Answer, Failure>) {
        let topic = &self.model.topics[at];
        let shown = shown(&self.scheme, self.similarities.row(at));
        let about = told_topic(topic);
        let examples = examples(&self.model, topic);
        let nodes: Vec<String> = shown.iter().map(|node| told(&self.scheme, node)).collect();
        let nodes = nodes.join("\n");
        let value = |variable: &str| match variable {
            "topic" => Some(about.as_str()),
            "examples" => Some(examples.as_str()),
            "nodes" => Some(nodes.as_str()),
            _ => None,
        };
        let ids: BTreeSet<&str> = shown.iter().map(|node| node.id.as_str()).collect();
        let check = |answer: &Answer| check(answer, &ids);
        (at, llm.ask(&llm.prompts().place, value, ("place", schema()), check).await)
    }

    /// Takes an answer that was checked.
    fn take(&mut self, at: usize, answer: Answer) {
        let place = self.scheme.nodes.iter().position(|node| node.id == answer.node);
        let similarity = place.map_or(0.0, |place| self.similarities.row(at)[place]);
        self.topics[at] = placed(&self.topics[at], answer, similarity);
    }
}

/// Where a topic stands by an answer that was checked.
fn placed(standing: &Standing, answer: Answer, similarity: f32) -> Standing {
    let Answer { node, belongs, overlaps, definition, reason } = answer;
    Standing {
        similarity,
        overlaps: Some(overlaps).filter(|other| belongs && !other.is_empty()),
        new: !belongs,
        under: Some(node.clone()).filter(|node| !belongs && !node.is_empty()),
        node,
        definition: line(&definition),
        reason: Some(line(&reason)),
        ..standing.clone()
    }
}

/// The nodes that a topic may belong to, in the scheme's order: the most similar, and those above them.
fn shown<'s>(scheme: &'s Taxonomy, similarities: &[f32]) -> Vec<&'s Node> {
    let mut nearest: Vec<usize> = (0..similarities.len()).collect();
    nearest.sort_by(|a, b| similarities[*b].total_cmp(&similarities[*a]).then(a.cmp(b)));
    nearest.truncate(SHOWN_NODES);
    let near = nearest.iter().map(|place| &scheme.nodes[*place]);
    let ids: BTreeSet<&str> = near
        .flat_map(|node| scheme.above(&node.id).into_iter().chain([node]))
        .map(|node| node.id.as_str())
        .collect();
    scheme.nodes.iter().filter(|node| ids.contains(node.id.as_str())).collect()
}

/// A node as it is shown: id, path, definition.
fn told(scheme: &Taxonomy, node: &Node) -> String {
    let mut path: Vec<&str> = scheme.above(&node.id).iter().map(|node| node.name.as_str()).collect();
    path.reverse();
    path.push(&node.name);
    let definition = node.definition.as_ref().map_or(String::new(), |text| format!(": {}", line(text)));
    format!("{} | {}{definition}", node.id, path.join(" > "))
}

/// A topic as it is shown: name, size, words. Not its number, which may be a node's id.
fn told_topic(topic: &Topic) -> String {
    format!("{} ({} texts; {})", topic.name, topic.size, shown_words(topic))
}

/// Texts that stand for a topic, one a line.
fn examples(model: &Model, topic: &Topic) -> String {
    let rows = topic.representatives.iter().filter_map(|row| usize::try_from(*row).ok());
    let texts = rows.filter_map(|row| model.sample.texts.get(row));
    lines(texts.map(|text| cut(&line(text), SHOWN_CHARACTERS).to_string()))
}

/// Says what is wrong with an answer, so that the model can mend it.
fn check(answer: &Answer, ids: &BTreeSet<&str>) -> std::result::Result<(), String> {
    let is_top = answer.node.is_empty() && !answer.belongs;
    if !is_top && !ids.contains(answer.node.as_str()) {
        return Err(format!("names the node \"{}\", which is none of those listed", answer.node));
    }
    // What is new overlaps with nothing, whatever the answer says.
    let overlaps = Some(answer.overlaps.as_str()).filter(|other| answer.belongs && !other.is_empty());
    if overlaps.is_some_and(|other| !ids.contains(other)) {
        return Err(format!("has an overlap with \"{}\", which is none of those listed", answer.overlaps));
    }
    if overlaps == Some(answer.node.as_str()) {
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
        for right in [
            answer("a.1", true, ""),
            answer("a", true, "a.1"),
            answer("", false, ""),
            answer("a", false, "b"),
        ] {
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

    #[test]
    fn of_a_large_scheme_the_nearest_nodes_and_those_above_them_are_shown() {
        let node = |id: String, parent: Option<&str>| Node {
            name: format!("name of {id}"),
            definition: Some("in\ntwo lines".into()),
            parent: parent.map(Into::into),
            id,
            ..Node::default()
        };
        let classes = (0..2).map(|class| node(class.to_string(), None));
        let leaves = (0..60)
            .map(|leaf| node(format!("{}.{leaf}", leaf / 50), Some(if leaf < 50 { "0" } else { "1" })));
        let scheme = Taxonomy::try_new(String::new(), classes.chain(leaves).collect(), Vec::new()).unwrap();
        // The later a node, the more similar: the last ten are under class 1, the ten before under class 0.
        let leaf = |node: &Node| node.id.split_once('.').map_or(-1.0, |(_, leaf)| leaf.parse().unwrap());
        let similarities: Vec<f32> = scheme.nodes.iter().map(leaf).collect();
        let ids: Vec<&str> = shown(&scheme, &similarities).into_iter().map(|node| node.id.as_str()).collect();
        let expected: Vec<String> = std::iter::once("0".to_string())
            .chain((40..50).map(|leaf| format!("0.{leaf}")))
            .chain(["1".to_string()])
            .chain((50..60).map(|leaf| format!("1.{leaf}")))
            .collect();
        assert_eq!(ids, expected);
        let told = told(&scheme, scheme.node("1.59").unwrap());
        assert_eq!(told, "1.59 | name of 1 > name of 1.59: in two lines");
    }

    #[test]
    fn an_answer_says_where_a_topic_stands() {
        let standing = Standing {
            topic: 7,
            name: "graphs".into(),
            size: 9,
            node: "b".into(),
            similarity: 0.1,
            overlaps: Some("c".into()),
            new: true,
            under: Some("b".into()),
            definition: String::new(),
            reason: None,
        };
        let answer = |node: &str, belongs: bool, overlaps: &str| Answer {
            node: node.into(),
            belongs,
            overlaps: overlaps.into(),
            definition: "Of\ngraphs.".into(),
            reason: "So.".into(),
        };
        let at = placed(&standing, answer("a", true, "c"), 0.5);
        assert_eq!(
            (at.node.as_str(), at.new, at.under, at.overlaps.as_deref()),
            ("a", false, None, Some("c"))
        );
        assert_eq!((at.topic, at.similarity, at.definition.as_str()), (7, 0.5, "Of graphs."));
        let at = placed(&standing, answer("a", false, "c"), 0.5);
        assert_eq!((at.new, at.under.as_deref(), at.overlaps), (true, Some("a"), None));
        let at = placed(&standing, answer("", false, ""), 0.0);
        assert_eq!((at.node.as_str(), at.new, at.under), ("", true, None));
    }
}
