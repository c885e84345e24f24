//! Looking at a log from outside, whoever has it; nothing is changed.

use std::io;
use std::sync::Arc;

use crate::log::record::{Header, Kind};
use crate::log::recovery::{Damage, damage, last_end, read_header};
use crate::log::scan::{Found, Scan};
use crate::log::segment::{Headed, Name, SEGMENT_HEADER, Segment, VERSION};
use crate::log::store::Store;
use crate::log::{LogError, Lsn};

/// A record, where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'e> {
    /// The file.
    pub file: &'e str,
    /// Where in it.
    pub offset: u64,
    /// Its place in the stream.
    pub lsn: Lsn,
    /// What it says.
    pub kind: Kind,
    /// The last one of its commit.
    pub last: bool,
    /// Queue, owner or body.
    pub queue: u64,
    /// Sequence, or what the kind says.
    pub sequence: u64,
    /// The rest.
    pub payload: &'e [u8],
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Each file, in the order of the stream.
    pub segments: Vec<Inspected>,
    /// What is no record though it was one.
    pub damage: Vec<Damage>,
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspected {
    /// The file.
    pub file: String,
    /// LSN of the first record.
    pub base: Lsn,
    /// Behind the last one.
    pub end: Lsn,
    /// How many.
    pub records: u64,
    /// It is full; or was left behind, and the next one says where it ends.
    pub ended: bool,
}

/// Reads every record of the log in `store` and hands it to `each`. Beside a running server what is being written may be
/// seen in part; that is no damage.
///
/// # Errors
/// When a file is of another version, or the system refuses.
pub fn inspect(store: &dyn Store, each: &mut dyn FnMut(Entry<'_>)) -> Result<Inspection, LogError> {
    let list = store.list().map_err(|error| LogError::io("cannot list", "the log's directory", error))?;
    let mut names: Vec<Name> = list.iter().filter_map(|file| Name::parse(file)).collect();
    names.sort_unstable();
    let mut inspection = Inspection::default();
    let successors = names.iter().skip(1).map(|name| Some(name.base)).chain([None]);
    for (name, limit) in names.iter().copied().zip(successors) {
        if limit.is_some_and(|limit| limit <= name.base) {
            continue;
        }
        match one(store, name, limit, each, &mut inspection.damage) {
            Ok(found) => inspection.segments.push(found?),
            // The server has let go of it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LogError::io("cannot read", name.file(), error)),
        }
    }
    Ok(inspection)
}

/// Reads every record of the log in `store`: whether all is as it was written.
///
/// # Errors
/// As [`inspect`].
pub fn verify(store: &dyn Store) -> Result<Inspection, LogError> {
    inspect(store, &mut |_| {})
}

fn one(
    store: &dyn Store,
    name: Name,
    limit: Option<Lsn>,
    each: &mut dyn FnMut(Entry<'_>),
    damages: &mut Vec<Damage>,
) -> io::Result<Result<Inspected, LogError>> {
    let file = store.open(&name.file())?;
    let called = name.file();
    match read_header(&*file, name)? {
        Headed::Version(found) => {
            return Ok(Err(LogError::Version { file: called, found, known: VERSION }));
        }
        Headed::Damaged => {
            damages.push(Damage { file: called.clone(), offset: 0, bytes: SEGMENT_HEADER, copy: None });
        }
        Headed::Sound => {}
    }
    let bound = match limit {
        Some(limit) => limit,
        None => last_end(&file, name)?.end,
    };
    let segment = Segment::new(name);
    let mut found = Inspected { file: called, base: name.base, end: name.base, ..Inspected::default() };
    let mut scan = Scan::new(Arc::clone(&file), name, bound);
    while let Some(next) = scan.next()? {
        match next {
            Found::Record(lsn, header) => {
                let Header { kind, last, queue, sequence, .. } = header;
                let (offset, payload) = (segment.offset(lsn), scan.payload());
                each(Entry { file: &found.file, offset, lsn, kind, last, queue, sequence, payload });
                found.records += 1;
                found.end = scan.at();
                if kind == Kind::Seal {
                    found.ended = true;
                    break;
                }
            }
            Found::Damaged { from, to, .. } => damages.push(damage(name, from, to, None)),
        }
    }
    found.ended |= limit.is_some();
    Ok(Ok(found))
}
