//! Identity over time: which topics of a refit are topics of the model before, and what became of the others.
//!
//! One idea: two models are compared row by row. Each row of either sample has a topic by both: its own in the model it
//! was fitted in, and in the other model either its own too (a row that is in both samples) or the one that it would be
//! labelled with. From the table of these pairs all follows:
//!
//! - A topic is continued by the one it shares most rows with (Jaccard index), one to one, if either has at least half
//!   of its rows in the other; it keeps its number. Of equal ones the more similar centroids win, then smaller numbers.
//! - A topic is **split** into the one that continues it and those that have at least half of their rows from it;
//!   topics are **merged** in the one that continues one of them and has at least half of the rows of the others.
//! - What is not continued has **died**, unless it was merged; what continues nothing is **born**, unless by a split.
//! - One that is continued has **grown** or **shrunk** if its share of the sample is a quarter larger or a fifth smaller,
//!   unless a merge or a split says so.
//!
//! Numbers are never given twice: what is new is numbered from [`Model::next_topic`] on, by falling size.
//!
//! Source: the transitions and their thresholds follow MONIC (Spiliopoulou et al., KDD 2006).

use crate::encoders::Identity;
use crate::model::{Model, centroids};
use crate::similarity::Similarity;
use crate::{Error, Result};
use kernels::norm::scale_to_unit;
use kernels::search_codes::SearchScale;
use kernels::{Device, Matrix};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Of a topic's rows, the share that says where it belongs.
const MOST: f64 = 0.5;

/// How many times as large a share of the sample is a growth; its inverse is a loss.
const GROWTH: f64 = 1.25;

/// What became of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A topic that continues none.
    Born,
    /// One that has a larger share of the sample than before.
    Grown,
    /// One that has a smaller share.
    Shrunk,
    /// One that has become several.
    Split,
    /// Several that have become one.
    Merged,
    /// One that is not continued.
    Died,
}

impl Change {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Born => "born",
            Self::Grown => "grown",
            Self::Shrunk => "shrunk",
            Self::Split => "split",
            Self::Merged => "merged",
            Self::Died => "died",
        }
    }
}

/// An event of a topic's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Which of the model's changes it was: 1 the first refit or change.
    pub generation: u32,
    /// What happened.
    pub change: Change,
    /// The topics before.
    pub from: Vec<i32>,
    /// The topics after.
    pub to: Vec<i32>,
    /// What the topics before were called, as they were then.
    pub names: Vec<String>,
    /// What says so.
    pub evidence: Vec<Evidence>,
}

/// How a topic before and one after go together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The topic before; absent for one that is born.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i32>,
    /// The topic after; absent for one that has died.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<i32>,
    /// Rows that both have.
    pub rows: u64,
    /// Of the rows of the topic before, the share that is in the one after.
    pub of_from: f64,
    /// Of the rows of the topic after, the share that was in the one before.
    pub of_to: f64,
    /// The cosine of their centroids.
    pub similarity: f64,
}

/// The rows of a refit's sample that are compared with a model.
#[derive(Clone, Copy)]
pub(crate) struct Refit<'a> {
    /// Names of the rows.
    pub ids: &'a [String],
    /// Whether a row of that name is the same in the model before: not where rows are only numbered.
    pub are_named: bool,
    /// Their vectors, of length 1.
    pub vectors: &'a Matrix<f32>,
    /// Search codes of those.
    pub codes: &'a Matrix<i8>,
    /// Their scale.
    pub scale: SearchScale,
    /// The rows' topics: any numbers from 0, −1 for outliers.
    pub labels: &'a [i32],
}

/// A refit's labels under the numbers that topics keep, and what happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Continued {
    /// The number of each of the refit's topics.
    pub numbers: BTreeMap<i32, i32>,
    /// What happened to topics.
    pub events: Vec<Event>,
    /// The number of the next new topic.
    pub next_topic: i32,
}

/// Fails where the topics of `before` cannot be continued by a fit with this encoder (none: vectors from a column) and
/// vectors of so many dimensions (none: not known yet).
pub fn check(before: &Model, encoder: Option<&Identity>, dim: Option<usize>) -> Result<()> {
    let mut differences = match (&before.encoder, encoder) {
        (Some(before), Some(here)) => before.differences(here),
        _ => Vec::new(),
    };
    if let Some(dim) = dim.filter(|dim| *dim != before.codes.cols()) {
        differences.push(format!("dimensions {dim}, expected {}", before.codes.cols()));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let differences = differences.join(", ");
    let reason = format!(
        "is another than that of the model before ({differences}): topics cannot be continued; --new-ids numbers them anew"
    );
    Err(Error::setting("encoder", reason))
}

/// Matches the topics of `refit` with those of `before`.
///
/// # Errors
/// What labelling fails with.
pub(crate) fn continued(before: &Model, refit: Refit<'_>, device: &Device) -> Result<Continued> {
    let pairs = pairs(before, refit, device)?;
    let own = |model: &[i32]| sizes(model.iter().copied());
    let (old_sizes, new_sizes) = (own(&before.sample.topics), own(refit.labels));
    let similarity = Similarities::of(before, refit.vectors, refit.labels)?;
    let table = Table::of(&pairs, &similarity, names(before));

    let mut numbers = table.continued();
    let mut next_topic = before.next_topic;
    let mut new: Vec<i32> = new_sizes.keys().copied().filter(|topic| !numbers.contains_key(topic)).collect();
    new.sort_by_key(|topic| (std::cmp::Reverse(new_sizes[topic]), *topic));
    for topic in new {
        numbers.insert(topic, next_topic);
        next_topic += 1;
    }
    let (old, new) = (shares(old_sizes, before.sample.len()), shares(new_sizes, refit.labels.len()));
    let generation = next_generation(before);
    let events = table.events(&numbers, &old, &new, generation);
    Ok(Continued { numbers, events, next_topic })
}

/// What happened between a model and a change of it, which has the same rows.
pub(crate) fn of_change(before: &Model, after: &Model) -> Result<Vec<Event>> {
    let pairs: Vec<(i32, i32)> =
        before.sample.topics.iter().copied().zip(after.sample.topics.iter().copied()).collect();
    let vectors = after.scale.vectors(&after.codes);
    let similarity = Similarities::of(before, &vectors, &after.sample.topics)?;
    let table = Table::of(&pairs, &similarity, names(before));
    let numbers = after.topics.iter().map(|topic| (topic.id, topic.id)).collect();
    let of_sample = |model: &Model| -> BTreeMap<i32, f64> {
        shares(sizes(model.sample.topics.iter().copied()), model.sample.len())
    };
    Ok(table.events(&numbers, &of_sample(before), &of_sample(after), next_generation(before)))
}

/// The topics that keep their numbers, but mostly stand for something else since a `generation` of events: by a split, a
/// merge or growth, less than half of their rows before are in them, or of those in them were before.
pub fn other_topics(events: &[Event], generation: u32) -> BTreeSet<i32> {
    let of_it = events.iter().filter(|event| event.generation == generation);
    let is_other = |pair: &&Evidence| pair.from == pair.to && (pair.of_from < MOST || pair.of_to < MOST);
    of_it.flat_map(|event| &event.evidence).filter(is_other).filter_map(|pair| pair.to).collect()
}

fn names(model: &Model) -> BTreeMap<i32, String> {
    model.topics.iter().map(|topic| (topic.id, topic.name.clone())).collect()
}

fn next_generation(before: &Model) -> u32 {
    before.generation + 1
}

/// For each row of either sample, its topic before and after.
fn pairs(before: &Model, refit: Refit<'_>, device: &Device) -> Result<Vec<(i32, i32)>> {
    let named = before.sample.ids.iter().enumerate().filter(|_| refit.are_named);
    let old_rows: FxHashMap<&str, usize> = named.map(|(row, id)| (id.as_str(), row)).collect();
    let mut pairs = Vec::with_capacity(before.sample.len() + refit.ids.len());
    let mut is_shared = vec![false; before.sample.len()];
    let mut new: Vec<u32> = Vec::new();
    for (row, id) in refit.ids.iter().enumerate() {
        match old_rows.get(id.as_str()) {
            Some(&old) => {
                is_shared[old] = true;
                pairs.push((before.sample.topics[old], refit.labels[row]));
            }
            None => new.push(row as u32), // a sample has fewer rows than u32::MAX
        }
    }
    if !new.is_empty() && !before.sample.is_empty() {
        let assigner = before.assigner(before.settings.label.clone(), device)?;
        let labels = assigner.assign(&refit.vectors.gather(&new))?;
        pairs.extend(new.iter().zip(labels).map(|(row, label)| (label.topic, refit.labels[*row as usize])));
    }
    let gone: Vec<u32> =
        (0u32..).zip(&is_shared).filter(|(_, shared)| !**shared).map(|(row, _)| row).collect();
    if !gone.is_empty() && !refit.ids.is_empty() {
        let topics = refit.labels.to_vec();
        let label = before.settings.label.clone();
        let assigner =
            crate::assign::Assigner::try_new(device, refit.codes, refit.scale, topics, label, 0.0)?;
        let threshold = assigner.calibrate(refit.codes, |row| crate::model::is_test_row(&refit.ids[row]))?;
        let mut vectors = before.scale.vectors(&before.codes.gather(&gone));
        scale_to_unit(&mut vectors);
        let labels = assigner.with_threshold(threshold.score).assign(&vectors)?;
        let topics = &before.sample.topics;
        pairs.extend(gone.iter().zip(labels).map(|(row, label)| (topics[*row as usize], label.topic)));
    }
    Ok(pairs)
}

fn shares(sizes: BTreeMap<i32, u64>, rows: usize) -> BTreeMap<i32, f64> {
    sizes.into_iter().map(|(topic, size)| (topic, size as f64 / rows.max(1) as f64)).collect()
}

fn sizes(topics: impl Iterator<Item = i32>) -> BTreeMap<i32, u64> {
    let mut sizes = BTreeMap::new();
    for topic in topics.filter(|topic| *topic >= 0) {
        *sizes.entry(topic).or_default() += 1;
    }
    sizes
}

/// The cosines of centroids before and after.
struct Similarities {
    old: Vec<i32>,
    new: Vec<i32>,
    values: Matrix<f32>,
}

impl Similarities {
    fn of(before: &Model, vectors: &Matrix<f32>, labels: &[i32]) -> Result<Self> {
        let mut sums: BTreeMap<i32, Vec<f64>> = BTreeMap::new();
        for (row, label) in vectors.iter_rows().zip(labels).filter(|(_, label)| **label >= 0) {
            let sum = sums.entry(*label).or_insert_with(|| vec![0.0; vectors.cols()]);
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        // A sum has the direction of its mean.
        let new_values = sums.values().flatten().map(|sum| *sum as f32).collect();
        let new = Matrix::try_from_vec(sums.len(), vectors.cols(), new_values)?;
        let old = centroids(&before.topics)?;
        Ok(Self {
            old: before.topics.iter().map(|topic| topic.id).collect(),
            new: sums.into_keys().collect(),
            values: match before.topics.is_empty() {
                true => Matrix::zeros(0, 0),
                false => Similarity::Cosine.between(&old, &new)?,
            },
        })
    }

    fn between(&self, old: i32, new: i32) -> f64 {
        match (self.old.binary_search(&old), self.new.binary_search(&new)) {
            (Ok(old), Ok(new)) => f64::from(self.values.row(old)[new]),
            _ => 0.0,
        }
    }
}

/// How many rows each topic before shares with each after, and what they go together with.
struct Table {
    cells: Vec<Evidence>,
    /// The topics before, with their names.
    old: BTreeMap<i32, String>,
}

impl Table {
    fn of(pairs: &[(i32, i32)], similarity: &Similarities, old: BTreeMap<i32, String>) -> Self {
        let mut cells: BTreeMap<(i32, i32), u64> = BTreeMap::new();
        for pair in pairs.iter().filter(|(old, new)| *old >= 0 && *new >= 0) {
            *cells.entry(*pair).or_default() += 1;
        }
        // Rows that are outliers on one side count for the topic on the other.
        let rows_before = sizes(pairs.iter().map(|(old, _)| *old));
        let rows_after = sizes(pairs.iter().map(|(_, new)| *new));
        let evidence = |((from, to), rows): ((i32, i32), u64)| Evidence {
            from: Some(from),
            to: Some(to),
            rows,
            of_from: rows as f64 / rows_before[&from] as f64,
            of_to: rows as f64 / rows_after[&to] as f64,
            similarity: similarity.between(from, to),
        };
        Self { cells: cells.into_iter().map(evidence).collect(), old }
    }

    /// The topic before that each topic after continues.
    fn continued(&self) -> BTreeMap<i32, i32> {
        // rows / (from + to − rows), from the shares.
        let jaccard = |cell: &Evidence| 1.0 / (1.0 / cell.of_from + 1.0 / cell.of_to - 1.0);
        let mut cells: Vec<&Evidence> =
            self.cells.iter().filter(|cell| cell.of_from >= MOST || cell.of_to >= MOST).collect();
        cells.sort_by(|a, b| {
            let (a_index, b_index) = (jaccard(a), jaccard(b));
            b_index
                .total_cmp(&a_index)
                .then(b.similarity.total_cmp(&a.similarity))
                .then((a.from, a.to).cmp(&(b.from, b.to)))
        });
        let (mut continued, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for cell in cells {
            if let (Some(from), Some(to)) = (cell.from, cell.to)
                && !continued.contains_key(&to)
                && taken.insert(from)
            {
                continued.insert(to, from);
            }
        }
        continued
    }

    /// What happened, by kind and then by topic; `numbers` are those that topics after have.
    fn events(
        &self,
        numbers: &BTreeMap<i32, i32>,
        old_shares: &BTreeMap<i32, f64>,
        new_shares: &BTreeMap<i32, f64>,
        generation: u32,
    ) -> Vec<Event> {
        let cells: Vec<Evidence> = self
            .cells
            .iter()
            .map(|cell| Evidence { to: cell.to.and_then(|to| numbers.get(&to)).copied(), ..*cell })
            .collect();
        let mut children: BTreeMap<i32, Vec<Evidence>> = BTreeMap::new();
        let mut parents: BTreeMap<i32, Vec<Evidence>> = BTreeMap::new();
        for cell in &cells {
            let (Some(from), Some(to)) = (cell.from, cell.to) else { continue };
            if cell.of_to >= MOST || from == to {
                children.entry(from).or_default().push(*cell);
            }
            if cell.of_from >= MOST || from == to {
                parents.entry(to).or_default().push(*cell);
            }
        }
        children.retain(|_, cells| cells.len() > 1);
        parents.retain(|_, cells| cells.len() > 1);
        let of_split: BTreeSet<i32> = children.values().flatten().filter_map(|cell| cell.to).collect();
        let of_merge: BTreeSet<i32> = parents.values().flatten().filter_map(|cell| cell.from).collect();
        // That a topic is smaller without its parts, and larger with what it took in, goes without saying.
        let (split, merged): (BTreeSet<i32>, BTreeSet<i32>) =
            (children.keys().copied().collect(), parents.keys().copied().collect());

        let event = |change, from: Vec<i32>, to: Vec<i32>, evidence| {
            let names = from.iter().map(|topic| self.old.get(topic).cloned().unwrap_or_default()).collect();
            Event { generation, change, from, to, names, evidence }
        };
        let mut events = Vec::new();
        for (from, cells) in children {
            events.push(event(
                Change::Split,
                vec![from],
                cells.iter().filter_map(|cell| cell.to).collect(),
                cells,
            ));
        }
        for (to, cells) in parents {
            events.push(event(
                Change::Merged,
                cells.iter().filter_map(|cell| cell.from).collect(),
                vec![to],
                cells,
            ));
        }
        // The pair that says most of a topic that has no other side.
        let best = |is_of: &dyn Fn(&Evidence) -> bool| {
            let found = cells.iter().filter(|cell| is_of(cell)).max_by_key(|cell| cell.rows);
            found.copied().into_iter().collect::<Vec<_>>()
        };
        let mut after: Vec<(i32, f64)> =
            new_shares.iter().filter_map(|(topic, share)| Some((*numbers.get(topic)?, *share))).collect();
        after.sort_by_key(|(topic, _)| *topic);
        for (topic, share) in &after {
            let Some(before) = old_shares.get(topic).filter(|_| self.old.contains_key(topic)) else {
                if !of_split.contains(topic) {
                    let evidence = best(&|cell| cell.to == Some(*topic));
                    events.push(event(Change::Born, Vec::new(), vec![*topic], evidence));
                }
                continue;
            };
            let change = match share / before {
                growth if growth >= GROWTH && !merged.contains(topic) => Change::Grown,
                growth if growth <= 1.0 / GROWTH && !split.contains(topic) => Change::Shrunk,
                _ => continue,
            };
            let evidence = best(&|cell| cell.from == Some(*topic) && cell.to == Some(*topic));
            events.push(event(change, vec![*topic], vec![*topic], evidence));
        }
        for topic in self.old.keys() {
            if !after.iter().any(|(kept, _)| kept == topic)
                && !of_merge.contains(topic)
                && !events_from(&events, *topic)
            {
                let evidence = best(&|cell| cell.from == Some(*topic));
                events.push(event(Change::Died, vec![*topic], Vec::new(), evidence));
            }
        }
        events
    }
}

/// Whether an event tells already what became of a topic.
fn events_from(events: &[Event], topic: i32) -> bool {
    events.iter().any(|event| event.change == Change::Split && event.from.contains(&topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happened, to which topics, and to which they came.
    type Told = (Change, Vec<i32>, Vec<i32>);

    /// What follows from so many rows of each pair of topics before and after.
    fn of(rows: &[(i32, i32, u64)]) -> (BTreeMap<i32, i32>, Vec<Told>) {
        let pairs: Vec<(i32, i32)> =
            rows.iter().flat_map(|(old, new, rows)| (0..*rows).map(|_| (*old, *new))).collect();
        let old: Vec<i32> = sizes(pairs.iter().map(|pair| pair.0)).into_keys().collect();
        let new: Vec<i32> = sizes(pairs.iter().map(|pair| pair.1)).into_keys().collect();
        let values = Matrix::zeros(old.len(), new.len());
        let names = old.iter().map(|topic| (*topic, format!("topic {topic}"))).collect();
        let table = Table::of(&pairs, &Similarities { old, new, values }, names);
        let mut numbers = table.continued();
        for (at, topic) in sizes(pairs.iter().map(|pair| pair.1)).into_keys().enumerate() {
            numbers.entry(topic).or_insert(100 + at as i32);
        }
        let shares = |topics: Vec<i32>| -> BTreeMap<i32, f64> {
            let rows = topics.len() as f64;
            sizes(topics.into_iter()).into_iter().map(|(topic, size)| (topic, size as f64 / rows)).collect()
        };
        let old_shares = shares(pairs.iter().map(|pair| pair.0).collect());
        let new_shares = shares(pairs.iter().map(|pair| pair.1).collect());
        let events = table.events(&numbers, &old_shares, &new_shares, 1);
        (numbers, events.into_iter().map(|event| (event.change, event.from, event.to)).collect())
    }

    #[test]
    fn topics_keep_their_numbers_whatever_the_refit_called_them() {
        let (numbers, events) = of(&[(0, 1, 90), (0, -1, 10), (1, 0, 50), (-1, 1, 5)]);
        assert_eq!(numbers, [(0, 1), (1, 0)].into());
        assert_eq!(events, []);
    }

    #[test]
    fn a_split_leaves_its_number_to_the_largest_part() {
        let (numbers, events) = of(&[(7, 0, 40), (7, 1, 35), (7, 2, 25), (3, 3, 100)]);
        assert_eq!(numbers, [(0, 7), (1, 101), (2, 102), (3, 3)].into());
        assert_eq!(events, [(Change::Split, vec![7], vec![7, 101, 102])]);
    }

    #[test]
    fn a_merge_keeps_the_number_of_the_largest() {
        let (numbers, events) = of(&[(0, 0, 50), (1, 0, 80), (2, 1, 100)]);
        assert_eq!(numbers, [(0, 1), (1, 2)].into());
        assert_eq!(events, [(Change::Merged, vec![0, 1], vec![1])]);
    }

    #[test]
    fn a_topic_goes_on_in_one_that_has_most_of_its_rows_among_many_others() {
        let (numbers, events) = of(&[(5, 0, 60), (5, -1, 40), (-1, 0, 200), (1, 1, 300)]);
        assert_eq!(numbers, [(0, 5), (1, 1)].into());
        assert_eq!(events.iter().map(|event| event.0).collect::<Vec<_>>(), [Change::Grown]);
    }

    #[test]
    fn small_parts_are_parts_too() {
        let (_, events) = of(&[(0, 0, 100), (0, 1, 5), (0, 2, 4)]);
        assert_eq!(events[0], (Change::Split, vec![0], vec![0, 101, 102]));
        let (_, events) = of(&[(0, 0, 100), (1, 0, 5), (2, 0, 4), (2, -1, 1)]);
        assert_eq!(events[0], (Change::Merged, vec![0, 1, 2], vec![0]));
    }

    #[test]
    fn what_has_no_other_side_is_born_or_has_died() {
        let (numbers, events) = of(&[(0, 0, 100), (1, -1, 50), (-1, 1, 50), (1, 0, 5), (0, 1, 5)]);
        assert_eq!(numbers, [(0, 0), (1, 101)].into());
        assert_eq!(events, [(Change::Born, vec![], vec![101]), (Change::Died, vec![1], vec![])]);
    }

    #[test]
    fn a_topic_grows_with_its_share_of_the_sample_not_with_the_sample() {
        let (_, events) = of(&[(0, 0, 100), (-1, 0, 60), (1, 1, 200), (2, 2, 300)]);
        assert_eq!(events, [(Change::Grown, vec![0], vec![0])]);
    }

    #[test]
    fn a_topic_of_which_little_is_left_is_another() {
        let pair = |from, to, of_from, of_to| Evidence { from, to, rows: 9, of_from, of_to, similarity: 0.9 };
        let event = |generation, change, evidence: &[Evidence]| Event {
            generation,
            change,
            from: Vec::new(),
            to: Vec::new(),
            names: Vec::new(),
            evidence: evidence.to_vec(),
        };
        let events = [
            event(1, Change::Split, &[pair(Some(7), Some(7), 0.2, 1.0)]),
            event(2, Change::Split, &[pair(Some(1), Some(1), 0.3, 1.0), pair(Some(1), Some(5), 0.3, 1.0)]),
            event(2, Change::Merged, &[pair(Some(2), Some(2), 1.0, 0.9), pair(Some(3), Some(2), 1.0, 0.1)]),
            event(2, Change::Grown, &[pair(Some(4), Some(4), 0.9, 0.2)]),
        ];
        assert_eq!(other_topics(&events, 2), [1, 4].into());
        assert_eq!(other_topics(&events, 3), BTreeSet::new());
    }
}
