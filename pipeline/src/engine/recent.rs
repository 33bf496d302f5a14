//! Whether so many of the last messages are bad that the fault must lie elsewhere.

use crate::stream::Breaker;
use std::collections::VecDeque;

/// The last messages, as good or bad.
pub(super) struct Recent {
    breaker: Breaker,
    parts: VecDeque<(usize, usize)>,
    good: usize,
    bad: usize,
}

impl Recent {
    pub(super) fn new(breaker: Breaker) -> Self {
        Self { breaker, parts: VecDeque::new(), good: 0, bad: 0 }
    }

    /// Counts messages of a batch.
    pub(super) fn note(&mut self, good: usize, bad: usize) {
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
    pub(super) fn is_too_bad(&self) -> Option<(usize, usize)> {
        let all = self.good + self.bad;
        let is_enough = all * 10 >= self.breaker.window;
        (is_enough && self.bad as f64 > self.breaker.share * all as f64).then_some((self.bad, all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
