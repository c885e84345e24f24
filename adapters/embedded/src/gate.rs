//! Holds publishers while something that they publish to has too much waiting, as long as its consumers make progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use linkspan_contract::Millis;
use parking_lot::Mutex;

/// Closed above a high mark, open again below half of it. A gate whose consumers have taken nothing for a while holds
/// nobody: a hung consumer must not stop the world.
#[derive(Debug)]
pub(crate) struct Gate {
    high: u64,
    slow_after: Millis,
    closed: AtomicBool,
    progressed: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    /// A gate that closes above `high` bytes and holds for `slow_after` milliseconds without progress.
    pub(crate) fn new(high: u64, slow_after: Millis) -> Self {
        Self {
            high,
            slow_after,
            closed: AtomicBool::new(false),
            progressed: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// So much waits now. Called under the owner's lock.
    #[inline]
    pub(crate) fn level(&self, bytes: u64) {
        if bytes > self.high {
            self.closed.store(true, Ordering::SeqCst);
        } else if bytes <= self.high / 2 && self.closed.load(Ordering::Relaxed) {
            self.open();
        }
    }

    /// A consumer has taken or settled something.
    #[inline]
    pub(crate) fn progress(&self, now: Millis) {
        if self.progressed.load(Ordering::Relaxed) != now {
            self.progressed.store(now, Ordering::Relaxed);
        }
    }

    /// Lets everybody through; nothing waits any more.
    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Until when publishers are held, unless there is progress; none when they are not.
    #[inline]
    pub(crate) fn holds_until(&self, now: Millis) -> Option<Millis> {
        if !self.closed.load(Ordering::SeqCst) {
            return None;
        }
        let until = self.progressed.load(Ordering::Relaxed).saturating_add(self.slow_after);
        (until > now).then_some(until)
    }

    /// Ready when publishers are not held; pending until the gate opens, or until the time that
    /// [`holds_until`](Self::holds_until) says, for which the caller has to care.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, now: Millis) -> Poll<()> {
        if self.holds_until(now).is_none() {
            return Poll::Ready(());
        }
        {
            let mut waiting = self.waiting.lock();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        if self.holds_until(now).is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_between_its_marks_and_only_while_there_is_progress() {
        let gate = Gate::new(100, 1000);
        let mut cx = Context::from_waker(Waker::noop());
        gate.progress(5000);
        gate.level(100);
        assert!(gate.poll(&mut cx, 5000).is_ready());
        gate.level(101);
        assert!(gate.poll(&mut cx, 5000).is_pending());
        gate.level(51);
        assert_eq!(gate.holds_until(5999), Some(6000));
        assert_eq!(gate.holds_until(6000), None, "nobody took anything for a second");
        gate.progress(6000);
        assert!(gate.poll(&mut cx, 6000).is_pending());
        gate.level(50);
        assert!(gate.poll(&mut cx, 6000).is_ready());
    }
}
