//! MQTT 5 properties as neutral ones, and back.
//!
//! What AMQP has as a property of its own travels in MQTT as a user property with the prefix `amqp-`, so that an
//! application's own `type` or `timestamp` stays what it is. A value that the property cannot hold stays a header.

use std::borrow::Cow;

use linkspan_contract::{Properties, Value, address};

use super::PRIORITY;
use crate::protocol::mqtt::{
    Error, PayloadFormat, PublishProperties, SubscriptionIdentifiers, UserProperties,
};

const MESSAGE_ID: &str = "amqp-message-id";
const TIMESTAMP: &str = "amqp-timestamp";
const APP_ID: &str = "amqp-app-id";
const KIND: &str = "amqp-type";
const USER_ID: &str = "amqp-user-id";
const CONTENT_ENCODING: &str = "amqp-content-encoding";
const EXPIRATION: &str = "amqp-expiration";
const REPLY_TO: &str = "amqp-reply-to";

/// Headers of AMQP messages that stand for MQTT's own properties.
const PAYLOAD_FORMAT: &str = "x-payload-format";
const RETAIN: &str = "x-retain";
const CORRELATION: &str = "x-correlation-id";
const CONTENT_TYPE: &str = "x-content-type";

/// Bytes of AMQP's longest short string.
const SHORT: usize = 255;

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
        if !(name.starts_with("amqp-") && set(&mut to, name, value)) {
            to.headers.push((Cow::Borrowed(name), Value::Text(Cow::Borrowed(value))));
        }
    }
    to
}

/// Makes a user property the property that it stands for; false when it stands for none, cannot be one, or is a repetition.
fn set<'a>(to: &mut Properties<'a>, name: &str, value: &'a str) -> bool {
    fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
        let free = slot.is_none() && value.is_some();
        if free {
            *slot = value;
        }
        free
    }
    let short = || (value.len() <= SHORT).then_some(Cow::Borrowed(value));
    match name {
        MESSAGE_ID => put(&mut to.message_id, short()),
        APP_ID => put(&mut to.app_id, short()),
        KIND => put(&mut to.kind, short()),
        USER_ID => put(&mut to.user_id, short()),
        CONTENT_ENCODING => put(&mut to.content_encoding, short()),
        TIMESTAMP => put(&mut to.timestamp, value.parse().ok()),
        PRIORITY => put(&mut to.priority, value.parse().ok()),
        _ => false,
    }
}

/// Appends neutral properties as an encoded list of a PUBLISH, without its length and without an expiry. What MQTT cannot
/// say (a text with U+0000 or of more than 65,535 bytes) is left out.
pub(super) fn append(from: &Properties<'_>, list: &mut Vec<u8>) -> Result<(), Error> {
    let header_text = |name| from.header(name).and_then(Value::as_str).filter(|text| is_text(text));
    let correlation = from.correlation.as_deref().or_else(|| match from.header(CORRELATION) {
        Some(Value::Bytes(bytes) | Value::LongString(bytes)) => Some(&**bytes),
        _ => None,
    });
    let reply_to = from.reply_to.as_deref().filter(|name| address::is_topic(name.as_bytes()));
    let properties = PublishProperties {
        payload_format_indicator: payload_format(from),
        response_topic: reply_to,
        correlation_data: correlation.filter(|bytes| bytes.len() <= usize::from(u16::MAX)),
        content_type: text(&from.content_type).or_else(|| header_text(CONTENT_TYPE)),
        ..PublishProperties::default()
    };
    properties.append(list)?;
    for subscription in &from.subscriptions {
        SubscriptionIdentifiers::append(list, *subscription)?;
    }
    for (name, value) in [
        (MESSAGE_ID, &from.message_id),
        (APP_ID, &from.app_id),
        (KIND, &from.kind),
        (USER_ID, &from.user_id),
        (CONTENT_ENCODING, &from.content_encoding),
        (EXPIRATION, &from.expiration),
    ] {
        if let Some(value) = text(value) {
            UserProperties::append(list, name, value)?;
        }
    }
    if reply_to.is_none()
        && let Some(name) = text(&from.reply_to)
    {
        UserProperties::append(list, REPLY_TO, name)?;
    }
    for (name, number) in [(TIMESTAMP, from.timestamp), (PRIORITY, from.priority.map(u64::from))] {
        if let Some(number) = number {
            UserProperties::append(list, name, &number.to_string())?;
        }
    }
    for (name, value) in &from.headers {
        let told_otherwise = matches!(&**name, PAYLOAD_FORMAT | RETAIN | CORRELATION | CONTENT_TYPE);
        let value = shown(value);
        if !told_otherwise && is_text(name) && is_text(&value) {
            UserProperties::append(list, name, &value)?;
        }
    }
    Ok(())
}

fn payload_format(from: &Properties<'_>) -> Option<PayloadFormat> {
    let header = || match from.header(PAYLOAD_FORMAT)? {
        Value::Text(text) => Some(&**text == "1"),
        value => value.as_bool().or_else(|| value.as_i64().map(|number| number == 1)),
    };
    from.utf8_payload.or_else(header).map(|utf8| match utf8 {
        true => PayloadFormat::Utf8,
        false => PayloadFormat::Unspecified,
    })
}

fn text<'a>(of: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    of.as_deref().filter(|text| is_text(text))
}

/// Whether MQTT can say it (§1.5.4).
fn is_text(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX) && !text.contains('\0')
}

/// A header's value as text: numbers in decimal, bytes in hexadecimal, tables and arrays as JSON.
fn shown<'a>(value: &'a Value<'_>) -> Cow<'a, str> {
    match value {
        Value::Void => Cow::Borrowed(""),
        Value::Text(text) => Cow::Borrowed(text),
        Value::Bool(_) | Value::F32(_) | Value::F64(_) | Value::Array(_) | Value::Table(_) => {
            Cow::Owned(json(value).to_string())
        }
        Value::Decimal { scale, value } => Cow::Owned(decimal(*scale, *value)),
        Value::LongString(bytes) | Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(hexadecimal(bytes)),
        },
        Value::Timestamp(seconds) => Cow::Owned(seconds.to_string()),
        number => Cow::Owned(number.as_i64().unwrap_or_default().to_string()),
    }
}

fn json(value: &Value<'_>) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Void => Json::Null,
        Value::Bool(yes) => Json::Bool(*yes),
        Value::F32(number) => f64::from(*number).into(),
        Value::F64(number) => (*number).into(),
        Value::Timestamp(seconds) => (*seconds).into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.to_string(), json(value))).collect())
        }
        other => match other.as_i64() {
            Some(number) => number.into(),
            None => Json::String(shown(other).into_owned()),
        },
    }
}

fn decimal(scale: u8, value: u32) -> String {
    let (digits, scale) = (value.to_string(), usize::from(scale));
    if scale == 0 {
        return digits;
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, rest) = padded.split_at(padded.len() - scale);
    format!("{whole}.{rest}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    fn typed_headers_are_shown_as_text() {
        let headers = vec![
            ("void", Value::Void, ""),
            ("yes", Value::Bool(true), "true"),
            ("count", Value::I32(-3), "-3"),
            ("ratio", Value::F64(0.5), "0.5"),
            ("price", Value::Decimal { scale: 2, value: 5 }, "0.05"),
            ("when", Value::Timestamp(9), "9"),
            ("raw", Value::Bytes(b"\xfe\x01"[..].into()), "fe01"),
            ("list", Value::Array(vec![Value::U8(1), Value::Text("a".into())]), "[1,\"a\"]"),
            ("table", Value::Table(vec![("n".into(), Value::I64(1))]), "{\"n\":1}"),
        ];
        let properties = Properties {
            headers: headers.iter().map(|(name, value, _)| ((*name).into(), value.clone())).collect(),
            ..Properties::default()
        };
        let mut encoded = Vec::new();
        append(&properties, &mut encoded).unwrap();
        let expected: Vec<_> = headers.iter().map(|(name, _, text)| (*name, *text)).collect();
        assert_eq!(user(&encoded), expected);
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
