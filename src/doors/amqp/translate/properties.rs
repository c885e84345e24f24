//! The properties of messages.

use std::borrow::Cow;

use linkspan_contract::{Properties, Value};

use crate::protocol::amqp::{self, Malformed, ShortBytes, Table, TableBuf};

use super::arguments;

/// Header of what is too long for the property `content_type`.
const CONTENT_TYPE: &str = "x-content-type";
/// Header of a correlation that is no short text.
const CORRELATION: &str = "x-correlation-id";
/// Header of MQTT's payload format indicator.
const PAYLOAD_FORMAT: &str = "x-payload-format";
/// Header that asks for a message to be kept as its address's retained one.
pub(super) const RETAIN: &str = "x-retain";
/// Header of an address that is too long for a routing key.
const ADDRESS: &str = "x-address";
/// Header of a reply address that is too long for the property.
const REPLY_TO: &str = "x-reply-to";

/// Encoded properties in the contract's words.
///
/// # Errors
/// When they are malformed.
pub(in super::super) fn neutral(encoded: &[u8]) -> Result<Properties<'_>, Malformed> {
    let from = amqp::Properties::decode(encoded)?;
    fn text(bytes: Option<ShortBytes<'_>>) -> Option<Cow<'_, str>> {
        bytes.map(|bytes| String::from_utf8_lossy(bytes.as_bytes()))
    }
    let mut properties = Properties {
        content_type: text(from.content_type),
        content_encoding: text(from.content_encoding),
        headers: arguments::headers(from.headers.unwrap_or_default()),
        priority: from.priority,
        reply_to: text(from.reply_to),
        correlation: from.correlation_id.map(|bytes| Cow::Borrowed(bytes.as_bytes())),
        message_id: text(from.message_id),
        timestamp: from.timestamp,
        kind: text(from.kind),
        user_id: text(from.user_id),
        app_id: text(from.app_id),
        cluster_id: text(from.cluster_id),
        expiration: text(from.expiration),
        utf8_payload: None,
        subscriptions: Vec::new(),
    };
    if properties.headers.iter().any(|(name, _)| name.starts_with("x-")) {
        take_back(&mut properties);
    }
    Ok(properties)
}

/// Headers that stand for properties that AMQP does not have become these again.
fn take_back(properties: &mut Properties<'_>) {
    let mut headers = std::mem::take(&mut properties.headers);
    headers.retain(|(name, value)| match (&**name, value) {
        (PAYLOAD_FORMAT, Value::Bool(utf8)) => {
            properties.utf8_payload = Some(*utf8);
            false
        }
        (CONTENT_TYPE, Value::Text(kind)) if properties.content_type.is_none() => {
            properties.content_type = Some(kind.clone());
            false
        }
        (REPLY_TO, Value::Text(address)) if properties.reply_to.is_none() => {
            properties.reply_to = Some(address.clone());
            false
        }
        (CORRELATION, Value::Bytes(bytes)) if properties.correlation.is_none() => {
            properties.correlation = Some(bytes.clone());
            false
        }
        (RETAIN, Value::Bool(_)) => false,
        _ => true,
    });
    properties.headers = headers;
}

/// What a message of another form says beside its properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Beside<'a> {
    /// To be kept on disk: delivery-mode 2, else 1.
    pub(in super::super) durable: bool,
    /// Milliseconds that are left.
    pub(in super::super) expiry: Option<u64>,
    /// It is to be its address's retained message.
    pub(in super::super) retain: bool,
    /// The whole routing key, when it had to be cut.
    pub(in super::super) whole_key: Option<&'a [u8]>,
}

/// Appends properties of a message of another form, flags and list.
pub(in super::super) fn encode(from: &Properties<'_>, beside: Beside<'_>, out: &mut Vec<u8>) {
    fn short<'a>(text: &'a Option<Cow<'_, str>>) -> Option<ShortBytes<'a>> {
        text.as_ref().and_then(|text| ShortBytes::try_from(&**text).ok())
    }
    let mut headers = TableBuf::new();
    for (name, value) in &from.headers {
        arguments::put(name, value, &mut headers);
    }
    let too_long = [(CONTENT_TYPE, &from.content_type), (REPLY_TO, &from.reply_to)];
    for (name, text) in too_long {
        if let Some(text) = text.as_ref().filter(|text| text.len() > usize::from(u8::MAX)) {
            arguments::put(name, &Value::Text(Cow::Borrowed(&**text)), &mut headers);
        }
    }
    let mut correlation_id = None;
    if let Some(correlation) = &from.correlation {
        match ShortBytes::new(correlation) {
            Ok(short) if short.as_str().is_some() => correlation_id = Some(short),
            _ => arguments::put(CORRELATION, &Value::Bytes(Cow::Borrowed(&**correlation)), &mut headers),
        }
    }
    if let Some(utf8) = from.utf8_payload {
        arguments::put(PAYLOAD_FORMAT, &Value::Bool(utf8), &mut headers);
    }
    if beside.retain {
        arguments::put(RETAIN, &Value::Bool(true), &mut headers);
    }
    if let Some(key) = beside.whole_key {
        arguments::put(ADDRESS, &Value::Text(String::from_utf8_lossy(key)), &mut headers);
    }
    let left = beside.expiry.map(|millis| millis.min(u32::MAX.into()).to_string());
    let expiration = match &left {
        Some(left) => ShortBytes::try_from(left.as_str()).ok(),
        None => short(&from.expiration),
    };
    amqp::Properties {
        content_type: short(&from.content_type),
        content_encoding: short(&from.content_encoding),
        headers: Some(headers.as_table()).filter(|headers: &Table<'_>| !headers.is_empty()),
        delivery_mode: Some(if beside.durable { 2 } else { 1 }),
        priority: from.priority,
        correlation_id,
        reply_to: short(&from.reply_to),
        expiration,
        message_id: short(&from.message_id),
        timestamp: from.timestamp,
        kind: short(&from.kind),
        user_id: short(&from.user_id),
        app_id: short(&from.app_id),
        cluster_id: short(&from.cluster_id),
    }
    .encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::properties::NONE;

    fn short(text: &str) -> Option<ShortBytes<'_>> {
        Some(ShortBytes::try_from(text).unwrap())
    }

    #[test]
    fn what_amqp_lacks_travels_in_headers_and_comes_back() {
        let properties = Properties {
            content_type: Some("x".repeat(300).into()),
            headers: vec![("a".into(), Value::Text("1".into())), ("a".into(), Value::Text("2".into()))],
            priority: Some(3),
            reply_to: Some("answers".into()),
            correlation: Some(b"\xff\x00"[..].into()),
            message_id: Some("m".into()),
            utf8_payload: Some(true),
            ..Properties::default()
        };
        let mut out = Vec::new();
        let beside = Beside { durable: true, expiry: Some(5), retain: true, whole_key: Some(b"a.b") };
        encode(&properties, beside, &mut out);
        let amqp = amqp::Properties::decode(&out).unwrap();
        assert_eq!((amqp.delivery_mode, amqp.expiration, amqp.correlation_id), (Some(2), short("5"), None));
        assert_eq!(amqp.headers.unwrap().get("x-address").unwrap().as_str(), Some("a.b"));
        let mut back = neutral(&out).unwrap();
        back.headers.retain(|(name, _)| name != "x-address");
        assert_eq!(back, Properties { expiration: Some("5".into()), ..properties });
    }

    #[test]
    fn short_text_is_a_correlation_id_and_an_endless_expiry_is_clamped() {
        let properties = Properties { correlation: Some(b"id"[..].into()), ..Properties::default() };
        let mut out = Vec::new();
        encode(&properties, Beside { expiry: Some(u64::MAX), ..Beside::default() }, &mut out);
        let amqp = amqp::Properties::decode(&out).unwrap();
        assert_eq!((amqp.correlation_id, amqp.expiration), (short("id"), short("4294967295")));
        assert_eq!(amqp.headers, None);
        assert_eq!(neutral(&NONE).unwrap(), Properties::default());
    }
}
