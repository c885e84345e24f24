//! What a client publishes: from PUBLISH to PUBACK and PUBCOMP.

use std::num::NonZeroU16;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use linkspan_contract::{Batch, Flags, Lane, Message, Published, Receipt, Seq, TargetId};

use super::aliases::Aliases;
use super::ending::Ending;
use super::limits::LARGE;
use super::receipts::{Answer, Receipts};
use super::session::Session;
use super::targets::Targets;
use super::translate::{self, NotText};
use super::work::{Asked, Verdict, Work};
use crate::protocol::mqtt::{
    AckKind, Framing, PublishEncoder, PublishSpans, Qos, ReasonCode, Sender, Version,
};

/// A session's part as a publisher, which most clients that subscribe never have.
#[derive(Default)]
pub(super) struct Publishing {
    pub(super) state: Option<Box<State>>,
}

/// What a client that publishes has.
#[derive(Default)]
pub(super) struct State {
    pub(super) targets: Targets,
    aliases: Aliases,
    pub(super) receipts: Receipts,
    /// Packet identifiers of QoS 2 from PUBLISH to PUBREL.
    pub(super) received: HashSet<NonZeroU16, RandomState>,
    /// PUBLISHes of QoS 1 and 2 that are not over: what the server's receive maximum bounds.
    pub(super) open: u32,
    pub(super) refused: Option<Box<str>>,
    pub(super) messages: u64,
}

/// Whether a PUBLISH is published.
pub(super) enum Admitted {
    /// It is, and answered with this; QoS 0 is not.
    New(Option<(NonZeroU16, AckKind)>),
    /// It was already, and is sent again [MQTT-4.3.3-10].
    Repeated,
}

impl Publishing {
    #[inline]
    pub(super) fn state(&mut self) -> &mut State {
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

    /// Whether a QoS 2 message of this identifier is not over.
    pub(super) fn knows(&self, packet_id: NonZeroU16) -> bool {
        self.state.as_ref().is_some_and(|state| state.received.contains(&packet_id))
    }

    /// QoS 2 messages of these identifiers are not over, from before a restart of the server.
    pub(super) fn know(&mut self, identifiers: Vec<NonZeroU16>) {
        if !identifiers.is_empty() {
            self.state().received.extend(identifiers);
        }
    }

    /// The word was told that a PUBLISH's answer waits for.
    pub(super) fn noted(&mut self, word: Seq) {
        if let Some(state) = &mut self.state {
            state.receipts.noted(word);
        }
    }

    /// Why the connection has to end: a message was refused that MQTT 3.1.1 cannot be told of.
    pub(super) fn refused(&mut self) -> Option<Ending> {
        self.state.as_mut()?.refused.take().map(Ending::Refused)
    }

    /// The connection is over: packets that were not answered are sent again on the next one (MQTT 5 §4.4), which sets its
    /// own topic aliases [MQTT-3.3.2-7] and begins with a full receive maximum [MQTT-4.9.0-1].
    pub(super) fn rest(&mut self) {
        if let Some(state) = &mut self.state {
            (state.aliases, state.open, state.refused) = (Aliases::default(), 0, None);
            state.receipts.mute();
        }
    }

    /// Receipts have come while nobody is connected. `lane` notes which messages were taken, unless it has; what it has
    /// noted of others it takes back. With what word does not matter, as whoever sends the message again does so behind it.
    pub(super) fn hear(&mut self, runs: &[Receipt], lane: &mut dyn Lane, word: Seq) {
        let state = self.state();
        for run in runs {
            state.receipts.settle(run.first, run.count, &translate::answer(&run.outcome));
        }
        while let Some(due) = state.receipts.pop(false) {
            match due.kind {
                AckKind::Pubrec if due.answer.reason.is_error() => drop(lane.unnote(due.packet_id, word)),
                AckKind::Pubrec => drop(lane.note(due.packet_id, word)),
                _ => {}
            }
            state.forgo(&due);
        }
    }

    /// Publishes the message in a PUBLISH packet, for which nobody waits.
    pub(super) fn publish_unasked(&mut self, packet: &[u8], version: Version, lane: &mut dyn Lane) {
        if let Some(mut message) = reread(packet, 0, version) {
            message.flags = message.flags.without(Flags::RECEIPT);
            self.publish_one(packet, message, version, lane);
        }
    }

    /// Publishes the message in a PUBLISH packet; yields the number of the receipt that says when it is where it has to be, if
    /// that is still to come.
    pub(super) fn publish_left(
        &mut self,
        packet: &[u8],
        version: Version,
        lane: &mut dyn Lane,
    ) -> Option<Seq> {
        let message = reread(packet, 0, version)?;
        let published = self.publish_one(packet, message, version, lane);
        (published.done < published.wanting).then_some(published.first)
    }

    fn publish_one(
        &mut self,
        packet: &[u8],
        mut message: Message,
        version: Version,
        lane: &mut dyn Lane,
    ) -> Published {
        message.target = self.state().targets.find(message.address.of(packet), lane);
        let published = lane.publish(&Batch::new(packet, &[message], translate::form::of(version)));
        lane.flush();
        published
    }

    /// Messages published since the last call.
    pub(super) fn take_count(&mut self) -> u64 {
        self.state.as_mut().map_or(0, |state| std::mem::take(&mut state.messages))
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
        let Admitted::New(asked) = self.admit(publish, work)? else { return Ok(()) };
        if publish.topic_alias.is_some() {
            return self.publish_aliased(bytes, base, publish, asked, work);
        }
        if work.in_rewritten {
            self.hand_over(bytes, work);
        }
        let base = u32::try_from(base).unwrap_or(u32::MAX);
        self.add(bytes, translate::message(publish, base, TargetId::default()), asked, work)
    }

    /// Notes a PUBLISH that has to be answered.
    ///
    /// # Errors
    /// When the client may not send it now.
    #[inline(always)]
    pub(super) fn admit(&mut self, publish: &PublishSpans, work: &mut Work) -> Result<Admitted, Ending> {
        match publish.packet_id {
            None => Ok(Admitted::New(None)),
            Some(packet_id) => self.admit_asked(packet_id, publish.qos, work),
        }
    }

    #[inline]
    fn admit_asked(&mut self, packet_id: NonZeroU16, qos: Qos, work: &mut Work) -> Result<Admitted, Ending> {
        let publishing = self.publishing.state();
        if qos == Qos::ExactlyOnce && publishing.received.contains(&packet_id) {
            let kind = AckKind::Pubrec;
            let under_way = publishing.receipts.holds(packet_id)
                || work.asked.iter().any(|asked| asked.packet_id == packet_id && asked.kind == kind);
            if !under_way {
                work.asked.push(Asked { packet_id, kind, verdict: Verdict::Known(Answer::SUCCESS) });
            }
            return Ok(Admitted::Repeated);
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
            return Ok(Admitted::New(Some((packet_id, AckKind::Pubrec))));
        }
        Ok(Admitted::New(Some((packet_id, AckKind::Puback))))
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
}

/// A payload that is not the UTF-8 that it is said to be: refused, without an answer the connection ends
/// (MQTT 5 §3.3.2.3.2).
pub(super) fn refuse_payload(asked: Option<(NonZeroU16, AckKind)>, work: &mut Work) -> Result<(), Ending> {
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
pub(super) fn reread(packets: &[u8], start: usize, version: Version) -> Option<Message> {
    let packet = packets.get(start..)?;
    let Framing::Complete(frame) = Framing::read(packet, Framing::MAXIMUM_PACKET_SIZE).ok()? else {
        return None;
    };
    let publish = PublishSpans::of_frame(&frame, version, Sender::Client).ok()?;
    Some(translate::message(&publish, u32::try_from(start).ok()?, TargetId::default()))
}
