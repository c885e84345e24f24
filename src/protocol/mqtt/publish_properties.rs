//! The properties of a PUBLISH (§3.3.2.3).

use std::num::NonZeroU16;

use super::{
    error::Error,
    identifier::Carrier,
    property::{self, PayloadFormat, Property, PropertyReader},
    subscription_identifier::SubscriptionIdentifiers,
    user_property::UserProperties,
    will::WillProperties,
};

/// What a message says about itself. Topic alias and subscription identifiers belong to one connection, the rest to the
/// message; a server forwards it as it is, but for the time that has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// What the payload is.
    pub payload_format_indicator: Option<PayloadFormat>,
    /// Seconds for which the message is still worth delivering.
    pub message_expiry_interval: Option<u32>,
    /// Stands for the topic name on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Where an answer is expected.
    pub response_topic: Option<&'a str>,
    /// By what the answer is told from others.
    pub correlation_data: Option<&'a [u8]>,
    /// Passed on with the message.
    pub user_properties: UserProperties<'a>,
    /// Which of the client's subscriptions it matches; servers only.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// What the payload is, for applications.
    pub content_type: Option<&'a str>,
}

impl<'a> PublishProperties<'a> {
    /// Reads an encoded list without its length, such as [`PublishSpans::properties`](super::PublishSpans::properties)
    /// points to.
    ///
    /// # Errors
    /// Every violation that such a list can hold.
    pub fn from_encoded(list: &'a [u8]) -> Result<Self, Error> {
        let mut all = Self {
            user_properties: UserProperties::of_checked(list),
            subscription_identifiers: SubscriptionIdentifiers::of_checked(list),
            ..Self::default()
        };
        let mut reader = PropertyReader::new(list, Carrier::Publish);
        while let Some(property) = reader.next()? {
            match property {
                Property::PayloadFormatIndicator(format) => all.payload_format_indicator = Some(format),
                Property::MessageExpiryInterval(seconds) => all.message_expiry_interval = Some(seconds),
                Property::TopicAlias(alias) => all.topic_alias = Some(alias),
                Property::ResponseTopic(name) => all.response_topic = Some(name),
                Property::CorrelationData(data) => all.correlation_data = Some(data),
                Property::ContentType(text) => all.content_type = Some(text),
                _ => {}
            }
        }
        Ok(all)
    }

    /// Appends them as an encoded list without its length.
    ///
    /// # Errors
    /// [`Error::FieldTooLong`]: a value has more than 65,535 bytes; nothing was appended.
    pub fn append(&self, list: &mut Vec<u8>) -> Result<(), Error> {
        let end = list.len();
        let singles = [
            self.payload_format_indicator.map(Property::PayloadFormatIndicator),
            self.message_expiry_interval.map(Property::MessageExpiryInterval),
            self.topic_alias.map(Property::TopicAlias),
            self.response_topic.map(Property::ResponseTopic),
            self.correlation_data.map(Property::CorrelationData),
            self.content_type.map(Property::ContentType),
        ];
        let identifiers =
            self.subscription_identifiers.iter().map(|number| Some(Property::SubscriptionIdentifier(number)));
        property::append_list(list, singles.into_iter().chain(identifiers), self.user_properties)
            .inspect_err(|_| list.truncate(end))
    }
}

impl<'a> From<WillProperties<'a>> for PublishProperties<'a> {
    /// What the message has when the will is published: all but the delay.
    fn from(will: WillProperties<'a>) -> Self {
        Self {
            payload_format_indicator: will.payload_format_indicator,
            message_expiry_interval: will.message_expiry_interval,
            response_topic: will.response_topic,
            correlation_data: will.correlation_data,
            user_properties: will.user_properties,
            content_type: will.content_type,
            ..Self::default()
        }
    }
}
