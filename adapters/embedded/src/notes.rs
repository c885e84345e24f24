//! What is noted for a client whose session is kept: the identifiers of messages that it has published exactly once and
//! may send again. They are values without content in the log, owned by the session's queue, and go with it.

use std::num::NonZeroU16;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_queues::log::{Commit, Lsn};

use crate::archive::{Archive, LEVELS};
use crate::queue::Queue;

/// The notes of one session.
pub(crate) struct Notes {
    archive: Arc<Archive>,
    owner: u64,
    /// Where each note ends in the log.
    noted: HashMap<NonZeroU16, Lsn, RandomState>,
}

impl Notes {
    /// Those that the log has for a session's queue.
    pub(crate) fn of(inbox: &Queue, archive: &Arc<Archive>) -> Option<Self> {
        let owner = inbox.traits().number?.saturating_mul(LEVELS);
        let found = archive.keys(owner);
        // Others have longer keys.
        let identifier = |key: &[u8]| NonZeroU16::new(u16::from_le_bytes(*key.as_array()?));
        let noted =
            found.iter().filter_map(|key| identifier(key)).map(|identifier| (identifier, 0)).collect();
        Some(Self { archive: Arc::clone(archive), owner, noted })
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<NonZeroU16> {
        self.noted.keys().copied().collect()
    }

    /// Adds a note to a commit; [`noted`](Self::noted) has to follow when that is taken.
    pub(crate) fn add_to(&self, commit: &mut Commit, identifier: NonZeroU16) {
        // Shorter than what a record may have.
        let _ = commit.note(self.owner, &identifier.get().to_le_bytes());
    }

    /// A commit with that note ends at `lsn`.
    pub(crate) fn noted(&mut self, identifier: NonZeroU16, lsn: Lsn) {
        self.noted.insert(identifier, lsn);
    }

    /// Makes a note, unless it is there; where it ends in the log.
    pub(crate) fn note(&mut self, identifier: NonZeroU16) -> Lsn {
        if let Some(lsn) = self.noted.get(&identifier) {
            return *lsn;
        }
        let mut commit = Commit::new();
        self.add_to(&mut commit, identifier);
        let lsn = self.write(&mut commit);
        self.noted.insert(identifier, lsn);
        lsn
    }

    /// Takes a note back; where that ends in the log, 0 when there was none.
    pub(crate) fn unnote(&mut self, identifier: NonZeroU16) -> Lsn {
        let Some(noted) = self.noted.remove(&identifier) else { return 0 };
        if self.noted.is_empty() {
            self.noted = HashMap::default();
        }
        let mut commit = Commit::new();
        let _ = commit.delete(self.owner, &identifier.get().to_le_bytes());
        if !self.archive.has_taken(noted) {
            return self.archive.put_off(&mut commit);
        }
        self.write(&mut commit)
    }

    fn write(&self, commit: &mut Commit) -> Lsn {
        // Only a log that was closed does not take it, and makes nothing safe any more.
        self.archive.write(commit).unwrap_or(Lsn::MAX)
    }
}
