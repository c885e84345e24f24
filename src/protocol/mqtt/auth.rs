//! AUTH: a step of an extended authentication, from 5.0 on (§3.15, §4.12).

use super::{
    error::Error,
    header::PacketType,
    identifier::Carrier,
    property::{self, Property, PropertyReader},
    reader::Reader,
    reason::ReasonCode,
    secret::Secret,
    sender::Sender,
    user_property::UserProperties,
    writer,
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Done (server), going on (both) or starting again (client).
    pub reason: ReasonCode,
    /// The method, that of the CONNECT. Absent only in the shortest form of [`ReasonCode::Success`] (§3.15.2.1).
    pub authentication_method: Option<&'a str>,
    /// This step's data.
    pub authentication_data: Option<Secret<'a>>,
    /// An explanation for people.
    pub reason_string: Option<&'a str>,
    /// Further diagnostics.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// A step with a method and nothing else.
    pub const fn new(reason: ReasonCode, authentication_method: Option<&'a str>) -> Self {
        Self {
            reason,
            authentication_method,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(super) fn decode(body: &'a [u8], sender: Sender) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let value = if body.is_empty() { ReasonCode::Success.as_u8() } else { reader.u8()? };
        let mut auth = Self::new(ReasonCode::decode(value, PacketType::Auth, sender)?, None);
        if !body.is_empty() {
            auth.decode_properties(reader.properties()?)?;
        }
        reader.finish()?;
        Ok(auth)
    }

    fn decode_properties(&mut self, list: &'a [u8]) -> Result<(), Error> {
        self.user_properties = UserProperties::of_checked(list);
        let mut reader = PropertyReader::new(list, Carrier::Auth);
        while let Some(property) = reader.next()? {
            match property {
                Property::AuthenticationMethod(method) => self.authentication_method = Some(method),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                Property::ReasonString(text) => self.reason_string = Some(text),
                _ => {}
            }
        }
        match self.authentication_method {
            Some(_) => Ok(()),
            None => Err(Error::AuthenticationMethodMissing),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        writer::packet(out, PacketType::Auth, |out| {
            if *self == Self::new(ReasonCode::Success, None) {
                return Ok(());
            }
            out.push(self.reason.as_u8());
            property::encode_list(
                out,
                [
                    self.authentication_method.map(Property::AuthenticationMethod),
                    self.authentication_data.map(Property::AuthenticationData),
                    self.reason_string.map(Property::ReasonString),
                ],
                self.user_properties,
            )
        })
    }
}
