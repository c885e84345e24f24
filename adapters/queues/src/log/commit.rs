//! What is to be written together.

use std::ops::Range;

use crate::log::LogError;
use crate::log::marks::Mark;
use crate::log::record::{self, HEADER, Header, Kind, MAX_PAYLOAD};
use crate::log::tail::records;

/// Records that are in the log together or not at all, gathered without any lock; used again for the next.
#[derive(Debug, Default)]
pub struct Commit {
    pub(crate) bytes: Vec<u8>,
    /// Where the last record begins.
    last: usize,
    /// Queue and kind of the last record, when it can take more ranges.
    open: Option<(u64, Kind)>,
    /// Something needs room.
    adds: bool,
}

/// Room that is kept for the next: there may be thousands who commit.
const KEPT: usize = 128 << 10;

impl Commit {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that it takes in the log.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Puts another one behind it, and empties that.
    pub fn join(&mut self, other: &mut Self) {
        if other.is_empty() {
            return;
        }
        self.last = self.bytes.len() + other.last;
        self.open = None;
        self.adds |= other.adds;
        self.bytes.append(&mut other.bytes);
        other.clear();
    }

    /// What of it makes room, which a log always takes: as a commit of its own, that may be written before this one
    /// when this one is written behind it all the same.
    pub fn frees(&self) -> Self {
        self.only(|header| header.kind.frees())
    }

    /// Takes out what it says of these queues, and what is under keys of theirs.
    pub fn forget(&mut self, queues: &Range<u64>) {
        // The number of a body is no queue's.
        let is_theirs = |header: &Header| header.kind != Kind::Chunk && queues.contains(&header.queue);
        if records(&self.bytes).any(|(_, header, _)| is_theirs(&header)) {
            *self = self.only(|header| !is_theirs(header));
        }
    }

    fn only(&self, wanted: impl Fn(&Header) -> bool) -> Self {
        let mut only = Self::new();
        let wanted = records(&self.bytes).filter(|(_, header, _)| wanted(header));
        wanted.for_each(|(_, header, payload)| only.again(&header, payload));
        only
    }

    /// True when a log that has no room refuses it.
    pub const fn adds(&self) -> bool {
        self.adds
    }

    /// Forgets everything; keeps the buffer unless it is large.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        (self.last, self.open, self.adds) = (0, None, false);
    }

    /// The message at `sequence` of `queue`, of which nothing is noted; one that is there already is replaced.
    ///
    /// # Errors
    /// When it is larger than [`MAX_PAYLOAD`].
    pub fn message(&mut self, queue: u64, sequence: u64, payload: &[u8]) -> Result<(), LogError> {
        self.record(Kind::Message, queue, sequence, &[payload])
    }

    /// A message whose body is that of [`Log::body`](crate::log::Log::body), which has `length` bytes.
    ///
    /// # Errors
    /// When what is beside the body is larger than [`MAX_PAYLOAD`].
    pub fn stored(
        &mut self,
        queue: u64,
        sequence: u64,
        (body, length): (u64, u64),
        payload: &[u8],
    ) -> Result<(), LogError> {
        self.record(Kind::Stored, queue, sequence, &[&body.to_le_bytes(), &length.to_le_bytes(), payload])
    }

    /// The messages of `queue` at these sequences are gone.
    pub fn gone(&mut self, queue: u64, sequences: Range<u64>) {
        self.ranges(Kind::Gone, queue, sequences);
    }

    /// All messages of `queue`, and all that is noted of them, are gone.
    pub fn drop_queue(&mut self, queue: u64) {
        self.gone(queue, 0..u64::MAX);
    }

    /// The messages of `queue` at these sequences were given out once more.
    pub fn given(&mut self, queue: u64, sequences: Range<u64>) {
        self.ranges(Kind::Given, queue, sequences);
    }

    /// What is noted of the messages of `queue` at these sequences, instead of what was.
    pub fn mark(&mut self, queue: u64, sequences: Range<u64>, mark: Mark) {
        let mut payload = [0; Mark::SIZE];
        mark.encode(&sequences, &mut payload);
        // Shorter than the limit.
        let _ = self.record(Kind::Mark, queue, 0, &[&payload]);
    }

    /// `value` under `key` of `owner`.
    ///
    /// # Errors
    /// When both together are larger than [`MAX_PAYLOAD`].
    pub fn put(&mut self, owner: u64, key: &[u8], value: &[u8]) -> Result<(), LogError> {
        self.record(Kind::Put, owner, key.len() as u64, &[key, value])
    }

    /// Nothing but that there is something under a short `key` of `owner`: it takes next to no room, and the log takes it
    /// always.
    ///
    /// # Errors
    /// When the key is larger than [`MAX_PAYLOAD`].
    pub fn note(&mut self, owner: u64, key: &[u8]) -> Result<(), LogError> {
        let adds = self.adds;
        let noted = self.put(owner, key, &[]);
        self.adds = adds;
        noted
    }

    /// Nothing is under `key` of `owner` any more.
    ///
    /// # Errors
    /// When the key is larger than [`MAX_PAYLOAD`].
    pub fn delete(&mut self, owner: u64, key: &[u8]) -> Result<(), LogError> {
        self.record(Kind::Delete, owner, 0, &[key])
    }

    /// A part of a large body, from `offset` on. Parts follow each other without gaps.
    ///
    /// # Errors
    /// When the part is larger than [`MAX_PAYLOAD`]; 256 KiB are a good size.
    pub fn chunk(&mut self, body: u64, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
        self.record(Kind::Chunk, body, offset, &[bytes])
    }

    /// A record that already lies in the log, once more.
    pub(crate) fn again(&mut self, header: &Header, payload: &[u8]) {
        let _ = self.record(header.kind, header.queue, header.sequence, &[payload]);
    }

    fn record(&mut self, kind: Kind, queue: u64, sequence: u64, parts: &[&[u8]]) -> Result<(), LogError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > MAX_PAYLOAD {
            return Err(LogError::TooLarge { bytes: length as u64 });
        }
        let payload_crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let header = Header { kind, last: false, length, payload_crc, queue, sequence };
        self.last = self.bytes.len();
        self.open = None;
        self.adds |= kind.adds();
        self.bytes.extend_from_slice(&header.encode());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        Ok(())
    }

    fn ranges(&mut self, kind: Kind, queue: u64, sequences: Range<u64>) {
        let count = sequences.end.saturating_sub(sequences.start);
        if count == 0 {
            return;
        }
        let mut pair = [0; 16];
        let (first, many) = pair.split_at_mut(8);
        first.copy_from_slice(&sequences.start.to_le_bytes());
        many.copy_from_slice(&count.to_le_bytes());
        if self.open != Some((queue, kind)) {
            let _ = self.record(kind, queue, 0, &[]);
            self.open = Some((queue, kind));
        }
        if let Some(place) = self.bytes.get_mut(self.last..).and_then(<[u8]>::first_chunk_mut::<HEADER>)
            && let Some(mut header) = Header::read(place)
        {
            header.length = header.length.saturating_add(16);
            header.payload_crc = crc32c::crc32c_append(header.payload_crc, &pair);
            *place = header.encode();
            self.bytes.extend_from_slice(&pair);
            if header.length as usize + pair.len() > MAX_PAYLOAD {
                self.open = None;
            }
        }
    }

    /// Marks the end of the commit.
    pub(crate) fn finish(&mut self) {
        if let Some(header) = self.bytes.get_mut(self.last..) {
            record::end_commit(header);
        }
    }
}
