//! What the log has refused, in the order in which it was told: it is written as soon as the log takes it, before anything
//! else that needs room.
//!
//! It lies outside of the queues, for a commit may be of several: when one of them is deleted, its part goes and no other's.
//! What a queue has to say behind something that waits here waits here, too.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use linkspan_queues::log::{Commit, Lsn};
use parking_lot::Mutex;

use crate::archive::NotTaken;

/// Commits that wait for the log.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    lots: Mutex<VecDeque<Lot>>,
    /// There are some.
    any: AtomicBool,
}

/// What is written together: neighbours that were refused, in one or in several commits.
#[derive(Debug)]
struct Lot {
    /// What stands for where it ends in the log, until that is known. Those of later lots are greater.
    place: Lsn,
    commit: Commit,
}

/// A lot that has so many bytes gets no more.
const LOT: u64 = 256 << 10;

impl Backlog {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Puts a commit behind the others and empties it; its place, which `promise` makes if it is a new one.
    pub(crate) fn put(&self, commit: &mut Commit, promise: impl FnOnce() -> Lsn) -> Lsn {
        let mut lots = self.lots.lock();
        self.any.store(true, Ordering::Release);
        if let Some(last) = lots.back_mut().filter(|last| last.commit.size() < LOT) {
            last.commit.join(commit);
            return last.place;
        }
        let place = promise();
        lots.push_back(Lot { place, commit: std::mem::take(commit) });
        place
    }

    /// The place of the last that waits.
    pub(crate) fn last(&self) -> Option<Lsn> {
        self.lots.lock().back().map(|lot| lot.place)
    }

    /// True while what has that place waits.
    pub(crate) fn has(&self, place: Lsn) -> bool {
        self.lots.lock().binary_search_by_key(&place, |lot| lot.place).is_ok()
    }

    /// Hands over what waits, the first first, as long as `write` takes it: which places that were, and where each ends now.
    /// What `write` empties and does not take is gone.
    pub(crate) fn hand_over(
        &self,
        mut write: impl FnMut(&mut Commit) -> Result<Lsn, NotTaken>,
    ) -> Vec<(Lsn, Lsn)> {
        let mut lots = self.lots.lock();
        let mut written = Vec::new();
        while let Some(Lot { place, commit }) = lots.front_mut() {
            match write(commit) {
                Ok(lsn) => written.push((*place, lsn)),
                Err(NotTaken) if commit.is_empty() => {}
                Err(NotTaken) => return written,
            }
            lots.pop_front();
        }
        self.any.store(false, Ordering::Release);
        *lots = VecDeque::new();
        written
    }

    /// Takes out what is of the queues of these numbers; the places of which nothing is left.
    pub(crate) fn forget(&self, queues: &Range<u64>) -> Vec<Lsn> {
        let mut void = Vec::new();
        let mut lots = self.lots.lock();
        lots.retain_mut(|Lot { place, commit }| {
            commit.forget(queues);
            if commit.is_empty() {
                void.push(*place);
            }
            !commit.is_empty()
        });
        self.any.store(!lots.is_empty(), Ordering::Release);
        void
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(queue: u64, bytes: usize) -> Commit {
        let mut commit = Commit::new();
        commit.message(queue, 0, &vec![7; bytes]).unwrap();
        commit
    }

    /// A log that takes so many commits.
    fn log(mut takes: u64) -> impl FnMut(&mut Commit) -> Result<Lsn, NotTaken> {
        move |commit| {
            takes = takes.checked_sub(1).ok_or(NotTaken)?;
            commit.clear();
            Ok(100 + takes)
        }
    }

    #[test]
    fn what_waits_is_handed_over_in_its_order_and_what_is_not_taken_goes_on_waiting() {
        let backlog = Backlog::default();
        let large = LOT as usize;
        let mut next = 10;
        let mut promise = || {
            next += 1;
            next
        };
        let places = [1, large, 1, 1].map(|bytes| backlog.put(&mut of(1, bytes), &mut promise));
        assert_eq!(places, [11, 11, 12, 12], "small ones wait together");
        assert_eq!(backlog.hand_over(log(1)), [(11, 100)]);
        assert_eq!((backlog.has(11), backlog.has(12), backlog.is_empty()), (false, true, false));
        assert_eq!(backlog.hand_over(log(9)), [(12, 108)]);
        assert!(backlog.is_empty() && !backlog.has(12));
    }

    #[test]
    fn what_is_of_a_queue_that_is_gone_is_taken_out_and_nothing_else() {
        let backlog = Backlog::default();
        let mut together = of(1, 1);
        together.join(&mut of(300, 1));
        backlog.put(&mut together, || 11);
        assert!(backlog.forget(&(0..256)).is_empty());
        let mut left = Commit::new();
        backlog.hand_over(|commit| {
            left = std::mem::take(commit);
            Err(NotTaken)
        });
        assert_eq!(left.size(), of(300, 1).size());
        backlog.put(&mut left, || 12);
        assert_eq!(backlog.forget(&(256..512)), [12]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_log_that_was_closed_is_not_waited_for() {
        let backlog = Backlog::default();
        backlog.put(&mut of(1, 1), || 11);
        let closed = |commit: &mut Commit| {
            commit.clear();
            Err(NotTaken)
        };
        assert_eq!(backlog.hand_over(closed), []);
        assert!(backlog.is_empty());
    }
}
