//! Where commands write: rows to a sink, and a file beside them, such as a report as JSON, a taxonomy, a picture.

use crate::job::Job;
use crate::sinks::SinkConfig;
use crate::{Error, Result};
use clap::Args;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where rows go.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// A file, .parquet or .jsonl; or what grows by what is new (label): a folder, with / at its end, or delta:TABLE
    #[arg(long, short, value_name = "FILE")]
    out: Option<String>,
    /// What stands before the names of the new columns
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Replaces an output that exists; of a folder all rows are labelled anew
    #[arg(long)]
    pub(super) overwrite: bool,
}

impl OutputArgs {
    /// Fills in the flags.
    pub(super) fn fill(&self, job: &mut Job) -> Result<()> {
        if let Some(out) = &self.out {
            job.sink = Some(SinkConfig::for_path(out)?);
        }
        if let Some(prefix) = &self.prefix {
            job.prefix.clone_from(prefix);
        }
        Ok(())
    }
}

/// A file to write, opened before the work, so that a place that cannot be written to is known before minutes are spent.
///
/// It keeps what it holds until then; one that was not there goes again if nothing is written.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    is_new: bool,
}

impl Output {
    /// Opens the file at `path`; fails where there is one, unless `overwrite`.
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Self> {
        let is_new = !path.exists();
        // Pipes and devices are there to be written to.
        if path.is_file() && !overwrite {
            let reason = "exists already; choose another name or say --overwrite";
            return Err(Error::place(path.display().to_string(), reason));
        }
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| Error::place(path.display().to_string(), e.to_string()))?;
        Ok(Self { path: path.to_path_buf(), file, is_new })
    }

    /// The file's name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `text` in the place of what the file holds.
    pub(super) fn write(mut self, text: &str) -> Result<()> {
        // Pipes and devices have no length.
        let is_file = self.file.metadata().is_ok_and(|facts| facts.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|e| Error::place(self.path.display().to_string(), e.to_string()))?;
        self.is_new = false;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new {
            // Nothing is lost if it stays.
            drop(std::fs::remove_file(&self.path));
        }
    }
}
