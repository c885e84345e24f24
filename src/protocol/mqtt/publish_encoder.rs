//! Writes PUBLISH packets for delivery: how the server sends messages, without an allocation of its own.

use std::num::{NonZeroU16, NonZeroU32};

use super::{
    error::Error,
    header::Framing,
    identifier::PropertyIdentifier,
    property::read_identifier,
    publish::first_byte,
    qos::Qos,
    reader::Reader,
    varint::{self, VARIABLE_BYTE_INTEGER_MAX},
    version::Version,
};

/// All of a PUBLISH but topic and payload, which come with each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishEncoder<'a> {
    /// The receiver's standard.
    pub version: Version,
    /// With which quality of service.
    pub qos: Qos,
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Whether it was retained.
    pub retain: bool,
    /// Needed exactly when the QoS is not 0.
    pub packet_id: Option<NonZeroU16>,
    /// The message's encoded properties without their length; 3.1.1 receivers do not get them. Message expiry interval,
    /// topic alias and subscription identifiers in it are left out: the fields below say what to send.
    pub properties: &'a [u8],
    /// Says that `properties` hold nothing that is to be left out, so that they are copied in one go.
    pub properties_are_plain: bool,
    /// Seconds for which the message is still worth delivering [MQTT-3.3.2-6].
    pub message_expiry_interval: Option<u32>,
    /// Stands for the topic name on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Those of all subscriptions that the message matches [MQTT-3.3.4-3]; each at most 268,435,455.
    pub subscription_identifiers: &'a [NonZeroU32],
}

/// How long the parts of a packet are.
struct Layout {
    /// The whole packet.
    total: usize,
    /// What stands behind the fixed header.
    remaining: u32,
    /// The topic name.
    topic: u16,
    /// The list of properties.
    properties: u32,
    /// What is left out of the message's encoded properties.
    cut: Cut,
}

/// The part of an encoded list that is left out: from `start` to `end`, and further parts behind it if `more`. Most
/// often it is one, a message expiry interval.
#[derive(Clone, Copy)]
struct Cut {
    start: usize,
    end: usize,
    more: bool,
}

impl<'a> PublishEncoder<'a> {
    /// A message of QoS 0 without properties.
    #[inline]
    pub const fn new(version: Version) -> Self {
        Self {
            version,
            qos: Qos::AtMostOnce,
            dup: false,
            retain: false,
            packet_id: None,
            properties: &[],
            properties_are_plain: true,
            message_expiry_interval: None,
            topic_alias: None,
            subscription_identifiers: &[],
        }
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// [`Error::FieldTooLong`] for the topic, [`Error::PacketTooLarge`], [`Error::PacketIdentifierZero`] when one is
    /// needed, [`Error::VariableByteInteger`] for a subscription identifier, or `properties` that are not a list of a
    /// PUBLISH's properties and not plain. Nothing was appended.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>, topic: &[u8], payload: &[u8]) -> Result<(), Error> {
        let layout = self.layout(topic.len(), payload.len())?;
        out.reserve(layout.total);
        self.write(out, &layout, |out| out.extend_from_slice(topic));
        out.extend_from_slice(payload);
        Ok(())
    }

    /// Appends the packet, each byte of the topic changed by `map`, such as one that swaps `.` and `/`.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    #[inline]
    pub fn encode_mapped(
        &self,
        out: &mut Vec<u8>,
        topic: &[u8],
        map: impl Fn(u8) -> u8,
        payload: &[u8],
    ) -> Result<(), Error> {
        let layout = self.layout(topic.len(), payload.len())?;
        out.reserve(layout.total);
        self.write(out, &layout, |out| out.extend(topic.iter().map(|&byte| map(byte))));
        out.extend_from_slice(payload);
        Ok(())
    }

    /// Appends all that stands before a payload of `payload_len` bytes, which is sent apart.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_head(
        &self,
        out: &mut Vec<u8>,
        topic: &[u8],
        map: impl Fn(u8) -> u8,
        payload_len: usize,
    ) -> Result<(), Error> {
        let layout = self.layout(topic.len(), payload_len)?;
        out.reserve(layout.total - payload_len);
        self.write(out, &layout, |out| out.extend(topic.iter().map(|&byte| map(byte))));
        Ok(())
    }

    /// How many bytes the packet has, fixed header included: what the receiver's maximum packet size bounds
    /// [MQTT-3.1.2-24].
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encoded_len(&self, topic_len: usize, payload_len: usize) -> Result<usize, Error> {
        self.layout(topic_len, payload_len).map(|layout| layout.total)
    }

    #[inline]
    fn layout(&self, topic_len: usize, payload_len: usize) -> Result<Layout, Error> {
        let topic = u16::try_from(topic_len).map_err(|_| Error::FieldTooLong(topic_len))?;
        let mut remaining = 2 + topic_len as u64 + payload_len as u64;
        if self.qos != Qos::AtMostOnce {
            if self.packet_id.is_none() {
                return Err(Error::PacketIdentifierZero);
            }
            remaining += 2;
        }
        let mut properties = 0;
        let mut cut = Cut { start: self.properties.len(), end: self.properties.len(), more: false };
        if self.version == Version::V5 {
            properties = self.properties_len(&mut cut)?;
            remaining += varint::len(properties) as u64 + u64::from(properties);
        }
        if remaining > u64::from(VARIABLE_BYTE_INTEGER_MAX) {
            return Err(Error::PacketTooLarge { size: remaining + 5, maximum: Framing::MAXIMUM_PACKET_SIZE });
        }
        let remaining = remaining as u32;
        let total = 1 + varint::len(remaining) + remaining as usize;
        Ok(Layout { total, remaining, topic, properties, cut })
    }

    #[inline]
    fn properties_len(&self, cut: &mut Cut) -> Result<u32, Error> {
        let mut len = self.properties.len();
        if !self.properties_are_plain {
            for_each_cut(self.properties, |start, end| {
                len -= end - start;
                if cut.end == start {
                    cut.end = end;
                } else if cut.start == cut.end {
                    (cut.start, cut.end) = (start, end);
                } else {
                    cut.more = true;
                }
            })?;
        }
        if self.message_expiry_interval.is_some() {
            len += 5;
        }
        if self.topic_alias.is_some() {
            len += 3;
        }
        for identifier in self.subscription_identifiers {
            if identifier.get() > VARIABLE_BYTE_INTEGER_MAX {
                return Err(Error::VariableByteInteger);
            }
            len += 1 + varint::len(identifier.get());
        }
        u32::try_from(len)
            .ok()
            .filter(|len| *len <= VARIABLE_BYTE_INTEGER_MAX)
            .ok_or(Error::PacketTooLarge { size: len as u64, maximum: Framing::MAXIMUM_PACKET_SIZE })
    }

    /// Appends all but the payload. What could go wrong has been ruled out by [`layout`](Self::layout).
    #[inline]
    fn write(&self, out: &mut Vec<u8>, layout: &Layout, write_topic: impl FnOnce(&mut Vec<u8>)) {
        let first = first_byte(self.dup, self.qos, self.retain);
        let [high, low] = layout.topic.to_be_bytes();
        if layout.remaining < 0x80 {
            out.extend_from_slice(&[first, layout.remaining as u8, high, low]);
        } else {
            out.push(first);
            append_varint(layout.remaining, out);
            out.extend_from_slice(&[high, low]);
        }
        write_topic(out);
        if let (Some(packet_id), true) = (self.packet_id, self.qos != Qos::AtMostOnce) {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if self.version == Version::V5 {
            append_varint(layout.properties, out);
            self.write_own_properties(out);
            if !self.properties.is_empty() {
                self.write_kept_properties(out, layout.cut);
            }
        }
    }

    #[inline]
    fn write_own_properties(&self, out: &mut Vec<u8>) {
        use PropertyIdentifier as Id;
        if let Some(seconds) = self.message_expiry_interval {
            let [a, b, c, d] = seconds.to_be_bytes();
            out.extend_from_slice(&[Id::MessageExpiryInterval as u8, a, b, c, d]);
        }
        if let Some(alias) = self.topic_alias {
            let [high, low] = alias.get().to_be_bytes();
            out.extend_from_slice(&[Id::TopicAlias as u8, high, low]);
        }
        for identifier in self.subscription_identifiers {
            out.push(Id::SubscriptionIdentifier as u8);
            append_varint(identifier.get(), out);
        }
    }

    #[inline]
    fn write_kept_properties(&self, out: &mut Vec<u8>, cut: Cut) {
        let mut keep =
            |start, end| out.extend_from_slice(self.properties.get(start..end).unwrap_or_default());
        if !cut.more {
            keep(0, cut.start);
            keep(cut.end, self.properties.len());
            return;
        }
        let mut kept = 0;
        // It passed when it was measured.
        let _ = for_each_cut(self.properties, |start, end| {
            keep(kept, start);
            kept = end;
        });
        keep(kept, self.properties.len());
    }
}

/// Appends a number that is known to fit.
#[inline]
fn append_varint(value: u32, out: &mut Vec<u8>) {
    let _ = varint::encode(value, out);
}

/// Calls `cut` with start and end of each property in an encoded list that belongs to the connection it came by and not
/// to the message.
#[inline]
fn for_each_cut(list: &[u8], mut cut: impl FnMut(usize, usize)) -> Result<(), Error> {
    use PropertyIdentifier as Id;
    let mut reader = Reader::new(list);
    while !reader.is_empty() {
        let start = list.len() - reader.rest().len();
        let identifier = read_identifier(&mut reader)?;
        match identifier {
            Id::UserProperty => {
                reader.binary()?;
                reader.binary()?;
                continue;
            }
            Id::ContentType | Id::ResponseTopic | Id::CorrelationData => {
                reader.binary()?;
                continue;
            }
            Id::PayloadFormatIndicator => {
                reader.u8()?;
                continue;
            }
            Id::MessageExpiryInterval => drop(reader.u32()?),
            Id::TopicAlias => drop(reader.u16()?),
            Id::SubscriptionIdentifier => drop(reader.variable_byte_integer()?),
            _ => return Err(Error::PropertyNotAllowed(identifier)),
        }
        cut(start, list.len() - reader.rest().len());
    }
    Ok(())
}
