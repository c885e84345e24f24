//! Properties and lists of them (§2.2.2).

use std::num::{NonZeroU16, NonZeroU32};

use super::{
    error::Error,
    identifier::{Carrier, PropertyIdentifier},
    qos::Qos,
    reader::Reader,
    secret::Secret,
    topic,
    user_property::UserProperties,
    varint, writer,
};

/// What a payload is said to be (§3.3.2.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PayloadFormat {
    /// Bytes of any kind; the same as saying nothing.
    #[default]
    Unspecified = 0,
    /// UTF-8 text.
    Utf8 = 1,
}

/// One property with its value (§2.2.2.2, table 2-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property<'a> {
    PayloadFormatIndicator(PayloadFormat),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(NonZeroU32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(Secret<'a>),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQos(Qos),
    RetainAvailable(bool),
    #[expect(clippy::enum_variant_names, reason = "the standard's name")]
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// The property at the front of an encoded list.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let identifier = read_identifier(reader)?;
        Self::read_value(identifier, reader)
    }

    fn read_value(identifier: PropertyIdentifier, reader: &mut Reader<'a>) -> Result<Self, Error> {
        use PropertyIdentifier as Id;
        let wrong = Error::PropertyValue(identifier);
        let flag = |reader: &mut Reader<'a>| match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong),
        };
        Ok(match identifier {
            Id::PayloadFormatIndicator => Self::PayloadFormatIndicator(match flag(reader)? {
                false => PayloadFormat::Unspecified,
                true => PayloadFormat::Utf8,
            }),
            Id::MessageExpiryInterval => Self::MessageExpiryInterval(reader.u32()?),
            Id::ContentType => Self::ContentType(reader.string()?),
            Id::ResponseTopic => {
                let name = reader.string()?;
                check_response_topic(name.as_bytes())?;
                Self::ResponseTopic(name)
            }
            Id::CorrelationData => Self::CorrelationData(reader.binary()?),
            Id::SubscriptionIdentifier => {
                Self::SubscriptionIdentifier(NonZeroU32::new(reader.variable_byte_integer()?).ok_or(wrong)?)
            }
            Id::SessionExpiryInterval => Self::SessionExpiryInterval(reader.u32()?),
            Id::AssignedClientIdentifier => Self::AssignedClientIdentifier(reader.string()?),
            Id::ServerKeepAlive => Self::ServerKeepAlive(reader.u16()?),
            Id::AuthenticationMethod => Self::AuthenticationMethod(reader.string()?),
            Id::AuthenticationData => Self::AuthenticationData(Secret(reader.binary()?)),
            Id::RequestProblemInformation => Self::RequestProblemInformation(flag(reader)?),
            Id::WillDelayInterval => Self::WillDelayInterval(reader.u32()?),
            Id::RequestResponseInformation => Self::RequestResponseInformation(flag(reader)?),
            Id::ResponseInformation => Self::ResponseInformation(reader.string()?),
            Id::ServerReference => Self::ServerReference(reader.string()?),
            Id::ReasonString => Self::ReasonString(reader.string()?),
            Id::ReceiveMaximum => Self::ReceiveMaximum(NonZeroU16::new(reader.u16()?).ok_or(wrong)?),
            Id::TopicAliasMaximum => Self::TopicAliasMaximum(reader.u16()?),
            Id::TopicAlias => Self::TopicAlias(NonZeroU16::new(reader.u16()?).ok_or(Error::TopicAliasZero)?),
            Id::MaximumQos => Self::MaximumQos(match flag(reader)? {
                false => Qos::AtMostOnce,
                true => Qos::AtLeastOnce,
            }),
            Id::RetainAvailable => Self::RetainAvailable(flag(reader)?),
            Id::UserProperty => Self::UserProperty(reader.string()?, reader.string()?),
            Id::MaximumPacketSize => Self::MaximumPacketSize(NonZeroU32::new(reader.u32()?).ok_or(wrong)?),
            Id::WildcardSubscriptionAvailable => Self::WildcardSubscriptionAvailable(flag(reader)?),
            Id::SubscriptionIdentifierAvailable => Self::SubscriptionIdentifierAvailable(flag(reader)?),
            Id::SharedSubscriptionAvailable => Self::SharedSubscriptionAvailable(flag(reader)?),
        })
    }

    const fn identifier(&self) -> PropertyIdentifier {
        use PropertyIdentifier as Id;
        match self {
            Self::PayloadFormatIndicator(_) => Id::PayloadFormatIndicator,
            Self::MessageExpiryInterval(_) => Id::MessageExpiryInterval,
            Self::ContentType(_) => Id::ContentType,
            Self::ResponseTopic(_) => Id::ResponseTopic,
            Self::CorrelationData(_) => Id::CorrelationData,
            Self::SubscriptionIdentifier(_) => Id::SubscriptionIdentifier,
            Self::SessionExpiryInterval(_) => Id::SessionExpiryInterval,
            Self::AssignedClientIdentifier(_) => Id::AssignedClientIdentifier,
            Self::ServerKeepAlive(_) => Id::ServerKeepAlive,
            Self::AuthenticationMethod(_) => Id::AuthenticationMethod,
            Self::AuthenticationData(_) => Id::AuthenticationData,
            Self::RequestProblemInformation(_) => Id::RequestProblemInformation,
            Self::WillDelayInterval(_) => Id::WillDelayInterval,
            Self::RequestResponseInformation(_) => Id::RequestResponseInformation,
            Self::ResponseInformation(_) => Id::ResponseInformation,
            Self::ServerReference(_) => Id::ServerReference,
            Self::ReasonString(_) => Id::ReasonString,
            Self::ReceiveMaximum(_) => Id::ReceiveMaximum,
            Self::TopicAliasMaximum(_) => Id::TopicAliasMaximum,
            Self::TopicAlias(_) => Id::TopicAlias,
            Self::MaximumQos(_) => Id::MaximumQos,
            Self::RetainAvailable(_) => Id::RetainAvailable,
            Self::UserProperty(..) => Id::UserProperty,
            Self::MaximumPacketSize(_) => Id::MaximumPacketSize,
            Self::WildcardSubscriptionAvailable(_) => Id::WildcardSubscriptionAvailable,
            Self::SubscriptionIdentifierAvailable(_) => Id::SubscriptionIdentifierAvailable,
            Self::SharedSubscriptionAvailable(_) => Id::SharedSubscriptionAvailable,
        }
    }

    /// Appends the identifier and the value.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.push(self.identifier() as u8);
        match *self {
            Self::PayloadFormatIndicator(format) => out.push(format as u8),
            Self::MaximumQos(qos) => match qos {
                Qos::AtMostOnce | Qos::AtLeastOnce => out.push(qos.bits()),
                Qos::ExactlyOnce => return Err(Error::PropertyValue(self.identifier())),
            },
            Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => out.push(u8::from(flag)),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => {
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => {
                out.extend_from_slice(&value.get().to_be_bytes());
            }
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::MaximumPacketSize(value) => out.extend_from_slice(&value.get().to_be_bytes()),
            Self::SubscriptionIdentifier(value) => varint::encode(value.get(), out)?,
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => writer::binary(out, text.as_bytes())?,
            Self::CorrelationData(data) | Self::AuthenticationData(Secret(data)) => {
                writer::binary(out, data)?
            }
            Self::UserProperty(name, value) => {
                writer::binary(out, name.as_bytes())?;
                writer::binary(out, value.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// All identifiers are below 0x80, so each is a variable byte integer of one byte.
#[inline]
pub(super) fn read_identifier(reader: &mut Reader<'_>) -> Result<PropertyIdentifier, Error> {
    let number = reader.u8()?;
    PropertyIdentifier::from_u8(number).ok_or(Error::UnknownProperty(number))
}

/// A response topic is a topic name [MQTT-3.3.2-14].
pub(super) fn check_response_topic(name: &[u8]) -> Result<(), Error> {
    topic::check_topic_name(name).map_err(|error| match error {
        Error::TopicNameEmpty | Error::TopicNameWildcard => Error::ResponseTopic,
        other => other,
    })
}

/// Reads an encoded list, in which `carrier` may hold some properties, most of them once.
pub(super) struct PropertyReader<'a> {
    reader: Reader<'a>,
    carrier: Carrier,
    seen: u64,
}

impl<'a> PropertyReader<'a> {
    pub(super) const fn new(list: &'a [u8], carrier: Carrier) -> Self {
        Self { reader: Reader::new(list), carrier, seen: 0 }
    }

    /// The next property; `None` at the end of the list.
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, Error> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let identifier = read_identifier(&mut self.reader)?;
        if !identifier.is_allowed_in(self.carrier) {
            return Err(Error::PropertyNotAllowed(identifier));
        }
        if self.seen & identifier.bit() != 0 && !identifier.is_repeatable_in(self.carrier) {
            return Err(Error::DuplicateProperty(identifier));
        }
        self.seen |= identifier.bit();
        Property::read_value(identifier, &mut self.reader).map(Some)
    }
}

/// Appends a list of properties with its length before it: those that are there, then the user properties.
pub(super) fn encode_list<'a>(
    out: &mut Vec<u8>,
    properties: impl IntoIterator<Item = Option<Property<'a>>>,
    user_properties: UserProperties<'a>,
) -> Result<(), Error> {
    writer::length_prefixed(out, |out| append_list(out, properties, user_properties))
}

/// The same without the length.
pub(super) fn append_list<'a>(
    out: &mut Vec<u8>,
    properties: impl IntoIterator<Item = Option<Property<'a>>>,
    user_properties: UserProperties<'a>,
) -> Result<(), Error> {
    for property in properties.into_iter().flatten() {
        property.encode(out)?;
    }
    for (name, value) in user_properties.iter() {
        Property::UserProperty(name, value).encode(out)?;
    }
    Ok(())
}
