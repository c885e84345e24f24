//! The form of messages that Linkspan itself puts together: from HTTP, with changed properties, or dead-lettered.
//!
//! Address: `1` with an exchange or `0`, then its name (one length byte), then the path in MQTT's spelling.
//! Properties: a field number, then its value; texts and lists carry a 32-bit length; all numbers big-endian.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::address::{Address, Syntax};
use crate::batch::OwnedBatch;
use crate::body::Body;
use crate::form::{Malformed, WireForm};
use crate::message::{Flags, Message, Span};
use crate::properties::Properties;
use crate::value::Value;

/// The form itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neutral;

/// [`Neutral`]'s one value.
pub static NEUTRAL: Neutral = Neutral;

/// A message to be built from its parts.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// The exchange it counts as published to; `None` is the address space.
    pub exchange: Option<&'a [u8]>,
    /// The path in MQTT's spelling.
    pub topic: &'a [u8],
    /// What the publisher says about it.
    pub properties: &'a Properties<'a>,
    /// The payload.
    pub payload: Body,
    /// Target, flags, priority and expiry; the spans do not matter.
    pub head: Message,
}

/// Payloads longer than this stay in their own buffer when a message is put together.
const COPY_BELOW: u64 = 32 * 1024;

impl Draft<'_> {
    /// The message as a batch of one that owns its bytes.
    pub fn build(self) -> Arc<OwnedBatch> {
        let mut bytes = Vec::new();
        match self.exchange {
            Some(name) => {
                let name = name.get(..usize::from(u8::MAX)).unwrap_or(name);
                bytes.extend([1, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
                bytes.extend_from_slice(name);
            }
            None => bytes.push(0),
        }
        bytes.extend_from_slice(self.topic);
        let address = Span::new(0, len(&bytes));
        encode(self.properties, &mut bytes);
        let properties = Span::new(address.end(), len(&bytes).saturating_sub(address.end()));
        let (payload, body) = match self.payload {
            Body::Shared(payload) if (payload.len() as u64) < COPY_BELOW => {
                let start = len(&bytes);
                bytes.extend_from_slice(&payload);
                (Span::new(start, len(&payload)), None)
            }
            body => (Span::new(len(&bytes), 0), Some(body)),
        };
        let flags = self.head.flags.without(Flags::PROPERTIES | Flags::HEADERS)
            | Flags::PROPERTIES.when(!properties.is_empty())
            | Flags::HEADERS.when(!self.properties.headers.is_empty());
        let message =
            Message { flags, wire: Span::new(0, len(&bytes)), address, properties, payload, ..self.head };
        OwnedBatch::new(bytes.into(), Box::new([message]), body, &NEUTRAL)
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

impl WireForm for Neutral {
    fn id(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        "neutral"
    }

    fn address<'a>(&self, encoded: &'a [u8]) -> Address<'a> {
        let (exchange, path) = match encoded {
            [1, len, rest @ ..] => match rest.split_at_checked(usize::from(*len)) {
                Some((exchange, path)) => (Some(exchange), path),
                None => (None, &[][..]),
            },
            [_, path @ ..] => (None, path),
            [] => (None, encoded),
        };
        Address { exchange, path, syntax: Syntax::Topic }
    }

    fn properties<'a>(&self, encoded: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        decode(encoded)
            .ok_or_else(|| Malformed { form: "neutral", what: "a field is cut off or unknown".into() })
    }
}

/// Appends `properties` in the neutral form.
pub fn encode(properties: &Properties<'_>, out: &mut Vec<u8>) {
    let texts = [
        (1, &properties.content_type),
        (2, &properties.content_encoding),
        (3, &properties.reply_to),
        (4, &properties.message_id),
        (5, &properties.kind),
        (6, &properties.user_id),
        (7, &properties.app_id),
        (8, &properties.cluster_id),
        (9, &properties.expiration),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            out.push(field);
            put_bytes(text.as_bytes(), out);
        }
    }
    if let Some(correlation) = &properties.correlation {
        out.push(10);
        put_bytes(correlation, out);
    }
    if let Some(priority) = properties.priority {
        out.extend([11, priority]);
    }
    if let Some(timestamp) = properties.timestamp {
        out.push(12);
        out.extend(timestamp.to_be_bytes());
    }
    if let Some(utf8) = properties.utf8_payload {
        out.extend([13, u8::from(utf8)]);
    }
    for subscription in &properties.subscriptions {
        out.push(15);
        out.extend(subscription.get().to_be_bytes());
    }
    for (name, value) in &properties.headers {
        out.push(14);
        put_bytes(name.as_bytes(), out);
        put_value(value, out);
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(len(bytes).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_value(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Void => out.push(0),
        Value::Bool(v) => out.extend([1, u8::from(*v)]),
        Value::I8(v) => out.extend([2, v.to_be_bytes()[0]]),
        Value::U8(v) => out.extend([3, *v]),
        Value::I16(v) => put_number(4, &v.to_be_bytes(), out),
        Value::U16(v) => put_number(5, &v.to_be_bytes(), out),
        Value::I32(v) => put_number(6, &v.to_be_bytes(), out),
        Value::U32(v) => put_number(7, &v.to_be_bytes(), out),
        Value::I64(v) => put_number(8, &v.to_be_bytes(), out),
        Value::F32(v) => put_number(9, &v.to_be_bytes(), out),
        Value::F64(v) => put_number(10, &v.to_be_bytes(), out),
        Value::Decimal { scale, value } => {
            out.extend([11, *scale]);
            out.extend(value.to_be_bytes());
        }
        Value::Text(v) => {
            out.push(12);
            put_bytes(v.as_bytes(), out);
        }
        Value::LongString(v) => {
            out.push(13);
            put_bytes(v, out);
        }
        Value::Bytes(v) => {
            out.push(14);
            put_bytes(v, out);
        }
        Value::Timestamp(v) => put_number(15, &v.to_be_bytes(), out),
        Value::Array(items) => {
            put_number(16, &u32::try_from(items.len()).unwrap_or(u32::MAX).to_be_bytes(), out);
            for item in items {
                put_value(item, out);
            }
        }
        Value::Table(fields) => {
            put_number(17, &u32::try_from(fields.len()).unwrap_or(u32::MAX).to_be_bytes(), out);
            for (name, value) in fields {
                put_bytes(name.as_bytes(), out);
                put_value(value, out);
            }
        }
    }
}

fn put_number(kind: u8, number: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(number);
}

fn decode(encoded: &[u8]) -> Option<Properties<'_>> {
    let mut from = encoded;
    let from = &mut from;
    let mut properties = Properties::default();
    while !from.is_empty() {
        match take::<1>(from)?[0] {
            1 => properties.content_type = Some(text(from)?),
            2 => properties.content_encoding = Some(text(from)?),
            3 => properties.reply_to = Some(text(from)?),
            4 => properties.message_id = Some(text(from)?),
            5 => properties.kind = Some(text(from)?),
            6 => properties.user_id = Some(text(from)?),
            7 => properties.app_id = Some(text(from)?),
            8 => properties.cluster_id = Some(text(from)?),
            9 => properties.expiration = Some(text(from)?),
            10 => properties.correlation = Some(Cow::Borrowed(bytes(from)?)),
            11 => properties.priority = Some(take::<1>(from)?[0]),
            12 => properties.timestamp = Some(u64::from_be_bytes(take(from)?)),
            13 => properties.utf8_payload = Some(take::<1>(from)?[0] != 0),
            15 => properties.subscriptions.push(NonZeroU32::new(u32::from_be_bytes(take(from)?))?),
            14 => properties.headers.push((text(from)?, value(from, 0)?)),
            _ => return None,
        }
    }
    Some(properties)
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_be_bytes(take(from)?);
    let (head, rest) = from.split_at_checked(len as usize)?;
    *from = rest;
    Some(head)
}

fn text<'a>(from: &mut &'a [u8]) -> Option<Cow<'a, str>> {
    std::str::from_utf8(bytes(from)?).ok().map(Cow::Borrowed)
}

/// Deeper nesting than this is no message of ours.
const MAX_DEPTH: usize = 128;

fn value<'a>(from: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    if depth > MAX_DEPTH {
        return None;
    }
    Some(match take::<1>(from)?[0] {
        0 => Value::Void,
        1 => Value::Bool(take::<1>(from)?[0] != 0),
        2 => Value::I8(i8::from_be_bytes(take(from)?)),
        3 => Value::U8(take::<1>(from)?[0]),
        4 => Value::I16(i16::from_be_bytes(take(from)?)),
        5 => Value::U16(u16::from_be_bytes(take(from)?)),
        6 => Value::I32(i32::from_be_bytes(take(from)?)),
        7 => Value::U32(u32::from_be_bytes(take(from)?)),
        8 => Value::I64(i64::from_be_bytes(take(from)?)),
        9 => Value::F32(f32::from_be_bytes(take(from)?)),
        10 => Value::F64(f64::from_be_bytes(take(from)?)),
        11 => Value::Decimal { scale: take::<1>(from)?[0], value: u32::from_be_bytes(take(from)?) },
        12 => Value::Text(text(from)?),
        13 => Value::LongString(Cow::Borrowed(bytes(from)?)),
        14 => Value::Bytes(Cow::Borrowed(bytes(from)?)),
        15 => Value::Timestamp(u64::from_be_bytes(take(from)?)),
        16 => {
            let items = u32::from_be_bytes(take(from)?);
            Value::Array((0..items).map(|_| value(from, depth + 1)).collect::<Option<_>>()?)
        }
        17 => {
            let fields = u32::from_be_bytes(take(from)?);
            let field = |_| Some((text(from)?, value(from, depth + 1)?));
            Value::Table((0..fields).map(field).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn full() -> Properties<'static> {
        let nested = Value::Table(vec![
            ("list".into(), Value::Array(vec![Value::I64(-1), Value::Void, Value::Bool(true)])),
            ("decimal".into(), Value::Decimal { scale: 2, value: 314 }),
        ]);
        Properties {
            content_type: Some("text/plain".into()),
            content_encoding: Some("gzip".into()),
            headers: vec![
                ("x".into(), Value::Text("1".into())),
                ("x".into(), Value::Text("2".into())),
                ("nested".into(), nested),
                ("bytes".into(), Value::Bytes(b"\0\xff"[..].into())),
                ("raw".into(), Value::LongString(b"\xfe"[..].into())),
                ("when".into(), Value::Timestamp(1)),
            ],
            priority: Some(9),
            reply_to: Some("q".into()),
            correlation: Some(b"\x00\x01"[..].into()),
            message_id: Some("m".into()),
            timestamp: Some(1_700_000_000),
            kind: Some("order".into()),
            user_id: Some("guest".into()),
            app_id: Some("app".into()),
            cluster_id: Some("c".into()),
            expiration: Some("5000".into()),
            utf8_payload: Some(true),
            subscriptions: vec![NonZeroU32::MIN],
        }
    }

    #[test]
    fn properties_come_back_as_they_were() {
        for properties in [full(), Properties::default()] {
            let mut encoded = Vec::new();
            encode(&properties, &mut encoded);
            assert_eq!(NEUTRAL.properties(&encoded).unwrap(), properties);
        }
    }

    #[test]
    fn cut_off_properties_are_malformed_and_never_panic() {
        let mut encoded = Vec::new();
        encode(&full(), &mut encoded);
        let whole = (0..encoded.len()).filter(|end| NEUTRAL.properties(&encoded[..*end]).is_ok()).count();
        assert!(whole < 25, "only cuts between fields are valid, {whole} were");
    }

    #[test]
    fn a_built_message_reads_back() {
        let properties = full();
        for (exchange, size) in [(None, 3), (Some(&b"amq.direct"[..]), 100_000)] {
            let payload = Body::Shared(Bytes::from(vec![7; size]));
            let head = Message { flags: Flags::DURABLE, ..Message::default() };
            let owned = Draft { exchange, topic: b"a/b", properties: &properties, payload, head }.build();
            let kept = owned.kept(0).unwrap();
            assert_eq!(kept.address().exchange, exchange);
            assert_eq!(&*kept.address().key(), b"a.b");
            assert_eq!(kept.properties().unwrap(), properties);
            assert_eq!(kept.payload().unwrap(), vec![7; size]);
            assert_eq!(kept.payload_len(), size as u64);
            assert!(kept.message().flags.has(Flags::DURABLE | Flags::HEADERS));
        }
    }
}
