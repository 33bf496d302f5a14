//! `thema taxonomy`: a model's topics under classes and sub-classes.

use super::output::Output;
use super::print;
use crate::{Error, Result, models};
use clap::{Args, ValueEnum};
use operators::bundle::Wanted;
use operators::taxonomy::Scheme;
use std::path::Path;

/// Shows a model's taxonomy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema taxonomy model/
  thema taxonomy model/ --format dotted
  thema taxonomy model/ --out taxonomy.ttl")]
pub struct TaxonomyArgs {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    model: String,
    /// How to show it [default: md, or what the name of --out says]
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// Writes it to a file instead: .md, .txt (dotted), .json or .ttl (SKOS)
    #[arg(long, short, value_name = "FILE")]
    out: Option<String>,
    /// Replaces that file if it is there
    #[arg(long)]
    overwrite: bool,
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

pub(super) async fn run(args: TaxonomyArgs) -> Result<()> {
    let scheme = match (args.format, &args.out) {
        (Some(form), _) => form.into(),
        (None, Some(out)) => Scheme::of(out)?,
        (None, None) => Scheme::Markdown,
    };
    let out = args.out.as_deref().map(|out| Output::open(Path::new(out), args.overwrite)).transpose()?;
    let found = models::find(&args.model).await?;
    let model = models::load(&found, Wanted::Labelling).await?;
    if model.taxonomy.nodes.is_empty() {
        return Err(Error::place(&found.folder, "has no taxonomy: it has no topics, or too many of them"));
    }
    let text = scheme.write(&model.taxonomy)?;
    out.map_or_else(|| print(&text), |out| out.write(&text))
}
