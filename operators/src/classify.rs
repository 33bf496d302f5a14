//! The operator that puts rows into given topics, by the similarity of their vectors to the topics' names or
//! descriptions.
//!
//! Added are `topic` (int32, the topic's place in the list; −1 where no topic is near enough), `topic_name` (utf8),
//! `score` (float32, the similarity) and, if asked for, `similarities` (a float32 for each topic). Of equally similar
//! topics the first wins. A row without any text is in no topic.

use crate::embed::with_columns;
use crate::model::OUTLIER_NAME;
use crate::similarity::Similarity;
use crate::vectors::{BoundVectors, Counters, RowVectors, Vectors};
use crate::{Error, Operator, Result};
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use kernels::Matrix;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

/// A topic that is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenTopic {
    /// What it is called.
    pub name: String,
    /// What it is about: what texts are compared with. Absent: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The least similarity of its texts. Absent: as for all topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

impl GivenTopic {
    /// What texts are compared with.
    pub fn text(&self) -> &str {
        self.description.as_deref().unwrap_or(&self.name)
    }
}

/// Given topics with their vectors.
#[derive(Debug, Clone)]
pub struct GivenTopics {
    topics: Vec<GivenTopic>,
    vectors: Matrix<f32>,
    similarity: Similarity,
    /// The least similarity, for topics that have none of their own.
    threshold: Option<f32>,
}

impl GivenTopics {
    /// Takes topics and their vectors, one a row.
    ///
    /// # Errors
    /// `Setting` for no topics, a name that stands twice or is empty, a threshold that is no number.
    pub fn try_new(
        topics: Vec<GivenTopic>,
        vectors: Matrix<f32>,
        similarity: Similarity,
        threshold: Option<f32>,
    ) -> Result<Self> {
        check_topics(&topics)?;
        if vectors.rows() != topics.len() {
            return Err(Error::Internal(format!("{} vectors for {} topics", vectors.rows(), topics.len())));
        }
        Ok(Self { topics, vectors, similarity, threshold })
    }

    /// The topics.
    pub fn topics(&self) -> &[GivenTopic] {
        &self.topics
    }

    /// The place of each vector's topic (−1: none is similar enough) and its similarity.
    pub fn of(&self, vectors: &Matrix<f32>) -> Result<Vec<(i32, f32)>> {
        let similarities = self.similarity.between(vectors, &self.vectors)?;
        Ok(similarities.iter_rows().map(|row| self.best(row)).collect())
    }

    /// The place of the most similar topic among those that are similar enough, and its similarity; without one, that of
    /// the most similar of all.
    fn best(&self, similarities: &[f32]) -> (i32, f32) {
        let enough = |place: usize| {
            let least = self.topics[place].threshold.or(self.threshold);
            least.is_none_or(|least| similarities[place] >= least)
        };
        let best_of = |places: &mut dyn Iterator<Item = usize>| {
            places.reduce(|best, at| if similarities[at] > similarities[best] { at } else { best })
        };
        let all = 0..similarities.len();
        match best_of(&mut all.clone().filter(|place| enough(*place))) {
            // Topics are counted in memory: far fewer than i32::MAX.
            Some(best) => (best as i32, similarities[best]),
            None => (-1, best_of(&mut all.into_iter()).map_or(0.0, |best| similarities[best])),
        }
    }
}

/// Fails for no topics, for one without a name, for a name that stands twice, and for a threshold that is no number.
pub fn check_topics(topics: &[GivenTopic]) -> Result<()> {
    if topics.is_empty() {
        return Err(Error::setting("topics", "there are none, expected one or more"));
    }
    let mut seen = HashSet::new();
    for (place, topic) in topics.iter().enumerate() {
        let at = || format!("topics, number {}", place + 1);
        if topic.name.trim().is_empty() || topic.text().trim().is_empty() {
            return Err(Error::setting(at(), "has no name, or an empty description"));
        }
        if !seen.insert(topic.name.to_lowercase()) {
            return Err(Error::setting(at(), format!("the name \"{}\" stands twice", topic.name)));
        }
        if topic.threshold.is_some_and(|threshold| !threshold.is_finite()) {
            return Err(Error::setting(at(), "its threshold is no number"));
        }
    }
    Ok(())
}

/// Puts rows into given topics.
pub struct Classify {
    vectors: Vectors,
    topics: Arc<GivenTopics>,
    matrix: bool,
    prefix: String,
    counters: Arc<Counters>,
    bound: Option<(BoundVectors, SchemaRef)>,
}

impl Classify {
    /// Makes the operator; with `matrix`, each row's similarity to each topic is written, too.
    pub fn new(
        vectors: Vectors,
        topics: Arc<GivenTopics>,
        matrix: bool,
        prefix: String,
        counters: Arc<Counters>,
    ) -> Self {
        Self { vectors, topics, matrix, prefix, counters, bound: None }
    }

    fn added(&self, input: &SchemaRef) -> Result<SchemaRef> {
        let name = |name: &str| format!("{}{name}", self.prefix);
        let mut fields = vec![
            Field::new(name("topic"), DataType::Int32, false),
            Field::new(name("topic_name"), DataType::Utf8, false),
            Field::new(name("score"), DataType::Float32, false),
        ];
        if self.matrix {
            fields.push(Field::new(name("similarities"), self.similarities_type(), false));
        }
        with_columns(input, fields)
    }

    fn similarities_type(&self) -> DataType {
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        // Topics are counted in memory: far fewer than i32::MAX.
        DataType::FixedSizeList(item, self.topics.topics.len() as i32)
    }
}

impl Operator for Classify {
    fn name(&self) -> &'static str {
        "classify"
    }

    fn schema(&self, input: &SchemaRef) -> Result<SchemaRef> {
        self.vectors.bind(input, Arc::default())?;
        self.added(input)
    }

    fn process(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.bound.is_none() {
            let schema = self.added(&rows.schema())?;
            self.bound = Some((self.vectors.bind(&rows.schema(), Arc::clone(&self.counters))?, schema));
        }
        let Some((bound, schema)) = &mut self.bound else { unreachable!("bound just above") };
        let schema = Arc::clone(schema);
        let RowVectors { vectors, blank } = bound.of(&rows)?;
        let similarities = self.topics.similarity.between(&vectors, &self.topics.vectors)?;
        let mut found: Vec<(i32, f32)> = similarities.iter_rows().map(|row| self.topics.best(row)).collect();
        for row in blank {
            found[row] = (-1, 0.0);
        }
        self.counters.note_outliers(found.iter().filter(|(topic, _)| *topic < 0).count() as u64);
        let name = |topic: i32| {
            let topic = usize::try_from(topic).ok().and_then(|place| self.topics.topics.get(place));
            topic.map_or(OUTLIER_NAME, |topic| topic.name.as_str())
        };
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int32Array::from_iter_values(found.iter().map(|(topic, _)| *topic))));
        columns.push(Arc::new(StringArray::from_iter_values(found.iter().map(|(topic, _)| name(*topic)))));
        columns.push(Arc::new(Float32Array::from_iter_values(found.iter().map(|(_, score)| *score))));
        if self.matrix {
            let DataType::FixedSizeList(item, width) = self.similarities_type() else {
                unreachable!("said so just above")
            };
            let values: ArrayRef = Arc::new(Float32Array::from(similarities.as_slice().to_vec()));
            columns.push(Arc::new(FixedSizeListArray::try_new(item, width, values, None)?));
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, threshold: Option<f32>) -> GivenTopic {
        GivenTopic { name: name.into(), description: None, threshold }
    }

    fn given(thresholds: [Option<f32>; 3], threshold: Option<f32>) -> GivenTopics {
        let topics = ["a", "b", "c"].iter().zip(thresholds).map(|(name, own)| topic(name, own)).collect();
        GivenTopics::try_new(topics, Matrix::zeros(3, 2), Similarity::Cosine, threshold).unwrap()
    }

    #[test]
    fn the_most_similar_topic_that_is_similar_enough_wins_and_the_first_of_equal_ones() {
        let open = given([None; 3], None);
        assert_eq!(open.best(&[0.1, 0.7, 0.7]), (1, 0.7));
        assert_eq!(open.best(&[-0.1, -0.7, -0.7]), (0, -0.1));
        let for_all = given([None; 3], Some(0.8));
        assert_eq!(for_all.best(&[0.1, 0.7, 0.7]), (-1, 0.7), "none is near enough; the score says how near");
        let own = given([None, Some(0.9), None], Some(0.5));
        assert_eq!(own.best(&[0.6, 0.8, 0.2]), (0, 0.6), "b wants more");
        assert_eq!(own.best(&[0.6, 0.95, 0.2]), (1, 0.95));
    }

    #[test]
    fn topics_that_cannot_be_told_apart_are_refused() {
        for (topics, says) in [
            (vec![], "none"),
            (vec![topic("a", None), topic("A", None)], "stands twice"),
            (vec![topic(" ", None)], "no name"),
            (vec![topic("a", Some(f32::NAN))], "no number"),
        ] {
            let error = check_topics(&topics).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
