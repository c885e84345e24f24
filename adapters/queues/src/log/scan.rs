//! The records of a file, one after the other, whatever happened to it.

use std::io;
use std::sync::Arc;

use crate::log::Lsn;
use crate::log::record::{HEADER, Header};
use crate::log::segment::{Name, SEGMENT_HEADER};
use crate::log::store::{StoreFile, read_full};

/// Bytes read at once.
const STEP: usize = 1 << 20;

/// A page of nothing: no header begins in it, unless it reaches beyond.
const BLANK: [u8; 4096] = [0; 4096];

/// Walks over the records of a segment.
pub(crate) struct Scan {
    file: Arc<dyn StoreFile>,
    name: Name,
    at: Lsn,
    end: Lsn,
    bytes: Vec<u8>,
    /// Where `bytes` begins.
    base: Lsn,
    /// Bytes in the file, once it was asked.
    length: Option<u64>,
    /// The payload of the record that was found last, in `bytes`.
    payload: std::ops::Range<usize>,
}

/// What lies at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record as it was written.
    Record(Lsn, Header),
    /// Bytes that are no such record, up to the next one or, when `ends`, as far as there is anything; what the header
    /// says, when it is whole.
    Damaged { from: Lsn, to: Lsn, ends: bool, header: Option<Header> },
}

impl Scan {
    /// From the segment's first record to `end`, which may be more than the file has.
    pub(crate) const fn new(file: Arc<dyn StoreFile>, name: Name, end: Lsn) -> Self {
        Self {
            file,
            name,
            at: name.base,
            end,
            bytes: Vec::new(),
            base: name.base,
            length: None,
            payload: 0..0,
        }
    }

    /// Goes on at a record that lies further on.
    pub(crate) const fn skip_to(&mut self, lsn: Lsn) {
        self.at = lsn;
    }

    /// Where the next record would be.
    pub(crate) const fn at(&self) -> Lsn {
        self.at
    }

    /// The payload of the record that was found last.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload.clone()).unwrap_or_default()
    }

    /// What comes next; nothing at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let from = self.at;
        if let Some(header) = self.header(from)? {
            let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
            let length = header.length as usize;
            let bytes = self.get(from, size)?;
            let payload = bytes.get(HEADER..).and_then(|rest| rest.get(..length));
            let sound = payload.is_some_and(|payload| crc32c::crc32c(payload) == header.payload_crc);
            self.at = from.saturating_add(header.size());
            if sound {
                let begin = usize::try_from(from.saturating_sub(self.base)).unwrap_or(usize::MAX) + HEADER;
                self.payload = begin..begin + length;
                return Ok(Some(Found::Record(from, header)));
            }
            return Ok(Some(Found::Damaged { from, to: self.at, ends: false, header: Some(header) }));
        }
        let mut at = from.saturating_add(8);
        while at < self.end {
            if self.get(at, BLANK.len())? == BLANK {
                at = at.saturating_add((BLANK.len() - HEADER + 8) as u64);
                continue;
            }
            if self.get(at, HEADER)?.len() < HEADER {
                break;
            }
            if self.header(at)?.is_some() {
                self.at = at;
                return Ok(Some(Found::Damaged { from, to: at, ends: false, header: None }));
            }
            at = at.saturating_add(8);
        }
        self.at = self.end;
        let to = at.min(self.end);
        Ok(Some(Found::Damaged { from, to, ends: true, header: None }))
    }

    /// The header at `lsn`, when it is one.
    fn header(&mut self, lsn: Lsn) -> io::Result<Option<Header>> {
        let (id, bytes) = (self.name.id, self.get(lsn, HEADER)?);
        Ok(bytes.first_chunk::<HEADER>().and_then(|bytes| Header::decode(bytes, id, lsn)))
    }

    /// `length` bytes at `lsn`, or as many as there are.
    fn get(&mut self, lsn: Lsn, length: usize) -> io::Result<&[u8]> {
        let skip = usize::try_from(lsn.saturating_sub(self.base)).unwrap_or(usize::MAX);
        if lsn < self.base || skip.saturating_add(length) > self.bytes.len() {
            let in_file = match self.length {
                Some(length) => length,
                None => *self.length.insert(self.file.len()?),
            };
            let offset = SEGMENT_HEADER.saturating_add(lsn.saturating_sub(self.name.base));
            let left = usize::try_from(in_file.saturating_sub(offset)).unwrap_or(usize::MAX);
            let want = length.max(STEP).min(left);
            if lsn >= self.base && skip.saturating_add(want) <= self.bytes.len() {
                // That is all there is.
                return Ok(self.bytes.get(skip..).unwrap_or_default());
            }
            let kept = self.bytes.len().saturating_sub(skip);
            if lsn >= self.base && kept > 0 {
                self.bytes.drain(..skip);
            } else {
                self.bytes.clear();
            }
            self.base = lsn;
            let have = self.bytes.len();
            self.bytes.resize(want, 0);
            let rest = self.bytes.get_mut(have..).unwrap_or_default();
            let read = read_full(&*self.file, rest, offset.saturating_add(have as u64))?;
            self.bytes.truncate(have + read);
        }
        let skip = usize::try_from(lsn.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let end = skip.saturating_add(length).min(self.bytes.len());
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }
}
