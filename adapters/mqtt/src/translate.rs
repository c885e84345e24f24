//! Messages as MQTT 5 packets, and back.
//!
//! What MQTT has no word for travels as a user property ([`textual`]). MQTT 3.1.1 carries topic, payload, QoS and RETAIN: all
//! properties, the expiry among them, are lost there.

use std::borrow::Cow;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use linkspan_contract::neutral::{self, NEUTRAL};
use linkspan_contract::textual::{self, Textual};
use linkspan_contract::{
    Batch, Body, Flags, Kept, Message, Millis, OwnedBatch, Properties, Refused, Span, TargetId, Value,
};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::upstream::packet::{Incoming, Outgoing, Version};

/// Says which client of which Linkspan instance published a message; taken off again here.
pub(crate) const ORIGIN: &str = "linkspan-origin";

/// Payloads longer than this are not copied into a batch.
pub(crate) const APART_FROM: usize = 32 * 1024;

/// A published message as a packet to `topic`: with its properties unless MQTT 3.1.1 is spoken. `origin` says who
/// published it, where the broker has to tell that.
///
/// # Errors
/// When it cannot be one.
pub(crate) fn outgoing(
    batch: &Batch<'_>,
    message: &Message,
    topic: &Arc<str>,
    version: Version,
    origin: Option<&str>,
    now: Millis,
) -> Result<Outgoing, Refused> {
    let payload = match batch.body {
        None => Bytes::copy_from_slice(message.payload.of(batch.bytes)),
        Some(Body::Shared(body)) => body.clone(),
        Some(Body::Stored(_)) => {
            let why = "the payload is not in memory, and an MQTT packet has to be";
            return Err(Refused::TooLarge(why.into()));
        }
    };
    let properties = match version {
        Version::V311 => None,
        Version::V5 => Some(Box::new(properties_of(batch, message, origin)?)),
    };
    let expires = message.flags.has(Flags::EXPIRES).then(|| now.saturating_add(message.expiry.max(1)));
    Ok(Outgoing {
        topic: Arc::clone(topic),
        payload,
        properties,
        acknowledged: message.flags.any(Flags::DURABLE | Flags::RECEIPT | Flags::MANDATORY),
        retain: message.flags.has(Flags::RETAIN),
        expires,
    })
}

fn properties_of(
    batch: &Batch<'_>,
    message: &Message,
    origin: Option<&str>,
) -> Result<PublishProperties, Refused> {
    let mut to = PublishProperties::default();
    if message.flags.has(Flags::PROPERTIES) {
        let from = batch.properties(message).map_err(|error| Refused::Precondition(error.to_string()))?;
        put(&from, &mut to);
    }
    to.user_properties.extend(origin.map(|origin| (ORIGIN.into(), origin.into())));
    Ok(to)
}

/// What MQTT 5 can say of neutral properties.
fn put(from: &Properties<'_>, to: &mut PublishProperties) {
    let said = Textual::of(from);
    to.payload_format_indicator = said.utf8_payload.map(u8::from);
    to.response_topic = said.reply_to.map(String::from);
    to.correlation_data = said.correlation.map(Bytes::copy_from_slice);
    to.content_type = said.content_type.map(String::from);
    let Ok(()) = said.pairs(|name, value| {
        if name != ORIGIN {
            to.user_properties.push((name.into(), value.into()));
        }
        Ok::<_, Infallible>(())
    });
}

/// Who published a message that came, when that is told.
pub(crate) fn origin(message: &Incoming) -> Option<&str> {
    let user = &message.properties.as_deref()?.user_properties;
    user.iter().rev().find(|(name, _)| name == ORIGIN).map(|(_, value)| value.as_str())
}

/// What came, for everybody.
fn neutral_of(from: &PublishProperties) -> Properties<'_> {
    let mut to = Properties {
        content_type: from.content_type.as_deref().map(Cow::Borrowed),
        reply_to: from.response_topic.as_deref().map(Cow::Borrowed),
        correlation: from.correlation_data.as_deref().map(Cow::Borrowed),
        utf8_payload: from.payload_format_indicator.map(|format| format == 1),
        ..Properties::default()
    };
    for (name, value) in &from.user_properties {
        if name != ORIGIN && !(name.starts_with("amqp-") && textual::restore(&mut to, name, value)) {
            to.headers.push((Cow::Borrowed(name), Value::Text(Cow::Borrowed(value))));
        }
    }
    to
}

/// Appends a message that came to a batch in the making. A payload of [`APART_FROM`] bytes or more is left out: it goes
/// beside the batch.
pub(crate) fn append(message: &Incoming, target: TargetId, bytes: &mut Vec<u8>, messages: &mut Vec<Message>) {
    put_down(message, target, |_| Vec::new(), bytes, messages);
}

/// Like [`append`], for the client whose own session a message came by: which of its subscriptions it came for is told.
pub(crate) fn append_for_client(message: &Incoming, bytes: &mut Vec<u8>, messages: &mut Vec<Message>) {
    let number = |id: &usize| u32::try_from(*id).ok().and_then(NonZeroU32::new);
    let subscriptions =
        |said: &PublishProperties| said.subscription_identifiers.iter().filter_map(number).collect();
    put_down(message, TargetId::default(), subscriptions, bytes, messages);
}

fn put_down(
    message: &Incoming,
    target: TargetId,
    subscriptions: impl FnOnce(&PublishProperties) -> Vec<NonZeroU32>,
    bytes: &mut Vec<u8>,
    messages: &mut Vec<Message>,
) {
    let start = len(bytes);
    bytes.push(0);
    bytes.extend_from_slice(&message.topic);
    let address = Span::new(start, len(bytes) - start);
    let mut head = Message { target, address, ..Message::default() };
    if let Some(properties) = message.properties.as_deref() {
        let mut said = neutral_of(properties);
        said.subscriptions = subscriptions(properties);
        head.flags |= Flags::HEADERS.when(!said.headers.is_empty());
        if let Some(priority) = said.priority {
            head.priority = priority;
            head.flags |= Flags::PRIORITY;
        }
        if let Some(seconds) = properties.message_expiry_interval {
            head.expiry = u64::from(seconds) * 1000;
            head.flags |= Flags::EXPIRES;
        }
        neutral::encode(&said, bytes);
    }
    head.properties = Span::new(address.end(), len(bytes) - address.end());
    head.flags |= Flags::PROPERTIES.when(!head.properties.is_empty())
        | Flags::DURABLE.when(message.packet_id.is_some())
        | Flags::RETAIN.when(message.retain);
    head.payload = Span::new(len(bytes), 0);
    if message.payload.len() < APART_FROM {
        bytes.extend_from_slice(&message.payload);
        head.payload.len = len(bytes) - head.payload.start;
    }
    head.wire = Span::new(start, len(bytes) - start);
    messages.push(head);
}

/// A message that came, on its own.
pub(crate) fn kept(message: &Incoming) -> Option<Kept> {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    append(message, TargetId::default(), &mut bytes, &mut messages);
    let body = (message.payload.len() >= APART_FROM).then(|| Body::Shared(message.payload.clone()));
    OwnedBatch::new(bytes.into(), messages.into(), body, &NEUTRAL).kept(0)
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use linkspan_contract::neutral::Draft;

    use super::*;

    fn there_and_back(properties: &Properties<'_>, head: Message, payload: &[u8]) -> (Outgoing, Kept) {
        let payload = Body::Shared(Bytes::copy_from_slice(payload));
        let owned = Draft { exchange: None, topic: b"a/b", properties, payload, head }.build();
        let (batch, topic) = (owned.batch(), "a/b".into());
        let sent = outgoing(&batch, &batch.messages[0], &topic, Version::V5, Some("here/1"), 0).unwrap();
        let came = Incoming {
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            payload: sent.payload.clone(),
            properties: sent.properties.clone(),
            packet_id: sent.acknowledged.then_some(1),
            exactly_once: false,
            repeated: false,
            retain: sent.retain,
        };
        assert_eq!(origin(&came), Some("here/1"));
        let kept = kept(&came).unwrap();
        (sent, kept)
    }

    #[test]
    fn properties_of_either_protocol_come_back_as_they_were() {
        let properties = Properties {
            content_type: Some("text/plain".into()),
            content_encoding: Some("gzip".into()),
            headers: vec![
                ("x".into(), Value::Text("1".into())),
                ("x".into(), Value::Text("2".into())),
                ("type".into(), Value::Text("mine".into())),
            ],
            priority: Some(7),
            reply_to: Some("answers/1".into()),
            correlation: Some(b"\x00\xff"[..].into()),
            message_id: Some("m-1".into()),
            timestamp: Some(1_700_000_000),
            kind: Some("order".into()),
            user_id: Some("guest".into()),
            app_id: Some("app".into()),
            cluster_id: None,
            expiration: Some("5000".into()),
            utf8_payload: Some(true),
            subscriptions: Vec::new(),
        };
        let head = Message { flags: Flags::DURABLE | Flags::RETAIN, ..Message::default() };
        let (sent, kept) = there_and_back(&properties, head, b"payload");
        assert!(sent.acknowledged && sent.retain);
        assert_eq!(kept.properties().unwrap(), properties, "and the origin is taken off");
        assert_eq!((&*kept.address().topic(), kept.payload()), (&b"a/b"[..], Some(&b"payload"[..])));
        assert!(kept.message().flags.has(Flags::DURABLE | Flags::HEADERS | Flags::PRIORITY));
    }

    #[test]
    fn what_mqtt_cannot_say_is_left_out_and_a_queue_to_answer_to_is_no_topic() {
        let properties = Properties {
            content_type: Some("a\0b".into()),
            reply_to: Some("amq.rabbitmq.reply-to.#".into()),
            headers: vec![("n\0".into(), Value::Void), ("x-retain".into(), Value::Bool(true))],
            ..Properties::default()
        };
        let (sent, kept) = there_and_back(&properties, Message::default(), b"");
        let said = sent.properties.unwrap();
        assert_eq!((said.content_type, said.response_topic), (None, None));
        let read = kept.properties().unwrap();
        assert_eq!(read.reply_to.as_deref(), Some("amq.rabbitmq.reply-to.#"));
        assert_eq!(read.headers, []);
    }

    #[test]
    fn a_large_payload_is_not_copied_into_the_batch() {
        let payload = vec![7; APART_FROM];
        let (_, kept) = there_and_back(&Properties::default(), Message::default(), &payload);
        assert_eq!(kept.payload(), Some(&payload[..]));
        assert!(kept.message().payload.is_empty());
    }

    #[test]
    fn towards_mqtt_3_1_1_there_are_no_properties() {
        let owned = Draft {
            exchange: None,
            topic: b"t",
            properties: &Properties { message_id: Some("m".into()), ..Properties::default() },
            payload: Body::Shared(Bytes::new()),
            head: Message::default(),
        }
        .build();
        let batch = owned.batch();
        let sent =
            outgoing(&batch, &batch.messages[0], &"t".into(), Version::V311, Some("here/1"), 0).unwrap();
        assert!(sent.properties.is_none());
    }
}
