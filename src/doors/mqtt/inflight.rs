//! Deliveries at QoS 1 that the client has not acknowledged: which packet identifier stands for which delivery.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;

use linkspan_contract::{DeliveryTag, SubscriptionKey};

/// A ring that has grown beyond this many entries is given back when it is empty.
const KEPT: usize = 256;

/// Number of packet identifiers: 1 to 65,535.
const IDENTIFIERS: usize = 65_535;

/// Packet identifiers are given out in turn, so the entries form a ring: an identifier's place is its distance from the
/// first one. A few that the client leaves unacknowledged for long are moved aside, so that the ring stays short.
#[derive(Debug, Default)]
pub(super) struct Inflight {
    ring: VecDeque<Entry>,
    /// The identifier of the ring's first entry, less one.
    front: u16,
    /// Entries of the ring that are not acknowledged.
    open: usize,
    aside: BTreeMap<u16, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: DeliveryTag,
    subscription: u32,
    part: u16,
    open: bool,
}

impl Entry {
    const fn key(self) -> SubscriptionKey {
        SubscriptionKey { subscription: self.subscription, part: self.part }
    }
}

impl Inflight {
    /// The next free packet identifier, which from now on stands for a delivery; none when all are taken.
    #[inline]
    pub(super) fn allot(&mut self, key: SubscriptionKey, tag: DeliveryTag) -> Option<NonZeroU16> {
        if self.len() >= IDENTIFIERS {
            return None;
        }
        if self.ring.len() >= KEPT && self.ring.len() > 4 * self.open {
            self.move_aside();
        }
        let SubscriptionKey { subscription, part } = key;
        let mut entry = Entry { tag, subscription, part, open: false };
        loop {
            if self.ring.len() >= IDENTIFIERS {
                self.move_aside();
                continue;
            }
            let identifier = self.identifier_at(self.ring.len());
            if !self.aside.is_empty() && self.aside.contains_key(&identifier.get()) {
                // A place that counts as acknowledged: the identifier is still in use elsewhere.
                self.ring.push_back(entry);
                continue;
            }
            entry.open = true;
            self.open += 1;
            self.ring.push_back(entry);
            return Some(identifier);
        }
    }

    /// The delivery that the client has acknowledged; none when the identifier stands for nothing.
    #[inline]
    pub(super) fn take(&mut self, identifier: NonZeroU16) -> Option<(SubscriptionKey, DeliveryTag)> {
        let place = self.place_of(identifier);
        match self.ring.get_mut(place) {
            Some(entry) if entry.open => {
                entry.open = false;
                let found = (entry.key(), entry.tag);
                self.open -= 1;
                self.drop_acknowledged();
                Some(found)
            }
            _ if self.aside.is_empty() => None,
            _ => self.aside.remove(&identifier.get()).map(|entry| (entry.key(), entry.tag)),
        }
    }

    /// How many are unacknowledged.
    pub(super) fn len(&self) -> usize {
        self.open + self.aside.len()
    }

    fn identifier_at(&self, place: usize) -> NonZeroU16 {
        let number = (usize::from(self.front) + place) % IDENTIFIERS;
        NonZeroU16::MIN.saturating_add(u16::try_from(number).unwrap_or_default())
    }

    fn place_of(&self, identifier: NonZeroU16) -> usize {
        (usize::from(identifier.get()) - 1 + IDENTIFIERS - usize::from(self.front)) % IDENTIFIERS
    }

    fn advance(&mut self, places: usize) {
        let front = (usize::from(self.front) + places) % IDENTIFIERS;
        self.front = u16::try_from(front).unwrap_or_default();
    }

    fn drop_acknowledged(&mut self) {
        let mut places = 0;
        while self.ring.front().is_some_and(|entry| !entry.open) {
            self.ring.pop_front();
            places += 1;
        }
        if places > 0 {
            self.advance(places);
        }
        if self.ring.is_empty() && self.ring.capacity() > KEPT {
            self.ring = VecDeque::new();
        }
    }

    /// Moves the oldest one out of the way of those behind it.
    fn move_aside(&mut self) {
        let identifier = self.identifier_at(0);
        if let Some(entry) = self.ring.pop_front() {
            if entry.open {
                self.open -= 1;
                self.aside.insert(identifier.get(), entry);
            }
            self.advance(1);
        }
        self.drop_acknowledged();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SubscriptionKey = SubscriptionKey { subscription: 7, part: 1 };

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    #[test]
    fn identifiers_count_up_and_stand_for_their_delivery() {
        let mut inflight = Inflight::default();
        let given: Vec<u16> = (10..13).map(|tag| inflight.allot(KEY, tag).unwrap().get()).collect();
        assert_eq!(given, [1, 2, 3]);
        assert_eq!(inflight.take(id(2)), Some((KEY, 11)));
        assert_eq!(inflight.take(id(2)), None, "acknowledged twice");
        assert_eq!(inflight.take(id(1)), Some((KEY, 10)));
        assert_eq!(inflight.take(id(3)), Some((KEY, 12)));
        assert_eq!(inflight.take(id(4)), None, "never given out");
        assert_eq!(inflight.len(), 0);
        assert_eq!(inflight.allot(KEY, 13).unwrap().get(), 4, "used ones are not given out at once again");
    }

    #[test]
    fn zero_is_never_an_identifier_mqtt_2_2_1_3() {
        let mut inflight = Inflight::default();
        for round in 0..70_000_u64 {
            let identifier = inflight.allot(KEY, round).unwrap();
            assert_eq!(u64::from(identifier.get()), round % 65_535 + 1);
            assert_eq!(inflight.take(identifier), Some((KEY, round)));
        }
    }

    #[test]
    fn an_identifier_in_use_is_skipped_mqtt_2_2_1_3() {
        let mut inflight = Inflight::default();
        let stuck = [inflight.allot(KEY, 1_000_000).unwrap(), inflight.allot(KEY, 1_000_001).unwrap()];
        for round in 0..200_000_u64 {
            let identifier = inflight.allot(KEY, round).unwrap();
            assert!(!stuck.contains(&identifier), "identifier {identifier} is still in use");
            assert_eq!(inflight.take(identifier), Some((KEY, round)));
            assert!(inflight.ring.len() <= 2 * KEPT, "the ring grew to {} places", inflight.ring.len());
        }
        assert_eq!(inflight.take(stuck[1]), Some((KEY, 1_000_001)));
        assert_eq!(inflight.take(stuck[0]), Some((KEY, 1_000_000)));
    }

    #[test]
    fn all_identifiers_can_be_in_use_and_no_more() {
        let mut inflight = Inflight::default();
        for tag in 0..65_535 {
            assert!(inflight.allot(KEY, tag).is_some());
        }
        assert_eq!(inflight.allot(KEY, 65_535), None);
        assert_eq!(inflight.take(id(500)), Some((KEY, 499)));
        assert_eq!(inflight.allot(KEY, 65_536), Some(id(500)), "the only free one");
        assert_eq!(inflight.allot(KEY, 65_537), None);
        assert_eq!(inflight.take(id(500)), Some((KEY, 65_536)));
        assert_eq!(inflight.take(id(1)), Some((KEY, 0)));
    }

    #[test]
    fn an_empty_ring_that_was_large_gives_its_memory_back() {
        let mut inflight = Inflight::default();
        let all: Vec<_> = (0..5000).map(|tag| inflight.allot(KEY, tag).unwrap()).collect();
        for identifier in all {
            inflight.take(identifier);
        }
        assert_eq!(inflight.ring.capacity(), 0);
    }
}
