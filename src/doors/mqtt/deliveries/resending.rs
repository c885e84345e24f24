//! Deliveries that are sent once more on a session's next connection: in the order in which they were sent first, under
//! the same packet identifiers (MQTT 5 §4.4 [MQTT-4.4.0-1]), and whatever else is delivered meanwhile behind them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{
    Batch, Body, DeliveryTag, Message, Pick, Settled, Settlement, Standing, SubscriptionKey,
};

use super::{Deliveries, RETAINED, Replayed, Writer};
use crate::doors::mqtt::inflight::{Sent, Stage};
use crate::doors::mqtt::metric::Tally;
use crate::doors::mqtt::translate::delivery::{Terms, Undeliverable};
use crate::doors::mqtt::translate::undeliverable;
use crate::protocol::mqtt::{Ack, Packet, ReasonCode};

/// Packets that gather until the back end has given everything again.
#[derive(Debug, Default)]
pub(super) struct Resending {
    /// What the back end is expected to give again, by its place in the order.
    expected: BTreeMap<u64, Sent>,
    places: HashMap<(SubscriptionKey, DeliveryTag), u64, RandomState>,
    packets: BTreeMap<u64, Written>,
    /// The place behind all others.
    next: u64,
    /// Deliveries that this client can never be sent, to be settled.
    runs: Vec<Settled>,
}

/// A packet.
#[derive(Debug)]
pub(in crate::doors::mqtt) struct Written {
    /// All of it, or what stands before the payload.
    pub head: Vec<u8>,
    /// The payload, by reference.
    pub body: Option<Body>,
}

/// What is there when all was given.
#[derive(Debug)]
struct Gathered {
    /// In their order.
    pub packets: BTreeMap<u64, Written>,
    /// What was not given, in its place in the order.
    pub missing: BTreeMap<u64, Sent>,
    /// To be settled.
    pub runs: Vec<Settled>,
}

impl Resending {
    /// The next one in the order is to come from the back end.
    fn expect(&mut self, sent: Sent) {
        self.places.insert((sent.key, sent.tag), self.next);
        self.expected.insert(self.next, sent);
        self.next += 1;
    }

    /// The next one in the order is there.
    fn push(&mut self, packet: Written) {
        self.packets.insert(self.next, packet);
        self.next += 1;
    }

    /// The place of a delivery that was sent before.
    fn find(&self, key: SubscriptionKey, tag: DeliveryTag) -> Option<(u64, Sent)> {
        let place = *self.places.get(&(key, tag))?;
        Some((place, *self.expected.get(&place)?))
    }

    /// A delivery that was sent before is there.
    fn put(&mut self, place: u64, packet: Written) {
        self.expected.remove(&place);
        self.packets.insert(place, packet);
    }

    /// A delivery that was sent before cannot be sent to this client.
    fn cannot(&mut self, run: Settled) {
        self.runs.push(run);
    }

    /// All was given.
    fn gathered(self) -> Gathered {
        Gathered { packets: self.packets, missing: self.expected, runs: self.runs }
    }
}

impl Deliveries {
    /// From now on packets gather: those that were sent before in their order, others behind them.
    pub(in crate::doors::mqtt) fn begin_again(&mut self, tally: &mut Tally) {
        let mut resending = Resending::default();
        let sent = self.inflight.as_ref().map(|inflight| inflight.sent()).unwrap_or_default();
        for sent in sent {
            let packet = match sent.stage {
                // It is released when that is safe.
                Stage::Noted => continue,
                Stage::Pubcomp => Some(self.pubrel(sent.packet_id)),
                _ if sent.key == RETAINED => self.retained_again(&sent, tally),
                _ => None,
            };
            match packet {
                Some(packet) => resending.push(packet),
                None => resending.expect(sent),
            }
        }
        self.resending = Some(Box::new(resending));
    }

    /// Whether packets gather.
    pub(in crate::doors::mqtt) fn is_again(&self) -> bool {
        self.resending.is_some()
    }

    fn pubrel(&self, packet_id: NonZeroU16) -> Written {
        let mut head = Vec::new();
        let release = Packet::Pubrel(Ack::new(packet_id, ReasonCode::Success));
        let _ = release.encode(self.receiver.version, &mut head);
        Written { head, body: None }
    }

    fn retained_again(&self, sent: &Sent, tally: &mut Tally) -> Option<Written> {
        let Replayed { message, terms } = self.replayed.as_ref()?.get(&sent.packet_id)?;
        let terms = Terms { again: true, exactly_once: sent.stage == Stage::Pubrec, ..*terms };
        self.write(&message.batch.batch(), &message.message(), &terms, Some(sent.packet_id), tally).ok()
    }

    /// Writes a packet that has a place in an order.
    fn write(
        &self,
        batch: &Batch<'_>,
        message: &Message,
        terms: &Terms,
        packet_id: Option<NonZeroU16>,
        tally: &mut Tally,
    ) -> Result<Written, Undeliverable> {
        let (mut head, mut list) = (Vec::new(), Vec::new());
        let prepared = self.receiver.prepare(batch, message, terms, &mut list).inspect_err(|why| {
            tally.dropped(*why);
        })?;
        prepared.append(packet_id, &mut head);
        tally.sent += 1;
        tally.bytes += head.len() as u64;
        Ok(Written { head, body: batch.body.cloned() })
    }

    /// Gathers what is delivered while a session is taken up again.
    pub(in crate::doors::mqtt) fn gather(&mut self, batch: &Batch<'_>, picks: &[Pick], tally: &mut Tally) {
        for pick in picks {
            if pick.standing == Standing::Received {
                self.gather_known(pick);
                continue;
            }
            let messages = batch.messages.get(pick.at.start as usize..pick.at.end as usize);
            for (tag, message) in (pick.first..).zip(messages.unwrap_or_default()) {
                let sent = self.resending.as_ref().filter(|_| !pick.settled);
                match sent.and_then(|resending| resending.find(pick.key, tag)) {
                    Some((place, sent)) => self.gather_again(batch, message, pick, (place, sent), tally),
                    None => self.gather_new(batch, message, pick, tag, tally),
                }
            }
        }
    }

    fn gather_again(
        &mut self,
        batch: &Batch<'_>,
        message: &Message,
        pick: &Pick,
        (place, sent): (u64, Sent),
        tally: &mut Tally,
    ) {
        let subscribed = self.find(pick.key.subscription);
        let terms = Terms {
            acknowledged: true,
            exactly_once: sent.stage == Stage::Pubrec,
            again: true,
            retain_as_published: subscribed.is_some_and(|subscribed| subscribed.retain_as_published),
            retained: false,
            age: pick.age,
            identifier: subscribed.and_then(|subscribed| subscribed.identifier),
        };
        let written = self.write(batch, message, &terms, Some(sent.packet_id), tally);
        let Some(resending) = &mut self.resending else { return };
        match written {
            Ok(packet) => resending.put(place, packet),
            Err(why) => {
                // The client is told to forget it, and that it was is known for as long as the delivery is.
                let stays = pick.standing.lasts() && sent.stage == Stage::Pubrec;
                let outcome = if stays { Settlement::Receive } else { undeliverable(why) };
                resending.cannot(Settled { key: pick.key, first: sent.tag, count: 1, outcome, word: None });
            }
        }
    }

    /// What the client has already, from before a restart of the server.
    fn gather_known(&mut self, pick: &Pick) {
        for (tag, _) in (pick.first..).zip(pick.at.clone()) {
            let mut head = Vec::new();
            self.append_pubrel(pick.key, tag, &mut head);
            if let Some(resending) = self.resending.as_mut().filter(|_| !head.is_empty()) {
                resending.push(Written { head, body: None });
            }
        }
    }

    fn gather_new(
        &mut self,
        batch: &Batch<'_>,
        message: &Message,
        pick: &Pick,
        tag: DeliveryTag,
        tally: &mut Tally,
    ) {
        let mut head = Vec::new();
        let one = Pick { at: pick.at.start..pick.at.start + 1, first: tag, ..pick.clone() };
        let mut to = Writer::new(&mut head, tally);
        let sent = match self.begin(batch, &one, false, &mut to) {
            Some((terms, _)) => self.append_one(batch, message, &one, tag, terms, &mut to),
            None => false,
        };
        if sent || !head.is_empty() {
            tally.sent += u64::from(sent);
            let body = batch.body.filter(|_| sent).cloned();
            if let Some(resending) = &mut self.resending {
                resending.push(Written { head, body });
            }
        }
    }

    /// All was given again that there is: the packets, and what has to be settled. Says how many more deliveries the client
    /// may have because of what is gone.
    pub(in crate::doors::mqtt) fn end_again(&mut self) -> (Vec<Written>, Vec<Settled>, u32) {
        let Some(resending) = self.resending.take() else { return (Vec::new(), Vec::new(), 0) };
        let Gathered { mut packets, missing, runs } = resending.gathered();
        let mut freed = 0;
        for (place, sent) in missing {
            let gone = self.inflight.as_mut().is_some_and(|inflight| inflight.give_up(sent.packet_id));
            match gone {
                true => freed += 1,
                false => drop(packets.insert(place, self.pubrel(sent.packet_id))),
            }
        }
        (packets.into_values().collect(), runs, freed)
    }
}
