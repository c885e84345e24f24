//! MQTT 5 properties as neutral ones, and back. What AMQP has as a property of its own is a user property in MQTT
//! ([`textual`]).

use std::borrow::Cow;

use linkspan_contract::textual::{self, Textual};
use linkspan_contract::{Properties, Value};

use crate::protocol::mqtt::{
    Error, PayloadFormat, PublishProperties, SubscriptionIdentifiers, UserProperties,
};

/// The first user property of that name.
pub(super) fn first<'a>(properties: &PublishProperties<'a>, name: &str) -> Option<&'a str> {
    properties.user_properties.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether the payload is said to be UTF-8.
pub(super) fn says_utf8(properties: &PublishProperties<'_>) -> bool {
    properties.payload_format_indicator == Some(PayloadFormat::Utf8)
}

/// What an MQTT 5 client says about a message, for everybody.
pub(super) fn neutral<'a>(from: &PublishProperties<'a>) -> Properties<'a> {
    let mut to = Properties {
        content_type: from.content_type.map(Cow::Borrowed),
        reply_to: from.response_topic.map(Cow::Borrowed),
        correlation: from.correlation_data.map(Cow::Borrowed),
        utf8_payload: from.payload_format_indicator.map(|format| format == PayloadFormat::Utf8),
        ..Properties::default()
    };
    for (name, value) in from.user_properties.iter() {
        if !(name.starts_with("amqp-") && textual::enter(&mut to, name, value)) {
            to.headers.push((Cow::Borrowed(name), Value::Text(Cow::Borrowed(value))));
        }
    }
    to
}

/// Appends neutral properties as an encoded list of a PUBLISH, without its length and without an expiry. What MQTT cannot
/// say is left out.
pub(super) fn append(from: &Properties<'_>, list: &mut Vec<u8>) -> Result<(), Error> {
    let said = Textual::of(from);
    let properties = PublishProperties {
        payload_format_indicator: said.utf8_payload.map(|utf8| match utf8 {
            true => PayloadFormat::Utf8,
            false => PayloadFormat::Unspecified,
        }),
        response_topic: said.reply_to,
        correlation_data: said.correlation,
        content_type: said.content_type,
        ..PublishProperties::default()
    };
    properties.append(list)?;
    for subscription in &from.subscriptions {
        SubscriptionIdentifiers::append(list, *subscription)?;
    }
    said.pairs(|name, value| UserProperties::append(list, name, value))
}

#[cfg(test)]
mod tests {
    use linkspan_contract::WireForm;

    use super::*;
    use crate::doors::mqtt::translate::form;
    use crate::protocol::mqtt::Version;

    fn list(user: &[(&str, &str)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (name, value) in user {
            UserProperties::append(&mut list, name, value).unwrap();
        }
        list
    }

    fn read(list: &[u8]) -> Properties<'_> {
        form::of(Version::V5).properties(list).unwrap()
    }

    fn user(list: &[u8]) -> Vec<(&str, &str)> {
        PublishProperties::from_encoded(list).unwrap().user_properties.iter().collect()
    }

    #[test]
    fn prefixed_user_properties_are_amqp_properties_and_come_back() {
        let sent = [
            ("amqp-message-id", "m-1"),
            ("amqp-app-id", "app"),
            ("amqp-type", "order"),
            ("amqp-user-id", "guest"),
            ("amqp-content-encoding", "gzip"),
            ("amqp-timestamp", "1700000000"),
            ("amqp-priority", "7"),
            ("type", "my own"),
            ("type", "twice"),
        ];
        let encoded = list(&sent);
        let neutral = read(&encoded);
        assert_eq!(neutral.message_id.as_deref(), Some("m-1"));
        assert_eq!(neutral.kind.as_deref(), Some("order"));
        assert_eq!((neutral.timestamp, neutral.priority), (Some(1_700_000_000), Some(7)));
        let headers: Vec<_> = neutral.headers.iter().map(|(name, value)| (&**name, value.as_str())).collect();
        assert_eq!(headers, [("type", Some("my own")), ("type", Some("twice"))]);
        let mut back = Vec::new();
        append(&neutral, &mut back).unwrap();
        assert_eq!(user(&back), sent);
    }

    #[test]
    fn values_that_a_property_cannot_hold_stay_headers() {
        let long = "x".repeat(256);
        let sent = [("amqp-priority", "high"), ("amqp-timestamp", "-1"), ("amqp-message-id", long.as_str())];
        let encoded = list(&sent);
        let neutral = read(&encoded);
        assert_eq!((neutral.priority, neutral.timestamp, &neutral.message_id), (None, None, &None));
        assert_eq!(neutral.headers.len(), 3);
    }

    #[test]
    fn every_property_of_a_publish_has_its_neutral_one() {
        let all = PublishProperties {
            payload_format_indicator: Some(PayloadFormat::Utf8),
            response_topic: Some("answers/1"),
            correlation_data: Some(b"\x00\x01"),
            content_type: Some("text/plain"),
            ..PublishProperties::default()
        };
        let mut encoded = Vec::new();
        all.append(&mut encoded).unwrap();
        let neutral = read(&encoded);
        assert_eq!(neutral.reply_to.as_deref(), Some("answers/1"));
        let mut back = Vec::new();
        append(&neutral, &mut back).unwrap();
        assert_eq!(back, encoded);
    }

    #[test]
    fn what_mqtt_cannot_say_is_left_out_mqtt_1_5_4_2() {
        let properties = Properties {
            content_type: Some("a\0b".into()),
            reply_to: Some("amq.rabbitmq.reply-to.#".into()),
            headers: vec![
                ("n\0".into(), Value::Text("x".into())),
                ("x-retain".into(), Value::Bool(true)),
                ("x-payload-format".into(), Value::U8(1)),
            ],
            ..Properties::default()
        };
        let mut encoded = Vec::new();
        append(&properties, &mut encoded).unwrap();
        let read = PublishProperties::from_encoded(&encoded).unwrap();
        assert_eq!((read.content_type, read.response_topic), (None, None));
        assert!(says_utf8(&read));
        assert_eq!(user(&encoded), [("amqp-reply-to", "amq.rabbitmq.reply-to.#")]);
    }
}
