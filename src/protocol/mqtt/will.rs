//! The will: the message that a server publishes when a client is gone (§3.1.2.5, §3.1.3.2).

use super::{
    error::Error,
    identifier::Carrier,
    property::{self, PayloadFormat, Property, PropertyReader},
    qos::Qos,
    reader::Reader,
    topic,
    user_property::UserProperties,
    version::Version,
    writer,
};

/// The will in a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where to publish it.
    pub topic: &'a str,
    /// What to publish.
    pub payload: &'a [u8],
    /// With which quality of service.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// 5.0 only.
    pub properties: WillProperties<'a>,
}

/// The will properties (§3.1.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WillProperties<'a> {
    /// Seconds from the end of the connection to the will's publication, unless the session ends or goes on before.
    pub will_delay_interval: Option<u32>,
    /// What the payload is.
    pub payload_format_indicator: Option<PayloadFormat>,
    /// Seconds from publication for which the message is worth delivering.
    pub message_expiry_interval: Option<u32>,
    /// What the payload is, for applications.
    pub content_type: Option<&'a str>,
    /// Where an answer is expected.
    pub response_topic: Option<&'a str>,
    /// By what the answer is told from others.
    pub correlation_data: Option<&'a [u8]>,
    /// Passed on with the message.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Will<'a> {
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        version: Version,
        qos: Qos,
        retain: bool,
    ) -> Result<Self, Error> {
        let properties = match version {
            Version::V311 => WillProperties::default(),
            Version::V5 => WillProperties::decode(reader.properties()?)?,
        };
        let topic = reader.string()?;
        topic::check_topic_name(topic.as_bytes())?;
        Ok(Self { topic, payload: reader.binary()?, qos, retain, properties })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        if version == Version::V5 {
            self.properties.encode(out)?;
        }
        writer::binary(out, self.topic.as_bytes())?;
        writer::binary(out, self.payload)
    }
}

impl<'a> WillProperties<'a> {
    fn decode(list: &'a [u8]) -> Result<Self, Error> {
        let mut all = Self { user_properties: UserProperties::of_checked(list), ..Self::default() };
        let mut reader = PropertyReader::new(list, Carrier::Will);
        while let Some(property) = reader.next()? {
            match property {
                Property::WillDelayInterval(seconds) => all.will_delay_interval = Some(seconds),
                Property::PayloadFormatIndicator(format) => all.payload_format_indicator = Some(format),
                Property::MessageExpiryInterval(seconds) => all.message_expiry_interval = Some(seconds),
                Property::ContentType(text) => all.content_type = Some(text),
                Property::ResponseTopic(name) => all.response_topic = Some(name),
                Property::CorrelationData(data) => all.correlation_data = Some(data),
                _ => {}
            }
        }
        Ok(all)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        property::encode_list(
            out,
            [
                self.will_delay_interval.map(Property::WillDelayInterval),
                self.payload_format_indicator.map(Property::PayloadFormatIndicator),
                self.message_expiry_interval.map(Property::MessageExpiryInterval),
                self.content_type.map(Property::ContentType),
                self.response_topic.map(Property::ResponseTopic),
                self.correlation_data.map(Property::CorrelationData),
            ],
            self.user_properties,
        )
    }
}
