//! What all rows that a model has labelled are like, topic by topic: how many there are, where they lie, their words.
//!
//! One idea: integers that add up. A row adds 1, the search code of its vector, and its terms, those of the model's
//! vocabulary. So the parts of a corpus, counted by whoever and in any order, add up to the whole, bit for bit. Versions of
//! a model of one [`basis`] count alike, so that their sums add up too.

use crate::describe::Counted;
use crate::fit::FitConfig;
use crate::model::{Model, Topic};
use crate::words::{Cells, TermCounts};
use crate::{Error, Result};
use arrow::array::{
    ArrayRef, AsArray, Int32Array, Int32Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch,
};
use arrow::datatypes::{Int32Type, Int64Type};
use kernels::Matrix;
use kernels::search_codes::SearchScale;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What sums depend on of a model, as a hash of 32 hexadecimal digits: what labels rows, its sample's codes and topics and
/// its settings, and what counts their terms, its vocabulary and how that is read in its texts.
pub fn basis(model: &Model) -> Result<String> {
    let vocabulary = FitConfig::of(model)?.words.vocabulary;
    let said = serde_json::to_vec(&(vocabulary, &model.settings.text, &model.settings.label));
    let mut hash = Xxh3::new();
    hash.update(&said.map_err(|error| Error::Internal(format!("settings: {error}")))?);
    hash.update(&model.scale.get().to_le_bytes());
    hash.update(bytemuck::cast_slice(model.codes.as_slice()));
    model.sample.topics.iter().for_each(|topic| hash.update(&topic.to_le_bytes()));
    // No term holds a zero byte: it is made of words.
    for term in model.terms.terms() {
        hash.update(term.as_bytes());
        hash.update(&[0]);
    }
    Ok(format!("{:032x}", hash.digest128()))
}

/// A version of a model whose sums are those of a later one, when its topics are what they have become.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basis {
    /// Its [`basis`].
    pub id: String,
    /// What its topics have become, where that is another number.
    pub to: BTreeMap<i32, i32>,
}

impl Basis {
    /// The bases of a model: its own, and those before it.
    pub fn of(model: &Model) -> Result<Vec<Self>> {
        let own = Self { id: basis(model)?, to: BTreeMap::new() };
        Ok(std::iter::once(own).chain(model.bases.iter().cloned()).collect())
    }

    /// The same after a further change, by which topics have become what `to` says.
    pub(crate) fn then(&self, to: &BTreeMap<i32, i32>) -> Self {
        let last = |topic: i32| to.get(&topic).copied().unwrap_or(topic);
        let before = self.to.iter().map(|(from, via)| (*from, last(*via)));
        let others = to.iter().filter(|(from, _)| !self.to.contains_key(from)).map(|(from, to)| (*from, *to));
        let to = before.chain(others).filter(|(from, to)| from != to).collect();
        Self { id: self.id.clone(), to }
    }
}

/// A term and its count in a map, of whose nodes two thirds are full.
const CELL_BYTES: usize = 18;

/// Sums over rows, by topic; −1 is a topic like the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corpus {
    topics: BTreeMap<i32, Sums>,
}

/// Sums over the rows of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sums {
    rows: u64,
    /// The sum of their search codes.
    codes: Vec<i64>,
    /// How often each term occurs, by its place in the model's vocabulary.
    terms: BTreeMap<u32, u64>,
}

impl Corpus {
    /// Adds rows: their topics, their search codes (rows × dimensions), and their terms.
    pub fn add_rows(&mut self, topics: &[i32], codes: &Matrix<i8>, terms: Cells) {
        for (topic, code) in topics.iter().zip(codes.iter_rows()) {
            let sums = self.topics.entry(*topic).or_default();
            sums.rows += 1;
            sums.codes.resize(code.len().max(sums.codes.len()), 0);
            sums.codes.iter_mut().zip(code).for_each(|(sum, code)| *sum += i64::from(*code));
        }
        for ((topic, term), count) in terms {
            *self.topics.entry(topic).or_default().terms.entry(term).or_default() += count;
        }
    }

    /// Adds another part of the same corpus.
    pub fn add(&mut self, other: &Self) {
        for (topic, theirs) in &other.topics {
            let sums = self.topics.entry(*topic).or_default();
            sums.rows += theirs.rows;
            sums.codes.resize(theirs.codes.len().max(sums.codes.len()), 0);
            sums.codes.iter_mut().zip(&theirs.codes).for_each(|(sum, code)| *sum += code);
            for (term, count) in &theirs.terms {
                *sums.terms.entry(*term).or_default() += count;
            }
        }
    }

    /// The same with topics added together: the rows of topic `t` go to `to[t]`.
    pub fn regroup(&self, to: &BTreeMap<i32, i32>) -> Self {
        let mut whole = Self::default();
        for (topic, sums) in &self.topics {
            let topic = to.get(topic).copied().unwrap_or(*topic);
            whole.add(&Self { topics: BTreeMap::from([(topic, sums.clone())]) });
        }
        whole
    }

    /// About how many bytes it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let of = |sums: &Sums| 8 * sums.codes.len() + CELL_BYTES * sums.terms.len();
        self.topics.values().map(of).sum()
    }

    /// The rows of all topics.
    pub fn rows(&self) -> u64 {
        self.topics.values().map(|sums| sums.rows).sum()
    }

    /// The rows of a topic.
    pub fn rows_of(&self, topic: i32) -> u64 {
        self.topics.get(&topic).map_or(0, |sums| sums.rows)
    }

    /// The mean of the vectors of a topic's rows, to the precision of their codes; nothing where it has no rows.
    pub fn centroid(&self, topic: i32, scale: SearchScale) -> Option<Vec<f32>> {
        let sums = self.topics.get(&topic).filter(|sums| sums.rows > 0)?;
        let unit = f64::from(scale.get()) * sums.rows as f64;
        Some(sums.codes.iter().map(|sum| (*sum as f64 / unit) as f32).collect())
    }

    /// What it says of the topics of `model`, which has labelled its rows. A topic without rows keeps its words and its mean.
    pub fn counted(&self, model: &Model) -> Counted {
        let known = &model.terms;
        let own = |at: usize| known.row(at).to_vec();
        let mut counts: BTreeMap<i32, Vec<(u32, u64)>> =
            known.topics().iter().enumerate().map(|(at, topic)| (*topic, own(at))).collect();
        for (topic, sums) in self.topics.iter().filter(|(_, sums)| sums.rows > 0) {
            counts.insert(*topic, sums.terms.iter().map(|(term, count)| (*term, *count)).collect());
        }
        let terms = TermCounts::over(known, &counts.into_iter().collect::<Vec<_>>());
        let of = |topic: &Topic| {
            let centroid = self.centroid(topic.id, model.scale).unwrap_or_else(|| topic.centroid.clone());
            (topic.id, (self.rows_of(topic.id), centroid))
        };
        let topics = model.topics.iter().map(of).collect();
        Counted { terms, topics, outliers: self.rows_of(-1) }
    }

    /// As a table: `topic` (int32), `rows` (int64), `codes` (list of int64), `terms` (list of int32) and `counts` (list of
    /// int64), a row a topic.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let (mut codes, mut counts) =
            (ListBuilder::new(Int64Builder::new()), ListBuilder::new(Int64Builder::new()));
        let mut terms = ListBuilder::new(Int32Builder::new());
        for sums in self.topics.values() {
            codes.append_value(sums.codes.iter().map(|sum| Some(*sum)));
            terms.append_value(sums.terms.keys().map(|term| Some(*term as i32)));
            counts.append_value(sums.terms.values().map(|count| Some(*count as i64)));
        }
        let rows = self.topics.values().map(|sums| sums.rows as i64);
        Ok(RecordBatch::try_from_iter([
            ("topic", Arc::new(Int32Array::from_iter_values(self.topics.keys().copied())) as ArrayRef),
            ("rows", Arc::new(Int64Array::from_iter_values(rows))),
            ("codes", Arc::new(codes.finish())),
            ("terms", Arc::new(terms.finish())),
            ("counts", Arc::new(counts.finish())),
        ])?)
    }

    /// What [`Self::to_batch`] has made; nothing where a column is missing or of another type.
    pub fn of_batch(batch: &RecordBatch) -> Option<Self> {
        let topics = batch.column_by_name("topic")?.as_primitive_opt::<Int32Type>()?;
        let rows = batch.column_by_name("rows")?.as_primitive_opt::<Int64Type>()?;
        let list = |name: &str| batch.column_by_name(name)?.as_list_opt::<i32>();
        let (codes, terms, counts) = (list("codes")?, list("terms")?, list("counts")?);
        let mut corpus = Self::default();
        for row in 0..batch.num_rows() {
            let whole = |values: ArrayRef| Some(values.as_primitive_opt::<Int64Type>()?.values().to_vec());
            let names = terms.value(row).as_primitive_opt::<Int32Type>()?.values().to_vec();
            let counts = whole(counts.value(row))?;
            let terms = names.iter().zip(&counts).map(|(term, count)| (*term as u32, *count as u64));
            let sums = Sums {
                rows: rows.value(row) as u64,
                codes: whole(codes.value(row))?,
                terms: terms.collect(),
            };
            corpus.topics.insert(topics.value(row), sums);
        }
        Some(corpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(rows: std::ops::Range<i32>) -> Corpus {
        let topics: Vec<i32> = rows.clone().map(|row| row % 4 - 1).collect();
        let codes: Vec<i8> =
            rows.clone().flat_map(|row| [(row % 100) as i8, -((row % 90) as i8), 127]).collect();
        let codes = Matrix::try_from_vec(topics.len(), 3, codes).unwrap();
        let terms = rows.map(|row| ((row % 4 - 1, (row % 7) as u32), 1));
        let mut cells = Cells::default();
        terms.for_each(|(cell, count)| *cells.entry(cell).or_default() += count);
        let mut corpus = Corpus::default();
        corpus.add_rows(&topics, &codes, cells);
        corpus
    }

    #[test]
    fn parts_add_up_to_the_whole_in_any_order() {
        let whole = part(0..1000);
        for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
            let parts = [part(0..10), part(10..11), part(11..700), part(700..1000)];
            let mut sum = Corpus::default();
            order.into_iter().for_each(|at: usize| sum.add(&parts[at]));
            assert_eq!(sum, whole);
        }
        assert_eq!((whole.rows(), whole.rows_of(2), whole.rows_of(9)), (1000, 250, 0));
        let scale = SearchScale::try_new(127.0).unwrap();
        assert!((whole.centroid(0, scale).unwrap()[2] - 1.0).abs() < 1e-6);
        assert!(whole.centroid(9, scale).is_none());
        assert_eq!(whole.topics.values().flat_map(|sums| sums.terms.values()).sum::<u64>(), 1000);
    }

    #[test]
    fn topics_that_become_one_add_up_over_several_changes() {
        let corpus = part(0..1000);
        let first = Basis { id: "a".into(), to: BTreeMap::from([(2, 0)]) };
        let both = first.then(&BTreeMap::from([(0, 1), (1, 1)]));
        assert_eq!(both.to, BTreeMap::from([(0, 1), (2, 1)]));
        let regrouped = corpus.regroup(&both.to);
        assert_eq!((regrouped.rows_of(1), regrouped.rows_of(-1), regrouped.rows()), (750, 250, 1000));
        assert_eq!(regrouped, corpus.regroup(&first.to).regroup(&BTreeMap::from([(0, 1)])));
    }

    #[test]
    fn a_corpus_is_a_table_and_back() {
        let corpus = part(0..50);
        assert_eq!(Corpus::of_batch(&corpus.to_batch().unwrap()), Some(corpus));
        assert_eq!(Corpus::of_batch(&Corpus::default().to_batch().unwrap()), Some(Corpus::default()));
    }
}
