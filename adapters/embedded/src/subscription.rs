//! A subscription to an MQTT topic filter, which gets copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linkspan_contract::address::Pattern;
use linkspan_contract::{DeliveryTag, Millis, OwnedBatch, Pick, Settle, SubscriptionKey};

use crate::keeper::Keeper;
use crate::outlet::Touched;
use crate::plan::is_settled;
use crate::session::Session;

/// What publishers need to know of it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) key: SubscriptionKey,
    pub(crate) filter: Pattern,
    pub(crate) no_local: bool,
    pub(crate) session: Arc<Session>,
    /// Place of its window among the session's.
    pub(crate) window: usize,
    pub(crate) settle: Settle,
    over: AtomicBool,
    next: AtomicU64,
}

impl Subscription {
    pub(crate) fn new(
        key: SubscriptionKey,
        filter: Pattern,
        settle: Settle,
        no_local: bool,
        session: Arc<Session>,
        window: usize,
    ) -> Self {
        Self {
            key,
            filter,
            no_local,
            session,
            window,
            settle,
            over: AtomicBool::new(false),
            next: AtomicU64::new(1),
        }
    }

    /// The tag of the first of `count` deliveries. Called under the session's lock.
    pub(crate) fn allot(&self, count: u32) -> DeliveryTag {
        let first = self.next.load(Ordering::Relaxed);
        self.next.store(first.saturating_add(count.into()), Ordering::Relaxed);
        first
    }

    /// Tags go on where those of the subscription that this one replaces ended.
    pub(crate) fn follow(&self, before: &Self) {
        self.next.store(before.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Gives it a message from inside: a dead letter.
    pub(crate) fn give(self: &Arc<Self>, letter: &OwnedBatch, now: Millis, touched: &mut Touched) {
        let batch = letter.batch();
        let settled = is_settled(self.settle, batch.any);
        let pick = Pick { at: 0..1, key: self.key, first: 0, age: 0, attempt: 0, settled };
        let mut keeper = Keeper::new(&batch);
        self.session.deliver(&mut keeper, &[pick], |_| Some(self), &mut Vec::new(), now, touched);
    }

    /// Nothing more is given to it.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}
