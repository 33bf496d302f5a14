//! A scheme that people have, completed by a model's topics: which of its nodes are covered, which are empty, which
//! topics are new and where they would hang.
//!
//! One idea: a node and a topic are compared by their vectors: of a node's name and definition, and the mean of a topic's
//! texts. A topic belongs to the node with the largest cosine, if it is large enough; it **overlaps** where a second node
//! is nearly as similar. A topic that belongs to none is **new**: it hangs under the nearest node, or beside it where that
//! is a leaf.
//!
//! Of 139 topics of 95,198 titles in arXiv's computer science (all-MiniLM-L6-v2), the nearest of its 38 categories was the
//! one of most papers for .51, and one that a fifth of them are cross-listed in for .72. At the default of `min_similarity`
//! .58 of them were found to belong to the scheme, and .64 to be new once their category was taken out of it: it is a
//! balance, and the list of both is to be read. Topics' own words beside their texts, or the names above a node, found
//! fewer.

use super::{Node, Taxonomy};
use crate::model::{Model, Topic, centroids};
use crate::similarity::Similarity;
use crate::words::Embed;
use crate::{Error, Result};
use kernels::Matrix;
use serde::Serialize;
use std::collections::BTreeSet;

/// How a scheme is completed.
#[derive(Debug, Clone, PartialEq)]
pub struct CompleteConfig {
    /// The least cosine of a topic and the node it belongs to. 0.35: see above.
    pub min_similarity: f32,
    /// How much less similar a second node may be that the topic overlaps with.
    pub overlap: f32,
    /// The node under which the topics that belong to it are arranged as a sub-scheme. None: nowhere.
    pub grow: Option<String>,
}

impl Default for CompleteConfig {
    fn default() -> Self {
        Self { min_similarity: 0.35, overlap: 0.03, grow: None }
    }
}

/// Where a topic stands in a scheme.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// The topic.
    pub topic: i32,
    /// Its name.
    pub name: String,
    /// Its texts.
    pub size: u64,
    /// The most similar node.
    pub node: String,
    /// How similar it is.
    pub similarity: f32,
    /// A second node that is nearly as similar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlaps: Option<String>,
    /// Whether it belongs to no node.
    pub new: bool,
}

/// A scheme and a model's topics together.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Where each topic stands, by falling size.
    pub topics: Vec<Standing>,
    /// The ids of nodes that have no topic, and none below them.
    pub empty: Vec<String>,
    /// The completed scheme: its own nodes, with their topics and members; new ones are marked.
    pub scheme: Taxonomy,
}

/// Completes `scheme` by the topics of `model`; `embed` is the encoder that made the model's vectors.
///
/// # Errors
/// `Setting` for a scheme without nodes, a model without topics, vectors of other dimensions, a node to grow under that
/// is not there; what `embed` fails with.
pub fn complete(
    scheme: &Taxonomy,
    model: &Model,
    config: &CompleteConfig,
    embed: &Embed<'_>,
) -> Result<Completion> {
    if scheme.nodes.is_empty() {
        return Err(Error::setting("scheme", "has no nodes, expected one or more"));
    }
    if model.topics.is_empty() {
        return Err(Error::setting("model", "has no topics, expected one or more"));
    }
    if !(-1.0..=1.0).contains(&config.min_similarity) {
        let reason = format!("{}, expected a cosine, −1 to 1", config.min_similarity);
        return Err(Error::setting("min_similarity", reason));
    }
    let grow = config.grow.as_deref().map(|grow| named_node(scheme, grow)).transpose()?;
    let config = &CompleteConfig { grow, ..config.clone() };
    let similarities = similarities(scheme, &model.topics, embed)?;
    let mut topics: Vec<Standing> = model
        .topics
        .iter()
        .zip(similarities.iter_rows())
        .map(|(topic, row)| standing(topic, row, scheme, config))
        .collect();
    topics.sort_by_key(|standing| (std::cmp::Reverse(standing.size), standing.topic));
    let completed = completed(scheme, &topics, model, config)?;
    let empty = completed
        .nodes
        .iter()
        .filter(|node| !node.new && node.members == 0)
        .map(|node| node.id.clone())
        .collect();
    Ok(Completion { topics, empty, scheme: completed })
}

/// The id of the node that users name by it, or by its name.
fn named_node(scheme: &Taxonomy, name: &str) -> Result<String> {
    let by_name = || scheme.nodes.iter().find(|node| node.name.eq_ignore_ascii_case(name));
    scheme.node(name).or_else(by_name).map(|node| node.id.clone()).ok_or_else(|| {
        let names = scheme.nodes.iter().flat_map(|node| [node.id.as_str(), node.name.as_str()]);
        let meant = crate::text::did_you_mean(name, names);
        Error::setting("grow", format!("the scheme has no node {name}{meant}, expected a node's id or name"))
    })
}

/// The cosines of topics and nodes: topics × nodes.
fn similarities(scheme: &Taxonomy, topics: &[Topic], embed: &Embed<'_>) -> Result<Matrix<f32>> {
    let told = |node: &Node| match &node.definition {
        Some(definition) => format!("{}: {definition}", node.name),
        None => node.name.clone(),
    };
    let texts: Vec<String> = scheme.nodes.iter().map(told).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (nodes, topics) = (embed(&texts)?, centroids(topics)?);
    if nodes.cols() != topics.cols() {
        let (here, there) = (nodes.cols(), topics.cols());
        let reason = format!("makes vectors of {here} dimensions, but the model's have {there}");
        return Err(Error::setting("encoder", reason));
    }
    Similarity::Cosine.between(&topics, &nodes)
}

fn standing(topic: &Topic, similarities: &[f32], scheme: &Taxonomy, config: &CompleteConfig) -> Standing {
    let mut order: Vec<usize> = (0..similarities.len()).collect();
    order.sort_by(|a, b| similarities[*b].total_cmp(&similarities[*a]).then(a.cmp(b)));
    let best = order[0];
    let id = |place: usize| scheme.nodes[place].id.as_str();
    // A node above or below says the same, less or more exactly.
    let is_apart = |place: usize| {
        let related = |a: &str, b: &str| scheme.above(a).iter().any(|node| node.id == b);
        !related(id(best), id(place)) && !related(id(place), id(best))
    };
    let second = order[1..].iter().copied().find(|place| is_apart(*place));
    let new = similarities[best] < config.min_similarity;
    let second = second.filter(|place| !new && similarities[best] - similarities[*place] <= config.overlap);
    Standing {
        topic: topic.id,
        name: topic.name.clone(),
        size: topic.size,
        node: id(best).to_string(),
        similarity: similarities[best],
        overlaps: second.map(|place| id(place).to_string()),
        new,
    }
}

/// The scheme with its topics, and with new nodes for those that belong to none.
fn completed(
    scheme: &Taxonomy,
    topics: &[Standing],
    model: &Model,
    config: &CompleteConfig,
) -> Result<Taxonomy> {
    let mut nodes = scheme.nodes.clone();
    let grown: BTreeSet<i32> = match &config.grow {
        Some(grow) => topics.iter().filter(|at| !at.new && at.node == *grow).map(|at| at.topic).collect(),
        None => BTreeSet::new(),
    };
    for node in &mut nodes {
        let own = topics.iter().filter(|at| !at.new && at.node == node.id && !grown.contains(&at.topic));
        node.topics = own.map(|at| at.topic).collect();
    }
    for at in topics.iter().filter(|at| at.new) {
        let nearest = scheme.node(&at.node);
        let parent = match nearest {
            Some(node) if scheme.is_leaf(&node.id) => node.parent.clone(),
            _ => Some(at.node.clone()),
        };
        add(&mut nodes, parent.as_deref(), &at.name, vec![at.topic]);
    }
    if let Some(grow) = &config.grow {
        sub_scheme(&mut nodes, grow, &grown, &model.taxonomy);
    }
    let mut completed = Taxonomy::try_new(scheme.title.clone(), nodes, scheme.notes.clone())?;
    completed.count(|id| model.topic(id).map_or(0, |topic| topic.size));
    Ok(completed)
}

/// Arranges topics under a node as the model's own taxonomy has them, classes of one topic left out.
fn sub_scheme(nodes: &mut Vec<Node>, under: &str, topics: &BTreeSet<i32>, taxonomy: &Taxonomy) {
    let below = |id: &str| -> BTreeSet<i32> {
        let is_below =
            |node: &&Node| node.id == id || taxonomy.above(&node.id).iter().any(|above| above.id == id);
        taxonomy
            .nodes
            .iter()
            .filter(is_below)
            .flat_map(|node| &node.topics)
            .copied()
            .filter(|t| topics.contains(t))
            .collect()
    };
    // Where each of the taxonomy's nodes went, from the top down.
    let mut places: Vec<(String, String)> = Vec::new();
    for node in &taxonomy.nodes {
        let own = below(&node.id);
        let parent = node.parent.as_ref().and_then(|parent| places.iter().find(|(id, _)| id == parent));
        let parent = parent.map_or_else(|| under.to_string(), |(_, place)| place.clone());
        let is_topic = taxonomy.is_leaf(&node.id);
        if own.is_empty() {
            continue;
        }
        // A class of one topic, or of all of them, says nothing.
        if !is_topic && (own.len() == 1 || own == *topics) {
            places.push((node.id.clone(), parent));
            continue;
        }
        let stands_for = if is_topic { own.into_iter().collect() } else { Vec::new() };
        let place = add(nodes, Some(&parent), &node.name, stands_for);
        places.push((node.id.clone(), place));
    }
}

/// Adds a new node under `parent`, the last there, and returns its id.
fn add(nodes: &mut Vec<Node>, parent: Option<&str>, name: &str, topics: Vec<i32>) -> String {
    let free = |id: &String| nodes.iter().all(|node| node.id != *id);
    let numbered =
        |number: usize| parent.map_or_else(|| number.to_string(), |parent| format!("{parent}.{number}"));
    let siblings = nodes.iter().filter(|node| node.parent.as_deref() == parent);
    let first = siblings.clone().count() + 1;
    let taken: BTreeSet<String> = siblings.map(|node| node.name.to_lowercase()).collect();
    let mut name = name.to_string();
    while taken.contains(&name.to_lowercase()) {
        name.push_str(" (new)");
    }
    // Some number is free.
    let id = (first..).map(numbered).find(free).unwrap_or_default();
    nodes.push(Node {
        id: id.clone(),
        name,
        parent: parent.map(Into::into),
        topics,
        new: true,
        ..Node::default()
    });
    id
}
