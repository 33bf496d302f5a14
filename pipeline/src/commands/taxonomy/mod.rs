//! `thema taxonomy`: a model's topics under classes and sub-classes; and a scheme that they complete.

mod arrange;
mod complete;

pub(super) use arrange::{arranged, judge_taxonomy};

use super::llm::LlmArgs;
use super::output::Output;
use super::{Context, print};
use crate::{Error, Result, models};
use clap::{Args, ValueEnum};
use operators::bundle::Wanted;
use operators::fit::FitConfig;
use operators::taxonomy::{Scheme, Taxonomy, place};
use std::path::Path;

/// Shows a model's taxonomy, has it made by a language model, or completes a scheme.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema taxonomy model/
  thema taxonomy model/ --format dotted
  thema taxonomy model/ --out taxonomy.ttl
  thema taxonomy model/ --llm-url http://localhost:8000/v1 --llm-model qwen3
  thema taxonomy model/ --scheme arxiv-cs.md
  thema taxonomy model/ --scheme arxiv-cs.md --grow cs.CL --out completed.md
  thema taxonomy model/ --scheme arxiv-cs.md --llm-url http://localhost:8000/v1 --llm-model qwen3

A taxonomy by a language model is written as a new version of the model. A scheme is Markdown (.md), a dotted tree (.txt)
or JSON (.json), as this command writes them; empty nodes are welcome.")]
pub struct TaxonomyArgs {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    model: String,
    /// How to show it [default: md, or what the name of --out says; with --scheme what became of it is told]
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// Writes it to a file instead: .md, .txt (dotted), .json or .ttl (SKOS)
    #[arg(long, short, value_name = "FILE")]
    out: Option<String>,
    /// Replaces that file if it is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    complete: complete::CompleteArgs,
    #[command(flatten)]
    llm: LlmArgs,
    /// Fails (code 4) where the language model gave no taxonomy, or did not define or place every topic
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Markdown: headings and lists
    Md,
    /// A node a line, with its number
    Dotted,
    /// The object itself
    Json,
    /// SKOS, as Turtle
    Skos,
}

impl From<Form> for Scheme {
    fn from(form: Form) -> Self {
        match form {
            Form::Md => Self::Markdown,
            Form::Dotted => Self::Dotted,
            Form::Json => Self::Json,
            Form::Skos => Self::Skos,
        }
    }
}

impl TaxonomyArgs {
    /// Whether kernels will run.
    pub(super) fn computes(&self) -> bool {
        self.complete.is_given()
    }
}

pub(super) async fn run(context: &Context, args: TaxonomyArgs) -> Result<()> {
    let form: Option<Scheme> = match (args.format, &args.out) {
        (Some(form), _) => Some(form.into()),
        (None, Some(out)) => Some(Scheme::of(out)?),
        (None, None) => None,
    };
    if args.strict && !args.llm.is_given() {
        return Err(Error::setting("--strict", "is for a language model, but none is asked: see --llm-url"));
    }
    if let (Some(form), Some(out)) = (form, &args.out)
        && Scheme::of(out).is_ok_and(|named| named != form)
    {
        return Err(Error::setting("--format", format!("is another than that of {out}")));
    }
    let out = args.out.as_deref().map(|out| Output::open(Path::new(out), args.overwrite)).transpose()?;
    let found = models::find(&args.model).await?;
    // What is written again is read whole.
    let is_arranged = args.llm.is_given() && !args.complete.is_given();
    let wanted = if is_arranged { Wanted::All } else { Wanted::Labelling };
    let model = models::load(&found, wanted).await?;
    if model.taxonomy.nodes.is_empty() {
        return Err(Error::place(&found.folder, "has no taxonomy: it has no topics, or too many of them"));
    }
    if args.complete.is_given() {
        let llm = match args.llm.is_given() {
            true => {
                let chat = arrange::chat(&FitConfig::of(&model)?, &args.llm)?;
                Some(place::open(&chat.within(args.llm.budget()))?)
            }
            false => None,
        };
        let means = complete::Means { llm, strict: args.strict, form, out };
        return complete::run(context, model, &args.complete, means).await;
    }
    let (model, arrangement) = match is_arranged {
        true => arrange::run(context, &found, model, &args.llm).await?,
        false => (model.into(), None),
    };
    let title = model.settings.report["title"].as_str().unwrap_or("Topics");
    let taxonomy = Taxonomy { title: title.into(), ..model.taxonomy.clone() };
    let text = form.unwrap_or(Scheme::Markdown).write(&taxonomy)?;
    let verdict = judge_taxonomy(arrangement.as_ref(), args.strict);
    match out {
        None => print(&text).and(verdict),
        Some(out) => verdict.and_then(|()| out.write(&text)),
    }
}
