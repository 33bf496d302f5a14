//! Topics in groups of documents: in the intervals of a time, in classes; and the topics of each document. Near duplicates
//! that were not fitted count in none: nothing is kept of their dates and classes.
//!
//! The words of a topic in a group are those of its documents there, weighed by the fitted weights and drawn towards the
//! topic's words in all groups, as BERTopic's `topics_over_time` and `topics_per_class` do (where "evolution" has no
//! effect, MaartenGr/BERTopic#2370; here it has).

use super::table;
use crate::fit::FitConfig;
use crate::model::Model;
use crate::words::counts::check_labels;
use crate::words::topic_space::distribution;
use crate::words::{Ctfidf, DistributionConfig, TermCounts, Tokens, TopicSpace};
use crate::{Error, Result};
use arrow::array::{
    ArrayRef, Date32Array, Float64Builder, Int32Array, Int32Builder, Int64Array, ListBuilder, RecordBatch,
    StringArray, StructBuilder,
};
use arrow::datatypes::{DataType, Field};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Words of a topic in a group, as in BERTopic.
const WORDS: usize = 5;

/// How the words of a topic in an interval are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTimeConfig {
    /// Words are the mean of their weights in this interval and in the one before. On by default, as in BERTopic.
    pub evolution_tuning: bool,
    /// Words are the mean of their weights in this interval and in all. On by default, as in BERTopic.
    pub global_tuning: bool,
    /// Weights, and what stands for all intervals, come from this interval and those before it: no word of an
    /// interval depends on later texts. Off by default.
    pub causal: bool,
}

impl Default for OverTimeConfig {
    fn default() -> Self {
        Self { evolution_tuning: true, global_tuning: true, causal: false }
    }
}

/// Intervals of days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Each day.
    Day,
    /// Weeks from Monday.
    Week,
    /// Months.
    Month,
    /// Years.
    Year,
    /// So many intervals of equal length from the first day to the last.
    Bins(u32),
}

impl Interval {
    /// The first day of the interval that each of `days` (since 1970) is in.
    ///
    /// Fails for 0 intervals.
    pub fn starts(self, days: &[Option<i32>]) -> Result<Vec<Option<i32>>> {
        use arrow::temporal_conversions::date32_to_datetime;
        if self == Self::Bins(0) {
            return Err(Error::setting("bins", "0, expected 1 or more"));
        }
        let known = || days.iter().flatten().copied();
        let (first, last) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        let of = |day: i32| {
            let date = date32_to_datetime(day)?.date();
            // 0 is Monday; a week begins at most six days, a month 30 and a year 365 days earlier.
            use chrono::Datelike;
            let back = match self {
                Self::Day => 0,
                Self::Week => date.weekday().num_days_from_monday(),
                Self::Month => date.day0(),
                Self::Year => date.ordinal0(),
                Self::Bins(count) => {
                    let width = f64::from(last - first + 1) / f64::from(count);
                    let bin = (f64::from(day - first) / width).floor();
                    // A bin's first day is that of its first whole day.
                    return Some(first + (bin * width).ceil() as i32);
                }
            };
            Some(day - back as i32)
        };
        Ok(days.iter().map(|day| day.and_then(of)).collect())
    }
}

/// The documents of a model, read for tables.
pub struct Documents<'m> {
    model: &'m Model,
    config: &'m FitConfig,
    tokens: Tokens,
    weights: Ctfidf,
}

/// Term weights by term, adding up to 1.
type Shares = BTreeMap<u32, f64>;

impl<'m> Documents<'m> {
    /// Reads the texts of `model`'s sample.
    pub fn read(model: &'m Model, config: &'m FitConfig) -> Result<Self> {
        let texts = model.texts.get(&model.sample.texts)?;
        let tokens = Tokens::read(&texts, &config.words.vocabulary)?;
        let weights = Ctfidf::fit(&model.terms, &config.words.ctfidf)?;
        Ok(Self { model, config, tokens, weights })
    }

    /// Topics in the intervals that begin at `starts` (days since 1970, one a row; none: the row is left out):
    /// `Topic, Words, Frequency, Timestamp`, by time, then topic.
    pub fn over_time(&self, starts: &[Option<i32>], config: &OverTimeConfig) -> Result<RecordBatch> {
        let groups = self.grouped(starts)?;
        let mut rows: Vec<Row> = Vec::new();
        let mut before: BTreeMap<i32, Shares> = BTreeMap::new();
        let mut seen: Vec<(i32, Vec<(u32, u64)>)> = Vec::new();
        let all = self.shares_of_all(&self.model.terms, &self.weights);
        for (start, topics) in &groups {
            let (mut weights, mut global) = (None, None);
            if config.causal {
                seen.extend(topics.iter().map(|(topic, (_, counts))| (*topic, counts.clone())));
                let (fitted, shares) = self.estimate(&mut seen)?;
                (weights, global) = (Some(fitted), Some(shares));
            }
            let weights = weights.as_ref().unwrap_or(&self.weights);
            let global = global.as_ref().unwrap_or(&all);
            let mut now = BTreeMap::new();
            for (topic, (documents, counts)) in topics.iter().filter(|(topic, _)| **topic >= 0) {
                let mut shares = shares(weights.weigh(counts));
                if let Some(earlier) = before.get(topic).filter(|_| config.evolution_tuning) {
                    shares = mean(&shares, earlier);
                }
                if let Some(of_all) = global.get(topic).filter(|_| config.global_tuning) {
                    shares = mean(&shares, of_all);
                }
                rows.push(Row {
                    topic: *topic,
                    words: self.best(&shares),
                    documents: *documents,
                    group: *start,
                });
                now.insert(*topic, shares);
            }
            // Only the interval right before counts: a topic that was away begins anew.
            before = now;
        }
        let starts = Date32Array::from_iter_values(rows.iter().map(|row| row.group));
        self.table(&rows, ("Timestamp", Arc::new(starts)))
    }

    /// Topics in classes (one a row; none: the row is left out): `Topic, Words, Frequency, Class`, by class, then topic.
    /// With `global_tuning`, words are the mean of their weights in the class and in all.
    pub fn per_class(&self, classes: &[Option<String>], global_tuning: bool) -> Result<RecordBatch> {
        let groups = self.grouped(classes)?;
        let all = self.shares_of_all(&self.model.terms, &self.weights);
        let mut rows = Vec::new();
        for (class, topics) in groups {
            for (topic, (documents, counts)) in topics.into_iter().filter(|(topic, _)| *topic >= 0) {
                let mut shares = shares(self.weights.weigh(&counts));
                if let Some(of_all) = all.get(&topic).filter(|_| global_tuning) {
                    shares = mean(&shares, of_all);
                }
                rows.push(Row { topic, words: self.best(&shares), documents, group: class.clone() });
            }
        }
        let classes = StringArray::from_iter_values(rows.iter().map(|row| &row.group));
        self.table(&rows, ("Class", Arc::new(classes)))
    }

    /// The topics of each row by windows of its words: `id, Topic, topics`, a list of topics and their shares, the
    /// largest first.
    pub fn distributions(&self, config: &DistributionConfig) -> Result<RecordBatch> {
        if config.window == 0 || config.stride == 0 {
            return Err(Error::setting("window and stride", "0, expected 1 or more"));
        }
        let space = TopicSpace::new(&self.model.terms, &self.weights, &self.tokens);
        let found: Vec<Vec<(i32, f64)>> = (0..self.tokens.len())
            .into_par_iter()
            .map_init(Vec::new, |scores, row| {
                distribution(&space, self.tokens.document(row), config, scores);
                let topics = space.topics().iter().copied().zip(scores.iter().copied());
                let mut topics: Vec<(i32, f64)> = topics.filter(|(_, share)| *share > 0.0).collect();
                topics.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                topics
            })
            .collect();
        let fields =
            vec![Field::new("topic", DataType::Int32, false), Field::new("share", DataType::Float64, false)];
        let entry = StructBuilder::new(
            fields.clone(),
            vec![Box::new(Int32Builder::new()), Box::new(Float64Builder::new())],
        );
        let item = Field::new_list_field(DataType::Struct(fields.into()), false);
        let mut lists = ListBuilder::new(entry).with_field(item);
        for topics in &found {
            for (topic, share) in topics {
                let entry = lists.values();
                if let Some(topics) = entry.field_builder::<Int32Builder>(0) {
                    topics.append_value(*topic);
                }
                if let Some(shares) = entry.field_builder::<Float64Builder>(1) {
                    shares.append_value(*share);
                }
                entry.append(true);
            }
            lists.append(true);
        }
        let sample = &self.model.sample;
        table(vec![
            ("id", Arc::new(StringArray::from_iter_values(&sample.ids))),
            ("Topic", Arc::new(Int32Array::from(sample.topics.clone()))),
            ("topics", Arc::new(lists.finish())),
        ])
    }

    /// Of each group the topics, each with its number of documents and how often they have each term.
    #[allow(clippy::type_complexity)] // said in the line above
    fn grouped<G: Ord + Clone>(
        &self,
        groups: &[Option<G>],
    ) -> Result<BTreeMap<G, BTreeMap<i32, (u64, Vec<(u32, u64)>)>>> {
        check_labels(&self.model.sample.topics, groups.len())?;
        let space = TopicSpace::new(&self.model.terms, &self.weights, &self.tokens);
        let mut found: BTreeMap<G, BTreeMap<i32, (u64, BTreeMap<u32, u64>)>> = BTreeMap::new();
        for (row, (group, topic)) in groups.iter().zip(&self.model.sample.topics).enumerate() {
            let Some(group) = group else { continue };
            let (documents, counts) = found.entry(group.clone()).or_default().entry(*topic).or_default();
            *documents += 1;
            for (term, count) in space.counts(self.tokens.document(row)) {
                *counts.entry(term).or_default() += count;
            }
        }
        let listed = |topics: BTreeMap<i32, (u64, BTreeMap<u32, u64>)>| {
            let topics = topics.into_iter();
            topics.map(|(topic, (n, counts))| (topic, (n, counts.into_iter().collect()))).collect()
        };
        Ok(found.into_iter().map(|(group, topics)| (group, listed(topics))).collect())
    }

    /// The weights and the shares of topics, from counts seen so far, which are added up in place.
    fn estimate(&self, seen: &mut Vec<(i32, Vec<(u32, u64)>)>) -> Result<(Ctfidf, BTreeMap<i32, Shares>)> {
        let mut sums: BTreeMap<i32, BTreeMap<u32, u64>> = BTreeMap::new();
        for (topic, counts) in seen.drain(..) {
            let sum = sums.entry(topic).or_default();
            counts.into_iter().for_each(|(term, count)| *sum.entry(term).or_default() += count);
        }
        seen.extend(sums.into_iter().map(|(topic, sum)| (topic, sum.into_iter().collect())));
        let so_far = TermCounts::over(&self.model.terms, seen);
        let weights = Ctfidf::fit(&so_far, &self.config.words.ctfidf)?;
        let shares = self.shares_of_all(&so_far, &weights);
        Ok((weights, shares))
    }

    fn shares_of_all(&self, counts: &TermCounts, weights: &Ctfidf) -> BTreeMap<i32, Shares> {
        let topics = counts.topics().iter().enumerate();
        topics.map(|(row, topic)| (*topic, shares(weights.weigh(counts.row(row))))).collect()
    }

    /// The best words, joined by commas.
    fn best(&self, shares: &Shares) -> String {
        let mut words: Vec<(u32, f64)> = shares.iter().map(|(term, share)| (*term, *share)).collect();
        words.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let terms = self.model.terms.terms();
        words
            .iter()
            .take(WORDS)
            .map(|(term, _)| terms[*term as usize].as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn table<G>(&self, rows: &[Row<G>], groups: (&str, ArrayRef)) -> Result<RecordBatch> {
        table(vec![
            ("Topic", Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.topic)))),
            ("Words", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.words)))),
            (
                "Frequency",
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.documents as i64))),
            ),
            groups,
        ])
    }
}

/// A topic in a group.
struct Row<G = i32> {
    topic: i32,
    words: String,
    documents: u64,
    group: G,
}

/// Weights as shares of the sum of their sizes.
fn shares(weights: Vec<(u32, f64)>) -> Shares {
    let sum: f64 = weights.iter().map(|(_, weight)| weight.abs()).sum();
    let scale = if sum > 0.0 { 1.0 / sum } else { 0.0 };
    weights.into_iter().map(|(term, weight)| (term, weight * scale)).collect()
}

fn mean(a: &Shares, b: &Shares) -> Shares {
    let mut mean: Shares = a.iter().map(|(term, share)| (*term, share / 2.0)).collect();
    b.iter().for_each(|(term, share)| *mean.entry(*term).or_default() += share / 2.0);
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_fall_into_the_intervals_that_people_know() {
        // 2026-08-21, a Friday.
        let days = [Some(20_686), None, Some(20_679)];
        let starts = |interval: Interval| interval.starts(&days).unwrap();
        assert_eq!(starts(Interval::Day), days);
        assert_eq!(starts(Interval::Week), [Some(20_682), None, Some(20_675)]);
        assert_eq!(starts(Interval::Month), [Some(20_666), None, Some(20_666)]);
        assert_eq!(starts(Interval::Year), [Some(20_454), None, Some(20_454)]);
        assert_eq!(starts(Interval::Bins(2)), [Some(20_683), None, Some(20_679)]);
        assert_eq!(starts(Interval::Bins(1)), [Some(20_679), None, Some(20_679)]);
        assert!(Interval::Bins(0).starts(&days).is_err());
    }
}
