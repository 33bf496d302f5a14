//! What watches calls of the client that may never come back.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// After how long a call that should take ten seconds is lost.
const LOST_CALL: Duration = Duration::from_secs(45);

/// The exit code then: an outside service has failed.
const LOST_CALL_EXIT: i32 = 4;

/// Ends the process where a call of the client does not come back.
///
/// librdkafka 2.12 waits without an end for offsets to be stored where the group's coordinator is lost at the wrong moment
/// (its issues 5456 and 5511), and nothing can take that call back. What was not committed is aborted by the broker, and
/// the next process reads it again.
pub(super) struct Watchdog {
    is_over: Arc<(Mutex<bool>, Condvar)>,
}

impl Watchdog {
    /// Watches until what is returned is dropped.
    pub(super) fn start(place: &str) -> Self {
        let is_over = Arc::new((Mutex::new(false), Condvar::new()));
        let (watched, place) = (Arc::clone(&is_over), place.to_string());
        let spawned = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let (lock, changed) = &*watched;
            let is_over = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = changed.wait_timeout_while(is_over, LOST_CALL, |is_over| !*is_over);
            if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
                tracing::error!(
                    "{place}: the client has lost a call that stores offsets; start the stream again"
                );
                std::process::exit(LOST_CALL_EXIT);
            }
        });
        // Without a thread there is no watching.
        drop(spawned);
        Self { is_over }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let (lock, changed) = &*self.is_over;
        *lock.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }
}
