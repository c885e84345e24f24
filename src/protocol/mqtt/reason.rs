//! Reason codes (§2.4), which stand for the return codes of 3.1.1 too.

use super::{error::Error, header::PacketType, sender::Sender};

macro_rules! reason_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal,)*) => {
        /// The outcome of an operation (§2.4). The standard has several names for 0x00; here it is
        /// [`Success`](Self::Success), be it in a CONNACK, a SUBACK (granted QoS 0) or a DISCONNECT (normal).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[doc = $doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// The code with this number, if the standard defines one.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        #[cfg(test)]
        pub(super) const ALL: &[ReasonCode] = &[$(ReasonCode::$name,)*];
    };
}

reason_codes! {
    /// Done; granted QoS 0; normal disconnection.
    Success = 0x00,
    /// Subscribed with at most QoS 1.
    GrantedQos1 = 0x01,
    /// Subscribed with at most QoS 2.
    GrantedQos2 = 0x02,
    /// The client leaves but wants its will published.
    DisconnectWithWillMessage = 0x04,
    /// Accepted, but nobody subscribes.
    NoMatchingSubscribers = 0x10,
    /// There was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// The authentication goes on with another step.
    ContinueAuthentication = 0x18,
    /// The client starts a re-authentication.
    ReAuthenticate = 0x19,
    /// The sender does not say what is wrong, or no other code fits.
    UnspecifiedError = 0x80,
    /// The packet could not be parsed.
    MalformedPacket = 0x81,
    /// The packet is well-formed but not allowed here.
    ProtocolError = 0x82,
    /// Good by the standard, but not for this receiver.
    ImplementationSpecificError = 0x83,
    /// The protocol version is not spoken.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not allowed.
    ClientIdentifierNotValid = 0x85,
    /// The credentials were not accepted.
    BadUserNameOrPassword = 0x86,
    /// Not permitted.
    NotAuthorized = 0x87,
    /// The server is not available.
    ServerUnavailable = 0x88,
    /// The server is busy: try again later.
    ServerBusy = 0x89,
    /// Forbidden by administrative action.
    Banned = 0x8A,
    /// The server is shutting down.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported or not the current one.
    BadAuthenticationMethod = 0x8C,
    /// Nothing was received for one and a half keep-alive times.
    KeepAliveTimeout = 0x8D,
    /// Another connection has taken the client identifier over.
    SessionTakenOver = 0x8E,
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use already.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More messages in flight than the receive maximum.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is zero or above the maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the receiver takes.
    PacketTooLarge = 0x95,
    /// Messages are sent too fast.
    MessageRateTooHigh = 0x96,
    /// A limit of the receiver is exceeded.
    QuotaExceeded = 0x97,
    /// Closed by administrative action.
    AdministrativeAction = 0x98,
    /// The payload does not match its payload format indicator.
    PayloadFormatInvalid = 0x99,
    /// The server does not retain messages.
    RetainNotSupported = 0x9A,
    /// The QoS is above the server's maximum.
    QosNotSupported = 0x9B,
    /// Use another server for now.
    UseAnotherServer = 0x9C,
    /// Use another server from now on.
    ServerMoved = 0x9D,
    /// The server has no shared subscriptions.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connections are opened too fast.
    ConnectionRateExceeded = 0x9F,
    /// The connection has lasted as long as it may.
    MaximumConnectTime = 0xA0,
    /// The server has no subscription identifiers.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// The server has no wildcard subscriptions.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// Its number on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed: 0x80 and above.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// Whether `sender` may send it in a packet of this type: the tables of §3.2.2.2, §3.4.2.1, §3.5.2.1, §3.6.2.1,
    /// §3.7.2.1, §3.9.3, §3.11.3, §3.14.2.1 and §3.15.2.1, with 0x8C and a server's 0x00 in DISCONNECT as in §2.4.
    pub const fn is_allowed_in(self, packet_type: PacketType, sender: Sender) -> bool {
        let code = self.as_u8();
        match (packet_type, sender) {
            (PacketType::Connack, Sender::Server) => {
                matches!(code, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
            }
            (PacketType::Puback | PacketType::Pubrec, _) => {
                matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            (PacketType::Pubrel | PacketType::Pubcomp, _) => matches!(code, 0x00 | 0x92),
            (PacketType::Suback, Sender::Server) => {
                matches!(code, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            (PacketType::Unsuback, Sender::Server) => {
                matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            (PacketType::Disconnect, Sender::Client) => {
                matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x8C | 0x90 | 0x93..=0x99)
            }
            (PacketType::Disconnect, Sender::Server) => {
                matches!(code, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2)
            }
            (PacketType::Auth, Sender::Client) => matches!(code, 0x18 | 0x19),
            (PacketType::Auth, Sender::Server) => matches!(code, 0x00 | 0x18),
            _ => false,
        }
    }

    /// The reason code `value` in a packet of this type.
    ///
    /// # Errors
    /// [`Error::ReasonCode`] when the standard defines none or does not allow it there.
    pub(super) fn decode(value: u8, packet_type: PacketType, sender: Sender) -> Result<Self, Error> {
        Self::from_u8(value)
            .filter(|code| code.is_allowed_in(packet_type, sender))
            .ok_or(Error::ReasonCode { packet_type, value })
    }

    /// The return code of a 3.1.1 CONNACK (3.1.1 §3.2.2.3) that says the same; `None` when no code is applicable, and
    /// the server must close the connection without a CONNACK [MQTT-3.2.2-6].
    pub const fn return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => Some(5),
            _ => None,
        }
    }

    /// What a return code of a 3.1.1 CONNACK says (3.1.1 §3.2.2.3).
    pub const fn from_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_for_its_code_and_back() {
        for value in 0..=u8::MAX {
            if let Some(code) = ReasonCode::from_u8(value) {
                assert_eq!(code.as_u8(), value);
            }
        }
        assert_eq!(ALL.len(), 43, "§2.4 lists 43 numbers");
    }

    #[test]
    fn every_return_code_of_3_1_1_survives_the_way_there_and_back() {
        for code in 0..=5 {
            assert_eq!(ReasonCode::from_return_code(code).and_then(ReasonCode::return_code), Some(code));
        }
        assert_eq!(ReasonCode::from_return_code(6), None);
    }

    #[test]
    fn packets_without_a_reason_code_allow_none() {
        for code in ALL {
            for sender in [Sender::Client, Sender::Server] {
                assert!(!code.is_allowed_in(PacketType::Publish, sender));
                assert!(!code.is_allowed_in(PacketType::Subscribe, sender));
            }
            assert!(!code.is_allowed_in(PacketType::Connack, Sender::Client));
        }
    }
}
