//! Which events of a chunk are due in the next epochs.

use super::{
    lanes::LANES,
    schedule::{Events, LISTS},
};
use crate::{
    Isa,
    simd::{dispatch, prefetch},
};

/// Epochs whose events are listed at a time. Few of all events are due in one epoch, and looking for these takes
/// memory's time: so all are looked through once for several epochs.
pub(super) const PLANNED: usize = 8;

/// Events that are looked at together.
const WORD: usize = 32;

/// A chunk's events in each of the epochs that come next.
#[derive(Clone, Default)]
pub(super) struct Plan {
    /// The epochs, in order.
    pub(super) epochs: [Due; PLANNED],
}

/// A chunk's events that are due in an epoch.
#[derive(Clone, Default)]
pub(super) struct Due {
    /// Where each list ends, and how far it goes without what fills up its last batch. The next begins where it ends.
    ends: [(usize, usize); LISTS],
    /// The vertex that moves, counted from the chunk's first, and the other end; more of them may lie behind the last
    /// list.
    rows: Vec<u8>,
    others: Vec<u32>,
}

impl Plan {
    /// Lists the events of a chunk that are due in the epochs from `epoch` on.
    pub(super) fn make(&mut self, isa: Isa, lists: [Events<'_>; LISTS], epoch: u32) {
        let mut counts = [0; PLANNED];
        for (list, events) in lists.into_iter().enumerate() {
            let (epochs, counts) = (&mut self.epochs, &mut counts);
            dispatch!(isa, add_list(
                isa: Isa,
                events: Events<'_>,
                epoch: u32,
                epochs: &mut [Due; PLANNED],
                counts: &mut [usize; PLANNED],
            ));
            for (due, count) in epochs.iter_mut().zip(counts) {
                due.make_room(*count);
                let end = count.next_multiple_of(LANES);
                due.rows[*count..end].fill(0);
                due.others[*count..end].fill(0);
                due.ends[list] = (end, *count);
                *count = end;
            }
        }
    }
}

/// Lists those of `events` that are due in each of the epochs from `epoch` on.
#[inline(always)]
fn add_list(
    isa: Isa,
    events: Events<'_>,
    epoch: u32,
    epochs: &mut [Due; PLANNED],
    counts: &mut [usize; PLANNED],
) {
    let words = events.rows.chunks(WORD).zip(events.others.chunks(WORD));
    for ((rows, others), paces) in words.zip(events.paces.chunks(WORD)) {
        let mut word = Word::default();
        word.rows[..rows.len()].copy_from_slice(rows);
        word.others[..rows.len()].copy_from_slice(others);
        // Events that there are not have a pace of 0, and so are never due.
        word.steps[..rows.len()].copy_from_slice(paces);
        for (counter, pace) in word.counters.iter_mut().zip(paces) {
            *counter = pace.wrapping_mul(epoch.saturating_sub(1));
        }
        for (ahead, (due, count)) in epochs.iter_mut().zip(&mut *counts).enumerate() {
            due.make_room(*count);
            if epoch == 0 && ahead == 0 {
                continue; // no counter has moved
            }
            let (Some(rows), Some(others)) =
                (due.rows[*count..].first_chunk_mut(), due.others[*count..].first_chunk_mut())
            else {
                unreachable!("there is room for a word")
            };
            #[cfg(target_arch = "x86_64")]
            if isa >= Isa::Avx512 {
                // SAFETY: `Isa` saw AVX-512.
                *count += unsafe { word.next_by_masks(rows, others) };
                continue;
            }
            let _ = isa;
            *count += word.next(rows, others);
        }
    }
}

/// Events, and the counters that [`super::schedule::is_due`] describes: where they stand, and how far an epoch moves
/// them.
#[derive(Default)]
struct Word {
    rows: [u8; WORD],
    others: [u32; WORD],
    counters: [u32; WORD],
    steps: [u32; WORD],
}

impl Word {
    /// Moves the counters by an epoch and writes the events that are due then; returns how many.
    #[inline(always)]
    fn next(&mut self, rows: &mut [u8; WORD], others: &mut [u32; WORD]) -> usize {
        let mut bits = 0u32;
        for (l, (counter, step)) in self.counters.iter_mut().zip(&self.steps).enumerate() {
            let moved = counter.wrapping_add(*step);
            bits |= ((moved ^ *counter) >> 31) << l;
            *counter = moved;
        }
        let found = bits.count_ones() as usize;
        for (row, other) in rows.iter_mut().zip(others).take(found) {
            let l = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            (*row, *other) = (self.rows[l], self.others[l]);
        }
        found
    }

    /// The same by masks and compressions.
    ///
    /// # Safety
    /// The processor must have AVX-512 F and DQ.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn next_by_masks(&mut self, rows: &mut [u8; WORD], others: &mut [u32; WORD]) -> usize {
        use std::arch::x86_64::*;
        let mut found = 0;
        for start in (0..WORD).step_by(LANES) {
            // SAFETY: sixteen of the word's events from `start` on; and as many places from `found` ≤ `start` on.
            unsafe {
                let counters = _mm512_loadu_si512(self.counters[start..].as_ptr().cast());
                let steps = _mm512_loadu_si512(self.steps[start..].as_ptr().cast());
                let moved = _mm512_add_epi32(counters, steps);
                let due = _mm512_movepi32_mask(_mm512_xor_si512(moved, counters));
                _mm512_storeu_si512(self.counters[start..].as_mut_ptr().cast(), moved);
                let all = _mm512_loadu_si512(self.others[start..].as_ptr().cast());
                let kept = _mm512_maskz_compress_epi32(due, all);
                _mm512_storeu_si512(others[found..].as_mut_ptr().cast(), kept);
                let all = _mm512_cvtepu8_epi32(_mm_loadu_si128(self.rows[start..].as_ptr().cast()));
                let kept = _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(due, all));
                _mm_storeu_si128(rows[found..].as_mut_ptr().cast(), kept);
                found += due.count_ones() as usize;
            }
        }
        found
    }
}

impl Due {
    /// Makes room for a word of events behind `count`.
    #[inline(always)]
    fn make_room(&mut self, count: usize) {
        if self.rows.len() < count + WORD {
            let room = (count + WORD).max(count + count / 8);
            self.rows.resize(room, 0);
            self.others.resize(room, 0);
        }
    }

    /// Asks for the two lists of a slot, which stand side by side.
    pub(super) fn prefetch(&self, slot: usize) {
        let start = if slot == 0 { 0 } else { self.ends[2 * slot - 1].0 };
        let end = self.ends[2 * slot + 1].0;
        prefetch(&self.rows[start..end]);
        prefetch(&self.others[start..end]);
    }

    /// A list's events in whole batches, and how many of them there are: behind these are the chunk's first vertex and
    /// row 0.
    #[inline(always)]
    pub(super) fn list(&self, list: usize) -> (&[[u8; LANES]], &[[u32; LANES]], usize) {
        let start = if list == 0 { 0 } else { self.ends[list - 1].0 };
        let (end, count) = self.ends[list];
        (self.rows[start..end].as_chunks().0, self.others[start..end].as_chunks().0, count - start)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{mix64, schedule::is_due};
    use super::*;

    #[test]
    fn what_is_due_is_listed_in_order_and_filled_up_on_every_instruction_set() {
        // Lists around a batch and a word; paces that are never, always and now and then due.
        let lengths = [0, 1, 15, 16, 17, 31, 32, 33, 100];
        let rows: Vec<u8> = (0..100).map(|i| (i * 7) as u8).collect();
        let others: Vec<u32> = (0..100).map(|i| 1000 + i).collect();
        let paces: Vec<u32> = (0..100)
            .map(|i| {
                [0, 1, 1 << 30, 1 << 31, (mix64(i) >> 33) as u32, (mix64(i) >> 36) as u32][i as usize % 6]
            })
            .collect();
        let lists: [Events<'_>; LISTS] = std::array::from_fn(|list| {
            let n = lengths[list % lengths.len()];
            Events { rows: &rows[..n], others: &others[..n], paces: &paces[..n] }
        });
        for isa in Isa::available() {
            let mut plan = Plan::default();
            for epoch in [0, 8, 16, 192] {
                plan.make(isa, lists, epoch);
                for (due, epoch) in plan.epochs.iter().zip(epoch..) {
                    for (list, events) in lists.iter().enumerate() {
                        let expected =
                            (0..events.rows.len()).filter(|&i| is_due(events.paces[i], epoch) == 1);
                        let mut expected: Vec<(u8, u32)> =
                            expected.map(|i| (events.rows[i], events.others[i])).collect();
                        let count = expected.len();
                        expected.resize(count.next_multiple_of(LANES), (0, 0));
                        let (locals, others, found) = due.list(list);
                        let listed = locals.as_flattened().iter().zip(others.as_flattened());
                        assert_eq!(found, count, "epoch {epoch}, list {list} on {}", isa.name());
                        assert!(listed.map(|(row, other)| (*row, *other)).eq(expected), "{epoch} {list}");
                    }
                }
            }
        }
    }
}
