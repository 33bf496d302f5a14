//! A taxonomy without a language model: from how near topics lie to each other.
//!
//! Topics join by Ward's linkage over 1 − cosine of their mean vectors. The tree is cut where it is most stable: where
//! the next join is furthest from the last, by the ratio of their distances, among cuts into about √n classes. Classes of
//! many topics are cut again. Classes are named by the words that set their texts apart from those of the classes
//! beside them, as the names of their topics spell them. References join near topics of different classes.

use super::{CrossReference, Node, Taxonomy};
use crate::Result;
use crate::labellers::TopicName;
use crate::linkage::Linkage;
use crate::model::Topic;
use crate::words::{Ctfidf, CtfidfConfig, TermCounts};
use kodama::Method;
use std::collections::{BTreeMap, BTreeSet};

/// More topics than this have no taxonomy: their similarities take 8 bytes a pair.
pub const MOST_TOPICS: usize = 4_000;

/// A class of so many topics has sub-classes.
const SPLIT_FROM: usize = 8;

/// Terms that make a name.
const NAME_TERMS: usize = 3;

/// What is known of the topics.
pub(crate) struct Known<'a> {
    /// The topics.
    pub(crate) topics: &'a [Topic],
    /// How their words are spelled.
    pub(crate) spelled: &'a [TopicName],
    /// How often terms occur in them.
    pub(crate) terms: &'a TermCounts,
    /// How terms are weighed.
    pub(crate) ctfidf: &'a CtfidfConfig,
    /// Cosines of topics: topics × topics.
    pub(crate) similarities: &'a [f64],
}

/// Topics that stand under one node, and what stands below it.
struct Group {
    topics: Vec<usize>,
    parts: Vec<Group>,
}

/// Arranges the topics.
pub(crate) fn of_topics(known: &Known<'_>) -> Result<Taxonomy> {
    let all: Vec<usize> = (0..known.topics.len()).collect();
    let mut classes = parts(known, &all);
    for class in &mut classes {
        class.parts = match class.topics.len() {
            SPLIT_FROM.. => parts(known, &class.topics),
            _ => class.topics.iter().map(|topic| Group { topics: vec![*topic], parts: Vec::new() }).collect(),
        };
        for part in class.parts.iter_mut().filter(|part| part.topics.len() > 1) {
            part.parts =
                part.topics.iter().map(|topic| Group { topics: vec![*topic], parts: Vec::new() }).collect();
        }
    }
    let mut nodes = Vec::new();
    place(known, &mut classes, None, &mut nodes)?;
    refer(known, &classes, &mut nodes);
    let mut taxonomy = Taxonomy::try_new(String::new(), nodes, Vec::new())?;
    let sizes: BTreeMap<i32, u64> = known.topics.iter().map(|topic| (topic.id, topic.size)).collect();
    taxonomy.count(|topic| sizes.get(&topic).copied().unwrap_or(0));
    Ok(taxonomy)
}

/// Cuts some topics into groups where their tree is most stable.
fn parts(known: &Known<'_>, topics: &[usize]) -> Vec<Group> {
    let count = topics.len();
    let single = |topic: &usize| Group { topics: vec![*topic], parts: Vec::new() };
    if count < 4 {
        return topics.iter().map(single).collect();
    }
    let all = known.topics.len();
    let similarities: Vec<f64> =
        topics.iter().flat_map(|a| topics.iter().map(move |b| known.similarities[a * all + b])).collect();
    let linkage = Linkage::of(&similarities, count, Method::Ward);
    let heights: Vec<f64> = linkage.joins().map(|(.., height)| height).collect();
    let group = |places: Vec<usize>| Group {
        topics: places.into_iter().map(|place| topics[place]).collect(),
        parts: Vec::new(),
    };
    linkage.groups(most_stable(&heights)).into_iter().map(group).collect()
}

/// Into how many groups a tree of rising `heights` is cut: of about √n of them, as many as leave the largest ratio
/// between the first join that is left out and the last one that is made.
fn most_stable(heights: &[f64]) -> usize {
    let count = heights.len() + 1;
    let root = (count as f64).sqrt();
    let least = ((root / 2.0).ceil() as usize).max(2);
    let most = ((1.6 * root).ceil() as usize).min(count / 2).max(least);
    let ratio = |groups: usize| {
        let (made, left) = (heights[count - groups - 1], heights[count - groups]);
        left / made.max(1e-12)
    };
    // The fewest of equally stable ones.
    (least..=most)
        .rev()
        .reduce(|best, groups| if ratio(groups) >= ratio(best) { groups } else { best })
        .unwrap_or(least)
}

/// Adds the nodes of groups under `parent`, the largest first.
fn place(known: &Known<'_>, groups: &mut [Group], parent: Option<&str>, nodes: &mut Vec<Node>) -> Result<()> {
    let size = |group: &Group| group.topics.iter().map(|topic| known.topics[*topic].size).sum::<u64>();
    groups.sort_by_key(|group| (std::cmp::Reverse(size(group)), group.topics.iter().copied().min()));
    let names = names(known, groups)?;
    for (position, (group, name)) in (1..).zip(groups.iter_mut().zip(names)) {
        let id = parent.map_or_else(|| format!("{position}"), |parent| format!("{parent}.{position}"));
        let single = match group.topics.as_slice() {
            [topic] => Some(&known.topics[*topic]),
            _ => None,
        };
        nodes.push(Node {
            id: id.clone(),
            name,
            definition: Some(match single {
                Some(topic) => about(topic),
                None => format!("{} topics.", group.topics.len()),
            }),
            parent: parent.map(Into::into),
            topics: single.map(|topic| topic.id).into_iter().collect(),
            ..Node::default()
        });
        if single.is_none() {
            place(known, &mut group.parts, Some(&id), nodes)?;
        }
    }
    Ok(())
}

/// A sentence on a topic by its words.
pub(super) fn about(topic: &Topic) -> String {
    let words: Vec<&str> = topic.words.iter().take(6).map(|(word, _)| word.as_str()).collect();
    match words.split_last() {
        None => "Texts without words.".into(),
        Some((last, [])) => format!("Texts on {last}."),
        Some((last, others)) => format!("Texts on {} and {last}.", others.join(", ")),
    }
}

/// The names of groups that stand beside each other: topics have theirs.
fn names(known: &Known<'_>, groups: &[Group]) -> Result<Vec<String>> {
    let group_of: BTreeMap<i32, i32> = (0..)
        .zip(groups)
        .flat_map(|(place, group)| group.topics.iter().map(move |topic| (known.topics[*topic].id, place)))
        .collect();
    // What is in none of the groups is together one, as the outliers are.
    let counts = known.terms.regroup(|topic| group_of.get(&topic).copied().unwrap_or(-1));
    let words = Ctfidf::fit(&counts, known.ctfidf)?.words(&counts, 200);
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut named = Vec::with_capacity(groups.len());
    for (place, group) in (0..).zip(groups) {
        let name = match group.topics.as_slice() {
            [topic] => known.topics[*topic].name.clone(),
            _ => {
                let ranked = words.iter().find(|found| found.topic == place);
                let ranked = ranked.map_or(&[][..], |found| &found.words);
                group_name(known, &group.topics, ranked)
            }
        };
        let mut unlike = name.clone();
        let mut number = 2;
        while !taken.insert(unlike.to_lowercase()) {
            unlike = format!("{name} ({number})");
            number += 1;
        }
        named.push(unlike);
    }
    Ok(named)
}

/// The first terms of `ranked` that name a topic of the group and share no word; the largest topic's name where none does.
fn group_name(known: &Known<'_>, topics: &[usize], ranked: &[(String, f32)]) -> String {
    let key = |term: &str| term.to_lowercase().replace(['-', '\u{2010}', '\u{2011}'], " ");
    let ids: BTreeSet<i32> = topics.iter().map(|topic| known.topics[*topic].id).collect();
    let spelled: BTreeMap<String, &String> = known
        .spelled
        .iter()
        .filter(|name| ids.contains(&name.topic))
        .flat_map(|name| name.terms.iter().map(|term| (key(term), term)))
        .collect();
    let mut words: BTreeSet<String> = BTreeSet::new();
    let mut chosen: Vec<&str> = Vec::new();
    for (term, _) in ranked {
        let Some(spelled) = spelled.get(term) else { continue };
        let parts: Vec<&str> = term.split(' ').collect();
        if chosen.len() < NAME_TERMS && parts.iter().all(|part| !words.contains(*part)) {
            words.extend(parts.into_iter().map(String::from));
            chosen.push(spelled);
        }
    }
    if chosen.is_empty() {
        let largest = topics.iter().max_by_key(|topic| known.topics[**topic].size);
        return largest.map(|topic| known.topics[*topic].name.clone()).unwrap_or_default();
    }
    let name = chosen.join(", ");
    let mut letters = name.chars();
    // A name begins with a capital.
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Joins the nearest two topics of each two classes, where they are nearer than a quarter of the pairs within classes.
fn refer(known: &Known<'_>, classes: &[Group], nodes: &mut [Node]) {
    let count = known.topics.len();
    let similarity = |a: usize, b: usize| known.similarities[a * count + b];
    let pairs = |a: &Group, b: &Group| -> Vec<(usize, usize)> {
        a.topics.iter().flat_map(|x| b.topics.iter().map(move |y| (*x, *y))).collect()
    };
    let mut within: Vec<f64> = classes
        .iter()
        .flat_map(|class| pairs(class, class))
        .filter(|(a, b)| a < b)
        .map(|(a, b)| similarity(a, b))
        .collect();
    within.sort_unstable_by(f64::total_cmp);
    let Some(usual) = within.get(within.len() / 4).copied() else { return };
    let ids: BTreeMap<i32, String> =
        nodes.iter().flat_map(|node| node.topics.iter().map(|topic| (*topic, node.id.clone()))).collect();
    for (at, class) in classes.iter().enumerate() {
        for other in &classes[at + 1..] {
            let nearest = pairs(class, other).into_iter().reduce(|best, pair| {
                if similarity(pair.0, pair.1) > similarity(best.0, best.1) { pair } else { best }
            });
            let Some((a, b)) = nearest.filter(|(a, b)| similarity(*a, *b) >= usual) else { continue };
            let (Some(from), Some(to)) = (ids.get(&known.topics[a].id), ids.get(&known.topics[b].id)) else {
                continue;
            };
            let reason = format!("the nearest two topics of their classes (cosine {:.2})", similarity(a, b));
            if let Some(node) = nodes.iter_mut().find(|node| node.id == *from) {
                node.see_also.push(CrossReference { to: to.clone(), reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_cut_at_its_largest_step() {
        // Nine topics: three groups join early, and late with each other.
        assert_eq!(most_stable(&[0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.9, 1.0]), 3);
        assert_eq!(most_stable(&[0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 1.0]), 2);
        assert_eq!(most_stable(&[0.5, 0.5, 0.5]), 2, "the fewest of equally stable ones");
        assert_eq!(most_stable(&[0.0, 0.0, 0.0]), 2);
    }

    /// Six topics in two classes, of which two are nearer than some of one class.
    fn arranged() -> Taxonomy {
        let texts = ["soup bread", "soup salt", "soup pepper", "chess clock", "chess board", "chess rook"]
            .map(String::from);
        let labels: Vec<i32> = (0..6).collect();
        let vocabulary = crate::words::VocabularyConfig { ngrams: (1, 1), ..Default::default() };
        let tokens = crate::words::Tokens::read(&texts, &vocabulary).unwrap();
        let terms = TermCounts::count(&tokens, &labels, &vocabulary).unwrap();
        let topics: Vec<Topic> = (0..6)
            .map(|id| Topic {
                named_by: crate::model::NamedBy::Words,
                rating: None,
                id,
                name: texts[id as usize].clone(),
                size: 10 + u64::from(id as u8),
                words: texts[id as usize].split(' ').map(|word| (word.to_string(), 1.0)).collect(),
                representatives: vec![],
                centroid: vec![],
            })
            .collect();
        let spelled: Vec<TopicName> = topics
            .iter()
            .map(|topic| TopicName {
                topic: topic.id,
                name: topic.name.clone(),
                terms: topic.name.split(' ').map(|term| term.replace("soup", "Soup")).collect(),
            })
            .collect();
        let near = |a: usize, b: usize| match (a.min(b), a.max(b)) {
            (a, b) if a == b => 1.0,
            (0, 1 | 2) | (4, 5) | (3, 5) => 0.9,
            (1, 2) | (3, 4) => 0.5,
            (2, 3) => 0.55,
            _ => 0.0,
        };
        let similarities: Vec<f64> = (0..36).map(|at| near(at / 6, at % 6)).collect();
        let ctfidf = CtfidfConfig::published();
        let known = Known {
            topics: &topics,
            spelled: &spelled,
            terms: &terms,
            ctfidf: &ctfidf,
            similarities: &similarities,
        };
        of_topics(&known).unwrap()
    }

    #[test]
    fn near_topics_share_a_class_named_by_what_they_share() {
        let taxonomy = arranged();
        let classes: Vec<(&str, u64)> =
            taxonomy.children(None).map(|class| (class.name.as_str(), class.members)).collect();
        assert!(
            classes.len() == 2 && classes[0].0.contains("hess") && classes[1].0.contains("Soup"),
            "{classes:?}"
        );
        assert_eq!((classes[0].1, classes[1].1), (13 + 14 + 15, 10 + 11 + 12), "the larger one first");
        let placed: BTreeSet<i32> = taxonomy.nodes.iter().flat_map(|node| node.topics.clone()).collect();
        assert_eq!(placed, (0..6).collect(), "every topic has its place");
        assert_eq!(taxonomy.path(0).len(), 2);
        assert_eq!(taxonomy.nodes.iter().map(|node| node.see_also.len()).sum::<usize>(), 1);
    }

    #[test]
    fn nodes_are_told_by_their_words_or_by_how_much_is_below_them() {
        let taxonomy = arranged();
        let definition = |name: &str| {
            let node = taxonomy.nodes.iter().find(|node| node.name.contains(name));
            node.and_then(|node| node.definition.as_deref())
        };
        assert_eq!(definition("soup bread"), Some("Texts on soup and bread."));
        assert_eq!(taxonomy.nodes[0].definition.as_deref(), Some("3 topics."));
    }
}
