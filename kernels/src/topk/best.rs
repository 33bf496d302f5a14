//! The k best of many scores.

use super::STRIP;

/// A number that can be ranked; larger is better.
pub(super) trait Score: Copy + Default + PartialOrd + Send + Sync {
    /// Below every score.
    const LOWEST: Self;
    /// A number that rises with the score.
    fn rank(self) -> u32;
    /// The score of a rank.
    fn of_rank(rank: u32) -> Self;
}

impl Score for f32 {
    const LOWEST: Self = f32::NEG_INFINITY;

    /// As `total_cmp` orders them: the bits of negative numbers fall as they rise.
    #[inline(always)]
    fn rank(self) -> u32 {
        let bits = self.to_bits();
        bits ^ (((bits as i32) >> 31) as u32 | 0x8000_0000)
    }

    #[inline(always)]
    fn of_rank(rank: u32) -> Self {
        f32::from_bits(rank ^ (!((rank as i32) >> 31) as u32 | 0x8000_0000))
    }
}

impl Score for i32 {
    const LOWEST: Self = i32::MIN;

    #[inline(always)]
    fn rank(self) -> u32 {
        self as u32 ^ 0x8000_0000
    }

    #[inline(always)]
    fn of_rank(rank: u32) -> Self {
        (rank ^ 0x8000_0000) as i32
    }
}

/// The k best of the scores offered so far: a buffer of up to 2k that is cut to k when full.
///
/// What is found is held as numbers that sort as it does, best first, ties by row: the rank of the score, inverted,
/// above the row. Of equal scores the smaller row enters where rows are offered in rising order; otherwise the one that
/// is offered before the buffer is cut.
pub(super) struct Best<S> {
    k: usize,
    /// Scores at or below this one cannot enter any more.
    threshold: S,
    found: Vec<u64>,
}

impl<S: Score> Best<S> {
    pub(super) fn new(k: usize) -> Self {
        Self { k, threshold: S::LOWEST, found: Vec::with_capacity(2 * k.max(STRIP)) }
    }

    /// A score that is no larger than this cannot enter any more.
    pub(super) fn threshold(&self) -> S {
        self.threshold
    }

    /// Offers the scores of the points from `first` on; points must come in rising order.
    #[inline(always)]
    pub(super) fn offer(&mut self, scores: &[S], first: usize) {
        for (chunk, scores) in scores.chunks(16).enumerate() {
            // Most chunks hold nothing new: one comparison for all, which vectorises.
            let mut better = 0u32;
            for (i, score) in scores.iter().enumerate() {
                better |= u32::from(*score > self.threshold) << i;
            }
            if self.found.len() < self.k {
                better = (1 << scores.len()) - 1;
            }
            while better != 0 {
                let i = better.trailing_zeros() as usize;
                better &= better - 1;
                self.push(scores[i], (first + chunk * 16 + i) as u32);
            }
        }
    }

    /// Takes a row whose score may be among the best.
    #[inline(always)]
    pub(super) fn push(&mut self, score: S, row: u32) {
        self.found.push(u64::from(!score.rank()) << 32 | u64::from(row));
        if self.found.len() == 2 * self.k.max(STRIP) {
            self.cut();
        }
    }

    /// Keeps the k best and raises the threshold to the last of them.
    fn cut(&mut self) {
        if self.found.len() >= self.k {
            let (_, last, _) = self.found.select_nth_unstable(self.k - 1);
            self.threshold = score(*last);
            self.found.truncate(self.k);
        }
    }

    /// Writes what was found, best first; returns how many, which is k unless fewer were offered.
    pub(super) fn finish(mut self, rows: &mut [u32], scores: &mut [S]) -> usize {
        self.cut();
        self.found.sort_unstable();
        for ((row, place), found) in rows.iter_mut().zip(scores).zip(&self.found) {
            (*place, *row) = (score(*found), *found as u32);
        }
        self.found.len()
    }
}

/// The score of what was found.
fn score<S: Score>(found: u64) -> S {
    S::of_rank(!((found >> 32) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_in_the_order_of_scores_and_lead_back_to_them() {
        let floats = [f32::NEG_INFINITY, -2.5, -1e-40, -0.0, 0.0, 1e-40, 2.5, f32::INFINITY];
        assert!(floats.is_sorted_by_key(|v| v.rank()));
        assert!(floats.iter().all(|v| f32::of_rank(v.rank()).to_bits() == v.to_bits()));
        let integers = [i32::MIN, -7, -1, 0, 1, i32::MAX];
        assert!(integers.is_sorted_by_key(|v| v.rank()));
        assert!(integers.iter().all(|v| i32::of_rank(v.rank()) == *v));
    }
}
