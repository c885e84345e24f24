//! What is live, and where: all that the records of the log come to.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::log::Lsn;
use crate::log::block::Place;
use crate::log::bodies::Bodies;
use crate::log::index::Index;
use crate::log::keys::Keys;
use crate::log::marks::Mark;
use crate::log::record::{Header, Kind, number, ranges, size_of_record};
use crate::log::segments::Segments;

/// Queues, keys, bodies and segments. It can be built anew from the records alone.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) queues: HashMap<u64, Index, RandomState>,
    pub(crate) keys: Keys,
    pub(crate) bodies: Bodies,
    pub(crate) segments: Segments,
    /// Records are read, not written: bodies come before the messages that have them.
    pub(crate) learning: bool,
}

/// Marks that one record alone does not say: of this queue, these messages.
pub(crate) type Spread = (u64, Range<u64>);

impl Catalog {
    /// Takes in what a record at `lsn` says. Adds to `spread` what has to be written as marks of its own.
    pub(crate) fn apply(&mut self, header: &Header, payload: &[u8], lsn: Lsn, spread: &mut Vec<Spread>) {
        let place = Place { lsn, length: header.length };
        let queue = header.queue;
        match header.kind {
            Kind::Group => {}
            Kind::Seal => {
                if let Some(segment) = self.segments.at_mut(lsn) {
                    segment.sealed = true;
                }
            }
            Kind::Message => self.message(queue, header.sequence, place, None),
            Kind::Stored => self.message(queue, header.sequence, place, Some(stored(payload))),
            Kind::Gone => {
                if let Some(segment) = self.segments.at_mut(lsn) {
                    segment.gone = segment.gone.saturating_add(1);
                }
                ranges(payload).for_each(|range| self.gone(queue, &spanned(range)));
            }
            Kind::Given => {
                let index = self.queues.entry(queue).or_default();
                for range in ranges(payload).map(spanned) {
                    index.next = index.next.max(range.end);
                    if index.marks.given(&range, lsn, &mut self.segments) {
                        spread.push((queue, range));
                    }
                }
            }
            Kind::Mark => {
                if let Some((range, mark)) = Mark::decode(payload) {
                    let index = self.queues.entry(queue).or_default();
                    index.next = index.next.max(range.end);
                    index.marks.set(range, mark, lsn, &mut self.segments);
                }
            }
            Kind::Put => {
                let key = usize::try_from(header.sequence).ok().and_then(|length| payload.get(..length));
                self.keys.put(queue, key.unwrap_or_default(), place, &mut self.segments);
            }
            Kind::Delete => self.keys.delete(queue, payload, lsn, &mut self.segments),
            Kind::Chunk => {
                self.bodies.chunk(queue, header.sequence, place, self.learning, &mut self.segments);
            }
        }
    }

    #[inline]
    fn message(&mut self, queue: u64, sequence: u64, place: Place, body: Option<(u64, u64)>) {
        let index = self.queues.entry(queue).or_default();
        if sequence < index.next && !index.marks.is_empty() {
            index.marks.clear(&(sequence..sequence.saturating_add(1)), &mut self.segments);
        }
        let before = index.insert(sequence, place);
        if let Some((body, _)) = body {
            self.bodies.hold(body);
        }
        let had = match body {
            Some(body) => index.bodies.insert(sequence, body),
            None if index.bodies.is_empty() => None,
            None => index.bodies.remove(&sequence),
        };
        let segments = &mut self.segments;
        if let Some(segment) = segments.at_mut(place.lsn) {
            segment.live = segment.live.saturating_add(size_of_record(place.length));
            if index.touched != Some(segment.name.id) {
                index.touched = Some(segment.name.id);
                segment.queues.push(queue);
            }
        }
        if let Some(before) = before {
            segments.release(before.lsn, size_of_record(before.length));
        }
        if let Some((had, _)) = had {
            self.bodies.release(had, self.learning, segments);
        }
    }

    /// Takes messages out, with all that is noted of them.
    pub(crate) fn gone(&mut self, queue: u64, sequences: &Range<u64>) {
        let Some(index) = self.queues.get_mut(&queue) else {
            if sequences.end != u64::MAX {
                self.queues.entry(queue).or_default().next = sequences.end;
            }
            return;
        };
        let segments = &mut self.segments;
        index.remove(sequences, |_, place| segments.release(place.lsn, size_of_record(place.length)));
        index.marks.clear(sequences, segments);
        if !index.bodies.is_empty() {
            let had: Vec<(u64, u64)> = index
                .bodies
                .range(sequences.clone())
                .map(|(sequence, (body, _))| (*sequence, *body))
                .collect();
            for (sequence, body) in had {
                index.bodies.remove(&sequence);
                self.bodies.release(body, self.learning, segments);
            }
        }
        if *sequences == (0..u64::MAX) {
            self.queues.remove(&queue);
        }
    }

    /// Where a message lies.
    pub(crate) fn message_at(&self, queue: u64, sequence: u64) -> Option<Place> {
        self.queues.get(&queue)?.get(sequence)
    }

    /// Counts anew what is live in each segment.
    pub(crate) fn recount(&mut self) {
        let mut ids: Vec<_> = self.segments.all().iter().map(|segment| segment.name.id).collect();
        for id in ids.drain(..) {
            if let Some(segment) = self.segments.by_id_mut(id) {
                (segment.live, segment.marks) = (0, 0);
            }
        }
        let segments = &mut self.segments;
        for index in self.queues.values() {
            for (_, place) in index.from(0) {
                segments.hold(place.lsn, size_of_record(place.length));
            }
            index.marks.records().for_each(|lsn| segments.hold_mark(lsn));
        }
        for place in self.keys.places().chain(self.bodies.places()) {
            segments.hold(place.lsn, size_of_record(place.length));
        }
    }
}

/// The body that a message's payload names, and its length.
fn stored(payload: &[u8]) -> (u64, u64) {
    (number(payload), number(payload.get(8..).unwrap_or_default()))
}

fn spanned((first, count): (u64, u64)) -> Range<u64> {
    first..first.saturating_add(count)
}
