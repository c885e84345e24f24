//! What a lane was given and has not settled: its own numbers, and the broker's.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{DeliveryTag, Kept, Millis, SubscriptionKey};

/// Milliseconds that a message is kept from the broker at most where Linkspan says how long: RabbitMQ closes the channel for
/// one that it has waited 30 minutes for (`consumer_timeout`).
pub(crate) const LONGEST: Millis = 1_500_000;

/// All that a channel has unsettled.
#[derive(Debug, Default)]
pub(crate) struct Held {
    ledgers: HashMap<SubscriptionKey, Ledger, RandomState>,
    marks: Marks,
}

/// What one subscription was given: its tags count up from 1.
#[derive(Debug)]
struct Ledger {
    /// The tag of the first entry.
    first: DeliveryTag,
    entries: VecDeque<Option<Unsettled>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { first: 1, entries: VecDeque::new() }
    }
}

/// One delivery.
#[derive(Debug, Clone)]
pub(crate) struct Unsettled {
    /// The broker's number on the channel.
    pub(crate) upstream: u64,
    /// The message, for a session that is given it again.
    pub(crate) message: Option<Kept>,
    pub(crate) attempt: u32,
    /// When it is released by itself; 0: never.
    pub(crate) deadline: Millis,
    /// No deadline is behind this.
    pub(crate) last: Millis,
    /// Its deadline has passed: only the client's window still holds it.
    pub(crate) late: bool,
}

impl Held {
    /// The tag of the next delivery of a subscription.
    pub(crate) fn next(&mut self, key: SubscriptionKey) -> DeliveryTag {
        let ledger = self.ledgers.entry(key).or_default();
        ledger.first.saturating_add(ledger.entries.len() as u64)
    }

    /// The broker has sent these.
    pub(crate) fn note_sent<'d>(&mut self, deliveries: impl Iterator<Item = &'d lapin::message::Delivery>) {
        for delivery in deliveries {
            self.marks.open(delivery.delivery_tag);
        }
    }

    /// Notes the next delivery of a subscription, and tells its tag.
    pub(crate) fn give(&mut self, key: SubscriptionKey, unsettled: Unsettled) -> DeliveryTag {
        let tag = self.next(key);
        if let Some(ledger) = self.ledgers.get_mut(&key) {
            ledger.entries.push_back(Some(unsettled));
        }
        tag
    }

    pub(crate) fn get_mut(&mut self, key: SubscriptionKey, tag: DeliveryTag) -> Option<&mut Unsettled> {
        let ledger = self.ledgers.get_mut(&key)?;
        let place = usize::try_from(tag.checked_sub(ledger.first)?).ok()?;
        ledger.entries.get_mut(place)?.as_mut()
    }

    /// Takes a delivery out, if it is there.
    pub(crate) fn take(&mut self, key: SubscriptionKey, tag: DeliveryTag) -> Option<Unsettled> {
        let ledger = self.ledgers.get_mut(&key)?;
        let place = usize::try_from(tag.checked_sub(ledger.first)?).ok()?;
        let taken = ledger.entries.get_mut(place)?.take();
        while ledger.entries.front().is_some_and(Option::is_none) {
            ledger.entries.pop_front();
            ledger.first = ledger.first.saturating_add(1);
        }
        taken
    }

    /// Puts back what was taken: its settlement was rolled back.
    pub(crate) fn put_back(&mut self, key: SubscriptionKey, tag: DeliveryTag, unsettled: Unsettled) {
        let ledger = self.ledgers.entry(key).or_default();
        while tag < ledger.first {
            ledger.entries.push_front(None);
            ledger.first = ledger.first.saturating_sub(1);
        }
        let place = usize::try_from(tag.saturating_sub(ledger.first)).unwrap_or(usize::MAX);
        if let Some(entry) = ledger.entries.get_mut(place) {
            *entry = Some(unsettled);
        }
    }

    /// True when the client holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.ledgers.values().all(|ledger| ledger.entries.is_empty())
    }

    /// How many deliveries of a subscription the client holds.
    pub(crate) fn count(&self, key: SubscriptionKey) -> usize {
        self.ledgers.get(&key).map_or(0, |ledger| ledger.entries.iter().flatten().count())
    }

    /// The tags that a subscription's unsettled deliveries lie in.
    pub(crate) fn span(&self, key: SubscriptionKey) -> Range<DeliveryTag> {
        self.ledgers.get(&key).map_or(0..0, |it| it.first..it.first.saturating_add(it.entries.len() as u64))
    }

    /// Lets go of a subscription that is over, when nothing of it is unsettled.
    pub(crate) fn prune(&mut self, key: SubscriptionKey) {
        if self.ledgers.get(&key).is_some_and(|ledger| ledger.entries.is_empty()) {
            self.ledgers.remove(&key);
        }
    }

    /// Forgets everything: the broker gives it again. Tags go on.
    pub(crate) fn lose(&mut self) {
        for ledger in self.ledgers.values_mut() {
            ledger.first = ledger.first.saturating_add(ledger.entries.len() as u64);
            ledger.entries.clear();
        }
        self.marks = Marks::default();
    }

    /// All deliveries, each subscription's in its order.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = (SubscriptionKey, DeliveryTag, &mut Unsettled)> {
        let mut keys: Vec<_> = self.ledgers.iter_mut().collect();
        keys.sort_by_key(|(key, _)| **key);
        keys.into_iter().flat_map(|(key, ledger)| {
            let tags = ledger.first..;
            tags.zip(&mut ledger.entries).filter_map(|(tag, entry)| Some((*key, tag, entry.as_mut()?)))
        })
    }

    pub(crate) fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }
}

/// The broker's numbers that it still waits to hear about, so that many are told with one word.
#[derive(Debug)]
pub(crate) struct Marks {
    /// The lowest number that was not dealt with; 0: the next one that is seen.
    floor: u64,
    /// From there on.
    seen: VecDeque<Mark>,
    /// Accepted since the last [`Marks::tell`].
    fresh: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It has not been looked at: the broker sends several consumers at once.
    Unseen,
    Open,
    Told,
}

/// An acknowledgement to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) tag: u64,
    pub(crate) multiple: bool,
}

impl Default for Marks {
    fn default() -> Self {
        Self { floor: 1, seen: VecDeque::new(), fresh: BTreeSet::new() }
    }
}

impl Marks {
    /// Everything was given back on the same channel: numbers go on, from one that is not known.
    pub(crate) fn forget(&mut self) {
        *self = Self { floor: 0, ..Self::default() };
    }

    /// The broker waits to hear about it.
    pub(crate) fn open(&mut self, tag: u64) {
        self.set(tag, Mark::Open);
    }

    /// Numbers below one that was seen that nobody has: lapin drops what comes for a consumer that it was told is
    /// cancelled.
    pub(crate) fn strays(&self) -> Vec<u64> {
        let last = self.seen.iter().rposition(|mark| *mark != Mark::Unseen).unwrap_or(0);
        let marks = (self.floor..).zip(&self.seen).take(last);
        marks.filter(|(_, mark)| **mark == Mark::Unseen).map(|(tag, _)| tag).collect()
    }

    /// It is to be accepted.
    pub(crate) fn accept(&mut self, tag: u64) {
        self.fresh.insert(tag);
    }

    /// The broker knows about it in another way.
    pub(crate) fn told(&mut self, tag: u64) {
        self.set(tag, Mark::Told);
        self.shrink();
    }

    fn set(&mut self, tag: u64, mark: Mark) {
        if self.floor == 0 {
            self.floor = tag;
        }
        while tag < self.floor {
            self.seen.push_front(Mark::Unseen);
            self.floor -= 1;
        }
        let place = usize::try_from(tag - self.floor).unwrap_or(usize::MAX);
        while self.seen.len() <= place {
            self.seen.push_back(Mark::Unseen);
        }
        if let Some(seen) = self.seen.get_mut(place) {
            *seen = mark;
        }
    }

    fn shrink(&mut self) {
        while self.seen.front() == Some(&Mark::Told) {
            self.seen.pop_front();
            self.floor = self.floor.saturating_add(1);
        }
    }

    /// What the broker is to be told, with as few words as possible.
    pub(crate) fn tell(&mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        let fresh = std::mem::take(&mut self.fresh);
        for tag in &fresh {
            self.set(*tag, Mark::Told);
        }
        self.shrink();
        let together = fresh.range(..self.floor).count();
        if let Some(tag) = fresh.range(..self.floor).next_back() {
            acks.push(Ack { tag: *tag, multiple: together > 1 });
        }
        acks.extend(fresh.range(self.floor..).map(|tag| Ack { tag: *tag, multiple: false }));
        acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SubscriptionKey = SubscriptionKey { subscription: 1, part: 0 };

    fn unsettled(upstream: u64) -> Unsettled {
        Unsettled { upstream, message: None, attempt: 0, deadline: 0, last: LONGEST, late: false }
    }

    #[test]
    fn tags_count_up_and_are_settled_in_any_order_once() {
        let mut held = Held::default();
        for upstream in [7, 9, 11] {
            held.give(KEY, unsettled(upstream));
        }
        assert_eq!(held.take(KEY, 2).map(|it| it.upstream), Some(9));
        assert!(held.take(KEY, 2).is_none() && held.take(KEY, 9).is_none());
        assert_eq!(held.take(KEY, 1).map(|it| it.upstream), Some(7));
        held.put_back(KEY, 1, unsettled(7));
        assert_eq!(held.take(KEY, 1).map(|it| it.upstream), Some(7), "a settlement may be rolled back");
        held.lose();
        assert!(held.take(KEY, 3).is_none(), "it is the broker's again");
        assert_eq!(held.give(KEY, unsettled(1)), 4);
    }

    #[test]
    fn what_lies_below_everything_unsettled_is_told_with_one_word() {
        let mut marks = Marks::default();
        for tag in [1, 4, 3, 2, 5, 6, 7, 8, 9] {
            marks.open(tag);
        }
        marks.told(2);
        marks.told(1);
        for tag in [4, 3, 5, 8] {
            marks.accept(tag);
        }
        let ack = |tag, multiple| Ack { tag, multiple };
        assert_eq!(marks.tell(), [ack(5, true), ack(8, false)]);
        marks.told(6);
        marks.accept(7);
        assert_eq!(marks.tell(), [ack(7, false)], "nothing else is left below it");
        marks.accept(9);
        assert_eq!(marks.tell(), [ack(9, false)]);
        marks.open(12);
        marks.accept(12);
        assert_eq!(marks.tell(), [ack(12, false)], "what was not looked at below it is not accepted with it");
        for tag in [10, 11] {
            marks.open(tag);
            marks.accept(tag);
        }
        assert_eq!(marks.tell(), [ack(11, true)]);
        assert!(marks.strays().is_empty());
        marks.open(15);
        assert_eq!(marks.strays(), [13, 14]);
        marks.forget();
        marks.open(40);
        marks.open(39);
        marks.accept(40);
        assert_eq!(marks.tell(), [ack(40, false)]);
    }
}
