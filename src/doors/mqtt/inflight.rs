//! Deliveries at QoS 1 and 2 that the client has not acknowledged: which packet identifier stands for which delivery, and
//! what it waits for.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;

use linkspan_contract::{DeliveryTag, SubscriptionKey};

use crate::protocol::mqtt::AckKind;

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
    aside: BTreeMap<u16, (u64, Entry)>,
    /// How many were moved aside so far.
    moved: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: DeliveryTag,
    subscription: u32,
    part: u16,
    stage: Stage,
}

/// What a packet identifier waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing: it is acknowledged.
    Over,
    /// PUBACK, of a delivery at QoS 1.
    Puback,
    /// PUBREC, of a delivery at QoS 2.
    Pubrec,
    /// PUBCOMP: the client has the message [MQTT-4.3.3-5].
    Pubcomp,
}

/// A packet identifier that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub packet_id: NonZeroU16,
    pub key: SubscriptionKey,
    pub tag: DeliveryTag,
    pub stage: Stage,
}

/// What an acknowledgement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The delivery is over, and its identifier is free.
    Over(SubscriptionKey, DeliveryTag),
    /// The client has the delivery, and its identifier stays taken until PUBCOMP.
    Received(SubscriptionKey, DeliveryTag),
    /// That was heard before.
    ReceivedBefore,
    /// The identifier of a delivery that the client has is free.
    Complete,
    /// The identifier stands for nothing.
    Unknown,
    /// The identifier waits for another kind of packet.
    Unexpected,
}

impl Entry {
    const fn key(self) -> SubscriptionKey {
        SubscriptionKey { subscription: self.subscription, part: self.part }
    }

    const fn is_open(self) -> bool {
        !matches!(self.stage, Stage::Over)
    }
}

impl Inflight {
    /// The next free packet identifier, which from now on stands for a delivery; none when all are taken.
    #[inline]
    pub(super) fn allot(
        &mut self,
        key: SubscriptionKey,
        tag: DeliveryTag,
        exactly_once: bool,
    ) -> Option<NonZeroU16> {
        if self.len() >= IDENTIFIERS {
            return None;
        }
        if self.ring.len() >= KEPT && self.ring.len() > 4 * self.open {
            self.move_aside();
        }
        let SubscriptionKey { subscription, part } = key;
        let mut entry = Entry { tag, subscription, part, stage: Stage::Over };
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
            entry.stage = if exactly_once { Stage::Pubrec } else { Stage::Puback };
            self.open += 1;
            self.ring.push_back(entry);
            return Some(identifier);
        }
    }

    /// The client has sent an acknowledgement of that kind; a PUBREC that `failed` is the last that is heard of its
    /// delivery (MQTT 5 §4.3.3).
    #[inline]
    pub(super) fn hear(&mut self, kind: AckKind, identifier: NonZeroU16, failed: bool) -> Heard {
        let place = self.place_of(identifier);
        let entry = match self.ring.get_mut(place) {
            Some(entry) if entry.is_open() => entry,
            _ if self.aside.is_empty() => return Heard::Unknown,
            _ => match self.aside.get_mut(&identifier.get()) {
                Some((_, entry)) => entry,
                None => return Heard::Unknown,
            },
        };
        let (key, tag) = (entry.key(), entry.tag);
        match (entry.stage, kind) {
            (Stage::Puback, AckKind::Puback) => {
                self.free(identifier);
                Heard::Over(key, tag)
            }
            (Stage::Pubrec, AckKind::Pubrec) if failed => {
                self.free(identifier);
                Heard::Over(key, tag)
            }
            (Stage::Pubrec, AckKind::Pubrec) => {
                entry.stage = Stage::Pubcomp;
                Heard::Received(key, tag)
            }
            (Stage::Pubcomp, AckKind::Pubrec) => Heard::ReceivedBefore,
            (Stage::Pubcomp, AckKind::Pubcomp) => {
                self.free(identifier);
                Heard::Complete
            }
            _ => Heard::Unexpected,
        }
    }

    /// The identifiers that are taken, in the order in which they were given out.
    pub(super) fn sent(&self) -> Vec<Sent> {
        let mut aside: Vec<_> = self.aside.iter().collect();
        aside.sort_unstable_by_key(|(_, (moved, _))| *moved);
        let aside = aside.into_iter().filter_map(|(id, (_, entry))| Some((NonZeroU16::new(*id)?, *entry)));
        let ring = self.ring.iter().enumerate().map(|(place, entry)| (self.identifier_at(place), *entry));
        aside
            .chain(ring.filter(|(_, entry)| entry.is_open()))
            .map(|(packet_id, entry)| Sent {
                packet_id,
                key: entry.key(),
                tag: entry.tag,
                stage: entry.stage,
            })
            .collect()
    }

    /// The message behind an identifier is gone. At QoS 1 the identifier is free, and that is true. At QoS 2 the client may
    /// know it, and would take another message under it for the same one: it waits for PUBCOMP.
    pub(super) fn give_up(&mut self, identifier: NonZeroU16) -> bool {
        let place = self.place_of(identifier);
        let entry = match self.ring.get_mut(place) {
            Some(entry) if entry.is_open() => Some(entry),
            _ => self.aside.get_mut(&identifier.get()).map(|(_, entry)| entry),
        };
        match entry {
            Some(entry) if entry.stage == Stage::Pubrec => {
                entry.stage = Stage::Pubcomp;
                false
            }
            Some(entry) if entry.stage == Stage::Puback => {
                self.free(identifier);
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn free(&mut self, identifier: NonZeroU16) {
        let place = self.place_of(identifier);
        match self.ring.get_mut(place) {
            Some(entry) if entry.is_open() => {
                entry.stage = Stage::Over;
                self.open -= 1;
                self.drop_acknowledged();
            }
            _ => drop(self.aside.remove(&identifier.get())),
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
        while self.ring.front().is_some_and(|entry| !entry.is_open()) {
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
            if entry.is_open() {
                self.open -= 1;
                self.moved += 1;
                self.aside.insert(identifier.get(), (self.moved, entry));
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

    fn acked(inflight: &mut Inflight, identifier: NonZeroU16) -> Option<(SubscriptionKey, DeliveryTag)> {
        match inflight.hear(AckKind::Puback, identifier, false) {
            Heard::Over(key, tag) => Some((key, tag)),
            Heard::Unknown => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn at_qos_2_an_identifier_is_taken_until_pubcomp_mqtt_4_3_3_5() {
        let mut inflight = Inflight::default();
        let first = inflight.allot(KEY, 10, true).unwrap();
        let second = inflight.allot(KEY, 11, true).unwrap();
        assert_eq!(inflight.hear(AckKind::Puback, first, false), Heard::Unexpected);
        assert_eq!(inflight.hear(AckKind::Pubcomp, first, false), Heard::Unexpected);
        assert_eq!(inflight.hear(AckKind::Pubrec, first, false), Heard::Received(KEY, 10));
        assert_eq!(inflight.hear(AckKind::Pubrec, first, false), Heard::ReceivedBefore);
        assert_eq!(inflight.hear(AckKind::Pubrec, second, true), Heard::Over(KEY, 11));
        assert_eq!(inflight.len(), 1, "the first one's identifier is in use");
        assert_eq!(inflight.hear(AckKind::Pubcomp, first, false), Heard::Complete);
        assert_eq!(inflight.hear(AckKind::Pubcomp, first, false), Heard::Unknown);
        assert_eq!(inflight.len(), 0);
    }

    #[test]
    fn identifiers_count_up_and_stand_for_their_delivery() {
        let mut inflight = Inflight::default();
        let given: Vec<u16> = (10..13).map(|tag| inflight.allot(KEY, tag, false).unwrap().get()).collect();
        assert_eq!(given, [1, 2, 3]);
        assert_eq!(acked(&mut inflight, id(2)), Some((KEY, 11)));
        assert_eq!(acked(&mut inflight, id(2)), None, "acknowledged twice");
        assert_eq!(acked(&mut inflight, id(1)), Some((KEY, 10)));
        assert_eq!(acked(&mut inflight, id(3)), Some((KEY, 12)));
        assert_eq!(acked(&mut inflight, id(4)), None, "never given out");
        assert_eq!(inflight.len(), 0);
        assert_eq!(
            inflight.allot(KEY, 13, false).unwrap().get(),
            4,
            "used ones are not given out at once again"
        );
    }

    #[test]
    fn zero_is_never_an_identifier_mqtt_2_2_1_3() {
        let mut inflight = Inflight::default();
        for round in 0..70_000_u64 {
            let identifier = inflight.allot(KEY, round, false).unwrap();
            assert_eq!(u64::from(identifier.get()), round % 65_535 + 1);
            assert_eq!(acked(&mut inflight, identifier), Some((KEY, round)));
        }
    }

    #[test]
    fn an_identifier_in_use_is_skipped_mqtt_2_2_1_3() {
        let mut inflight = Inflight::default();
        let stuck =
            [inflight.allot(KEY, 1_000_000, false).unwrap(), inflight.allot(KEY, 1_000_001, false).unwrap()];
        for round in 0..200_000_u64 {
            let identifier = inflight.allot(KEY, round, false).unwrap();
            assert!(!stuck.contains(&identifier), "identifier {identifier} is still in use");
            assert_eq!(acked(&mut inflight, identifier), Some((KEY, round)));
            assert!(inflight.ring.len() <= 2 * KEPT, "the ring grew to {} places", inflight.ring.len());
        }
        assert_eq!(acked(&mut inflight, stuck[1]), Some((KEY, 1_000_001)));
        assert_eq!(acked(&mut inflight, stuck[0]), Some((KEY, 1_000_000)));
    }

    #[test]
    fn all_identifiers_can_be_in_use_and_no_more() {
        let mut inflight = Inflight::default();
        for tag in 0..65_535 {
            assert!(inflight.allot(KEY, tag, false).is_some());
        }
        assert_eq!(inflight.allot(KEY, 65_535, false), None);
        assert_eq!(acked(&mut inflight, id(500)), Some((KEY, 499)));
        assert_eq!(inflight.allot(KEY, 65_536, false), Some(id(500)), "the only free one");
        assert_eq!(inflight.allot(KEY, 65_537, false), None);
        assert_eq!(acked(&mut inflight, id(500)), Some((KEY, 65_536)));
        assert_eq!(acked(&mut inflight, id(1)), Some((KEY, 0)));
    }

    #[test]
    fn what_is_taken_is_told_in_the_order_in_which_it_was_given_out_mqtt_4_4_0_1() {
        let mut inflight = Inflight::default();
        let mut expected = Vec::new();
        for round in 0..140_000_u64 {
            let identifier = inflight.allot(KEY, round, round % 2 == 0).unwrap();
            if round % 65_000 == 7 {
                expected.push((identifier, round));
            } else if round % 2 == 0 {
                inflight.hear(AckKind::Pubrec, identifier, true);
            } else {
                inflight.hear(AckKind::Puback, identifier, false);
            }
        }
        let told: Vec<_> = inflight.sent().iter().map(|sent| (sent.packet_id, sent.tag)).collect();
        assert_eq!(told, expected);
        assert!(!inflight.aside.is_empty());
    }

    #[test]
    fn what_is_gone_frees_its_identifier_at_qos_1_only() {
        let mut inflight = Inflight::default();
        let (least, once) = (inflight.allot(KEY, 1, false).unwrap(), inflight.allot(KEY, 2, true).unwrap());
        assert!(inflight.give_up(least) && !inflight.give_up(once));
        assert_eq!(inflight.hear(AckKind::Puback, least, false), Heard::Unknown);
        assert_eq!(inflight.hear(AckKind::Pubcomp, once, false), Heard::Complete);
    }

    #[test]
    fn an_empty_ring_that_was_large_gives_its_memory_back() {
        let mut inflight = Inflight::default();
        let all: Vec<_> = (0..5000).map(|tag| inflight.allot(KEY, tag, false).unwrap()).collect();
        for identifier in all {
            acked(&mut inflight, identifier);
        }
        assert_eq!(inflight.ring.capacity(), 0);
    }
}
