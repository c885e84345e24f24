//! A record of the log: its header of 32 bytes, and what kinds there are.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..4 | checksum (CRC-32C) of the segment's id, the record's LSN and the bytes 4..32 |
//! | 4..8 | checksum (CRC-32C) of the payload |
//! | 8..12 | length of the payload |
//! | 12 | kind |
//! | 13 | flags: 1 for the last record of a commit |
//! | 14..16 | zero |
//! | 16..24 | queue, owner or body |
//! | 24..32 | sequence, or what the kind says |
//!
//! The payload follows, filled up with zeros to a multiple of 8 bytes. All numbers are little-endian. The segment's id and
//! the LSN in the checksum keep what lay in a recycled file before from being taken for a record of today.

use crate::log::Lsn;

/// Bytes of a record before its payload.
pub(crate) const HEADER: usize = 32;

/// The most bytes that a record's payload may have.
pub const MAX_PAYLOAD: usize = 256 << 20;

const LAST: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One write begins; the sequence is the LSN up to which everything was synced when it was made. No payload.
    Group,
    /// The segment ends behind this record. No payload.
    Seal,
    /// A message of a queue; the payload is its owner's.
    Message,
    /// A message whose body lies in chunks; the payload is the body's id and its length, 8
    /// bytes each, and its owner's bytes.
    Stored,
    /// Messages of a queue are gone; the payload is ranges: first and count, 8 bytes each.
    Gone,
    /// Messages of a queue were given out; the payload is ranges as those of [`Kind::Gone`].
    Given,
    /// What is noted of messages of a queue: see [`Mark`](crate::log::Mark).
    Mark,
    /// A value under a key of an owner; the sequence is the key's length, the payload key and value.
    Put,
    /// A key of an owner has no value any more; the payload is the key.
    Delete,
    /// A part of a large body; the sequence is its offset in the body.
    Chunk,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Group,
        Self::Seal,
        Self::Message,
        Self::Stored,
        Self::Gone,
        Self::Given,
        Self::Mark,
        Self::Put,
        Self::Delete,
        Self::Chunk,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Group => 1,
            Self::Seal => 2,
            Self::Message => 3,
            Self::Stored => 4,
            Self::Gone => 5,
            Self::Given => 6,
            Self::Mark => 7,
            Self::Put => 8,
            Self::Delete => 9,
            Self::Chunk => 10,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// True when it makes room.
    pub(crate) const fn frees(self) -> bool {
        matches!(self, Self::Gone | Self::Delete)
    }

    /// True when a log that has no room refuses it; the others make room, or take next to none.
    pub(crate) const fn adds(self) -> bool {
        matches!(self, Self::Message | Self::Stored | Self::Put | Self::Chunk)
    }
}

/// The first 32 bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The last record of its commit.
    pub(crate) last: bool,
    /// Bytes of the payload.
    pub(crate) length: u32,
    /// Checksum of the payload.
    pub(crate) payload_crc: u32,
    /// Queue, owner or body.
    pub(crate) queue: u64,
    pub(crate) sequence: u64,
}

impl Header {
    /// A header for `payload`.
    pub(crate) fn of(kind: Kind, queue: u64, sequence: u64, payload: &[u8]) -> Self {
        Self {
            kind,
            last: false,
            length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(payload),
            queue,
            sequence,
        }
    }

    /// Bytes of the whole record.
    pub(crate) const fn size(&self) -> u64 {
        size_of_record(self.length)
    }

    /// The bytes, not sealed yet.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [c0, c1, c2, c3] = self.payload_crc.to_le_bytes();
        let [q0, q1, q2, q3, q4, q5, q6, q7] = self.queue.to_le_bytes();
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.sequence.to_le_bytes();
        let (kind, flags) = (self.kind.code(), if self.last { LAST } else { 0 });
        [
            0, 0, 0, 0, c0, c1, c2, c3, l0, l1, l2, l3, kind, flags, 0, 0, q0, q1, q2, q3, q4, q5, q6, q7,
            s0, s1, s2, s3, s4, s5, s6, s7,
        ]
    }

    /// Reads a header without asking whether it is sealed: for bytes that never left the memory.
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let (_, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let ([kind, flags, zero, nil], rest) = rest.split_first_chunk::<4>()?;
        let (queue, rest) = rest.split_first_chunk::<8>()?;
        let (sequence, _) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes(*length);
        if *flags > LAST || *zero != 0 || *nil != 0 || length as usize > MAX_PAYLOAD {
            return None;
        }
        Some(Self {
            kind: Kind::from_code(*kind)?,
            last: *flags & LAST != 0,
            length,
            payload_crc: u32::from_le_bytes(*crc),
            queue: u64::from_le_bytes(*queue),
            sequence: u64::from_le_bytes(*sequence),
        })
    }

    /// Reads a header that was sealed for this segment and place; none when it was not, or is damaged.
    pub(crate) fn decode(bytes: &[u8; HEADER], segment: u64, lsn: Lsn) -> Option<Self> {
        let header = Self::read(bytes)?;
        let (crc, _) = bytes.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*crc) == checksum(bytes, segment, lsn)).then_some(header)
    }
}

/// Marks the header as the last of its commit; before it is sealed.
pub(crate) fn end_commit(header: &mut [u8]) {
    if let Some(flags) = header.get_mut(13) {
        *flags |= LAST;
    }
}

/// Writes the header's checksum for its segment and place.
pub(crate) fn seal(header: &mut [u8; HEADER], segment: u64, lsn: Lsn) {
    let crc = checksum(header, segment, lsn);
    if let Some(place) = header.first_chunk_mut::<4>() {
        *place = crc.to_le_bytes();
    }
}

fn checksum(header: &[u8; HEADER], segment: u64, lsn: Lsn) -> u32 {
    let mut all = [0_u8; 16 + HEADER - 4];
    let (place, rest) = all.split_at_mut(16);
    let (id, at) = place.split_at_mut(8);
    id.copy_from_slice(&segment.to_le_bytes());
    at.copy_from_slice(&lsn.to_le_bytes());
    if let Some(body) = header.get(4..) {
        rest.copy_from_slice(body);
    }
    crc32c::crc32c(&all)
}

/// Bytes that a record with a payload of `length` bytes takes.
pub(crate) const fn size_of_record(length: u32) -> u64 {
    HEADER as u64 + (length as u64).next_multiple_of(8)
}

/// Ranges of sequences in a payload: first and count, 8 bytes each.
pub(crate) fn ranges(payload: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let (pairs, _) = payload.as_chunks::<16>();
    pairs.iter().map(|pair| (number(pair), number(pair.get(8..).unwrap_or_default())))
}

/// The number that `bytes` begin with; 0 when they are too few.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(segment: u64, lsn: Lsn) -> [u8; HEADER] {
        let mut bytes = Header::of(Kind::Message, 7, 9, b"payload").encode();
        end_commit(&mut bytes);
        seal(&mut bytes, segment, lsn);
        bytes
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header { last: true, ..Header::of(Kind::Message, 7, 9, b"payload") };
        assert_eq!(Header::decode(&sealed(3, 640), 3, 640), Some(header));
        assert_eq!(header.size(), 40);
        for kind in Kind::ALL {
            assert_eq!(Header::read(&Header::of(kind, 1, 2, b"").encode()).map(|h| h.kind), Some(kind));
        }
    }

    #[test]
    fn a_header_of_another_segment_or_place_is_none() {
        assert_eq!(Header::decode(&sealed(3, 640), 4, 640), None);
        assert_eq!(Header::decode(&sealed(3, 640), 3, 648), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..HEADER * 8 {
            let mut bytes = sealed(3, 640);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes, 3, 640), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_header() {
        assert_eq!(Header::decode(&[0; HEADER], 0, 0), None);
    }
}
