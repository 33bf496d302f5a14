//! Whether rows are still like the sample that a model was fitted on.
//!
//! | measure | is | alarm |
//! |---|---|---|
//! | `outlier_share` | rows that belong to no topic, of all | 5 points and 5 standard errors above the expected share |
//! | `neighbour_distance` | 1 − cosine to the nearest row of the sample | its population stability index is .25 or more |
//! | `clip_rate` | values outside the ranges that 8-bit codes cover, of all | above 1 %, and 3 times as many as expected |
//!
//! What is expected is measured on the sample itself, each row of it against the others. The population stability index
//! compares shares of values in ten bins, Σ (p − q) ln(p / q), bins being the deciles of the sample; below .1 nothing has
//! changed, from .25 on much has (the common reading, from credit scoring).

use crate::Result;
use crate::assign::Assigner;
use crate::model::Model;
use kernels::Matrix;
use kernels::norm::unit_rows;
use serde::Serialize;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows of the sample that say what is to be expected.
const EXPECTED_ROWS: usize = 2000;

/// Rows of a window of which neighbours are looked for.
const MEASURED_ROWS: usize = 256;

/// Bins of the population stability index.
const BINS: usize = 10;

/// From which index on much has changed.
const MOST_INDEX: f64 = 0.25;

/// What can drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The share of rows that belong to no topic.
    OutlierShare,
    /// How far rows are from the sample.
    NeighbourDistance,
    /// The share of values that 8-bit codes clip.
    ClipRate,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutlierShare => "the share of outliers",
            Self::NeighbourDistance => "the distance to the nearest row of the sample",
            Self::ClipRate => "the share of clipped values",
        })
    }
}

/// Rows of a window that are no longer like the sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// What has changed.
    pub measure: Measure,
    /// What the sample lets expect.
    pub expected: f64,
    /// What the window has.
    pub found: f64,
    /// The population stability index, where it is one that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stability_index: Option<f64>,
    /// The number of the window since the start, from 1.
    pub window: u64,
    /// Its rows.
    pub rows: usize,
    /// When it began, in milliseconds of the Unix epoch.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// The model that labelled it.
    pub model_version: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, expected, found, window, rows, model_version, .. } = self;
        let index =
            self.stability_index.map_or_else(String::new, |index| format!(" (stability index {index:.2})"));
        write!(
            f,
            "drift: {measure} is {found:.3} in window {window} of {rows} rows, expected {expected:.3}{index}; fit anew if \
             it stays so (model {model_version})"
        )
    }
}

/// What is measured over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// The share of rows that belong to no topic.
    pub outlier_share: f64,
    /// The mean distance to the nearest row of the sample, 1 − cosine.
    pub neighbour_distance: f64,
    /// The share of values that 8-bit codes clip.
    pub clip_rate: f64,
}

/// What a model lets expect of rows.
pub(super) struct Expected {
    outlier_share: f64,
    distance: f64,
    /// Between which a tenth of the sample's distances lie each.
    deciles: Vec<f32>,
    clip_rate: f64,
}

/// What was measured of some rows.
pub(super) struct Measured {
    distances: Vec<f32>,
    clipped: u64,
    values: u64,
}

impl Expected {
    pub(super) fn of(model: &Model, assigner: &Assigner) -> Result<Self> {
        let step = model.codes.rows().div_ceil(EXPECTED_ROWS).max(1);
        let mut distances = assigner.distances_within(&model.codes, step)?;
        let distance = mean(&distances);
        distances.sort_unstable_by(f32::total_cmp);
        let decile = |tenth: usize| distances.get(tenth * distances.len() / BINS).copied();
        Ok(Self {
            outlier_share: assigner.outliers_within(&model.codes, step)?,
            distance,
            deciles: (1..BINS).filter_map(decile).collect(),
            clip_rate: model.calibration_report.as_ref().map_or(0.0, |report| report.clip_rate),
        })
    }

    /// Measures some rows of a batch: as many as make enough in a window.
    pub(super) fn measure(
        &self,
        window_rows: usize,
        model: &Model,
        assigner: &Assigner,
        vectors: &Matrix<f32>,
    ) -> Result<Measured> {
        let step = window_rows.div_ceil(MEASURED_ROWS).max(1);
        let rows: Vec<u32> = (0..vectors.rows() as u32).step_by(step).collect();
        let some = vectors.gather(&rows);
        let distances = assigner.distances(&unit_rows(&some))?;
        let (mut clipped, mut values) = (0, 0);
        if let Ok(ranges) = model.calibration.ranges() {
            for row in 0..some.rows() {
                let outside = |((value, min), max): ((&f32, &f32), &f32)| value < min || value > max;
                let bounds = some.row(row).iter().zip(ranges.min()).zip(ranges.max());
                clipped += bounds.filter(|bounds| outside(*bounds)).count() as u64;
                values += some.cols() as u64;
            }
        }
        Ok(Measured { distances, clipped, values })
    }

    /// What of `window` is not as expected.
    pub(super) fn compare(&self, window: &Window, number: u64, version: &str) -> Vec<Drift> {
        let drift = |measure, expected, found, stability_index| Drift {
            measure,
            expected,
            found,
            stability_index,
            window: number,
            rows: window.rows,
            from: window.from,
            to: now(),
            model_version: version.into(),
        };
        let mut all = Vec::new();
        let numbers = window.numbers();
        let (expected, found) = (self.outlier_share, numbers.outlier_share);
        let error = (expected * (1.0 - expected) / window.rows.max(1) as f64).sqrt();
        if found > expected + 0.05_f64.max(5.0 * error) {
            all.push(drift(Measure::OutlierShare, expected, found, None));
        }
        let index = self.stability_index(&window.distances);
        let found = numbers.neighbour_distance;
        if index >= MOST_INDEX && found > self.distance {
            all.push(drift(Measure::NeighbourDistance, self.distance, found, Some(index)));
        }
        let found = numbers.clip_rate;
        if found > 0.01 && found > 3.0 * self.clip_rate {
            all.push(drift(Measure::ClipRate, self.clip_rate, found, None));
        }
        all
    }

    fn stability_index(&self, distances: &[f32]) -> f64 {
        let bins = self.deciles.len() + 1;
        let mut counts = vec![0_usize; bins];
        for distance in distances {
            counts[self.deciles.partition_point(|decile| decile <= distance)] += 1;
        }
        // An empty bin counts as half a row, as usual, for there is no logarithm of nothing.
        let share = |count: usize| (count as f64).max(0.5) / distances.len().max(1) as f64;
        let expected = 1.0 / bins as f64;
        counts.into_iter().map(|count| (share(count) - expected) * (share(count) / expected).ln()).sum()
    }
}

/// Rows that are compared with the sample together.
pub(super) struct Window {
    rows: usize,
    outliers: usize,
    distances: Vec<f32>,
    clipped: u64,
    values: u64,
    from: u64,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { rows: 0, outliers: 0, distances: Vec::new(), clipped: 0, values: 0, from: now() }
    }

    pub(super) fn add(&mut self, rows: usize, outliers: usize, measured: &Measured) {
        self.rows += rows;
        self.outliers += outliers;
        self.distances.extend(&measured.distances);
        self.clipped += measured.clipped;
        self.values += measured.values;
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            outlier_share: self.outliers as f64 / self.rows.max(1) as f64,
            neighbour_distance: mean(&self.distances),
            clip_rate: self.clipped as f64 / self.values.max(1) as f64,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            outlier_share: 0.2,
            distance: 0.5,
            deciles: (1..10).map(|tenth| tenth as f32 / 10.0).collect(),
            clip_rate: 0.001,
        }
    }

    fn window(outliers: usize, distances: impl Iterator<Item = f32>, clipped: u64) -> Window {
        let measured = Measured { distances: distances.collect(), clipped, values: 10_000 };
        let mut window = Window::new();
        window.add(1000, outliers, &measured);
        window
    }

    /// As the sample has them: as many in each tenth.
    fn usual() -> impl Iterator<Item = f32> {
        (0..200).map(|row| row as f32 / 200.0)
    }

    #[test]
    fn rows_like_the_sample_are_no_drift() {
        assert_eq!(expected().compare(&window(220, usual(), 20), 1, "v1"), []);
        assert!(expected().stability_index(&usual().collect::<Vec<_>>()) < 1e-9);
    }

    #[test]
    fn each_measure_has_its_own_alarm() {
        let found = |window| {
            let all = expected().compare(&window, 3, "v1");
            all.iter().map(|drift| drift.measure).collect::<Vec<_>>()
        };
        assert_eq!(found(window(270, usual(), 0)), [Measure::OutlierShare]);
        assert_eq!(found(window(200, usual().map(|at| 0.4 + 0.6 * at), 0)), [Measure::NeighbourDistance]);
        assert_eq!(
            found(window(200, usual().map(|at| 0.6 * at), 0)),
            [],
            "nearer than the sample is no harm"
        );
        assert_eq!(found(window(200, usual(), 101)), [Measure::ClipRate]);
    }
}
