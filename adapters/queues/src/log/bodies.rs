//! Large bodies, and where their parts lie.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::log::block::Place;
use crate::log::record::size_of_record;
use crate::log::segments::Segments;

/// All bodies that somebody holds: who writes or reads one, and the messages that have it.
#[derive(Default)]
pub(crate) struct Bodies {
    known: HashMap<u64, Body, RandomState>,
    /// The id of the next one.
    next: u64,
}

#[derive(Default)]
struct Body {
    /// By their offsets.
    chunks: BTreeMap<u64, Place>,
    holders: u32,
}

impl Bodies {
    /// A new one, held by whoever asked.
    pub(crate) fn begin(&mut self) -> u64 {
        let id = self.next;
        self.next = id.saturating_add(1);
        self.known.insert(id, Body { holders: 1, ..Body::default() });
        id
    }

    /// Somebody else holds it; while the log is read, one that nobody knew.
    pub(crate) fn hold(&mut self, id: u64) {
        self.next = self.next.max(id.saturating_add(1));
        let body = self.known.entry(id).or_default();
        body.holders = body.holders.saturating_add(1);
    }

    /// Somebody else holds it, when it is there.
    pub(crate) fn hold_known(&mut self, id: u64) -> bool {
        let body = self.known.get_mut(&id);
        body.map(|body| body.holders = body.holders.saturating_add(1)).is_some()
    }

    /// Somebody lets it go; when it was the last, it is gone. Not while the log is read, when `learn`: what held it then
    /// without a record may be followed by a message that has it.
    pub(crate) fn release(&mut self, id: u64, learn: bool, segments: &mut Segments) {
        let Some(body) = self.known.get_mut(&id) else { return };
        body.holders = body.holders.saturating_sub(1);
        if body.holders == 0 && !learn {
            self.remove(id, segments);
        }
    }

    /// A part of it lies here; `learn` when bodies are believed that nobody holds yet.
    pub(crate) fn chunk(&mut self, id: u64, offset: u64, place: Place, learn: bool, segments: &mut Segments) {
        if learn {
            self.next = self.next.max(id.saturating_add(1));
            self.known.entry(id).or_default();
        }
        let Some(body) = self.known.get_mut(&id) else { return };
        if let Some(before) = body.chunks.insert(offset, place) {
            segments.release(before.lsn, size_of_record(before.length));
        }
        segments.hold(place.lsn, size_of_record(place.length));
    }

    /// The part that holds the byte at `offset`: where the part begins, and where it lies.
    pub(crate) fn at(&self, id: u64, offset: u64) -> Option<(u64, Place)> {
        let (first, place) = self.known.get(&id)?.chunks.range(..=offset).next_back()?;
        (offset < first.saturating_add(place.length.into())).then_some((*first, *place))
    }

    /// Bytes from the beginning to the first gap.
    pub(crate) fn len(&self, id: u64) -> Option<u64> {
        let chunks = &self.known.get(&id)?.chunks;
        Some(chunks.iter().fold(
            0,
            |end, (first, place)| {
                if *first == end { end.saturating_add(place.length.into()) } else { end }
            },
        ))
    }

    /// Lets go what nobody holds, once all has been read.
    pub(crate) fn sweep(&mut self, segments: &mut Segments) {
        let idle: Vec<u64> =
            self.known.iter().filter(|(_, body)| body.holders == 0).map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|id| self.remove(id, segments));
    }

    /// How many, and the bytes of all their parts.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let bytes = self.places().map(|place| u64::from(place.length)).sum();
        (self.known.len() as u64, bytes)
    }

    /// Every part.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.known.values().flat_map(|body| body.chunks.values().copied())
    }

    fn remove(&mut self, id: u64, segments: &mut Segments) {
        let chunks = self.known.remove(&id).map(|body| body.chunks).unwrap_or_default();
        for place in chunks.into_values() {
            segments.release(place.lsn, size_of_record(place.length));
        }
    }
}
