//! Messages that were released with a delay.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use linkspan_contract::Millis;

use crate::offer::Queued;

/// Neither ready nor unsettled: they wait for their time.
#[derive(Debug)]
pub(crate) struct Delayed<B> {
    heap: BinaryHeap<Reverse<Waiting<B>>>,
}

#[derive(Debug)]
struct Waiting<B> {
    until: Millis,
    message: Queued<B>,
}

impl<B> Delayed<B> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    pub(crate) fn put(&mut self, message: Queued<B>, until: Millis) {
        self.heap.push(Reverse(Waiting { until, message }));
    }

    /// When the first one's time comes.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse(waiting)| waiting.until)
    }

    /// The next one whose time has come.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<Queued<B>> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(waiting)| waiting.message)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Changes all of them, but for their positions; and tells when each one's time comes.
    pub(crate) fn each(&mut self, mut each: impl FnMut(&mut Queued<B>, Millis)) {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        all.iter_mut().for_each(|Reverse(waiting)| each(&mut waiting.message, waiting.until));
        self.heap = all.into();
    }

    /// All of them, in the order of their positions.
    pub(crate) fn drain(&mut self) -> Vec<Queued<B>> {
        let mut all: Vec<_> = self.heap.drain().map(|Reverse(waiting)| waiting.message).collect();
        all.sort_unstable_by_key(|message| message.position);
        all
    }
}

impl<B> Ord for Waiting<B> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.until, self.message.position).cmp(&(other.until, other.message.position))
    }
}

impl<B> PartialOrd for Waiting<B> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<B> PartialEq for Waiting<B> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<B> Eq for Waiting<B> {}
