//! Tells that somebody was woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// A waker that remembers that it was called, and passes it on.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    /// The waker that rings it for `task`.
    pub(super) fn waker(self: &Arc<Self>, task: &Waker) -> Waker {
        self.task.register(task);
        Waker::from(Arc::clone(self))
    }

    /// Whether it was rung since the last time.
    pub(super) fn was_rung(&self) -> bool {
        self.rung.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}
