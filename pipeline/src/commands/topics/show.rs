//! The tables of a model.

use crate::commands::columns::values_of_rows;
use crate::commands::rows::{self, RowsFormat};
use crate::commands::{Context, print};
use crate::models::{self, Found};
use crate::worker::on_worker;
use crate::{Error, Result};
use arrow::array::{AsArray, Int32Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int32Type;
use clap::{Args, ValueEnum};
use operators::bundle::Wanted;
use operators::fit::FitConfig;
use operators::model::{Model, NamedBy};
use operators::revise::TopicVectors;
use operators::tables::groups::{Documents, Interval, OverTimeConfig};
use operators::tables::hierarchy::{Hierarchy, similarity};
use operators::tables::info::{DocumentsConfig, documents, topics};
use operators::tables::lineage::lineage;
use operators::words::DistributionConfig;

/// Which table, and of what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables")]
pub(super) struct ShowArgs {
    /// What to show
    #[arg(long, value_enum, default_value = "topics")]
    table: Kind,
    /// The most topics to show, the first ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Only this topic; -1: the outliers (documents, over-time, per-class)
    #[arg(long, value_name = "TOPIC", allow_negative_numbers = true)]
    topic: Option<i32>,
    /// Only the first so many documents (documents)
    #[arg(long, value_name = "N")]
    first: Option<usize>,
    /// Documents cut to so many characters (documents)
    #[arg(long, value_name = "N")]
    chars: Option<usize>,
    /// What says how near topics are (hierarchy, similarity) [default: embeddings]
    #[arg(long, value_enum, value_name = "VECTORS")]
    vectors: Option<Near>,
    /// The hierarchy as a tree of text
    #[arg(long)]
    tree: bool,
    /// In the tree, no group whose parts are further from each other
    #[arg(long, value_name = "DISTANCE")]
    max_distance: Option<f64>,
    /// The intervals of over-time [default: month]
    #[arg(long, value_enum)]
    every: Option<Every>,
    /// So many intervals of equal length instead
    #[arg(long, value_name = "N")]
    bins: Option<u32>,
    /// Words of an interval from its own texts and earlier ones alone
    #[arg(long)]
    causal: bool,
    /// Words of an interval not drawn towards those of the interval before
    #[arg(long)]
    no_evolution: bool,
    /// Words of an interval or class not drawn towards those of all
    #[arg(long)]
    no_global: bool,
    /// A table with the fitted rows' ids and their classes (per-class)
    #[arg(long, short, value_name = "PATH")]
    input: Option<String>,
    /// Its column of classes
    #[arg(long, value_name = "COLUMN")]
    class: Option<String>,
    /// Words of a window (distributions)
    #[arg(long, value_name = "N", default_value_t = DistributionConfig::default().window)]
    window: usize,
    /// Words between the beginnings of two windows
    #[arg(long, value_name = "N", default_value_t = DistributionConfig::default().stride)]
    stride: usize,
    /// Similarities of windows below it are none
    #[arg(long, value_name = "0..1", default_value_t = DistributionConfig::default().min_similarity)]
    min_similarity: f64,
    /// Writes the table to a .parquet or .jsonl file instead
    #[arg(long, short, value_name = "FILE")]
    out: Option<String>,
    /// Replaces that file if it is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Each topic with its size, name, words and examples
    Topics,
    /// Each fitted row with its topic
    Documents,
    /// Which topics join first, by what they have in common
    Hierarchy,
    /// How similar each topic is to each
    Similarity,
    /// Topics in intervals of time, for models fitted with --date
    OverTime,
    /// Topics in the classes of a column
    PerClass,
    /// The topics of each fitted row, by windows of its words
    Distributions,
    /// What became of topics in refits and changes, with the evidence
    Lineage,
}

/// What says how near two topics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Near {
    /// The weights of their words
    CTfIdf,
    /// The means of their rows' vectors
    Embeddings,
}

impl From<Near> for TopicVectors {
    fn from(near: Near) -> Self {
        match near {
            Near::CTfIdf => Self::Ctfidf,
            Near::Embeddings => Self::Embeddings,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Every {
    Day,
    Week,
    Month,
    Year,
}

impl ShowArgs {
    /// Fails where a flag is given that says nothing of the table.
    fn check(&self) -> Result<()> {
        let of = |kinds: &[Kind]| kinds.contains(&self.table);
        let over_time = of(&[Kind::OverTime]);
        let in_groups = of(&[Kind::OverTime, Kind::PerClass]);
        for (flag, is_given, is_meant) in [
            ("--first", self.first.is_some(), of(&[Kind::Documents])),
            ("--chars", self.chars.is_some(), of(&[Kind::Documents])),
            ("--vectors", self.vectors.is_some(), of(&[Kind::Hierarchy, Kind::Similarity])),
            ("--tree", self.tree, of(&[Kind::Hierarchy])),
            ("--max-distance", self.max_distance.is_some(), self.tree),
            ("--every", self.every.is_some(), over_time),
            ("--bins", self.bins.is_some(), over_time),
            ("--causal", self.causal, over_time),
            ("--no-evolution", self.no_evolution, over_time),
            ("--no-global", self.no_global, in_groups),
            ("--input", self.input.is_some(), of(&[Kind::PerClass])),
            ("--class", self.class.is_some(), of(&[Kind::PerClass])),
        ] {
            if is_given && !is_meant {
                let reason =
                    "says nothing of this table; thema topics --help tells which flags go with which --table";
                return Err(Error::setting(flag, reason));
            }
        }
        Ok(())
    }

    fn interval(&self) -> Interval {
        match (self.bins, self.every) {
            (Some(bins), _) => Interval::Bins(bins),
            (None, Some(Every::Day)) => Interval::Day,
            (None, Some(Every::Week)) => Interval::Week,
            (None, Some(Every::Month) | None) => Interval::Month,
            (None, Some(Every::Year)) => Interval::Year,
        }
    }

    /// Embeddings unless told: by word weights, topics that share few words join in long chains, one after the other.
    fn near(&self) -> TopicVectors {
        self.vectors.map_or(TopicVectors::Embeddings, Into::into)
    }

    fn wanted(&self) -> Wanted {
        match self.table {
            Kind::OverTime | Kind::PerClass | Kind::Distributions => Wanted::All,
            Kind::Topics | Kind::Documents | Kind::Hierarchy | Kind::Similarity | Kind::Lineage => {
                Wanted::Labelling
            }
        }
    }

    /// The columns that people see of a table.
    fn told(&self) -> &'static [&'static str] {
        match self.table {
            Kind::Topics => &["Topic", "Count", "Name", "Representation"],
            Kind::Documents => &["id", "Topic", "Probability", "Name", "Document"],
            Kind::Hierarchy => {
                &["Distance", "Parent_ID", "Parent_Name", "Child_Left_Name", "Child_Right_Name"]
            }
            Kind::OverTime => &["Timestamp", "Topic", "Frequency", "Words"],
            Kind::PerClass => &["Class", "Topic", "Frequency", "Words"],
            Kind::Similarity | Kind::Distributions | Kind::Lineage => &[],
        }
    }
}

pub(super) async fn run(context: &Context, found: Found, args: &ShowArgs, format: RowsFormat) -> Result<()> {
    args.check()?;
    let model = models::load(&found, args.wanted()).await?;
    let config = FitConfig::of(&model)?;
    if args.table == Kind::Hierarchy && args.tree {
        let hierarchy = Hierarchy::of(&model, args.near(), &config)?;
        let names = model.topics.iter().map(|topic| (topic.id, topic.name.clone())).collect();
        return print(&hierarchy.tree(args.max_distance, &names));
    }
    let classes = match args.table {
        Kind::PerClass => classes(args, &model).await?,
        _ => Vec::new(),
    };
    let (rows, model) = {
        let choice = Choice::of(args);
        on_worker(move || Ok((choice.table(&model, &config, &classes)?, model))).await?
    };
    let rows = chosen(rows, args, &model)?;
    match &args.out {
        Some(path) => rows::write(context, rows, path, args.overwrite).await,
        None => rows::show(&rows, format, &told(args, &model)),
    }
}

/// The columns that people see: those of the table, and who named topics where not all are named by their words.
fn told(args: &ShowArgs, model: &Model) -> Vec<&'static str> {
    let mut told = args.told().to_vec();
    if args.table == Kind::Topics && model.topics.iter().any(|topic| topic.named_by != NamedBy::Words) {
        told.insert(3, "named_by");
        if model.topics.iter().any(|topic| topic.rating.is_some()) {
            told.insert(4, "rating");
        }
    }
    told
}

/// What a table is made by.
struct Choice {
    kind: Kind,
    documents: DocumentsConfig,
    near: TopicVectors,
    interval: Interval,
    over_time: OverTimeConfig,
    windows: DistributionConfig,
}

impl Choice {
    fn of(args: &ShowArgs) -> Self {
        Self {
            kind: args.table,
            documents: DocumentsConfig { topic: args.topic, first: args.first, characters: args.chars },
            near: args.near(),
            interval: args.interval(),
            over_time: OverTimeConfig {
                evolution_tuning: !args.no_evolution,
                global_tuning: !args.no_global,
                causal: args.causal,
            },
            windows: DistributionConfig {
                window: args.window,
                stride: args.stride,
                min_similarity: args.min_similarity,
            },
        }
    }

    fn table(&self, model: &Model, config: &FitConfig, classes: &[Option<String>]) -> Result<RecordBatch> {
        Ok(match self.kind {
            Kind::Topics => topics(model)?,
            Kind::Documents => documents(model, &self.documents)?,
            Kind::Hierarchy => Hierarchy::of(model, self.near, config)?.table()?,
            Kind::Similarity => similarity(model, self.near, config)?,
            Kind::Lineage => lineage(model)?,
            Kind::OverTime => {
                if model.sample.dates.is_empty() {
                    let reason = "the model's rows have no dates: fit it with --date COLUMN";
                    return Err(Error::setting("--table over-time", reason));
                }
                let starts = self.interval.starts(&model.sample.dates)?;
                Documents::read(model, config)?.over_time(&starts, &self.over_time)?
            }
            Kind::PerClass => {
                Documents::read(model, config)?.per_class(classes, self.over_time.global_tuning)?
            }
            Kind::Distributions => Documents::read(model, config)?.distributions(&self.windows)?,
        })
    }
}

/// Leaves the rows of the topics that were asked for.
fn chosen(rows: RecordBatch, args: &ShowArgs, model: &Model) -> Result<RecordBatch> {
    let Some(topics) = rows.column_by_name("Topic").and_then(|column| column.as_primitive_opt::<Int32Type>())
    else {
        return Ok(rows);
    };
    if let Some(topic) = args.topic.filter(|topic| *topic != -1 && model.topic(*topic).is_none()) {
        return Err(Error::setting("--topic", format!("{topic} is no topic of this model")));
    }
    let first: Vec<i32> = match args.top {
        // The outliers do not count.
        Some(top) => [-1].into_iter().chain(model.topics.iter().map(|t| t.id).take(top as usize)).collect(),
        None => Vec::new(),
    };
    let wanted = |topic: i32| {
        args.topic.is_none_or(|only| only == topic) && (args.top.is_none() || first.contains(&topic))
    };
    let mask = Int32Array::iter(topics).map(|topic| Some(topic.is_some_and(wanted))).collect();
    Ok(filter_record_batch(&rows, &mask).map_err(operators::Error::from)?)
}

/// The class of each row of the model's sample, read from the input by the rows' ids.
async fn classes(args: &ShowArgs, model: &Model) -> Result<Vec<Option<String>>> {
    let (Some(input), Some(column)) = (&args.input, &args.class) else {
        let reason = "needs --input FILE, a table with the fitted rows, and --class COLUMN";
        return Err(Error::setting("--table per-class", reason));
    };
    values_of_rows(model, input, column, "--table per-class").await
}
