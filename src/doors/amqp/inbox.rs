//! What back ends say from other threads, until the connection's own task listens.

use std::sync::Arc;
use std::task::Waker;

use linkspan_contract::{LaneEvent, LaneEvents, Receipt, ReceiptSink};
use parking_lot::Mutex;

/// Everything that came for one connection.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    notices: Vec<Notice>,
    waker: Option<Waker>,
}

/// Something for a channel.
#[derive(Debug)]
pub(super) struct Notice {
    /// The channel's number.
    pub(super) channel: u16,
    /// Which of the channels that had this number.
    pub(super) serial: u64,
    /// What it is.
    pub(super) what: What,
}

/// What back ends say.
#[derive(Debug)]
pub(super) enum What {
    /// Publishes are known now.
    Receipts(Vec<Receipt>),
    /// Something happened to the lane.
    Event(LaneEvent),
}

impl Inbox {
    /// Takes what came; the waker is for what comes later.
    pub(super) fn take(&self, waker: &Waker) -> Vec<Notice> {
        let mut inner = self.inner.lock();
        if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
        std::mem::take(&mut inner.notices)
    }

    fn put(&self, notice: Notice) {
        let mut inner = self.inner.lock();
        inner.notices.push(notice);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A channel's ear.
#[derive(Debug)]
pub(super) struct Ear {
    /// Where it goes.
    pub(super) inbox: Arc<Inbox>,
    /// The channel's number.
    pub(super) channel: u16,
    /// Which of the channels that had this number.
    pub(super) serial: u64,
}

impl Ear {
    fn put(&self, what: What) {
        self.inbox.put(Notice { channel: self.channel, serial: self.serial, what });
    }
}

impl ReceiptSink for Ear {
    fn receipts(&self, runs: &[Receipt]) {
        self.put(What::Receipts(runs.to_vec()));
    }
}

impl LaneEvents for Ear {
    fn event(&self, event: LaneEvent) {
        self.put(What::Event(event));
    }
}
