//! Reading everything at the start.

use std::io;
use std::sync::Arc;

use crate::log::catalog::Catalog;
use crate::log::record::{HEADER, Header, Kind, end_commit, seal};
use crate::log::scan::{Found, Scan};
use crate::log::segment::{Headed, Name, SEGMENT_HEADER, Segment, VERSION};
use crate::log::segments::Segments;
use crate::log::state::State;
use crate::log::store::{Store, StoreFile, read_full, write_full};
use crate::log::{LogError, Lsn};

/// What was found when the log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Files.
    pub segments: u64,
    /// Records that were read.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is no record though it was one, each set aside in a file of its own.
    pub damage: Vec<Damage>,
    /// What was written last and was not complete; nobody was told that it was safe.
    pub cut: Option<Damage>,
    /// Messages of which a part of the body is damaged: queue and sequence. They were taken out.
    pub lost: Vec<(u64, u64)>,
}

/// Bytes of a file that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The file with a copy of them, when there is one.
    pub copy: Option<String>,
}

/// Where a segment's records end.
pub(crate) struct End {
    /// Behind the last record that counts.
    pub(crate) end: Lsn,
    /// A valid record lies behind it, which does not count.
    pub(crate) torn: Option<Lsn>,
}

/// Reads all segments; what they come to.
pub(crate) fn recover(store: &dyn Store) -> Result<(State, Recovery), LogError> {
    let mut recovery = Recovery::default();
    let mut catalog = Catalog { learning: true, ..Catalog::default() };
    let (names, next_id) = tidy(store)?;
    catalog.segments = Segments::new(next_id);
    let mut end = 0;
    let successors = names.iter().skip(1).map(|name| Some(name.base)).chain([None]);
    for (name, limit) in names.iter().copied().zip(successors) {
        let failed = |error| LogError::io("cannot read", name.file(), error);
        let file = store.open(&name.file()).map_err(failed)?;
        let headed = read_header(&*file, name).map_err(failed)?;
        if let Headed::Version(found) = headed {
            return Err(LogError::Version { file: name.file(), found, known: VERSION });
        }
        let bound = match limit {
            Some(limit) => limit,
            None => {
                let last = last_end(&file, name).map_err(failed)?;
                if let Some(torn) = last.torn {
                    let copy = set_aside(store, &file, name, last.end, torn);
                    recovery.cut = Some(damage(name, last.end, torn, copy));
                }
                last.end
            }
        };
        if bound <= name.base {
            // Nothing in it counts: it was written anew elsewhere, or never.
            store.remove(&name.file()).map_err(|error| LogError::io("cannot remove", name.file(), error))?;
            end = end.max(bound);
            continue;
        }
        if headed == Headed::Damaged {
            let copy = copy(store, &file, name, 0, SEGMENT_HEADER);
            let (file, bytes) = (name.file(), SEGMENT_HEADER);
            recovery.damage.push(Damage { file, offset: 0, bytes, copy });
        }
        recovery.segments += 1;
        catalog.segments.push(Segment { file: Some(Arc::clone(&file)), end: bound, ..Segment::new(name) });
        let read = read(store, &file, name, bound, &mut catalog, &mut recovery).map_err(failed)?;
        if let Some(segment) = catalog.segments.last_mut() {
            segment.end = read;
            if !segment.sealed {
                let spared = recovery.cut.as_ref().is_none_or(|cut| cut.copy.is_some());
                seal_at(&*file, name, read, spared)
                    .map_err(|error| LogError::io("cannot end", name.file(), error))?;
                segment.sealed = true;
            }
        }
        end = end.max(read);
    }
    recovery.lost = lost(&catalog);
    catalog.bodies.sweep(&mut catalog.segments);
    catalog.learning = false;
    catalog.segments.begin(end);
    Ok((State::new(catalog, end), recovery))
}

/// The segments in their order, and an id that none of them had; removes what only waited to be written again.
fn tidy(store: &dyn Store) -> Result<(Vec<Name>, u64), LogError> {
    let mut names = Vec::new();
    let mut next_id = 1;
    for file in store.list().map_err(|error| LogError::io("cannot list", "the log's directory", error))? {
        if let Some(free) = Name::parse_free(&file) {
            next_id = next_id.max(free.id.saturating_add(1));
            store.remove(&file).map_err(|error| LogError::io("cannot remove", file, error))?;
        } else if let Some(name) = Name::parse(&file) {
            next_id = next_id.max(name.id.saturating_add(1));
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok((names, next_id))
}

fn read(
    store: &dyn Store,
    file: &Arc<dyn StoreFile>,
    name: Name,
    bound: Lsn,
    catalog: &mut Catalog,
    recovery: &mut Recovery,
) -> io::Result<Lsn> {
    let mut scan = Scan::new(Arc::clone(file), name, bound);
    let mut end = name.base;
    let mut spread = Vec::new();
    while let Some(found) = scan.next()? {
        match found {
            Found::Record(lsn, header) => {
                recovery.records += 1;
                recovery.bytes += header.size();
                catalog.apply(&header, scan.payload(), lsn, &mut spread);
                // The records that say these follow in the same commit.
                spread.clear();
                end = scan.at();
                if header.kind == Kind::Seal {
                    return Ok(end);
                }
            }
            Found::Damaged { from, to, .. } => {
                let copy = set_aside(store, file, name, from, to);
                recovery.damage.push(damage(name, from, to, copy));
                end = to;
            }
        }
    }
    if end < bound {
        recovery.damage.push(damage(name, end, bound, None));
    }
    let mut header = [0; HEADER];
    let read = read_full(&**file, &mut header, Segment::new(name).offset(bound))?;
    let sealed = read == HEADER
        && Header::decode(&header, name.id, bound).is_some_and(|header| header.kind == Kind::Seal);
    if let Some(segment) = catalog.segments.last_mut().filter(|_| sealed) {
        segment.sealed = true;
    }
    Ok(bound)
}

/// Where the records of the segment that was written last end.
pub(crate) fn last_end(file: &Arc<dyn StoreFile>, name: Name) -> io::Result<End> {
    let mut scan = Scan::new(Arc::clone(file), name, Lsn::MAX);
    // Everything before it was safe once.
    let mut safe = name.base;
    let mut complete = name.base;
    let mut last = name.base;
    // Where something is wrong, and what was complete before.
    let mut wrong: Vec<(Lsn, Lsn)> = Vec::new();
    while let Some(found) = scan.next()? {
        match found {
            Found::Record(_, header) => {
                last = scan.at();
                if header.kind == Kind::Group {
                    safe = safe.max(header.sequence);
                }
                if header.last {
                    complete = last;
                }
                if header.kind == Kind::Seal {
                    break;
                }
            }
            Found::Damaged { from, to, ends, .. } => {
                wrong.push((from, complete));
                if !ends {
                    last = to;
                }
            }
        }
    }
    let end = wrong.iter().find(|(from, _)| *from >= safe).map_or(complete, |(_, complete)| *complete);
    Ok(End { end, torn: (last > end).then_some(last) })
}

/// The messages that have lost a part of their body.
pub(crate) fn lost(catalog: &Catalog) -> Vec<(u64, u64)> {
    let mut lost = Vec::new();
    for (queue, index) in &catalog.queues {
        for (sequence, (body, length)) in &index.bodies {
            if catalog.bodies.len(*body) != Some(*length) {
                lost.push((*queue, *sequence));
            }
        }
    }
    lost.sort_unstable();
    lost
}

/// Says in the file that it ends here; what lies behind is cut off when it is `spared` elsewhere.
fn seal_at(file: &dyn StoreFile, name: Name, end: Lsn, spared: bool) -> io::Result<()> {
    let mut header = Header::of(Kind::Seal, 0, end, &[]).encode();
    end_commit(&mut header);
    seal(&mut header, name.id, end);
    let at = Segment::new(name).offset(end);
    write_full(file, &header, at)?;
    file.sync()?;
    if spared {
        // When it cannot be, that costs nothing but room.
        let _ = file.cut(at.saturating_add(HEADER as u64));
    }
    Ok(())
}

pub(crate) fn read_header(file: &dyn StoreFile, name: Name) -> io::Result<Headed> {
    let mut header = [0; SEGMENT_HEADER as usize];
    let read = read_full(file, &mut header, 0)?;
    Ok(name.check(header.get(..read).unwrap_or_default()))
}

pub(crate) fn damage(name: Name, from: Lsn, to: Lsn, copy: Option<String>) -> Damage {
    let segment = Segment::new(name);
    Damage { file: name.file(), offset: segment.offset(from), bytes: to.saturating_sub(from), copy }
}

fn set_aside(store: &dyn Store, file: &Arc<dyn StoreFile>, name: Name, from: Lsn, to: Lsn) -> Option<String> {
    copy(store, file, name, Segment::new(name).offset(from), to.saturating_sub(from))
}

/// Copies bytes into a file of their own; nobody depends on it.
fn copy(store: &dyn Store, file: &Arc<dyn StoreFile>, name: Name, offset: u64, bytes: u64) -> Option<String> {
    let to = format!("{}.{offset:x}.corrupt", name.file());
    let copy = || {
        let target = store.create(&to, bytes)?;
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < bytes {
            let want = usize::try_from(bytes - done).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            let read = read_full(&**file, part, offset + done)?;
            write_full(&*target, part.get(..read).unwrap_or_default(), done)?;
            done += read as u64;
            if read < want {
                break;
            }
        }
        target.sync()
    };
    let copied: io::Result<()> = copy();
    copied.is_ok().then_some(to)
}
