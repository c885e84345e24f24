//! What is on its way to one client: its subscriptions, packet identifiers and the bytes that are appended for it. All of
//! it lies under the lock of the connection's outbound side.

mod lasting;
mod resending;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use linkspan_contract::{
    Batch, DeliveryTag, Kept, Message, Pick, Settled, Settlement, Standing, SubscriptionKey,
};

use self::resending::Resending;
pub(super) use self::resending::Written;
use super::ending::Ending;
use super::inflight::{Heard, Inflight};
use super::metric::Tally;
use super::overtaking::Overtaking;
use super::translate::delivery::{Receiver, Terms};
use super::translate::{settlement, undeliverable};
use super::work::Acked;
use crate::protocol::mqtt::{Ack, AckKind, Packet, Qos, ReasonCode, Version};

/// The key of retained messages that a new subscription brings: they take credit, but no back end waits for them.
pub(super) const RETAINED: SubscriptionKey = SubscriptionKey { subscription: u32::MAX, part: 0 };

/// What a delivery has to know of its subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscribed {
    /// The door's number for it; they only grow.
    pub number: u32,
    /// Sent along with each message.
    pub identifier: Option<NonZeroU32>,
    /// It was granted QoS 2.
    pub exactly_once: bool,
    /// Messages keep their RETAIN flag.
    pub retain_as_published: bool,
}

/// A session's part of the outbound side: it can be moved to another socket.
#[derive(Debug)]
pub(super) struct Deliveries {
    /// Who gets it.
    pub receiver: Receiver,
    /// Nothing is taken any more: the farewell is said.
    pub detached: bool,
    /// Most idle clients have none.
    inflight: Option<Box<Inflight>>,
    /// Only while retained messages of a back end are on their way to it.
    overtaking: Option<Box<Overtaking>>,
    subscriptions: Vec<Subscribed>,
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    discarded: Option<Box<Vec<Settled>>>,
    /// The session may outlive this connection: retained messages on their way are kept.
    keeps: bool,
    /// It may outlive the process, with some of its deliveries.
    lasts: bool,
    /// Retained messages that are on their way, by packet identifier.
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    replayed: Option<Box<BTreeMap<NonZeroU16, Replayed>>>,
    /// While the session is taken up again.
    resending: Option<Box<Resending>>,
}

/// A retained message that is on its way: no back end would give it again.
#[derive(Debug)]
struct Replayed {
    message: Kept,
    terms: Terms,
}

/// Where packets are appended, and what that came to.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    tally: &'a mut Tally,
    /// Memory for properties.
    list: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer to the end of `out`.
    pub(super) fn new(out: &'a mut Vec<u8>, tally: &'a mut Tally) -> Self {
        Self { out, tally, list: Vec::new() }
    }
}

impl Default for Deliveries {
    fn default() -> Self {
        Self {
            receiver: Receiver { version: Version::V311, maximum: u32::MAX },
            detached: false,
            inflight: None,
            overtaking: None,
            subscriptions: Vec::new(),
            discarded: None,
            keeps: false,
            lasts: false,
            replayed: None,
            resending: None,
        }
    }
}

impl Deliveries {
    /// The session may outlive this connection, and where its back end `lasts` the process.
    pub(super) fn keep(&mut self, lasts: bool) {
        (self.keeps, self.lasts) = (true, lasts);
    }

    /// Takes everything out, to be moved to another socket; nothing is taken here any more.
    pub(super) fn leave(&mut self) -> Self {
        let left = std::mem::replace(self, Self { detached: true, ..Self::default() });
        self.receiver = left.receiver;
        Self { detached: false, resending: None, ..left }
    }

    fn forget_replayed(&mut self, packet_id: NonZeroU16) {
        if let Some(replayed) = &mut self.replayed {
            replayed.remove(&packet_id);
        }
        self.replayed.take_if(|replayed| replayed.is_empty());
    }

    /// Adds a subscription, or changes the one of that number.
    pub(super) fn subscribe(&mut self, subscribed: Subscribed) {
        match self.place(subscribed.number) {
            Ok(place) => {
                if let Some(known) = self.subscriptions.get_mut(place) {
                    *known = subscribed;
                }
            }
            Err(place) => {
                self.subscriptions.reserve_exact(usize::from(self.subscriptions.len() < 2));
                self.subscriptions.insert(place, subscribed);
            }
        }
    }

    /// Removes a subscription; what it is given from now on is released.
    pub(super) fn unsubscribe(&mut self, number: u32) {
        if let Ok(place) = self.place(number) {
            self.subscriptions.remove(place);
        }
    }

    #[inline]
    fn place(&self, number: u32) -> Result<usize, usize> {
        self.subscriptions.binary_search_by_key(&number, |subscribed| subscribed.number)
    }

    /// The subscription of that number.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<Subscribed> {
        match self.subscriptions.as_slice() {
            [one] if one.number == number => Some(*one),
            all => all.get(self.place(number).ok()?).copied(),
        }
    }

    /// What is noted of retained messages that are on their way.
    pub(super) fn overtaking(&mut self) -> &mut Overtaking {
        self.overtaking.get_or_insert_default()
    }

    /// Forgets it when there are none.
    pub(super) fn end_overtaking(&mut self) {
        self.overtaking.take_if(|overtaking| overtaking.is_idle());
    }

    /// What the client has acknowledged, as runs to be settled, and the PUBRELs that answer PUBRECs; says how many more
    /// deliveries it may have. Those that are released only when it is safe that they were `received` are told apart.
    ///
    /// # Errors
    /// When it acknowledges a delivery as if it had come at another QoS.
    pub(super) fn settle(
        &mut self,
        acks: &[Acked],
        runs: &mut Vec<Settled>,
        received: &mut Vec<NonZeroU16>,
        replies: &mut Vec<u8>,
    ) -> Result<u32, Ending> {
        let version = self.receiver.version;
        let mut release = |packet_id, reason| {
            // It always fits: it has no diagnostics.
            let _ = Packet::Pubrel(Ack::new(packet_id, reason)).encode(version, replies);
        };
        let mut count = 0;
        let mut replayed = Vec::new();
        let inflight = self.inflight();
        for Acked { kind, packet_id, reason } in acks {
            match inflight.hear(*kind, *packet_id, reason.is_error()) {
                Heard::Over(key, tag) => {
                    count += 1;
                    match key {
                        RETAINED => replayed.push(*packet_id),
                        _ => add_run(runs, key, tag, 1, settlement(*reason)),
                    }
                }
                Heard::Received(key, tag) => {
                    match key {
                        RETAINED => replayed.push(*packet_id),
                        _ => add_run(runs, key, tag, 1, Settlement::Accept),
                    }
                    release(*packet_id, ReasonCode::Success);
                }
                Heard::ReceivedLasting(key, tag) => {
                    add_run(runs, key, tag, 1, Settlement::Receive);
                    received.push(*packet_id);
                }
                Heard::CompleteLasting(key, tag) => {
                    count += 1;
                    add_run(runs, key, tag, 1, Settlement::Accept);
                }
                Heard::TooEarly => {}
                Heard::ReceivedBefore => release(*packet_id, ReasonCode::Success),
                Heard::Complete => count += 1,
                Heard::Unknown if *kind == AckKind::Pubrec && !reason.is_error() => {
                    inflight.hear_early(*packet_id);
                    release(*packet_id, ReasonCode::PacketIdentifierNotFound);
                }
                // Repeated: nothing is to be done.
                Heard::Unknown => {}
                Heard::Unexpected => {
                    return Err(Ending::violated(
                        ReasonCode::ProtocolError,
                        "an acknowledgement is not of the kind that its PUBLISH has [MQTT-4.3.2-3] [MQTT-4.3.3-3]",
                    ));
                }
            }
        }
        replayed.into_iter().for_each(|packet_id| self.forget_replayed(packet_id));
        Ok(count)
    }

    /// Deliveries that were taken and not sent: they have to be settled, and count as many.
    pub(super) fn take_discarded(&mut self) -> Vec<Settled> {
        self.discarded.take().map_or_else(Vec::new, |discarded| *discarded)
    }

    /// Whether there are such.
    pub(super) fn has_discarded(&self) -> bool {
        self.discarded.is_some()
    }

    /// Appends all picks of a batch whose payloads lie in its bytes. With `drop_settled` only what the client has to
    /// acknowledge is sent.
    pub(super) fn append(
        &mut self,
        batch: &Batch<'_>,
        picks: &[Pick],
        drop_settled: bool,
        to: &mut Writer<'_>,
    ) {
        for pick in picks {
            if pick.standing != Standing::Passing && pick.attempt > 0 {
                self.append_known(batch, pick, to);
                continue;
            }
            let Some((terms, messages)) = self.begin(batch, pick, drop_settled, to) else {
                continue;
            };
            let mut rest = messages;
            let mut tag = pick.first;
            while let Some((message, after)) = rest.split_first() {
                let passing = self.receiver.passing(batch, rest, terms);
                let sent = if passing.count > 0 {
                    let mut next = tag;
                    passing.append(rest, terms, to.out, |exactly_once| {
                        let packet_id = self.identify(pick, next, exactly_once);
                        next += 1;
                        packet_id
                    })
                } else {
                    usize::from(self.append_one(batch, message, pick, tag, terms, to))
                };
                to.tally.sent += sent as u64;
                let mut dealt_with = sent.max(1);
                if sent < passing.count && pick.standing.lasts() {
                    dealt_with = sent + 1;
                    cannot_be_sent(tag + sent as u64);
                } else if sent < passing.count {
                    // All packet identifiers are in use.
                    self.discard(pick, tag + sent as u64, rest.len() - sent);
                    break;
                }
                tag += dealt_with as u64;
                rest = if passing.count > 0 { rest.get(dealt_with..).unwrap_or_default() } else { after };
            }
        }
    }

    /// Appends the heads of a batch of one message with a body; says after each whether the body follows.
    pub(super) fn append_head(
        &mut self,
        batch: &Batch<'_>,
        pick: &Pick,
        drop_settled: bool,
        to: &mut Writer<'_>,
    ) -> bool {
        if pick.standing == Standing::Received {
            self.append_known(batch, pick, to);
            return false;
        }
        let Some((terms, messages)) = self.begin(batch, pick, drop_settled, to) else {
            return false;
        };
        let Some(message) = messages.first() else { return false };
        let sent = self.append_one(batch, message, pick, pick.first, terms, to);
        if sent {
            to.tally.sent += 1;
            to.tally.bytes += batch.payload_len(message);
        }
        sent
    }

    /// The terms of a pick and its messages; none when it is not to be sent at all.
    #[inline]
    fn begin<'a>(
        &mut self,
        batch: &Batch<'a>,
        pick: &Pick,
        drop_settled: bool,
        to: &mut Writer<'_>,
    ) -> Option<(Terms, &'a [Message])> {
        let messages = batch.messages.get(pick.at.start as usize..pick.at.end as usize).unwrap_or_default();
        if drop_settled && pick.settled {
            to.tally.slow += messages.len() as u64;
            return None;
        }
        // What the client may have of a subscription that is over is completed [MQTT-3.10.4-3].
        let lasting = match pick.standing {
            Standing::Lasting { exactly_once } => Some(exactly_once),
            Standing::Passing | Standing::Private | Standing::Received => None,
        };
        let known = lasting.is_some() && pick.attempt > 0;
        if known && self.append_early(pick, to.out) {
            return None;
        }
        let number = pick.key.subscription;
        let over = Subscribed { number, identifier: None, exactly_once: true, retain_as_published: false };
        let Some(subscribed) = self.find(number).or(known.then_some(over)) else {
            self.discard(pick, pick.first, messages.len());
            return None;
        };
        if let Some(overtaking) = &mut self.overtaking {
            for message in messages {
                overtaking.give(subscribed.number, &batch.address(message).topic());
            }
        }
        let terms = Terms {
            acknowledged: !pick.settled,
            // However it is subscribed by now, the client takes it for what it was sent as.
            exactly_once: lasting.unwrap_or(subscribed.exactly_once),
            again: known || (pick.standing == Standing::Private && pick.attempt > 0 && !pick.settled),
            retain_as_published: subscribed.retain_as_published,
            retained: false,
            age: pick.age,
            identifier: subscribed.identifier,
        };
        Some((terms, messages))
    }

    /// Appends one message, encoded anew; false when it is not sent, which then is settled.
    fn append_one(
        &mut self,
        batch: &Batch<'_>,
        message: &Message,
        pick: &Pick,
        tag: DeliveryTag,
        terms: Terms,
        to: &mut Writer<'_>,
    ) -> bool {
        let exactly_once = terms.qos(message.flags) == Qos::ExactlyOnce;
        let outcome = match self.receiver.prepare(batch, message, &terms, &mut to.list) {
            Ok(prepared) if !terms.acknowledged => {
                prepared.append(None, to.out);
                return true;
            }
            Ok(prepared) => match self.identify(pick, tag, exactly_once) {
                Some(packet_id) => {
                    prepared.append(Some(packet_id), to.out);
                    return true;
                }
                None if pick.standing.lasts() => {
                    cannot_be_sent(tag);
                    return false;
                }
                None => Settlement::Release { delay: 0 },
            },
            Err(why) => {
                to.tally.dropped(why);
                if terms.again && exactly_once && pick.standing.lasts() {
                    // The client may know it, and would take another message for it: it is released.
                    self.append_pubrel(pick.key, tag, to.out);
                    Settlement::Receive
                } else {
                    undeliverable(why)
                }
            }
        };
        if terms.acknowledged {
            add_run(self.discarded.get_or_insert_default(), pick.key, tag, 1, outcome);
        }
        false
    }

    /// Appends a retained message for a new subscription.
    pub(super) fn append_retained(&mut self, kept: &Kept, terms: Terms, to: &mut Writer<'_>) -> bool {
        let (batch, message) = (kept.batch.batch(), kept.message());
        let sent = match self.receiver.prepare(&batch, &message, &terms, &mut to.list) {
            Ok(prepared) if !terms.acknowledged => prepared.append(None, to.out),
            Ok(prepared) => {
                let exactly_once = terms.qos(message.flags) == Qos::ExactlyOnce;
                let packet_id = self.inflight().allot(RETAINED, 0, exactly_once);
                if let (Some(packet_id), true) = (packet_id, self.keeps) {
                    let replayed = Replayed { message: kept.clone(), terms };
                    self.replayed.get_or_insert_default().insert(packet_id, replayed);
                }
                packet_id.is_some() && prepared.append(packet_id, to.out)
            }
            Err(why) => {
                to.tally.dropped(why);
                false
            }
        };
        to.tally.sent += u64::from(sent);
        sent
    }

    /// Deliveries of a pick that are not sent: somebody else may have them.
    fn discard(&mut self, pick: &Pick, first: DeliveryTag, count: usize) {
        if !pick.settled && count > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            add_run(
                self.discarded.get_or_insert_default(),
                pick.key,
                first,
                count,
                Settlement::Release { delay: 0 },
            );
        }
    }
}

/// The packet identifier of a lasting delivery stands for another one: it stays with the back end, which gives it again to
/// the client's next connection.
#[cold]
fn cannot_be_sent(tag: DeliveryTag) {
    tracing::error!(
        tag,
        "a message is not sent before its client connects again: its packet identifier is in use"
    );
}

/// Adds deliveries to the last run when they follow it.
fn add_run(
    runs: &mut Vec<Settled>,
    key: SubscriptionKey,
    first: DeliveryTag,
    count: u32,
    outcome: Settlement,
) {
    match runs.last_mut() {
        Some(run)
            if run.key == key && run.first + u64::from(run.count) == first && run.outcome == outcome =>
        {
            run.count += count;
        }
        _ => runs.push(Settled { key, first, count, outcome, word: None }),
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::neutral::Draft;
    use linkspan_contract::{Body, Flags, Properties};

    use super::*;

    /// The first byte of what is sent of a message.
    fn first_byte(standing: Standing, attempt: u32, settled: bool) -> u8 {
        let mut deliveries = Deliveries::default();
        let (identifier, exactly_once, retain_as_published) = (None, false, false);
        deliveries.subscribe(Subscribed { number: 1, identifier, exactly_once, retain_as_published });
        let head = Message { flags: Flags::DURABLE, ..Message::default() };
        let payload = Body::Shared(b"1".to_vec().into());
        let properties = &Properties::default();
        let batch = Draft { exchange: None, topic: b"t", properties, payload, head }.build();
        let key = SubscriptionKey { subscription: 1, part: 0 };
        let pick = Pick { at: 0..1, key, first: 1, age: 0, attempt, settled, standing };
        let (mut out, mut tally) = (Vec::new(), Tally::default());
        deliveries.append(&batch.batch(), &[pick], false, &mut Writer::new(&mut out, &mut tally));
        out[0]
    }

    #[test]
    fn what_the_client_may_have_been_sent_is_marked_mqtt_3_3_1_1() {
        let lasting = Standing::Lasting { exactly_once: false };
        for standing in [Standing::Private, lasting] {
            assert_eq!(first_byte(standing, 0, false), 0x32, "{standing:?}");
            assert_eq!(first_byte(standing, 1, false), 0x3a, "{standing:?}");
        }
        assert_eq!(first_byte(Standing::Private, 1, true), 0x30, "[MQTT-3.3.1-2]");
        assert_eq!(first_byte(Standing::Passing, 1, false), 0x32, "it was another client that had it");
    }
}
