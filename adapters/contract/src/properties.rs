//! What a publisher says about a message, in no protocol's encoding.

use std::borrow::Cow;
use std::num::NonZeroU32;

use crate::value::{Value, owned_fields};

/// The properties of a message, decoded. Durability, expiry and retain are not here but in
/// [`Message`](crate::Message), which every door fills.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Properties<'a> {
    /// MIME type of the payload.
    pub content_type: Option<Cow<'a, str>>,
    /// Encoding of the payload, such as `gzip`.
    pub content_encoding: Option<Cow<'a, str>>,
    /// Application headers: order and duplicates are kept.
    pub headers: Vec<(Cow<'a, str>, Value<'a>)>,
    /// Priority as the publisher gave it.
    pub priority: Option<u8>,
    /// Where an answer goes: MQTT's response topic, AMQP's reply-to.
    pub reply_to: Option<Cow<'a, str>>,
    /// What an answer has to carry: MQTT's correlation data, AMQP's correlation-id.
    pub correlation: Option<Cow<'a, [u8]>>,
    /// The application's identifier of the message.
    pub message_id: Option<Cow<'a, str>>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The application's name for the kind of message (AMQP `type`).
    pub kind: Option<Cow<'a, str>>,
    /// The user that published it.
    pub user_id: Option<Cow<'a, str>>,
    /// The application that published it.
    pub app_id: Option<Cow<'a, str>>,
    /// AMQP's deprecated `cluster-id`.
    pub cluster_id: Option<Cow<'a, str>>,
    /// AMQP's `expiration` as it was written; what counts is [`Message::expiry`](crate::Message::expiry).
    pub expiration: Option<Cow<'a, str>>,
    /// MQTT 5's payload format indicator: the payload is UTF-8 text.
    pub utf8_payload: Option<bool>,
    /// By which of the client's subscriptions a broker that keeps its session delivers it (MQTT 5 §3.3.2.3.8).
    pub subscriptions: Vec<NonZeroU32>,
}

impl<'a> Properties<'a> {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&Value<'a>> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value)
    }

    /// The same properties, owning all their bytes.
    pub fn into_owned(self) -> Properties<'static> {
        fn own(text: Option<Cow<'_, str>>) -> Option<Cow<'static, str>> {
            text.map(|text| Cow::Owned(text.into_owned()))
        }
        Properties {
            content_type: own(self.content_type),
            content_encoding: own(self.content_encoding),
            headers: owned_fields(self.headers),
            priority: self.priority,
            reply_to: own(self.reply_to),
            correlation: self.correlation.map(|bytes| Cow::Owned(bytes.into_owned())),
            message_id: own(self.message_id),
            timestamp: self.timestamp,
            kind: own(self.kind),
            user_id: own(self.user_id),
            app_id: own(self.app_id),
            cluster_id: own(self.cluster_id),
            expiration: own(self.expiration),
            utf8_payload: self.utf8_payload,
            subscriptions: self.subscriptions,
        }
    }
}
