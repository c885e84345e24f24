//! What a published message's properties ask of the broker, as RabbitMQ reads them.

use linkspan_contract::Flags;

use crate::protocol::amqp::{self, Error, Expiration, ReplyCode, Summary, TableBuf, basic};

use super::super::failure::Failure;
use super::properties::RETAIN;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::{ArrayBuf, ShortBytes};

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
}
