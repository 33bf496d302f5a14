//! `thema topics`: a model's topics as a table, JSON or CSV.

use super::print;
use crate::{Result, models};
use clap::{Args, ValueEnum};
use operators::model::{Model, OUTLIER_NAME};
use serde_json::json;

/// Shows a model's topics.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema topics model/
  thema topics model/ --format json | jq '.[0].Representation'
  thema topics model/ --format csv > topics.csv")]
pub struct TopicsArgs {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    model: String,
    /// How to show them, whatever --log says
    #[arg(long, value_enum, default_value = "table")]
    format: TopicsFormat,
    /// The most topics to show, the largest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TopicsFormat {
    /// For people
    Table,
    /// One array; BERTopic's columns, and ours
    Json,
    /// BERTopic's columns, with a header
    Csv,
}

/// A topic as BERTopic's `get_topic_info` has it; the outliers come first, as −1.
struct Row<'a> {
    id: i32,
    count: u64,
    name: &'a str,
    words: Vec<&'a str>,
    weights: Vec<f32>,
    documents: Vec<&'a str>,
}

pub(super) async fn run(args: TopicsArgs) -> Result<()> {
    let model = models::load(&models::find(&args.model).await?).await?;
    let mut rows = rows(&model);
    if let Some(top) = args.top {
        let outliers = rows.iter().filter(|r| r.id < 0).count();
        rows.truncate(top as usize + outliers);
    }
    print(&match args.format {
        TopicsFormat::Table => table(&rows),
        TopicsFormat::Json => json(&rows),
        TopicsFormat::Csv => csv(&rows),
    })
}

fn rows(model: &Model) -> Vec<Row<'_>> {
    let outliers = model.sample.topics.iter().filter(|t| **t < 0).count() as u64;
    let first = (outliers > 0).then(|| Row {
        id: -1,
        count: outliers,
        name: OUTLIER_NAME,
        words: Vec::new(),
        weights: Vec::new(),
        documents: Vec::new(),
    });
    first
        .into_iter()
        .chain(model.topics.iter().map(|topic| {
            Row {
                id: topic.id,
                count: topic.size,
                name: &topic.name,
                words: topic.words.iter().map(|w| w.0.as_str()).collect(),
                weights: topic.words.iter().map(|w| w.1).collect(),
                documents: topic
                    .representatives
                    .iter()
                    .filter_map(|row| model.sample.texts.get(usize::try_from(*row).ok()?).map(String::as_str))
                    .collect(),
            }
        }))
        .collect()
}

fn table(rows: &[Row<'_>]) -> String {
    let width = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).clamp(4, 48);
    let mut text = format!("{:>5}  {:>7}  {:<width$}  Words\n", "Topic", "Count", "Name");
    for row in rows {
        let name = shortened(row.name, width);
        let words = row.words.iter().take(6).copied().collect::<Vec<_>>().join(", ");
        text.push_str(format!("{:>5}  {:>7}  {name:<width$}  {words}", row.id, row.count).trim_end());
        text.push('\n');
    }
    text
}

/// The text in at most `width` characters, the last an ellipsis if it was longer.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn json(rows: &[Row<'_>]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|r| {
            json!({
                "Topic": r.id,
                "Count": r.count,
                "Name": r.name,
                "Representation": r.words,
                "Representative_Docs": r.documents,
                "weights": r.weights,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

fn csv(rows: &[Row<'_>]) -> String {
    let field = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let list = |items: &[&str]| field(&serde_json::Value::from(items.to_vec()).to_string());
    let mut text = "Topic,Count,Name,Representation,Representative_Docs\n".to_string();
    for r in rows {
        let (name, words, documents) = (field(r.name), list(&r.words), list(&r.documents));
        text.push_str(&format!("{},{},{name},{words},{documents}\n", r.id, r.count));
    }
    text
}
