//! A file of the log: its name, its header, and what is live in it.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | `LINKSLOG` |
//! | 8..12 | version of the format |
//! | 12..16 | checksum (CRC-32C) of the other bytes |
//! | 16..24 | id: counts up, never used again |
//! | 24..32 | base: the LSN of the first record |
//! | 32..64 | zero |
//!
//! Records follow. The name says id and base, too, so that a damaged header takes nothing with it.

use std::sync::Arc;

use crate::log::Lsn;
use crate::log::record::number;
use crate::log::store::StoreFile;

/// Bytes before the first record.
pub(crate) const SEGMENT_HEADER: u64 = 64;

/// The format of today.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"LINKSLOG";
const SUFFIX: &str = ".log";
/// What a file is called that waits to be used again.
pub(crate) const FREE: &str = ".free";

/// Which segment a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) base: Lsn,
    pub(crate) id: u64,
}

impl Name {
    /// The file's name.
    pub(crate) fn file(self) -> String {
        format!("{:016x}-{:016x}{SUFFIX}", self.id, self.base)
    }

    /// The name of the file once it waits to be used again.
    pub(crate) fn free(self) -> String {
        format!("{:016x}-{:016x}{FREE}", self.id, self.base)
    }

    /// What the file of this name holds; none when it is no segment.
    pub(crate) fn parse(file: &str) -> Option<Self> {
        Self::parts(file.strip_suffix(SUFFIX)?)
    }

    /// What the file of this name once held.
    pub(crate) fn parse_free(file: &str) -> Option<Self> {
        Self::parts(file.strip_suffix(FREE)?)
    }

    fn parts(stem: &str) -> Option<Self> {
        let (id, base) = stem.split_once('-')?;
        let number = |hex: &str| (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?;
        Some(Self { base: number(base)?, id: number(id)? })
    }

    /// The first bytes of the file.
    pub(crate) fn header(self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        let fields: [(usize, &[u8]); 4] = [
            (0, MAGIC),
            (8, &VERSION.to_le_bytes()),
            (16, &self.id.to_le_bytes()),
            (24, &self.base.to_le_bytes()),
        ];
        for (at, field) in fields {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        }
        let crc = header_crc(&bytes).to_le_bytes();
        if let Some(place) = bytes.get_mut(12..16) {
            place.copy_from_slice(&crc);
        }
        bytes
    }

    /// What the first bytes of the file say.
    pub(crate) fn check(self, bytes: &[u8]) -> Headed {
        let Some(bytes) = bytes.first_chunk::<{ SEGMENT_HEADER as usize }>() else { return Headed::Damaged };
        let crc = header_crc(bytes).to_le_bytes();
        if !bytes.starts_with(MAGIC) || bytes.get(12..16) != Some(crc.as_slice()) {
            return Headed::Damaged;
        }
        let version = bytes.get(8..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |v| u32::from_le_bytes(*v));
        if version != VERSION {
            return Headed::Version(version);
        }
        let number = |at: usize| number(bytes.get(at..).unwrap_or_default());
        if (number(16), number(24)) == (self.id, self.base) { Headed::Sound } else { Headed::Damaged }
    }
}

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headed {
    /// It is this segment.
    Sound,
    /// It is of another format.
    Version(u32),
    /// It cannot be read, or is another segment's.
    Damaged,
}

fn header_crc(bytes: &[u8; SEGMENT_HEADER as usize]) -> u32 {
    let (head, rest) = bytes.split_at(12);
    crc32c::crc32c_append(crc32c::crc32c(head), rest.get(4..).unwrap_or_default())
}

/// What the log knows of one of its files.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) name: Name,
    /// Behind its last record.
    pub(crate) end: Lsn,
    /// Bytes of records that are live.
    pub(crate) live: u64,
    /// Marks whose last record is in it.
    pub(crate) marks: u64,
    /// Records in it that say that messages are gone.
    pub(crate) gone: u64,
    /// Queues that have had a message in it.
    pub(crate) queues: Vec<u64>,
    /// It ends with a record that says so; if not, its successor is what says where it ends.
    pub(crate) sealed: bool,
    /// None until the file exists.
    pub(crate) file: Option<Arc<dyn StoreFile>>,
}

impl Segment {
    /// One without records.
    pub(crate) const fn new(name: Name) -> Self {
        Self {
            name,
            end: name.base,
            live: 0,
            marks: 0,
            gone: 0,
            queues: Vec::new(),
            sealed: false,
            file: None,
        }
    }

    /// Bytes of its records.
    pub(crate) const fn size(&self) -> u64 {
        self.end.saturating_sub(self.name.base)
    }

    /// Where in the file `lsn` lies.
    pub(crate) const fn offset(&self, lsn: Lsn) -> u64 {
        SEGMENT_HEADER + lsn.saturating_sub(self.name.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let name = Name { base: 0xabc0, id: 0x12 };
        assert_eq!(name.file(), "0000000000000012-000000000000abc0.log");
        assert_eq!(Name::parse(&name.file()), Some(name));
        assert_eq!(Name::parse_free(&name.free()), Some(name));
        for other in ["lock", "12-abc0.log", &name.free(), "0000000000000012-000000000000abc0.log.corrupt"] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_says_whose_it_is() {
        let name = Name { base: 0xabc0, id: 0x12 };
        let header = name.header();
        assert_eq!(name.check(&header), Headed::Sound);
        assert_eq!(Name { base: 0xabc8, id: 0x12 }.check(&header), Headed::Damaged);
        assert_eq!(name.check(&header[..63]), Headed::Damaged);
        for bit in 0..header.len() * 8 {
            let mut bytes = header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(name.check(&bytes), Headed::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_told() {
        let name = Name { base: 0, id: 1 };
        let mut bytes = name.header();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = header_crc(&bytes).to_le_bytes();
        bytes[12..16].copy_from_slice(&crc);
        assert_eq!(name.check(&bytes), Headed::Version(2));
    }
}
