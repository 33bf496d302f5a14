//! From a fitted model to its report: which numbers are shown, what they are called and what they mean.

use super::{
    Histogram, MapOptions, Metric, OUTLIER, Part, Points, Report, Table, TopicSummary, write_html, write_png,
};
use crate::Result;
use crate::job::Job;
use operators::fit::FitConfig;
use operators::labellers::LabellerConfig;
use operators::model::{Model, NamedBy};
use operators::vectors::Counters;
use std::time::{Duration, Instant};

/// Draws a model's report as the files that lie beside it: the page, and the picture of its map.
pub(crate) fn files(
    model: &Model,
    job: &Job,
    counters: &Counters,
    took: Duration,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let started = Instant::now();
    let report = of_model(model, job, counters, took)?;
    let (mut page, mut picture) = (Vec::new(), Vec::new());
    write_html(&report, &mut page)?;
    write_png(&report, &mut picture)?;
    tracing::info!("report: {:.1} s", started.elapsed().as_secs_f64());
    Ok(vec![("report.html", page), ("map.png", picture)])
}

/// Fills a report from what a fit found.
pub fn of_model(model: &Model, job: &Job, counters: &Counters, took: Duration) -> Result<Report> {
    let sample = &model.sample;
    let column = |c: usize| sample.map.iter_rows().map(|p| p[c]).collect::<Vec<f32>>();
    let vectors = match (&model.encoder, &model.settings.encoder.column) {
        (Some(identity), _) => ("encoder".into(), identity.name.clone()),
        (None, column) => ("vectors from column".into(), column.clone().unwrap_or_default()),
    };
    let (fitted, rows) = (sample.len() as u64, model.rows());
    let all = (rows != fitted).then(|| ("rows counted".into(), thousands(rows)));
    Ok(Report {
        title: job.report.title.clone().unwrap_or_else(|| "Topics".into()),
        subtitle: subtitle(job, model),
        created: String::new(),
        noun: "texts".into(),
        facts: vec![
            ("rows fitted".into(), thousands(fitted)),
            ("topics".into(), model.topics.len().to_string()),
            ("outliers".into(), percent(model.outlier_share())),
            vectors,
            ("fitted in".into(), format!("{:.0} s", took.as_secs_f64())),
        ]
        .into_iter()
        .chain(all)
        .collect(),
        topics: topics(model),
        points: Points {
            x: column(0),
            y: column(1),
            topic: sample.topics.iter().map(|t| if *t < 0 { OUTLIER } else { *t }).collect(),
            title: sample.texts.clone(),
            detail: Vec::new(),
            score: sample.probabilities.clone(),
            part: vec![Part::Fitted; sample.len()],
            days: sample.dates.clone(),
        },
        quality: quality(model),
        histograms: histograms(model),
        tables: lineage(model).into_iter().chain(calibration(model)).collect(),
        settings: job.to_yaml()?,
        warnings: warnings(model, counters),
        // The headline says it already.
        options: MapOptions { title: None, ..job.report.clone() },
    })
}

fn subtitle(job: &Job, model: &Model) -> String {
    let source = job
        .source
        .as_ref()
        .and_then(crate::sources::SourceConfig::table)
        .map_or("", |table| table.path.as_str());
    let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or(source);
    let days = model.sample.dates.iter().flatten();
    match (days.clone().min(), days.max()) {
        (Some(first), Some(last)) => format!("{name}, {} to {}", day(*first), day(*last)),
        _ => name.to_string(),
    }
}

fn topics(model: &Model) -> Vec<TopicSummary> {
    let sample = &model.sample;
    model
        .topics
        .iter()
        .map(|topic| {
            let members =
                || sample.topics.iter().zip(sample.map.iter_rows()).filter(|(t, _)| **t == topic.id);
            TopicSummary {
                id: topic.id,
                name: topic.name.clone(),
                path: above(model, topic.id),
                size: usize::try_from(topic.size).unwrap_or(usize::MAX),
                labelled: 0,
                words: topic.words.clone(),
                representatives: topic
                    .representatives
                    .iter()
                    .filter_map(|row| sample.texts.get(usize::try_from(*row).ok()?).cloned())
                    .collect(),
                // The median stays within the cluster where a mean may fall between two parts.
                x: median(members().map(|(_, p)| p[0]).collect()),
                y: median(members().map(|(_, p)| p[1]).collect()),
            }
        })
        .collect()
}

/// The names above a topic in the taxonomy.
fn above(model: &Model, topic: i32) -> Vec<String> {
    let mut path: Vec<String> = model.taxonomy.path(topic).into_iter().map(String::from).collect();
    path.pop();
    path
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Name, how it is shown, what it means.
const METRICS: [(&str, &str, &str); 8] = [
    (
        "npmi",
        "coherence (NPMI)",
        "Do a topic's words occur together? The mean over pairs of its ten best words within windows of ten words: \
         1 always together, 0 as chance would have it, -1 never. Above 0.1 is good for short texts.",
    ),
    (
        "topic_diversity",
        "topic diversity",
        "Do topics have words of their own? The share of different words among the ten best of all topics; 1 is best.",
    ),
    (
        "outlier_share",
        "outliers",
        "Texts that belong to no topic. Density clustering leaves out what lies between topics, 20 to 40 % is \
         usual; k-means puts each text of the sample into one.",
    ),
    (
        "dbcv",
        "density separation (DBCV)",
        "Does density separate the topics where they were clustered? 1: dense topics with nothing between them, below \
         0: topics that run into each other. Outliers count as 0.",
    ),
    (
        "stability",
        "stability",
        "Would another seed find the same topics? The adjusted mutual information of the topics with those of other \
         layouts of the same texts: 1 the same, 0 nothing in common but by chance.",
    ),
    (
        "mean_persistence",
        "cluster persistence",
        "How long clusters last while the density asked for rises, 0 to 1; higher is firmer.",
    ),
    (
        "coverage_reached",
        "coverage reached",
        "Texts of a topic that keep one when they are labelled by their neighbours as a new text would be, on a half \
         of the sample that did not set the threshold.",
    ),
    (
        "neighbour_recall",
        "neighbours found",
        "The share of each text's nearest texts that the search found before the layout, measured on a thousand of them; \
         100 % where all are compared with all, as up to 50,000 texts.",
    ),
];

fn quality(model: &Model) -> Vec<Metric> {
    let known = METRICS.iter().filter_map(|(key, name, explanation)| {
        let value = *model.metrics.get(*key)?;
        let value = match *key {
            "outlier_share" | "coverage_reached" => percent(value),
            "neighbour_recall" => format!("{:.1} %", 100.0 * value),
            _ => format!("{value:.3}"),
        };
        Some(Metric { name: (*name).into(), value, explanation: (*explanation).into() })
    });
    known.collect()
}

fn histograms(model: &Model) -> Vec<Histogram> {
    let members = model.sample.topics.iter().zip(&model.sample.probabilities).filter(|(t, _)| **t >= 0);
    let mut counts = [0u64; 20];
    for (_, p) in members {
        counts[((p * 20.0) as usize).min(19)] += 1;
    }
    let mut histograms = vec![Histogram {
        name: "membership".into(),
        explanation: "How strongly the texts of all topics belong to theirs; outliers are left out.".into(),
        bins: bins(0.0, 1.0, &counts),
    }];
    if let Some(report) = &model.calibration_report {
        let values = &report.histogram;
        histograms.push(Histogram {
            name: "vector values".into(),
            explanation: "The values of all vectors, which 8-bit codes divide into 256 steps a dimension."
                .into(),
            bins: bins(f64::from(values.lower), f64::from(values.upper), &values.counts),
        });
    }
    histograms
}

/// Counts as bins of equal width.
fn bins(lower: f64, upper: f64, counts: &[u64]) -> Vec<(f64, f64, u64)> {
    let edge = |i: usize| lower + (upper - lower) * i as f64 / counts.len() as f64;
    counts.iter().enumerate().map(|(i, n)| (edge(i), edge(i + 1), *n)).collect()
}

/// What became of the topics of the model before.
fn lineage(model: &Model) -> Option<Table> {
    let name =
        |id: i32| model.topic(id).map_or(format!("topic {id}"), |topic| format!("{id} {}", topic.name));
    let list = |topics: &[i32]| topics.iter().map(|id| name(*id)).collect::<Vec<_>>().join("; ");
    let events = model.lineage.iter().filter(|event| event.generation == model.generation);
    let rows: Vec<Vec<String>> = events
        .map(|event| {
            let shares = event
                .evidence
                .iter()
                .map(|e| format!("{} of it, {} of the other", percent(e.of_from), percent(e.of_to)));
            vec![
                event.change.name().into(),
                list(&event.from),
                list(&event.to),
                shares.collect::<Vec<_>>().join("; "),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        name: "lineage".into(),
        explanation: "What became of the topics of the model before: which were born, grew, shrank, split, merged or died, \
                      and the share of rows that each pair of topics has in common."
            .into(),
        columns: ["what", "before", "after", "rows in common"].map(Into::into).into(),
        rows,
    })
}

/// What 8-bit codes keep of the vectors.
fn calibration(model: &Model) -> Option<Table> {
    let report = model.calibration_report.as_ref()?;
    let row = |name: &str, value: String| vec![name.to_string(), value];
    Some(Table {
        name: "quantization".into(),
        explanation: "Vectors as 8-bit codes: ranges measured on one half of the sample, tried on the other."
            .into(),
        columns: vec!["what".into(), "value".into()],
        rows: vec![
            row("vectors tried", thousands(report.rows)),
            row(
                "values inside their ranges (mean over dimensions)",
                format!("{:.4} %", 100.0 * report.inside),
            ),
            row(
                "worst dimension",
                format!("{} ({:.3} %)", report.worst_dimension, 100.0 * report.worst_inside),
            ),
            row("values clipped", format!("{:.4} %", 100.0 * report.clip_rate)),
            row("smallest and largest value", format!("{:.4} and {:.4}", report.min, report.max)),
            row(
                "bytes a vector, as floats and as codes",
                format!("{} and {}", report.float_bytes / report.rows, report.code_bytes / report.rows),
            ),
            row("score below which a text is an outlier", format!("{:.3}", model.threshold.score)),
        ],
    })
}

/// By how much a coverage measured on many rows may miss the wanted one, and by how many standard errors on few.
const COVERAGE_SLACK: f64 = 0.03;
const COVERAGE_ERRORS: f64 = 3.0;

fn warnings(model: &Model, counters: &Counters) -> Vec<String> {
    let mut warnings = Vec::new();
    if model.topics.is_empty() {
        warnings
            .push("No topics were found: every text is an outlier. Try a smaller min_cluster_size.".into());
    }
    warnings.extend(coverage_missed(model));
    warnings.extend(named_by_words(model));
    let (texts, tokens) = counters.truncated();
    if texts > 0 {
        let share = tokens as f64 / (tokens + counters.tokens()) as f64;
        warnings.push(format!(
            "{} texts are longer than the encoder reads: {} of all tokens were cut off.",
            thousands(texts),
            percent(share)
        ));
    }
    for (column, nulls) in counters.missing().nulls.iter().filter(|(_, n)| **n > 0) {
        warnings.push(format!("Column \"{column}\" is missing in {} texts.", thousands(*nulls)));
    }
    warnings
}

/// What to say where labelling will keep fewer texts than was asked for.
pub(crate) fn coverage_missed(model: &Model) -> Option<String> {
    let wanted = model.settings.label.coverage;
    let rows = model.threshold.held_out_rows;
    let reached = model.threshold.coverage.filter(|reached| is_missed(wanted, *reached, rows))?;
    Some(format!(
        "A coverage of {} was asked for, {} is reached: more texts than that are voted out by neighbours that are \
         outliers. With label.outliers: abstain those do not vote.",
        percent(wanted),
        percent(reached)
    ))
}

/// What to say where a language model was to name topics and did not name all.
fn named_by_words(model: &Model) -> Option<String> {
    let asked = matches!(FitConfig::of(model).ok()?.labeller, LabellerConfig::Llm(_));
    let lacking = model.topics.iter().filter(|topic| topic.named_by == NamedBy::Words).count();
    let told = || {
        format!(
            "{lacking} of {} topics have names of their words: the language model gave none.",
            model.topics.len()
        )
    };
    (asked && lacking > 0).then(told)
}

/// Whether a coverage `reached` on so many rows is less than the `wanted` one for more reasons than chance.
fn is_missed(wanted: f64, reached: f64, rows: u64) -> bool {
    let error = (wanted * (1.0 - wanted) / rows as f64).sqrt();
    reached < wanted - COVERAGE_SLACK.max(COVERAGE_ERRORS * error)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// "1 row", "2,000 rows".
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// 12345 as "12,345".
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Days since 1970 as an ISO date.
fn day(days: i32) -> String {
    arrow::temporal_conversions::date32_to_datetime(days).map_or_else(String::new, |d| d.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coverage_is_missed_where_so_many_rows_would_not_by_chance() {
        assert!(!is_missed(0.95, 2.0 / 3.0, 3) && is_missed(0.95, 0.5, 20) && !is_missed(0.95, 0.85, 20));
        assert!(is_missed(0.95, 0.91, 2000) && !is_missed(0.95, 0.93, 2000));
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([7, 1234, 1_234_567].map(thousands), ["7", "1,234", "1,234,567"]);
        assert_eq!(percent(0.1234), "12.3 %");
        assert_eq!(day(20_686), "2026-08-21");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
