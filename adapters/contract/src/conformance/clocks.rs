//! Clocks that tests hand in.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::{Clock, Millis};

/// Some moment.
const BEGINNING: Millis = 1_700_000_000_000;

/// Tokio's time, which a test may have paused.
#[derive(Debug)]
pub struct PausedClock(Instant);

impl PausedClock {
    /// It begins now.
    #[allow(clippy::new_without_default, reason = "it begins when it is made")]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Millis {
        BEGINNING + u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A clock that a test sets.
#[derive(Debug, Default)]
pub struct SetClock(AtomicU64);

impl SetClock {
    /// It stands there.
    pub fn at(millis: Millis) -> Self {
        Self(AtomicU64::new(millis))
    }

    /// It stands there from now on.
    pub fn set(&self, millis: Millis) {
        self.0.store(millis, Ordering::SeqCst);
    }

    /// It goes on so far.
    pub fn pass(&self, millis: Millis) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}
