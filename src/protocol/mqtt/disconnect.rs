//! DISCONNECT: the sender is about to close the connection (§3.14).

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

/// Why the connection ends. In 3.1.1 only clients send it, and it says nothing but [`ReasonCode::Success`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// Clients only: seconds that the session outlives the connection, instead of what CONNECT said.
    pub session_expiry_interval: Option<u32>,
    /// An explanation for people.
    pub reason_string: Option<&'a str>,
    /// Which other server to use.
    pub server_reference: Option<&'a str>,
    /// Further diagnostics.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT that says no more than why.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_interval: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: Version, sender: Sender) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let mut disconnect = Self::new(ReasonCode::Success);
        if version == Version::V5 && !reader.is_empty() {
            disconnect.reason = ReasonCode::decode(reader.u8()?, PacketType::Disconnect, sender)?;
            if !reader.is_empty() {
                disconnect.decode_properties(reader.properties()?, sender)?;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    fn decode_properties(&mut self, list: &'a [u8], sender: Sender) -> Result<(), Error> {
        self.user_properties = UserProperties::of_checked(list);
        let mut reader = PropertyReader::new(list, Carrier::Disconnect);
        while let Some(property) = reader.next()? {
            match property {
                Property::SessionExpiryInterval(_) if sender == Sender::Server => {
                    return Err(Error::SessionExpiryFromServer);
                }
                Property::SessionExpiryInterval(seconds) => self.session_expiry_interval = Some(seconds),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        let bare = *self == Self::new(self.reason);
        writer::packet(out, PacketType::Disconnect, |out| {
            if version == Version::V311 || (bare && self.reason == ReasonCode::Success) {
                return Ok(());
            }
            out.push(self.reason.as_u8());
            if bare {
                return Ok(());
            }
            property::encode_list(
                out,
                [
                    self.session_expiry_interval.map(Property::SessionExpiryInterval),
                    self.reason_string.map(Property::ReasonString),
                    self.server_reference.map(Property::ServerReference),
                ],
                self.user_properties,
            )
        })
    }
}
