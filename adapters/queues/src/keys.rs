//! Messages of one key go to one consumer at a time, in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use linkspan_contract::Millis;
use smallvec::SmallVec;

use crate::offer::{Position, Queued};

/// What a message has that is to go to whoever has others with the same; zero: it goes to anybody.
pub type Key = u32;

/// The keys of which somebody has something in hand, or something waits.
#[derive(Debug)]
pub(crate) struct Keys<B> {
    keys: HashMap<Key, Of<B>, RandomState>,
    /// Keys of which more waits for a holder to take it, by the holders' places.
    stuck: HashMap<usize, SmallVec<[Key; 4]>, RandomState>,
    len: u64,
    bytes: u64,
    held: u64,
}

#[derive(Debug)]
struct Of<B> {
    /// The place of who has some in hand.
    holder: usize,
    in_hand: u32,
    /// Those that came back and wait for their time.
    waiting: SmallVec<[Position; 1]>,
    /// Those whose turn it was when others of the key were in the way.
    parked: BTreeMap<(Reverse<u8>, Position), Queued<B>>,
}

/// Who may be given a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Anybody,
    /// Who is at this place.
    Of(usize),
    /// Nobody, before others of the key.
    Nobody,
}

/// So many messages are passed over, at most, because others of their keys are in the way.
const MOST: u64 = 64 << 10;

/// And so many bytes.
const MOST_BYTES: u64 = 16 << 20;

impl<B> Keys<B> {
    pub(crate) fn new() -> Self {
        Self { keys: HashMap::default(), stuck: HashMap::default(), len: 0, bytes: 0, held: 0 }
    }

    /// Those that are parked.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those of memory.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// True when no more are to be parked.
    pub(crate) const fn is_full(&self) -> bool {
        self.len >= MOST || self.held >= MOST_BYTES
    }

    /// Who may be given the message of a key that stands there.
    pub(crate) fn whose(&self, key: Key, priority: u8, position: Position) -> Whose {
        let Some(of) = self.keys.get(&key).filter(|_| key != 0) else { return Whose::Anybody };
        let is_behind =
            of.parked.first_key_value().is_some_and(|(first, _)| *first < (Reverse(priority), position));
        if is_behind || of.waiting.iter().any(|waiting| *waiting < position) {
            Whose::Nobody
        } else if of.in_hand > 0 {
            Whose::Of(of.holder)
        } else {
            Whose::Anybody
        }
    }

    /// A message has to wait for others of its key; for who has them to take it, when that is what hinders it.
    pub(crate) fn park(&mut self, message: Queued<B>, holder: Option<usize>) {
        let key = message.key;
        self.len += 1;
        self.bytes = self.bytes.saturating_add(message.size);
        self.held = self.held.saturating_add(message.held());
        self.of(key).parked.insert((Reverse(message.priority), message.position), message);
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
            self.of(key).waiting.push(position);
        }
    }

    /// Its time has come.
    pub(crate) fn waited(&mut self, key: Key, position: Position) {
        if let Some(of) = self.keys.get_mut(&key) {
            of.waiting.retain(|waiting| *waiting != position);
        }
        self.tidy(key);
    }

    /// None waits for its time any more.
    pub(crate) fn none_waits(&mut self) {
        self.keys.values_mut().for_each(|of| of.waiting.clear());
        self.keys.retain(|_, of| !of.is_idle());
    }

    /// The next parked one of a key may be looked at again.
    pub(crate) fn next(&mut self, key: Key) -> Option<Queued<B>> {
        let (_, message) = self.keys.get_mut(&key)?.parked.pop_first()?;
        self.left(&message);
        self.tidy(key);
        Some(message)
    }

    /// Keys of which more waited for who is at this place.
    pub(crate) fn unstick(&mut self, holder: usize) -> SmallVec<[Key; 4]> {
        if self.stuck.is_empty() { SmallVec::new() } else { self.stuck.remove(&holder).unwrap_or_default() }
    }

    /// A parked one that is over.
    pub(crate) fn pop_expired(&mut self, now: Millis) -> Option<Queued<B>> {
        let is_over =
            |of: &Of<B>| of.parked.first_key_value().is_some_and(|(_, first)| first.is_expired(now));
        let key = self.keys.iter().find(|(_, of)| is_over(of)).map(|(key, _)| *key)?;
        self.next(key)
    }

    /// When the first of a key is over next.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        if self.len == 0 {
            return None;
        }
        let first = |of: &Of<B>| of.parked.first_key_value().map(|(_, first)| first.deadline);
        self.keys.values().filter_map(first).min()
    }

    /// Any parked one.
    pub(crate) fn pop_any(&mut self) -> Option<Queued<B>> {
        if self.len == 0 {
            return None;
        }
        let key = self.keys.iter().find(|(_, of)| !of.parked.is_empty()).map(|(key, _)| *key)?;
        self.next(key)
    }

    fn of(&mut self, key: Key) -> &mut Of<B> {
        self.keys.entry(key).or_insert_with(|| Of {
            holder: 0,
            in_hand: 0,
            waiting: SmallVec::new(),
            parked: BTreeMap::new(),
        })
    }

    fn left(&mut self, message: &Queued<B>) {
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.size);
        self.held = self.held.saturating_sub(message.held());
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
    /// Nobody has anything of it and nothing waits.
    fn is_idle(&self) -> bool {
        self.in_hand == 0 && self.waiting.is_empty() && self.parked.is_empty()
    }
}
