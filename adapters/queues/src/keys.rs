//! Messages of one key go to one consumer at a time, in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;
use linkspan_contract::Millis;
use smallvec::SmallVec;

use crate::delayed::Stub;
use crate::limits::Window;
use crate::offer::{Position, Queued};

/// What a message has that is to go to whoever has others with the same; zero: it goes to anybody.
pub type Key = u32;

/// The keys of which somebody has something in hand, or something waits.
#[derive(Debug)]
pub(crate) struct Keys<B> {
    keys: HashMap<Key, Of<B>, RandomState>,
    /// Keys of which some are parked, by the deadlines of their first ones.
    parked: BTreeSet<(Millis, Key)>,
    /// All that are parked, by their places, and their keys.
    order: BTreeSet<(Reverse<u8>, Position, Key)>,
    /// Keys of which more waits for a holder to take it, by the holders' places.
    stuck: HashMap<usize, SmallVec<[Key; 4]>, RandomState>,
    len: u64,
    bytes: u64,
    /// Of those that are whole: how many, and their bytes.
    whole: (u64, u64),
}

#[derive(Debug)]
struct Of<B> {
    /// The place of who has some in hand.
    holder: usize,
    in_hand: u32,
    /// Those that came back and wait for their time.
    waiting: BTreeSet<Position>,
    /// Those whose turn it was when others of the key were in the way.
    parked: BTreeMap<(Reverse<u8>, Position), Parked<B>>,
}

/// A message that waits for others of its key.
#[derive(Debug)]
pub(crate) enum Parked<B> {
    Whole(Queued<B>),
    /// Only the journal has it.
    Stub {
        stub: Stub,
        deadline: Millis,
    },
}

impl<B> Parked<B> {
    /// What is in memory of a message that the journal has.
    pub(crate) fn stub(message: &Queued<B>) -> Self {
        let Queued { position, priority, key, deadline, .. } = *message;
        let size = u32::try_from(message.size).unwrap_or(u32::MAX);
        Self::Stub { stub: Stub { until: 0, position, size, key, priority }, deadline }
    }

    const fn key(&self) -> Key {
        match self {
            Self::Whole(message) => message.key,
            Self::Stub { stub, .. } => stub.key,
        }
    }

    const fn deadline(&self) -> Millis {
        match self {
            Self::Whole(message) => message.deadline,
            Self::Stub { deadline, .. } => *deadline,
        }
    }

    const fn place(&self) -> (Reverse<u8>, Position) {
        match self {
            Self::Whole(message) => (Reverse(message.priority), message.position),
            Self::Stub { stub, .. } => (Reverse(stub.priority), stub.position),
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Whole(message) => message.size,
            Self::Stub { stub, .. } => stub.size.into(),
        }
    }

    /// How many of it are whole, and their bytes.
    const fn whole(&self) -> (u64, u64) {
        match self {
            Self::Whole(message) => (1, message.held()),
            Self::Stub { .. } => (0, 0),
        }
    }
}

/// Who may be given a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Anybody,
    /// Who is at this place.
    Of(usize),
    /// Nobody, before others of the key.
    Nobody,
    /// Nobody, before one that is parked, which nothing is in the way of any more.
    AfterParked,
}

/// So many messages are passed over, at most, because others of their keys are in the way.
const MOST: u64 = 64 << 10;

/// And so many bytes, where no journal has them.
const MOST_BYTES: u64 = 16 << 20;

/// Where a journal keeps the rest no more of them than these are kept whole,
const MESSAGES: u64 = 1024;

/// nor more bytes.
const BYTES: u64 = 1 << 20;

impl<B> Keys<B> {
    pub(crate) fn new() -> Self {
        let (keys, stuck) = (HashMap::default(), HashMap::default());
        Self { keys, parked: BTreeSet::new(), order: BTreeSet::new(), stuck, len: 0, bytes: 0, whole: (0, 0) }
    }

    /// Those that are parked.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many are in memory, and their bytes.
    pub(crate) const fn in_memory(&self) -> (u64, u64) {
        self.whole
    }

    /// True when a journal is to keep what is parked beside a window.
    pub(crate) fn is_beyond(&self, window: Window) -> bool {
        let (messages, bytes) = self.whole;
        messages >= window.messages.min(MESSAGES) || bytes >= window.bytes.min(BYTES)
    }

    /// True when no more are to be parked.
    pub(crate) const fn is_full(&self) -> bool {
        self.len >= MOST || self.whole.1 >= MOST_BYTES
    }

    /// Who may be given the message of a key that stands there.
    pub(crate) fn whose(&self, key: Key, priority: u8, position: Position) -> Whose {
        let Some(of) = self.keys.get(&key).filter(|_| key != 0) else { return Whose::Anybody };
        let first = of.parked.first_key_value().map(|(first, _)| *first);
        if let Some(first) = first.filter(|first| *first < (Reverse(priority), position)) {
            let is_free = of.in_hand == 0 && of.waiting.first().is_none_or(|waiting| *waiting > first.1);
            return if is_free { Whose::AfterParked } else { Whose::Nobody };
        }
        if of.waiting.first().is_some_and(|first| *first < position) {
            Whose::Nobody
        } else if of.in_hand > 0 {
            Whose::Of(of.holder)
        } else {
            Whose::Anybody
        }
    }

    /// A message has to wait for others of its key; for who has them to take it, when that is what hinders it.
    pub(crate) fn park(&mut self, message: Parked<B>, holder: Option<usize>) {
        let (key, (level, position), (whole, held)) = (message.key(), message.place(), message.whole());
        self.order.insert((level, position, key));
        self.len += 1;
        self.bytes = self.bytes.saturating_add(message.size());
        self.whole = (self.whole.0.saturating_add(whole), self.whole.1.saturating_add(held));
        let of = self.of(key);
        let before = of.deadline();
        of.parked.insert(message.place(), message);
        let after = of.deadline();
        self.move_up(key, before, after);
        if let Some(holder) = holder {
            let stuck = self.stuck.entry(holder).or_default();
            if !stuck.contains(&key) {
                stuck.push(key);
            }
        }
    }

    /// Who is at this place has one more of the key.
    pub(crate) fn gave(&mut self, key: Key, holder: usize) {
        if key != 0 {
            let of = self.of(key);
            of.holder = holder;
            of.in_hand = of.in_hand.saturating_add(1);
        }
    }

    /// Who had one of the key has it no more.
    pub(crate) fn took_back(&mut self, key: Key) {
        if let Some(of) = self.keys.get_mut(&key) {
            of.in_hand = of.in_hand.saturating_sub(1);
        }
        self.tidy(key);
    }

    /// One of the key waits for its time.
    pub(crate) fn wait(&mut self, key: Key, position: Position) {
        if key != 0 {
            self.of(key).waiting.insert(position);
        }
    }

    /// Its time has come.
    pub(crate) fn waited(&mut self, key: Key, position: Position) {
        if let Some(of) = self.keys.get_mut(&key) {
            of.waiting.remove(&position);
        }
        self.tidy(key);
    }

    /// None waits for its time any more.
    pub(crate) fn none_waits(&mut self) {
        self.keys.values_mut().for_each(|of| of.waiting.clear());
        self.keys.retain(|_, of| !of.is_idle());
    }

    /// The next parked one of a key may be looked at again.
    pub(crate) fn next(&mut self, key: Key) -> Option<Parked<B>> {
        self.take(key, |parked| parked.pop_first().map(|(_, message)| message))
    }

    /// The parked one of a key that stands there.
    pub(crate) fn take_at(&mut self, key: Key, priority: u8, position: Position) -> Option<Parked<B>> {
        self.take(key, |parked| parked.remove(&(Reverse(priority), position)))
    }

    /// Whether of the parked one of a key that stands there only a journal has the message.
    pub(crate) fn is_stub(&self, key: Key, priority: u8, position: Position) -> bool {
        let parked = self.keys.get(&key).and_then(|of| of.parked.get(&(Reverse(priority), position)));
        matches!(parked, Some(Parked::Stub { .. }))
    }

    fn take(
        &mut self,
        key: Key,
        take: impl FnOnce(&mut BTreeMap<(Reverse<u8>, Position), Parked<B>>) -> Option<Parked<B>>,
    ) -> Option<Parked<B>> {
        let of = self.keys.get_mut(&key)?;
        let before = of.deadline();
        let message = take(&mut of.parked)?;
        let after = of.deadline();
        self.move_up(key, before, after);
        self.left(key, &message);
        self.tidy(key);
        Some(message)
    }

    /// The highest level of which some are parked.
    pub(crate) fn highest(&self) -> Option<usize> {
        self.order.first().map(|(Reverse(level), ..)| usize::from(*level))
    }

    /// The first parked one of a level: its place and its key.
    pub(crate) fn first_of(&self, level: u8) -> Option<(Position, Key)> {
        let level = Reverse(level);
        let mut of_level = self.order.range((level, 0, 0)..=(level, Position::MAX, Key::MAX));
        of_level.next().map(|(_, position, key)| (*position, *key))
    }

    /// Keys of which more waited for who is at this place.
    pub(crate) fn unstick(&mut self, holder: usize) -> SmallVec<[Key; 4]> {
        if self.stuck.is_empty() { SmallVec::new() } else { self.stuck.remove(&holder).unwrap_or_default() }
    }

    /// A parked one that is over.
    pub(crate) fn pop_expired(&mut self, now: Millis) -> Option<Parked<B>> {
        let (_, key) = self.parked.first().filter(|(deadline, _)| *deadline <= now).copied()?;
        self.next(key)
    }

    /// When the first of a key is over next.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        self.parked.first().map(|(deadline, _)| *deadline)
    }

    /// Any parked one.
    pub(crate) fn pop_any(&mut self) -> Option<Parked<B>> {
        let (_, key) = self.parked.first().copied()?;
        self.next(key)
    }

    /// The first parked one of a key is another one: its deadline.
    fn move_up(&mut self, key: Key, before: Option<Millis>, after: Option<Millis>) {
        if before != after {
            before.map(|deadline| self.parked.remove(&(deadline, key)));
            after.map(|deadline| self.parked.insert((deadline, key)));
        }
    }

    fn of(&mut self, key: Key) -> &mut Of<B> {
        self.keys.entry(key).or_insert_with(|| Of {
            holder: 0,
            in_hand: 0,
            waiting: BTreeSet::new(),
            parked: BTreeMap::new(),
        })
    }

    fn left(&mut self, key: Key, message: &Parked<B>) {
        let ((level, position), (whole, held)) = (message.place(), message.whole());
        self.order.remove(&(level, position, key));
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.size());
        self.whole = (self.whole.0.saturating_sub(whole), self.whole.1.saturating_sub(held));
    }

    /// Nothing is known of a key of which nobody has anything and nothing waits.
    fn tidy(&mut self, key: Key) {
        if self.keys.get(&key).is_some_and(Of::is_idle) {
            self.keys.remove(&key);
        }
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.keys.len()
    }
}

impl<B> Of<B> {
    /// That of the first parked one.
    fn deadline(&self) -> Option<Millis> {
        self.parked.first_key_value().map(|(_, first)| first.deadline())
    }

    /// Nobody has anything of it and nothing waits.
    fn is_idle(&self) -> bool {
        self.in_hand == 0 && self.waiting.is_empty() && self.parked.is_empty()
    }
}
