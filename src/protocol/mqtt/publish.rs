//! PUBLISH: a message (§3.3), all of it decoded. The server's own path is [`Publishes`](super::Publishes) and
//! [`PublishEncoder`](super::PublishEncoder).

use std::num::NonZeroU16;

use super::{
    error::Error,
    header::{Frame, PacketType},
    publish_properties::PublishProperties,
    publish_spans::PublishSpans,
    qos::Qos,
    sender::Sender,
    text,
    version::Version,
    writer,
};

pub(super) const DUP: u8 = 0b1000;
pub(super) const RETAIN: u8 = 0b0001;

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// With which quality of service.
    pub qos: Qos,
    /// Whether it is to be retained (client), or was (server).
    pub retain: bool,
    /// Where it goes; in 5.0 empty when a topic alias stands for it.
    pub topic: &'a str,
    /// What its receipts name: there exactly when the QoS is not 0.
    pub packet_id: Option<NonZeroU16>,
    /// 5.0 only.
    pub properties: PublishProperties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub(super) fn decode(frame: &Frame<'a>, version: Version, sender: Sender) -> Result<Self, Error> {
        let spans = PublishSpans::of_frame(frame, version, sender)?;
        Ok(Self {
            dup: spans.dup,
            qos: spans.qos,
            retain: spans.retain,
            topic: text::decode(spans.topic.of(frame.wire))?,
            packet_id: spans.packet_id,
            properties: PublishProperties::from_encoded(spans.properties.of(frame.wire))?,
            payload: spans.payload.of(frame.wire),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        out.push(first_byte(self.dup, self.qos, self.retain));
        writer::length_prefixed(out, |out| {
            writer::binary(out, self.topic.as_bytes())?;
            if self.qos != Qos::AtMostOnce {
                writer::packet_identifier(out, self.packet_id.ok_or(Error::PacketIdentifierZero)?);
            }
            if version == Version::V5 {
                writer::length_prefixed(out, |out| self.properties.append(out))?;
            }
            out.extend_from_slice(self.payload);
            Ok(())
        })
    }
}

/// The first byte of the fixed header (§3.3.1).
#[inline]
pub(super) const fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    PacketType::Publish.first_byte()
        | if dup { DUP } else { 0 }
        | qos.bits() << 1
        | if retain { RETAIN } else { 0 }
}
