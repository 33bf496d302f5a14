//! Topics by how much their terms have in common: which join first, as a table and as a tree of text, and how similar
//! each is to each.
//!
//! As BERTopic's `hierarchical_topics`: Ward's linkage over 1 − cosine of c-TF-IDF weights (or of vectors). The words
//! of a group are those of its texts together, weighed by the fitted weights: counts add up, so they are exact.

use super::table;
use crate::Result;
use crate::fit::FitConfig;
use crate::linkage::Linkage;
use crate::model::Model;
use crate::revise::TopicVectors;
use crate::revise::merge::similarities;
use crate::words::Ctfidf;
use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use kodama::Method;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Words that name a group, as in BERTopic.
const NAME_WORDS: usize = 5;

/// A topic or a group of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The topic's number, or one above all of them.
    pub id: i32,
    /// Its five best words.
    pub words: Vec<String>,
    /// The topics in it, rising.
    pub topics: Vec<i32>,
    /// The two that it was joined of, by place in [`Hierarchy::nodes`]; none for a topic.
    pub children: Option<(usize, usize)>,
    /// At which distance they were joined; 0 for a topic.
    pub distance: f64,
}

/// How topics join: the topics, then each group behind those that it was joined of; the last holds all.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    /// Topics, then groups.
    pub nodes: Vec<Node>,
}

impl Hierarchy {
    /// Joins the topics of `model`, by the nearness of `vectors`.
    pub fn of(model: &Model, vectors: TopicVectors, config: &FitConfig) -> Result<Self> {
        let weights = Ctfidf::fit(&model.terms, &config.words.ctfidf)?;
        let words = |counts: &[(u32, u64)]| {
            let mut weighed = weights.weigh(counts);
            weighed.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            weighed
                .iter()
                .take(NAME_WORDS)
                .map(|(term, _)| model.terms.terms()[*term as usize].clone())
                .collect()
        };
        let mut nodes = Vec::with_capacity(2 * model.topics.len());
        let mut counts: Vec<Vec<(u32, u64)>> = Vec::with_capacity(2 * model.topics.len());
        for topic in &model.topics {
            let row = model.terms.topics().binary_search(&topic.id);
            let of_topic = row.map_or(&[][..], |row| model.terms.row(row));
            nodes.push(Node {
                id: topic.id,
                words: words(of_topic),
                topics: vec![topic.id],
                children: None,
                distance: 0.0,
            });
            counts.push(of_topic.to_vec());
        }
        let leaves = nodes.len();
        if leaves > 1 {
            let linkage = Linkage::of(&similarities(model, vectors, config)?, leaves, Method::Ward);
            for ((a, b, distance), id) in linkage.joins().zip(model.next_topic..) {
                // The larger group comes first, so that the tree does not depend on the order of joins.
                let size = |at: usize| (std::cmp::Reverse(nodes[at].topics.len()), nodes[at].topics[0]);
                let (a, b) = if size(a) <= size(b) { (a, b) } else { (b, a) };
                let both = add(&counts[a], &counts[b]);
                (counts[a], counts[b]) = Default::default();
                let mut topics = [nodes[a].topics.as_slice(), &nodes[b].topics].concat();
                topics.sort_unstable();
                nodes.push(Node { id, words: words(&both), topics, children: Some((a, b)), distance });
                counts.push(both);
            }
        }
        Ok(Self { nodes })
    }

    /// The joins, the last first: `Parent_ID, Parent_Name, Topics, Child_Left_ID, Child_Left_Name, Child_Right_ID,
    /// Child_Right_Name, Distance`.
    pub fn table(&self) -> Result<RecordBatch> {
        let joins: Vec<(&Node, &Node, &Node)> = self
            .nodes
            .iter()
            .rev()
            .filter_map(|node| node.children.map(|(a, b)| (node, &self.nodes[a], &self.nodes[b])))
            .collect();
        let text = |of: &dyn Fn(&(&Node, &Node, &Node)) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(joins.iter().map(of)))
        };
        let name = |node: &Node| node.words.join("_");
        let mut topics = arrow::array::ListBuilder::new(arrow::array::Int32Builder::new());
        for (node, ..) in &joins {
            node.topics.iter().for_each(|topic| topics.values().append_value(*topic));
            topics.append(true);
        }
        table(vec![
            ("Parent_ID", text(&|(node, ..)| node.id.to_string())),
            ("Parent_Name", text(&|(node, ..)| name(node))),
            ("Topics", Arc::new(topics.finish())),
            ("Child_Left_ID", text(&|(_, left, _)| left.id.to_string())),
            ("Child_Left_Name", text(&|(_, left, _)| name(left))),
            ("Child_Right_ID", text(&|(.., right)| right.id.to_string())),
            ("Child_Right_Name", text(&|(.., right)| name(right))),
            (
                "Distance",
                Arc::new(Float64Array::from_iter_values(joins.iter().map(|(node, ..)| node.distance))),
            ),
        ])
    }

    /// The tree as text: `├─■──name ── Topic: 7` for topics, `├─name` for groups. Groups joined at a distance of more
    /// than `max_distance` are not named: what is below them stands side by side.
    pub fn tree(&self, max_distance: Option<f64>, names: &BTreeMap<i32, String>) -> String {
        let mut text = String::from(".\n");
        if let Some(root) = self.nodes.len().checked_sub(1) {
            let limit = max_distance.unwrap_or(f64::INFINITY);
            let tops = self.below(root, limit);
            for (at, node) in tops.iter().enumerate() {
                self.write(*node, "", at + 1 == tops.len(), names, &mut text);
            }
        }
        text
    }

    /// The nodes at or below `node` that are joined within `limit`.
    fn below(&self, node: usize, limit: f64) -> Vec<usize> {
        let (mut found, mut stack) = (Vec::new(), vec![node]);
        while let Some(at) = stack.pop() {
            match self.nodes[at].children {
                Some((a, b)) if self.nodes[at].distance > limit => stack.extend([b, a]),
                _ => found.push(at),
            }
        }
        found
    }

    fn write(
        &self,
        node: usize,
        indent: &str,
        is_last: bool,
        names: &BTreeMap<i32, String>,
        text: &mut String,
    ) {
        let (branch, below) = if is_last { ("└─", "     ") } else { ("├─", "│    ") };
        let Node { id, words, children, .. } = &self.nodes[node];
        let Some((a, b)) = children else {
            let name = names.get(id).cloned().unwrap_or_else(|| words.join("_"));
            text.push_str(&format!("{indent}{branch}■──{name} ── Topic: {id}\n"));
            return;
        };
        text.push_str(&format!("{indent}{branch}{}\n", words.join("_")));
        let indent = format!("{indent}{below}");
        self.write(*a, &indent, false, names, text);
        self.write(*b, &indent, true, names, text);
    }
}

/// Adds two lists of (term, count) by term.
fn add(a: &[(u32, u64)], b: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let mut sum = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(&&(left, of_left)), Some(&&(right, of_right))) = (a.peek(), b.peek()) {
        match left.cmp(&right) {
            std::cmp::Ordering::Less => sum.extend(a.next()),
            std::cmp::Ordering::Greater => sum.extend(b.next()),
            std::cmp::Ordering::Equal => {
                sum.push((left, of_left + of_right));
                a.next();
                b.next();
            }
        }
    }
    sum.extend(a);
    sum.extend(b);
    sum
}

/// How similar each topic is to each: `Topic, Name`, then a column for each topic, by its number.
pub fn similarity(model: &Model, vectors: TopicVectors, config: &FitConfig) -> Result<RecordBatch> {
    let count = model.topics.len();
    let cosines = similarities(model, vectors, config)?;
    let names = model.topics.iter().map(|topic| topic.name.as_str());
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("Topic".into(), Arc::new(Int32Array::from_iter_values(model.topics.iter().map(|topic| topic.id)))),
        ("Name".into(), Arc::new(StringArray::from_iter_values(names))),
    ];
    for (place, topic) in model.topics.iter().enumerate() {
        let column = (0..count).map(|row| cosines[row * count + place]);
        columns.push((topic.id.to_string(), Arc::new(Float64Array::from_iter_values(column))));
    }
    table(columns.iter().map(|(name, column)| (name.as_str(), Arc::clone(column))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_by_term() {
        assert_eq!(add(&[(1, 2), (4, 1)], &[(0, 5), (4, 2), (9, 1)]), [(0, 5), (1, 2), (4, 3), (9, 1)]);
        assert_eq!(add(&[], &[(3, 1)]), [(3, 1)]);
    }

    #[test]
    fn a_tree_shows_topics_under_their_groups_and_no_group_above_the_distance() {
        let leaf = |id: i32, word: &str| Node {
            id,
            words: vec![word.into()],
            topics: vec![id],
            children: None,
            distance: 0.0,
        };
        let group = |id: i32, word: &str, children, distance| Node {
            children: Some(children),
            distance,
            ..leaf(id, word)
        };
        let nodes = vec![
            leaf(0, "a"),
            leaf(1, "b"),
            leaf(2, "c"),
            group(3, "ab", (0, 1), 0.3),
            group(4, "all", (3, 2), 0.9),
        ];
        let hierarchy = Hierarchy { nodes };
        let names = BTreeMap::from([(2, "Sea".to_string())]);
        assert_eq!(
            hierarchy.tree(None, &names),
            ".\n└─all\n     ├─ab\n     │    ├─■──a ── Topic: 0\n     │    └─■──b ── Topic: 1\n     └─■──Sea ── Topic: 2\n"
        );
        assert_eq!(
            hierarchy.tree(Some(0.5), &BTreeMap::new()),
            ".\n├─ab\n│    ├─■──a ── Topic: 0\n│    └─■──b ── Topic: 1\n└─■──c ── Topic: 2\n"
        );
    }
}
