//! What the thread that polls and the pipeline know of each other.

use crate::aside::Notice;
use crate::positions::{Positions, Split};
use crate::stream::StreamConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;

/// Batches that may be in flight: one that is polled, decoded, labelled, written, and one that waits at each step.
const MOST_BATCHES: usize = 6;

/// What both know.
pub(crate) struct Shared {
    ownership: AsyncMutex<Ownership>,
    /// The epoch of `ownership`, to be looked at without waiting.
    epoch: AtomicU64,
    flight: Arc<Flight>,
    /// How many messages a batch should have.
    messages: AtomicUsize,
    stopping: AtomicBool,
    closed: AtomicBool,
    partitions: Mutex<BTreeMap<Split, Partition>>,
    pulse: Mutex<Pulse>,
    trouble: Mutex<Option<String>>,
    longest_quiet: Duration,
    member: Mutex<Option<String>>,
    notices: Mutex<Vec<Notice>>,
}

/// The signs of life of a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulse {
    /// When it polled last.
    pub(crate) polled: Instant,
    /// Whether a broker is connected.
    pub(crate) is_connected: bool,
    /// Whether the group has said which partitions are ours, be it none.
    pub(crate) is_assigned: bool,
}

/// Who may commit. Held during a commit, so that an epoch never ends in the middle of one.
#[derive(Default)]
pub(crate) struct Ownership {
    /// What is in flight may be committed if it is of this epoch.
    pub(crate) epoch: u64,
    /// What was committed of the partitions that are ours.
    pub(crate) committed: Positions,
    /// The partitions that are ours.
    pub(crate) ours: BTreeSet<Split>,
}

/// What the client tells of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    /// One past its last message that can be read.
    pub(crate) end: i64,
    /// Its first message.
    pub(crate) low: i64,
}

impl Shared {
    /// `longest_quiet` is how long the thread may not poll before the group takes it for dead.
    pub(crate) fn new(stream: &StreamConfig, longest_quiet: Duration) -> Self {
        Self {
            longest_quiet,
            member: Mutex::default(),
            notices: Mutex::default(),
            ownership: AsyncMutex::new(Ownership::default()),
            epoch: AtomicU64::new(0),
            flight: Arc::new(Flight::new(stream.in_flight_bytes)),
            messages: AtomicUsize::new(stream.batch_rows),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            partitions: Mutex::default(),
            pulse: Mutex::new(Pulse { polled: Instant::now(), is_connected: false, is_assigned: false }),
            trouble: Mutex::default(),
        }
    }

    /// The signs of life of the member, to be read or given.
    pub(crate) fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member's id when the group last told it of its partitions.
    pub(crate) fn member(&self) -> MutexGuard<'_, Option<String>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noticed of the rows, and is not written yet.
    pub(crate) fn notices(&self) -> MutexGuard<'_, Vec<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the thread may not poll before it is taken for stuck.
    pub(crate) fn longest_quiet(&self) -> Duration {
        self.longest_quiet
    }

    /// What keeps the pipeline from committing, if something does.
    pub(crate) fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch there is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Takes the right to commit; the epoch stays while it is held.
    pub(crate) async fn ownership(&self) -> tokio::sync::MutexGuard<'_, Ownership> {
        self.ownership.lock().await
    }

    /// The same on a thread that may block.
    pub(crate) fn blocking_ownership(&self) -> tokio::sync::MutexGuard<'_, Ownership> {
        self.ownership.blocking_lock()
    }

    /// What was committed of our partitions; nothing while a commit is under way.
    pub(crate) fn try_committed(&self) -> Option<Positions> {
        Some(self.ownership.try_lock().ok()?.committed.clone())
    }

    /// Ends the epoch, once no commit is under way: nothing that is in flight will be committed.
    pub(crate) async fn next_epoch(&self) {
        let mut ownership = self.ownership.lock().await;
        self.end(&mut ownership);
    }

    /// The same on a thread that may block.
    pub(crate) fn blocking_next_epoch(&self) {
        let mut ownership = self.ownership.blocking_lock();
        self.end(&mut ownership);
    }

    fn end(&self, ownership: &mut Ownership) {
        ownership.epoch += 1;
        self.epoch.store(ownership.epoch, Ordering::SeqCst);
    }

    /// The bytes that are in flight.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// How many messages a batch should have, by what the last ones were and how long they took.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Says how many messages a batch should have.
    pub(crate) fn set_messages(&self, messages: usize) {
        self.messages.store(messages, Ordering::Relaxed);
    }

    /// Asks the thread to poll no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Asks the thread to leave the group and end.
    pub(crate) fn close(&self) {
        self.stop();
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What the client told last of each partition that is ours.
    pub(crate) fn partitions(&self) -> MutexGuard<'_, BTreeMap<Split, Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of batches that are not committed.
pub(crate) struct Flight {
    limit_bytes: usize,
    now: Mutex<Load>,
    room: Condvar,
}

/// How much is in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Batches.
    pub(crate) batches: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

impl Flight {
    fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, now: Mutex::default(), room: Condvar::new() }
    }

    /// How much is in flight now.
    pub(crate) fn load(&self) -> Load {
        *self.lock()
    }

    /// Whether one more batch may be gathered.
    pub(crate) fn has_room(&self) -> bool {
        self.fits(self.load())
    }

    fn fits(&self, load: Load) -> bool {
        load.batches < MOST_BATCHES && load.bytes < self.limit_bytes
    }

    /// Waits until there is room, but not longer than `patience`.
    pub(crate) fn wait_for_room(&self, patience: Duration) {
        let full = |load: &mut Load| !self.fits(*load);
        // Whether there is room now is asked again by the caller.
        drop(self.room.wait_timeout_while(self.lock(), patience, full));
    }

    /// Takes the memory of a batch, until what is returned is dropped.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let mut load = self.lock();
        load.batches += 1;
        load.bytes += bytes;
        drop(load);
        Held { flight: Arc::clone(self), bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of one batch.
pub(crate) struct Held {
    flight: Arc<Flight>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut load = self.flight.lock();
        load.batches -= 1;
        load.bytes -= self.bytes;
        drop(load);
        self.flight.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_until_a_batch_is_dropped() {
        let flight = Arc::new(Flight::new(100));
        let first = flight.hold(60);
        assert!(flight.has_room());
        let second = flight.hold(60);
        assert_eq!(flight.load(), Load { batches: 2, bytes: 120 });
        assert!(!flight.has_room());
        flight.wait_for_room(Duration::from_millis(1));
        drop(first);
        assert!(flight.has_room());
        drop(second);
        assert_eq!(flight.load(), Load::default());
    }

    #[test]
    fn batches_are_bounded_however_small_they_are() {
        let flight = Arc::new(Flight::new(1 << 20));
        let held: Vec<Held> = (0..MOST_BATCHES).map(|_| flight.hold(1)).collect();
        assert!(!flight.has_room());
        drop(held);
        assert!(flight.has_room());
    }
}
