//! The properties of messages.

use std::borrow::Cow;

use linkspan_contract::{Flags, Properties, Value};

use crate::protocol::amqp::{
    self, Error, Expiration, Malformed, ReplyCode, ShortBytes, Summary, Table, TableBuf, basic,
};

use super::super::failure::Failure;
use super::arguments;

/// Header of what is too long for the property `content_type`.
const CONTENT_TYPE: &str = "x-content-type";
/// Header of a correlation that is no short text.
const CORRELATION: &str = "x-correlation-id";
/// Header of MQTT's payload format indicator.
const PAYLOAD_FORMAT: &str = "x-payload-format";
/// Header that asks for a message to be kept as its address's retained one.
const RETAIN: &str = "x-retain";
/// Header of an address that is too long for a routing key.
const ADDRESS: &str = "x-address";
/// Header of a reply address that is too long for the property.
const REPLY_TO: &str = "x-reply-to";

/// What a published message's properties ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Asked {
    /// [`Flags::DURABLE`], `PRIORITY`, `EXPIRES`, `RETAIN`, `PROPERTIES` and `HEADERS`.
    pub(in super::super) flags: Flags,
    /// The priority, or 0.
    pub(in super::super) priority: u8,
    /// Milliseconds, with `EXPIRES`.
    pub(in super::super) expiry: u64,
    /// There are headers `CC` or `BCC`.
    pub(in super::super) copies: bool,
}

/// Checks encoded properties to the last byte and tells what they ask for; `user` is who publishes.
///
/// # Errors
/// When they are malformed, the expiration is no number of milliseconds, or they name another user.
pub(in super::super) fn asked(encoded: &[u8], user: &str) -> Result<Asked, Failure> {
    let summary = Summary::scan(encoded)
        .map_err(|why| Failure::from(Error::Properties { method: basic::Publish::ID, why }))?;
    let mut asked = Asked {
        flags: Flags::PROPERTIES
            | Flags::DURABLE.when(summary.delivery_mode == 2)
            | Flags::HEADERS.when(summary.headers)
            | Flags::PRIORITY.when(summary.priority.is_some()),
        priority: summary.priority.unwrap_or(0),
        expiry: 0,
        copies: summary.copies,
    };
    match summary.expiration {
        Expiration::Never => {}
        Expiration::After(millis) => {
            asked.flags |= Flags::EXPIRES;
            asked.expiry = millis.into();
        }
        Expiration::Invalid => return Err(invalid_expiration(encoded)),
    }
    if let Some(claimed) = summary.user_id.filter(|claimed| claimed.as_bytes() != user.as_bytes()) {
        let claimed = String::from_utf8_lossy(claimed.as_bytes());
        let text = format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
        return Err(precondition(&text));
    }
    if summary.headers
        && decoded(encoded).headers.and_then(|headers| headers.get(RETAIN)).is_some_and(is_true)
    {
        asked.flags |= Flags::RETAIN;
    }
    Ok(asked)
}

fn is_true(value: amqp::Value<'_>) -> bool {
    value.as_bool().unwrap_or(false) || value.as_i64().is_some_and(|number| number != 0)
}

fn precondition(text: &str) -> Failure {
    Failure::new(ReplyCode::PreconditionFailed, text).caused_by(basic::Publish::ID)
}

/// Properties that were checked before.
fn decoded(encoded: &[u8]) -> amqp::Properties<'_> {
    amqp::Properties::decode(encoded).unwrap_or_default()
}

/// RabbitMQ's words for an expiration that is none.
fn invalid_expiration(encoded: &[u8]) -> Failure {
    let text = decoded(encoded).expiration.unwrap_or_default();
    let text = String::from_utf8_lossy(text.as_bytes());
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (number, rest) = text.split_at(text.len() - digits.len() + end);
    let why = match (end, rest) {
        (0, _) => "no_integer".to_owned(),
        (_, "") if number.starts_with('-') => format!("{{value_negative,{number}}}"),
        (_, "") => format!("{{value_too_big,{}}}", digits.trim_start_matches('0')),
        (_, rest) => format!("{{leftover_string,\"{rest}\"}}"),
    };
    precondition(&format!("invalid expiration '{text}': {why}"))
}

/// What the headers `CC` and `BCC` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Copies<'a> {
    /// More routing keys.
    pub(in super::super) keys: Vec<&'a [u8]>,
    /// The properties without `BCC`, when it is there: who gets the message does not see it.
    pub(in super::super) without: Option<Vec<u8>>,
}

/// Reads the headers `CC` and `BCC` of properties that were checked before.
///
/// # Errors
/// When one of them is no array.
pub(in super::super) fn copies(encoded: &[u8]) -> Result<Copies<'_>, Failure> {
    let properties = decoded(encoded);
    let headers = properties.headers.unwrap_or_default();
    let mut keys = Vec::new();
    for name in ["CC", "BCC"] {
        match headers.get(name) {
            None => {}
            Some(amqp::Value::Array(array)) => {
                keys.extend(array.into_iter().filter_map(|value| match value {
                    amqp::Value::LongString(key) => Some(key),
                    _ => None,
                }))
            }
            Some(other) => {
                let kind = erlang_type(other);
                let text = format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}");
                return Err(precondition(&text));
            }
        }
    }
    let without = headers.get("BCC").is_some().then(|| {
        let mut kept = TableBuf::new();
        for (name, value) in headers.into_iter().filter(|(name, _)| name.as_bytes() != b"BCC") {
            kept.put_bytes(name, value);
        }
        let mut out = Vec::new();
        amqp::Properties { headers: Some(kept.as_table()), ..properties }.encode(&mut out);
        out
    });
    Ok(Copies { keys, without })
}

fn erlang_type(value: amqp::Value<'_>) -> &'static str {
    match value {
        amqp::Value::Bool(_) => "bool",
        amqp::Value::I8(_) => "byte",
        amqp::Value::U8(_) => "unsignedbyte",
        amqp::Value::I16(_) => "short",
        amqp::Value::U16(_) => "unsignedshort",
        amqp::Value::I32(_) => "signedint",
        amqp::Value::U32(_) => "unsignedint",
        amqp::Value::I64(_) => "long",
        amqp::Value::F32(_) => "float",
        amqp::Value::F64(_) => "double",
        amqp::Value::Decimal(_) => "decimal",
        amqp::Value::LongString(_) => "longstr",
        amqp::Value::Array(_) => "array",
        amqp::Value::Timestamp(_) => "timestamp",
        amqp::Value::Table(_) => "table",
        amqp::Value::Void => "void",
        amqp::Value::Bytes(_) => "binary",
    }
}

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
    use crate::protocol::amqp::{ArrayBuf, properties::NONE};

    fn encoded(properties: amqp::Properties<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        properties.encode(&mut out);
        out
    }

    fn short(text: &str) -> Option<ShortBytes<'_>> {
        Some(ShortBytes::try_from(text).unwrap())
    }

    #[test]
    fn what_a_publisher_asks_for_is_read_in_one_pass() {
        let mut table = TableBuf::new();
        table.put("x-retain", true).unwrap().put("CC", "no array").unwrap();
        let bytes = encoded(amqp::Properties {
            headers: Some(table.as_table()),
            delivery_mode: Some(2),
            priority: Some(7),
            expiration: short("60000"),
            user_id: short("guest"),
            ..Default::default()
        });
        let asked = asked(&bytes, "guest").unwrap();
        let all = [Flags::DURABLE, Flags::PRIORITY, Flags::EXPIRES, Flags::RETAIN, Flags::HEADERS];
        assert!(all.into_iter().all(|flag| asked.flags.has(flag)), "{asked:?}");
        assert_eq!((asked.priority, asked.expiry, asked.copies), (7, 60_000, true));
        let text = "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}";
        assert_eq!(copies(&bytes).unwrap_err().text, text);
    }

    #[test]
    fn a_message_in_anothers_name_is_refused() {
        let bytes = encoded(amqp::Properties { user_id: short("root"), ..Default::default() });
        let text = "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'";
        assert_eq!(asked(&bytes, "guest").unwrap_err().text, text);
    }

    #[test]
    fn an_expiration_that_is_none_is_refused_in_rabbitmqs_words() {
        for (text, why) in [
            ("soon", "no_integer"),
            ("", "no_integer"),
            ("10s", "{leftover_string,\"s\"}"),
            ("-1", "{value_negative,-1}"),
            ("4294967296", "{value_too_big,4294967296}"),
        ] {
            let bytes = encoded(amqp::Properties { expiration: short(text), ..Default::default() });
            let want = format!("PRECONDITION_FAILED - invalid expiration '{text}': {why}");
            assert_eq!(asked(&bytes, "guest").unwrap_err().text, want);
        }
    }

    #[test]
    fn malformed_properties_close_the_connection() {
        let failure = asked(&[0x80, 0, 5, b'x'], "guest").unwrap_err();
        assert_eq!((failure.code, failure.hard), (502, true));
    }

    #[test]
    fn blind_copies_are_keys_but_not_delivered() {
        let (mut cc, mut bcc) = (ArrayBuf::new(), ArrayBuf::new());
        cc.push("a").push("b");
        bcc.push("c");
        let mut table = TableBuf::new();
        table.put("CC", cc.as_array()).unwrap().put("BCC", bcc.as_array()).unwrap().put("n", 1).unwrap();
        let bytes = encoded(amqp::Properties {
            headers: Some(table.as_table()),
            message_id: short("m"),
            ..Default::default()
        });
        let Copies { keys, without } = copies(&bytes).unwrap();
        assert_eq!(keys, [&b"a"[..], b"b", b"c"]);
        let without = without.unwrap();
        let left = amqp::Properties::decode(&without).unwrap();
        assert_eq!(left.message_id, short("m"));
        let names: Vec<_> =
            left.headers.unwrap().into_iter().map(|(name, _)| name.as_str().unwrap()).collect();
        assert_eq!(names, ["CC", "n"]);
        let only_cc = {
            let mut table = TableBuf::new();
            table.put("CC", cc.as_array()).unwrap();
            encoded(amqp::Properties { headers: Some(table.as_table()), ..Default::default() })
        };
        assert_eq!(copies(&only_cc).unwrap().without, None);
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
