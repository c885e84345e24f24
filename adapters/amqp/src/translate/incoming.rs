//! What comes from the broker, as messages of the neutral form.

use std::borrow::Cow;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::death::DEATHS;
use linkspan_contract::neutral::{NEUTRAL, encode};
use linkspan_contract::{Batch, Body, Deaths, Flags, Kept, Message, Millis, Properties, Span, Value};

use super::death::{forget_delays, forget_levels, put_aside, remember};
use super::header;
use super::table::inward;
use crate::levels::whole;

/// A payload of at least so many bytes is not copied.
const COPY_BELOW: usize = 32 * 1024;

/// Messages put together from deliveries.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    bytes: Vec<u8>,
    messages: Vec<Message>,
    body: Option<Body>,
}

/// How a delivery is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letter<'a> {
    /// The exchange that is the address space.
    pub(crate) topic_exchange: &'a str,
    /// For consumers of other protocols: names that were escaped on their way in are what they were.
    pub(crate) unescape: bool,
    /// To tell how long it was under way.
    pub(crate) now: Millis,
}

impl Arrived {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    /// True when the next delivery has to begin a batch of its own.
    pub(crate) fn is_full(&self, next: &Delivery) -> bool {
        self.body.is_some()
            || (!self.messages.is_empty() && (next.data.len() >= COPY_BELOW || self.bytes.len() > (1 << 20)))
    }

    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.body = None;
        if self.bytes.capacity() > (4 << 20) {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
    }

    /// The last one that was added.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Message> {
        self.messages.last_mut()
    }

    /// The messages.
    pub(crate) fn batch(&self) -> Batch<'_> {
        let batch = Batch::new(&self.bytes, &self.messages, &NEUTRAL);
        Batch { body: self.body.as_ref(), ..batch }
    }

    /// Adds a delivery, which loses its payload, and tells what is true of it.
    pub(crate) fn add(&mut self, delivery: &mut Delivery, letter: &Letter<'_>) -> Flags {
        let start = len(&self.bytes);
        let exchange = delivery.exchange.as_str();
        let address = address_of(&delivery.properties).filter(|_| exchange.is_empty());
        if exchange == letter.topic_exchange || address.is_some() {
            self.bytes.push(0);
        } else {
            self.bytes.push(1);
            self.bytes.push(u8::try_from(exchange.len()).unwrap_or(u8::MAX));
            self.bytes.extend_from_slice(exchange.as_bytes());
        }
        let name = delivery.routing_key.as_str();
        let queue = if exchange.is_empty() { whole(name) } else { None };
        let key = address.unwrap_or(queue.as_deref().unwrap_or(name).as_bytes());
        self.bytes.extend(key.iter().copied().map(linkspan_contract::address::swapped));
        let address = Span::new(start, len(&self.bytes).saturating_sub(start));
        let mut head = Message { address, ..Message::default() };
        let properties = read(&delivery.properties, letter, &mut head);
        encode(&properties, &mut self.bytes);
        let end = address.end();
        head.properties = Span::new(end, len(&self.bytes).saturating_sub(end));
        head.flags |= Flags::PROPERTIES.when(!head.properties.is_empty())
            | Flags::HEADERS.when(!properties.headers.is_empty());
        drop(properties);
        let at = len(&self.bytes);
        let data = std::mem::take(&mut delivery.data);
        if data.len() >= COPY_BELOW {
            head.payload = Span::new(at, 0);
            self.body = Some(Body::Shared(Bytes::from(data)));
        } else {
            self.bytes.extend_from_slice(&data);
            head.payload = Span::new(at, len(&self.bytes).saturating_sub(at));
        }
        head.wire = Span::new(start, len(&self.bytes).saturating_sub(start));
        self.messages.push(head);
        head.flags
    }

    /// A delivery alone, owning its bytes.
    pub(crate) fn one(delivery: &mut Delivery, letter: &Letter<'_>) -> Option<Kept> {
        let mut arrived = Self::default();
        arrived.add(delivery, letter);
        arrived.batch().keep(0..1).kept(0)
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// `<instance>:<client>` of who published it, when that was noted.
pub(crate) fn from_of(properties: &BasicProperties) -> Option<&str> {
    match properties.headers().as_ref()?.inner().get(header::FROM)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}

/// The routing key of the address that it was published to, where a queue's name hides that.
fn address_of(properties: &BasicProperties) -> Option<&[u8]> {
    address_in(properties.headers().as_ref()?)
}

fn address_in(headers: &FieldTable) -> Option<&[u8]> {
    match headers.inner().get(header::ADDRESS)? {
        AMQPValue::LongString(key) => Some(key.as_bytes()),
        _ => None,
    }
}

/// How often it was given out before, as far as the broker says.
pub(crate) fn attempt(delivery: &Delivery) -> u32 {
    let counted = delivery
        .properties
        .headers()
        .as_ref()
        .and_then(|headers| headers.inner().get("x-delivery-count"))
        .and_then(|count| inward(count).as_i64())
        .and_then(|count| u32::try_from(count).ok());
    counted.unwrap_or(0).max(u32::from(delivery.redelivered))
}

fn read<'a>(from: &'a BasicProperties, letter: &Letter<'_>, head: &mut Message) -> Properties<'a> {
    fn text(of: &Option<lapin::types::ShortString>) -> Option<Cow<'_, str>> {
        of.as_ref().map(|text| Cow::Borrowed(text.as_str()))
    }
    head.flags = Flags::DURABLE.when(*from.delivery_mode() == Some(2));
    if let Some(priority) = *from.priority() {
        head.flags |= Flags::PRIORITY;
        head.priority = priority;
    }
    let mut to = Properties {
        content_type: text(from.content_type()),
        content_encoding: text(from.content_encoding()),
        headers: Vec::new(),
        priority: *from.priority(),
        reply_to: text(from.reply_to()),
        correlation: from.correlation_id().as_ref().map(|id| Cow::Borrowed(id.as_str().as_bytes())),
        message_id: text(from.message_id()),
        timestamp: *from.timestamp(),
        kind: text(from.kind()),
        user_id: text(from.user_id()),
        app_id: text(from.app_id()),
        cluster_id: text(from.cluster_id()),
        expiration: text(from.expiration()),
        utf8_payload: None,
        subscriptions: Vec::new(),
    };
    if let Some(expiry) = to.expiration.as_ref().and_then(|text| text.parse::<u64>().ok()) {
        head.flags |= Flags::EXPIRES;
        head.expiry = expiry;
    }
    if let Some(headers) = from.headers() {
        read_headers(headers, letter, &mut to, head);
    }
    to
}

fn read_headers<'a>(
    headers: &'a FieldTable,
    letter: &Letter<'_>,
    to: &mut Properties<'a>,
    head: &mut Message,
) {
    let list = match headers.inner().get(header::LIST) {
        Some(AMQPValue::FieldArray(list)) => pairs(list.as_slice()),
        _ => Vec::new(),
    };
    let mut aside = Vec::new();
    for (name, value) in headers.inner() {
        let name = name.as_str();
        let value = inward(value);
        if let Some(name) = put_aside(name) {
            aside.push((Cow::Borrowed(name), value));
            continue;
        }
        match name {
            header::LIST | header::FROM | header::ADDRESS => {}
            header::AT => {
                let at = value.as_i64().and_then(|at| u64::try_from(at).ok()).unwrap_or(letter.now);
                head.expiry = head.expiry.saturating_sub(letter.now.saturating_sub(at));
            }
            header::USER => to.user_id = into_text(value),
            header::CONTENT_TYPE => to.content_type = into_text(value),
            header::REPLY_TO => to.reply_to = into_text(value),
            header::CORRELATION => {
                if let Value::Bytes(bytes) = value {
                    to.correlation = Some(bytes);
                }
            }
            header::PAYLOAD_FORMAT => to.utf8_payload = value.as_i64().map(|format| format != 0),
            header::RETAIN => head.flags |= Flags::RETAIN.when(value.as_bool() == Some(true)),
            _ => {
                let escaped = name.strip_prefix(header::ESCAPE);
                // One that is guarded and stands here as it is was written by the broker, whatever the list has.
                let is_listed = |(listed, _): &(Cow<'_, str>, _)| {
                    if header::is_guarded(listed) { escaped == Some(&**listed) } else { listed == name }
                };
                if !list.iter().any(is_listed) {
                    let plain = escaped.filter(|_| letter.unescape).unwrap_or(name);
                    to.headers.push((Cow::Borrowed(plain), value));
                }
            }
        }
    }
    // The list holds names as the publisher wrote them; what is guarded stays escaped for who speaks the broker's
    // own protocol.
    to.headers.extend(list.into_iter().map(|(name, value)| {
        if letter.unescape || !header::is_guarded(&name) {
            (name, value)
        } else {
            (Cow::Owned(format!("{}{name}", header::ESCAPE)), value)
        }
    }));
    forget_delays(&mut to.headers);
    forget_levels(&mut to.headers);
    let has_died = headers.contains_key(DEATHS) || !aside.is_empty();
    remember(&mut to.headers, aside);
    // The broker tells of deaths in its own words alone.
    if has_died && let Some(mut told) = Deaths::told(&to.headers) {
        if let Some(key) = address_in(headers) {
            let topic = respelled(key, Syntax::Key, Syntax::Topic);
            told.learn(&to.headers, &String::from_utf8_lossy(&topic));
        }
        told.write(&mut to.headers);
    }
}

fn pairs(list: &[AMQPValue]) -> Vec<(Cow<'_, str>, Value<'_>)> {
    list.chunks_exact(2)
        .filter_map(|pair| match pair {
            [name, value] => Some((into_text(inward(name))?, inward(value))),
            _ => None,
        })
        .collect()
}

fn into_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::ShortString;
    use linkspan_contract::neutral::Draft;
    use linkspan_contract::{OwnedBatch, Refused};

    use super::super::{Sender, outgoing};
    use super::*;

    const SENDER: Sender<'static> = Sender {
        account: "guest",
        from: None,
        by_name: false,
        terms: None,
        is_delayed: false,
        now: 1000,
        frame_max: 65_536,
        body_limit: 100,
    };

    fn draft(properties: &Properties<'_>, head: Message) -> std::sync::Arc<OwnedBatch> {
        let payload = Body::Shared(Bytes::from_static(b"p"));
        Draft { exchange: None, topic: b"a/b", properties, payload, head }.build()
    }

    fn there(properties: &Properties<'_>, head: Message) -> Result<BasicProperties, Refused> {
        let owned = draft(properties, head);
        let batch = owned.batch();
        outgoing(&batch, batch.message(0).unwrap(), &SENDER)
    }

    fn back(properties: BasicProperties, unescape: bool) -> (Message, Properties<'static>) {
        let name = |text: &str| ShortString::try_new(text).unwrap();
        let mut delivery = Delivery::mock(1, name("amq.topic"), name("a.b"), false, b"p".to_vec());
        delivery.properties = properties;
        let letter = Letter { topic_exchange: "amq.topic", unescape, now: 1500 };
        let kept = Arrived::one(&mut delivery, &letter).unwrap();
        assert_eq!(kept.payload(), Some(&b"p"[..]));
        assert_eq!((kept.address().exchange, kept.address().path), (None, &b"a/b"[..]));
        (kept.message(), kept.properties().unwrap().into_owned())
    }

    #[test]
    fn what_a_device_says_comes_back_in_its_order_with_its_duplicates() {
        let properties = Properties {
            content_type: Some("t".repeat(300).into()),
            correlation: Some(b"\xff\0"[..].into()),
            reply_to: Some("r".repeat(300).into()),
            utf8_payload: Some(true),
            headers: vec![
                ("z".into(), Value::Text("1".into())),
                ("CC".into(), Value::Text("evil".into())),
                ("CC".into(), Value::Text("more".into())),
                ("a".into(), Value::Text("2".into())),
            ],
            ..Properties::default()
        };
        let head = Message { flags: Flags::DURABLE | Flags::RETAIN, ..Message::default() };
        let sent = there(&properties, head).unwrap();
        let headers = sent.headers().as_ref().unwrap().inner();
        assert!(!headers.contains_key("CC"), "it would be a routing key");
        assert!(headers.contains_key("mqtt.CC"));
        let (message, got) = back(sent.clone(), true);
        assert_eq!(got, properties);
        assert!(message.flags.has(Flags::DURABLE | Flags::RETAIN));
        let (_, native) = back(sent, false);
        let names: Vec<_> = native.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["z", "mqtt.CC", "mqtt.CC", "a"]);
    }

    #[test]
    fn what_a_dead_letter_tells_of_its_death_passes_and_what_is_forged_does_not() {
        let text = |text: &'static str| Value::Text(text.into());
        let death = |queue| Value::Array(vec![Value::Table(vec![("queue".into(), text(queue))])]);
        let carried = vec![
            ("z".into(), text("1")),
            ("x-death".into(), text("forged")),
            ("x-death".into(), death("jobs")),
            ("x-first-death-queue".into(), text("jobs")),
            ("x-last-death-queue".into(), text("forged")),
        ];
        let properties = Properties { headers: carried, ..Properties::default() };
        let sent = there(&properties, Message::default()).unwrap();
        let headers = sent.headers().as_ref().unwrap().inner();
        assert!(matches!(headers.get("x-death"), Some(AMQPValue::FieldArray(_))), "{headers:?}");
        assert!(headers.contains_key("x-first-death-queue"));
        assert!(!headers.contains_key("x-last-death-queue"));
        let (_, native) = back(sent.clone(), false);
        let mut names: Vec<_> = native.headers.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let forged = ["mqtt.x-death", "mqtt.x-last-death-queue"];
        assert_eq!(names, [&forged[..], &["x-death", "x-first-death-queue", "z"]].concat());
        assert_eq!(native.header("x-death"), Some(&death("jobs")));
        // carried once more
        let (_, told) = back(sent, true);
        let again = there(&told, Message::default()).unwrap();
        assert_eq!(back(again, false).1.header("x-death"), Some(&death("jobs")));
    }

    #[test]
    fn a_dead_letter_of_a_queue_that_was_published_to_by_name_tells_its_address() {
        let text = |text: &'static str| Value::Text(text.into());
        let death = Value::Table(vec![
            ("count".into(), Value::I64(1)),
            ("reason".into(), text("rejected")),
            ("queue".into(), text("jobs")),
            ("time".into(), Value::Timestamp(7)),
            ("exchange".into(), text("")),
            ("routing-keys".into(), Value::Array(vec![text("jobs")])),
        ]);
        let headers = vec![("x-death".into(), Value::Array(vec![death]))];
        let owned = draft(&Properties { headers, ..Properties::default() }, Message::default());
        let batch = owned.batch();
        let by_name = Sender { by_name: true, ..SENDER };
        let sent = outgoing(&batch, batch.message(0).unwrap(), &by_name).unwrap();
        let (_, told) = back(sent, false);
        for name in ["linkspan-dead-first-address", "linkspan-dead-last-address"] {
            assert_eq!(told.header(name), Some(&text("a/b")), "{name}");
        }
        // Carried to its address, it has another one.
        let carried = draft(&told, Message::default());
        let batch = carried.batch();
        let mut sent = outgoing(&batch, batch.message(0).unwrap(), &by_name).unwrap();
        let mut headers = sent.headers().clone().unwrap();
        headers
            .insert(ShortString::try_new(header::ADDRESS).unwrap(), AMQPValue::LongString("failed".into()));
        sent = sent.with_headers(headers);
        assert_eq!(back(sent, false).1.header("linkspan-dead-last-address"), Some(&text("a/b")));
    }

    #[test]
    fn what_was_replayed_and_died_again_tells_of_both_deaths_though_the_broker_forgets_the_first() {
        let text = |text: &'static str| Value::Text(text.into());
        let death = |time| {
            let fields = [
                ("count", Value::I64(1)),
                ("reason", text("rejected")),
                ("queue", text("jobs")),
                ("time", Value::Timestamp(time)),
            ];
            let fields = fields.map(|(name, value)| (name.into(), value));
            ("x-death".into(), Value::Array(vec![Value::Table(fields.into())]))
        };
        let mut replayed = vec![death(7)];
        linkspan_contract::death::replay(&mut replayed);
        let sent =
            there(&Properties { headers: replayed, ..Properties::default() }, Message::default()).unwrap();
        assert_eq!(back(sent.clone(), false).1.header("linkspan-dead-count"), Some(&Value::I64(1)));
        let again = Properties { headers: vec![death(9)], ..Properties::default() };
        let again = there(&again, Message::default()).unwrap().headers().clone().unwrap();
        let mut headers = sent.headers().clone().unwrap();
        assert!(!headers.inner().contains_key("x-death"), "the broker would forget it");
        for (name, value) in again.inner() {
            headers.insert(name.clone(), value.clone());
        }
        let (_, told) = back(sent.with_headers(headers), false);
        for (name, value) in [("count", 2), ("replays", 1), ("time", 7)] {
            assert_eq!(told.header(&format!("linkspan-dead-{name}")), Some(&Value::I64(value)), "{name}");
        }
    }

    #[test]
    fn an_expiry_is_clamped_and_runs_on() {
        let head = Message { flags: Flags::EXPIRES, expiry: 0x0FFF_FFFF_F000, ..Message::default() };
        let sent = there(&Properties::default(), head).unwrap();
        assert_eq!(sent.expiration().as_ref().unwrap().as_str(), "4294967295");
        let head = Message { expiry: 2000, ..head };
        let (message, got) = back(there(&Properties::default(), head).unwrap(), false);
        assert_eq!(message.expiry, 1500, "half a second of it is over");
        assert_eq!(got.headers, []);
    }

    #[test]
    fn only_the_account_is_claimed_to_the_broker() {
        let claim = |user: &'static str| Properties { user_id: Some(user.into()), ..Properties::default() };
        assert!(there(&claim("guest"), Message::default()).unwrap().user_id().is_some());
        let sent = there(&claim("root"), Message::default()).unwrap();
        assert!(sent.user_id().is_none());
        assert_eq!(back(sent, true).1.user_id, None, "nor to anybody else");
    }

    #[test]
    fn what_the_broker_would_close_a_channel_for_is_refused() {
        let long = Properties { message_id: Some("m".repeat(256).into()), ..Properties::default() };
        assert!(matches!(there(&long, Message::default()), Err(Refused::Precondition(_))));
        let header = ("h".into(), Value::Text("x".repeat(70_000).into()));
        let wide = Properties { headers: vec![header], ..Properties::default() };
        assert!(matches!(there(&wide, Message::default()), Err(Refused::TooLarge(_))));
        let owned = draft(&Properties::default(), Message::default());
        let batch = owned.batch();
        let small = Sender { body_limit: 0, ..SENDER };
        let refused = outgoing(&batch, batch.message(0).unwrap(), &small);
        assert!(matches!(refused, Err(Refused::TooLarge(_))));
    }
}
