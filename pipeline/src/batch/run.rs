//! Does the units that are open, a few at a time.

use super::Task;
use super::ledger::{Done, Ledger, now};
use super::sums::Sums;
use crate::engine::{Summary, flow, watch};
use crate::progress::Progress;
use crate::sinks::UnitSinks;
use crate::sources::{BadUnits, Columns, Source};
use crate::{Error, Result};
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};
use operators::Operator;
use operators::corpus::Corpus;
use operators::vectors::Counters;
use std::sync::{Arc, Mutex, PoisonError};

/// How many units may be under way at the same time: while one computes, the next is being read and the one before is being
/// written.
pub(crate) const AT_ONCE: usize = 3;

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// The rows of all units.
    pub(crate) rows: Summary,
    /// How many units it did.
    pub(crate) units: usize,
    /// How many it left to another run, which was faster.
    pub(crate) left: usize,
    /// What it could not read.
    pub(crate) bad: BadUnits,
}

/// How units are done.
pub(crate) struct Way<'a, O> {
    /// Where rows go.
    pub(crate) sink: &'a UnitSinks,
    /// The columns that are read.
    pub(crate) columns: &'a Columns,
    /// The columns that are written.
    pub(crate) schema: &'a SchemaRef,
    /// The folder of the model's version.
    pub(crate) model: &'a str,
    /// Makes the operators of one unit, which add its rows to the sums given.
    pub(crate) operators: O,
    /// The basis of the sums, where they are to be kept.
    pub(crate) sums: Option<String>,
    /// What they count.
    pub(crate) counters: &'a Counters,
    /// How many units are under way at the same time. Those that an encoder works on would only end later side by side.
    pub(crate) at_once: usize,
}

/// Does `tasks`; `judge` is asked before a unit becomes visible, and `bad` was found before.
///
/// # Errors
/// The first that a unit meets; those that are done stay so.
pub(crate) async fn run<O>(
    ledger: &Ledger,
    tasks: Vec<Task>,
    bad: &BadUnits,
    way: &Way<'_, O>,
    progress: &Progress,
    judge: impl Fn(&BadUnits) -> Result<()>,
) -> Result<Totals>
where
    O: Fn(Arc<Mutex<Corpus>>) -> Vec<Box<dyn Operator>>,
{
    let state = Mutex::new((Totals::default(), None::<Error>));
    let locked = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let planned = tasks.len();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let each = stream::iter(tasks).for_each_concurrent(way.at_once, |task| {
        let (mut stopped, judge, stop) = (stopped.clone(), &judge, &stop);
        async move {
            if *stopped.borrow() {
                return;
            }
            let id = task.id;
            let done = one(ledger, way, task, progress, judge, &mut stopped).await;
            let (totals, first) = &mut *locked();
            match done {
                Ok(None) => totals.left += 1,
                Ok(Some((rows, bad))) => {
                    totals.rows.rows_in += rows.rows_in;
                    totals.rows.rows_out += rows.rows_out;
                    totals.units += 1;
                    totals.bad.extend(bad);
                }
                Err(error) => {
                    // Those that are stopped by this one have nothing to tell.
                    if first.is_none() {
                        tracing::warn!("unit {id} is not done");
                        *first = Some(error);
                    }
                    stop.send_replace(true);
                    way.counters.stop();
                }
            }
        }
    });
    tokio::select! {
        () = each => {}
        () = watch(progress, way.counters) => unreachable!("watching never ends"),
    }
    let (mut totals, failed) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.set(totals.rows.rows_in, "");
    progress.finish();
    totals.bad.extend(bad.clone());
    if !totals.bad.is_empty() {
        match ledger.note_bad(&totals.bad).await {
            Ok(table) => tracing::warn!("what could not be read is listed in {table}"),
            Err(error) => tracing::warn!("what could not be read is listed nowhere: {error}"),
        }
    }
    match failed {
        Some(error) => {
            let goes_on = "the same command, without --overwrite, goes on with the rest";
            tracing::warn!("{} of {planned} units are done; {goes_on}", totals.units);
            Err(error)
        }
        None => Ok(totals),
    }
}

/// Does a unit, unless another run has done it.
async fn one<O>(
    ledger: &Ledger,
    way: &Way<'_, O>,
    Task { id, table }: Task,
    progress: &Progress,
    judge: impl Fn(&BadUnits) -> Result<()>,
    stopped: &mut tokio::sync::watch::Receiver<bool>,
) -> Result<Option<(Summary, BadUnits)>>
where
    O: Fn(Arc<Mutex<Corpus>>) -> Vec<Box<dyn Operator>>,
{
    if ledger.is_done_now(id).await? {
        return Ok(None);
    }
    let mut source = table.read(way.columns)?;
    let mut sink = way.sink.open(id, way.schema).await?;
    let corpus = Arc::new(Mutex::new(Corpus::default()));
    let moved = tokio::select! {
        moved = flow(&mut source, (way.operators)(Arc::clone(&corpus)), sink.as_mut(), progress) => moved,
        _ = stopped.wait_for(|stopped| *stopped) => Err(Error::Cancelled),
    };
    let whole = async {
        let rows = moved?;
        judge(source.bad())?;
        table.check_unchanged().await?;
        // What it wrote is not to be written over by rows that may be others, of a newer model or a shorter file.
        if ledger.is_done_now(id).await? {
            return Ok(None);
        }
        if rows.rows_out > 0 {
            sink.commit().await?;
        } else {
            way.sink.leave_empty(id).await?;
        }
        Ok::<_, Error>(Some(rows))
    };
    let whole = whole.await;
    if !matches!(whole, Ok(Some(Summary { rows_out: 1.., .. })))
        && let Err(second) = sink.abort().await
    {
        tracing::warn!("could not clean up: {second}");
    }
    let Some(rows) = whole? else { return Ok(None) };
    if ledger.is_void_now(id).await? {
        way.sink.discard(id, sink.as_mut()).await?;
        let reason = "another run has begun anew (--overwrite), so that this one is of no more use";
        return Err(Error::place(way.sink.name(), reason));
    }
    let corpus = std::mem::take(&mut *corpus.lock().unwrap_or_else(PoisonError::into_inner));
    let corpus = match way.sums.clone() {
        Some(basis) => Some(Sums { file: ledger.put_corpus(id, corpus).await?, basis }),
        None => None,
    };
    let done = Done {
        run: ledger.run().into(),
        at: now(),
        model: way.model.into(),
        rows_in: rows.rows_in,
        rows_out: rows.rows_out,
        bad_units: source.bad().units(),
        files: if rows.rows_out > 0 { sink.parts()? } else { Vec::new() },
        corpus,
    };
    if !ledger.mark(id, &done).await? {
        tracing::info!("unit {id}: another run was faster");
        way.sink.leave(sink.as_mut()).await?;
        return Ok(None);
    }
    tracing::debug!("unit {id}: {} rows", rows.rows_in);
    Ok(Some((rows, source.bad().clone())))
}
