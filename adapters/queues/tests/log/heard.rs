//! What a log told its owner.

use linkspan_queues::log::{LogError, Lsn, Watch};
use parking_lot::Mutex;

/// Keeps everything.
#[derive(Default)]
pub(crate) struct Heard {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    synced: Lsn,
    failed: Vec<(Lsn, Lsn)>,
    resumed: u32,
    trouble: Vec<String>,
}

impl Heard {
    /// True when the commit that ends at `lsn` was told to be safe and was not told to have failed before.
    pub(crate) fn is_safe(&self, lsn: Lsn) -> bool {
        let inner = self.inner.lock();
        lsn <= inner.synced && !has_failed(&inner, lsn)
    }

    /// True when the commit that ends at `lsn` was told to have failed.
    pub(crate) fn has_failed(&self, lsn: Lsn) -> bool {
        has_failed(&self.inner.lock(), lsn)
    }

    /// How often the disk was told to be well again.
    pub(crate) fn resumed(&self) -> u32 {
        self.inner.lock().resumed
    }

    /// What else went wrong.
    pub(crate) fn trouble(&self) -> Vec<String> {
        self.inner.lock().trouble.clone()
    }
}

fn has_failed(inner: &Inner, lsn: Lsn) -> bool {
    inner.failed.iter().any(|(from, to)| *from < lsn && lsn <= *to)
}

impl Watch for Heard {
    fn synced(&self, to: Lsn) {
        let mut inner = self.inner.lock();
        assert!(to >= inner.synced, "what is safe stays safe");
        inner.synced = to;
    }

    fn failed(&self, from: Lsn, to: Lsn, _why: &str) {
        self.inner.lock().failed.push((from, to));
    }

    fn resumed(&self) {
        self.inner.lock().resumed += 1;
    }

    fn trouble(&self, what: &LogError) {
        self.inner.lock().trouble.push(what.to_string());
    }
}
