//! `map.png`: the map as a still picture, the same bytes on every machine.
//!
//! Points are stamped as soft discs from precomputed coverage instead of being drawn as paths: a million take about a
//! second and every disc of a size looks the same.

use std::io::Write;

use tiny_skia::{Color, Pixmap};

use super::frame::Frame;
use super::labels::{self, Rect};
use super::of_model::thousands;
use super::palette::{Rgb, Theme};
use super::text::{CAP_HEIGHT, Coverage, Face};
use super::{MapOptions, Report, ReportError, Result};

/// Bounds of the picture's sides in pixels before scaling.
const SIDES: std::ops::RangeInclusive<u32> = 320..=8192;

/// Stamps of a disc for each fraction of a pixel its centre may stand at: a quarter is below what the eye sees.
const PHASES: usize = 4;

/// Space around everything, in pixels before scaling.
const MARGIN: f32 = 40.0;

/// Share of the text colour in a label, the rest being the topic's: the page has the same.
const LABEL_INK: f32 = 0.6;

/// Writes the map as PNG: title, points, topic labels, and a legend with the share of outliers.
///
/// # Errors
/// If the report's parts do not fit together (as [`super::write_html`]), the size asked for is out of bounds, or `out`
/// fails.
pub fn write_png(report: &Report, mut out: impl Write) -> Result<()> {
    let places = report.topic_places()?;
    let picture = Picture::new(report, &places)?.draw()?;
    let bytes = picture.encode_png().map_err(|error| ReportError::Png(error.to_string()))?;
    Ok(out.write_all(&bytes)?)
}

struct Picture<'a> {
    report: &'a Report,
    /// Place in the report's topics of each row's topic.
    places: &'a [Option<usize>],
    pixmap: Pixmap,
    regular: Face,
    semi_bold: Face,
    theme: Theme,
    scale: f32,
    width: f32,
    height: f32,
}

impl<'a> Picture<'a> {
    fn new(report: &'a Report, places: &'a [Option<usize>]) -> Result<Self> {
        let MapOptions { width, height, scale, theme, .. } = report.options;
        let wrong = ReportError::Size { width, height, scale };
        if !(SIDES.contains(&width) && SIDES.contains(&height) && (1..=4).contains(&scale)) {
            return Err(wrong);
        }
        let mut pixmap = Pixmap::new(width * scale, height * scale).ok_or(wrong)?;
        let [r, g, b] = theme.background();
        pixmap.fill(Color::from_rgba8(r, g, b, 255));
        // All below 2^24: exact as f32.
        let (scale, width, height) = (scale as f32, (width * scale) as f32, (height * scale) as f32);
        let (regular, semi_bold) = (Face::regular()?, Face::semi_bold()?);
        Ok(Self { report, places, pixmap, regular, semi_bold, theme, scale, width, height })
    }

    fn draw(mut self) -> Result<Pixmap> {
        let margin = MARGIN * self.scale;
        let top = self.draw_title(margin);
        let bottom = self.draw_legend(self.height - margin);
        let area = Rect { left: margin, top, right: self.width - margin, bottom };
        let view = View::fit(self.report, area);
        let positions: Vec<(f32, f32)> = self.report.topics.iter().map(|t| (t.x, t.y)).collect();
        let colours = self.report.options.palette.colours(&positions, self.theme);
        self.draw_points(&view, &colours, area);
        self.draw_labels(
            &view,
            &colours,
            Rect { left: margin / 2.0, right: self.width - margin / 2.0, ..area },
        );
        Ok(self.pixmap)
    }

    /// Draws title and subtitle and returns where the map may begin.
    fn draw_title(&mut self, top: f32) -> f32 {
        let title = self.report.options.title.as_ref().unwrap_or(&self.report.title).clone();
        let left = MARGIN * self.scale;
        let room = self.width - 2.0 * left;
        let mut y = top;
        for (text, size, bold) in [(title, 28.0, true), (self.report.subtitle.clone(), 15.0, false)] {
            if text.trim().is_empty() {
                continue;
            }
            let size = size * self.scale;
            let face = if bold { &self.semi_bold } else { &self.regular };
            let colour = if bold { self.theme.ink() } else { self.theme.faint_ink() };
            let text = shortened(face, &text, size, room);
            let baseline = y + size * CAP_HEIGHT;
            let text = line_coverage(face, &text, left, baseline, size);
            self.paint(&text, colour, 1.0);
            y = baseline + size * 0.75;
        }
        y + 6.0 * self.scale
    }

    /// Draws one line with the counts and returns where the map must end.
    fn draw_legend(&mut self, bottom: f32) -> f32 {
        let points = self.places.len();
        let outliers = self.places.iter().filter(|place| place.is_none()).count();
        let share = 100.0 * outliers as f64 / points.max(1) as f64;
        let text = [
            format!("{} {}", thousands(points as u64), self.report.noun),
            format!("{} topics", thousands(self.report.topics.len() as u64)),
            format!("{} outliers ({share:.1} %)", thousands(outliers as u64)),
        ];
        let size = 13.0 * self.scale;
        let mut x = MARGIN * self.scale;
        for (i, text) in text.iter().enumerate() {
            if i == 2 {
                let (radius, y) = (4.0 * self.scale, bottom - size * CAP_HEIGHT / 2.0);
                self.stamp(&disc(radius, x + radius, y), self.theme.outlier(), 1.0);
                x += 2.0 * radius + 7.0 * self.scale;
            }
            let coverage = line_coverage(&self.regular, text, x, bottom, size);
            self.paint(&coverage, self.theme.faint_ink(), 1.0);
            x += self.regular.width(text, size) + 24.0 * self.scale;
        }
        let created = &self.report.created;
        let left = self.width - MARGIN * self.scale - self.regular.width(created, size);
        if left > x {
            let coverage = line_coverage(&self.regular, created, left, bottom, size);
            self.paint(&coverage, self.theme.faint_ink(), 1.0);
        }
        bottom - size - 20.0 * self.scale
    }

    fn draw_points(&mut self, view: &View, colours: &[Rgb], area: Rect) {
        let report = self.report;
        let drawn = self.places.iter().filter(|&&place| report.draws(place)).count();
        let size = report.options.point_size.unwrap_or_else(|| point_size(drawn, area, self.scale));
        let radius = (size * self.scale / 2.0).clamp(0.35, 40.0);
        let stamps: Vec<Coverage> = (0..PHASES * PHASES)
            .map(|i| {
                let phase = |i: usize| (i as f32 + 0.5) / PHASES as f32;
                disc(radius, phase(i % PHASES), phase(i / PHASES))
            })
            .collect();
        // Outliers first, so that they lie under the topics.
        for outliers in [true, false] {
            for (row, place) in self.places.iter().enumerate() {
                if place.is_none() != outliers || !report.draws(*place) {
                    continue;
                }
                let (x, y) = view.pixel(report.points.x[row], report.points.y[row]);
                let inside = (0.0..self.width).contains(&x) && (0.0..self.height).contains(&y);
                if !inside {
                    continue;
                }
                let phase = |t: f32| ((t.fract() * PHASES as f32) as usize).min(PHASES - 1);
                let stamp = &stamps[phase(y) * PHASES + phase(x)];
                let (left, top) = (x.floor() as i32 + stamp.left, y.floor() as i32 + stamp.top);
                let colour = place.map_or(self.theme.outlier(), |place| colours[place]);
                let opacity = if outliers { 0.55 } else { 0.8 };
                blend(&mut self.pixmap, stamp, (left, top), colour, opacity);
            }
        }
    }

    fn draw_labels(&mut self, view: &View, colours: &[Rgb], area: Rect) {
        let topics = &self.report.topics;
        let members = |i: usize| topics[i].size + topics[i].labelled;
        let most = (0..topics.len()).map(members).max().unwrap_or(0);
        let mut order: Vec<usize> = (0..topics.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(members(i)), topics[i].id));
        let texts: Vec<(Vec<String>, f32)> = order
            .iter()
            .map(|&i| {
                (labels::lines(&topics[i].name), self.scale * labels::size(members(i), most, 10.5, 18.0))
            })
            .collect();
        let padding = 5.0 * self.scale;
        let wanted: Vec<(f32, f32, f32, f32)> = order
            .iter()
            .zip(&texts)
            .map(|(&i, (lines, size))| {
                let (x, y) = view.pixel(topics[i].x, topics[i].y);
                let width = lines.iter().map(|line| self.semi_bold.width(line, *size)).fold(0.0, f32::max);
                (x, y, width + 2.0 * padding, lines.len() as f32 * line_height(*size) + padding)
            })
            .collect();
        for ((&i, (lines, size)), rect) in order.iter().zip(&texts).zip(labels::place(&wanted, area)) {
            let Some(rect) = rect else { continue };
            let mut text =
                Coverage::empty(rect.left, rect.top, rect.right - rect.left, rect.bottom - rect.top);
            for (row, line) in lines.iter().enumerate() {
                let x = (rect.left + rect.right - self.semi_bold.width(line, *size)) / 2.0;
                let middle = rect.top + padding / 2.0 + (row as f32 + 0.5) * line_height(*size);
                self.semi_bold.draw(line, x, middle + size * CAP_HEIGHT / 2.0, *size, &mut text);
            }
            self.paint(&text.grown(2.6 * self.scale), self.theme.background(), 0.82);
            self.paint(&text, mixed(self.theme.ink(), colours[i], LABEL_INK), 1.0);
        }
    }

    fn paint(&mut self, coverage: &Coverage, colour: Rgb, opacity: f32) {
        blend(&mut self.pixmap, coverage, (coverage.left, coverage.top), colour, opacity);
    }

    fn stamp(&mut self, coverage: &Coverage, colour: Rgb, opacity: f32) {
        self.paint(coverage, colour, opacity);
    }
}

/// Maps positions to pixels.
struct View {
    frame: Frame,
    scale: f32,
    left: f32,
    top: f32,
}

impl View {
    /// Returns the view that shows the first view of the report's frame as large as the area allows.
    fn fit(report: &Report, area: Rect) -> Self {
        let frame = Frame::around(&report.points);
        let [u0, v0, u1, v1] = frame.first_view(&report.points);
        let (width, height) = (area.right - area.left, area.bottom - area.top);
        // The least span keeps a map of equal points at a finite scale.
        let scale = (width / (u1 - u0).max(1e-4)).min(height / (v1 - v0).max(1e-4));
        let left = (area.left + area.right) / 2.0 - scale * (u0 + u1) / 2.0;
        let top = (area.top + area.bottom) / 2.0 + scale * (v0 + v1) / 2.0;
        Self { frame, scale, left, top }
    }

    fn pixel(&self, x: f32, y: f32) -> (f32, f32) {
        let (u, v) = self.frame.place(x, y);
        (self.left + self.scale * u, self.top - self.scale * v)
    }
}

/// Returns the diameter at which the points together would cover an eighth of the map, in pixels before scaling.
fn point_size(points: usize, area: Rect, scale: f32) -> f32 {
    let pixels = (area.right - area.left) * (area.bottom - area.top) / (scale * scale);
    (pixels / 8.0 / points.max(1) as f32 * 4.0 / std::f32::consts::PI).sqrt().clamp(0.9, 7.0)
}

/// Returns the coverage of a disc; its edge is one pixel soft.
fn disc(radius: f32, x: f32, y: f32) -> Coverage {
    let reach = radius.ceil() + 1.0;
    let mut disc = Coverage::empty(x - reach, y - reach, 2.0 * reach, 2.0 * reach);
    let (left, top, width) = (disc.left, disc.top, disc.width);
    // A disc smaller than a pixel is fainter instead.
    let most = (2.0 * radius).min(1.0).powi(2);
    for (i, value) in disc.values.iter_mut().enumerate() {
        let px = (left + (i % width) as i32) as f32 + 0.5;
        let py = (top + (i / width) as i32) as f32 + 0.5;
        *value = (radius.max(0.5) + 0.5 - (px - x).hypot(py - y)).clamp(0.0, 1.0) * most;
    }
    disc
}

fn line_coverage(face: &Face, text: &str, left: f32, baseline: f32, size: f32) -> Coverage {
    let mut coverage = Coverage::empty(left, baseline - size, face.width(text, size), 1.4 * size);
    face.draw(text, left, baseline, size, &mut coverage);
    coverage
}

/// Returns `share` of one colour and the rest of another.
fn mixed(one: Rgb, other: Rgb, share: f32) -> Rgb {
    // Between two values of u8.
    std::array::from_fn(|i| (share * f32::from(one[i]) + (1.0 - share) * f32::from(other[i])).round() as u8)
}

fn line_height(size: f32) -> f32 {
    1.18 * size
}

/// Returns the text, cut with an ellipsis where it is wider than the room.
fn shortened(face: &Face, text: &str, size: f32, room: f32) -> String {
    if face.width(text, size) <= room {
        return text.to_owned();
    }
    let mut short: Vec<char> = text.chars().collect();
    let mut line = String::from("…");
    while short.pop().is_some() {
        line = short.iter().chain(&['…']).collect();
        if face.width(&line, size) <= room {
            break;
        }
    }
    line
}

/// Blends a colour over the opaque picture where the coverage says so, with the coverage's corner at `(left, top)`.
fn blend(pixmap: &mut Pixmap, coverage: &Coverage, (left, top): (i32, i32), colour: Rgb, opacity: f32) {
    // At most 32,768 pixels a side.
    let (columns, rows) = (pixmap.width() as i32, pixmap.height() as i32);
    let data = pixmap.data_mut();
    for (row, values) in coverage.values.chunks(coverage.width).enumerate() {
        let y = top + row as i32;
        if !(0..rows).contains(&y) {
            continue;
        }
        for (column, &value) in values.iter().enumerate() {
            let x = left + column as i32;
            if value <= 0.0 || !(0..columns).contains(&x) {
                continue;
            }
            let at = 4 * (y as usize * columns as usize + x as usize);
            let weight = (value * opacity * 256.0) as i32;
            for (channel, &c) in data[at..at + 3].iter_mut().zip(&colour) {
                let old = i32::from(*channel);
                // Between old and c, both in 0 to 255.
                *channel = (old + (((i32::from(c) - old) * weight + 128) >> 8)) as u8;
            }
        }
    }
}
