//! Messages of any form as PUBLISH packets for one client.

use std::num::{NonZeroU16, NonZeroU32};

use linkspan_contract::address::{self, Syntax, swapped};
use linkspan_contract::{Batch, Flags, Message};

use super::{form, properties};
use crate::protocol::mqtt::{PublishEncoder, Qos, Version};

/// What matters of a client for what it is sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::mqtt) struct Receiver {
    /// The standard that it follows.
    pub version: Version,
    /// Bytes of the largest packet that it takes [MQTT-3.1.2-24].
    pub maximum: u32,
}

/// What matters of a subscription and its place in a queue.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::mqtt) struct Terms {
    /// QoS 1 or 2; else QoS 0.
    pub acknowledged: bool,
    /// QoS 2 was granted: what was published so is sent so.
    pub exactly_once: bool,
    /// It was sent before, or may have been [MQTT-3.3.1-1].
    pub again: bool,
    /// The RETAIN flag is what it was when the message was published [MQTT-3.3.1-13].
    pub retain_as_published: bool,
    /// The message is a retained one, sent because of a new subscription [MQTT-3.3.1-8].
    pub retained: bool,
    /// Milliseconds that it has waited.
    pub age: u64,
    /// Sent along [MQTT-3.3.4-3].
    pub identifier: Option<NonZeroU32>,
}

impl Terms {
    /// At which QoS a message of these flags is sent [MQTT-3.8.4-8].
    #[inline]
    pub(in crate::doors::mqtt) fn qos(&self, flags: Flags) -> Qos {
        match self.acknowledged {
            true if self.exactly_once && flags.has(Flags::EXACTLY_ONCE) => Qos::ExactlyOnce,
            true => Qos::AtLeastOnce,
            false => Qos::AtMostOnce,
        }
    }
}

/// Why a client is not sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::doors::mqtt) enum Undeliverable {
    /// The packet would be larger than the client takes [MQTT-3.1.2-25].
    TooLarge,
    /// Its time is over [MQTT-3.3.2-5].
    Expired,
    /// Its address is no topic name: an AMQP routing key with a wildcard, for one.
    NotATopic,
    /// Its properties are not of its form.
    Malformed,
}

/// Set in the first byte of a PUBLISH of QoS 1 or 2: there is a packet identifier.
const HAS_IDENTIFIER: u8 = 0b0110;

const RETAIN: u8 = 0b0001;

impl Receiver {
    /// How many messages from the first on can be sent as they came in, but for first byte and packet identifier, and the
    /// bytes that they take together.
    #[inline]
    pub(in crate::doors::mqtt) fn passing<'a>(
        &self,
        batch: &Batch<'a>,
        messages: &[Message],
        terms: Terms,
    ) -> Passing<'a> {
        let mut passing = Passing { count: 0, bytes: &[], patched: terms.acknowledged };
        let (Some(first), true) = (messages.first(), self.takes(batch, terms)) else { return passing };
        let start = first.wire.start;
        let mut end = start;
        let mut blocking = Flags::REWRITE;
        if terms.age > 0 {
            blocking |= Flags::EXPIRES;
        }
        for message in messages {
            let Some(&byte) = batch.bytes.get(message.wire.start as usize) else { break };
            if message.wire.start != end
                || message.flags.any(blocking)
                || (byte & HAS_IDENTIFIER != 0) != terms.acknowledged
                || message.wire.len > self.maximum
            {
                break;
            }
            passing.patched |= byte != first_byte(message, terms);
            passing.count += 1;
            end = message.wire.end();
        }
        passing.bytes = batch.bytes.get(start as usize..end as usize).unwrap_or_default();
        passing
    }

    /// Whether messages of the batch may be sent as they came in at all.
    #[inline]
    fn takes(&self, batch: &Batch<'_>, terms: Terms) -> bool {
        batch.form.id() == self.version.level()
            && terms.identifier.is_none()
            && !terms.retained
            && batch.body.is_none()
    }

    /// Says how `message` is sent to this client; `list` is memory for its properties.
    ///
    /// # Errors
    /// Why it is not sent.
    pub(in crate::doors::mqtt) fn prepare<'a>(
        &self,
        batch: &Batch<'a>,
        message: &Message,
        terms: &'a Terms,
        list: &'a mut Vec<u8>,
    ) -> Result<Prepared<'a>, Undeliverable> {
        let mut expiry = None;
        if message.flags.has(Flags::EXPIRES) {
            // Once it is on its way it does not expire any more [MQTT-4.3.3-7].
            if terms.age > 0 && terms.age >= message.expiry && !terms.again {
                return Err(Undeliverable::Expired);
            }
            let seconds = (message.expiry - terms.age.min(message.expiry)).div_ceil(1000);
            expiry = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        }
        let address = batch.address(message);
        let source = form::version_of(batch.form.id());
        if source.is_none() && !address::is_topic(address.path) {
            return Err(Undeliverable::NotATopic);
        }
        let payload = match batch.body {
            None => Payload::Here(message.payload.of(batch.bytes)),
            Some(body) => Payload::Apart(usize::try_from(body.len()).unwrap_or(usize::MAX)),
        };
        let mut encoder = PublishEncoder {
            qos: terms.qos(message.flags),
            dup: terms.again,
            retain: terms.retained || (terms.retain_as_published && message.flags.has(Flags::RETAIN)),
            packet_id: Some(NonZeroU16::MIN),
            message_expiry_interval: expiry,
            ..PublishEncoder::new(self.version)
        };
        if self.version == Version::V5 {
            encoder.subscription_identifiers = terms.identifier.as_slice();
            if source == Some(Version::V5) {
                encoder.properties = message.properties.of(batch.bytes);
                encoder.properties_are_plain = !message.flags.any(Flags::EXPIRES | Flags::REWRITE);
            } else if message.flags.has(Flags::PROPERTIES) {
                let neutral = batch.properties(message).map_err(|_| Undeliverable::Malformed)?;
                list.clear();
                properties::append(&neutral, list).map_err(|_| Undeliverable::Malformed)?;
                encoder.properties = list;
            }
        }
        let len =
            encoder.encoded_len(address.path.len(), payload.len()).map_err(|_| Undeliverable::TooLarge)?;
        if len > self.maximum as usize {
            return Err(Undeliverable::TooLarge);
        }
        Ok(Prepared { encoder, topic: address.path, syntax: address.syntax, payload })
    }
}

/// The first byte with which a message leaves.
#[inline]
fn first_byte(message: &Message, terms: Terms) -> u8 {
    let retain = terms.retain_as_published && message.flags.has(Flags::RETAIN);
    0x30 | (terms.qos(message.flags) as u8) << 1 | if retain { RETAIN } else { 0 }
}

/// A run of messages that are sent as they came in.
#[derive(Debug)]
pub(in crate::doors::mqtt) struct Passing<'a> {
    /// How many.
    pub count: usize,
    bytes: &'a [u8],
    patched: bool,
}

impl Passing<'_> {
    /// Appends the run. `identify` gives each message of QoS 1, and of QoS 2 when it is told so, its packet identifier; when
    /// it has none to give, the run ends there. Says how many were appended.
    #[inline]
    pub(in crate::doors::mqtt) fn append(
        &self,
        messages: &[Message],
        terms: Terms,
        out: &mut Vec<u8>,
        mut identify: impl FnMut(bool) -> Option<NonZeroU16>,
    ) -> usize {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        if !self.patched {
            return self.count;
        }
        let appended = out.get_mut(start..).unwrap_or_default();
        let origin = messages.first().map_or(0, |message| message.wire.start);
        for (done, message) in messages.iter().take(self.count).enumerate() {
            let at = (message.wire.start - origin) as usize;
            if terms.acknowledged {
                let Some(packet_id) = identify(terms.qos(message.flags) == Qos::ExactlyOnce) else {
                    out.truncate(start + at);
                    return done;
                };
                // The packet identifier follows the topic name (§3.3.2.2).
                let place = message.address.end().saturating_sub(origin) as usize;
                if let Some(bytes) = appended.get_mut(place..).and_then(|rest| rest.first_chunk_mut::<2>()) {
                    *bytes = packet_id.get().to_be_bytes();
                }
            }
            if let Some(byte) = appended.get_mut(at) {
                *byte = first_byte(message, terms);
            }
        }
        self.count
    }
}

/// A message that will be sent.
#[derive(Debug)]
pub(in crate::doors::mqtt) struct Prepared<'a> {
    encoder: PublishEncoder<'a>,
    topic: &'a [u8],
    syntax: Syntax,
    payload: Payload<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Payload<'a> {
    Here(&'a [u8]),
    /// So many bytes, sent behind the rest of the packet.
    Apart(usize),
}

impl Payload<'_> {
    const fn len(self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Apart(len) => len,
        }
    }
}

impl Prepared<'_> {
    /// Appends the packet, but for a payload that is sent apart. Without an identifier the QoS is 0.
    pub(in crate::doors::mqtt) fn append(&self, packet_id: Option<NonZeroU16>, out: &mut Vec<u8>) -> bool {
        let encoder = PublishEncoder { packet_id, ..self.encoder };
        let respell = |byte| match self.syntax {
            Syntax::Topic => byte,
            Syntax::Key => swapped(byte),
        };
        let result = match (self.payload, self.syntax) {
            (Payload::Apart(len), _) => encoder.encode_head(out, self.topic, respell, len),
            (Payload::Here(payload), Syntax::Topic) => encoder.encode(out, self.topic, payload),
            (Payload::Here(payload), Syntax::Key) => encoder.encode_mapped(out, self.topic, swapped, payload),
        };
        result.is_ok()
    }
}
