//! CONNACK: the server's answer to a CONNECT (§3.2).

use std::num::{NonZeroU16, NonZeroU32};

use super::{
    connect::protocol_version,
    error::Error,
    header::PacketType,
    identifier::Carrier,
    property::{self, Property, PropertyReader},
    qos::Qos,
    reader::Reader,
    reason::ReasonCode,
    secret::Secret,
    sender::Sender,
    user_property::UserProperties,
    version::Version,
    writer,
};

/// Whether a client is connected, and to what terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Whether an older session goes on.
    pub session_present: bool,
    /// In 3.1.1 one of those that a return code stands for, see [`ReasonCode::return_code`].
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: ConnackProperties<'a>,
}

/// The properties of a CONNACK (§3.2.2.3). What is absent has the standard's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnackProperties<'a> {
    /// Seconds that the session outlives the connection. Absent: what the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// How many messages of QoS 1 and 2 the server takes at once. Absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS that the server takes, 0 or 1. Absent: 2.
    pub maximum_qos: Option<Qos>,
    /// Whether the server retains messages. Absent: yes.
    pub retain_available: Option<bool>,
    /// The largest packet that the server takes, in bytes. Absent: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The name that the server has given the client.
    pub assigned_client_identifier: Option<&'a str>,
    /// The highest topic alias that the server takes. Absent: 0, none.
    pub topic_alias_maximum: Option<u16>,
    /// An explanation for people.
    pub reason_string: Option<&'a str>,
    /// Whether filters may hold wildcards. Absent: yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscriptions may have identifiers. Absent: yes.
    pub subscription_identifier_available: Option<bool>,
    /// Whether subscriptions may be shared. Absent: yes.
    pub shared_subscription_available: Option<bool>,
    /// Seconds: the client must use this keep alive and not its own.
    pub server_keep_alive: Option<u16>,
    /// What to make response topics from.
    pub response_information: Option<&'a str>,
    /// Which other server to use.
    pub server_reference: Option<&'a str>,
    /// The method of the extended authentication.
    pub authentication_method: Option<&'a str>,
    /// Its last step's data.
    pub authentication_data: Option<Secret<'a>>,
    /// For the client's use.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Connack<'a> {
    /// The answer to a CONNECT that could not be decoded, and the version to encode it for; `None` when the standard has
    /// the connection closed without one. `body` is that CONNECT's [`Frame::body`](super::Frame::body).
    ///
    /// 3.1.1 answers only a wrong protocol level [MQTT-3.1.2-2] and a wrong client identifier [MQTT-3.1.3-8]. A level
    /// above 5 is taken for a later version, which can be expected to understand 5.0. Bit 7 of the level is left aside:
    /// brokers set it when they connect as bridges.
    pub fn refusal(body: &[u8], error: &Error) -> Option<(Version, Self)> {
        let version = match (error, protocol_version(body)) {
            (Error::ProtocolLevel { level }, _) if level & 0x7F < 5 => Version::V311,
            (_, Ok(version)) => version,
            (_, Err(Error::ProtocolLevel { .. })) => Version::V5,
            _ => return None,
        };
        let reason = error.reason();
        if version == Version::V311 && reason.return_code().is_none() {
            return None;
        }
        Some((version, Self { session_present: false, reason, properties: ConnackProperties::default() }))
    }

    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(Error::ConnackFlags);
        }
        let session_present = flags == 1;
        let code = reader.u8()?;
        let (reason, properties) = match version {
            Version::V311 => {
                let wrong = Error::ReasonCode { packet_type: PacketType::Connack, value: code };
                (ReasonCode::from_return_code(code).ok_or(wrong)?, ConnackProperties::default())
            }
            Version::V5 => (
                ReasonCode::decode(code, PacketType::Connack, Sender::Server)?,
                ConnackProperties::decode(reader.properties()?)?,
            ),
        };
        if session_present && reason != ReasonCode::Success {
            return Err(Error::SessionPresent);
        }
        reader.finish()?;
        Ok(Self { session_present, reason, properties })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        let value = self.reason.as_u8();
        let code = match version {
            Version::V311 => self
                .reason
                .return_code()
                .ok_or(Error::ReasonCode { packet_type: PacketType::Connack, value })?,
            Version::V5 => value,
        };
        writer::packet(out, PacketType::Connack, |out| {
            out.extend_from_slice(&[u8::from(self.session_present), code]);
            match version {
                Version::V311 => Ok(()),
                Version::V5 => self.properties.encode(out),
            }
        })
    }
}

impl<'a> ConnackProperties<'a> {
    fn decode(list: &'a [u8]) -> Result<Self, Error> {
        let mut all = Self { user_properties: UserProperties::of_checked(list), ..Self::default() };
        let mut reader = PropertyReader::new(list, Carrier::Connack);
        while let Some(property) = reader.next()? {
            match property {
                Property::SessionExpiryInterval(seconds) => all.session_expiry_interval = Some(seconds),
                Property::ReceiveMaximum(count) => all.receive_maximum = Some(count),
                Property::MaximumQos(qos) => all.maximum_qos = Some(qos),
                Property::RetainAvailable(available) => all.retain_available = Some(available),
                Property::MaximumPacketSize(bytes) => all.maximum_packet_size = Some(bytes),
                Property::AssignedClientIdentifier(name) => all.assigned_client_identifier = Some(name),
                Property::TopicAliasMaximum(highest) => all.topic_alias_maximum = Some(highest),
                Property::ReasonString(text) => all.reason_string = Some(text),
                Property::WildcardSubscriptionAvailable(available) => {
                    all.wildcard_subscription_available = Some(available);
                }
                Property::SubscriptionIdentifierAvailable(available) => {
                    all.subscription_identifier_available = Some(available);
                }
                Property::SharedSubscriptionAvailable(available) => {
                    all.shared_subscription_available = Some(available);
                }
                Property::ServerKeepAlive(seconds) => all.server_keep_alive = Some(seconds),
                Property::ResponseInformation(text) => all.response_information = Some(text),
                Property::ServerReference(text) => all.server_reference = Some(text),
                Property::AuthenticationMethod(method) => all.authentication_method = Some(method),
                Property::AuthenticationData(data) => all.authentication_data = Some(data),
                _ => {}
            }
        }
        if all.authentication_data.is_some() && all.authentication_method.is_none() {
            return Err(Error::AuthenticationMethodMissing);
        }
        Ok(all)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        property::encode_list(
            out,
            [
                self.session_expiry_interval.map(Property::SessionExpiryInterval),
                self.receive_maximum.map(Property::ReceiveMaximum),
                self.maximum_qos.map(Property::MaximumQos),
                self.retain_available.map(Property::RetainAvailable),
                self.maximum_packet_size.map(Property::MaximumPacketSize),
                self.assigned_client_identifier.map(Property::AssignedClientIdentifier),
                self.topic_alias_maximum.map(Property::TopicAliasMaximum),
                self.reason_string.map(Property::ReasonString),
                self.wildcard_subscription_available.map(Property::WildcardSubscriptionAvailable),
                self.subscription_identifier_available.map(Property::SubscriptionIdentifierAvailable),
                self.shared_subscription_available.map(Property::SharedSubscriptionAvailable),
                self.server_keep_alive.map(Property::ServerKeepAlive),
                self.response_information.map(Property::ResponseInformation),
                self.server_reference.map(Property::ServerReference),
                self.authentication_method.map(Property::AuthenticationMethod),
                self.authentication_data.map(Property::AuthenticationData),
            ],
            self.user_properties,
        )
    }
}
