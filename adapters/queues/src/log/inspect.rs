//! Looking at a log from outside, whoever has it; nothing is changed.

use std::io;
use std::sync::Arc;

use crate::log::record::{Header, Kind};
use crate::log::recovery::{Damage, damage, last_end, read_header};
use crate::log::scan::{Found, Scan};
use crate::log::segment::{Headed, Name, SEGMENT_HEADER, Segment, VERSION};
use crate::log::store::{Store, StoreFile};
use crate::log::{LogError, Lsn};

/// So often a log is read on because files went while it was read; then it is said as it is.
const PASSES: u32 = 100;

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
    let mut inspection = Inspection::default();
    walk(store, &mut |step| match step {
        Step::Begins { name, .. } => {
            let (file, base) = (name.file(), name.base);
            inspection.segments.push(Inspected { file, base, end: base, ..Inspected::default() });
        }
        Step::Record { name, lsn, header, payload } => {
            let Some(found) = inspection.segments.last_mut() else { return };
            let Header { kind, last, queue, sequence, .. } = *header;
            let offset = Segment::new(name).offset(lsn);
            each(Entry { file: &found.file, offset, lsn, kind, last, queue, sequence, payload });
            found.records += 1;
            found.end = lsn.saturating_add(header.size());
        }
        Step::Damaged { damage, .. } => inspection.damage.push(damage),
        Step::Ends { ended, .. } => {
            if let Some(found) = inspection.segments.last_mut() {
                found.ended = ended;
            }
        }
        Step::Vanished => drop(inspection.segments.pop()),
    })?;
    Ok(inspection)
}

/// Reads every record of the log in `store`: whether all is as it was written.
///
/// # Errors
/// As [`inspect`].
pub fn verify(store: &dyn Store) -> Result<Inspection, LogError> {
    inspect(store, &mut |_| {})
}

/// What is met on the way through a log, file by file.
pub(crate) enum Step<'s> {
    /// A file.
    Begins { name: Name, file: &'s Arc<dyn StoreFile> },
    /// A record in it.
    Record { name: Name, lsn: Lsn, header: &'s Header, payload: &'s [u8] },
    /// What is no record: from this place on, with its header when that is whole.
    Damaged { damage: Damage, from: Lsn, header: Option<Header> },
    /// The file ends here, because it says so or the next one begins; or for now. Then it may go on with more records.
    Ends { end: Lsn, ended: bool },
    /// The server has made away with the file while it was read.
    Vanished,
}

/// What else was found on the way.
#[derive(Default)]
pub(crate) struct Walked {
    /// What was written last and is not complete.
    pub(crate) torn: Option<Damage>,
    /// Files that are there, when others have gone unread meanwhile: what lies elsewhere does not count any more.
    pub(crate) remaining: Option<Vec<Name>>,
}

/// The segments in `store`, in their order.
pub(crate) fn names(store: &dyn Store) -> Result<Vec<Name>, LogError> {
    let list = store.list().map_err(|error| LogError::io("cannot list", "the log's directory", error))?;
    let mut names: Vec<Name> = list.iter().filter_map(|file| Name::parse(file)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Goes through all records. A server that runs meanwhile may make away with a file only when everything that counts in
/// it lies behind all others; so, when one has gone, what came to the end meanwhile is read, too.
pub(crate) fn walk(store: &dyn Store, each: &mut dyn FnMut(Step<'_>)) -> Result<Walked, LogError> {
    let mut walked = Walked::default();
    let mut at: Option<(Name, Lsn)> = None;
    for pass in 0..PASSES {
        let names = names(store)?;
        let mut vanished = false;
        let successors = names.iter().skip(1).map(|name| Some(name.base)).chain([None]);
        for (name, limit) in names.iter().copied().zip(successors) {
            let begun = at.filter(|(last, _)| *last == name).map(|(_, end)| end);
            let from = begun.unwrap_or(name.base);
            let is_behind = at.is_none_or(|(last, _)| name >= last);
            if !is_behind || limit.is_some_and(|limit| limit <= from) {
                continue;
            }
            match one(store, name, (begun, limit), each) {
                Ok(End::Read(end, torn)) => {
                    at = Some((name, end));
                    walked.torn = torn;
                }
                Ok(End::Version(found)) => {
                    return Err(LogError::Version { file: name.file(), found, known: VERSION });
                }
                Ok(End::Vanished) => vanished = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => vanished = true,
                Err(error) => return Err(LogError::io("cannot read", name.file(), error)),
            }
        }
        if pass > 0 {
            walked.remaining = Some(names);
        }
        if !vanished {
            break;
        }
    }
    Ok(walked)
}

/// How the way through a file ended.
enum End {
    Read(Lsn, Option<Damage>),
    Version(u32),
    Vanished,
}

/// The server has made away with the file. It does so before it writes anything else into it.
fn is_gone(store: &dyn Store, name: Name) -> bool {
    store.open(&name.file()).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Goes through a file, from where it was left before, to where its successor begins.
fn one(
    store: &dyn Store,
    name: Name,
    (begun, limit): (Option<Lsn>, Option<Lsn>),
    each: &mut dyn FnMut(Step<'_>),
) -> io::Result<End> {
    let file = store.open(&name.file())?;
    let headed = read_header(&*file, name)?;
    if let Headed::Version(found) = headed {
        return Ok(End::Version(found));
    }
    let (bound, torn) = match limit {
        Some(limit) => (limit, None),
        None => {
            let last = last_end(&file, name)?;
            (last.end, last.torn.map(|torn| damage(name, last.end, torn, None)))
        }
    };
    // What was read may be another segment's by now, header and all.
    if is_gone(store, name) {
        return Ok(End::Vanished);
    }
    if bound <= name.base {
        return Ok(End::Read(name.base, torn));
    }
    if begun.is_none_or(|begun| begun == name.base) {
        each(Step::Begins { name, file: &file });
        if headed == Headed::Damaged {
            let damage = Damage { file: name.file(), offset: 0, bytes: SEGMENT_HEADER, copy: None };
            each(Step::Damaged { damage, from: name.base, header: None });
        }
    }
    let mut scan = Scan::new(Arc::clone(&file), name, bound);
    scan.skip_to(begun.unwrap_or(name.base));
    let mut ended = limit.is_some();
    while let Some(next) = scan.next()? {
        match next {
            Found::Record(lsn, header) => {
                each(Step::Record { name, lsn, header: &header, payload: scan.payload() });
                if header.kind == Kind::Seal {
                    ended = true;
                    break;
                }
            }
            Found::Damaged { from, to, header, .. } => {
                // Perhaps it is another segment's by now.
                if is_gone(store, name) {
                    each(Step::Vanished);
                    return Ok(End::Vanished);
                }
                // Perhaps it was being written, and read before all that it is in was there.
                let mut again = Scan::new(Arc::clone(&file), name, bound);
                again.skip_to(from);
                if again.next()? != Some(next) {
                    again.skip_to(from);
                    scan = again;
                    continue;
                }
                each(Step::Damaged { damage: damage(name, from, to, None), from, header });
            }
        }
    }
    each(Step::Ends { end: scan.at(), ended });
    Ok(End::Read(scan.at(), torn))
}
