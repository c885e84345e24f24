//! Holds publishers while something that they publish to has too much waiting, as long as its consumers make progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use linkspan_contract::Millis;
use parking_lot::Mutex;

/// Closed above a high mark, open again below half of it. A publisher that finds it closed is held for a while, longer
/// the more there is: so a backlog grows slower and slower, and nobody stands still for good. A gate whose consumers
/// have taken nothing for a while holds nobody: a hung consumer must not stop the world.
#[derive(Debug)]
pub(crate) struct Gate {
    marks: Marks,
    level: AtomicU64,
    closed: AtomicBool,
    progressed: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

/// When a gate closes, and how long it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// Bytes above which it closes.
    pub(crate) high: u64,
    /// Milliseconds that a publisher is held when there is twice as much.
    pub(crate) longest: Millis,
    /// Milliseconds without progress after which it holds nobody.
    pub(crate) slow_after: Millis,
}

/// More held publishers than these are woken, to ask again: some may be long gone.
const WAITING: usize = 256;

impl Gate {
    pub(crate) fn new(marks: Marks) -> Self {
        Self {
            marks,
            level: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            progressed: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// So much waits now. Called under the owner's lock.
    #[inline]
    pub(crate) fn level(&self, bytes: u64) {
        self.level.store(bytes, Ordering::Relaxed);
        if bytes > self.marks.high {
            self.closed.store(true, Ordering::SeqCst);
        } else if bytes <= self.marks.high / 2 && self.closed.load(Ordering::Relaxed) {
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

    /// Until when a publisher is held at the latest; none when it is not.
    #[inline]
    pub(crate) fn hold(&self, now: Millis) -> Option<Millis> {
        if !self.holds(now) {
            return None;
        }
        let Marks { high, longest, .. } = self.marks;
        let above = self.level.load(Ordering::Relaxed).saturating_sub(high).min(high);
        let span = longest.saturating_mul(above).checked_div(high).unwrap_or(longest);
        (span > 0).then(|| now.saturating_add(span))
    }

    fn holds(&self, now: Millis) -> bool {
        self.closed.load(Ordering::SeqCst)
            && self.progressed.load(Ordering::Relaxed).saturating_add(self.marks.slow_after) > now
    }

    /// Ready when it holds nobody; else pending until it opens. For the rest the caller has to look again.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, now: Millis) -> Poll<()> {
        if !self.holds(now) {
            return Poll::Ready(());
        }
        let mut crowd = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING {
                crowd = std::mem::take(&mut *waiting);
            }
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        crowd.into_iter().for_each(Waker::wake);
        if self.holds(now) { Poll::Pending } else { Poll::Ready(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_between_its_marks_longer_the_more_there_is_and_only_while_there_is_progress() {
        let gate = Gate::new(Marks { high: 100, longest: 400, slow_after: 1000 });
        let mut cx = Context::from_waker(Waker::noop());
        gate.progress(5000);
        gate.level(100);
        assert!(gate.poll(&mut cx, 5000).is_ready());
        gate.level(150);
        assert_eq!(gate.hold(5000), Some(5200));
        gate.level(900);
        assert_eq!(gate.hold(5000), Some(5400));
        gate.level(51);
        assert!(gate.poll(&mut cx, 5999).is_pending());
        assert!(gate.poll(&mut cx, 6000).is_ready(), "nobody took anything for a second");
        gate.progress(6000);
        assert!(gate.poll(&mut cx, 6000).is_pending());
        gate.level(50);
        assert!(gate.poll(&mut cx, 6000).is_ready());
    }
}
