//! A taxonomy by a language model.
//!
//! One question arranges the topics: classes, sub-classes, a definition of each, and cross references with reasons. One
//! more a class defines its topics. What the model arranges is checked like any other answer: every topic at one place,
//! no class or sub-class without topics, no name twice. Where it gives no such order, the one made without it stands.

use super::{CrossReference, Node, Taxonomy};
use crate::Result;
use crate::endpoint::chat::object;
use crate::endpoint::{Failure, Usage};
use crate::fit::Observer;
use crate::labellers::llm::{check_name, cleaned};
use crate::llm::{ChatConfig, Llm};
use crate::model::Topic;
use crate::text::is_unseen;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// More topics than this are too many for one question.
const MOST_ASKED: usize = 1_000;

/// Words of a topic that are shown.
const SHOWN_WORDS: usize = 6;

/// The longest definition: two sentences.
const DEFINITION_CHARACTERS: usize = 600;

/// The longest answer, in tokens: an order of some 300 topics.
const ANSWER_TOKENS: u32 = 8_000;

/// What the job file calls the language model.
const NAME: &str = "fit.taxonomy.llm";

/// What arranges topics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum TaxonomyConfig {
    /// How near they lie to each other: needs no model and no network.
    #[default]
    Clusters,
    /// A language model; where it gives no order, how near they lie.
    Llm(Box<ChatConfig>),
}

impl TaxonomyConfig {
    /// Checks every setting that no network is needed for.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Clusters => Ok(()),
            Self::Llm(chat) => chat.check(NAME),
        }
    }

    /// Opens the language model, if it is one; `budget` are the tokens that this run may spend.
    ///
    /// # Errors
    /// What [`Llm::open`] fails with.
    pub fn open(&self, budget: Option<u64>) -> Result<Option<Llm>> {
        match self {
            Self::Clusters => Ok(None),
            Self::Llm(chat) => Llm::open(NAME, &chat.within(budget), ANSWER_TOKENS).map(Some),
        }
    }
}

/// What a language model made of topics.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrangement {
    /// The model.
    pub model: String,
    /// The taxonomy, or why there is none.
    pub taxonomy: std::result::Result<Taxonomy, Failure>,
    /// Why some topics have no definition, by class.
    pub undefined: BTreeMap<String, Failure>,
    /// What was asked and spent.
    pub usage: Usage,
}

impl Arrangement {
    /// What is to be said of what the language model did not do, if it did not do all.
    pub fn lacking(&self) -> Option<String> {
        match (&self.taxonomy, self.undefined.iter().next()) {
            (Err(failure), _) => {
                Some(format!("{} gave no taxonomy, and it stays as it was: {failure}", self.model))
            }
            (Ok(_), Some((class, failure))) => {
                Some(format!("the topics of \"{class}\" have no definitions: {failure}"))
            }
            (Ok(_), None) => None,
        }
    }
}

/// Has the language model arrange `topics`.
///
/// # Errors
/// `Stopped` if the observer breaks.
pub async fn arrange(topics: &[Topic], llm: &Llm, observer: &dyn Observer) -> Result<Arrangement> {
    let order = match topics.len() {
        0..=MOST_ASKED => llm.all("taxonomy", [ask_order(topics, llm)], observer).await?.swap_remove(0),
        many => Err(Failure::Useless(format!(
            "{many} topics are too many for one question, {MOST_ASKED} at most"
        ))),
    };
    let mut undefined = BTreeMap::new();
    let taxonomy = match order {
        Err(failure) => Err(failure),
        Ok(order) => {
            let questions = order
                .classes
                .iter()
                .map(|class| async { (class.name.clone(), ask_definitions(topics, class, llm).await) });
            let mut definitions = BTreeMap::new();
            for (class, found) in llm.all("definitions", questions, observer).await? {
                match found {
                    Ok(found) => definitions.extend(found),
                    Err(failure) => drop(undefined.insert(class, failure)),
                }
            }
            let made = taxonomy(topics, &order, &definitions);
            made.map_err(|e| Failure::Useless(e.to_string()))
        }
    };
    Ok(Arrangement { model: llm.model().to_string(), taxonomy, undefined, usage: llm.usage() })
}

#[derive(Debug, Deserialize)]
struct Order {
    classes: Vec<Class>,
    cross_references: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Class {
    name: String,
    definition: String,
    subclasses: Vec<Subclass>,
}

#[derive(Debug, Deserialize)]
struct Subclass {
    name: String,
    definition: String,
    topics: Vec<i32>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    from: i32,
    to: i32,
    reason: String,
}

#[derive(Deserialize)]
struct Definitions {
    definitions: Vec<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    topic: i32,
    definition: String,
}

async fn ask_order(topics: &[Topic], llm: &Llm) -> std::result::Result<Order, Failure> {
    let listed = listed(topics.iter());
    let value = |variable: &str| (variable == "topics").then_some(listed.as_str());
    let known: BTreeSet<i32> = topics.iter().map(|topic| topic.id).collect();
    let check = |order: &Order| check_order(order, &known);
    llm.ask(&llm.prompts().taxonomy, value, ("taxonomy", order_schema()), check).await
}

async fn ask_definitions(
    topics: &[Topic],
    class: &Class,
    llm: &Llm,
) -> std::result::Result<BTreeMap<i32, String>, Failure> {
    let wanted: BTreeSet<i32> =
        class.subclasses.iter().flat_map(|part| part.topics.iter().copied()).collect();
    let listed = listed(topics.iter().filter(|topic| wanted.contains(&topic.id)));
    let about = format!("{}: {}", class.name, class.definition);
    let value = |variable: &str| match variable {
        "topics" => Some(listed.as_str()),
        "class" => Some(about.as_str()),
        _ => None,
    };
    let check = |answer: &Definitions| {
        let found: BTreeSet<i32> = answer.definitions.iter().map(|found| found.topic).collect();
        if found != wanted || answer.definitions.len() != wanted.len() {
            return Err(format!("does not define each topic once, expected the topics {wanted:?}"));
        }
        answer.definitions.iter().try_for_each(|found| check_definition(&found.definition))
    };
    let schema = ("definitions", definitions_schema());
    let answer: Definitions = llm.ask(&llm.prompts().definitions, value, schema, check).await?;
    Ok(answer.definitions.into_iter().map(|found| (found.topic, line(&found.definition))).collect())
}

/// Topics as they are shown: number, name, size, words.
fn listed<'t>(topics: impl Iterator<Item = &'t Topic>) -> String {
    let line = |topic: &Topic| {
        format!("{}. {} ({} texts; {})", topic.id, topic.name, topic.size, shown_words(topic))
    };
    topics.map(line).collect::<Vec<_>>().join("\n")
}

/// The words of a topic that are shown.
pub(super) fn shown_words(topic: &Topic) -> String {
    topic.words.iter().take(SHOWN_WORDS).map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(", ")
}

/// Says what is wrong with an order, so that the model can mend it.
fn check_order(order: &Order, known: &BTreeSet<i32>) -> std::result::Result<(), String> {
    let mut placed = BTreeSet::new();
    let mut names = BTreeSet::new();
    for class in &order.classes {
        check_class(&class.name, None, &mut names)?;
        check_definition(&class.definition)?;
        if class.subclasses.is_empty() {
            return Err(format!("has the class \"{}\" without sub-classes", class.name));
        }
        for part in &class.subclasses {
            check_class(&part.name, Some(&class.name), &mut names)?;
            check_definition(&part.definition)?;
            if part.topics.is_empty() {
                return Err(format!("has the sub-class \"{}\" without topics", part.name));
            }
            for topic in &part.topics {
                if !known.contains(topic) {
                    return Err(format!("places topic {topic}, which is not there"));
                }
                if !placed.insert(*topic) {
                    return Err(format!("places topic {topic} twice"));
                }
            }
        }
    }
    let lost: Vec<String> = known.difference(&placed).map(i32::to_string).collect();
    if !lost.is_empty() {
        return Err(format!("does not place the topics {}", lost.join(", ")));
    }
    for Reference { from, to, reason } in &order.cross_references {
        if from == to || !known.contains(from) || !known.contains(to) || reason.trim().is_empty() {
            return Err(format!(
                "has a cross reference from {from} to {to} that is none, or without a reason"
            ));
        }
    }
    Ok(())
}

fn check_class<'n>(
    name: &str,
    class: Option<&'n str>,
    names: &mut BTreeSet<(Option<&'n str>, String)>,
) -> std::result::Result<(), String> {
    check_name(name)?;
    match names.insert((class, cleaned(name).to_lowercase())) {
        true => Ok(()),
        false => Err(format!("has the name \"{name}\" twice")),
    }
}

pub(super) fn check_definition(text: &str) -> std::result::Result<(), String> {
    match text.trim().chars().count() {
        0 => Err("has an empty definition".into()),
        1..=DEFINITION_CHARACTERS => Ok(()),
        long => Err(format!("has a definition of {long} characters, expected one or two sentences")),
    }
}

/// What a model says, in one line.
pub(super) fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !is_unseen(*c)).collect()
}

/// The nodes of an order that was checked.
fn taxonomy(topics: &[Topic], order: &Order, definitions: &BTreeMap<i32, String>) -> Result<Taxonomy> {
    let topic = |id: &i32| topics.iter().find(|topic| topic.id == *id);
    let mut nodes = Vec::new();
    let mut places: BTreeMap<i32, String> = BTreeMap::new();
    let node = |id: String, name: &str, definition: &str, parent: Option<String>| Node {
        id,
        name: cleaned(name),
        definition: Some(line(definition)),
        parent,
        ..Node::default()
    };
    for (number, class) in (1..).zip(&order.classes) {
        let class_id = format!("{number}");
        nodes.push(node(class_id.clone(), &class.name, &class.definition, None));
        for (number, part) in (1..).zip(&class.subclasses) {
            let part_id = format!("{class_id}.{number}");
            nodes.push(node(part_id.clone(), &part.name, &part.definition, Some(class_id.clone())));
            let mut names = BTreeSet::new();
            for (number, topic) in (1..).zip(part.topics.iter().filter_map(topic)) {
                let id = format!("{part_id}.{number}");
                // Names of words may be those of a topic beside it.
                let mut name = topic.name.clone();
                while !names.insert(name.to_lowercase()) {
                    name = format!("{name} ({})", topic.id);
                }
                nodes.push(Node {
                    definition: definitions.get(&topic.id).cloned(),
                    topics: vec![topic.id],
                    ..node(id.clone(), &name, "", Some(part_id.clone()))
                });
                places.insert(topic.id, id);
            }
        }
    }
    for Reference { from, to, reason } in &order.cross_references {
        let from = nodes.iter_mut().find(|node| node.topics.contains(from));
        if let (Some(node), Some(to)) = (from, places.get(to)) {
            node.see_also.push(CrossReference { to: to.clone(), reason: line(reason) });
        }
    }
    let mut made = Taxonomy::try_new(String::new(), nodes, Vec::new())?;
    made.count(|id| topic(&id).map_or(0, |topic| topic.size));
    Ok(made)
}

fn order_schema() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let topic = json!({ "type": "integer", "description": "a topic's number" });
    let part = object(json!({
        "name": text("the sub-class"), "definition": text("one or two sentences"), "topics": list(topic.clone()),
    }));
    let class = object(json!({
        "name": text("the class"), "definition": text("one or two sentences"), "subclasses": list(part),
    }));
    let reference = object(json!({ "from": topic, "to": topic, "reason": text("why both belong together") }));
    object(json!({ "classes": list(class), "cross_references": list(reference) }))
}

fn definitions_schema() -> Value {
    let definition = object(json!({
        "topic": { "type": "integer" }, "definition": { "type": "string", "description": "one or two sentences" },
    }));
    object(json!({ "definitions": { "type": "array", "items": definition } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(text: &str) -> Order {
        serde_json::from_str(text).unwrap()
    }

    fn whole() -> String {
        r#"{ "classes": [
            { "name": "Language", "definition": "Words.", "subclasses": [
                { "name": "Speech", "definition": "Sounds.", "topics": [2, 0] },
                { "name": "Text", "definition": "Letters.", "topics": [1] } ] } ],
          "cross_references": [ { "from": 2, "to": 1, "reason": "Both are said." } ] }"#
            .into()
    }

    fn topics() -> Vec<Topic> {
        let topic = |id: i32| Topic {
            id,
            name: format!("name {id}"),
            named_by: crate::model::NamedBy::Words,
            rating: None,
            size: 10,
            words: vec![("word".into(), 1.0)],
            representatives: Vec::new(),
            centroid: Vec::new(),
        };
        [0, 1, 2].map(topic).into()
    }

    #[test]
    fn an_order_that_was_checked_is_a_taxonomy() {
        let order = order(&whole());
        check_order(&order, &[0, 1, 2].into()).unwrap();
        let made = taxonomy(&topics(), &order, &[(1, "Of letters.".to_string())].into()).unwrap();
        let ids: Vec<&str> = made.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["1", "1.1", "1.1.1", "1.1.2", "1.2", "1.2.1"]);
        assert_eq!(made.path(0), ["Language", "Speech", "name 0"]);
        assert_eq!(made.nodes[2].see_also[0].to, "1.2.1");
        assert_eq!(made.node("1.2.1").unwrap().definition.as_deref(), Some("Of letters."));
        assert_eq!(made.nodes[0].members, 30);
    }

    #[test]
    fn what_is_wrong_with_an_order_is_said() {
        let known: BTreeSet<i32> = [0, 1, 2].into();
        for (from, to, words) in [
            ("[2, 0]", "[2]", "does not place the topics 0"),
            ("[2, 0]", "[2, 0, 1]", "places topic 1 twice"),
            ("[2, 0]", "[2, 0, 9]", "places topic 9, which is not there"),
            ("[1]", "[]", "\"Text\" without topics"),
            ("\"Text\"", "\"speech \"", "twice"),
            ("\"Letters.\"", "\" \"", "empty definition"),
            ("\"Language\"", "\"  \"", "empty name"),
            ("\"to\": 1", "\"to\": 2", "cross reference from 2 to 2"),
        ] {
            let wrong = check_order(&order(&whole().replace(from, to)), &known).unwrap_err();
            assert!(wrong.contains(words), "{words:?}: {wrong}");
        }
    }
}
