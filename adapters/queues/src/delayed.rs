//! Messages that wait for their time: they were released with a delay, or published with one.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use linkspan_contract::Millis;

use crate::keys::Key;
use crate::limits::Window;
use crate::offer::{Position, Queued};

/// Neither ready nor unsettled.
#[derive(Debug)]
pub(crate) struct Delayed<B> {
    whole: BinaryHeap<Reverse<Waiting<B>>>,
    /// Of which only the journal has the message.
    stubs: BinaryHeap<Reverse<Stub>>,
    bytes: u64,
    held: u64,
    /// No stub that was due by then is among them.
    horizon: Millis,
    /// Whose time has come, and that have to be brought in.
    due: BTreeMap<(u8, Position), Owed>,
    /// Those that are too many, and have to be brought in to be let go: their sizes.
    doomed: BTreeMap<(u8, Position), u32>,
    doomed_bytes: u64,
}

/// What is in memory of a message that has to be brought in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owed {
    pub(crate) size: u32,
    /// Others of it may wait for this one; 0: none do.
    pub(crate) key: Key,
}

#[derive(Debug)]
struct Waiting<B> {
    until: Millis,
    message: Queued<B>,
}

/// What is in memory of a message that only the journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stub {
    pub(crate) until: Millis,
    pub(crate) position: Position,
    pub(crate) size: u32,
    /// That of one that others of its key may wait for; else 0.
    pub(crate) key: Key,
    pub(crate) priority: u8,
}

/// Where a journal keeps the rest no more messages than these are kept whole,
const MESSAGES: u64 = 1024;

/// nor more bytes.
const BYTES: u64 = 1 << 20;

impl<B> Delayed<B> {
    pub(crate) fn new(now: Millis) -> Self {
        let (whole, stubs) = (BinaryHeap::new(), BinaryHeap::new());
        let (due, doomed) = (BTreeMap::new(), BTreeMap::new());
        Self { whole, stubs, bytes: 0, held: 0, horizon: now, due, doomed, doomed_bytes: 0 }
    }

    pub(crate) fn put(&mut self, message: Queued<B>, until: Millis) {
        self.bytes = self.bytes.saturating_add(message.size);
        self.held = self.held.saturating_add(message.held());
        self.whole.push(Reverse(Waiting { until, message }));
    }

    pub(crate) fn put_stub(&mut self, stub: Stub) {
        self.stubs.push(Reverse(stub));
    }

    /// True when no more are to be kept whole beside a window.
    pub(crate) fn is_full(&self, window: Window) -> bool {
        self.whole.len() as u64 >= window.messages.min(MESSAGES) || self.held >= window.bytes.min(BYTES)
    }

    /// Bytes of those that are whole.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first one's time comes.
    pub(crate) fn next(&self) -> Option<Millis> {
        let whole = self.whole.peek().map(|Reverse(waiting)| waiting.until);
        let stub = self.stubs.peek().map(|Reverse(stub)| stub.until);
        whole.into_iter().chain(stub).min()
    }

    /// The next whole one whose time has come.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<Queued<B>> {
        if self.whole.peek().is_none_or(|Reverse(waiting)| waiting.until > now) {
            return None;
        }
        let Reverse(Waiting { message, .. }) = self.whole.pop()?;
        self.bytes = self.bytes.saturating_sub(message.size);
        self.held = self.held.saturating_sub(message.held());
        Some(message)
    }

    /// The next one whose time has come and of which only the journal has the message.
    pub(crate) fn pop_stub(&mut self, now: Millis) -> Option<Stub> {
        self.horizon = self.horizon.max(now);
        if self.stubs.peek().is_none_or(|Reverse(stub)| stub.until > now) {
            return None;
        }
        self.stubs.pop().map(|Reverse(stub)| stub)
    }

    /// True when a message that the journal has, which was never given out, is here as a stub.
    pub(crate) fn awaits<C>(&self, message: &Queued<C>, not_before: Millis) -> bool {
        message.attempts == 0 && not_before > self.horizon
            || !self.due.is_empty() && self.due.contains_key(&(message.priority, message.position))
            || !self.doomed.is_empty() && self.doomed.contains_key(&(message.priority, message.position))
    }

    /// A stub's time has come: its message has to be brought in.
    pub(crate) fn want(&mut self, stub: Stub) {
        self.due.insert((stub.priority, stub.position), Owed { size: stub.size, key: stub.key });
    }

    /// A stub is of a message too many: that has to be brought in to be let go.
    pub(crate) fn doom(&mut self, stub: Stub) {
        self.doomed.insert((stub.priority, stub.position), stub.size);
        self.doomed_bytes = self.doomed_bytes.saturating_add(stub.size.into());
    }

    /// What has to be brought in.
    pub(crate) const fn due(&self) -> &BTreeMap<(u8, Position), Owed> {
        &self.due
    }

    /// What has to be brought in to be let go, and its size.
    pub(crate) const fn doomed(&self) -> &BTreeMap<(u8, Position), u32> {
        &self.doomed
    }

    /// The bytes of those.
    pub(crate) const fn doomed_bytes(&self) -> u64 {
        self.doomed_bytes
    }

    /// True when it was one of those; it is here no more.
    pub(crate) fn fall(&mut self, priority: u8, position: Position) -> bool {
        let size = self.doomed.remove(&(priority, position));
        self.doomed_bytes = self.doomed_bytes.saturating_sub(size.unwrap_or(0).into());
        size.is_some()
    }

    /// The highest level that has something that has to be brought in, and the first of it.
    pub(crate) fn highest_due(&self) -> Option<(u8, Position)> {
        let ((level, _), _) = self.due.last_key_value()?;
        self.due_of(*level).map(|position| (*level, position))
    }

    /// The next lower level that has something that has to be brought in.
    pub(crate) fn due_below(&self, level: u8) -> Option<u8> {
        self.due.range(..(level, 0)).next_back().map(|((level, _), _)| *level)
    }

    /// The first of a level that has to be brought in.
    pub(crate) fn due_of(&self, level: u8) -> Option<Position> {
        let ((_, position), _) = self.due.range((level, 0)..=(level, Position::MAX)).next()?;
        Some(*position)
    }

    /// One that had to be brought in is in, or cannot be had.
    pub(crate) fn arrive(&mut self, priority: u8, position: Position) -> Option<Owed> {
        self.due.remove(&(priority, position))
    }

    /// How many wait for their time.
    pub(crate) fn len(&self) -> usize {
        self.whole.len() + self.stubs.len()
    }

    /// Changes all that are whole, but for their positions; and tells when each one's time comes.
    pub(crate) fn each(&mut self, mut each: impl FnMut(&mut Queued<B>, Millis)) {
        let mut all = std::mem::take(&mut self.whole).into_vec();
        all.iter_mut().for_each(|Reverse(waiting)| each(&mut waiting.message, waiting.until));
        self.whole = all.into();
    }

    /// Takes out those of the whole ones that are `wanted`, in the order of their positions.
    pub(crate) fn take_out(&mut self, wanted: impl Fn(&Queued<B>) -> bool) -> Vec<Queued<B>> {
        let all = std::mem::take(&mut self.whole).into_vec().into_iter();
        let (taken, left): (Vec<_>, Vec<_>) = all.partition(|Reverse(waiting)| wanted(&waiting.message));
        self.whole = left.into();
        let mut out: Vec<_> = taken.into_iter().map(|Reverse(waiting)| waiting.message).collect();
        for message in &out {
            self.bytes = self.bytes.saturating_sub(message.size);
            self.held = self.held.saturating_sub(message.held());
        }
        out.sort_unstable_by_key(|message| message.position);
        out
    }

    /// All of them, by level and position, and whether the journal has them.
    pub(crate) fn drain(&mut self) -> Vec<(u8, Position, bool)> {
        (self.bytes, self.held, self.doomed_bytes) = (0, 0, 0);
        let whole = self.whole.drain().map(|Reverse(waiting)| waiting.message);
        let whole = whole.map(|message| (message.priority, message.position, message.logged));
        let stubs = self.stubs.drain().map(|Reverse(stub)| (stub.priority, stub.position, true));
        let (due, doomed) = (std::mem::take(&mut self.due), std::mem::take(&mut self.doomed));
        let owed = due.into_keys().chain(doomed.into_keys()).map(|(level, position)| (level, position, true));
        let mut all: Vec<_> = whole.chain(stubs).chain(owed).collect();
        all.sort_unstable();
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
