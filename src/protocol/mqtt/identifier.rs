//! Property identifiers and which packets they may be in (§2.2.2.2, table 2-4).

macro_rules! property_identifiers {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal,)*) => {
        /// Says what a property means and how it is encoded (§2.2.2.2, table 2-4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum PropertyIdentifier {
            $($(#[doc = $doc])* $name = $value,)*
        }

        impl PropertyIdentifier {
            /// The identifier with this number, if the standard defines one.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

property_identifiers! {
    /// Byte: whether the payload is UTF-8.
    PayloadFormatIndicator = 0x01,
    /// Four bytes: seconds.
    MessageExpiryInterval = 0x02,
    /// String.
    ContentType = 0x03,
    /// String.
    ResponseTopic = 0x08,
    /// Binary data.
    CorrelationData = 0x09,
    /// Variable byte integer.
    SubscriptionIdentifier = 0x0B,
    /// Four bytes: seconds.
    SessionExpiryInterval = 0x11,
    /// String.
    AssignedClientIdentifier = 0x12,
    /// Two bytes: seconds.
    ServerKeepAlive = 0x13,
    /// String.
    AuthenticationMethod = 0x15,
    /// Binary data.
    AuthenticationData = 0x16,
    /// Byte: 0 or 1.
    RequestProblemInformation = 0x17,
    /// Four bytes: seconds.
    WillDelayInterval = 0x18,
    /// Byte: 0 or 1.
    RequestResponseInformation = 0x19,
    /// String.
    ResponseInformation = 0x1A,
    /// String.
    ServerReference = 0x1C,
    /// String.
    ReasonString = 0x1F,
    /// Two bytes.
    ReceiveMaximum = 0x21,
    /// Two bytes.
    TopicAliasMaximum = 0x22,
    /// Two bytes.
    TopicAlias = 0x23,
    /// Byte: 0 or 1.
    MaximumQos = 0x24,
    /// Byte: 0 or 1.
    RetainAvailable = 0x25,
    /// String pair.
    UserProperty = 0x26,
    /// Four bytes.
    MaximumPacketSize = 0x27,
    /// Byte: 0 or 1.
    WildcardSubscriptionAvailable = 0x28,
    /// Byte: 0 or 1.
    SubscriptionIdentifierAvailable = 0x29,
    /// Byte: 0 or 1.
    SharedSubscriptionAvailable = 0x2A,
}

/// The places that hold a list of properties: the packets of table 2-4, and a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Will,
    Connect,
    Connack,
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK.
    Acknowledgement,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

impl PropertyIdentifier {
    /// A set of one, for masks; all numbers are below 64.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether a list may hold it more than once.
    pub(super) const fn is_repeatable_in(self, carrier: Carrier) -> bool {
        matches!((self, carrier), (Self::UserProperty, _) | (Self::SubscriptionIdentifier, Carrier::Publish))
    }

    /// Whether the list of `carrier` may hold it.
    pub(super) const fn is_allowed_in(self, carrier: Carrier) -> bool {
        match self {
            Self::PayloadFormatIndicator
            | Self::MessageExpiryInterval
            | Self::ContentType
            | Self::ResponseTopic
            | Self::CorrelationData => matches!(carrier, Carrier::Publish | Carrier::Will),
            Self::SubscriptionIdentifier => matches!(carrier, Carrier::Publish | Carrier::Subscribe),
            Self::SessionExpiryInterval => {
                matches!(carrier, Carrier::Connect | Carrier::Connack | Carrier::Disconnect)
            }
            Self::AuthenticationMethod | Self::AuthenticationData => {
                matches!(carrier, Carrier::Connect | Carrier::Connack | Carrier::Auth)
            }
            Self::ReceiveMaximum | Self::TopicAliasMaximum | Self::MaximumPacketSize => {
                matches!(carrier, Carrier::Connect | Carrier::Connack)
            }
            Self::RequestProblemInformation | Self::RequestResponseInformation => {
                matches!(carrier, Carrier::Connect)
            }
            Self::AssignedClientIdentifier
            | Self::ServerKeepAlive
            | Self::ResponseInformation
            | Self::MaximumQos
            | Self::RetainAvailable
            | Self::WildcardSubscriptionAvailable
            | Self::SubscriptionIdentifierAvailable
            | Self::SharedSubscriptionAvailable => matches!(carrier, Carrier::Connack),
            Self::ServerReference => matches!(carrier, Carrier::Connack | Carrier::Disconnect),
            Self::WillDelayInterval => matches!(carrier, Carrier::Will),
            Self::TopicAlias => matches!(carrier, Carrier::Publish),
            Self::ReasonString => matches!(
                carrier,
                Carrier::Connack | Carrier::Acknowledgement | Carrier::Disconnect | Carrier::Auth
            ),
            Self::UserProperty => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_the_27_properties_of_table_2_4() {
        let known = (0..=u8::MAX).filter_map(PropertyIdentifier::from_u8);
        assert_eq!(known.clone().count(), 27);
        assert_eq!(known.fold(0, |set, identifier| set | identifier.bit()).count_ones(), 27);
    }

    #[test]
    fn each_packet_may_hold_as_many_properties_as_table_2_4_gives_it() {
        let count = |carrier| {
            (0..=u8::MAX)
                .filter_map(PropertyIdentifier::from_u8)
                .filter(|identifier| identifier.is_allowed_in(carrier))
                .count()
        };
        for (carrier, expected) in [
            (Carrier::Will, 7),
            (Carrier::Connect, 9),
            (Carrier::Connack, 17),
            (Carrier::Publish, 8),
            (Carrier::Acknowledgement, 2),
            (Carrier::Subscribe, 2),
            (Carrier::Unsubscribe, 1),
            (Carrier::Disconnect, 4),
            (Carrier::Auth, 4),
        ] {
            assert_eq!(count(carrier), expected, "{carrier:?}");
        }
    }
}
