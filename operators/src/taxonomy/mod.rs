//! The taxonomy: topics under classes and sub-classes, each with a definition, and what they have to do with each other.
//!
//! A typed object and no text: nodes in preorder, each knowing its parent. It is read from schemes that people have and
//! written as they are used ([`scheme`], [`markdown`], [`skos`]), made of a model's topics ([`tree`], [`llm`]), or completed
//! by them ([`complete`]).

pub mod complete;
pub mod llm;
pub mod markdown;
pub mod place;
pub mod scheme;
pub mod skos;
pub mod tree;

pub use scheme::Scheme;

use crate::model::Topic;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Classes, sub-classes and topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taxonomy {
    /// What it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The nodes in preorder: a node comes before those below it.
    pub nodes: Vec<Node>,
    /// Connections that are told in words alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A class, a sub-class or a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its notation, such as `1.2` or `cs.CL`: different from any other's.
    pub id: String,
    /// Its name: different from those of its siblings.
    pub name: String,
    /// What belongs to it, in a sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// The id of the node that it is under; none at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The topics that it stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<i32>,
    /// Texts of its topics and of those below it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub members: u64,
    /// Whether it was added to a scheme that was there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
    /// What it has to do with nodes elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub see_also: Vec<CrossReference>,
}

/// What a node has to do with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossReference {
    /// The other node's id.
    pub to: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(members: &u64) -> bool {
    *members == 0
}

impl Taxonomy {
    /// Takes nodes in any order, and puts those below a node behind it, in the order given.
    ///
    /// # Errors
    /// `Setting`, naming the node: an id or a sibling's name that stands twice, a parent that is not there, a node that is
    /// below itself, a topic that is placed twice, a cross reference to itself or to nothing.
    pub fn try_new(title: String, nodes: Vec<Node>, notes: Vec<String>) -> Result<Self> {
        check(&nodes)?;
        let mut below: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        for (place, node) in nodes.iter().enumerate() {
            below.entry(node.parent.as_deref()).or_default().push(place);
        }
        let mut order = Vec::with_capacity(nodes.len());
        let mut stack: Vec<usize> = below.get(&None).into_iter().flatten().rev().copied().collect();
        while let Some(place) = stack.pop() {
            order.push(place);
            stack.extend(below.get(&Some(nodes[place].id.as_str())).into_iter().flatten().rev());
        }
        if let Some(lost) = (0..nodes.len()).find(|place| !order.contains(place)) {
            let path = circle(&nodes, lost).join(" > ");
            return Err(wrong(&nodes[lost], format!("is below itself: {path}")));
        }
        let mut taken: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
        let nodes = order.into_iter().filter_map(|place| taken[place].take()).collect();
        Ok(Self { title, nodes, notes })
    }

    /// The node with the notation `id`.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The nodes right below `id`; the classes for none.
    pub fn children<'t>(&'t self, id: Option<&'t str>) -> impl Iterator<Item = &'t Node> {
        self.nodes.iter().filter(move |node| node.parent.as_deref() == id)
    }

    /// Whether nothing is below `id`.
    pub fn is_leaf(&self, id: &str) -> bool {
        self.children(Some(id)).next().is_none()
    }

    /// How many nodes are above `id`.
    pub fn depth(&self, id: &str) -> usize {
        self.above(id).len()
    }

    /// The names from the top down to the node of `topic`; empty where no node stands for it.
    pub fn path(&self, topic: i32) -> Vec<&str> {
        let Some(node) = self.nodes.iter().find(|node| node.topics.contains(&topic)) else {
            return Vec::new();
        };
        let mut names: Vec<&str> = self.above(&node.id).iter().rev().map(|node| node.name.as_str()).collect();
        names.push(&node.name);
        names
    }

    /// The nodes above `id`, the nearest first.
    fn above(&self, id: &str) -> Vec<&Node> {
        let parent = |id: &str| self.node(id)?.parent.as_deref().and_then(|parent| self.node(parent));
        std::iter::successors(parent(id), |node| parent(&node.id)).collect()
    }

    /// Gives each node that stands for one topic that topic's name, unless a node beside it has it.
    pub fn name_after(&mut self, topics: &[Topic]) {
        for place in 0..self.nodes.len() {
            let [topic] = self.nodes[place].topics[..] else { continue };
            let Some(named) = topics.iter().find(|named| named.id == topic) else { continue };
            let name = named.name.as_str();
            let parent = self.nodes[place].parent.as_deref();
            let is_taken = self.children(parent).any(|node| node.name.eq_ignore_ascii_case(name));
            if !is_taken {
                self.nodes[place].name = name.into();
            }
        }
    }

    /// Counts `size` texts for each topic's node and those above it; nodes without topics below them have none.
    pub fn count(&mut self, size: impl Fn(i32) -> u64) {
        let own: Vec<u64> =
            self.nodes.iter().map(|node| node.topics.iter().map(|topic| size(*topic)).sum()).collect();
        let mut total: BTreeMap<String, u64> = BTreeMap::new();
        // From the last to the first: what is below a node comes before it then.
        for (node, own) in self.nodes.iter_mut().zip(own).rev() {
            node.members = own + total.get(&node.id).copied().unwrap_or(0);
            if let Some(parent) = &node.parent {
                *total.entry(parent.clone()).or_default() += node.members;
            }
        }
    }
}

fn wrong(node: &Node, reason: impl Into<String>) -> Error {
    Error::setting(format!("taxonomy, node {} \"{}\"", node.id, node.name), reason)
}

fn check(nodes: &[Node]) -> Result<()> {
    let mut ids = BTreeSet::new();
    let mut siblings = BTreeSet::new();
    let mut topics: BTreeMap<i32, &Node> = BTreeMap::new();
    for node in nodes {
        if node.id.trim().is_empty() || node.name.trim().is_empty() {
            return Err(wrong(node, "has no id or no name"));
        }
        if !ids.insert(node.id.as_str()) {
            return Err(wrong(node, "its id stands twice"));
        }
        if !siblings.insert((node.parent.as_deref(), node.name.to_lowercase())) {
            return Err(wrong(node, "a node beside it has the same name"));
        }
        for topic in &node.topics {
            if let Some(other) = topics.insert(*topic, node) {
                return Err(wrong(
                    node,
                    format!("topic {topic} is at {} \"{}\" already", other.id, other.name),
                ));
            }
        }
    }
    for node in nodes {
        if let Some(parent) = node.parent.as_deref().filter(|parent| !ids.contains(parent)) {
            return Err(wrong(node, format!("is under {parent}, which is not there")));
        }
        for reference in &node.see_also {
            if reference.to == node.id || !ids.contains(reference.to.as_str()) {
                let what = if reference.to == node.id { "itself" } else { "a node that is not there" };
                return Err(wrong(node, format!("refers to {}, which is {what}", reference.to)));
            }
        }
    }
    Ok(())
}

/// The ids from `place` up, until one comes again.
fn circle(nodes: &[Node], place: usize) -> Vec<&str> {
    let mut path = vec![nodes[place].id.as_str()];
    let mut at = nodes[place].parent.as_deref();
    while let Some(id) = at {
        let is_again = path.contains(&id);
        path.push(id);
        if is_again {
            break;
        }
        at = nodes.iter().find(|node| node.id == id).and_then(|node| node.parent.as_deref());
    }
    path
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn node(id: &str, name: &str, parent: Option<&str>) -> Node {
        Node { id: id.into(), name: name.into(), parent: parent.map(Into::into), ..Node::default() }
    }

    /// A class with two topics, one of them new, and an empty class.
    pub(crate) fn small() -> Taxonomy {
        let nodes = vec![
            Node { definition: Some("What language is made of.".into()), ..node("1", "Language", None) },
            Node {
                definition: Some("From one language to another.".into()),
                topics: vec![0, 4],
                members: 30,
                ..node("1.1", "Translation", Some("1"))
            },
            Node {
                topics: vec![2],
                members: 5,
                new: true,
                see_also: vec![CrossReference {
                    to: "1.1".into(),
                    reason: "speech is translated, too".into(),
                }],
                ..node("1.2", "Speech: recognition & synthesis", Some("1"))
            },
            node("2", "Society", None),
        ];
        let mut made =
            Taxonomy::try_new("Papers".into(), nodes, vec!["All of it is about people.".into()]).unwrap();
        made.nodes[0].members = 35;
        made
    }

    #[test]
    fn nodes_come_behind_those_above_them_and_know_their_way() {
        let shuffled = vec![
            node("b.x", "X", Some("b")),
            node("a", "A", None),
            Node { topics: vec![3], ..node("a.y.z", "Z", Some("a.y")) },
            node("b", "B", None),
            node("a.y", "Y", Some("a")),
        ];
        let made = Taxonomy::try_new(String::new(), shuffled, vec![]).unwrap();
        let ids: Vec<&str> = made.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["a", "a.y", "a.y.z", "b", "b.x"]);
        assert_eq!(made.path(3), ["A", "Y", "Z"]);
        assert!(made.path(9).is_empty());
        assert!(made.is_leaf("b.x") && !made.is_leaf("a") && made.depth("a.y.z") == 2);
    }

    #[test]
    fn texts_are_counted_up_to_the_top() {
        let mut made = small();
        made.count(|topic| [10, 0, 7, 0, 20][topic as usize]);
        let members: Vec<u64> = made.nodes.iter().map(|node| node.members).collect();
        assert_eq!(members, [37, 30, 7, 0]);
    }

    #[test]
    fn what_is_no_tree_is_refused_by_the_nodes_name() {
        let refers = |to: &str| Node {
            see_also: vec![CrossReference { to: to.into(), reason: String::new() }],
            ..node("a", "A", None)
        };
        let with_topic = |id: &str, name: &str| Node { topics: vec![1], ..node(id, name, None) };
        for (nodes, says) in [
            (vec![node("a", "A", None), node("a", "B", None)], "its id stands twice"),
            (vec![node("a", "A", None), node("b", "a", None)], "same name"),
            (vec![node("a", "A", Some("z"))], "under z, which is not there"),
            (
                vec![node("a", "A", Some("b")), node("b", "B", Some("a")), node("c", "C", None)],
                "is below itself: a > b > a",
            ),
            (vec![node("a", "A", Some("a"))], "is below itself: a > a"),
            (vec![with_topic("a", "A"), with_topic("b", "B")], "topic 1 is at a \"A\" already"),
            (vec![refers("a")], "itself"),
            (vec![refers("q")], "not there"),
            (vec![node("a", " ", None)], "no name"),
        ] {
            let error = Taxonomy::try_new(String::new(), nodes, vec![]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
