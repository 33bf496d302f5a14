//! The stream engine: read, label and write for ever, and make rows visible together with their positions.
//!
//! One idea: three stages joined by short queues, as in the local engine, in which what the source asks (partitions that
//! come and go, the end) travels in order with the batches; so when the writer meets such a question, all before it has
//! been written. Whatever fails in a way that may pass undoes what is not committed, and the source goes back to what is.

use super::label::{Stage, label, notice_last};
use super::watch::watch;
use crate::aside::{Aside, DeadLetter, Notice};
use crate::metrics::StreamMetrics;
use crate::positions::{Batch, Covers, Positions, Split};
use crate::progress::Progress;
use crate::sinks::Sink;
use crate::sources::kafka::{Event, KafkaSource, Read, Shared};
use crate::sources::{BadUnit, BadUnits};
use crate::stream::{Breaker, OnBadMessage, StreamConfig};
use crate::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use operators::monitor;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What may wait before a stage.
const QUEUE: usize = 1;

/// The rows of the first batch, before it is known how long a row takes.
const FIRST_ROWS: usize = 64;

/// How long to go on in vain, with back-off, before the stream stops.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);

/// The longest wait before going on after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What a stream did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that were read and are done.
    pub messages: u64,
    /// Rows that were labelled and are visible.
    pub rows: u64,
    /// Those of them that belong to no topic.
    pub outliers: u64,
    /// Messages that became dead letters or were skipped.
    pub bad: u64,
    /// Messages without a payload, passed on.
    pub tombstones: u64,
    /// How many times rows became visible.
    pub commits: u64,
    /// How many times what was written was undone and read again.
    pub aborts: u64,
}

/// Runs until the source ends, or `progress` is asked to stop: then what is being labelled is finished, and committed.
pub(crate) async fn run(
    source: &mut KafkaSource,
    stage: Stage,
    sink: &mut dyn Sink,
    config: &StreamConfig,
    progress: &Progress,
    metrics: &Arc<StreamMetrics>,
) -> Result<(Totals, BadUnits)> {
    let shared = Arc::clone(source.shared());
    shared.set_rows(FIRST_ROWS.min(config.batch_rows));
    let writer = Writer {
        sink,
        shared: Arc::clone(&shared),
        config,
        written: Pending::default(),
        epoch: 0,
        totals: Totals::default(),
        bad: BadUnits::default(),
        recent: Recent::new(config.breaker),
        notices: Vec::new(),
        metrics: Arc::clone(metrics),
    };
    tokio::select! {
        done = go(source, stage, writer, progress) => done,
        () = watch(&shared, progress, metrics) => unreachable!("watching never ends"),
    }
}

/// Lets batches flow until the end, beginning anew after what may pass.
async fn go(
    source: &mut KafkaSource,
    stage: Stage,
    mut writer: Writer<'_>,
    progress: &Progress,
) -> Result<(Totals, BadUnits)> {
    let mut stage = Some(stage);
    let mut failing: Option<(Instant, Duration)> = None;
    let mut recovered = Ok(());
    source.start()?;
    loop {
        let ended = match recovered {
            Ok(()) => flow(source, &mut stage, &mut writer, progress).await,
            Err(error) => Err(error),
        };
        if writer.shared.trouble().is_none() {
            // Since the last failure it has committed, or there was nothing that it could have.
            failing = None;
        }
        let reason = match ended {
            Ok(()) => return Ok((writer.totals, writer.bad)),
            Err(Error::Aborted(reason)) => reason,
            Err(error) => {
                // The first error is the one to tell.
                if let Err(second) = writer.sink.abort().await {
                    tracing::debug!("could not abort: {second}");
                }
                return Err(error);
            }
        };
        let (since, wait) = failing.unwrap_or_else(|| (Instant::now(), Duration::from_millis(100)));
        if since.elapsed() > GIVE_UP {
            return Err(Error::Service {
                service: "the stream".into(),
                reason: format!(
                    "nothing could be committed for {} minutes: {reason}",
                    GIVE_UP.as_secs() / 60
                ),
            });
        }
        tracing::warn!("{reason}; what was not committed is read again");
        *writer.shared.trouble() = Some(reason);
        failing = Some((since, (wait * 2).min(LONGEST_WAIT)));
        recovered = writer.recover().await;
        source.rewind().await;
        if progress.is_cancelled() {
            // What is not committed is read again by the next run.
            return recovered.map(|()| (writer.totals, writer.bad));
        }
        // A stop is heard by the flow.
        drop(progress.until_cancelled(tokio::time::sleep(wait)).await);
    }
}

/// Moves batches until the end or a failure.
async fn flow(
    source: &mut KafkaSource,
    stage: &mut Option<Stage>,
    writer: &mut Writer<'_>,
    progress: &Progress,
) -> Result<()> {
    let lost = || Error::Internal("the operators of a stream were lost".into());
    let mut own = stage.take().ok_or_else(lost)?;
    let shared = Arc::clone(source.shared());
    let (to_label, mut to_be_labelled) = mpsc::channel::<Event>(QUEUE);
    let (to_write, mut labelled) = mpsc::channel::<Event>(QUEUE);
    let (most_rows, metrics) = (writer.config.batch_rows, Arc::clone(&writer.metrics));
    let is_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&is_stopped);
    let labelling = tokio::task::spawn_blocking(move || {
        let mut outcome = Ok(());
        // Once one batch is left out, so are all after it: there must be no gap.
        let mut leaves_out = false;
        while let Some(event) = to_be_labelled.blocking_recv() {
            let event = match event {
                Event::Batch(read) => {
                    leaves_out |= stopped.load(Ordering::Relaxed);
                    if leaves_out || read.epoch != shared.epoch() {
                        continue;
                    }
                    let began = Instant::now();
                    let done = label(&mut own, read, &shared, most_rows, &metrics);
                    metrics.label_seconds.observe(began.elapsed().as_secs_f64());
                    match done {
                        Ok(read) => Event::Batch(read),
                        Err(error) => {
                            outcome = Err(error);
                            break;
                        }
                    }
                }
                Event::End { epoch } => {
                    notice_last(&own.labeller.monitor, &shared, &stopped);
                    Event::End { epoch }
                }
                question => question,
            };
            if to_write.blocking_send(event).is_err() {
                break;
            }
        }
        (own, outcome)
    });
    let reading = async {
        let mut asked = false;
        loop {
            let event = tokio::select! {
                event = source.next() => event?,
                _ = progress.until_cancelled(std::future::pending::<()>()), if !asked => {
                    asked = true;
                    is_stopped.store(true, Ordering::Relaxed);
                    source.stop();
                    continue;
                }
            };
            let is_end = matches!(event, Event::End { .. });
            if to_label.send(event).await.is_err() {
                // The worker failed, and tells why.
                break;
            }
            if is_end {
                break;
            }
        }
        drop(to_label);
        Ok(())
    };
    let writing = async {
        while let Some(event) = writer.next(&mut labelled).await? {
            if writer.take(event).await? {
                break;
            }
        }
        drop(labelled);
        Ok(())
    };
    let moved: Result<()> = {
        tokio::pin!(reading, writing);
        // Reading may be left anywhere; writing never, for what becomes of a commit must be known.
        tokio::select! {
            written = &mut writing => written,
            read = &mut reading => read.and(writing.await),
        }
    };
    let died = |error| Error::Internal(format!("an operator's thread died: {error}"));
    let (own, outcome) = labelling.await.map_err(died)?;
    *stage = Some(own);
    // What failed in the middle made the others end.
    outcome.and(moved)
}

/// What writes and commits.
struct Writer<'a> {
    sink: &'a mut dyn Sink,
    shared: Arc<Shared>,
    config: &'a StreamConfig,
    written: Pending,
    /// The epoch of what is written and not committed.
    epoch: u64,
    totals: Totals,
    bad: BadUnits,
    recent: Recent,
    /// What was noticed, and is not visible yet: it would not be noticed again.
    notices: Vec<Notice>,
    metrics: Arc<StreamMetrics>,
}

/// What is written and not committed.
#[derive(Default)]
struct Pending {
    next: Positions,
    since: Option<Instant>,
    messages: u64,
    rows: u64,
    outliers: u64,
    bad: u64,
    tombstones: u64,
    /// When the first message of each batch was polled.
    polled: Vec<Instant>,
}

impl Writer<'_> {
    /// Waits for what is to be written next, committing meanwhile when that is due; nothing at the end.
    async fn next(&mut self, labelled: &mut mpsc::Receiver<Event>) -> Result<Option<Event>> {
        loop {
            let Some(since) = self.written.since else { return Ok(labelled.recv().await) };
            let due = since + self.config.commit_every();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.into()) => self.commit().await?,
                event = labelled.recv() => return Ok(event),
            }
        }
    }

    /// Writes a batch, or answers a question; true at the end.
    async fn take(&mut self, event: Event) -> Result<bool> {
        match event {
            Event::Batch(read) => self.write(read).await?,
            Event::Assigned { splits, reply } => {
                let stands = self.sink.positions(&splits).await?;
                let shared = Arc::clone(&self.shared);
                let mut ownership = shared.ownership().await;
                stands.iter().for_each(|(split, next)| ownership.committed.set(split.clone(), next));
                drop(ownership);
                // Who asked may be gone.
                drop(reply.send(stands));
            }
            Event::Revoked { done } => {
                self.commit().await?;
                let _ = done.send(());
            }
            Event::End { epoch } => {
                self.write_notices().await?;
                self.commit().await?;
                if epoch != self.shared.epoch() && !self.shared.is_stopping() {
                    // What came before it was dropped with its epoch.
                    return Err(Error::Aborted("the group took partitions away at the very end".into()));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn write(&mut self, read: Read) -> Result<()> {
        let Read { mut batch, messages, epoch, at, outliers, held } = read;
        if epoch != self.epoch {
            // What is written of an epoch that is over was never to be seen.
            self.abort().await?;
            self.epoch = epoch;
        }
        let shared = Arc::clone(&self.shared);
        let ownership = shared.ownership().await;
        if epoch != ownership.epoch {
            return Ok(());
        }
        for (split, range) in &batch.covers {
            // A gap would lose messages, an overlap would repeat them: neither may become visible, whatever made it.
            let stands = self.written.next.next(split).or(ownership.committed.next(split));
            if let Some(next) = stands.filter(|next| *next != range.start) {
                let reason = format!("{split} was read from {}, and {next} is its next message", range.start);
                return Err(Error::Aborted(reason));
            }
        }
        drop(ownership);
        let (rows, letters) = (batch.rows.num_rows() as u64, batch.aside.letters.len() as u64);
        self.judge(&mut batch, messages)?;
        for (split, range) in &batch.covers {
            self.written.next.set(split.clone(), range.end);
        }
        let tombstones = batch.aside.tombstones.len() as u64;
        batch.aside.notices = self.take_notices();
        self.sink.write(batch).await?;
        // What is written lies with the sink, or on its way there.
        drop(held);
        let written = &mut self.written;
        written.since.get_or_insert_with(Instant::now);
        written.messages += messages as u64;
        written.rows += rows;
        written.outliers += outliers;
        written.polled.push(at);
        written.bad += letters;
        written.tombstones += tombstones;
        if self.config.commit_every().is_zero() || self.sink.is_full() {
            self.commit().await?;
        }
        Ok(())
    }

    /// Writes what was noticed and goes with no batch.
    async fn write_notices(&mut self) -> Result<()> {
        let notices = self.take_notices();
        if notices.is_empty() {
            return Ok(());
        }
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let aside = Aside { notices, ..Aside::default() };
        if self.written.since.is_none() {
            self.epoch = self.shared.epoch();
        }
        self.sink.write(Batch { rows, covers: Covers::new(), aside }).await?;
        self.written.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Takes what was noticed, and first of all what an attempt had that was undone; all of it is kept until it is
    /// visible.
    fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices =
            if self.written.since.is_none() { std::mem::take(&mut self.notices) } else { Vec::new() };
        notices.append(&mut self.shared.notices());
        self.notices.extend(notices.iter().cloned());
        notices
    }

    /// Decides what becomes of bad messages, and stops the stream when there are too many.
    fn judge(&mut self, batch: &mut Batch, messages: usize) -> Result<()> {
        let letters = &mut batch.aside.letters;
        self.recent.note(messages.saturating_sub(letters.len()), letters.len());
        let Some(last) = letters.last() else { return Ok(()) };
        let unit = |letter: &DeadLetter| {
            BadUnit::row(
                letter.message.split.as_str(),
                letter.message.offset.unsigned_abs(),
                letter.reason.clone(),
            )
        };
        if let Some((bad, of)) = self.recent.is_too_bad() {
            let last = unit(last);
            let reason = format!(
                "{}; {bad} of the last {of} messages could not be labelled, so the stream stops (stream.breaker)",
                last.reason
            );
            return Err(Error::Bad(BadUnit { reason, ..last }));
        }
        match self.config.on_bad_message {
            OnBadMessage::Fail => return Err(Error::Bad(unit(&letters[0]))),
            OnBadMessage::Skip => letters.drain(..).for_each(|letter| self.bad.push(unit(&letter), 1)),
            OnBadMessage::DeadLetter => {
                letters.iter().for_each(|letter| tracing::debug!("dead letter: {letter}"))
            }
        }
        Ok(())
    }

    /// Makes what was written visible, unless its epoch is over.
    async fn commit(&mut self) -> Result<()> {
        if self.written.since.is_none() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let mut ownership = shared.ownership().await;
        if ownership.epoch != self.epoch {
            drop(ownership);
            return self.abort().await;
        }
        let began = Instant::now();
        self.sink.commit().await?;
        self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        let Pending { next, messages, rows, outliers, bad, tombstones, polled, .. } =
            std::mem::take(&mut self.written);
        for (split, next) in next.iter() {
            ownership.committed.set(split.clone(), next);
        }
        drop(ownership);
        self.totals.commits += 1;
        self.totals.messages += messages;
        self.totals.rows += rows;
        self.totals.outliers += outliers;
        self.totals.bad += bad;
        self.totals.tombstones += tombstones;
        let metrics = &self.metrics;
        metrics.commits.inc();
        metrics.messages.inc_by(messages);
        metrics.rows.inc_by(rows);
        metrics.outliers.inc_by(outliers);
        metrics.dead_letters.inc_by(bad);
        metrics.tombstones.inc_by(tombstones);
        for Notice { event, .. } in self.notices.drain(..) {
            match event {
                monitor::Event::EmergingTopic(_) => drop(metrics.emerging_topics.inc()),
                monitor::Event::Drift(_) => drop(metrics.drift_alarms.inc()),
            }
        }
        polled.iter().for_each(|at| metrics.latency.observe(at.elapsed().as_secs_f64()));
        shared.trouble().take();
        Ok(())
    }

    /// Undoes what was written and is not visible.
    async fn abort(&mut self) -> Result<()> {
        if std::mem::take(&mut self.written).since.is_some() {
            self.totals.aborts += 1;
            self.metrics.aborts.inc();
        }
        self.sink.abort().await
    }

    /// Undoes what was written and is not visible, and asks a sink that keeps positions where it stands: a commit whose
    /// answer was lost may have been done, and another process may have gone on.
    async fn recover(&mut self) -> Result<()> {
        self.abort().await?;
        let shared = Arc::clone(&self.shared);
        let mut ownership = shared.ownership().await;
        let ours: Vec<Split> = ownership.ours.iter().cloned().collect();
        let stands = self.sink.positions(&ours).await?;
        for (split, next) in stands.iter() {
            ownership.committed.set(split.clone(), next);
        }
        Ok(())
    }
}

/// The last messages, as good or bad.
struct Recent {
    breaker: Breaker,
    parts: VecDeque<(usize, usize)>,
    good: usize,
    bad: usize,
}

impl Recent {
    fn new(breaker: Breaker) -> Self {
        Self { breaker, parts: VecDeque::new(), good: 0, bad: 0 }
    }

    fn note(&mut self, good: usize, bad: usize) {
        self.parts.push_back((good, bad));
        self.good += good;
        self.bad += bad;
        while let Some(&(good, bad)) = self.parts.front() {
            if self.good + self.bad - good - bad < self.breaker.window {
                break;
            }
            self.good -= good;
            self.bad -= bad;
            self.parts.pop_front();
        }
    }

    /// How many of how many are bad, if these are too many.
    fn is_too_bad(&self) -> Option<(usize, usize)> {
        let all = self.good + self.bad;
        let is_enough = all * 10 >= self.breaker.window;
        (is_enough && self.bad as f64 > self.breaker.share * all as f64).then_some((self.bad, all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that takes everything, and counts what is visible. (A test double: it fails never.)
    #[derive(Default)]
    struct Counting {
        written: usize,
        visible: usize,
    }

    #[async_trait::async_trait]
    impl Sink for Counting {
        async fn positions(&mut self, _: &[Split]) -> Result<Positions> {
            Ok(Positions::default())
        }

        async fn write(&mut self, batch: Batch) -> Result<()> {
            self.written += batch.covers.len();
            Ok(())
        }

        async fn commit(&mut self) -> Result<()> {
            self.visible += std::mem::take(&mut self.written);
            Ok(())
        }

        async fn abort(&mut self) -> Result<()> {
            self.written = 0;
            Ok(())
        }
    }

    /// What a writer says to events in turn, and how many batches are visible then.
    async fn written(events: impl FnOnce(&Shared) -> Vec<Event>) -> (Vec<Result<bool>>, usize) {
        let config = StreamConfig { commit_ms: Some(3_600_000), ..StreamConfig::default() };
        let shared = Arc::new(Shared::new(&config, Duration::from_secs(1)));
        let mut sink = Counting::default();
        let mut writer = Writer {
            sink: &mut sink,
            shared: Arc::clone(&shared),
            config: &config,
            written: Pending::default(),
            epoch: 0,
            totals: Totals::default(),
            bad: BadUnits::default(),
            recent: Recent::new(config.breaker),
            notices: Vec::new(),
            metrics: Arc::new(StreamMetrics::new()),
        };
        let mut said = Vec::new();
        for event in events(&shared) {
            said.push(writer.take(event).await);
        }
        (said, sink.visible)
    }

    fn batch(shared: &Shared, epoch: u64, rows: std::ops::Range<u64>) -> Event {
        let covers = Covers::from([(Split::new("a:0"), rows)]);
        let batch = Batch::new(RecordBatch::new_empty(Arc::new(Schema::empty())), covers);
        let (at, held) = (Instant::now(), shared.flight().hold(1));
        Event::Batch(Read { batch, messages: 1, epoch, at, outliers: 0, held })
    }

    #[tokio::test]
    async fn neither_a_gap_nor_an_overlap_becomes_visible() {
        for second in [11..20, 9..20] {
            let (said, visible) = written(|shared| {
                vec![batch(shared, 0, 0..10), batch(shared, 0, second), Event::End { epoch: 0 }]
            })
            .await;
            assert!(matches!(said[..], [Ok(false), Err(Error::Aborted(_)), _]), "{said:?}");
            assert_eq!(visible, 1);
        }
        let (said, visible) = written(|shared| {
            vec![batch(shared, 0, 5..10), batch(shared, 0, 10..20), Event::End { epoch: 0 }]
        })
        .await;
        assert!(matches!(said[..], [Ok(false), Ok(false), Ok(true)]), "{said:?}");
        assert_eq!(visible, 2);
    }

    #[tokio::test]
    async fn the_end_of_an_epoch_that_is_over_is_no_end() {
        let over = |shared: &Shared| {
            let events = vec![batch(shared, 0, 0..10), Event::End { epoch: 0 }];
            futures::executor::block_on(shared.next_epoch());
            events
        };
        let (said, visible) = written(over).await;
        assert!(matches!(said[..], [Ok(false), Err(Error::Aborted(_))]), "{said:?}");
        assert_eq!(visible, 0);
        // Whoever asked for it need not wait for more.
        let (said, _) = written(|shared| {
            shared.stop();
            over(shared)
        })
        .await;
        assert!(matches!(said[..], [Ok(false), Ok(true)]), "{said:?}");
    }

    #[test]
    fn a_stream_stops_when_too_many_of_the_last_messages_are_bad() {
        let mut recent = Recent::new(Breaker { window: 100, share: 0.5 });
        recent.note(0, 9);
        assert_eq!(recent.is_too_bad(), None, "nine messages tell nothing");
        recent.note(0, 1);
        assert_eq!(recent.is_too_bad(), Some((10, 10)));
        recent.note(90, 0);
        assert_eq!(recent.is_too_bad(), None);
        recent.note(5, 60);
        assert_eq!(recent.is_too_bad(), None, "90 good ones are still among the last");
        recent.note(0, 60);
        assert_eq!(recent.is_too_bad(), Some((120, 125)));
    }

    #[test]
    fn no_share_of_bad_messages_stops_a_stream_that_is_not_to_stop() {
        let mut recent = Recent::new(Breaker { window: 10, share: 1.0 });
        recent.note(0, 1000);
        assert_eq!(recent.is_too_bad(), None);
    }
}
