//! The operator that labels rows with a fitted model.
//!
//! All input columns pass through; added are `topic` (int32, −1 an outlier), `topic_name` (utf8), `topic_path` (utf8,
//! the way through the taxonomy; the name where there is none), `score` (float32, 0 to 1), `topics` (list of
//! struct<topic, score>, best first), `model_version` (utf8); for a model whose topics are rated, `topic_rating` (int32,
//! 1 to 10, null where the topic has none); for one with given topics, `topic_source` (utf8, `given` or `discovered`,
//! null for an outlier). A row without any text is an outlier of score 0.

use crate::assign::{Assigner, Assignment};
use crate::corpus::Corpus;
use crate::embed::with_columns;
use crate::model::{Model, NamedBy, OUTLIER_NAME, Topic};
use crate::monitor::Monitor;
use crate::text::{BoundTemplate, Template};
use crate::vectors::{BoundVectors, Counters, RowVectors, Vectors};
use crate::words::TermCounter;
use crate::{Operator, Result};
use arrow::array::{
    ArrayRef, Float32Array, Float32Builder, Int32Array, Int32Builder, ListBuilder, RecordBatch, StringArray,
    StructBuilder,
};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use kernels::Matrix;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What stands between two names of a `topic_path`.
const STEP: &str = " > ";

/// Labels rows; cheap to make once for each worker, since the model's sample is shared.
pub struct Label {
    vectors: Vectors,
    assigner: Assigner,
    /// Names by topic.
    names: Arc<FxHashMap<i32, String>>,
    /// Ways through the taxonomy, by topic; names where there is none.
    paths: Arc<FxHashMap<i32, String>>,
    /// Ratings by topic.
    ratings: Arc<FxHashMap<i32, u8>>,
    /// Whether a topic was given.
    given: Arc<FxHashMap<i32, bool>>,
    extras: Extras,
    version: String,
    prefix: String,
    counters: Arc<Counters>,
    monitor: Option<Arc<Monitor>>,
    tally: Option<Tally>,
    bound: Option<(BoundVectors, SchemaRef)>,
}

impl Label {
    /// Makes the operator for `model`; `prefix` stands before the names of all columns it adds.
    pub fn new(
        vectors: Vectors,
        assigner: Assigner,
        model: &Model,
        version: String,
        prefix: String,
        counters: Arc<Counters>,
    ) -> Self {
        let names = Arc::new(model.topics.iter().map(|topic| (topic.id, topic.name.clone())).collect());
        let path = |topic: &Topic| match model.taxonomy.path(topic.id).as_slice() {
            [] => topic.name.clone(),
            path => path.join(STEP),
        };
        let paths = Arc::new(model.topics.iter().map(|topic| (topic.id, path(topic))).collect());
        let ratings = model.topics.iter().filter_map(|topic| Some((topic.id, topic.rating?)));
        let given = model.topics.iter().map(|topic| (topic.id, topic.named_by == NamedBy::User));
        let (ratings, given) = (Arc::new(ratings.collect()), Arc::new(given.collect()));
        let extras = Extras::of(model);
        Self {
            vectors,
            assigner,
            names,
            paths,
            ratings,
            given,
            extras,
            version,
            prefix,
            counters,
            monitor: None,
            tally: None,
            bound: None,
        }
    }

    /// Returns this operator with one that watches what it labels.
    pub fn watched_by(self, monitor: Arc<Monitor>) -> Self {
        Self { monitor: Some(monitor), ..self }
    }

    /// Returns this operator with sums of what it labels, to which `corpus` is given.
    pub fn adding_to(self, counting: Arc<Counting>, corpus: Arc<Mutex<Corpus>>) -> Self {
        Self { tally: Some(Tally { counting, corpus, bound: None }), ..self }
    }

    fn columns(&self, labels: &[Assignment]) -> Vec<ArrayRef> {
        let column = |texts: &FxHashMap<i32, String>| -> ArrayRef {
            let of = |label: &Assignment| texts.get(&label.topic).map_or(OUTLIER_NAME, String::as_str);
            Arc::new(StringArray::from_iter_values(labels.iter().map(of)))
        };
        let version = StringArray::from_iter_values(std::iter::repeat_n(&self.version, labels.len()));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(labels.iter().map(|l| l.topic))),
            column(&self.names),
            column(&self.paths),
            Arc::new(Float32Array::from_iter_values(labels.iter().map(|l| l.score))),
            topics_column(labels),
            Arc::new(version),
        ];
        if self.extras.rating {
            let of = |label: &Assignment| self.ratings.get(&label.topic).map(|rating| i32::from(*rating));
            columns.push(Arc::new(Int32Array::from_iter(labels.iter().map(of))));
        }
        if self.extras.source {
            let of = |label: &Assignment| {
                self.given.get(&label.topic).map(|given| if *given { "given" } else { "discovered" })
            };
            columns.push(Arc::new(StringArray::from_iter(labels.iter().map(of))));
        }
        columns
    }
}

/// How rows are summed.
#[derive(Debug)]
pub struct Counting {
    /// What makes a row's text.
    pub template: Template,
    /// What counts its terms.
    pub terms: TermCounter,
}

/// Sums of labelled rows, as they are labelled.
struct Tally {
    counting: Arc<Counting>,
    corpus: Arc<Mutex<Corpus>>,
    bound: Option<BoundTemplate>,
}

impl Tally {
    fn add(&mut self, rows: &RecordBatch, codes: &Matrix<i8>, labels: &[Assignment]) -> Result<()> {
        let topics: Vec<i32> = labels.iter().map(|label| label.topic).collect();
        let bound = match self.bound.take() {
            Some(bound) => bound,
            None => self.counting.template.bind(&rows.schema())?,
        };
        let rendered = self.bound.insert(bound).render(rows)?;
        let texts: Vec<&str> = rendered.texts.iter().map(Option::unwrap_or_default).collect();
        let cells = self.counting.terms.count(&texts, &topics);
        let mut corpus = self.corpus.lock().unwrap_or_else(PoisonError::into_inner);
        corpus.add_rows(&topics, codes, cells);
        Ok(())
    }
}

/// Which columns labels have only by some models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extras {
    /// `topic_rating`: by models whose topics are rated.
    pub rating: bool,
    /// `topic_source`: by models with topics that were given.
    pub source: bool,
}

impl Extras {
    /// Those of labels by `model`.
    pub fn of(model: &Model) -> Self {
        Self {
            rating: model.topics.iter().any(|topic| topic.rating.is_some()),
            source: model.topics.iter().any(|topic| topic.named_by == NamedBy::User),
        }
    }
}

/// The schema of labelled rows; `prefix` stands before the names of all columns it adds. A
/// column that is there already is an error.
pub fn labelled_schema(input: &SchemaRef, prefix: &str, extras: Extras) -> Result<SchemaRef> {
    let name = |name: &str| format!("{prefix}{name}");
    let fields = [
        Field::new(name("topic"), DataType::Int32, false),
        Field::new(name("topic_name"), DataType::Utf8, false),
        Field::new(name("topic_path"), DataType::Utf8, false),
        Field::new(name("score"), DataType::Float32, false),
        Field::new_list(name("topics"), topics_item(), false),
        Field::new(name("model_version"), DataType::Utf8, false),
    ];
    let rating = extras.rating.then(|| Field::new(name("topic_rating"), DataType::Int32, true));
    let source = extras.source.then(|| Field::new(name("topic_source"), DataType::Utf8, true));
    with_columns(input, fields.into_iter().chain(rating).chain(source))
}

impl Operator for Label {
    fn name(&self) -> &'static str {
        "label"
    }

    fn schema(&self, input: &SchemaRef) -> Result<SchemaRef> {
        self.vectors.bind(input, Arc::default())?;
        labelled_schema(input, &self.prefix, self.extras)
    }

    fn process(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.bound.is_none() {
            let schema = labelled_schema(&rows.schema(), &self.prefix, self.extras)?;
            self.bound = Some((self.vectors.bind(&rows.schema(), Arc::clone(&self.counters))?, schema));
        }
        let Some((bound, schema)) = &mut self.bound else { unreachable!("bound just above") };
        let schema = Arc::clone(schema);
        let RowVectors { vectors, blank } = bound.of(&rows)?;
        let mut labels = self.assigner.assign(&vectors)?;
        for row in blank {
            labels[row] = Assignment::none();
        }
        if let Some(monitor) = &self.monitor {
            // What watches rows must not harm them.
            if let Err(error) = monitor.note(&rows, &vectors, &labels) {
                tracing::debug!("rows were not watched: {error}");
            }
        }
        if let Some(tally) = &mut self.tally {
            tally.add(&rows, &self.assigner.codes_of(&vectors)?, &labels)?;
        }
        self.counters.note_outliers(labels.iter().filter(|l| l.topic < 0).count() as u64);
        let mut columns = rows.columns().to_vec();
        columns.extend(self.columns(&labels));
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn topic_fields() -> Fields {
    Fields::from(vec![
        Field::new("topic", DataType::Int32, false),
        Field::new("score", DataType::Float32, false),
    ])
}

fn topics_item() -> Field {
    Field::new_list_field(DataType::Struct(topic_fields()), false)
}

fn topics_column(labels: &[Assignment]) -> ArrayRef {
    let item = StructBuilder::new(
        topic_fields(),
        vec![Box::new(Int32Builder::new()), Box::new(Float32Builder::new())],
    );
    let mut lists = ListBuilder::new(item).with_field(topics_item());
    for label in labels {
        for &(topic, score) in &label.topics {
            let item = lists.values();
            if let Some(topics) = item.field_builder::<Int32Builder>(0) {
                topics.append_value(topic);
            }
            if let Some(scores) = item.field_builder::<Float32Builder>(1) {
                scores.append_value(score);
            }
            item.append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}
