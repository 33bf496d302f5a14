//! The last stage of a stream: what is written, and when it becomes visible.
//!
//! One idea: what is written of an epoch becomes visible in that epoch or never. Each batch must begin where the last one
//! of its partitions ended, so that a gap or an overlap, whatever made it, is undone and read again.

use super::recent::Recent;
use crate::aside::{Aside, Notice};
use crate::metrics::StreamMetrics;
use crate::positions::{Batch, Covers, Positions, Split};
use crate::sinks::Sink;
use crate::sources::kafka::{Event, Read, Shared};
use crate::sources::{BadUnit, BadUnits};
use crate::stream::{OnBadMessage, StreamConfig};
use crate::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use operators::monitor;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// What a stream did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that were read and are done.
    pub messages: u64,
    /// Rows that were labelled and are visible.
    pub rows: u64,
    /// Those of them that belong to no topic.
    pub outliers: u64,
    /// Rows that were labelled and that `keep` left out.
    pub dropped: u64,
    /// Messages that became dead letters or were skipped.
    pub bad: u64,
    /// Messages without a payload, passed on.
    pub tombstones: u64,
    /// How many times rows became visible.
    pub commits: u64,
    /// How many times what was written was undone and read again.
    pub aborts: u64,
}

/// What writes and commits.
pub(super) struct Writer<'a> {
    /// Where rows go.
    pub(super) sink: &'a mut dyn Sink,
    /// What the thread that polls knows.
    pub(super) shared: Arc<Shared>,
    /// How to stream.
    pub(super) config: &'a StreamConfig,
    written: Pending,
    /// The epoch of what is written and not committed.
    epoch: u64,
    /// What was done.
    pub(super) totals: Totals,
    /// Bad messages that were skipped.
    pub(super) bad: BadUnits,
    recent: Recent,
    /// What was noticed, and is not visible yet: it would not be noticed again.
    notices: Vec<Notice>,
    /// Whether a first dead letter was told.
    has_told: bool,
    /// What is counted.
    pub(super) metrics: Arc<StreamMetrics>,
}

/// What is written and not committed.
#[derive(Default)]
struct Pending {
    next: Positions,
    since: Option<Instant>,
    messages: u64,
    rows: u64,
    outliers: u64,
    dropped: u64,
    bad: u64,
    tombstones: u64,
    /// When the first message of each batch was polled.
    polled: Vec<Instant>,
}

impl<'a> Writer<'a> {
    /// Nothing is written yet.
    pub(super) fn new(
        sink: &'a mut dyn Sink,
        shared: Arc<Shared>,
        config: &'a StreamConfig,
        metrics: Arc<StreamMetrics>,
    ) -> Self {
        Self {
            sink,
            shared,
            config,
            written: Pending::default(),
            epoch: 0,
            totals: Totals::default(),
            bad: BadUnits::default(),
            recent: Recent::new(config.breaker),
            notices: Vec::new(),
            has_told: false,
            metrics,
        }
    }

    /// Waits for what is to be written next, committing meanwhile when that is due; nothing at the end.
    pub(super) async fn next(&mut self, labelled: &mut mpsc::Receiver<Event>) -> Result<Option<Event>> {
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
    pub(super) async fn take(&mut self, event: Event) -> Result<bool> {
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
        let Read { mut batch, messages, epoch, at, outliers, dropped, held } = read;
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
        written.dropped += dropped;
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
        if let Some((bad, of)) = self.recent.is_too_bad() {
            let last = last.unit();
            let reason = format!(
                "{}; {bad} of the last {of} messages could not be labelled, so the stream stops (stream.breaker)",
                last.reason
            );
            return Err(Error::Bad(BadUnit { reason, ..last }));
        }
        match self.config.on_bad_message {
            OnBadMessage::Fail => return Err(Error::Bad(letters[0].unit())),
            OnBadMessage::Skip => letters.drain(..).for_each(|letter| self.bad.push(letter.unit(), 1)),
            OnBadMessage::DeadLetter => {
                if !std::mem::replace(&mut self.has_told, true) {
                    tracing::warn!("{}; it goes to the dead letters, as all such that follow", letters[0]);
                }
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
        let Pending { next, messages, rows, outliers, dropped, bad, tombstones, polled, .. } =
            std::mem::take(&mut self.written);
        for (split, next) in next.iter() {
            ownership.committed.set(split.clone(), next);
        }
        drop(ownership);
        self.totals.commits += 1;
        self.totals.messages += messages;
        self.totals.rows += rows;
        self.totals.outliers += outliers;
        self.totals.dropped += dropped;
        self.totals.bad += bad;
        self.totals.tombstones += tombstones;
        let metrics = &self.metrics;
        metrics.commits.inc();
        metrics.messages.inc_by(messages);
        metrics.rows.inc_by(rows);
        metrics.outliers.inc_by(outliers);
        metrics.dropped.inc_by(dropped);
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
    pub(super) async fn recover(&mut self) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
        let metrics = Arc::new(StreamMetrics::new());
        let mut writer = Writer::new(&mut sink, Arc::clone(&shared), &config, metrics);
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
        Event::Batch(Read { batch, messages: 1, epoch, at, outliers: 0, dropped: 0, held })
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
}
