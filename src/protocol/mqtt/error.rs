//! What can be wrong with a packet, and the answer that the standard has for it.

use super::{header::PacketType, identifier::PropertyIdentifier, reason::ReasonCode, sender::Sender};

/// A violation of the standard, by whoever sent the packet (or, when encoding, by whoever asked for it).
///
/// Statement ids are those of MQTT 5.0; where 3.1.1 numbers the same rule otherwise, its id stands behind. None can be
/// mended by trying again: the connection is over [MQTT-4.8.0-1] [MQTT-4.13.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Packet type 0, or AUTH in 3.1.1 (§2.1.2).
    #[error("the packet type {0} is reserved (§2.1.2)")]
    ReservedPacketType(u8),
    /// The other end may not send packets of this type (§2.1.2, table 2-1).
    #[error("{packet_type:?} may not be sent by a {sender:?} (§2.1.2)")]
    UnexpectedPacket {
        /// What was sent.
        packet_type: PacketType,
        /// Who sent it.
        sender: Sender,
    },
    /// Reserved flags of the fixed header: [MQTT-2.1.3-1], and for single packets [MQTT-3.6.1-1], [MQTT-3.8.1-1],
    /// [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]; 3.1.1: [MQTT-2.2.2-1], [MQTT-2.2.2-2].
    #[error("the flags {flags:#06b} are not those of {packet_type:?} [MQTT-2.1.3-1]")]
    FixedHeaderFlags {
        /// The packet.
        packet_type: PacketType,
        /// The lower four bits of its first byte.
        flags: u8,
    },
    /// A variable byte integer of more than four bytes, or of more bytes than it needs [MQTT-1.5.5-1].
    #[error("a variable byte integer is longer than it may be [MQTT-1.5.5-1]")]
    VariableByteInteger,
    /// The packet is larger than its receiver takes: [MQTT-3.2.2-15], [MQTT-3.1.2-24], or than the standard can say.
    #[error("the packet takes {size} bytes, more than the {maximum} allowed [MQTT-3.2.2-15] [MQTT-3.1.2-24]")]
    PacketTooLarge {
        /// All bytes of the packet, its fixed header included.
        size: u64,
        /// How many it may have.
        maximum: u32,
    },
    /// A field reaches past the end of the packet (§1.2, Malformed Packet).
    #[error("a field reaches past the end of the packet (§1.2 malformed packet)")]
    Truncated,
    /// Bytes are left after the last field (§1.2, Malformed Packet).
    #[error("bytes are left after the last field of the packet (§1.2 malformed packet)")]
    TrailingBytes,
    /// A string or binary data to be encoded has more than 65,535 bytes (§1.5.4, §1.5.6; topics: [MQTT-4.7.3-3]).
    #[error("a field of {0} bytes does not fit: 65535 are allowed (§1.5.4) [MQTT-4.7.3-3]")]
    FieldTooLong(usize),
    /// A string is not well-formed UTF-8: [MQTT-1.5.4-1]; 3.1.1: [MQTT-1.5.3-1].
    #[error("a string is not well-formed UTF-8 [MQTT-1.5.4-1]")]
    Utf8,
    /// A string holds U+0000: [MQTT-1.5.4-2]; 3.1.1: [MQTT-1.5.3-2].
    #[error("a string holds the null character U+0000 [MQTT-1.5.4-2]")]
    NullCharacter,
    /// The packet identifier is zero or missing: [MQTT-2.2.1-3], [MQTT-2.2.1-4]; 3.1.1: [MQTT-2.3.1-1].
    #[error("the packet identifier is zero [MQTT-2.2.1-3] [MQTT-2.2.1-4]")]
    PacketIdentifierZero,

    /// A property identifier that the standard does not define (§2.2.2.2).
    #[error("there is no property {0:#04x} (§2.2.2.2)")]
    UnknownProperty(u8),
    /// A property that may not be in this packet (§2.2.2.2).
    #[error("the property {0:?} may not be in this packet (§2.2.2.2)")]
    PropertyNotAllowed(PropertyIdentifier),
    /// A property that may be in the packet once is in it twice (§3.1.2.11 and the like).
    #[error("the property {0:?} is in the packet more than once (§2.2.2.2)")]
    DuplicateProperty(PropertyIdentifier),
    /// A property has a value that it may not have (§3.1.2.11 and the like).
    #[error("the property {0:?} has a value that it may not have (§2.2.2.2)")]
    PropertyValue(PropertyIdentifier),
    /// Authentication data without an authentication method (§3.1.2.11.10), or an AUTH without one (§3.15.2.2.2).
    #[error("the authentication method is missing (§3.1.2.11.10, §3.15.2.2.2)")]
    AuthenticationMethodMissing,

    /// The protocol name is not "MQTT" [MQTT-3.1.2-1].
    #[error("the protocol name is not MQTT [MQTT-3.1.2-1]")]
    ProtocolName,
    /// A protocol level other than 4 and 5, or the name MQIsdp of MQTT 3.1 [MQTT-3.1.2-2].
    #[error("the protocol level {level} is not spoken: 4 (MQTT 3.1.1) and 5 are [MQTT-3.1.2-2]")]
    ProtocolLevel {
        /// The level that the client asked for.
        level: u8,
    },
    /// The reserved bit of the connect flags is set [MQTT-3.1.2-3].
    #[error("the reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectFlagReserved,
    /// A will QoS or will retain without a will: [MQTT-3.1.2-11], [MQTT-3.1.2-13]; 3.1.1: also [MQTT-3.1.2-15].
    #[error("there is a will QoS or will retain without a will [MQTT-3.1.2-11] [MQTT-3.1.2-13]")]
    WillFlags,
    /// A will QoS of 3: [MQTT-3.1.2-12]; 3.1.1: [MQTT-3.1.2-14].
    #[error("the will QoS is 3 [MQTT-3.1.2-12]")]
    WillQos,
    /// 3.1.1: a password without a user name [MQTT-3.1.2-22].
    #[error("there is a password without a user name [MQTT-3.1.2-22]")]
    PasswordWithoutUserName,
    /// 3.1.1: an empty client identifier for a session that shall be kept: [MQTT-3.1.3-7], [MQTT-3.1.3-8].
    #[error("the client identifier is empty but the session shall be kept [MQTT-3.1.3-8]")]
    ClientIdentifierEmpty,
    /// A reserved connect acknowledge flag is set [MQTT-3.2.2-1].
    #[error("a reserved connect acknowledge flag is set [MQTT-3.2.2-1]")]
    ConnackFlags,
    /// A refused connection with a session present: [MQTT-3.2.2-6]; 3.1.1: [MQTT-3.2.2-4].
    #[error("the connection is refused, yet a session is present [MQTT-3.2.2-6]")]
    SessionPresent,
    /// A code that may not be in this packet, or not from this end: [MQTT-3.2.2-8], [MQTT-3.4.2-1], [MQTT-3.5.2-1],
    /// [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.9.3-2], [MQTT-3.11.3-2], [MQTT-3.14.2-1], [MQTT-3.15.2-1].
    #[error("{value:#04x} may not be the reason of this {packet_type:?} [{}]", reason_statement(*.packet_type))]
    ReasonCode {
        /// The packet.
        packet_type: PacketType,
        /// The code.
        value: u8,
    },

    /// A PUBLISH with both QoS bits set [MQTT-3.3.1-4].
    #[error("the QoS of a PUBLISH is 3 [MQTT-3.3.1-4]")]
    PublishQos,
    /// A PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2].
    #[error("DUP is set in a PUBLISH of QoS 0 [MQTT-3.3.1-2]")]
    DupWithoutQos,
    /// A topic name without a character [MQTT-4.7.3-1].
    #[error("the topic name is empty [MQTT-4.7.3-1]")]
    TopicNameEmpty,
    /// A PUBLISH without topic name and without topic alias (§3.3.2.1) [MQTT-4.7.3-1].
    #[error("the topic name is empty and no topic alias stands for it (§3.3.2.1) [MQTT-4.7.3-1]")]
    TopicNameMissing,
    /// A topic name with a wildcard: [MQTT-3.3.2-2], [MQTT-4.7.0-1]; 3.1.1: [MQTT-4.7.1-1].
    #[error("the topic name holds a wildcard [MQTT-3.3.2-2]")]
    TopicNameWildcard,
    /// A topic alias of zero [MQTT-3.3.2-8].
    #[error("the topic alias is zero [MQTT-3.3.2-8]")]
    TopicAliasZero,
    /// A response topic that is no topic name [MQTT-3.3.2-14].
    #[error("the response topic is empty or holds a wildcard [MQTT-3.3.2-14]")]
    ResponseTopic,
    /// A client's PUBLISH with a subscription identifier [MQTT-3.3.4-6].
    #[error("a client's PUBLISH holds a subscription identifier [MQTT-3.3.4-6]")]
    SubscriptionIdentifierFromClient,

    /// A SUBSCRIBE without topic filter: [MQTT-3.8.3-2]; 3.1.1: [MQTT-3.8.3-3].
    #[error("the SUBSCRIBE holds no topic filter [MQTT-3.8.3-2]")]
    SubscribeEmpty,
    /// Reserved bits of the subscription options: [MQTT-3.8.3-5]; 3.1.1: [MQTT-3-8.3-4].
    #[error("reserved bits of the subscription options are set [MQTT-3.8.3-5]")]
    SubscriptionOptions,
    /// A maximum QoS of 3 in the subscription options: §3.8.3.1; 3.1.1: [MQTT-3-8.3-4].
    #[error("the QoS of a subscription is 3 (§3.8.3.1)")]
    SubscriptionQos,
    /// A retain handling of 3 (§3.8.3.1).
    #[error("the retain handling of a subscription is 3 (§3.8.3.1)")]
    RetainHandling,
    /// No local on a shared subscription [MQTT-3.8.3-4].
    #[error("no local is set on a shared subscription [MQTT-3.8.3-4]")]
    NoLocalShared,
    /// A topic filter without a character [MQTT-4.7.3-1].
    #[error("the topic filter is empty [MQTT-4.7.3-1]")]
    TopicFilterEmpty,
    /// A wildcard that is no level of its own, or a # that is not the last: [MQTT-4.7.1-1], [MQTT-4.7.1-2]; 3.1.1:
    /// [MQTT-4.7.1-2], [MQTT-4.7.1-3].
    #[error("a wildcard of the topic filter stands where it may not [MQTT-4.7.1-1] [MQTT-4.7.1-2]")]
    TopicFilterWildcard,
    /// A SUBACK or UNSUBACK without a reason code: [MQTT-3.8.4-6], [MQTT-3.11.3-1]; 3.1.1: [MQTT-3.8.4-5].
    #[error("the {0:?} holds no reason code [MQTT-3.8.4-6] [MQTT-3.11.3-1]")]
    ReasonCodesEmpty(PacketType),
    /// An UNSUBSCRIBE without topic filter [MQTT-3.10.3-2].
    #[error("the UNSUBSCRIBE holds no topic filter [MQTT-3.10.3-2]")]
    UnsubscribeEmpty,
    /// A server's DISCONNECT with a session expiry interval [MQTT-3.14.2-2].
    #[error("a server's DISCONNECT holds a session expiry interval [MQTT-3.14.2-2]")]
    SessionExpiryFromServer,
}

/// The statement that says which reason codes a packet may have.
const fn reason_statement(packet_type: PacketType) -> &'static str {
    match packet_type {
        PacketType::Puback => "MQTT-3.4.2-1",
        PacketType::Pubrec => "MQTT-3.5.2-1",
        PacketType::Pubrel => "MQTT-3.6.2-1",
        PacketType::Pubcomp => "MQTT-3.7.2-1",
        PacketType::Suback => "MQTT-3.9.3-2",
        PacketType::Unsuback => "MQTT-3.11.3-2",
        PacketType::Disconnect => "MQTT-3.14.2-1",
        PacketType::Auth => "MQTT-3.15.2-1",
        _ => "MQTT-3.2.2-8",
    }
}

impl Error {
    /// What a CONNACK (before the session) or DISCONNECT (after it) of MQTT 5 says about it (§4.13). Whether a 3.1.1
    /// client is answered at all, [`ReasonCode::return_code`] says: only to a CONNECT, and not always.
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::ReservedPacketType(_)
            | Self::FixedHeaderFlags { .. }
            | Self::VariableByteInteger
            | Self::Truncated
            | Self::TrailingBytes
            | Self::FieldTooLong(_)
            | Self::Utf8
            | Self::NullCharacter
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed(_)
            | Self::ConnectFlagReserved
            | Self::WillFlags
            | Self::WillQos
            | Self::ConnackFlags
            | Self::PublishQos
            | Self::DupWithoutQos
            | Self::SubscriptionOptions => ReasonCode::MalformedPacket,
            Self::UnexpectedPacket { .. }
            | Self::PacketIdentifierZero
            | Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationMethodMissing
            | Self::PasswordWithoutUserName
            | Self::SessionPresent
            | Self::ReasonCode { .. }
            | Self::TopicNameMissing
            | Self::ResponseTopic
            | Self::SubscriptionIdentifierFromClient
            | Self::SubscribeEmpty
            | Self::SubscriptionQos
            | Self::RetainHandling
            | Self::NoLocalShared
            | Self::ReasonCodesEmpty(_)
            | Self::UnsubscribeEmpty
            | Self::SessionExpiryFromServer => ReasonCode::ProtocolError,
            Self::ProtocolName | Self::ProtocolLevel { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdentifierEmpty => ReasonCode::ClientIdentifierNotValid,
            Self::TopicFilterEmpty | Self::TopicFilterWildcard => ReasonCode::TopicFilterInvalid,
            Self::TopicNameEmpty | Self::TopicNameWildcard => ReasonCode::TopicNameInvalid,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_statement() {
        let error = Error::ReasonCode { packet_type: PacketType::Pubrel, value: 0x10 };
        assert_eq!(error.to_string(), "0x10 may not be the reason of this Pubrel [MQTT-3.6.2-1]");
    }

    #[test]
    fn an_error_is_no_larger_than_two_words() {
        assert!(size_of::<Error>() <= 16, "{} bytes travel through the hot path", size_of::<Error>());
    }
}
