//! What was committed and is not safe yet: the end of the log, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::log::Lsn;
use crate::log::record::{self, HEADER, Header, Kind};

/// A buffer that holds more is closed and another one begun.
const FULL: usize = 4 << 20;
/// Buffers that were written and are kept for the next.
const SPARES: usize = 4;

/// Records of one segment that follow each other.
pub(crate) struct Buffer {
    /// The id of the segment.
    pub(crate) segment: u64,
    /// Where the first lies.
    pub(crate) base: Lsn,
    pub(crate) bytes: Vec<u8>,
}

impl Buffer {
    pub(crate) fn end(&self) -> Lsn {
        self.base.saturating_add(self.bytes.len() as u64)
    }

    /// The record at `lsn`, when it is in here.
    fn record(&self, lsn: Lsn) -> Option<(Header, &[u8])> {
        let at = usize::try_from(lsn.checked_sub(self.base)?).ok()?;
        let header = Header::read(self.bytes.get(at..)?.first_chunk::<HEADER>()?)?;
        let payload = self.bytes.get(at + HEADER..)?.get(..header.length as usize)?;
        Some((header, payload))
    }
}

/// Closed buffers, which the writer has or gets, and the one that is filled.
#[derive(Default)]
pub(crate) struct Tail {
    closed: VecDeque<Arc<Buffer>>,
    /// What lies before is in its file already, though perhaps not safe there.
    written: Lsn,
    open: Option<Buffer>,
    spare: Vec<Vec<u8>>,
}

impl Tail {
    /// Adds sealed records behind all others.
    pub(crate) fn push(&mut self, segment: u64, lsn: Lsn, bytes: &[u8]) {
        let spare = &mut self.spare;
        let open = self.open.get_or_insert_with(|| Buffer {
            segment,
            base: lsn,
            bytes: spare.pop().unwrap_or_default(),
        });
        open.bytes.extend_from_slice(bytes);
    }

    /// True when the next record begins a buffer.
    pub(crate) const fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// True when the buffer that is filled has had enough.
    pub(crate) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.bytes.len() >= FULL)
    }

    /// Ends the buffer that is filled; its first record will say that everything before `durable` is safe.
    pub(crate) fn close(&mut self, durable: Lsn) {
        let Some(mut open) = self.open.take() else { return };
        let (segment, base) = (open.segment, open.base);
        if let Some(place) = open.bytes.first_chunk_mut::<HEADER>()
            && let Some(header) = Header::read(place)
            && header.kind == Kind::Group
        {
            *place = Header { sequence: durable, ..header }.encode();
            record::seal(place, segment, base);
        }
        self.closed.push_back(Arc::new(open));
    }

    /// What is to be written.
    pub(crate) fn unwritten(&self) -> Vec<Arc<Buffer>> {
        self.closed.iter().filter(|buffer| buffer.end() > self.written).cloned().collect()
    }

    /// True when something is to be written.
    pub(crate) fn has_work(&self) -> bool {
        self.open.is_some() || self.closed.back().is_some_and(|last| last.end() > self.written)
    }

    /// Everything before `lsn` is in its file.
    pub(crate) fn note_written(&mut self, lsn: Lsn) {
        self.written = self.written.max(lsn);
    }

    /// Lets go what ends before `lsn` or there.
    pub(crate) fn release(&mut self, lsn: Lsn) {
        while let Some(buffer) = self.closed.pop_front_if(|buffer| buffer.end() <= lsn) {
            if let Ok(Buffer { mut bytes, .. }) = Arc::try_unwrap(buffer)
                && self.spare.len() < SPARES
                && bytes.capacity() <= 2 * FULL
            {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// A record that is in memory still.
    pub(crate) fn record(&self, lsn: Lsn) -> Option<(Header, &[u8])> {
        if let Some(open) = &self.open
            && lsn >= open.base
        {
            return open.record(lsn);
        }
        let at = self.closed.partition_point(|buffer| buffer.base <= lsn).checked_sub(1)?;
        self.closed.get(at)?.record(lsn)
    }

    /// All that lies behind `lsn` is to be written anew, into the segments that `segment_of` names.
    pub(crate) fn rewrite(&mut self, lsn: Lsn, segment_of: impl Fn(Lsn) -> u64) {
        self.written = lsn;
        let all: Vec<Arc<Buffer>> = self.closed.drain(..).collect();
        for buffer in all {
            let safe = usize::try_from(lsn.saturating_sub(buffer.base)).unwrap_or(usize::MAX);
            let Some(bytes) = buffer.bytes.get(safe..).filter(|bytes| !bytes.is_empty()) else { continue };
            let base = buffer.base.max(lsn);
            let mut anew = Buffer { segment: segment_of(base), base, bytes: bytes.to_vec() };
            seal_all(&mut anew.bytes, anew.segment, base);
            self.closed.push_back(Arc::new(anew));
        }
    }
}

/// Seals the records in `bytes`, the first of which lies at `lsn`.
pub(crate) fn seal_all(bytes: &mut [u8], segment: u64, lsn: Lsn) {
    let mut at = 0;
    while let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEADER>) {
        let Some(header) = Header::read(place) else { break };
        record::seal(place, segment, lsn.saturating_add(at as u64));
        at = at.saturating_add(usize::try_from(header.size()).unwrap_or(usize::MAX));
    }
}

/// The records in `bytes`: where each begins, and its header and payload.
pub(crate) fn records(bytes: &[u8]) -> impl Iterator<Item = (usize, Header, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin: usize = at;
        let header = Header::read(bytes.get(begin..)?.first_chunk::<HEADER>()?)?;
        let payload = bytes.get(begin.checked_add(HEADER)?..)?.get(..header.length as usize)?;
        at = begin.checked_add(usize::try_from(header.size()).ok()?)?;
        Some((begin, header, payload))
    })
}
