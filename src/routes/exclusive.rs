//! A queue with one consumer at a time.

use std::time::Duration;

/// That one consumer at a time has a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exclusive {
    /// What becomes of those who come while there is one.
    pub others: Others,
    /// How long it may have something unsettled without settling anything; for ever when not given.
    pub holder_timeout: Option<Duration>,
}

/// What becomes of those who would consume beside the one who does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Others {
    /// They are refused.
    #[default]
    Reject,
    /// They wait, and one of them takes over.
    StandBy,
}
