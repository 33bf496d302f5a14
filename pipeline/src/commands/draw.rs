//! The sample that a fit is made of: its rows, drawn from the source, and their vectors.

use super::{Context, count};
use crate::engine::token_rate;
use crate::job::Job;
use crate::positions::Event;
use crate::progress::Progress;
use crate::report::thousands;
use crate::sources::Source;
use crate::{Error, Result};
use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use kernels::Matrix;
use operators::sample::{Identity, Sample, Sampler};
use operators::text::BoundTemplate;
use operators::vectors::{Counters, Vectors, encode};
use std::sync::Arc;
use std::time::Instant;

/// Streams the source once and keeps the rows of the sample.
///
/// Rows are known by the job's id, or else by `text`, or else by their number. Fails where there is no row.
pub(super) async fn draw(
    context: &Context,
    job: &Job,
    source: &mut dyn Source,
    text: Option<&BoundTemplate>,
) -> Result<Sample> {
    let identity = match (&job.id, text) {
        (Some(column), _) => Identity::Id(column.clone()),
        (None, Some(text)) => Identity::Text(text.clone()),
        (None, None) => Identity::Row,
    };
    let mut sampler = Sampler::try_new(job.fit.sample, identity, source.schema())?;
    context.progress.begin("reading", "rows", source.rows_hint());
    let mut first_row = 0;
    while let Event::Batch(batch) = source.next().await? {
        if context.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        sampler.push(first_row, &batch.rows)?;
        first_row += batch.rows.num_rows() as u64;
        context.progress.set(first_row, "");
        if job.fit.sample.end().is_some_and(|end| first_row >= end) {
            break;
        }
    }
    context.progress.finish();
    let drawn = sampler.finish()?;
    if drawn.rows.num_rows() == 0 {
        let reason = "the source has no rows, or --rows and --where leave none";
        return Err(operators::Error::Unfit(reason.into()).into());
    }
    let others: u64 = drawn.repeated.iter().map(|(_, others)| others).sum();
    if others > 0 && job.id.is_none() {
        tracing::info!("{} left out, whose text is that of another (there is no --id)", count(others, "row"));
    }
    Ok(drawn)
}

/// Warns, or fails where that is `strict`, of ids that stand in more than one row.
pub(super) fn judge_repeated(drawn: &Sample, id: Option<&str>, strict: bool) -> Result<()> {
    let (Some(id), Some((row, others))) = (id, drawn.repeated.first()) else { return Ok(()) };
    let column = drawn.rows.column_by_name(id).ok_or_else(|| Error::Internal(format!("no column {id}")))?;
    let example = array_value_to_string(column, *row).map_err(operators::Error::from)?;
    let (ids, rows) =
        (drawn.repeated.len() as u64, drawn.repeated.iter().map(|(_, others)| others).sum::<u64>());
    let reason = format!(
        "column \"{id}\": {} of the sample's {} {} in more than one row, such as {example} in {}: of each the row whose values \
         sort first is fitted, and {} left out",
        thousands(ids),
        count(drawn.rows.num_rows() as u64, "id"),
        if ids == 1 { "stands" } else { "stand" },
        thousands(others + 1),
        if rows == 1 { "1 row is".into() } else { format!("{} rows are", thousands(rows)) },
    );
    if strict {
        return Err(operators::Error::Unfit(format!("--strict: {reason}")).into());
    }
    tracing::warn!("{reason}");
    Ok(())
}

/// Leaves out the rows without any text: all alike, they would make a topic of nothing.
pub(super) fn leave_out_blank(drawn: &mut Sample, text: &BoundTemplate) -> Result<()> {
    let texts = text.render(&drawn.rows)?.texts;
    if texts.null_count() == 0 {
        return Ok(());
    }
    tracing::warn!("{} without any text left out", count(texts.null_count() as u64, "row"));
    drawn.retain(|row| texts.is_valid(row))?;
    if drawn.rows.num_rows() == 0 {
        return Err(operators::Error::Unfit("no row of the sample has any text".into()).into());
    }
    Ok(())
}

/// Takes the vectors of `rows` from their column, or encodes `texts`, one a row, and shows how far it is.
pub(super) fn embed(
    rows: &RecordBatch,
    vectors: &Vectors,
    texts: &[String],
    counters: &Arc<Counters>,
    progress: &Progress,
) -> Result<Matrix<f32>> {
    let Vectors::Encoded { encoder, .. } = vectors else {
        return Ok(vectors.bind(&rows.schema(), Arc::clone(counters))?.of(rows)?.vectors);
    };
    progress.begin("embedding", "rows", Some(texts.len() as u64));
    let started = Instant::now();
    let vectors = encode(encoder, texts, counters, || {
        progress.set(counters.texts(), &token_rate(counters, started));
        !progress.is_cancelled()
    })?;
    progress.finish();
    Ok(vectors)
}
