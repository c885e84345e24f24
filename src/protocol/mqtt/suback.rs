//! SUBACK: the server's answer to a SUBSCRIBE (§3.9).

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

/// Which subscriptions were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// 5.0 only: an explanation for people.
    pub reason_string: Option<&'a str>,
    /// 5.0 only: further diagnostics.
    pub user_properties: UserProperties<'a>,
    /// One for each topic filter, in the filters' order: granted QoS 0 ([`ReasonCode::Success`]), 1 or 2, or what is
    /// wrong; 3.1.1 says *failure* (0x80) for each of these.
    pub reasons: SmallVec<[ReasonCode; 8]>,
}

impl<'a> Suback<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_identifier()?;
        let list = match version {
            Version::V311 => &[],
            Version::V5 => reader.properties()?,
        };
        let reason_string = read_reason_string(list)?;
        if reader.is_empty() {
            return Err(Error::ReasonCodesEmpty(PacketType::Suback));
        }
        let reasons = reader
            .rest()
            .iter()
            .map(|&value| match (version, value) {
                (Version::V5, _) | (Version::V311, 0..=2 | 0x80) => {
                    ReasonCode::decode(value, PacketType::Suback, Sender::Server)
                }
                _ => Err(Error::ReasonCode { packet_type: PacketType::Suback, value }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { packet_id, reason_string, user_properties: UserProperties::of_checked(list), reasons })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        writer::packet(out, PacketType::Suback, |out| {
            writer::packet_identifier(out, self.packet_id);
            if version == Version::V5 {
                encode_diagnostics(out, self.reason_string, self.user_properties)?;
            }
            out.extend(self.reasons.iter().map(|reason| match version {
                Version::V311 if reason.is_error() => ReasonCode::UnspecifiedError.as_u8(),
                _ => reason.as_u8(),
            }));
            Ok(())
        })
    }
}
