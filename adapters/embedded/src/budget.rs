//! What queues have in memory together where a log keeps the rest.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_queues::Window;
use parking_lot::Mutex;

use crate::queue::Queue;

/// A bound for what the queues of one or several back ends have in memory of the messages that are ready. Each may have
/// [`MOST`](Self::MOST) as long as all together have less than half of it; then what each may have falls, and comes to the
/// same part for each when they have all of it. [`Budget::default`] is without bound.
pub struct Budget {
    limit: AtomicU64,
    used: AtomicU64,
    /// What one queue may have.
    share: AtomicU64,
    holders: Mutex<Holders>,
}

/// Queues that have more than [`Budget::STEP`].
struct Holders {
    by_address: HashMap<usize, Weak<Queue>, RandomState>,
    /// What one could have when all were last told that it has become less.
    told: u64,
}

impl Budget {
    /// What one queue has at most, in bytes: 16 MiB.
    pub const MOST: u64 = 16 << 20;

    /// What one queue may always have, however many there are.
    pub(crate) const LEAST: u64 = 64 << 10;

    /// A queue tells what it has when that has changed by so much.
    pub(crate) const STEP: u64 = 64 << 10;

    /// Messages are counted as no smaller than this.
    const MESSAGE: u64 = 256;

    /// One of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit: AtomicU64::new(limit), ..Self::default() }
    }

    /// Another bound.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        let others = self.divide(&mut self.holders.lock());
        others.iter().filter_map(Weak::upgrade).for_each(|other| other.look_soon());
    }

    /// Bytes that queues have now, roughly.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What one queue may have now, and never more than `most`.
    #[inline]
    pub(crate) fn window(&self, most: Window) -> Window {
        let bytes = self.share.load(Ordering::Relaxed);
        Window { messages: most.messages.min(bytes / Self::MESSAGE), bytes: most.bytes.min(bytes) }
    }

    /// A queue has `now` bytes, and had `before` when it last told. Its lock may be held.
    #[cold]
    pub(crate) fn tell(&self, queue: &Arc<Queue>, before: u64, now: u64) {
        let others = {
            let mut holders = self.holders.lock();
            if now > Self::STEP {
                holders.by_address.entry(Arc::as_ptr(queue).addr()).or_insert_with(|| Arc::downgrade(queue));
            } else {
                holders.by_address.remove(&Arc::as_ptr(queue).addr());
            }
            self.count(before, now);
            self.divide(&mut holders)
        };
        others.iter().filter_map(Weak::upgrade).for_each(|other| other.look_soon());
    }

    /// A queue is gone that had so much when it last told.
    pub(crate) fn leave(&self, address: usize, before: u64) {
        let mut holders = self.holders.lock();
        holders.by_address.remove(&address);
        self.count(before, 0);
        // Nobody has less for it.
        drop(self.divide(&mut holders));
    }

    fn count(&self, before: u64, now: u64) {
        let used = self.used.load(Ordering::Relaxed);
        self.used.store(used.saturating_add(now).saturating_sub(before), Ordering::Relaxed);
    }

    /// Says anew what one queue may have; yields, when that is clearly less than before, those that have to look at
    /// themselves: nothing else may happen to them for long.
    fn divide(&self, holders: &mut Holders) -> Vec<Weak<Queue>> {
        let share = share(self.limit.load(Ordering::Relaxed), self.used(), holders.by_address.len() as u64);
        self.share.store(share, Ordering::Relaxed);
        if share < holders.told - holders.told / 8 {
            holders.told = share;
            return holders.by_address.values().cloned().collect();
        }
        holders.told = holders.told.max(share);
        Vec::new()
    }
}

/// What one of `count` queues may have that have `used` bytes together.
fn share(limit: u64, used: u64, count: u64) -> u64 {
    let half = limit / 2;
    let fair = limit.checked_div(count).unwrap_or(limit).clamp(Budget::LEAST, Budget::MOST);
    let free = u128::from(limit.saturating_sub(used).min(half));
    let more = u128::from(Budget::MOST - fair) * free / u128::from(half.max(1));
    fair.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}

impl Default for Budget {
    fn default() -> Self {
        let holders = Holders { by_address: HashMap::default(), told: Self::MOST };
        Self {
            limit: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(0),
            share: AtomicU64::new(Self::MOST),
            holders: Mutex::new(holders),
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit)
            .field("used", &self.used)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_queue_may_have_all_that_one_may_have_while_there_is_plenty() {
        assert_eq!(share(u64::MAX, 0, 0), Budget::MOST);
        assert_eq!(share(1000 * MIB, 500 * MIB, 10_000), Budget::MOST, "half of it is used, by however many");
        assert_eq!(share(1000 * MIB, 1000 * MIB, 50), Budget::MOST, "50 have room for 16 MiB each");
    }

    #[test]
    fn all_have_the_same_when_they_have_all_of_it_and_more_the_more_is_free() {
        assert_eq!(share(1000 * MIB, 1000 * MIB, 1000), MIB);
        assert_eq!(share(1000 * MIB, 2000 * MIB, 1000), MIB);
        assert_eq!(share(1000 * MIB, 750 * MIB, 1000), MIB + 15 * MIB / 2);
        assert_eq!(share(1000 * MIB, 1000 * MIB, 1_000_000), Budget::LEAST, "and always something");
        assert_eq!(share(0, MIB, 1), Budget::LEAST);
    }
}
