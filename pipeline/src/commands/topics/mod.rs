//! `thema topics`: a model's topics and the tables made of them; and changes to a model's topics.

mod change;
mod show;

use super::names::NameSettings;
use super::words_settings::WordsSettings;
use super::{Context, rows::RowsFormat};
use crate::{Error, Result, models};
use clap::Args;

/// Shows a model's topics, or changes them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema topics model/
  thema topics model/ --format json | jq '.[0].Representation'
  thema topics model/ --table documents --topic 7 --first 10 --chars 80
  thema topics model/ --table hierarchy --tree
  thema topics model/ --table over-time --every month --topic 7
  thema topics model/ --table per-class --input papers.parquet --class category
  thema topics model/ --table documents --out documents.parquet
  thema topics model/ --update --then keybert,mmr --ngrams 1..3
  thema topics model/ --name --llm-url http://localhost:8000/v1 --llm-model qwen3
  thema topics model/ --name --llm-model qwen3 --beside mistral-7b-instruct
  thema topics model/ --merge 3,17 --merge 5,6,20
  thema topics model/ --reduce 40
  thema topics model/ --split 0 --min-cluster-size 20
  thema topics model/ --reduce-outliers embeddings --threshold 0.4

A change is written as a new version of the model (v2 beside v1), which is used from then on; the versions before it
stay. Topics keep their numbers, and no number is given twice.")]
pub struct TopicsArgs {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    model: String,
    /// How to show a table, whatever --log says
    #[arg(long, value_enum, default_value = "table")]
    format: RowsFormat,
    #[command(flatten)]
    show: show::ShowArgs,
    #[command(flatten)]
    change: change::ChangeArgs,
    #[command(flatten)]
    words: WordsSettings,
    #[command(flatten)]
    names: NameSettings,
}

impl TopicsArgs {
    /// Whether kernels will run.
    pub(super) fn computes(&self) -> bool {
        self.change.asked()
    }
}

pub(super) async fn run(context: &Context, args: TopicsArgs) -> Result<()> {
    if args.names.is_given() && !args.change.names() {
        let reason = "name a model's topics, but that is not asked for: say --name";
        return Err(Error::setting("flags of a language model", reason));
    }
    if args.words.is_given() && !args.change.asked() {
        let reason = "change a model, but no change is asked for: say --update to find its words anew";
        return Err(Error::setting("flags of topic words", reason));
    }
    let found = models::find(&args.model).await?;
    match args.change.asked() {
        true => change::run(context, found, &args.change, (&args.words, &args.names), args.format).await,
        false => show::run(context, found, &args.show, args.format).await,
    }
}
