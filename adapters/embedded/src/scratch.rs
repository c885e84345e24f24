//! Working memory of a publish, one per thread: idle lanes hold none.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::Pick;
use linkspan_queues::{Assignment, ConsumerId, Direct};

use crate::parcel::Parcel;
use crate::repeats::Fresh;
use crate::subscription::Subscription;

/// Lists that are empty between two publishes, with room from the last ones.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) picks: Lists<Pick>,
    pub(crate) ranges: Lists<Range<u32>>,
    /// Places of the sessions and queues that have a list.
    pub(crate) sessions: Vec<u32>,
    pub(crate) queues: Vec<u32>,
    /// Subscriptions found for one message alone.
    pub(crate) found: Vec<Arc<Subscription>>,
    pub(crate) given: Vec<Pick>,
    pub(crate) straight: Vec<Direct>,
    pub(crate) places: Vec<u32>,
    /// What queues that drop what comes again have not seen, in the order of the places.
    pub(crate) fresh: Vec<Fresh>,
    pub(crate) assignments: Vec<Assignment<Parcel>>,
    /// Assignments by consumer.
    pub(crate) shares: Lists<Assignment<Parcel>>,
    pub(crate) consumers: Vec<ConsumerId>,
}

/// A list that nobody has.
pub(crate) const NO_LIST: u32 = u32::MAX;

/// Lists handed out by number.
pub(crate) struct Lists<T> {
    lists: Vec<Vec<T>>,
    used: usize,
}

/// Lists longer than this, and more lists than this, are not kept.
const KEPT: usize = 2048;

/// And all lists together keep room for so many entries.
const KEPT_IN_ALL: usize = 16 * KEPT;

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Runs `work` with this thread's working memory.
    pub(crate) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let result = work(&mut scratch);
        scratch.clear();
        SCRATCH.set(Some(scratch));
        result
    }

    /// What identifies the message at a place, when the queue of that number has not seen it before.
    pub(crate) fn fresh_of(&self, number: u64, place: u32) -> Option<u128> {
        let from = self.fresh.partition_point(|fresh| fresh.place < place);
        let here = self.fresh.iter().skip(from).take_while(|fresh| fresh.place == place);
        here.filter(|fresh| fresh.of == number).map(|fresh| fresh.id).next()
    }

    fn clear(&mut self) {
        self.picks.clear();
        self.ranges.clear();
        self.shares.clear();
        clear(&mut self.sessions);
        clear(&mut self.queues);
        clear(&mut self.found);
        clear(&mut self.given);
        clear(&mut self.straight);
        clear(&mut self.places);
        clear(&mut self.fresh);
        clear(&mut self.assignments);
        clear(&mut self.consumers);
    }
}

fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(KEPT);
}

impl<T> Lists<T> {
    /// Hands out an empty list.
    pub(crate) fn open(&mut self) -> u32 {
        if self.used == self.lists.len() {
            self.lists.push(Vec::new());
        }
        self.used += 1;
        u32::try_from(self.used - 1).unwrap_or(NO_LIST)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, list: u32) -> Option<&mut Vec<T>> {
        self.lists.get_mut(list as usize)
    }

    /// Lends a list out, to be put back.
    pub(crate) fn take(&mut self, list: u32) -> Vec<T> {
        self.get_mut(list).map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn put_back(&mut self, list: u32, content: Vec<T>) {
        if let Some(place) = self.get_mut(list) {
            *place = content;
        }
    }

    pub(crate) fn clear(&mut self) {
        let mut room = 0;
        for list in self.lists.iter_mut().take(self.used) {
            clear(list);
            room += list.capacity();
            if room > KEPT_IN_ALL {
                *list = Vec::new();
            }
        }
        self.lists.truncate(KEPT);
        self.used = 0;
    }
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { lists: Vec::new(), used: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_read_to_many_leaves_little_room_behind() {
        let mut lists: Lists<u32> = Lists::default();
        for _ in 0..KEPT {
            let list = lists.open();
            lists.get_mut(list).unwrap().extend(0..1000);
        }
        lists.clear();
        let room: usize = lists.lists.iter().map(Vec::capacity).sum();
        assert!(room <= KEPT_IN_ALL, "{room}");
    }
}
