//! Any packet (§2.1.2).

use super::{
    ack::{Ack, AckKind},
    auth::Auth,
    connack::Connack,
    connect::Connect,
    disconnect::Disconnect,
    error::Error,
    header::{Frame, PacketType},
    publish::Publish,
    sender::Sender,
    suback::Suback,
    subscribe::Subscribe,
    unsuback::Unsuback,
    unsubscribe::Unsubscribe,
    user_property::UserProperties,
    version::Version,
};

/// A packet with all its fields; what has bytes borrows them from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
pub enum Packet<'a> {
    /// §3.1
    Connect(Connect<'a>),
    /// §3.2
    Connack(Connack<'a>),
    /// §3.3
    Publish(Publish<'a>),
    /// §3.4
    Puback(Ack<'a>),
    /// §3.5
    Pubrec(Ack<'a>),
    /// §3.6
    Pubrel(Ack<'a>),
    /// §3.7
    Pubcomp(Ack<'a>),
    /// §3.8
    Subscribe(Subscribe<'a>),
    /// §3.9
    Suback(Suback<'a>),
    /// §3.10
    Unsubscribe(Unsubscribe<'a>),
    /// §3.11
    Unsuback(Unsuback<'a>),
    /// §3.12
    Pingreq,
    /// §3.13
    Pingresp,
    /// §3.14
    Disconnect(Disconnect<'a>),
    /// §3.15
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes a framed packet that `sender` has sent on a connection of this version. A CONNECT brings its own version,
    /// `version` does not matter then.
    ///
    /// # Errors
    /// Every violation of the standard that one packet by itself can hold.
    pub fn decode(frame: &Frame<'a>, version: Version, sender: Sender) -> Result<Self, Error> {
        frame.packet_type.check_sender(version, sender)?;
        let body = frame.body();
        Ok(match frame.packet_type {
            PacketType::Connect => Self::Connect(Connect::decode(body)?),
            PacketType::Connack => Self::Connack(Connack::decode(body, version)?),
            PacketType::Publish => Self::Publish(Publish::decode(frame, version, sender)?),
            PacketType::Puback => Self::Puback(Ack::decode(AckKind::Puback, body, version)?),
            PacketType::Pubrec => Self::Pubrec(Ack::decode(AckKind::Pubrec, body, version)?),
            PacketType::Pubrel => Self::Pubrel(Ack::decode(AckKind::Pubrel, body, version)?),
            PacketType::Pubcomp => Self::Pubcomp(Ack::decode(AckKind::Pubcomp, body, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(body, version)?),
            PacketType::Suback => Self::Suback(Suback::decode(body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::Unsuback => Self::Unsuback(Unsuback::decode(body, version)?),
            PacketType::Pingreq if body.is_empty() => Self::Pingreq,
            PacketType::Pingresp if body.is_empty() => Self::Pingresp,
            PacketType::Pingreq | PacketType::Pingresp => return Err(Error::TrailingBytes),
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(body, version, sender)?),
            PacketType::Auth => Self::Auth(Auth::decode(body, sender)?),
        })
    }

    /// Appends the packet as it is sent on a connection of this version. What 3.1.1 does not know, such as properties, is
    /// left out there; a CONNECT is encoded in its own version.
    ///
    /// # Errors
    /// What cannot be said: [`Error::FieldTooLong`], [`Error::PacketTooLarge`], [`Error::VariableByteInteger`], a PUBLISH
    /// that needs a packet identifier, a maximum QoS of 2, an AUTH in 3.1.1, a 3.1.1 CONNACK for whose reason there is no
    /// return code. Nothing was appended.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Error> {
        let end = out.len();
        self.append(version, out).inspect_err(|_| out.truncate(end))
    }

    fn append(&self, version: Version, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::Connack(connack) => connack.encode(out, version),
            Self::Publish(publish) => publish.encode(out, version),
            Self::Puback(ack) => ack.encode(AckKind::Puback, out, version),
            Self::Pubrec(ack) => ack.encode(AckKind::Pubrec, out, version),
            Self::Pubrel(ack) => ack.encode(AckKind::Pubrel, out, version),
            Self::Pubcomp(ack) => ack.encode(AckKind::Pubcomp, out, version),
            Self::Subscribe(subscribe) => subscribe.encode(out, version),
            Self::Suback(suback) => suback.encode(out, version),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(out, version),
            Self::Unsuback(unsuback) => unsuback.encode(out, version),
            Self::Pingreq => {
                out.extend_from_slice(&[PacketType::Pingreq.first_byte(), 0]);
                Ok(())
            }
            Self::Pingresp => {
                out.extend_from_slice(&[PacketType::Pingresp.first_byte(), 0]);
                Ok(())
            }
            Self::Disconnect(disconnect) => disconnect.encode(out, version),
            Self::Auth(_) if version == Version::V311 => {
                Err(Error::ReservedPacketType(PacketType::Auth as u8))
            }
            Self::Auth(auth) => auth.encode(out),
        }
    }

    /// As [`encode`](Self::encode), for a receiver that takes packets of at most `maximum` bytes: reason string and user
    /// properties are left out when they would make it larger [MQTT-3.2.2-19], [MQTT-3.4.2-2] and the like.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode); [`Error::PacketTooLarge`] when it is too large all the same, in which case it
    /// must not be sent [MQTT-3.1.2-24]. Nothing was appended.
    pub fn encode_within(&self, maximum: u32, version: Version, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        self.encode(version, out)?;
        if out.len() - start > maximum as usize {
            out.truncate(start);
            self.without_diagnostics().encode(version, out)?;
        }
        let size = out.len() - start;
        if size > maximum as usize {
            out.truncate(start);
            return Err(Error::PacketTooLarge { size: size as u64, maximum });
        }
        Ok(())
    }

    /// The packet without reason string, and without those user properties that are diagnostics.
    fn without_diagnostics(&self) -> Self {
        let mut bare = self.clone();
        let (reason_string, user_properties) = match &mut bare {
            Self::Connack(Connack { properties, .. }) => {
                (&mut properties.reason_string, &mut properties.user_properties)
            }
            Self::Puback(ack) | Self::Pubrec(ack) | Self::Pubrel(ack) | Self::Pubcomp(ack) => {
                (&mut ack.reason_string, &mut ack.user_properties)
            }
            Self::Suback(suback) => (&mut suback.reason_string, &mut suback.user_properties),
            Self::Unsuback(unsuback) => (&mut unsuback.reason_string, &mut unsuback.user_properties),
            Self::Disconnect(disconnect) => (&mut disconnect.reason_string, &mut disconnect.user_properties),
            Self::Auth(auth) => (&mut auth.reason_string, &mut auth.user_properties),
            _ => return bare,
        };
        *reason_string = None;
        *user_properties = UserProperties::NONE;
        bare
    }
}
