//! The thread that polls.

use super::ends::Ends;
use super::group::Group;
use super::messages::partition_of;
use super::{Event, Polled};
use crate::kafka::{explained, is_lasting};
use crate::stream::StreamConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use std::time::{Duration, Instant};

/// The longest wait for a message, so that a stop and a rewind are soon seen.
const TICK: Duration = Duration::from_millis(50);

/// The shortest wait for one more message of a batch that waits for those in flight.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long a full pipeline is waited for before partitions are paused. A pause throws away what the client has fetched
/// ahead, so a short wait is better; a long one would keep rebalances waiting.
const GRACE: Duration = Duration::from_secs(1);

/// How long one that is to read up to the end waits for partitions, before it ends without any.
const NONE: Duration = Duration::from_secs(10);

/// How many batches are in flight, in mode latency, when a batch waits for more messages: one is labelled, and one written.
const AHEAD: usize = 2;

/// How long no message must come before it is asked whether there are any.
const QUIET: Duration = Duration::from_millis(200);

/// How batches are cut.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The brokers, for errors.
    pub(super) place: String,
    most_bytes: usize,
    wait: Duration,
    hurries: bool,
    /// Knows the ends up to which to read; absent where there is none.
    ends: Option<Ends>,
}

impl Setting {
    pub(super) fn new(stream: &StreamConfig, ends: Option<Ends>, place: String) -> Self {
        let (wait, hurries) = (stream.batch_wait(), stream.hurries());
        Self { place, most_bytes: stream.batch_bytes, wait, hurries, ends }
    }
}

/// Polls until the source is closed.
pub(super) fn run(consumer: &BaseConsumer<Group>, setting: &Setting) {
    let group = consumer.context();
    let shared = group.shared();
    loop {
        read(consumer, setting);
        // An end that is asked for is one whatever becomes of what was read.
        let epoch = if shared.is_stopping() { shared.epoch() } else { group.state().epoch };
        group.cut();
        group.send(Polled::Event(Event::End { epoch }));
        // The pipeline is finishing, and the group must not take us for dead meanwhile.
        set_paused(consumer, setting, true);
        while !shared.is_closed() && shared.epoch() == epoch {
            let polled = consumer.poll(TICK);
            take(group, setting, polled);
        }
        if shared.is_closed() {
            return;
        }
        // It could not finish, and what was undone is read again.
    }
}

/// Reads until the end, or a stop.
fn read(consumer: &BaseConsumer<Group>, setting: &Setting) {
    let group = consumer.context();
    let shared = group.shared();
    let mut full_since: Option<Instant> = None;
    let (mut quiet_since, mut none_since): (Option<Instant>, Option<Instant>) = (None, None);
    while !shared.is_stopping() {
        shared.pulse().polled = Instant::now();
        if group.state().epoch != shared.epoch() && !group.rewind(consumer) {
            // What comes is of the old place.
            if let Some(Err(error)) = consumer.poll(TICK) {
                take(group, setting, Some(Err(error)));
            }
            continue;
        }
        if !shared.flight().has_room() {
            let since = *full_since.get_or_insert_with(Instant::now);
            if since.elapsed() < GRACE {
                shared.flight().wait_for_room(TICK);
                continue;
            }
            set_paused(consumer, setting, true);
            let polled = consumer.poll(TICK);
            take(group, setting, polled);
            continue;
        }
        full_since = None;
        set_paused(consumer, setting, false);
        let (gathered, age) = {
            let state = group.state();
            (state.len(), state.age())
        };
        let is_idle = setting.hurries && shared.flight().load().batches == 0;
        let patience = match age {
            None => TICK,
            // Nothing is under way that more messages could be waited for.
            Some(_) if is_idle => Duration::ZERO,
            Some(age) => setting.wait.saturating_sub(age).clamp(LOOK_AGAIN, TICK),
        };
        let polled = consumer.poll(patience);
        let is_none = polled.is_none();
        take(group, setting, polled);
        // One that is cut sooner waits behind these all the same, and is smaller.
        let is_early = setting.hurries && shared.flight().load().batches >= AHEAD;
        let is_due = {
            let state = group.state();
            state.len() >= shared.messages()
                || state.bytes() >= setting.most_bytes
                || state.age().is_some_and(|age| age >= setting.wait) && !is_early
        };
        if is_due || (gathered > 0 && is_none && is_idle) {
            group.cut();
        }
        if !is_none {
            quiet_since = None;
        }
        let is_looked_for = (is_due || is_none) && group.state().is_assigned;
        let Some(ends) = setting.ends.as_ref().filter(|_| is_looked_for) else { continue };
        let open = group.state().first_open();
        let Some((split, next, end)) = open else {
            // A member that has just joined is given nothing at first, while others commit what they give up.
            if !group.state().ours.is_empty() || none_since.get_or_insert_with(Instant::now).elapsed() > NONE
            {
                return;
            }
            continue;
        };
        none_since = None;
        if !is_none {
            continue;
        }
        // A poll that gave no message has not always waited for one.
        if quiet_since.get_or_insert_with(Instant::now).elapsed() < QUIET {
            continue;
        }
        match partition_of(&split).and_then(|place| ends.is_empty(place, next, end)) {
            Ok(true) => group.state().end(split),
            Ok(false) => quiet_since = None,
            Err(error) => group.send(Polled::Failed(error)),
        }
    }
}

fn take(
    group: &Group,
    setting: &Setting,
    polled: Option<KafkaResult<rdkafka::message::BorrowedMessage<'_>>>,
) {
    match polled {
        None | Some(Err(KafkaError::PartitionEOF(_))) => {}
        Some(Ok(message)) => {
            let pushed = group.state().push(&message);
            if let Err(error) = pushed {
                group.send(Polled::Failed(error));
            }
        }
        Some(Err(error)) => {
            // The client tries again by itself what may pass.
            if is_lasting(&error) {
                group.send(Polled::Failed(explained(&setting.place, &error)));
            } else {
                tracing::debug!("{}: {error}", setting.place);
            }
        }
    }
}

/// Pauses or resumes all partitions that are ours.
fn set_paused(consumer: &BaseConsumer<Group>, setting: &Setting, paused: bool) {
    let group = consumer.context();
    if group.state().is_paused == paused {
        return;
    }
    let changed =
        consumer.assignment().and_then(
            |ours: TopicPartitionList| {
                if paused { consumer.pause(&ours) } else { consumer.resume(&ours) }
            },
        );
    match changed {
        Ok(()) => group.state().is_paused = paused,
        Err(error) => group.send(Polled::Failed(explained(&setting.place, &error))),
    }
}
