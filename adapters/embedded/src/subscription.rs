//! A subscription to an MQTT topic filter, which gets copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linkspan_contract::address::Pattern;
use linkspan_contract::{
    DeliveryTag, Millis, OwnedBatch, Pick, Settle, Standing, Subscribe, SubscriptionKey,
};

use crate::keeper::Keeper;
use crate::outlet::Touched;
use crate::parcel::Parcel;
use crate::plan::is_settled;
use crate::queue::Said;
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
    /// What was published exactly once comes so.
    exactly_once: bool,
    /// The first that had the key, when it is another: tags and end are common to all that replaced one another.
    first: Option<Arc<Self>>,
    over: AtomicBool,
    next: AtomicU64,
}

impl Subscription {
    pub(crate) fn new(
        key: SubscriptionKey,
        filter: Pattern,
        how: &Subscribe<'_>,
        session: Arc<Session>,
        window: usize,
    ) -> Self {
        Self {
            key,
            filter,
            no_local: how.no_local,
            session,
            window,
            settle: how.settle,
            exactly_once: how.exactly_once,
            first: None,
            over: AtomicBool::new(false),
            next: AtomicU64::new(1),
        }
    }

    /// What messages that come by it have in a session's queue.
    pub(crate) const fn via(&self) -> u32 {
        let number = self.key.subscription;
        if self.exactly_once { number } else { number | Parcel::AT_LEAST_ONCE }
    }

    /// Makes it the one that takes the place of `before`, of the same key: what was picked for `before` and what waits
    /// are given all the same, and tags go on.
    pub(crate) fn replacing(self, before: &Arc<Self>) -> Self {
        if before.is_over() {
            let next = AtomicU64::new(before.line().next.load(Ordering::Relaxed));
            return Self { next, ..self };
        }
        Self { first: Some(Arc::clone(before.first.as_ref().unwrap_or(before))), ..self }
    }

    /// What it has in common with those that it replaced and that replaced it.
    #[inline]
    fn line(&self) -> &Self {
        self.first.as_deref().unwrap_or(self)
    }

    /// True when one has replaced the other, perhaps by way of others.
    pub(crate) fn is_of_line(&self, other: &Self) -> bool {
        std::ptr::eq(self.line(), other.line())
    }

    /// The tag of the first of `count` deliveries. Called under the session's lock.
    pub(crate) fn allot(&self, count: u32) -> DeliveryTag {
        let next = &self.line().next;
        let first = next.load(Ordering::Relaxed);
        next.store(first.saturating_add(count.into()), Ordering::Relaxed);
        first
    }

    /// Gives it a message from inside: a dead letter. What that costs others, where a session has a queue, is for the
    /// caller to carry out.
    pub(crate) fn give(
        self: &Arc<Self>,
        letter: &Arc<OwnedBatch>,
        now: Millis,
        touched: &mut Touched,
    ) -> Said {
        let batch = letter.batch();
        let settled = is_settled(self.settle, batch.any);
        if let Some(inbox) = self.session.inbox().filter(|_| !settled) {
            let parcel = Parcel { batch: Arc::clone(letter), at: 0, via: self.via() };
            return inbox.put(parcel, now, touched);
        }
        let pick = Pick {
            at: 0..1,
            key: self.key,
            first: 0,
            age: 0,
            attempt: 0,
            settled,
            standing: Standing::Passing,
        };
        let mut keeper = Keeper::new(&batch);
        self.session.deliver(&mut keeper, &[pick], |_| Some(self), &mut Vec::new(), now, touched);
        Said::default()
    }

    /// Nothing more is given to it.
    pub(crate) fn end(&self) {
        self.line().over.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.line().over.load(Ordering::Acquire)
    }
}
