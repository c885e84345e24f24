//! CONNECT: a client asks for a connection (§3.1).

use std::num::{NonZeroU16, NonZeroU32};

use super::{
    error::Error,
    header::PacketType,
    identifier::Carrier,
    property::{self, Property, PropertyReader},
    qos::Qos,
    reader::Reader,
    secret::Secret,
    user_property::UserProperties,
    version::Version,
    will::Will,
    writer,
};

const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// A client's wish for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The standard that the client follows.
    pub version: Version,
    /// Whether an older session is thrown away (5.0); in 3.1.1 (*clean session*) also whether this one ends with the
    /// connection.
    pub clean_start: bool,
    /// Seconds after one and a half times of which a silent client counts as gone; 0 for never.
    pub keep_alive: u16,
    /// 5.0 only.
    pub properties: ConnectProperties<'a>,
    /// Names the session; empty when the server shall make a name up.
    pub client_identifier: &'a str,
    /// What to publish when the client is gone.
    pub will: Option<Will<'a>>,
    /// Who the client says it is.
    pub user_name: Option<&'a str>,
    /// With what it proves that.
    pub password: Option<Secret<'a>>,
}

/// The properties of a CONNECT (§3.1.2.11). What is absent has the standard's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds that the session outlives the connection; 0xFFFF_FFFF for ever. Absent: 0.
    pub session_expiry_interval: Option<u32>,
    /// How many messages of QoS 1 and 2 the client takes at once. Absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet that the client takes, in bytes. Absent: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias that the client takes. Absent: 0, none.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants response information in the CONNACK. Absent: no.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reason strings and user properties in other packets than PUBLISH, CONNACK and
    /// DISCONNECT. Absent: yes.
    pub request_problem_information: Option<bool>,
    /// The method of an extended authentication.
    pub authentication_method: Option<&'a str>,
    /// Its first step's data.
    pub authentication_data: Option<Secret<'a>>,
    /// For the server's use.
    pub user_properties: UserProperties<'a>,
}

/// The version that a CONNECT asks for: the part of its body that can be read without knowing it.
///
/// # Errors
/// [`Error::ProtocolName`], [`Error::ProtocolLevel`], [`Error::Truncated`].
pub fn protocol_version(body: &[u8]) -> Result<Version, Error> {
    read_version(&mut Reader::new(body))
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, Error> {
    let name = reader.binary()?;
    match name {
        b"MQTT" => {
            let level = reader.u8()?;
            Version::from_level(level).ok_or(Error::ProtocolLevel { level })
        }
        b"MQIsdp" => Err(Error::ProtocolLevel { level: reader.u8()? }),
        _ => Err(Error::ProtocolName),
    }
}

impl<'a> Connect<'a> {
    /// Reads the variable header and payload.
    ///
    /// # Errors
    /// Every violation that a CONNECT can hold.
    pub fn decode(body: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        let flags = reader.u8()?;
        if flags & RESERVED != 0 {
            return Err(Error::ConnectFlagReserved);
        }
        let has_will = flags & WILL != 0;
        if !has_will && flags & (WILL_QOS | WILL_RETAIN) != 0 {
            return Err(Error::WillFlags);
        }
        let will_qos = Qos::from_bits((flags & WILL_QOS) >> 3).ok_or(Error::WillQos)?;
        let has_user_name = flags & USER_NAME != 0;
        let has_password = flags & PASSWORD != 0;
        if version == Version::V311 && has_password && !has_user_name {
            return Err(Error::PasswordWithoutUserName);
        }
        let clean_start = flags & CLEAN_START != 0;
        let keep_alive = reader.u16()?;
        let properties = match version {
            Version::V311 => ConnectProperties::default(),
            Version::V5 => ConnectProperties::decode(reader.properties()?)?,
        };
        let client_identifier = reader.string()?;
        if version == Version::V311 && client_identifier.is_empty() && !clean_start {
            return Err(Error::ClientIdentifierEmpty);
        }
        let will = if has_will {
            Some(Will::decode(&mut reader, version, will_qos, flags & WILL_RETAIN != 0)?)
        } else {
            None
        };
        let user_name = if has_user_name { Some(reader.string()?) } else { None };
        let password = if has_password { Some(Secret(reader.binary()?)) } else { None };
        reader.finish()?;
        Ok(Self {
            version,
            clean_start,
            keep_alive,
            properties,
            client_identifier,
            will,
            user_name,
            password,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.bits() << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        writer::packet(out, PacketType::Connect, |out| {
            writer::binary(out, b"MQTT")?;
            out.extend_from_slice(&[self.version.level(), flags]);
            out.extend_from_slice(&self.keep_alive.to_be_bytes());
            if self.version == Version::V5 {
                self.properties.encode(out)?;
            }
            writer::binary(out, self.client_identifier.as_bytes())?;
            if let Some(will) = &self.will {
                will.encode(out, self.version)?;
            }
            if let Some(user_name) = self.user_name {
                writer::binary(out, user_name.as_bytes())?;
            }
            if let Some(Secret(password)) = self.password {
                writer::binary(out, password)?;
            }
            Ok(())
        })
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(list: &'a [u8]) -> Result<Self, Error> {
        let mut all = Self { user_properties: UserProperties::of_checked(list), ..Self::default() };
        let mut reader = PropertyReader::new(list, Carrier::Connect);
        while let Some(property) = reader.next()? {
            match property {
                Property::SessionExpiryInterval(seconds) => all.session_expiry_interval = Some(seconds),
                Property::ReceiveMaximum(count) => all.receive_maximum = Some(count),
                Property::MaximumPacketSize(bytes) => all.maximum_packet_size = Some(bytes),
                Property::TopicAliasMaximum(highest) => all.topic_alias_maximum = Some(highest),
                Property::RequestResponseInformation(wanted) => {
                    all.request_response_information = Some(wanted);
                }
                Property::RequestProblemInformation(wanted) => all.request_problem_information = Some(wanted),
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
                self.maximum_packet_size.map(Property::MaximumPacketSize),
                self.topic_alias_maximum.map(Property::TopicAliasMaximum),
                self.request_response_information.map(Property::RequestResponseInformation),
                self.request_problem_information.map(Property::RequestProblemInformation),
                self.authentication_method.map(Property::AuthenticationMethod),
                self.authentication_data.map(Property::AuthenticationData),
            ],
            self.user_properties,
        )
    }
}
