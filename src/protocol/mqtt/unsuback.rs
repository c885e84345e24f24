//! UNSUBACK: the server's answer to an UNSUBSCRIBE (§3.11).

use std::num::NonZeroU16;

use smallvec::SmallVec;

use super::{
    ack::{encode_diagnostics, read_reason_string},
    error::Error,
    header::PacketType,
    reader::Reader,
    reason::ReasonCode,
    sender::Sender,
    user_property::UserProperties,
    version::Version,
    writer,
};

/// Which subscriptions were ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuback<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// 5.0 only: an explanation for people.
    pub reason_string: Option<&'a str>,
    /// 5.0 only: further diagnostics.
    pub user_properties: UserProperties<'a>,
    /// 5.0 only: one for each topic filter, in the filters' order.
    pub reasons: SmallVec<[ReasonCode; 8]>,
}

impl<'a> Unsuback<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_identifier()?;
        if version == Version::V311 {
            reader.finish()?;
            let user_properties = UserProperties::NONE;
            return Ok(Self { packet_id, reason_string: None, user_properties, reasons: SmallVec::new() });
        }
        let list = reader.properties()?;
        let reason_string = read_reason_string(list)?;
        if reader.is_empty() {
            return Err(Error::ReasonCodesEmpty(PacketType::Unsuback));
        }
        let reasons = reader
            .rest()
            .iter()
            .map(|&value| ReasonCode::decode(value, PacketType::Unsuback, Sender::Server))
            .collect::<Result<_, _>>()?;
        Ok(Self { packet_id, reason_string, user_properties: UserProperties::of_checked(list), reasons })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        writer::packet(out, PacketType::Unsuback, |out| {
            writer::packet_identifier(out, self.packet_id);
            if version == Version::V5 {
                encode_diagnostics(out, self.reason_string, self.user_properties)?;
                out.extend(self.reasons.iter().map(|reason| reason.as_u8()));
            }
            Ok(())
        })
    }
}
