//! What the log has done so far, counted for whoever publishes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Syncs of files (`fdatasync`), those that failed included.
    pub syncs: u64,
    /// How long they took together.
    pub syncing: Duration,
    /// How long the longest took.
    pub longest_sync: Duration,
    /// Bytes that were written to files.
    pub written: u64,
    /// Bytes that waited when a write or a sync failed, and had to be written anew.
    pub rewritten: u64,
    /// How often a write or a sync failed.
    pub failures: u64,
    /// Segments that were emptied and made away with.
    pub emptied: u64,
    /// Bytes that were written again to empty them.
    pub moved: u64,
}

/// The same, while they are counted: by the writer alone.
#[derive(Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    syncing: AtomicU64,
    longest_sync: AtomicU64,
    written: AtomicU64,
    rewritten: AtomicU64,
    failures: AtomicU64,
    emptied: AtomicU64,
    moved: AtomicU64,
}

impl Counters {
    pub(crate) fn synced(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.syncs, 1);
        add(&self.syncing, took);
        self.longest_sync.fetch_max(took, Ordering::Relaxed);
    }

    pub(crate) fn written(&self, bytes: u64) {
        add(&self.written, bytes);
    }

    pub(crate) fn failed(&self, bytes: u64) {
        add(&self.failures, 1);
        add(&self.rewritten, bytes);
    }

    pub(crate) fn moved(&self, bytes: u64) {
        add(&self.moved, bytes);
    }

    pub(crate) fn emptied(&self) {
        add(&self.emptied, 1);
    }

    pub(crate) fn read(&self) -> Figures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            syncs: get(&self.syncs),
            syncing: Duration::from_nanos(get(&self.syncing)),
            longest_sync: Duration::from_nanos(get(&self.longest_sync)),
            written: get(&self.written),
            rewritten: get(&self.rewritten),
            failures: get(&self.failures),
            emptied: get(&self.emptied),
            moved: get(&self.moved),
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
