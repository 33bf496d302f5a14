//! The report: `report.html`, one self-contained page with a map of the texts, and `map.png`.
//!
//! The caller fills a [`Report`], which is plain data, and this module draws it twice: as a page ([`write_html`]) whose
//! points travel as quantised typed arrays, so that a million of them fit, and as a picture ([`write_png`]).
//! Both share one palette and one frame, so a topic has the same colour and place on the page and in the picture.
//!
//! What a reader of maps expects is taken from DataMapPlot (<https://github.com/TutteInstitute/datamapplot>): colours
//! come from positions, so that near topics look alike; labels grow with the fourth root of their members and appear by
//! zoom; the first view leaves out the farthest 0.1 %.

mod encode;
mod frame;
pub(crate) mod heat_map;
mod labels;
mod of_model;
mod page;
mod palette;
mod picture;
mod text;

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

pub(crate) use encode::json_bytes;
pub use of_model::of_model;
pub(crate) use of_model::{count, coverage_missed, files, thousands};
pub use page::write_html;
pub use palette::{Palette, Theme};
pub use picture::write_png;

/// The topic of a row that belongs to no topic.
pub const OUTLIER: i32 = -1;

/// Holds everything the page and the picture show.
#[derive(Debug, Clone)]
pub struct Report {
    /// Headline.
    pub title: String,
    /// One line under the headline: what was read, from when to when.
    pub subtitle: String,
    /// When the report was made, as it shall be shown.
    pub created: String,
    /// What a row is called, in the plural: `papers`.
    pub noun: String,
    /// Label and value of the few facts shown beside the headline, such as `("encoder", "all-MiniLM-L6-v2")`.
    pub facts: Vec<(String, String)>,
    /// The topics in any order, without [`OUTLIER`].
    pub topics: Vec<TopicSummary>,
    /// One point for each text.
    pub points: Points,
    /// Numbers that judge the result.
    pub quality: Vec<Metric>,
    /// Distributions, drawn as bars.
    pub histograms: Vec<Histogram>,
    /// Further tables, such as the calibration of the quantization.
    pub tables: Vec<Table>,
    /// The job's settings, as YAML.
    pub settings: String,
    /// What the reader must know before trusting the numbers; empty when all went well.
    pub warnings: Vec<String>,
    /// How the map looks.
    pub options: MapOptions,
}

/// Describes one topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicSummary {
    /// Id, at least 0.
    pub id: i32,
    /// Name.
    pub name: String,
    /// Names from the root of the taxonomy down to the topic's parent; empty without a taxonomy.
    pub path: Vec<String>,
    /// Rows the fit put into the topic.
    pub size: usize,
    /// Rows labelled with the topic afterwards.
    pub labelled: usize,
    /// Words and their weights, best first.
    pub words: Vec<(String, f32)>,
    /// Texts that stand for the topic, best first.
    pub representatives: Vec<String>,
    /// Where the label stands, in the coordinates of the points.
    pub x: f32,
    /// Where the label stands, in the coordinates of the points.
    pub y: f32,
}

/// Holds the points as columns of equal length; `detail`, `score` and `days` may be empty when there is nothing to
/// show.
#[derive(Debug, Clone, Default)]
pub struct Points {
    /// Horizontal position.
    pub x: Vec<f32>,
    /// Vertical position, growing upwards.
    pub y: Vec<f32>,
    /// Topic id, or [`OUTLIER`].
    pub topic: Vec<i32>,
    /// Title, one line.
    pub title: Vec<String>,
    /// Further text of the hover card.
    pub detail: Vec<String>,
    /// Score in 0 to 1; NaN where there is none. Shown with two digits.
    pub score: Vec<f32>,
    /// Whether the row took part in the fit.
    pub part: Vec<Part>,
    /// Days since 1970-01-01, `None` where a row has no date.
    pub days: Vec<Option<i32>>,
}

/// Says how a row got its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The row took part in the fit.
    Fitted,
    /// The row was labelled by the finished model.
    Labelled,
}

/// Holds one number that judges the result.
#[derive(Debug, Clone, Serialize)]
pub struct Metric {
    /// Name, such as `topic diversity`.
    pub name: String,
    /// Value as it shall be shown, with its unit.
    pub value: String,
    /// What it means and which values are good, in a sentence or two.
    pub explanation: String,
}

/// Holds counts over intervals.
#[derive(Debug, Clone, Serialize)]
pub struct Histogram {
    /// Name.
    pub name: String,
    /// What is counted, in a sentence.
    pub explanation: String,
    /// Lower bound, upper bound and count of each bin, ascending.
    pub bins: Vec<(f64, f64, u64)>,
}

/// Holds a table of text; columns whose cells are all numbers are set to the right.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Name.
    pub name: String,
    /// What the rows are, in a sentence.
    pub explanation: String,
    /// Column names.
    pub columns: Vec<String>,
    /// Cells, as many in each row as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// Says how the map looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MapOptions {
    /// Width of the picture in pixels before `scale`. Default 1600: fills a slide. The page fills its window.
    pub width: u32,
    /// Height of the picture in pixels before `scale`. Default 1000.
    pub height: u32,
    /// Pixels of the file per pixel of `width` and `height`, 1 to 4. Default 2: sharp on today's screens and in print.
    pub scale: u32,
    /// Title of the map where it differs from the report's. Default none.
    pub title: Option<String>,
    /// How topics get their colours. Default by position.
    pub palette: Palette,
    /// Diameter of a point in pixels at the first view. Default none: chosen from the number of points.
    pub point_size: Option<f32>,
    /// What happens to outliers. Default grey: a map without them hides their share.
    pub outliers: Outliers,
    /// Background of the picture. Default light. The page follows the reader's setting.
    pub theme: Theme,
}

/// Says what happens to points without a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outliers {
    /// Drawn in grey, under the others.
    #[default]
    Grey,
    /// Left out.
    Drop,
}

/// Says why a report cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A column of the points has another length than `x`.
    #[error("column {column:?} of the points has {len} rows, expected {rows}")]
    Length {
        /// Column.
        column: &'static str,
        /// Its length.
        len: usize,
        /// Length of `x`.
        rows: usize,
    },
    /// A position is NaN or infinite.
    #[error("{place} has the position ({x}, {y}), expected finite numbers")]
    Position {
        /// Row or topic.
        place: String,
        /// Horizontal position.
        x: f32,
        /// Vertical position.
        y: f32,
    },
    /// A row has a topic that is not described.
    #[error(
        "row {row} has topic {topic}, which is neither {OUTLIER} nor one of the {topics} topics of the report"
    )]
    UnknownTopic {
        /// Row.
        row: usize,
        /// Its topic.
        topic: i32,
        /// Number of topics.
        topics: usize,
    },
    /// The topics themselves are wrong.
    #[error("{0}")]
    Topics(String),
    /// The size of the picture is out of bounds.
    #[error(
        "a picture of {width} x {height} pixels at scale {scale} cannot be drawn, expected 320 to 8192 pixels a side and scale 1 to 4"
    )]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
        /// Scale asked for.
        scale: u32,
    },
    /// The embedded font cannot be read.
    #[error("the embedded font is damaged")]
    Font(#[from] ab_glyph::InvalidFont),
    /// The picture cannot be encoded.
    #[error("the picture cannot be encoded as PNG: {0}")]
    Png(String),
    /// The data cannot be written as JSON, or the output fails.
    #[error("the report cannot be written")]
    Write(#[from] io::Error),
}

/// Shortens `Result` for this module.
pub type Result<T> = std::result::Result<T, ReportError>;

impl Default for MapOptions {
    fn default() -> Self {
        Self {
            width: 1600,
            height: 1000,
            scale: 2,
            title: None,
            palette: Palette::default(),
            point_size: None,
            outliers: Outliers::default(),
            theme: Theme::default(),
        }
    }
}

impl Points {
    /// Returns the number of points.
    pub fn len(&self) -> usize {
        self.x.len()
    }

    /// Returns whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }
}

impl Report {
    /// Returns the place of each row's topic in `topics`, `None` for outliers, after checking that all parts fit
    /// together.
    fn topic_places(&self) -> Result<Vec<Option<usize>>> {
        self.check_columns()?;
        let mut places = HashMap::with_capacity(self.topics.len());
        for (place, topic) in self.topics.iter().enumerate() {
            if topic.id < 0 {
                return Err(ReportError::Topics(format!(
                    "topic {:?} has the id {}, expected 0 or more: outliers are not a topic of the report",
                    topic.name, topic.id
                )));
            }
            if places.insert(topic.id, place).is_some() {
                return Err(ReportError::Topics(format!(
                    "two topics of the report have the id {}",
                    topic.id
                )));
            }
            if !(topic.x.is_finite() && topic.y.is_finite()) {
                let place = format!("topic {}", topic.id);
                return Err(ReportError::Position { place, x: topic.x, y: topic.y });
            }
        }
        let place_of = |(row, &topic): (usize, &i32)| match places.get(&topic) {
            Some(&place) => Ok(Some(place)),
            None if topic == OUTLIER => Ok(None),
            None => Err(ReportError::UnknownTopic { row, topic, topics: places.len() }),
        };
        self.points.topic.iter().enumerate().map(place_of).collect()
    }

    /// Returns whether a row with this topic is drawn at all.
    fn draws(&self, place: Option<usize>) -> bool {
        place.is_some() || self.options.outliers == Outliers::Grey
    }

    fn check_columns(&self) -> Result<()> {
        let points = &self.points;
        let rows = points.len();
        let required = [
            ("y", points.y.len()),
            ("topic", points.topic.len()),
            ("title", points.title.len()),
            ("part", points.part.len()),
        ];
        let optional =
            [("detail", points.detail.len()), ("score", points.score.len()), ("days", points.days.len())];
        let optional = optional.into_iter().filter(|&(_, len)| len > 0);
        for (column, len) in required.into_iter().chain(optional) {
            if len != rows {
                return Err(ReportError::Length { column, len, rows });
            }
        }
        for (row, (&x, &y)) in points.x.iter().zip(&points.y).enumerate() {
            if !(x.is_finite() && y.is_finite()) {
                return Err(ReportError::Position { place: format!("row {row}"), x, y });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
