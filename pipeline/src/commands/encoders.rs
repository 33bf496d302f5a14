//! `thema encoders`: which encoders this machine has.

use super::{Context, print};
use crate::worker::on_worker;
use crate::{Result, hub};
use clap::{Args, Subcommand};
use operators::encoders::{Encoder, EncoderOptions, cache_folders, installed};

/// Lists the encoders in the caches, or describes one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema encoders
  thema encoders show all-MiniLM-L6-v2")]
pub struct EncodersArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the encoders in the caches (the default)
    List,
    /// Load one and say what it is
    Show {
        /// A folder, or a name in a cache or on the hub
        #[arg(value_name = "DIR|NAME")]
        encoder: String,
    },
}

pub(super) async fn run(context: &Context, args: EncodersArgs) -> Result<()> {
    match args.action.unwrap_or(Action::List) {
        Action::List => {
            let folders = cache_folders();
            let found = installed(&folders);
            if found.is_empty() {
                return print(&format!(
                    "no encoders in {} and {}\n",
                    folders.thema.display(),
                    folders.hub.display()
                ));
            }
            let width = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let lines = found.iter().map(|(name, path)| format!("{name:<width$}  {}\n", path.display()));
            print(&lines.collect::<String>())
        }
        Action::Show { encoder } => {
            let folder = hub::encoder(&encoder).await?;
            let (place, device) = (folder.clone(), context.device.clone());
            let encoder =
                on_worker(move || Ok(Encoder::load(&place, &EncoderOptions::default(), &device)?)).await?;
            let identity = encoder.identity();
            print(&format!(
                "folder      {}\ndimensions  {}\nmax length  {} tokens\nnormalised  {}\nprompt      {:?}\nweights     sha256 {}\ntokenizer   sha256 {}\n",
                folder.display(),
                identity.dim,
                identity.max_length,
                identity.normalised,
                identity.prompt,
                identity.weights_sha256,
                identity.tokenizer_sha256,
            ))
        }
    }
}
