//! How much is on its way to the broker, and who waits until it is less.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes and messages that are not confirmed. Above its mark it is closed, and open again below half of it.
#[derive(Debug)]
pub(crate) struct Gauge {
    high: u64,
    bytes: AtomicU64,
    messages: AtomicU64,
    closed: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    empty: Notify,
}

/// What a message costs beside its bytes.
pub(crate) const OVERHEAD: u64 = 256;

impl Gauge {
    pub(crate) fn new(high: u64) -> Self {
        Self {
            high,
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            waiting: Mutex::default(),
            empty: Notify::new(),
        }
    }

    /// Its mark.
    pub(crate) fn high(&self) -> u64 {
        self.high
    }

    /// Messages are under way; true when they are too many now.
    pub(crate) fn add(&self, messages: u64, bytes: u64) -> bool {
        self.messages.fetch_add(messages, Ordering::SeqCst);
        let all = self.bytes.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        if all > self.high {
            self.closed.store(true, Ordering::SeqCst);
        }
        self.closed.load(Ordering::SeqCst)
    }

    /// Messages have arrived, or never will.
    pub(crate) fn sub(&self, messages: u64, bytes: u64) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if before.saturating_sub(bytes) <= self.high / 2 && self.closed.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        if self.messages.fetch_sub(messages, Ordering::SeqCst) <= messages {
            self.empty.notify_waiters();
        }
    }

    /// Lets everybody who waits look again.
    pub(crate) fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// True when nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.load(Ordering::SeqCst) == 0
    }

    /// Waits until nothing is under way.
    pub(crate) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.is_empty() {
                return;
            }
            empty.await;
        }
    }

    /// Has the task woken at the next [`Gauge::wake`].
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// Ready while it is open.
    pub(crate) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.closed.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        self.wait(cx);
        if self.closed.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_above_its_mark_and_opens_below_half_of_it() {
        let gauge = Gauge::new(100);
        let cx = Context::from_waker(Waker::noop());
        assert!(!gauge.add(1, 100));
        assert!(gauge.add(1, 1));
        gauge.sub(1, 50);
        assert!(gauge.poll_open(&cx).is_pending());
        gauge.sub(1, 1);
        assert!(gauge.poll_open(&cx).is_ready());
    }
}
