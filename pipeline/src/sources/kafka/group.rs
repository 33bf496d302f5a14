//! What happens to a member of a group: partitions come and go.
//!
//! All of it runs on the thread that polls, within `poll`.

use super::membership::member_id;
use super::messages::{Messages, partition_of, split};
use super::shared::{Partition, Shared};
use super::{Event, KafkaConfig, Keeper, Polled, Start};
use crate::kafka::{ANSWER_TIMEOUT, explained, patiently, tell, tell_error};
use crate::positions::{Covers, Positions, Split, cover};
use crate::report::thousands;
use crate::{Error, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Offset, Statistics, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// How often one that waits for the pipeline looks whether it still should.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The longest wait for where partitions begin and end, which is good to know and no more.
const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of a member.
pub struct Group {
    shared: Arc<Shared>,
    sender: UnboundedSender<Polled>,
    state: Mutex<State>,
    place: String,
    start: Start,
    start_millis: Option<i64>,
    /// Whether all is read up to where it ends now, and no more.
    until_end: bool,
    /// How long partitions that are taken away wait for what is in flight.
    patience: Duration,
    keeper: Keeper,
}

/// What a member reads.
pub(super) struct State {
    gathered: Messages,
    covers: Covers,
    since: Option<Instant>,
    /// The next message to poll of each partition that is ours; absent until one is known.
    next: Positions,
    /// Where each was begun.
    began: Positions,
    /// The partitions that are ours, each with where it ended when it became so; known for certain where that is to be
    /// the end.
    pub(super) ours: BTreeMap<Split, Option<i64>>,
    /// Whether the group has said which partitions are ours, be it none, and has not taken that back.
    pub(super) is_assigned: bool,
    /// Whether partitions are paused.
    pub(super) is_paused: bool,
    /// The epoch of what is gathered.
    pub(super) epoch: u64,
    /// Partitions that are ours, in which no message lies between `next` and their end.
    ended: BTreeSet<Split>,
}

impl Group {
    pub(super) fn new(
        config: &KafkaConfig,
        keeper: Keeper,
        until_end: bool,
        shared: Arc<Shared>,
        sender: UnboundedSender<Polled>,
    ) -> Result<Self> {
        let state = State {
            gathered: Messages::new(),
            covers: Covers::new(),
            since: None,
            next: Positions::default(),
            began: Positions::default(),
            ours: BTreeMap::new(),
            is_assigned: false,
            is_paused: false,
            epoch: 0,
            ended: BTreeSet::new(),
        };
        Ok(Self {
            shared,
            sender,
            state: Mutex::new(state),
            place: config.connection.place(),
            start: config.start.clone(),
            start_millis: config.start.millis()?,
            until_end,
            patience: Duration::from_millis(u64::from(config.max_poll_interval_ms) / 3),
            keeper,
        })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what was gathered.
    pub(super) fn cut(&self) {
        let mut state = self.state();
        let Some(at) = state.since.take() else { return };
        let (covers, bytes) = (std::mem::take(&mut state.covers), state.gathered.bytes());
        let polled = match state.gathered.take() {
            Ok(messages) => {
                let held = self.shared.flight().hold(bytes);
                Polled::Messages { messages, covers, epoch: state.epoch, at, held }
            }
            Err(error) => Polled::Failed(error),
        };
        self.send(polled);
    }

    /// Sends to the pipeline; one that is gone needs nothing any more.
    pub(super) fn send(&self, polled: Polled) {
        drop(self.sender.send(polled));
    }

    /// Asks the pipeline where to begin.
    fn ask(&self, splits: &[Split]) -> Positions {
        loop {
            let (reply, answer) = sync_channel(1);
            let event = Event::Assigned { splits: splits.to_vec(), reply };
            if self.sender.send(Polled::Event(event)).is_err() {
                return Positions::default();
            }
            loop {
                match answer.recv_timeout(LOOK_EVERY) {
                    Ok(positions) => return positions,
                    Err(RecvTimeoutError::Timeout) if self.shared.is_stopping() => {
                        return Positions::default();
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    // The pipeline begins anew and has lost the question.
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
    }

    /// Waits until what is in flight is committed, or can be no more; false if it takes too long.
    fn drain(&self) -> bool {
        self.cut();
        let (done, answer) = sync_channel(1);
        if self.sender.send(Polled::Event(Event::Revoked { done })).is_err() {
            return true;
        }
        let started = Instant::now();
        while started.elapsed() < self.patience && !self.shared.is_closed() {
            match answer.recv_timeout(LOOK_EVERY) {
                Ok(()) => return true,
                // The pipeline begins anew: what was in flight is gone.
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        false
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let splits = splits_of(list);
        // The pipeline has ended, and who drops the consumer may be no thread that can wait for it.
        if self.shared.is_closed() {
            return self.assign(consumer, list);
        }
        self.state().is_assigned = true;
        self.shared.pulse().is_assigned = true;
        if splits.is_empty() {
            return self.assign(consumer, list);
        }
        match self.begin(consumer, list, &splits) {
            // Nothing of them will be read.
            Err(_) if self.shared.is_stopping() => self.assign(consumer, list),
            begun => begun,
        }
    }

    /// Begins to read partitions where the sink, the group or the job says.
    fn begin(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
        splits: &[Split],
    ) -> Result<()> {
        let positions = self.ask(splits);
        let committed = self.patiently(|| committed(consumer, list))?;
        let watermarks = if self.until_end {
            let watermarks = |place| self.patiently(|| listed(consumer, list, place, ANSWER_TIMEOUT));
            Some((watermarks(Offset::Beginning)?, watermarks(Offset::End)?))
        } else {
            // Brokers that lead nothing yet do not know: then it is not known.
            let watermarks = |place| listed(consumer, list, place, WATERMARKS_TIMEOUT).ok();
            watermarks(Offset::Beginning).zip(watermarks(Offset::End))
        };
        let (mut begun, mut fresh) = (TopicPartitionList::new(), TopicPartitionList::new());
        for split in splits {
            let (topic, partition) = partition_of(split)?;
            let of_group = offset_of(&committed, topic, partition);
            let stored = match (self.keeper, positions.next(split)) {
                (Keeper::Sink, Some(next)) => i64::try_from(next).ok(),
                // A new table gets all there is, whatever another one has got before.
                (Keeper::Sink, None) if self.start == Start::Earliest => None,
                (Keeper::Sink | Keeper::Group, _) => of_group,
            };
            let watermarks = watermarks.as_ref().and_then(|(low, end)| {
                Some((offset_of(low, topic, partition)?, offset_of(end, topic, partition)?))
            });
            if self.until_end && watermarks.is_none() {
                return Err(Error::place(split.as_str(), "its end is not known"));
            }
            self.state().ours.insert(split.clone(), watermarks.map(|(_, end)| end));
            let mut ownership = self.shared.blocking_ownership();
            ownership.ours.insert(split.clone());
            let Some(stored) = stored else {
                fresh.add_partition(topic, partition);
                continue;
            };
            ownership.committed.set(split.clone(), stored.unsigned_abs());
            drop(ownership);
            if let Some(watermarks) = watermarks {
                check_kept(split, stored, watermarks)?;
            }
            let mut state = self.state();
            state.next.set(split.clone(), stored.unsigned_abs());
            state.began.set(split.clone(), stored.unsigned_abs());
            drop(state);
            let add = begun.add_partition_offset(topic, partition, Offset::Offset(stored));
            add.map_err(|error| explained(&self.place, &error))?;
        }
        self.begin_anew(consumer, &fresh, &mut begun)?;
        self.assign(consumer, &begun)?;
        // A partition that was paused when it was taken away still is.
        let is_paused = self.state().is_paused;
        let set = if is_paused { consumer.pause(&begun) } else { consumer.resume(&begun) };
        set.map_err(|error| explained(&self.place, &error))?;
        tracing::info!("reads {}", named(splits));
        Ok(())
    }

    /// Adds to `begun` where to begin in partitions of which nothing is committed.
    ///
    /// A place that depends on when it is asked for is committed at once: a member that dies before it has read
    /// anything would else leave a gap behind.
    fn begin_anew(
        &self,
        consumer: &BaseConsumer<Self>,
        fresh: &TopicPartitionList,
        begun: &mut TopicPartitionList,
    ) -> Result<()> {
        if fresh.count() == 0 {
            return Ok(());
        }
        let list = |place| self.patiently(|| listed(consumer, fresh, place, ANSWER_TIMEOUT));
        let (ends, found) = match (&self.start, self.start_millis) {
            (Start::Earliest, _) => {
                for found in fresh.elements() {
                    let add = begun.add_partition_offset(found.topic(), found.partition(), Offset::Beginning);
                    add.map_err(|error| explained(&self.place, &error))?;
                }
                return Ok(());
            }
            (Start::Latest, _) => (list(Offset::End)?, None),
            // Where no message is as new, the end as it was before that was asked.
            (Start::Timestamp(_), Some(millis)) => (list(Offset::End)?, Some(list(Offset::Offset(millis))?)),
            (Start::Stored | Start::Timestamp(_), _) => {
                let reason =
                    "nothing is committed there, and start is `stored`: say earliest, latest or timestamp";
                return Err(Error::place(named(&splits_of(fresh)), reason));
            }
        };
        let mut starts = TopicPartitionList::new();
        for partition in fresh.elements() {
            let (topic, partition) = (partition.topic(), partition.partition());
            let found = found.as_ref().and_then(|found| offset_of(found, topic, partition));
            let unknown = || Error::place(split(topic, partition).as_str(), "its end is not known");
            let start = found.or(offset_of(&ends, topic, partition)).ok_or_else(unknown)?;
            for list in [&mut starts, &mut *begun] {
                let add = list.add_partition_offset(topic, partition, Offset::Offset(start));
                add.map_err(|error| explained(&self.place, &error))?;
            }
            let mut state = self.state();
            state.next.set(split(topic, partition), start.unsigned_abs());
            state.began.set(split(topic, partition), start.unsigned_abs());
        }
        self.patiently(|| consumer.commit(&starts, CommitMode::Sync))
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let assigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
            _ => consumer.assign(list),
        };
        assigned.map_err(|error| explained(&self.place, &error))
    }

    /// Asks while a rebalance can wait: brokers may be away.
    fn patiently<T>(&self, ask: impl FnMut() -> std::result::Result<T, KafkaError>) -> Result<T> {
        patiently(&self.place, |waited| waited < self.patience && !self.shared.is_stopping(), ask)
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let splits = splits_of(list);
        // The pipeline has ended, and who drops the consumer may be no thread that can wait for it.
        if self.shared.is_closed() {
            return self.unassign(consumer, list);
        }
        if consumer.assignment_lost() {
            tracing::warn!("the group has given {} to others; what was in flight is dropped", named(&splits));
            self.shared.blocking_next_epoch();
            // It joins again, and will be told.
            self.state().is_assigned = false;
            self.shared.pulse().is_assigned = false;
        } else if !splits.is_empty() && !self.drain() && !self.shared.is_closed() {
            let patience = self.patience.as_secs();
            tracing::warn!("{patience} s were not enough to commit what was in flight; it is dropped");
            self.shared.blocking_next_epoch();
        }
        let mut state = self.state();
        let mut ownership = self.shared.blocking_ownership();
        let mut partitions = self.shared.partitions();
        for split in &splits {
            state.ours.remove(split);
            state.ended.remove(split);
            state.next.forget(split);
            state.began.forget(split);
            ownership.committed.forget(split);
            ownership.ours.remove(split);
            partitions.remove(split);
        }
        drop((state, ownership, partitions));
        self.unassign(consumer, list)?;
        if !splits.is_empty() {
            tracing::info!("no more reads {}", named(&splits));
        }
        Ok(())
    }

    fn unassign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        };
        unassigned.map_err(|error| explained(&self.place, &error))
    }

    /// Goes back to what was committed, dropping what is gathered; false if the client cannot yet.
    pub(super) fn rewind(&self, consumer: &BaseConsumer<Self>) -> bool {
        let epoch = self.shared.epoch();
        let mut state = self.state();
        let mut ownership = self.shared.blocking_ownership();
        let mut ours = TopicPartitionList::new();
        for split in state.ours.keys() {
            let Ok((topic, partition)) = partition_of(split) else { continue };
            ours.add_partition(topic, partition);
        }
        // Others may have gone on meanwhile: a member that joined again under its name may not have been told.
        if self.keeper == Keeper::Group && ours.count() > 0 {
            let Ok(committed) = committed(consumer, &ours) else { return false };
            for found in committed.elements() {
                if let Offset::Offset(offset) = found.offset() {
                    ownership.committed.set(split(found.topic(), found.partition()), offset.unsigned_abs());
                }
            }
        }
        *self.shared.member() = member_id(consumer);
        let mut back = TopicPartitionList::new();
        for split in state.ours.keys() {
            let target = ownership.committed.next(split).or(state.began.next(split));
            let Ok((topic, partition)) = partition_of(split) else { continue };
            // An offset is an i64 there. Where nothing is known, nothing was read.
            let target = target.map_or(Offset::Beginning, |target| Offset::Offset(target as i64));
            drop(back.add_partition_offset(topic, partition, target));
        }
        drop(ownership);
        if back.count() > 0 {
            let sought = consumer.seek_partitions(back.clone(), ANSWER_TIMEOUT);
            let is_done = sought.is_ok_and(|list| list.elements().iter().all(|found| found.error().is_ok()));
            if !is_done {
                return false;
            }
        }
        for found in back.elements() {
            if let Offset::Offset(offset) = found.offset() {
                state.next.set(split(found.topic(), found.partition()), offset.unsigned_abs());
            }
        }
        // What was gathered lies behind the place that was gone back to.
        drop(state.gathered.take());
        state.covers.clear();
        state.since = None;
        state.epoch = epoch;
        state.ended.clear();
        true
    }
}

impl State {
    /// Adds a message.
    pub(super) fn push(&mut self, message: &impl Message) -> Result<()> {
        let split = split(message.topic(), message.partition());
        // One that was polled before its partition was taken away.
        if !self.ours.contains_key(&split) {
            return Ok(());
        }
        let offset = message.offset().unsigned_abs();
        let start = self.next.next(&split).unwrap_or(offset);
        if offset < start {
            let reason = format!("its message {offset} came where {start} was to come: was it made anew?");
            return Err(Error::place(split.as_str(), reason));
        }
        if self.began.next(&split).is_none() {
            self.began.set(split.clone(), offset);
        }
        cover(&mut self.covers, &split, start..offset + 1);
        self.next.set(split, offset + 1);
        self.gathered.push(message);
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Messages that are gathered.
    pub(super) fn len(&self) -> usize {
        self.gathered.len()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.gathered.bytes()
    }

    /// How long the first of them has waited.
    pub(super) fn age(&self) -> Option<Duration> {
        Some(self.since?.elapsed())
    }

    /// The first of our partitions that was not read up to where it ended when it became ours, with the next message to
    /// read and that end.
    pub(super) fn first_open(&self) -> Option<(Split, Option<u64>, i64)> {
        self.ours.iter().find_map(|(split, end)| {
            let (next, end) = (self.next.next(split), (*end)?);
            let is_open =
                end > 0 && next.is_none_or(|next| (next as i64) < end) && !self.ended.contains(split);
            is_open.then(|| (split.clone(), next, end))
        })
    }

    /// Says that no message lies between the next to read of `split` and its end.
    pub(super) fn end(&mut self, split: Split) {
        self.ended.insert(split);
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.shared.pulse().is_connected = statistics.brokers.values().any(|broker| broker.state == "UP");
        // Events are handled one at a time, and none with the state locked.
        let ours: Vec<Split> = self.state().ours.keys().cloned().collect();
        let mut partitions = self.shared.partitions();
        for split in ours {
            let Ok((topic, partition)) = partition_of(&split) else { continue };
            let Some(found) = statistics.topics.get(topic).and_then(|topic| topic.partitions.get(&partition))
            else {
                continue;
            };
            let end = if found.ls_offset >= 0 { found.ls_offset } else { found.hi_offset };
            // Negative until the client has asked.
            let Some(end) = Some(end).filter(|end| *end >= 0) else { continue };
            partitions.insert(split, Partition { end, low: found.lo_offset.max(0) });
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        *self.shared.member() = member_id(consumer);
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        };
        if let Err(error) = done {
            self.send(Polled::Failed(error));
        }
    }
}

/// What lies at `place` of each partition: `Offset::Beginning`, `Offset::End`, or the first offset whose message is not
/// older than `Offset::Offset`, in milliseconds of the Unix epoch. Librdkafka asks for all of them by time, in which the
/// protocol (ListOffsets) has the two others as -2 and -1.
fn listed(
    consumer: &BaseConsumer<Group>,
    list: &TopicPartitionList,
    place: Offset,
    timeout: Duration,
) -> std::result::Result<TopicPartitionList, KafkaError> {
    let mut times = list.clone();
    times.set_all_offsets(place)?;
    let found = consumer.offsets_for_times(times, timeout)?;
    for partition in found.elements() {
        partition.error()?;
    }
    Ok(found)
}

/// What the group has committed of each partition.
fn committed(
    consumer: &BaseConsumer<Group>,
    list: &TopicPartitionList,
) -> std::result::Result<TopicPartitionList, KafkaError> {
    let found = consumer.committed_offsets(list.clone(), ANSWER_TIMEOUT)?;
    // One that is not known is not one that is absent.
    for partition in found.elements() {
        partition.error()?;
    }
    Ok(found)
}

/// The offset that `list` has for a partition, if it has one.
fn offset_of(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i64> {
    match list.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Warns where messages are gone that were never read, and fails where more was read than there is.
fn check_kept(split: &Split, stored: i64, (low, end): (i64, i64)) -> Result<()> {
    if stored < low {
        let lost = thousands((low - stored).unsigned_abs());
        tracing::warn!("{split}: {lost} offsets are gone that were never read: the topic keeps too little");
    }
    if stored > end {
        let reason = format!("offset {stored} was done, but it ends at {end}: was it made anew?");
        return Err(Error::place(split.as_str(), reason));
    }
    Ok(())
}

fn splits_of(list: &TopicPartitionList) -> Vec<Split> {
    list.elements().iter().map(|found| split(found.topic(), found.partition())).collect()
}

/// "papers:0, papers:1", the first few of many.
fn named(splits: &[Split]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<&str> = splits.iter().take(SHOWN).map(Split::as_str).collect();
    let more = format!("and {} more", splits.len().saturating_sub(SHOWN));
    if splits.len() > SHOWN {
        shown.push(&more);
    }
    shown.join(", ")
}
