//! Watching a stream of labelled rows: are they still like those that the model was fitted on, and what do its outliers
//! have in common?
//!
//! One idea: the model's own sample says what is to be expected, so nothing has to be learned from the stream first. Rows
//! are counted over windows and compared with it ([`Drift`]); outliers go to a reservoir of bounded size, which is
//! clustered now and then, and a cluster is an emerging topic where it is much denser than the sample is in that place
//! ([`Emerging`]).

mod drift;
mod emerging;

pub use drift::{Drift, Measure, Numbers};
pub use emerging::Emerging;

use crate::assign::{Assigner, Assignment};
use crate::model::Model;
use crate::text::Template;
use crate::{Error, Result};
use arrow::array::RecordBatch;
use drift::{Expected, Window};
use emerging::{Reservoir, Row};
use kernels::{Device, Matrix};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a stream is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorConfig {
    /// Rows of a window, over which drift is measured; 0: nothing is watched. 2,000: enough that a share of a few per
    /// cent is no accident.
    pub window_rows: usize,
    /// Outliers that are kept, the last ones. 5,000: what is clustered in seconds.
    pub reservoir_rows: usize,
    /// Rows that make an emerging topic. 25.
    pub min_rows: usize,
    /// How many times as many rows must lie there as the sample lets expect. 4.
    pub lift: f64,
    /// The shortest time between two clusterings of the outliers, in seconds. 60: they are to cost little.
    pub every_seconds: u64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self { window_rows: 2000, reservoir_rows: 5000, min_rows: 25, lift: 4.0, every_seconds: 60 }
    }
}

impl MonitorConfig {
    /// Checks each setting against its range.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, reason: &str| Err(Error::setting(format!("stream.monitor.{name}"), reason));
        if self.min_rows < 5 {
            return wrong("min_rows", "is too few to be a topic, expected at least 5");
        }
        if self.reservoir_rows < 4 * self.min_rows {
            return wrong(
                "reservoir_rows",
                "is too few to find topics in, expected at least 4 times min_rows",
            );
        }
        if self.lift.is_nan() || self.lift < 1.0 {
            return wrong("lift", "is below 1, what is to be expected");
        }
        Ok(())
    }
}

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// Outliers that have something in common.
    EmergingTopic(Emerging),
    /// Rows that are no longer like the sample.
    Drift(Drift),
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmergingTopic(found) => found.fmt(f),
            Self::Drift(found) => found.fmt(f),
        }
    }
}

/// Watches the rows that are labelled by one model.
pub struct Monitor {
    config: MonitorConfig,
    model: Arc<Model>,
    assigner: Assigner,
    version: String,
    /// What a reader of an event is shown of a row, where its columns are read.
    text: Option<Template>,
    id: Option<String>,
    expected: Expected,
    state: Mutex<State>,
    device: Device,
}

struct State {
    window: Window,
    windows: u64,
    last: Option<Numbers>,
    /// What is beyond its bounds already, and was told.
    alarmed: Vec<Measure>,
    reservoir: Reservoir,
    looked: Option<Instant>,
    is_looking: bool,
    events: Vec<Event>,
}

impl Monitor {
    /// Measures what `model` lets expect; `text` and `id` are what examples are shown by. Takes as long as labelling about
    /// a thousand rows.
    pub fn try_new(
        model: &Arc<Model>,
        assigner: Assigner,
        version: &str,
        text: Option<Template>,
        id: Option<String>,
        config: MonitorConfig,
        device: &Device,
    ) -> Result<Self> {
        config.check()?;
        let expected = Expected::of(model, &assigner)?;
        let state = State {
            window: Window::new(),
            windows: 0,
            last: None,
            alarmed: Vec::new(),
            reservoir: Reservoir::new(config.reservoir_rows),
            looked: None,
            is_looking: false,
            events: Vec::new(),
        };
        Ok(Self {
            config,
            model: Arc::clone(model),
            assigner,
            version: version.into(),
            text,
            id,
            expected,
            state: Mutex::new(state),
            device: device.clone(),
        })
    }

    /// Takes rows that were just labelled.
    pub fn note(
        self: &Arc<Self>,
        rows: &RecordBatch,
        vectors: &Matrix<f32>,
        labels: &[Assignment],
    ) -> Result<()> {
        if self.config.window_rows == 0 || labels.is_empty() {
            return Ok(());
        }
        let measured =
            self.expected.measure(self.config.window_rows, &self.model, &self.assigner, vectors)?;
        let outliers: Vec<usize> = (0..labels.len()).filter(|&row| labels[row].topic < 0).collect();
        let kept = self.kept(rows, vectors, &outliers);
        let mut state = self.state();
        state.window.add(labels.len(), outliers.len(), &measured);
        state.reservoir.add(labels.len(), kept);
        if state.window.rows() >= self.config.window_rows {
            let window = std::mem::replace(&mut state.window, Window::new());
            state.windows += 1;
            state.last = Some(window.numbers());
            let found = self.expected.compare(&window, state.windows, &self.version);
            // What goes on is told once.
            let before =
                std::mem::replace(&mut state.alarmed, found.iter().map(|drift| drift.measure).collect());
            let new = found.into_iter().filter(|drift| !before.contains(&drift.measure));
            state.events.extend(new.map(Event::Drift));
        }
        let is_time =
            state.looked.is_none_or(|at| at.elapsed() >= Duration::from_secs(self.config.every_seconds));
        if is_time && !state.is_looking && state.reservoir.is_worth_a_look(self.config.min_rows) {
            state.is_looking = true;
            let rows = state.reservoir.look();
            drop(state);
            let monitor = Arc::clone(self);
            let started =
                std::thread::Builder::new().name("emerging".into()).spawn(move || monitor.look(rows));
            if let Err(error) = started {
                self.state().is_looking = false;
                return Err(Error::Internal(format!("no thread: {error}")));
            }
        }
        Ok(())
    }

    /// Takes what is to be told.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().events)
    }

    /// The numbers of the last window that is whole.
    pub fn last_window(&self) -> Option<Numbers> {
        self.state().last
    }

    /// Whether outliers are being clustered just now.
    pub fn is_looking(&self) -> bool {
        self.state().is_looking
    }

    /// Clusters outliers. What fails here fails nothing else.
    fn look(&self, (rows, streamed): (Vec<Row>, u64)) {
        let known = self.state().reservoir.known().to_vec();
        let look = || emerging::find(&self.model, rows, streamed, &known, &self.config, &self.device);
        let found = catch_unwind(AssertUnwindSafe(look))
            .unwrap_or_else(|_| Err(Error::Internal("clustering panicked".into())));
        let mut state = self.state();
        state.is_looking = false;
        state.looked = Some(Instant::now());
        match found {
            Ok(found) => {
                for mut topic in found {
                    topic.model_version.clone_from(&self.version);
                    state.reservoir.know(topic.centroid.clone());
                    state.events.push(Event::EmergingTopic(topic));
                }
            }
            Err(error) => tracing::debug!("outliers were not clustered: {error}"),
        }
    }

    fn kept(&self, rows: &RecordBatch, vectors: &Matrix<f32>, outliers: &[usize]) -> Vec<Row> {
        // No more than the reservoir takes.
        let last = &outliers[outliers.len().saturating_sub(self.config.reservoir_rows)..];
        let texts = self.text.as_ref().and_then(|text| text.bind(&rows.schema()).ok()?.render(rows).ok());
        let ids = self.id.as_ref().and_then(|id| {
            arrow::compute::cast(rows.column_by_name(id)?, &arrow::datatypes::DataType::Utf8).ok()
        });
        let text_of = |row: usize| {
            let texts = &texts.as_ref()?.texts;
            (!arrow::array::Array::is_null(texts, row)).then(|| texts.value(row).to_string())
        };
        let id_of = |row: usize| {
            let ids = arrow::array::AsArray::as_string_opt::<i32>(ids.as_ref()?)?;
            Some(ids.value(row).to_string())
        };
        let row = |&row: &usize| Row {
            vector: vectors.row(row).to_vec(),
            text: text_of(row).unwrap_or_default(),
            id: id_of(row).unwrap_or_default(),
        };
        // A vector of zeros is that of no text.
        let is_text = |row: &&usize| vectors.row(**row).iter().any(|value| *value != 0.0);
        last.iter().filter(is_text).map(row).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
