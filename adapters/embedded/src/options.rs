//! Bounds of an embedded back end.

use std::fmt;
use std::path::PathBuf;

use linkspan_contract::{Millis, WireForm};
use linkspan_queues::log::SyncMode;

/// How much may wait in memory, and when publishers are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Bytes ready in one queue that publishers are held above, while its consumers make progress.
    pub queue_high: u64,
    /// Bytes ready in one queue that nothing is taken beyond: refused where the publisher wants a receipt, else dropped
    /// and counted. A queue that was declared with a length follows its own `x-overflow` instead.
    pub queue_limit: u64,
    /// Bytes that wait for the window of one publish-subscribe session that publishers are held above, while the session
    /// makes progress.
    pub session_high: u64,
    /// Bytes that wait for one session; a subscription for which more comes is ended, and what waited is dropped and counted.
    pub session_limit: u64,
    /// Milliseconds without progress after which a consumer holds nobody.
    pub slow_after: Millis,
    /// Bytes of a body from which on it lies in the log by itself, where there is one, and is read from there.
    pub large_body: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            queue_high: 8 << 20,
            queue_limit: 1 << 30,
            session_high: 1 << 20,
            session_limit: 16 << 20,
            slow_after: 1000,
            large_body: 1 << 20,
        }
    }
}

/// Where an embedded back end keeps what is to survive.
#[derive(Clone)]
pub struct OnDisk {
    /// Its directory, made when it is not there.
    pub directory: PathBuf,
    /// When what is acknowledged is made safe.
    pub sync: SyncMode,
    /// The forms of messages: those of all that may ever have been published here.
    pub forms: Vec<&'static dyn WireForm>,
}

impl PartialEq for OnDisk {
    fn eq(&self, other: &Self) -> bool {
        let ids = |of: &Self| of.forms.iter().map(|form| form.id()).collect::<Vec<_>>();
        self.directory == other.directory && self.sync == other.sync && ids(self) == ids(other)
    }
}

impl Eq for OnDisk {}

impl fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDisk")
            .field("directory", &self.directory)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}
