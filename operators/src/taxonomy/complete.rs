//! A scheme that people have, completed by a model's topics: which of its nodes are covered, which are empty, which
//! topics are new and where they would hang.
//!
//! One idea: a node and a topic are compared by their vectors: of a node's name and definition, and the mean of a topic's
//! texts. A topic belongs to the node with the largest cosine, if it is large enough; it **overlaps** where a second node
//! is nearly as similar. A topic that belongs to none is **new**: it hangs under the nearest node, or beside it where that
//! is a leaf; at the top, where the cosine is not even half as large as it should be.
//!
//! Of 139 topics of 95,198 titles in arXiv's computer science (all-MiniLM-L6-v2), the nearest of its 38 categories was the
//! one of most papers for .51, and one that a fifth of them are cross-listed in for .72. At the default of `min_similarity`
//! .58 of them were found to belong to the scheme, and .64 to be new once their category was taken out of it: it is a
//! balance, and the list of both is to be read. Topics' own words beside their texts, or the names above a node, found
//! fewer.

use super::tree::{Known, about, of_topics};
use super::{Node, Taxonomy};
use crate::fit::FitConfig;
use crate::labellers::TopicName;
use crate::model::{Model, Topic, centroid_cosines, centroids};
use crate::similarity::Similarity;
use crate::words::Embed;
use crate::{Error, Result};
use kernels::Matrix;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// The node that it belongs to. Of a new one the most similar, or by a language model the one it hangs under: empty at
    /// the top.
    pub node: String,
    /// The cosine of the two; 0 at the top.
    pub similarity: f32,
    /// A second node that it belongs to, nearly as much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlaps: Option<String>,
    /// Whether it belongs to no node.
    pub new: bool,
    /// The node that a new one hangs under; none at the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// What it is about: of the words of its texts, or by a language model.
    pub definition: String,
    /// Why a language model placed it there; none where similarity did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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

/// A scheme, with a model's topics placed in it.
pub struct Placement {
    pub(super) scheme: Taxonomy,
    pub(super) model: Arc<Model>,
    /// The cosines of topics and nodes: topics × nodes.
    pub(super) similarities: Matrix<f32>,
    /// Where each of the model's topics stands.
    pub(super) topics: Vec<Standing>,
    grow: Option<String>,
}

impl Placement {
    /// Places the topics of `model` in `scheme` by similarity; `embed` is the encoder that made the model's vectors.
    ///
    /// # Errors
    /// `Setting` for a scheme without nodes, a model without topics, vectors of other dimensions, a node to grow under
    /// that is not there; what `embed` fails with.
    pub fn by_similarity(
        scheme: Taxonomy,
        model: Arc<Model>,
        config: &CompleteConfig,
        embed: &Embed<'_>,
    ) -> Result<Self> {
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
        let grow = config.grow.as_deref().map(|grow| named_node(&scheme, grow)).transpose()?;
        let similarities = similarities(&scheme, &model.topics, embed)?;
        let topics = model.topics.iter().zip(similarities.iter_rows());
        let topics = topics.map(|(topic, row)| standing(topic, row, &scheme, config)).collect();
        Ok(Self { scheme, model, similarities, topics, grow })
    }

    /// Completes the scheme by the topics, as they stand.
    ///
    /// # Errors
    /// None for schemes that can be read; else, what is wrong with the completed one.
    pub fn complete(self) -> Result<Completion> {
        let Self { scheme, model, mut topics, grow, .. } = self;
        topics.sort_by_key(|standing| (std::cmp::Reverse(standing.size), standing.topic));
        let completed = completed(&scheme, &topics, &model, grow.as_deref())?;
        let is_empty = |node: &&Node| !node.new && node.members == 0;
        let empty = completed.nodes.iter().filter(is_empty).map(|node| node.id.clone()).collect();
        Ok(Completion { topics, empty, scheme: completed })
    }
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
    let nearest = &scheme.nodes[best];
    let under = if scheme.is_leaf(&nearest.id) { nearest.parent.clone() } else { Some(nearest.id.clone()) };
    Standing {
        topic: topic.id,
        name: topic.name.clone(),
        size: topic.size,
        node: id(best).to_string(),
        similarity: similarities[best],
        overlaps: second.map(|place| id(place).to_string()),
        new,
        under: under.filter(|_| new && similarities[best] >= config.min_similarity / 2.0),
        definition: about(topic),
        reason: None,
    }
}

/// The scheme with its topics, and with new nodes for those that belong to none.
fn completed(scheme: &Taxonomy, topics: &[Standing], model: &Model, grow: Option<&str>) -> Result<Taxonomy> {
    let mut nodes = scheme.nodes.clone();
    let grows = |at: &&Standing| !at.new && Some(at.node.as_str()) == grow;
    for node in &mut nodes {
        let own = topics.iter().filter(|at| !at.new && at.node == node.id && !grows(at));
        node.topics = own.map(|at| at.topic).collect();
    }
    for at in topics.iter().filter(|at| at.new) {
        let node =
            Node { definition: Some(at.definition.clone()), topics: vec![at.topic], ..Node::default() };
        add(&mut nodes, at.under.as_deref(), &at.name, node);
    }
    if let Some(grow) = grow {
        let grown: BTreeSet<i32> = topics.iter().filter(grows).map(|at| at.topic).collect();
        sub_scheme(&mut nodes, grow, &arranged(model, &grown)?);
    }
    let mut completed = Taxonomy::try_new(scheme.title.clone(), nodes, scheme.notes.clone())?;
    completed.count(|id| model.topic(id).map_or(0, |topic| topic.size));
    Ok(completed)
}

/// Some of a model's topics, arranged and their classes named among themselves.
fn arranged(model: &Model, some: &BTreeSet<i32>) -> Result<Taxonomy> {
    let topics: Vec<Topic> = model.topics.iter().filter(|topic| some.contains(&topic.id)).cloned().collect();
    // A name of words spells them as their texts do; what it lacks is spelled as it was counted.
    let spelled = |topic: &Topic| TopicName {
        topic: topic.id,
        name: topic.name.clone(),
        terms: topic
            .words
            .iter()
            .map(|(word, _)| word.clone())
            .chain(topic.name.split(", ").map(String::from))
            .collect(),
    };
    let spelled: Vec<TopicName> = topics.iter().map(spelled).collect();
    let words = FitConfig::of(model)?.words;
    let similarities = centroid_cosines(&topics)?;
    let (topics, spelled, similarities) = (&topics[..], &spelled[..], &similarities[..]);
    of_topics(&Known { topics, spelled, terms: &model.terms, ctfidf: &words.ctfidf, similarities })
}

/// Hangs a whole taxonomy under a node.
fn sub_scheme(nodes: &mut Vec<Node>, under: &str, taxonomy: &Taxonomy) {
    // Where each of the taxonomy's nodes went, from the top down.
    let mut places: BTreeMap<&str, String> = BTreeMap::new();
    for node in &taxonomy.nodes {
        let parent =
            node.parent.as_deref().and_then(|parent| places.get(parent)).map_or(under, String::as_str);
        let new =
            Node { definition: node.definition.clone(), topics: node.topics.clone(), ..Node::default() };
        let place = add(nodes, Some(parent), &node.name, new);
        places.insert(&node.id, place);
    }
}

/// Adds a new node under `parent`, the last there, and returns its id.
fn add(nodes: &mut Vec<Node>, parent: Option<&str>, name: &str, node: Node) -> String {
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
    nodes.push(Node { id: id.clone(), name, parent: parent.map(Into::into), new: true, ..node });
    id
}

#[cfg(test)]
mod tests {
    use super::super::tests::node;
    use super::*;
    use crate::model::NamedBy;

    #[test]
    fn what_is_new_hangs_beside_its_nearest_leaf_unless_that_is_too_far() {
        let nodes = vec![node("1", "A", None), node("1.1", "B", Some("1")), node("1.2", "C", Some("1"))];
        let scheme = Taxonomy::try_new(String::new(), nodes, Vec::new()).unwrap();
        let topic = Topic {
            id: 0,
            name: "graphs".into(),
            named_by: NamedBy::Words,
            rating: None,
            size: 9,
            words: Vec::new(),
            representatives: Vec::new(),
            centroid: Vec::new(),
        };
        let config = CompleteConfig { min_similarity: 0.4, ..CompleteConfig::default() };
        let stands = |similarities: [f32; 3]| standing(&topic, &similarities, &scheme, &config);
        let under = |similarities| {
            let at = stands(similarities);
            (at.new, at.under)
        };
        assert_eq!(under([0.1, 0.5, 0.2]), (false, None));
        assert_eq!(under([0.1, 0.3, 0.2]), (true, Some("1".into())), "beside the nearest leaf");
        assert_eq!(under([0.3, 0.1, 0.2]), (true, Some("1".into())), "under the nearest class");
        assert_eq!(under([0.1, 0.19, 0.1]), (true, None), "at the top");
        assert_eq!(stands([0.1, 0.5, 0.48]).overlaps.as_deref(), Some("1.2"));
        assert_eq!(stands([0.49, 0.5, 0.2]).overlaps, None, "what is above says the same");
    }
}
