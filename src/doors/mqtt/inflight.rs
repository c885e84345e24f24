//! Deliveries at QoS 1 and 2 that the client has not acknowledged: which packet identifier stands for which delivery, and
//! what it waits for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use linkspan_contract::sink::SPAN;
use linkspan_contract::{DeliveryTag, SubscriptionKey};

use crate::protocol::mqtt::AckKind;

/// A ring that has grown beyond this many entries is given back when it is empty.
const KEPT: usize = 256;

/// Number of packet identifiers: 1 to 65,535.
const IDENTIFIERS: usize = 65_535;

/// Packet identifiers are given out in turn, so the entries form a ring: an identifier's place is its distance from the
/// first one. A few that the client leaves unacknowledged for long are moved aside, so that the ring stays short.
///
/// Lasting deliveries have the identifier that their tag says, 1 to [`SPAN`], after a restart of the server, too; where
/// there may be such the others share the rest.
#[derive(Debug)]
pub(super) struct Inflight {
    ring: VecDeque<Entry>,
    /// The identifier of the ring's first entry, less the first one, which is `first`.
    front: u16,
    first: NonZeroU16,
    /// Entries of the ring that are not acknowledged.
    open: usize,
    /// Those that are not in the ring, and their places in the order.
    aside: BTreeMap<u16, (u64, Entry)>,
    /// The place in the order of the ring's first entry.
    passed: u64,
    /// Lasting ones of which the client has said that it has them before the back end has given them again.
    early: BTreeSet<NonZeroU16>,
}

impl Default for Inflight {
    /// None is lasting.
    fn default() -> Self {
        let (ring, aside, early) = (VecDeque::new(), BTreeMap::new(), BTreeSet::new());
        Self { ring, front: 0, first: NonZeroU16::MIN, open: 0, aside, passed: 0, early }
    }
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
    /// What is noted of a lasting delivery at QoS 2 to be safe: the client has the message, and is not told so yet.
    Noted,
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
    /// The same of a lasting one, which is released when that is safe.
    ReceivedLasting(SubscriptionKey, DeliveryTag),
    /// That was heard before, and the delivery was released.
    ReceivedBefore,
    /// The identifier of a delivery that the client has is free.
    Complete,
    /// The same of a lasting one, which is over now.
    CompleteLasting(SubscriptionKey, DeliveryTag),
    /// Nothing is to be done yet.
    TooEarly,
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

/// The packet identifier of a lasting delivery.
fn lasting_identifier(tag: DeliveryTag) -> NonZeroU16 {
    let number = tag.saturating_sub(1) % SPAN;
    NonZeroU16::MIN.saturating_add(u16::try_from(number).unwrap_or_default())
}

impl Inflight {
    /// For a session that has lasting deliveries.
    pub(super) fn lasting() -> Self {
        let reserved = u16::try_from(SPAN).unwrap_or_default();
        Self { first: NonZeroU16::MIN.saturating_add(reserved), ..Self::default() }
    }

    /// The packet identifier of a lasting delivery, which from now on stands for it; none when it stands for another one,
    /// which does not happen as long as the back end keeps its word.
    pub(super) fn hold(
        &mut self,
        key: SubscriptionKey,
        tag: DeliveryTag,
        stage: Stage,
    ) -> Option<NonZeroU16> {
        let identifier = lasting_identifier(tag);
        self.early.remove(&identifier);
        let place = self.passed + self.ring.len() as u64;
        let SubscriptionKey { subscription, part } = key;
        let (_, entry) =
            self.aside.entry(identifier.get()).or_insert((place, Entry { tag, subscription, part, stage }));
        (entry.tag == tag).then_some(identifier)
    }

    /// The client has the delivery of an identifier that stands for nothing yet, if that may be given again.
    pub(super) fn hear_early(&mut self, identifier: NonZeroU16) {
        if self.is_lasting(identifier) {
            self.early.insert(identifier);
        }
    }

    /// Whether the client has said early that it has this lasting delivery.
    pub(super) fn was_early(&self, tag: DeliveryTag) -> bool {
        self.early.contains(&lasting_identifier(tag))
    }

    /// Whether this lasting delivery has its identifier.
    pub(super) fn holds(&self, tag: DeliveryTag) -> bool {
        self.aside.get(&lasting_identifier(tag).get()).is_some_and(|(_, entry)| entry.tag == tag)
    }

    /// That the client has this delivery is safe: true when it is to be released now.
    pub(super) fn release(&mut self, identifier: NonZeroU16) -> bool {
        match self.aside.get_mut(&identifier.get()) {
            Some((_, entry)) if entry.stage == Stage::Noted => {
                entry.stage = Stage::Pubcomp;
                true
            }
            _ => false,
        }
    }

    /// Whether an identifier is one of lasting deliveries.
    fn is_lasting(&self, identifier: NonZeroU16) -> bool {
        identifier < self.first
    }

    /// How many identifiers are given out in turn.
    fn range(&self) -> usize {
        IDENTIFIERS + 1 - usize::from(self.first.get())
    }

    /// The next free packet identifier, which from now on stands for a delivery; none when all are taken.
    #[inline]
    pub(super) fn allot(
        &mut self,
        key: SubscriptionKey,
        tag: DeliveryTag,
        exactly_once: bool,
    ) -> Option<NonZeroU16> {
        if self.len() >= self.range() {
            let aside = self.aside.range(self.first.get()..).count();
            if self.open + aside >= self.range() {
                return None;
            }
        }
        if self.ring.len() >= KEPT && self.ring.len() > 4 * self.open {
            self.move_aside();
        }
        let SubscriptionKey { subscription, part } = key;
        let mut entry = Entry { tag, subscription, part, stage: Stage::Over };
        loop {
            if self.ring.len() >= self.range() {
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
        let lasting = self.is_lasting(identifier);
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
            (Stage::Pubrec, AckKind::Pubrec) if lasting => {
                entry.stage = Stage::Noted;
                Heard::ReceivedLasting(key, tag)
            }
            (Stage::Noted, AckKind::Pubrec) => Heard::TooEarly,
            (Stage::Pubrec, AckKind::Pubrec) => {
                entry.stage = Stage::Pubcomp;
                Heard::Received(key, tag)
            }
            (Stage::Pubcomp, AckKind::Pubrec) => Heard::ReceivedBefore,
            (Stage::Pubcomp, AckKind::Pubcomp) => {
                self.free(identifier);
                if lasting {
                    return Heard::CompleteLasting(key, tag);
                }
                Heard::Complete
            }
            _ => Heard::Unexpected,
        }
    }

    /// The identifiers that are taken, in the order in which they were given out.
    pub(super) fn sent(&self) -> Vec<Sent> {
        let aside = self.aside.iter().filter_map(|(id, (place, entry))| {
            let identifier = NonZeroU16::new(*id)?;
            // Lasting ones stand before what took the next place of the ring, in the order of their tags.
            let rank = if self.is_lasting(identifier) { (*place, 0, entry.tag) } else { (*place, 1, 0) };
            Some((rank, identifier, *entry))
        });
        let ring = (self.passed..).zip(self.ring.iter().enumerate());
        let ring = ring.map(|(place, (at, entry))| ((place, 1, 0), self.identifier_at(at), *entry));
        let mut all: Vec<_> = aside.chain(ring.filter(|(.., entry)| entry.is_open())).collect();
        all.sort_unstable_by_key(|(rank, ..)| *rank);
        all.into_iter()
            .map(|(_, packet_id, entry)| (packet_id, entry))
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
        let number = within(usize::from(self.front) + place, self.range());
        self.first.saturating_add(u16::try_from(number).unwrap_or_default())
    }

    /// Where in the ring it is; beyond all places for one that is not given out in turn.
    fn place_of(&self, identifier: NonZeroU16) -> usize {
        match usize::from(identifier.get()).checked_sub(usize::from(self.first.get())) {
            Some(number) => within(number + self.range() - usize::from(self.front), self.range()),
            None => usize::MAX,
        }
    }

    fn advance(&mut self, places: usize) {
        self.passed += places as u64;
        let front = within(usize::from(self.front) + places, self.range());
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
                self.aside.insert(identifier.get(), (self.passed, entry));
            }
            self.advance(1);
        }
        self.drop_acknowledged();
    }
}

/// A number below twice the range, brought within it.
const fn within(number: usize, range: usize) -> usize {
    if number < range { number } else { number - range }
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
    fn a_lasting_delivery_that_is_had_before_it_is_given_again_is_known_until_it_is() {
        let mut inflight = Inflight::lasting();
        let key = SubscriptionKey { subscription: 0, part: 0 };
        let early = lasting_identifier(3);
        assert_eq!(inflight.hear(AckKind::Pubrec, early, false), Heard::Unknown);
        inflight.hear_early(early);
        assert!(inflight.was_early(3) && !inflight.was_early(4));
        assert_eq!(inflight.hold(key, 3, Stage::Pubcomp), Some(early));
        assert!(!inflight.was_early(3), "the next message of that identifier is another one");
        let mut plain = Inflight::default();
        plain.hear_early(early);
        assert!(!plain.was_early(3), "nothing is given again there");
    }

    #[test]
    fn lasting_deliveries_take_no_identifiers_from_the_others() {
        let mut inflight = Inflight::lasting();
        let key = SubscriptionKey { subscription: 0, part: 0 };
        for tag in 1..=SPAN {
            assert!(inflight.hold(key, tag, Stage::Puback).is_some());
        }
        let count = (1..=70_000).take_while(|tag| inflight.allot(key, *tag, false).is_some()).count();
        assert_eq!(count, IDENTIFIERS - usize::try_from(SPAN).unwrap());
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
    fn a_lasting_delivery_has_the_identifier_of_its_tag_and_others_have_the_rest() {
        let mut inflight = Inflight::lasting();
        let hold = |inflight: &mut Inflight, tag| inflight.hold(KEY, tag, Stage::Puback).map(NonZeroU16::get);
        assert_eq!(hold(&mut inflight, 1), Some(1));
        assert_eq!(hold(&mut inflight, SPAN), Some(32_767));
        assert_eq!(hold(&mut inflight, SPAN + 2), Some(2));
        assert_eq!(hold(&mut inflight, SPAN + 1), None, "the first one is not acknowledged");
        assert_eq!(hold(&mut inflight, 1), Some(1), "it is the same delivery");
        assert_eq!(acked(&mut inflight, id(1)), Some((KEY, 1)));
        assert_eq!(hold(&mut inflight, SPAN + 1), Some(1));
        for round in 0..70_000_u64 {
            let identifier = inflight.allot(KEY, round, false).unwrap();
            assert_eq!(u64::from(identifier.get()), 32_768 + round % 32_768);
            assert_eq!(acked(&mut inflight, identifier), Some((KEY, round)));
        }
        assert_eq!(acked(&mut inflight, id(2)), Some((KEY, SPAN + 2)));
        assert_eq!(acked(&mut inflight, id(2)), None);
    }

    #[test]
    fn a_lasting_delivery_is_released_when_that_is_safe() {
        let mut inflight = Inflight::lasting();
        let first = inflight.hold(KEY, 5, Stage::Pubrec).unwrap();
        assert!(!inflight.release(first), "nobody has it");
        assert_eq!(inflight.hear(AckKind::Pubrec, first, false), Heard::ReceivedLasting(KEY, 5));
        assert_eq!(inflight.hear(AckKind::Pubrec, first, false), Heard::TooEarly);
        assert_eq!(inflight.hear(AckKind::Pubcomp, first, false), Heard::Unexpected);
        assert!(inflight.release(first) && !inflight.release(first));
        assert_eq!(inflight.hear(AckKind::Pubrec, first, false), Heard::ReceivedBefore);
        assert_eq!(inflight.hear(AckKind::Pubcomp, first, false), Heard::CompleteLasting(KEY, 5));
        assert_eq!(inflight.len(), 0);
    }

    #[test]
    fn lasting_deliveries_stand_among_the_others_in_the_order_in_which_they_were_given_out_mqtt_4_4_0_1() {
        let mut inflight = Inflight::lasting();
        for tag in [40_000, 40_001] {
            inflight.hold(KEY, tag, Stage::Puback);
        }
        inflight.allot(KEY, 7, false);
        inflight.hold(KEY, 40_002, Stage::Puback);
        let over: Vec<_> = (0..600).map(|_| inflight.allot(KEY, 0, false).unwrap()).collect();
        for identifier in over {
            acked(&mut inflight, identifier);
        }
        inflight.allot(KEY, 8, false);
        inflight.hold(KEY, 40_003, Stage::Puback);
        let told: Vec<_> = inflight.sent().iter().map(|sent| sent.tag).collect();
        assert_eq!(told, [40_000, 40_001, 7, 40_002, 8, 40_003]);
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
