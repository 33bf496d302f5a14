//! Changes to a model's topics, each written as a new version.

use super::show::Near;
use crate::batch::{Ledger, Sealed};
use crate::commands::fit_settings::Method;
use crate::commands::names::{self, NameSettings, judge_names, named};
use crate::commands::rows::{self, RowsFormat};
use crate::commands::versions::{self, Newest};
use crate::commands::words_settings::{WordsSettings, own_words_encoder};
use crate::commands::{Context, count};
use crate::job::Job;
use crate::location::Location;
use crate::models::{self, Found};
use crate::report::thousands;
use crate::worker::on_worker;
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use operators::bundle::Wanted;
use operators::clusterers::ClustererConfig;
use operators::clusterers::kmeans::KMeansConfig;
use operators::corpus::Basis;
use operators::describe::Counted;
use operators::fit::{FitConfig, Means};
use operators::labellers::llm::{Namer, keep_names};
use operators::model::Model;
use operators::revise::{Change, Reduction, Strategy, TopicVectors, revise};
use operators::tables::changes::{renamed, side_by_side, updates};
use operators::vectors::{Counters, encode};
use operators::words::{DistributionConfig, TopicWords};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Topics and words that the table of changed words shows.
const UPDATES: (usize, usize) = (5, 5);

/// Which change.
#[derive(Debug, Args)]
#[command(next_help_heading = "Changes")]
pub(super) struct ChangeArgs {
    /// Finds other words, by the flags below or a job's fit.words, without fitting again
    #[arg(long, group = "change")]
    update: bool,
    /// With --update: words, sizes and classes of all rows that label --corpus has summed beside this output
    #[arg(long, value_name = "OUT", requires = "update")]
    corpus: Option<String>,
    /// The job file whose fit.words, and with --name fit.labeller, are taken
    #[arg(long, value_name = "JOB.yaml", requires = "change")]
    job: Option<PathBuf>,
    /// Names the topics anew: by a language model, or without one by their words
    #[arg(long, group = "change")]
    name: bool,
    /// Shows the names of another of the endpoint's models beside those of the first, and changes nothing
    #[arg(long, value_name = "NAME", requires = "name")]
    beside: Option<String>,
    /// Fails (code 4) where the language model did not name every topic; the others are written
    #[arg(long, requires = "name")]
    strict: bool,
    /// Makes one topic of these; several times for several groups
    #[arg(long, value_name = "A,B,...", group = "change", value_parser = parse_group)]
    merge: Vec<Group>,
    /// Merges the nearest topics until so many are left; auto: those that lie together
    #[arg(long, value_name = "N|auto", group = "change", value_parser = parse_reduction)]
    reduce: Option<Reduction>,
    /// What says how near topics are for --reduce [default: embeddings]
    #[arg(long, value_enum, value_name = "VECTORS", requires = "reduce")]
    reduce_by: Option<Near>,
    /// Clusters the rows of a topic again
    #[arg(long, value_name = "TOPIC", group = "change")]
    split: Option<i32>,
    /// The fewest rows of a part [default: a twentieth of the topic's rows, 5 at least]
    #[arg(long, value_name = "ROWS", requires = "split")]
    min_cluster_size: Option<usize>,
    /// How HDBSCAN chooses parts [default: as in the fit]
    #[arg(long, value_enum, value_name = "eom|leaf", requires = "split")]
    method: Option<Method>,
    /// Parts by k-means instead
    #[arg(long, value_name = "PARTS", requires = "split", conflicts_with_all = ["min_cluster_size", "method"])]
    n_clusters: Option<usize>,
    /// Gives outliers the topic that they are nearest to
    #[arg(long, value_enum, value_name = "STRATEGY", group = "change")]
    reduce_outliers: Option<By>,
    /// How near a topic must be to take an outlier [default: 0]
    #[arg(long, value_name = "SIMILARITY", requires = "reduce_outliers")]
    threshold: Option<f64>,
}

/// Topics that become one.
#[derive(Debug, Clone)]
struct Group(Vec<i32>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// The topics of their windows of words
    Distributions,
    /// HDBSCAN's membership
    Probabilities,
    /// The weights of their words
    CTfIdf,
    /// Their vectors
    Embeddings,
}

impl ChangeArgs {
    /// Whether any change is asked for.
    pub(super) fn asked(&self) -> bool {
        self.update
            || self.name
            || !self.merge.is_empty()
            || self.reduce.is_some()
            || self.split.is_some()
            || self.reduce_outliers.is_some()
    }

    /// Whether names are asked for.
    pub(super) fn names(&self) -> bool {
        self.name
    }

    /// Fails where flags of one change are given with another: a group of flags hides that from the parser.
    fn check(&self) -> Result<()> {
        let of_split = [self.min_cluster_size.is_some(), self.method.is_some(), self.n_clusters.is_some()];
        let of_outliers = self.threshold.is_some() && self.reduce_outliers.is_none();
        for (flags, change, is_lost) in [
            (
                "--min-cluster-size, --method, --n-clusters",
                "--split",
                self.split.is_none() && of_split.contains(&true),
            ),
            ("--reduce-by", "--reduce", self.reduce.is_none() && self.reduce_by.is_some()),
            ("--threshold", "--reduce-outliers", of_outliers),
            ("--beside, --strict", "--name", !self.name && (self.beside.is_some() || self.strict)),
        ] {
            if is_lost {
                return Err(Error::setting(
                    flags,
                    format!("say how {change} is done, which is not asked for"),
                ));
            }
        }
        Ok(())
    }

    fn change(&self, model: &Model, config: &FitConfig) -> Change {
        if self.name {
            return Change::Names;
        }
        if let Some(reduction) = self.reduce {
            let vectors = self.reduce_by.map_or(TopicVectors::Embeddings, Into::into);
            return Change::Reduce(reduction, vectors);
        }
        if let Some(topic) = self.split {
            return Change::Split(topic, self.parts(model, topic, config));
        }
        if let Some(by) = self.reduce_outliers {
            let strategy = match by {
                By::Distributions => Strategy::Distributions,
                By::Probabilities => Strategy::Probabilities,
                By::CTfIdf => Strategy::Ctfidf,
                By::Embeddings => Strategy::Embeddings,
            };
            return Change::Outliers(strategy, self.threshold.unwrap_or(0.0), DistributionConfig::default());
        }
        match self.merge.is_empty() {
            true => Change::Words,
            false => Change::Merge(self.merge.iter().map(|group| group.0.clone()).collect()),
        }
    }

    /// What clusters a topic's rows again.
    fn parts(&self, model: &Model, topic: i32, config: &FitConfig) -> ClustererConfig {
        if let Some(n_clusters) = self.n_clusters {
            return ClustererConfig::Kmeans(KMeansConfig { n_clusters, ..KMeansConfig::default() });
        }
        let rows = model.sample.topics.iter().filter(|of| **of == topic).count();
        let mut hdbscan = match &config.clusterer {
            ClustererConfig::Hdbscan(hdbscan) | ClustererConfig::HdbscanCrate(hdbscan) => hdbscan.clone(),
            ClustererConfig::Dbscan(_) | ClustererConfig::Kmeans(_) => Default::default(),
        };
        hdbscan.min_cluster_size = self.min_cluster_size.unwrap_or((rows / 20).max(5));
        hdbscan.min_samples = None;
        hdbscan.cluster_selection_method = self.method.map_or(hdbscan.cluster_selection_method, Into::into);
        ClustererConfig::Hdbscan(hdbscan)
    }
}

pub(super) async fn run(
    context: &Context,
    found: Found,
    args: &ChangeArgs,
    (words, names): (&WordsSettings, &NameSettings),
    format: RowsFormat,
) -> Result<()> {
    let started = Instant::now();
    args.check()?;
    let place = found.model()?;
    let newest = Newest::at(&place).await?;
    let model = Arc::new(models::load(&found, Wanted::All).await?);
    let mut config = FitConfig::of(&model)?;
    if let Some(job) = &args.job {
        let fit = Job::load(job)?.fit;
        config.words = fit.words;
        if args.name {
            config.labeller = fit.labeller;
        }
    }
    words.fill(&mut config.words)?;
    names.fill(&mut config.labeller)?;
    config.check()?;
    let namer = if args.name { Namer::open(&config.labeller, names.budget())? } else { None };
    let change = match &args.corpus {
        Some(_) if config.words.vocabulary != FitConfig::of(&model)?.words.vocabulary => {
            let reason = "counted the terms of the model's own vocabulary: leave the flags and keys of words.vocabulary as they are";
            return Err(Error::setting("--corpus", reason));
        }
        Some(output) => Change::Corpus(counted(output, &found, &model).await?),
        None => args.change(&model, &config),
    };

    let encoder = own_words_encoder(context, &model, &config).await?;
    let (progress, device) = (Arc::clone(&context.progress), context.device.clone());
    let before = Summary::of(&model);
    let is_update = matches!(change, Change::Words | Change::Corpus(_));
    let second = match (&namer, &args.beside) {
        (Some(namer), Some(model)) => Some(names::beside(namer, model)?),
        (None, Some(_)) => return Err(Error::setting("--beside", "needs a first model: give --llm-model")),
        (_, None) => None,
    };
    let old = Arc::clone(&model);
    let mut changed = on_worker(move || {
        let counters = Arc::new(Counters::default());
        let embed = |texts: &[&str]| {
            let encoder = encoder.as_ref().ok_or_else(operators::describe::needs_encoder)?;
            encode(encoder, texts, &counters, || !progress.is_cancelled())
        };
        let means = Means { embed: Some(&embed), observer: progress.as_ref(), ..Means::only(&device) };
        let changed = revise(&old, &change, &config, &means)?;
        progress.finish();
        Ok(changed)
    })
    .await?;
    if let (Some(first), Some(second)) = (&namer, second) {
        let changed = Arc::new(changed);
        let first = names::asked(context, first, &changed).await?;
        let second = names::asked(context, &second, &changed).await?;
        for naming in [&first, &second] {
            if let Some(told) = naming.lacking().filter(|_| naming.names.is_empty()) {
                return Err(Error::Service { service: naming.model.clone(), reason: told });
            }
        }
        return rows::show(&side_by_side(&changed, &first, &second)?, format, &[]);
    }
    if namer.is_some() {
        // What it does not name keeps the name that it has.
        keep_names(&mut changed, &model, |_| true);
    }
    let (changed, naming) = named(context, namer.as_ref(), changed).await?;
    let changed = Arc::new(changed);
    context.progress.check()?;
    let is_same = changed.topics == model.topics && changed.taxonomy == model.taxonomy;
    let is_counted_again =
        args.corpus.is_some() && changed.terms == model.terms && changed.outliers == model.outliers;
    if is_same && (args.name || is_counted_again) {
        if args.name {
            rows::show(&renamed(&model, &changed)?, format, &[])?;
        }
        tracing::info!("nothing has changed, so no version is written");
        return judge_names(naming.as_ref(), args.strict, &found.folder);
    }
    newest.check().await?;
    let folder = versions::write(context, &place, &changed).await?;
    let after = Summary::of(&changed);
    if is_update {
        rows::show(&updates(&before.words, &after.words, UPDATES.0, UPDATES.1)?, format, &[])?;
        tracing::info!("model {folder}");
        return Ok(());
    }
    if args.name {
        rows::show(&renamed(&model, &changed)?, format, &[])?;
        if let Some(naming) = &naming {
            tracing::info!("names {}: {}", naming.model, naming.usage);
        }
        tracing::info!("model {folder}");
        return judge_names(naming.as_ref(), args.strict, &folder);
    }
    let moved = before.labels.iter().zip(&after.labels).filter(|(old, new)| old != new).count();
    context.tell(
        &format!(
            "{} (before: {}), {:.1} % outliers (before: {:.1} %); {} changed topic; {:.1} s\nmodel   {folder}\n",
            count(after.words.len() as u64, "topic"),
            before.words.len(),
            100.0 * after.outliers,
            100.0 * before.outliers,
            count(moved as u64, "row"),
            started.elapsed().as_secs_f64(),
        ),
        &json!({
            "topics": after.words.len(), "topics_before": before.words.len(), "outlier_share": after.outliers,
            "outlier_share_before": before.outliers, "rows_changed": moved, "model": folder,
        }),
    )
}

/// What was counted of all rows in an output that grows.
async fn counted(output: &str, found: &Found, model: &Arc<Model>) -> Result<Counted> {
    let place = Location::parse(output.strip_prefix("delta:").unwrap_or(output))?;
    if place.is_local() && !place.is_local_folder() {
        return Err(Error::place(place.name(), "is no folder, expected an output of label that grows"));
    }
    let ledger = Ledger::open(&place).await?;
    if ledger.seals().await?.values().any(|seal| seal.replaces == Sealed::Partitions) {
        let reason = "had partitions replaced, so that sums of rows that are gone are among its sums";
        return Err(Error::place(place.name(), reason));
    }
    if ledger.plans().next().is_none() {
        return Err(Error::place(
            place.name(),
            "is no output of label that grows: there is no plan in _thema/plans",
        ));
    }
    let bases = {
        let model = Arc::clone(model);
        on_worker(move || Ok(Basis::of(&model)?)).await?
    };
    let (corpus, without) = ledger.corpus(&bases).await?;
    let advice = "label --corpus keeps those of what is new, and with --overwrite of all";
    if corpus.rows() == 0 {
        let folder = &found.folder;
        let reason = format!(
            "holds no sums of rows that {folder}, or a version of the same topics, labelled: {advice}"
        );
        return Err(Error::place(place.name(), reason));
    }
    if without > 0 {
        let (rows, all) = (count(without, "row"), thousands(without + corpus.rows()));
        tracing::warn!(
            "{}: of {rows} of {all} there are no sums by this model's topics: {advice}",
            place.name()
        );
    }
    tracing::info!("{} summed", count(corpus.rows(), "row"));
    let model = Arc::clone(model);
    on_worker(move || Ok(corpus.counted(&model))).await
}

/// What is told of a model before and after a change.
struct Summary {
    words: Vec<TopicWords>,
    labels: Vec<i32>,
    outliers: f64,
}

impl Summary {
    fn of(model: &Model) -> Self {
        let words = model.topics.iter();
        Self {
            words: words.map(|topic| TopicWords { topic: topic.id, words: topic.words.clone() }).collect(),
            labels: model.sample.topics.clone(),
            outliers: model.outlier_share(),
        }
    }
}

fn parse_group(text: &str) -> std::result::Result<Group, String> {
    let wrong = || format!("\"{text}\" is no list of topics, expected numbers such as 3,17");
    let topics = text.split(',').map(|id| id.trim().parse().map_err(|_| wrong()));
    topics.collect::<std::result::Result<_, _>>().map(Group)
}

fn parse_reduction(text: &str) -> std::result::Result<Reduction, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Reduction::Auto),
        (_, Ok(topics)) => Ok(Reduction::To(topics)),
        _ => Err(format!("\"{text}\" is neither a number of topics nor auto")),
    }
}
