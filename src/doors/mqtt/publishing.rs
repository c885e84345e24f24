//! What a client publishes: from PUBLISH to PUBACK and PUBCOMP.

use std::num::NonZeroU16;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use linkspan_contract::{Batch, Body, Flags, Message, Published, Seq, TargetId};

use super::aliases::Aliases;
use super::ending::Ending;
use super::handshake::Agreement;
use super::limits::LARGE;
use super::receipts::{Answer, Receipts};
use super::session::{Session, acknowledge};
use super::targets::Targets;
use super::translate::{self, NotText};
use super::work::{Asked, Verdict, Work};
use crate::protocol::mqtt::{
    Ack, AckKind, Framing, PublishEncoder, PublishSpans, Qos, ReasonCode, Sender, Version,
};

/// A session's part as a publisher, which most clients that subscribe never have.
#[derive(Default)]
pub(super) struct Publishing {
    state: Option<Box<State>>,
}

/// What a client that publishes has.
#[derive(Default)]
struct State {
    targets: Targets,
    aliases: Aliases,
    receipts: Receipts,
    /// Packet identifiers of QoS 2 from PUBLISH to PUBREL.
    received: HashSet<NonZeroU16, RandomState>,
    /// PUBLISHes of QoS 1 and 2 that are not over: what the server's receive maximum bounds.
    open: u32,
    refused: Option<Box<str>>,
    messages: u64,
}

impl Publishing {
    #[inline]
    fn state(&mut self) -> &mut State {
        self.state.get_or_insert_default()
    }

    /// Receipts have come.
    pub(super) fn receipt(&mut self, first: Seq, count: u32, answer: &Answer) {
        self.state().receipts.settle(first, count, answer);
    }

    /// The end of a QoS 2 message; false when there was none.
    pub(super) fn release(&mut self, packet_id: NonZeroU16) -> bool {
        let state = self.state();
        let known = state.received.remove(&packet_id);
        state.open -= u32::from(known && state.open > 0);
        if state.received.is_empty() && state.received.capacity() > 256 {
            state.received = HashSet::default();
        }
        known
    }

    /// Why the connection has to end: a message was refused that MQTT 3.1.1 cannot be told of.
    pub(super) fn refused(&mut self) -> Option<Ending> {
        self.state.as_mut()?.refused.take().map(Ending::Refused)
    }

    /// Messages published since the last call.
    pub(super) fn take_count(&mut self) -> u64 {
        self.state.as_mut().map_or(0, |state| std::mem::take(&mut state.messages))
    }
}

impl State {
    /// Answers a PUBLISH: it is over, or (QoS 2) received.
    #[inline]
    fn answer(
        &mut self,
        packet_id: NonZeroU16,
        kind: AckKind,
        answer: Answer,
        agreement: &Agreement,
        replies: &mut Vec<u8>,
    ) {
        let failed = answer.reason.is_error();
        let over = match kind {
            AckKind::Pubrec => failed && self.received.remove(&packet_id),
            _ => true,
        };
        self.open -= u32::from(over && self.open > 0);
        if self.refused.is_some() {
            // The connection ends with the first one that cannot be answered.
        } else if answer.reason == ReasonCode::Success {
            replies.extend_from_slice(&kind.success(packet_id));
        } else if failed && agreement.version == Version::V311 {
            // An acknowledgement would be a lie, and silence would stop the client for ever [MQTT-3.3.5-2].
            self.refused = Some(answer.text.unwrap_or_default());
        } else {
            let text = answer.text.as_deref().filter(|_| agreement.problem_information);
            let ack = Ack { reason_string: text, ..Ack::new(packet_id, answer.reason) };
            acknowledge(kind, ack, agreement.maximum, agreement.version, replies);
        }
    }
}

impl Session {
    /// Deals with one PUBLISH, whose spans count from `base` of the bytes. All of the common way is inlined: messages that
    /// are handed from function to function are written to memory and read back in other pieces, which stalls.
    #[inline(always)]
    pub(super) fn publish(
        &mut self,
        bytes: &[u8],
        base: usize,
        publish: &PublishSpans,
        work: &mut Work,
    ) -> Result<(), Ending> {
        let asked = match publish.packet_id {
            None => None,
            Some(packet_id) => match self.admit(packet_id, publish.qos, work)? {
                Some(kind) => Some((packet_id, kind)),
                None => return Ok(()),
            },
        };
        if publish.topic_alias.is_some() {
            return self.publish_aliased(bytes, base, publish, asked, work);
        }
        if work.in_rewritten {
            self.hand_over(bytes, work);
        }
        let base = u32::try_from(base).unwrap_or(u32::MAX);
        self.add(bytes, translate::message(publish, base, TargetId::default()), asked, work)
    }

    /// Notes a PUBLISH of QoS 1 or 2; none when it is a repetition that was published already [MQTT-4.3.3-10].
    #[inline]
    fn admit(&mut self, packet_id: NonZeroU16, qos: Qos, work: &mut Work) -> Result<Option<AckKind>, Ending> {
        let publishing = self.publishing.state();
        if qos == Qos::ExactlyOnce && publishing.received.contains(&packet_id) {
            let kind = AckKind::Pubrec;
            let under_way = publishing.receipts.holds(packet_id)
                || work.asked.iter().any(|asked| asked.packet_id == packet_id && asked.kind == kind);
            if !under_way {
                work.asked.push(Asked { packet_id, kind, verdict: Verdict::Known(Answer::SUCCESS) });
            }
            return Ok(None);
        }
        let maximum = u32::from(self.limits.receive_maximum.get());
        if publishing.open >= maximum && self.agreement.version == Version::V5 {
            return Err(Ending::violated(
                ReasonCode::ReceiveMaximumExceeded,
                "more messages are unacknowledged than the receive maximum allows [MQTT-3.3.4-7]",
            ));
        }
        publishing.open += 1;
        if qos == Qos::ExactlyOnce {
            publishing.received.insert(packet_id);
            return Ok(Some(AckKind::Pubrec));
        }
        Ok(Some(AckKind::Puback))
    }

    /// Adds a message in `bytes` to those that are published together.
    #[inline(always)]
    fn add(
        &mut self,
        bytes: &[u8],
        message: Message,
        asked: Option<(NonZeroU16, AckKind)>,
        work: &mut Work,
    ) -> Result<(), Ending> {
        let source = if work.in_rewritten { work.rewritten.as_slice() } else { bytes };
        let topic = message.address.of(source);
        let target = match work.messages.last() {
            Some(before) if before.address.of(source) == topic => before.target,
            _ => self.publishing.state().targets.find(topic, &mut *self.lane),
        };
        let mut message = Message { target, ..message };
        if message.flags.has(Flags::HEADERS) {
            match translate::priority(message.properties.of(source), message.payload.of(source)) {
                Ok(priority) => message = translate::prioritized(message, priority),
                Err(NotText) => return refuse_payload(asked, work),
            }
        }
        if message.payload.len as usize > LARGE && !work.in_rewritten {
            self.add_large(bytes, message, asked, work);
            return Ok(());
        }
        if let Some((packet_id, kind)) = asked {
            let place = u32::try_from(work.messages.len()).unwrap_or(u32::MAX);
            work.asked.push(Asked { packet_id, kind, verdict: Verdict::At(place) });
        }
        work.messages.push(message);
        Ok(())
    }

    /// Publishes a message so large that all who get it had better keep its payload by reference.
    #[cold]
    fn add_large(
        &mut self,
        bytes: &[u8],
        message: Message,
        asked: Option<(NonZeroU16, AckKind)>,
        work: &mut Work,
    ) {
        self.hand_over(bytes, work);
        if let Some((packet_id, kind)) = asked {
            work.asked.push(Asked { packet_id, kind, verdict: Verdict::At(0) });
        }
        let body = Body::Shared(Bytes::copy_from_slice(message.payload.of(bytes)));
        let message = translate::without_payload(message);
        self.publish_body(message.wire.of(bytes), &rebased(message), &body, work);
    }

    /// A PUBLISH with a topic alias is written anew with its topic name: so it can be sent on as it is.
    #[cold]
    fn publish_aliased(
        &mut self,
        bytes: &[u8],
        base: usize,
        publish: &PublishSpans,
        asked: Option<(NonZeroU16, AckKind)>,
        work: &mut Work,
    ) -> Result<(), Ending> {
        let read = bytes.get(base..).unwrap_or_default();
        let Some(alias) = publish.topic_alias else { return Ok(()) };
        if alias.get() > self.limits.topic_aliases {
            return Err(Ending::violated(
                ReasonCode::TopicAliasInvalid,
                "a topic alias is above the topic alias maximum [MQTT-3.3.2-9]",
            ));
        }
        let name = publish.topic.of(read);
        if !name.is_empty() {
            self.publishing.state().aliases.set(alias, name);
        }
        if !work.in_rewritten {
            self.hand_over(bytes, work);
            work.in_rewritten = true;
        }
        let Some(topic) = self.publishing.state().aliases.get(alias) else {
            return Err(Ending::violated(
                ReasonCode::ProtocolError,
                "a topic alias was used before it was set (§3.3.2.3.4)",
            ));
        };
        let encoder = PublishEncoder {
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            properties: publish.properties.of(read),
            properties_are_plain: false,
            message_expiry_interval: publish.message_expiry_interval,
            ..PublishEncoder::new(Version::V5)
        };
        let start = work.rewritten.len();
        encoder.encode(&mut work.rewritten, topic, publish.payload.of(read))?;
        let Some(message) = reread(&work.rewritten, start, Version::V5) else { return Ok(()) };
        self.add(bytes, message, asked, work)
    }

    /// Publishes the messages that have gathered, which lie in `bytes` unless they were rewritten.
    pub(super) fn hand_over(&mut self, bytes: &[u8], work: &mut Work) {
        if !work.messages.is_empty() {
            let source = if work.in_rewritten { work.rewritten.as_slice() } else { bytes };
            let batch = Batch::new(source, &work.messages, translate::form::of(self.agreement.version));
            let published = self.lane.publish(&batch);
            self.publishing.state().messages += work.messages.len() as u64;
            work.messages.clear();
            self.heed(&published, work);
        } else if !work.asked.is_empty() {
            self.heed(&Published::default(), work);
        }
        work.rewritten.clear();
        work.in_rewritten = false;
        if let Some(state) = &mut self.publishing.state {
            state.targets.forget(&mut *self.lane);
        }
    }

    /// Publishes one message whose payload has a buffer of its own.
    fn publish_body(&mut self, head: &[u8], message: &Message, body: &Body, work: &mut Work) {
        let published = self.lane.publish(&Batch::with_body(
            head,
            message,
            body,
            translate::form::of(self.agreement.version),
        ));
        self.publishing.state().messages += 1;
        self.heed(&published, work);
    }

    /// Publishes a message that nobody waits for.
    pub(super) fn publish_unasked(&mut self, packet: &[u8]) {
        if let Some(mut message) = reread(packet, 0, self.agreement.version) {
            message.flags = message.flags.without(Flags::RECEIPT);
            let topic = message.address.of(packet);
            message.target = self.publishing.state().targets.find(topic, &mut *self.lane);
            self.lane.publish(&Batch::new(packet, &[message], translate::form::of(self.agreement.version)));
        }
    }

    /// Deals with a packet that was read into a buffer of its own.
    pub(super) fn take_large(&mut self, packet: &Bytes, work: &mut Work) -> Result<(), Ending> {
        let version = self.agreement.version;
        let Framing::Complete(frame) = Framing::read(packet, self.limits.packet)? else { return Ok(()) };
        let publish = PublishSpans::of_frame(&frame, version, Sender::Client)?;
        if publish.topic_alias.is_some() || publish.payload.len as usize <= LARGE {
            self.publish(packet, 0, &publish, work)?;
            self.hand_over(packet, work);
            return Ok(());
        }
        let asked = match publish.packet_id {
            None => None,
            Some(packet_id) => match self.admit(packet_id, publish.qos, work)? {
                Some(kind) => Some((packet_id, kind)),
                None => {
                    self.heed(&Published::default(), work);
                    return Ok(());
                }
            },
        };
        let mut message = translate::message(&publish, 0, TargetId::default());
        message.target = self.publishing.state().targets.find(message.address.of(packet), &mut *self.lane);
        let (list, payload) = (message.properties.of(packet), message.payload.of(packet));
        match translate::priority(list, payload) {
            Ok(priority) => message = translate::prioritized(message, priority),
            Err(NotText) => {
                refuse_payload(asked, work)?;
                self.heed(&Published::default(), work);
                return Ok(());
            }
        }
        if let Some((packet_id, kind)) = asked {
            work.asked.push(Asked { packet_id, kind, verdict: Verdict::At(0) });
        }
        let body = Body::Shared(packet.slice_ref(payload));
        let message = translate::without_payload(message);
        self.publish_body(message.wire.of(packet), &message, &body, work);
        if let Some(state) = &mut self.publishing.state {
            state.targets.forget(&mut *self.lane);
        }
        Ok(())
    }

    /// Answers what was just published, or notes what is still to be answered.
    fn heed(&mut self, published: &Published, work: &mut Work) {
        self.congested |= published.congested;
        let at_once = self.publishing.state().receipts.is_empty() && published.done == published.wanting;
        let mut told = published.exceptions.iter().peekable();
        let mut seq = published.first;
        let known_below = published.first + u64::from(published.done);
        for Asked { packet_id, kind, verdict } in work.asked.drain(..) {
            let (number, answer) = match verdict {
                Verdict::Known(answer) => (seq, Some(answer)),
                Verdict::At(place) => {
                    while told.next_if(|(at, _)| *at < place).is_some() {}
                    let number = seq;
                    let answer = match told.next_if(|(at, _)| *at == place) {
                        Some((_, outcome)) => Some(translate::answer(outcome)),
                        None if place >= published.taken => Some(Answer::UNKNOWN),
                        None => (number < known_below).then_some(Answer::SUCCESS),
                    };
                    seq += u64::from(place < published.taken);
                    (number, answer)
                }
            };
            match answer {
                Some(answer) if at_once => {
                    self.publishing.state().answer(
                        packet_id,
                        kind,
                        answer,
                        &self.agreement,
                        &mut work.replies,
                    );
                }
                answer => self.publishing.state().receipts.push(number, packet_id, kind, answer),
            }
        }
        if !at_once {
            self.answer_waiting(work);
        }
    }

    /// Writes the answers that are due, in the order of the PUBLISHes.
    pub(super) fn answer_waiting(&mut self, work: &mut Work) {
        while let Some((packet_id, kind, answer)) = self.publishing.state().receipts.pop() {
            self.publishing.state().answer(packet_id, kind, answer, &self.agreement, &mut work.replies);
        }
    }
}

/// A payload that is not the UTF-8 that it is said to be: refused, without an answer the connection ends
/// (MQTT 5 §3.3.2.3.2).
fn refuse_payload(asked: Option<(NonZeroU16, AckKind)>, work: &mut Work) -> Result<(), Ending> {
    const TEXT: &str =
        "the payload is not the UTF-8 text that its payload format indicator says (§3.3.2.3.2)";
    let Some((packet_id, kind)) = asked else {
        return Err(Ending::violated(ReasonCode::PayloadFormatInvalid, TEXT));
    };
    let answer = Answer { reason: ReasonCode::PayloadFormatInvalid, text: Some(TEXT.into()) };
    work.asked.push(Asked { packet_id, kind, verdict: Verdict::Known(answer) });
    Ok(())
}

/// The message in the PUBLISH packet that begins at `start`.
fn reread(packets: &[u8], start: usize, version: Version) -> Option<Message> {
    let packet = packets.get(start..)?;
    let Framing::Complete(frame) = Framing::read(packet, Framing::MAXIMUM_PACKET_SIZE).ok()? else {
        return None;
    };
    let publish = PublishSpans::of_frame(&frame, version, Sender::Client).ok()?;
    Some(translate::message(&publish, u32::try_from(start).ok()?, TargetId::default()))
}

/// The message in a buffer of its own.
fn rebased(message: Message) -> Message {
    let origin = message.wire.start;
    Message {
        wire: message.wire.rebased(origin),
        address: message.address.rebased(origin),
        properties: message.properties.rebased(origin),
        payload: message.payload.rebased(origin),
        ..message
    }
}
