//! All that a log has in memory, behind its lock.

use std::sync::Arc;

use crate::log::catalog::{Catalog, Spread};
use crate::log::record::{self, HEADER, Header, Kind};
use crate::log::segment::Segment;
use crate::log::tail::{Tail, records, seal_all};
use crate::log::{Commit, Lsn};

/// What is live, and what is on its way to the disk.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) tail: Tail,
    /// Behind the last record.
    pub(crate) end: Lsn,
    /// Behind the last commit.
    pub(crate) committed: Lsn,
    /// Everything before it was told to be safe.
    pub(crate) synced: Lsn,
    /// Everything before it is safe; with [`SyncMode::Never`](crate::log::SyncMode) less than was told.
    pub(crate) durable: Lsn,
    /// Why the disk does not take anything, while it does not.
    pub(crate) failed: Option<Arc<str>>,
    /// What was told to have failed last.
    pub(crate) failure: (Lsn, Lsn),
    /// The owner wants it closed.
    pub(crate) closing: bool,
    /// The writer sleeps and has to be woken.
    pub(crate) asleep: bool,
    /// The writer has ended.
    pub(crate) closed: bool,
    spread: Vec<Spread>,
}

impl State {
    /// Of a log whose records end at `end` and are all safe.
    pub(crate) fn new(catalog: Catalog, end: Lsn) -> Self {
        Self { catalog, end, committed: end, synced: end, durable: end, ..Self::default() }
    }

    /// Puts a commit behind everything else and takes in what it says. Yields where it ends.
    pub(crate) fn append(&mut self, commit: &mut Commit, segment_size: u64) -> Lsn {
        let used = self.catalog.segments.last().map_or(0, Segment::size);
        if used > 0 && used.saturating_add(commit.size()).saturating_add(2 * HEADER as u64) > segment_size {
            self.roll();
        }
        self.begin_buffer();
        let Some(segment) = self.catalog.segments.last().map(|segment| segment.name.id) else {
            return self.end;
        };
        let base = self.end;
        self.apply(&commit.bytes, 0, base);
        if !self.spread.is_empty() {
            let told = commit.bytes.len();
            for (queue, range) in std::mem::take(&mut self.spread) {
                let marks = self.catalog.queues.get(&queue).map(|index| index.marks.within(&range));
                marks
                    .unwrap_or_default()
                    .into_iter()
                    .for_each(|(range, mark)| commit.mark(queue, range, mark));
            }
            self.apply(&commit.bytes, told, base);
        }
        commit.finish();
        seal_all(&mut commit.bytes, segment, base);
        self.push(segment, &commit.bytes);
        if self.tail.is_full() {
            self.tail.close(self.durable);
        }
        self.committed = self.end;
        self.end
    }

    /// Begins a buffer with a record that says what is safe, unless one is being filled.
    pub(crate) fn begin_buffer(&mut self) {
        if self.tail.is_closed()
            && let Some(segment) = self.catalog.segments.last().map(|segment| segment.name.id)
        {
            self.push_bare(Kind::Group, segment);
        }
    }

    /// Ends the segment that is written, and begins another one.
    fn roll(&mut self) {
        self.begin_buffer();
        if let Some(segment) = self.catalog.segments.last_mut() {
            segment.sealed = true;
            let id = segment.name.id;
            self.push_bare(Kind::Seal, id);
        }
        self.tail.close(self.durable);
        self.catalog.segments.begin(self.end);
    }

    fn push_bare(&mut self, kind: Kind, segment: u64) {
        let mut header = Header::of(kind, 0, self.durable, &[]).encode();
        record::end_commit(&mut header);
        record::seal(&mut header, segment, self.end);
        self.push(segment, &header);
    }

    fn push(&mut self, segment: u64, bytes: &[u8]) {
        self.tail.push(segment, self.end, bytes);
        self.end = self.end.saturating_add(bytes.len() as u64);
        if let Some(last) = self.catalog.segments.last_mut() {
            last.end = self.end;
        }
    }

    fn apply(&mut self, bytes: &[u8], from: usize, base: Lsn) {
        let rest = bytes.get(from..).unwrap_or_default();
        let base = base.saturating_add(from as u64);
        for (at, header, payload) in records(rest) {
            self.catalog.apply(&header, payload, base.saturating_add(at as u64), &mut self.spread);
        }
    }

    /// What was not synced has failed: it will be written anew, into segments of their own. Yields those that are void.
    pub(crate) fn start_anew(&mut self) -> Vec<Segment> {
        let from = self.synced;
        self.tail.close(self.durable);
        let segments = &mut self.catalog.segments;
        let void = segments.split_off(from);
        let mut like = Vec::new();
        if void.first().is_none_or(|first| first.name.base > from) {
            // It ends where the next one begins.
            if let Some(cut) = segments.last_mut() {
                like.push((from, cut.end, cut.gone, cut.queues.clone(), cut.sealed));
                (cut.end, cut.sealed) = (from, false);
            }
        }
        like.extend(void.iter().map(|s| (s.name.base, s.end, s.gone, s.queues.clone(), s.sealed)));
        for (base, end, gone, queues, sealed) in like {
            segments.begin(base);
            if let Some(segment) = segments.last_mut() {
                (segment.end, segment.gone, segment.queues, segment.sealed) = (end, gone, queues, sealed);
            }
        }
        self.tail.rewrite(from, |lsn| segments.at(lsn).map_or(0, |segment| segment.name.id));
        self.catalog.recount();
        void
    }
}
