//! What other tasks have to say to a connection: receipts, events of its lane, a successor that wants its name.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Waker};

use linkspan_contract::{Ended, LaneEvent, LaneEvents, Receipt, ReceiptSink};
use parking_lot::Mutex;

use super::registry::Successor;

/// Filled by any task, emptied by the connection's own.
#[derive(Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    letters: Option<Box<Letters>>,
    owner: Option<Waker>,
    /// Nobody looks into it any more.
    closed: bool,
    /// The client was let in with a session that began then.
    begun: bool,
}

/// What has come since the last look.
#[derive(Default)]
pub(super) struct Letters {
    /// Receipts that the lane did not know at once.
    pub receipts: Vec<Receipt>,
    /// The sink holds deliveries that were not sent and have to be settled.
    pub discards: bool,
    /// A subscription was ended by the back end.
    pub ended: Option<Ended>,
    /// Other connections want the client identifier, in the order in which they have come.
    pub successors: Vec<Successor>,
    /// The lane is over, and why.
    pub closed: Option<Arc<str>>,
    /// Another client has the session at the back end.
    pub taken_over: bool,
    /// The lane's subscriptions have to be resolved again.
    pub changed: bool,
    /// Linkspan goes down.
    pub stop: bool,
}

impl Mailbox {
    /// What is there; when that is nothing, the task is woken as soon as there is something.
    pub(super) fn collect(&self, cx: &Context<'_>) -> Option<Box<Letters>> {
        let mut inner = self.inner.lock();
        let letters = inner.letters.take();
        if letters.is_none() && !inner.owner.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.owner = Some(cx.waker().clone());
        }
        letters
    }

    /// Whether there is something that ends the connection; when there is not, the task is woken by the next that comes.
    pub(super) fn is_urgent(&self, cx: &Context<'_>) -> bool {
        let mut inner = self.inner.lock();
        if !inner.owner.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.owner = Some(cx.waker().clone());
        }
        let ends = |letters: &Letters| {
            !letters.successors.is_empty() || letters.closed.is_some() || letters.taken_over || letters.stop
        };
        inner.letters.as_deref().is_some_and(ends)
    }

    /// The sink has deliveries to be settled.
    pub(super) fn discards(&self) {
        self.post(|letters| letters.discards = true);
    }

    /// The back end ended a subscription.
    pub(super) fn ended(&self, why: Ended) {
        self.post(|letters| letters.ended = Some(why));
    }

    /// Another connection wants the client identifier.
    pub(super) fn take_over(&self, successor: Successor) {
        self.post(|letters| letters.successors.push(successor));
    }

    /// The client was let in with a session that began then.
    pub(super) fn begin(&self) {
        self.inner.lock().begun = true;
    }

    /// Whether it was.
    pub(super) fn has_begun(&self) -> bool {
        self.inner.lock().begun
    }

    /// Throws away what is there and what comes.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let letters = inner.letters.take();
        drop(inner);
        drop(letters);
    }

    /// Linkspan goes down.
    pub(super) fn stop(&self) {
        self.post(|letters| letters.stop = true);
    }

    fn post(&self, write: impl FnOnce(&mut Letters)) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        write(inner.letters.get_or_insert_default());
        let owner = inner.owner.take();
        drop(inner);
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl ReceiptSink for Mailbox {
    fn receipts(&self, runs: &[Receipt]) {
        self.post(|letters| letters.receipts.extend_from_slice(runs));
    }
}

impl LaneEvents for Mailbox {
    fn event(&self, event: LaneEvent) {
        match event {
            LaneEvent::Closed { text, .. } => self.post(|letters| letters.closed = Some(text)),
            LaneEvent::TakenOver => self.post(|letters| letters.taken_over = true),
            LaneEvent::Changed => self.post(|letters| letters.changed = true),
            // Nothing is published as mandatory, and a lane that is blocked says so when it is polled.
            LaneEvent::Returned { .. } | LaneEvent::Blocked(_) | LaneEvent::Unblocked => {}
        }
    }
}
