//! Reading messages, values and bodies.

use std::sync::Arc;

use crate::log::block::Place;
use crate::log::record::{HEADER, Header, Kind, size_of_record};
use crate::log::segment::Segment;
use crate::log::state::State;
use crate::log::store::{StoreFile, read_full};
use crate::log::{Log, LogError, Lsn, Mark};

/// What lies between two messages and is read rather than passed over.
const GAP: u64 = 16 << 10;
/// Bytes of a file read at once.
const EXTENT: u64 = 1 << 20;

/// Messages that were read together; used again for the next ones.
#[derive(Debug, Default)]
pub struct Window {
    bytes: Vec<u8>,
    read: Vec<Item>,
    /// Messages that cannot be read: sequence, and why.
    pub damaged: Vec<(u64, LogError)>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    sequence: u64,
    mark: Mark,
    body: Option<(u64, u64)>,
    /// Where its record lies in `bytes`.
    at: usize,
    place: Place,
}

/// A message that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read<'w> {
    /// Its sequence.
    pub sequence: u64,
    /// What is noted of it.
    pub mark: Mark,
    /// The body that it has apart, and that one's length.
    pub body: Option<(u64, u64)>,
    /// The owner's bytes.
    pub payload: &'w [u8],
}

/// A part of a file that is read at once.
struct Extent {
    source: Source,
    from: Lsn,
    to: Lsn,
    /// Where it goes.
    at: usize,
    /// Of the window's items.
    items: std::ops::Range<usize>,
}

/// Where records are.
#[derive(Clone)]
struct Source {
    file: Arc<dyn StoreFile>,
    segment: Segment,
}

impl Window {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The messages, in the order of their sequences.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = Read<'_>> {
        self.read.iter().map(|item| {
            let payload = self.bytes.get(item.at + HEADER..).unwrap_or_default();
            let payload = payload.get(..item.place.length as usize).unwrap_or_default();
            let skip = if item.body.is_some() { 16 } else { 0 };
            let payload = payload.get(skip..).unwrap_or_default();
            Read { sequence: item.sequence, mark: item.mark, body: item.body, payload }
        })
    }

    fn clear(&mut self) {
        self.read.clear();
        self.damaged.clear();
    }
}

impl Log {
    /// Reads the live messages of `queue` from sequence `from` on: at most `count`, and no more than fit into `bytes`,
    /// but one at least. What cannot be read is in [`Window::damaged`].
    pub fn read(&self, queue: u64, from: u64, count: usize, bytes: u64, window: &mut Window) {
        window.clear();
        let extents = plan(&self.shared.lock(), queue, from, (count, bytes), window);
        for extent in &extents {
            extent.fetch(window);
        }
        let damaged = &window.damaged;
        if !damaged.is_empty() {
            window.read.retain(|item| damaged.iter().all(|(sequence, _)| *sequence != item.sequence));
        }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, owner: u64, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        let state = self.shared.lock();
        let Some(place) = state.catalog.keys.get(owner, key) else { return Ok(None) };
        let record = fetch(state, place)?;
        Ok(Some(record.get(key.len()..).unwrap_or_default().to_vec()))
    }

    /// The bytes of a body from `offset` on, up to where the part ends that they are in; none behind its end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_body(&self, body: u64, offset: u64) -> Result<Vec<u8>, LogError> {
        let state = self.shared.lock();
        let Some((first, place)) = state.catalog.bodies.at(body, offset) else { return Ok(Vec::new()) };
        let mut bytes = fetch(state, place)?;
        bytes.drain(..usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX).min(bytes.len()));
        Ok(bytes)
    }
}

/// Which parts of files hold the next messages; copies what is in memory still.
fn plan(
    state: &State,
    queue: u64,
    from: u64,
    (count, most): (usize, u64),
    window: &mut Window,
) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let Some(index) = state.catalog.queues.get(&queue) else { return extents };
    let (mut used, mut at) = (0_u64, 0_usize);
    let marked = !index.marks.is_empty();
    for (sequence, place) in index.from(from).take(count) {
        let size = size_of_record(place.length);
        if used > 0 && used.saturating_add(size) > most {
            break;
        }
        used = used.saturating_add(size);
        let mark = if marked { index.marks.get(sequence) } else { Mark::default() };
        let body = index.bodies.get(&sequence).copied();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let mut item = Item { sequence, mark, body, at, place };
        if place.lsn >= state.synced
            && let Some((header, payload)) = state.tail.record(place.lsn)
        {
            window.bytes.resize(window.bytes.len().max(at + length), 0);
            if let Some(room) = window.bytes.get_mut(at..at + HEADER + payload.len()) {
                let (head, body) = room.split_at_mut(HEADER);
                head.copy_from_slice(&header.encode());
                body.copy_from_slice(payload);
            }
            at += length;
            window.read.push(item);
            continue;
        }
        let items = window.read.len();
        // Only while nothing else was put behind it.
        let joins = extents.last_mut().filter(|extent| {
            place.lsn >= extent.to
                && place.lsn - extent.to <= GAP
                && place.lsn < extent.source.segment.end
                && place.lsn.saturating_add(size) - extent.from <= EXTENT
                && extent.items.end == items
        });
        if let Some(extent) = joins {
            item.at = extent.at + usize::try_from(place.lsn - extent.from).unwrap_or(usize::MAX);
            extent.to = place.lsn.saturating_add(size);
            extent.items.end = items + 1;
            at = item.at + length;
            window.read.push(item);
            continue;
        }
        match source(state, place.lsn) {
            Some(source) => {
                let to = place.lsn.saturating_add(size);
                extents.push(Extent { source, from: place.lsn, to, at, items: items..items + 1 });
                at += length;
                window.read.push(item);
            }
            None => window.damaged.push((sequence, missing(place.lsn))),
        }
    }
    window.bytes.resize(window.bytes.len().max(at), 0);
    extents
}

impl Extent {
    fn fetch(&self, window: &mut Window) {
        let length = usize::try_from(self.to - self.from).unwrap_or(usize::MAX);
        let Window { bytes, read, damaged } = window;
        let room = bytes.get_mut(self.at..self.at + length).unwrap_or_default();
        let segment = &self.source.segment;
        if let Err(error) = read_full(&*self.source.file, room, segment.offset(self.from)) {
            let error = LogError::io("cannot read", segment.name.file(), error);
            for item in read.get(self.items.clone()).unwrap_or_default() {
                damaged.push((item.sequence, error.clone()));
            }
            return;
        }
        for item in read.get(self.items.clone()).unwrap_or_default() {
            let record = bytes.get(item.at..).unwrap_or_default();
            if let Err(error) = check(record, segment, item.place) {
                damaged.push((item.sequence, error));
            }
        }
    }
}

/// The payload of one record.
fn fetch(state: parking_lot::MutexGuard<'_, State>, place: Place) -> Result<Vec<u8>, LogError> {
    if let Some((_, payload)) = state.tail.record(place.lsn).filter(|_| place.lsn >= state.synced) {
        return Ok(payload.to_vec());
    }
    let Source { file, segment } = source(&state, place.lsn).ok_or_else(|| missing(place.lsn))?;
    drop(state);
    let mut record = vec![0; HEADER + place.length as usize];
    let read = read_full(&*file, &mut record, segment.offset(place.lsn));
    read.map_err(|error| LogError::io("cannot read", segment.name.file(), error))?;
    check(&record, &segment, place)?;
    record.drain(..HEADER);
    Ok(record)
}

/// The file that holds `lsn`.
fn source(state: &State, lsn: Lsn) -> Option<Source> {
    let segment = state.catalog.segments.at(lsn)?;
    let file = Arc::clone(segment.file.as_ref()?);
    // Of what else is known of it, nothing is needed to read.
    let segment = Segment { end: segment.end, ..Segment::new(segment.name) };
    Some(Source { file, segment })
}

fn missing(lsn: Lsn) -> LogError {
    LogError::Damaged { file: "no file".into(), offset: 0, lsn }
}

/// Whether the record is as it was written.
fn check(record: &[u8], segment: &Segment, place: Place) -> Result<(), LogError> {
    let header = record.first_chunk().and_then(|header| Header::decode(header, segment.name.id, place.lsn));
    let payload = record.get(HEADER..).and_then(|rest| rest.get(..place.length as usize));
    match (header, payload) {
        (Some(header), Some(payload))
            if header.kind != Kind::Group && crc32c::crc32c(payload) == header.payload_crc =>
        {
            Ok(())
        }
        _ => Err(LogError::Damaged {
            file: segment.name.file(),
            offset: segment.offset(place.lsn),
            lsn: place.lsn,
        }),
    }
}
