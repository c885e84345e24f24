//! All segments, in the order of their LSNs.

use crate::log::Lsn;
use crate::log::segment::{Name, Segment};

/// The segments; the last is the one that is written.
#[derive(Default)]
pub(crate) struct Segments {
    list: Vec<Segment>,
    /// The id of the next one.
    next_id: u64,
}

impl Segments {
    /// None yet; their ids begin at `next_id`.
    pub(crate) const fn new(next_id: u64) -> Self {
        Self { list: Vec::new(), next_id }
    }

    /// Adds one behind the others, with an id of its own.
    pub(crate) fn begin(&mut self, base: Lsn) -> u64 {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        self.list.push(Segment::new(Name { base, id }));
        id
    }

    /// The name of a file that is no segment yet.
    pub(crate) fn spare(&mut self) -> Name {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        Name { base: 0, id }
    }

    /// Adds one that is there already.
    pub(crate) fn push(&mut self, segment: Segment) {
        self.next_id = self.next_id.max(segment.name.id.saturating_add(1));
        self.list.push(segment);
    }

    pub(crate) fn all(&self) -> &[Segment] {
        &self.list
    }

    pub(crate) fn last(&self) -> Option<&Segment> {
        self.list.last()
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut Segment> {
        self.list.last_mut()
    }

    pub(crate) fn by_id(&self, id: u64) -> Option<&Segment> {
        self.list.iter().rev().find(|segment| segment.name.id == id)
    }

    pub(crate) fn by_id_mut(&mut self, id: u64) -> Option<&mut Segment> {
        self.list.iter_mut().rev().find(|segment| segment.name.id == id)
    }

    /// The segment that holds `lsn`.
    pub(crate) fn at(&self, lsn: Lsn) -> Option<&Segment> {
        self.list.get(self.find(lsn)?)
    }

    /// The segment that holds `lsn`, to be changed.
    #[inline]
    pub(crate) fn at_mut(&mut self, lsn: Lsn) -> Option<&mut Segment> {
        let at = self.find(lsn)?;
        self.list.get_mut(at)
    }

    fn find(&self, lsn: Lsn) -> Option<usize> {
        let last = self.list.len().checked_sub(1)?;
        if self.list.get(last)?.name.base <= lsn {
            return Some(last);
        }
        let at = self.list.partition_point(|segment| segment.name.base <= lsn).checked_sub(1)?;
        (lsn < self.list.get(at)?.end).then_some(at)
    }

    /// A record of `size` bytes at `lsn` is live.
    #[inline]
    pub(crate) fn hold(&mut self, lsn: Lsn, size: u64) {
        if let Some(segment) = self.at_mut(lsn) {
            segment.live = segment.live.saturating_add(size);
        }
    }

    /// A record of `size` bytes at `lsn` is live no more.
    #[inline]
    pub(crate) fn release(&mut self, lsn: Lsn, size: u64) {
        if let Some(segment) = self.at_mut(lsn) {
            segment.live = segment.live.saturating_sub(size);
        }
    }

    /// A mark's last record is at `lsn`.
    pub(crate) fn hold_mark(&mut self, lsn: Lsn) {
        if let Some(segment) = self.at_mut(lsn) {
            segment.marks = segment.marks.saturating_add(1);
        }
    }

    /// A mark's last record is at `lsn` no more.
    pub(crate) fn release_mark(&mut self, lsn: Lsn) {
        if let Some(segment) = self.at_mut(lsn) {
            segment.marks = segment.marks.saturating_sub(1);
        }
    }

    /// True when a segment is left that ends behind `from` and begins before `to`.
    pub(crate) fn any_between(&self, from: Lsn, to: Lsn) -> bool {
        self.list.iter().any(|segment| segment.end > from && segment.name.base < to)
    }

    /// True when a segment before `to` may have messages of `queue`.
    pub(crate) fn any_of_queue(&self, queue: u64, to: Lsn) -> bool {
        self.list.iter().take_while(|s| s.name.base < to).any(|segment| segment.queues.contains(&queue))
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Segment> {
        let at = self.list.iter().position(|segment| segment.name.id == id)?;
        Some(self.list.remove(at))
    }

    /// Takes out everything that begins at `lsn` or behind it.
    pub(crate) fn split_off(&mut self, lsn: Lsn) -> Vec<Segment> {
        let at = self.list.partition_point(|segment| segment.name.base < lsn);
        self.list.split_off(at)
    }
}
