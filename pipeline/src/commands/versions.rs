//! Models that are made of models: the job that they were fitted by, and how they are written.

use super::Context;
use crate::job::Job;
use crate::report;
use crate::sources::{SourceConfig, TableConfig};
use crate::worker::on_worker;
use crate::{Error, Result, models};
use operators::fit::FitConfig;
use operators::model::Model;
use operators::vectors::Counters;
use std::sync::Arc;
use std::time::Duration;

/// The newest version at a place, from which on a change is made.
pub(super) struct Newest {
    place: String,
    version: Option<u64>,
}

impl Newest {
    /// Looks which it is.
    pub(super) async fn at(place: &str) -> Result<Self> {
        let version = models::newest(place).await?.map(|found| found.version);
        Ok(Self { place: place.into(), version })
    }

    /// Fails if another run has written one since: beside it, what that run did would be gone from the newest.
    pub(super) async fn check(&self) -> Result<()> {
        match models::newest(&self.place).await?.map(|found| found.version) {
            newer @ Some(version) if newer != self.version => {
                let reason = format!(
                    "version {version} was written meanwhile, and nothing beside it: make the change again"
                );
                Err(Error::place(&self.place, reason))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a model that was made of others as a new version at `place`, with its report; returns the version's folder.
pub(super) async fn write(context: &Context, place: &str, model: &Arc<Model>) -> Result<String> {
    let drawn = Arc::clone(model);
    let files =
        on_worker(move || report::files(&drawn, &job_of(&drawn)?, &Counters::default(), Duration::ZERO))
            .await?;
    context.progress.check()?;
    models::save(place, model, files).await
}

/// The job that a model was fitted by, as far as its report shows it.
fn job_of(model: &Model) -> Result<Job> {
    let settings = &model.settings;
    let unread = |e: serde_json::Error| Error::Internal(format!("the model's settings: {e}"));
    Ok(Job {
        source: settings.source.as_ref().map(|path| SourceConfig::Table(TableConfig::new(path))),
        id: settings.id.clone(),
        text: settings.text.clone(),
        show: settings.show.clone(),
        date: settings.date.clone(),
        encoder: settings.encoder.clone(),
        fit: FitConfig::of(model)?,
        label: settings.label.clone().into(),
        report: serde_json::from_value(settings.report.clone()).map_err(unread)?,
        ..Job::default()
    })
}
