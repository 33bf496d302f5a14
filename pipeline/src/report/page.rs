//! `report.html`: one file with its style, its fonts, its script and its data, which never asks the network for
//! anything.
//!
//! The sources of the page are the files in `page/`; here they are put together while writing, so that the memory
//! needed does not grow with the number of points beyond the points themselves. The page's own content security policy
//! allows exactly the style and the script written here, by their hashes: even if a title broke out of its block, it
//! could neither run nor load anything.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::encode::{escape_html, write_base64, write_json};
use super::frame::Frame;
use super::palette::{Rgb, Theme};
use super::{Part, Report, ReportError, Result, TopicSummary};

const TEMPLATE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");

/// The page's script in the order of reading; the parts share one module scope.
const SCRIPT: [&str; 14] = [
    include_str!("page/data.js"),
    include_str!("page/dom.js"),
    include_str!("page/camera.js"),
    include_str!("page/grid.js"),
    include_str!("page/webgl.js"),
    include_str!("page/canvas.js"),
    include_str!("page/labels.js"),
    include_str!("page/state.js"),
    include_str!("page/map.js"),
    include_str!("page/legend.js"),
    include_str!("page/search.js"),
    include_str!("page/timeline.js"),
    include_str!("page/topics.js"),
    include_str!("page/main.js"),
];

/// Weight and file of the embedded fonts.
const FONTS: [(u16, &[u8]); 2] =
    [(400, include_bytes!("font/Inter-Regular.woff2")), (600, include_bytes!("font/Inter-SemiBold.woff2"))];

/// Texts in one block: small enough to be parsed within a frame.
const BLOCK_TEXTS: usize = 8_192;

/// Topic of an outlier in the page's data.
const NO_TOPIC: u16 = u16::MAX;

/// Score of a row without one in the page's data; the others are shares of 254.
const NO_SCORE: u8 = u8::MAX;

/// Day of a row without a date in the page's data.
const NO_DAY: i32 = i32::MIN;

/// Writes the report as a self-contained page.
///
/// Positions are rounded to a 65,535th of the map's side and scores to a 254th.
///
/// # Errors
/// If the columns of the points differ in length, a position is not finite, a row's topic is unknown, there are more
/// than 65,535 topics, or `out` fails.
pub fn write_html(report: &Report, out: impl Write) -> Result<()> {
    let places = report.topic_places()?;
    if report.topics.len() > usize::from(NO_TOPIC) {
        let message = format!("the map can show at most {NO_TOPIC} topics, got {}", report.topics.len());
        return Err(ReportError::Topics(message));
    }
    let style = style()?;
    let script = SCRIPT.concat();
    let mut out = io::BufWriter::with_capacity(1 << 16, out);
    for piece in TEMPLATE.split("<!--[") {
        // The text before the first marker has none.
        let (marker, text) = piece.split_once("]-->").unwrap_or(("", piece));
        match marker {
            "" => {}
            "policy" => out.write_all(policy(&style, &script)?.as_bytes())?,
            "title" => out.write_all(escape_html(&report.title).as_bytes())?,
            "style" => out.write_all(style.as_bytes())?,
            "data" => write_data(report, &places, &mut out)?,
            "script" => out.write_all(script.as_bytes())?,
            unknown => unreachable!("the page's template has the unknown marker {unknown:?}"),
        }
        out.write_all(text.as_bytes())?;
    }
    Ok(out.flush()?)
}

fn write_data(report: &Report, places: &[Option<usize>], out: &mut impl Write) -> Result<()> {
    let frame = Frame::around(&report.points);
    let points = &report.points;
    let rows: Vec<usize> = (0..points.len()).filter(|&row| report.draws(places[row])).collect();
    let rows = || rows.iter().copied();

    write!(out, "<script type=\"application/json\" id=\"report\">")?;
    write_json(&summary(report, &frame, rows().len()), out)?;
    writeln!(out, "</script>")?;

    let place = |row: usize| frame.steps(points.x[row], points.y[row]);
    write_block("x", rows().flat_map(|row| place(row).0.to_le_bytes()), out)?;
    write_block("y", rows().flat_map(|row| place(row).1.to_le_bytes()), out)?;
    // Fits: checked by the caller.
    let topic = |row: usize| places[row].map_or(NO_TOPIC, |place| place as u16);
    write_block("topic", rows().flat_map(|row| topic(row).to_le_bytes()), out)?;
    write_block("part", rows().map(|row| u8::from(points.part[row] == Part::Labelled)), out)?;
    if !points.score.is_empty() {
        write_block("score", rows().map(|row| score_byte(points.score[row])), out)?;
    }
    if !points.days.is_empty() {
        let day = |row: usize| points.days[row].unwrap_or(NO_DAY);
        write_block("day", rows().flat_map(|row| day(row).to_le_bytes()), out)?;
    }
    write_texts("title", rows().map(|row| &points.title[row]), out)?;
    if !points.detail.is_empty() {
        write_texts("detail", rows().map(|row| &points.detail[row]), out)?;
    }
    Ok(())
}

/// Returns a score as a share of 254, or [`NO_SCORE`].
fn score_byte(score: f32) -> u8 {
    // In 0 to 254 by the clamp.
    if score.is_nan() { NO_SCORE } else { (score.clamp(0.0, 1.0) * 254.0).round() as u8 }
}

fn write_block(name: &str, bytes: impl Iterator<Item = u8>, out: &mut impl Write) -> io::Result<()> {
    write!(out, "<script type=\"application/base64\" data-column=\"{name}\">")?;
    write_base64(bytes, out)?;
    writeln!(out, "</script>")
}

/// Writes texts as JSON arrays of [`BLOCK_TEXTS`], so that the page parses only those it shows or searches.
fn write_texts<'a>(
    name: &str,
    mut texts: impl ExactSizeIterator<Item = &'a String>,
    out: &mut impl Write,
) -> io::Result<()> {
    while texts.len() > 0 {
        write!(out, "<script type=\"application/json\" data-texts=\"{name}\">[")?;
        for (i, text) in texts.by_ref().take(BLOCK_TEXTS).enumerate() {
            out.write_all(if i == 0 { b"" } else { b"," })?;
            write_json(text, out)?;
        }
        writeln!(out, "]</script>")?;
    }
    Ok(())
}

/// Returns everything but the points.
fn summary(report: &Report, frame: &Frame, points: usize) -> serde_json::Value {
    #[derive(Serialize)]
    struct Topic<'a> {
        #[serde(flatten)]
        summary: &'a TopicSummary,
        place: [f32; 2],
        light: String,
        dark: String,
    }
    let options = &report.options;
    let positions: Vec<(f32, f32)> = report.topics.iter().map(|t| (t.x, t.y)).collect();
    let light = options.palette.colours(&positions, Theme::Light);
    let dark = options.palette.colours(&positions, Theme::Dark);
    let topics: Vec<Topic> = report
        .topics
        .iter()
        .zip(light.into_iter().zip(dark))
        .map(|(summary, (light, dark))| Topic {
            summary,
            place: frame.place(summary.x, summary.y).into(),
            light: hex(light),
            dark: hex(dark),
        })
        .collect();
    json!({
        "title": report.title,
        "map_title": options.title,
        "subtitle": report.subtitle,
        "created": report.created,
        "noun": report.noun,
        "facts": report.facts,
        "topics": topics,
        "points": points,
        "block_texts": BLOCK_TEXTS,
        "view": frame.first_view(&report.points),
        "point_size": options.point_size,
        "quality": report.quality,
        "histograms": report.histograms,
        "tables": report.tables,
        "settings": report.settings,
        "warnings": report.warnings,
    })
}

fn style() -> Result<String> {
    let mut style = Vec::new();
    for (weight, font) in FONTS {
        write!(style, "@font-face{{font-family:Inter;font-weight:{weight};src:url(data:font/woff2;base64,")?;
        write_base64(font.iter().copied(), &mut style)?;
        writeln!(style, ") format(\"woff2\")}}")?;
    }
    style.write_all(STYLE.as_bytes())?;
    String::from_utf8(style).map_err(|error| io::Error::other(error).into())
}

/// Returns the content security policy under which this style and this script run, and nothing else does.
fn policy(style: &str, script: &str) -> Result<String> {
    let style = sha256(style)?;
    let script = sha256(script)?;
    Ok(format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; font-src data:; img-src data:; \
         base-uri 'none'; form-action 'none'"
    ))
}

fn sha256(text: &str) -> Result<String> {
    let mut hash = Vec::new();
    write_base64(Sha256::digest(text).into_iter(), &mut hash)?;
    String::from_utf8(hash).map_err(|error| io::Error::other(error).into())
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}
