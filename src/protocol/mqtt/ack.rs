//! PUBACK, PUBREC, PUBREL and PUBCOMP: the receipts of a message (§3.4 to §3.7).

use std::num::NonZeroU16;

use super::{
    error::Error,
    header::PacketType,
    identifier::Carrier,
    property::{self, Property, PropertyReader},
    reader::Reader,
    reason::ReasonCode,
    sender::Sender,
    user_property::UserProperties,
    version::Version,
    writer,
};

/// Which of the four receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// The receipt of a message of QoS 1.
    Puback,
    /// The first receipt of a message of QoS 2.
    Pubrec,
    /// The receipt of a PUBREC.
    Pubrel,
    /// The receipt of a PUBREL.
    Pubcomp,
}

impl AckKind {
    pub(super) const fn packet_type(self) -> PacketType {
        match self {
            Self::Puback => PacketType::Puback,
            Self::Pubrec => PacketType::Pubrec,
            Self::Pubrel => PacketType::Pubrel,
            Self::Pubcomp => PacketType::Pubcomp,
        }
    }

    /// The whole packet that says that all is well: the same four bytes in both versions.
    #[inline]
    pub const fn success(self, packet_id: NonZeroU16) -> [u8; 4] {
        let [high, low] = packet_id.get().to_be_bytes();
        [self.packet_type().first_byte(), 2, high, low]
    }
}

/// What the four receipts hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which message.
    pub packet_id: NonZeroU16,
    /// How it went; in 3.1.1 always [`ReasonCode::Success`].
    pub reason: ReasonCode,
    /// 5.0 only: an explanation for people.
    pub reason_string: Option<&'a str>,
    /// 5.0 only: further diagnostics.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// A receipt that says no more than how it went.
    pub const fn new(packet_id: NonZeroU16, reason: ReasonCode) -> Self {
        Self { packet_id, reason, reason_string: None, user_properties: UserProperties::NONE }
    }

    pub(super) fn decode(kind: AckKind, body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let mut ack = Self::new(reader.packet_identifier()?, ReasonCode::Success);
        if version == Version::V5 && !reader.is_empty() {
            // Both ends may send the same codes in these packets.
            ack.reason = ReasonCode::decode(reader.u8()?, kind.packet_type(), Sender::Client)?;
            if !reader.is_empty() {
                let list = reader.properties()?;
                ack.user_properties = UserProperties::of_checked(list);
                ack.reason_string = read_reason_string(list)?;
            }
        }
        reader.finish()?;
        Ok(ack)
    }

    pub(super) fn encode(&self, kind: AckKind, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        let bare = self.reason_string.is_none() && self.user_properties.is_empty();
        if version == Version::V311 || (bare && self.reason == ReasonCode::Success) {
            out.extend_from_slice(&kind.success(self.packet_id));
            return Ok(());
        }
        writer::packet(out, kind.packet_type(), |out| {
            writer::packet_identifier(out, self.packet_id);
            out.push(self.reason.as_u8());
            if bare { Ok(()) } else { encode_diagnostics(out, self.reason_string, self.user_properties) }
        })
    }
}

/// The reason string in the list of an acknowledgement, which holds nothing else but user properties.
pub(super) fn read_reason_string(list: &[u8]) -> Result<Option<&str>, Error> {
    let mut reason_string = None;
    let mut reader = PropertyReader::new(list, Carrier::Acknowledgement);
    while let Some(property) = reader.next()? {
        if let Property::ReasonString(text) = property {
            reason_string = Some(text);
        }
    }
    Ok(reason_string)
}

/// The list of an acknowledgement.
pub(super) fn encode_diagnostics<'a>(
    out: &mut Vec<u8>,
    reason_string: Option<&'a str>,
    user_properties: UserProperties<'a>,
) -> Result<(), Error> {
    property::encode_list(out, [reason_string.map(Property::ReasonString)], user_properties)
}
