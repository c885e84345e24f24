//! Parts of large bodies that are in memory on their way into the log and out of it: they share a room, and who reads the same
//! part at the same time has the same bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of all parts of a log that are in memory at a time, but for small ones.
const ROOM: u64 = 64 << 20;

/// All parts that are in memory.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    used: AtomicU64,
    /// Those that were read, by the body's number and where they begin in it.
    read: Mutex<BTreeMap<(u64, u64), Weak<Part>>>,
}

/// Some of the room, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    parts: Arc<Parts>,
    size: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.parts.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A part that was read.
#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    place: (u64, u64),
    share: Share,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut read = self.share.parts.read.lock();
        // Another one may be there by now.
        if read.get(&self.place).is_some_and(|part| part.strong_count() == 0) {
            read.remove(&self.place);
        }
    }
}

/// The bytes of a part belong to all who have it.
struct Common(Arc<Part>);

impl AsRef<[u8]> for Common {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Parts {
    /// Takes some of the room; none when there is not so much.
    pub(crate) fn share(self: &Arc<Self>, size: usize) -> Option<Share> {
        let size = size as u64;
        let more = |used: u64| used.checked_add(size).filter(|sum| *sum <= ROOM);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Share { parts: Arc::clone(self), size })
    }

    /// What somebody else has of a body from `offset` on, up to the end of a part.
    pub(crate) fn find(&self, body: u64, offset: u64) -> Option<Bytes> {
        let (first, part) = {
            let read = self.read.lock();
            let ((of, first), part) = read.range(..=(body, offset)).next_back()?;
            (*first, (*of == body).then(|| part.upgrade())??)
        };
        let from = usize::try_from(offset.saturating_sub(first)).ok()?;
        // Not under the lock: it may be the last one who has it.
        (from < part.bytes.len()).then(|| Bytes::from_owner(Common(part)).slice(from..))
    }

    /// Keeps what was read of a body from `offset` on for others who read it, as long as somebody has it.
    pub(crate) fn put(&self, (body, offset): (u64, u64), bytes: Vec<u8>, share: Share) -> Bytes {
        let part = Arc::new(Part { bytes, place: (body, offset), share });
        let mut read = self.read.lock();
        let there = read.get(&part.place).and_then(Weak::upgrade);
        if there.is_none() {
            read.insert(part.place, Arc::downgrade(&part));
        }
        drop(read);
        Bytes::from_owner(Common(there.unwrap_or(part)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_the_same_part_has_the_same_bytes_and_the_room_is_given_back() {
        let parts = Arc::new(Parts::default());
        let read = |from| parts.put((1, from), vec![7; 100], parts.share(100).unwrap());
        let (first, second) = (read(0), read(0));
        assert_eq!(first.as_ptr(), second.as_ptr());
        let middle = parts.find(1, 40).unwrap();
        assert_eq!((middle.as_ptr(), middle.len()), (first.slice(40..).as_ptr(), 60));
        assert!(parts.find(1, 100).is_none() && parts.find(2, 0).is_none() && parts.find(0, 0).is_none());
        assert_eq!(parts.used.load(Ordering::Relaxed), 100);
        drop((first, second, middle));
        assert_eq!((parts.used.load(Ordering::Relaxed), parts.read.lock().len()), (0, 0));
        assert!(parts.find(1, 40).is_none());
    }

    #[test]
    fn there_is_no_more_than_the_room() {
        let parts = Arc::new(Parts::default());
        let most = parts.share(ROOM as usize).unwrap();
        assert!(parts.share(1).is_none());
        drop(most);
        assert!(parts.share(1).is_some());
    }
}
