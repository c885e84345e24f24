//! Where the parts of a PUBLISH lie in a read buffer: how the server reads messages, without an allocation or a copy.

use std::num::NonZeroU16;

use super::{
    error::Error,
    header::{self, Frame, PacketType},
    identifier::{Carrier, PropertyIdentifier},
    property::{check_response_topic, read_identifier},
    publish::{DUP, RETAIN},
    qos::Qos,
    reader::Reader,
    sender::Sender,
    text, topic, varint,
    version::Version,
};

/// A part of a buffer, as an offset and a length in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where it begins, counted from the beginning of the buffer.
    pub offset: u32,
    /// How many bytes it has.
    pub len: u32,
}

impl Span {
    /// The part itself; nothing when `buffer` is too short to be the buffer that this was found in.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        let start = self.offset as usize;
        buffer.get(start..start.saturating_add(self.len as usize)).unwrap_or_default()
    }
}

/// A checked PUBLISH in a read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishSpans {
    /// The whole packet.
    pub wire: Span,
    /// The topic name; empty when the topic alias alone names it (5.0).
    pub topic: Span,
    /// The encoded list of properties without its length; empty in 3.1.1.
    pub properties: Span,
    /// The message itself.
    pub payload: Span,
    /// Seconds for which the message is still worth delivering.
    pub message_expiry_interval: Option<u32>,
    /// Stands for the topic name on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// There exactly when the QoS is not 0.
    pub packet_id: Option<NonZeroU16>,
    /// With which quality of service.
    pub qos: Qos,
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Whether it is to be retained (client), or was (server).
    pub retain: bool,
    /// Whether there are subscription identifiers, which only servers send.
    pub has_subscription_identifiers: bool,
    /// Whether there is any property besides expiry, alias and subscription identifiers.
    pub has_other_properties: bool,
}

impl PublishSpans {
    /// Whether the encoded properties may be forwarded byte for byte: none of them is the connection's own or changes
    /// with time. This is [`PublishEncoder::properties_are_plain`](super::PublishEncoder::properties_are_plain).
    #[inline]
    pub const fn has_plain_properties(&self) -> bool {
        self.message_expiry_interval.is_none()
            && self.topic_alias.is_none()
            && !self.has_subscription_identifiers
    }

    /// The spans of a framed PUBLISH, counted from the beginning of its [`wire`](Frame::wire).
    ///
    /// # Errors
    /// Every violation that a PUBLISH can hold; [`Error::UnexpectedPacket`] for another packet.
    pub fn of_frame(frame: &Frame<'_>, version: Version, sender: Sender) -> Result<Self, Error> {
        if frame.packet_type != PacketType::Publish {
            return Err(Error::UnexpectedPacket { packet_type: frame.packet_type, sender });
        }
        let qos = header::check_publish_flags(frame.flags)?;
        Self::read(frame.wire, 0, frame.header_len, qos, version, sender)
    }

    /// The spans of a PUBLISH of which only the beginning is there, counted from there; none when what stands before the
    /// payload is not there whole. The payload's span is empty, and that of the whole packet ends there.
    ///
    /// # Errors
    /// As [`PublishSpans::of_frame`].
    pub fn of_beginning(bytes: &[u8], version: Version, sender: Sender) -> Result<Option<Self>, Error> {
        let Some((header_len, end)) = head_of(bytes, version) else { return Ok(None) };
        let Some(head) = bytes.get(..end) else { return Ok(None) };
        let qos = header::check_publish_flags(bytes.first().copied().unwrap_or_default() & 0x0F)?;
        Self::read(head, 0, header_len, qos, version, sender).map(Some)
    }

    /// Reads the packet `wire`, which begins `start` bytes after the beginning of the buffer. Inlined by force, as are its
    /// callers: passed on in memory, the result costs more than all the checks (it is written field by field and read in
    /// larger pieces, which stalls the processor).
    #[inline(always)]
    fn read(
        wire: &[u8],
        start: usize,
        header_len: usize,
        qos: Qos,
        version: Version,
        sender: Sender,
    ) -> Result<Self, Error> {
        let flags = wire.first().copied().unwrap_or_default();
        let mut reader = Reader::new(wire.get(header_len..).unwrap_or_default());
        let name = reader.binary()?;
        topic::check_name_characters(name)?;
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(reader.packet_identifier()?),
        };
        let (list, found) = match version {
            Version::V311 => (&[][..], Found::default()),
            Version::V5 => {
                let list = reader.properties()?;
                (list, scan(list, sender)?)
            }
        };
        if name.is_empty() && found.topic_alias.is_none() {
            return Err(Error::TopicNameMissing);
        }
        // `Publishes` looks at no more than 4 GiB and a packet has at most 256 MiB: offsets fit.
        let span = |offset: usize, len: usize| Span { offset: offset as u32, len: len as u32 };
        let payload_len = reader.rest().len();
        let payload_at = start + wire.len() - payload_len;
        Ok(Self {
            wire: span(start, wire.len()),
            topic: span(start + header_len + 2, name.len()),
            properties: span(payload_at - list.len(), list.len()),
            payload: span(payload_at, payload_len),
            message_expiry_interval: found.message_expiry_interval,
            topic_alias: found.topic_alias,
            packet_id,
            qos,
            dup: flags & DUP != 0,
            retain: flags & RETAIN != 0,
            has_subscription_identifiers: found.subscription_identifiers,
            has_other_properties: found.others,
        })
    }
}

/// Where fixed header and variable header of a PUBLISH end; none when that is not known yet.
fn head_of(bytes: &[u8], version: Version) -> Option<(usize, usize)> {
    let number = |at: usize| {
        let bytes = bytes.get(at..)?.iter().take(4);
        let len = bytes.clone().position(|byte| byte & 0x80 == 0)? + 1;
        let value = bytes.take(len).rev().fold(0_usize, |value, byte| value << 7 | usize::from(byte & 0x7F));
        Some((value, at + len))
    };
    let (_, header_len) = number(1)?;
    let (name, _) = bytes.get(header_len..)?.split_first_chunk::<2>()?;
    let mut end = header_len + 2 + usize::from(u16::from_be_bytes(*name));
    if bytes.first()? & 0b0110 != 0 {
        end += 2;
    }
    if version == Version::V5 {
        let (len, list) = number(end)?;
        end = list + len;
    }
    Some((header_len, end))
}

/// What the server must know of a list of properties at once.
#[derive(Clone, Copy, Default)]
struct Found {
    message_expiry_interval: Option<u32>,
    topic_alias: Option<NonZeroU16>,
    subscription_identifiers: bool,
    others: bool,
}

/// Checks an encoded list of properties in one pass.
#[inline(always)]
fn scan(list: &[u8], sender: Sender) -> Result<Found, Error> {
    use PropertyIdentifier as Id;
    let mut found = Found::default();
    let mut seen = 0u64;
    let mut reader = Reader::new(list);
    while !reader.is_empty() {
        let identifier = read_identifier(&mut reader)?;
        if identifier == Id::UserProperty {
            text::check(reader.binary()?)?;
            text::check(reader.binary()?)?;
            found.others = true;
            continue;
        }
        if seen & identifier.bit() != 0 && !identifier.is_repeatable_in(Carrier::Publish) {
            return Err(Error::DuplicateProperty(identifier));
        }
        seen |= identifier.bit();
        match identifier {
            Id::MessageExpiryInterval => {
                found.message_expiry_interval = Some(reader.u32()?);
                continue;
            }
            Id::TopicAlias => {
                found.topic_alias = Some(NonZeroU16::new(reader.u16()?).ok_or(Error::TopicAliasZero)?);
                continue;
            }
            Id::SubscriptionIdentifier => {
                if sender == Sender::Client {
                    return Err(Error::SubscriptionIdentifierFromClient);
                }
                if reader.variable_byte_integer()? == 0 {
                    return Err(Error::PropertyValue(identifier));
                }
                found.subscription_identifiers = true;
                continue;
            }
            Id::PayloadFormatIndicator => {
                if reader.u8()? > 1 {
                    return Err(Error::PropertyValue(identifier));
                }
            }
            Id::ResponseTopic => check_response_topic(reader.binary()?)?,
            Id::ContentType => text::check(reader.binary()?)?,
            Id::CorrelationData => {
                reader.binary()?;
            }
            _ => return Err(Error::PropertyNotAllowed(identifier)),
        }
        found.others = true;
    }
    Ok(found)
}

/// The run of whole PUBLISH packets at the front of a read buffer, one after the other.
///
/// It ends before the first byte that is not of a whole PUBLISH; [`position`](Self::position) tells where, and
/// [`Framing::read`](super::Framing::read) what is there. It ends after the first error, which is met only when the
/// packets before it have been yielded.
#[derive(Clone, Debug)]
pub struct Publishes<'a> {
    received: &'a [u8],
    position: usize,
    maximum: u32,
    version: Version,
    sender: Sender,
}

impl<'a> Publishes<'a> {
    /// Reads from the front of `received`; spans count from there. `maximum` bounds the size of a packet, its fixed
    /// header included.
    #[inline]
    pub fn new(received: &'a [u8], version: Version, sender: Sender, maximum: u32) -> Self {
        let received = received.get(..u32::MAX as usize).unwrap_or(received);
        Self { received, position: 0, maximum, version, sender }
    }

    /// How many bytes the packets yielded so far take.
    #[inline]
    pub const fn position(&self) -> usize {
        self.position
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Option<PublishSpans>, Error> {
        let start = self.position;
        let bytes = self.received.get(start..).unwrap_or_default();
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        if first >> 4 != PacketType::Publish as u8 {
            return Ok(None);
        }
        let qos = header::check_publish_flags(first & 0x0F)?;
        let Some((remaining, length_len)) = varint::decode(rest)? else { return Ok(None) };
        let header_len = 1 + length_len;
        let size = header_len + remaining as usize;
        if size > self.maximum as usize {
            return Err(Error::PacketTooLarge { size: size as u64, maximum: self.maximum });
        }
        let Some(wire) = bytes.get(..size) else { return Ok(None) };
        let spans = PublishSpans::read(wire, start, header_len, qos, self.version, self.sender)?;
        self.position = start + size;
        Ok(Some(spans))
    }
}

impl Iterator for Publishes<'_> {
    type Item = Result<PublishSpans, Error>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let result = self.read();
        if result.is_err() {
            self.received = self.received.get(..self.position).unwrap_or_default();
        }
        result.transpose()
    }
}
