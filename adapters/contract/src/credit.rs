//! A consumer's window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// How many deliveries may be unsettled: shared by the back end, which takes, and the door, which grants; two atomics,
/// no lock. Several subscriptions may share one (MQTT's receive maximum, AMQP's prefetch of a channel). With a parent
/// (a consumer's window inside its channel's) [`Credit::take`] gets from both or neither.
#[derive(Debug)]
pub struct Credit {
    available: AtomicI64,
    limit: AtomicI64,
    starved: AtomicBool,
    parent: Option<Arc<Credit>>,
}

impl Credit {
    /// A window of `limit` deliveries.
    pub fn new(limit: u32) -> Self {
        Self::within(limit, None)
    }

    /// A window of `limit` deliveries inside `parent`'s.
    pub fn within(limit: u32, parent: Option<Arc<Credit>>) -> Self {
        Self {
            available: AtomicI64::new(limit.into()),
            limit: AtomicI64::new(limit.into()),
            starved: AtomicBool::new(false),
            parent,
        }
    }

    /// The back end, before it assigns deliveries: takes up to `n` and says how many. When there were fewer it has
    /// marked the credit as starved, and looked again, so that no grant is missed.
    pub fn take(&self, n: u32) -> u32 {
        let mut got = self.take_own(n);
        if let Some(parent) = &self.parent {
            let both = parent.take(got);
            self.available.fetch_add((got - both).into(), Ordering::SeqCst);
            got = both;
        }
        got
    }

    fn take_own(&self, n: u32) -> u32 {
        let mut got = self.grab(n);
        if got < n {
            self.starved.store(true, Ordering::SeqCst);
            got += self.grab(n - got);
        }
        got
    }

    fn grab(&self, n: u32) -> u32 {
        let mut got = 0;
        let _ = self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |available| {
            got = u32::try_from(available).unwrap_or(0).min(n);
            (got > 0).then(|| available - i64::from(got))
        });
        got
    }

    /// The back end took more than it could use.
    pub fn give_back(&self, n: u32) {
        self.available.fetch_add(n.into(), Ordering::SeqCst);
        if let Some(parent) = &self.parent {
            parent.give_back(n);
        }
    }

    /// The door, once per read: `n` deliveries were settled. True when the back end had run dry: then call
    /// [`Lane::resume`](crate::Lane::resume).
    pub fn grant(&self, n: u32) -> bool {
        let starved = self.grant_own(n);
        let parent_starved = self.parent.as_ref().is_some_and(|parent| parent.grant(n));
        starved || parent_starved
    }

    /// Like [`Credit::grant`], but for this window alone: its parent is granted by somebody else.
    pub fn grant_own(&self, n: u32) -> bool {
        self.available.fetch_add(n.into(), Ordering::SeqCst);
        self.starved.load(Ordering::SeqCst) && self.starved.swap(false, Ordering::SeqCst)
    }

    /// Changes the window, at any time. A smaller one is paid off by later grants. True when the back end had run dry
    /// and there is more now.
    pub fn set_limit(&self, n: u32) -> bool {
        let before = self.limit.swap(n.into(), Ordering::SeqCst);
        let change = i64::from(n).saturating_sub(before);
        self.available.fetch_add(change, Ordering::SeqCst);
        change > 0 && self.starved.swap(false, Ordering::SeqCst)
    }

    /// The window: how many deliveries may be unsettled at most.
    pub fn limit(&self) -> u32 {
        let own = u32::try_from(self.limit.load(Ordering::SeqCst)).unwrap_or(0);
        self.parent.as_ref().map_or(own, |parent| parent.limit().min(own))
    }

    /// How many deliveries may be assigned now.
    pub fn available(&self) -> u32 {
        let own = u32::try_from(self.available.load(Ordering::SeqCst)).unwrap_or(0);
        self.parent.as_ref().map_or(own, |parent| parent.available().min(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_gives_what_it_has_and_tells_when_it_ran_dry() {
        let credit = Credit::new(3);
        assert_eq!(credit.take(2), 2);
        assert!(!credit.grant(1), "it never ran dry");
        assert_eq!(credit.take(5), 2);
        assert_eq!(credit.take(1), 0);
        assert!(credit.grant(1), "it ran dry");
        assert!(!credit.grant(1), "that was told already");
        assert_eq!(credit.take(9), 2);
    }

    #[test]
    fn a_window_inside_another_takes_from_both_or_neither() {
        let channel = Arc::new(Credit::new(3));
        let one = Credit::within(2, Some(Arc::clone(&channel)));
        let two = Credit::within(2, Some(Arc::clone(&channel)));
        assert_eq!((one.take(2), two.take(2)), (2, 1));
        assert_eq!(two.available(), 0);
        assert_eq!((one.limit(), channel.limit()), (2, 3));
        assert!(one.grant(1), "the channel's window ran dry");
        assert_eq!(two.take(1), 1);
        assert_eq!(channel.available(), 0);
    }

    #[test]
    fn a_smaller_window_is_paid_off_by_grants() {
        let credit = Credit::new(5);
        assert_eq!(credit.take(5), 5);
        credit.set_limit(2);
        credit.grant(3);
        assert_eq!(credit.take(1), 0);
        credit.grant(2);
        assert_eq!(credit.take(9), 2);
    }
}
