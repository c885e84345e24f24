//! What goes out to the broker, and what must not: one message must not close a channel that others share.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use linkspan_contract::death::replays;
use linkspan_contract::{Batch, Flags, Message, Millis, Properties, Refused, Terms, Value};

use super::death::{aside, is_of_death};
use super::header;
use super::table::{name_of, outward};

/// Who publishes, and what the broker takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// The account that Linkspan has at the broker: the only user that a message may claim to be from.
    pub(crate) account: &'a str,
    /// `<instance>:<client>` of a client that wants nothing of its own back.
    pub(crate) from: Option<&'a str>,
    /// It is put into a queue by name, which hides the address that it was published to.
    pub(crate) by_name: bool,
    /// What its route says of that queue.
    pub(crate) terms: Option<&'a Terms>,
    /// It waits in another queue first: there its own expiry would end that.
    pub(crate) is_delayed: bool,
    /// When it was published.
    pub(crate) now: Millis,
    /// Bytes of the largest header frame.
    pub(crate) frame_max: u32,
    /// Bytes of the largest payload.
    pub(crate) body_limit: u64,
}

/// RabbitMQ's greatest time to live, in milliseconds.
const LONGEST: u64 = u32::MAX as u64;

/// What a frame holds beside the headers: its own bytes, and the other properties at their longest.
const RESERVE: usize = 3200;

/// The broker takes no payload of so many bytes.
pub(crate) fn too_large(size: u64, limit: u64) -> Refused {
    Refused::TooLarge(format!("the payload has {size} bytes, and the back end takes {limit}"))
}

/// The properties of a message as the broker gets them.
///
/// # Errors
/// When the broker would not take it.
pub(crate) fn outgoing(
    batch: &Batch<'_>,
    message: &Message,
    sender: &Sender<'_>,
) -> Result<BasicProperties, Refused> {
    let len = batch.payload_len(message);
    if len > sender.body_limit {
        return Err(too_large(len, sender.body_limit));
    }
    let flags = message.flags;
    let mut to = BasicProperties::default().with_delivery_mode(if flags.has(Flags::DURABLE) { 2 } else { 1 });
    let mut headers = FieldTable::default();
    let native = batch.form.name() == header::NATIVE_FORM;
    if flags.has(Flags::PROPERTIES) {
        let from = batch.properties(message).map_err(|why| Refused::Precondition(why.to_string()))?;
        to = texts(to, &from, sender, native, &mut headers)?;
        if flags.has(Flags::HEADERS) {
            fields(&from, native, sender.is_delayed, &mut headers)?;
        }
    }
    if flags.has(Flags::PRIORITY) {
        to = to.with_priority(message.priority);
    } else if let Some(priorities) = sender.terms.and_then(|terms| terms.priorities.as_ref()) {
        to = to.with_priority(priorities.of(batch, message));
    }
    if flags.has(Flags::EXPIRES) && !sender.is_delayed {
        to = to.with_expiration(short(&message.expiry.min(LONGEST).to_string())?);
        if !native {
            let now = i64::try_from(sender.now).unwrap_or(i64::MAX);
            headers.insert(short(header::AT)?, AMQPValue::LongLongInt(now));
        }
    }
    if flags.has(Flags::RETAIN) {
        headers.insert(short(header::RETAIN)?, AMQPValue::Boolean(true));
    }
    let address = batch.address(message);
    if sender.by_name && address.exchange.is_none() {
        headers.insert(short(header::ADDRESS)?, AMQPValue::LongString((&*address.key()).into()));
    }
    if let Some(from) = sender.from {
        headers.insert(short(header::FROM)?, AMQPValue::LongString(from.into()));
    }
    if !headers.inner().is_empty() {
        let size = size_of_table(&headers).saturating_add(RESERVE);
        if size > sender.frame_max as usize {
            return Err(Refused::TooLarge(format!(
                "the headers take {size} bytes, and the back end's broker takes {}",
                sender.frame_max
            )));
        }
        to = to.with_headers(headers);
    }
    Ok(to)
}

/// What a client of the broker's own protocol is told when a message that it wants no receipt for is refused: its channel
/// is closed. Others have no word for it.
pub(crate) fn channel_error(batch: &Batch<'_>, why: &Refused) -> Option<(u16, String)> {
    let at_fault =
        matches!(why, Refused::Precondition(_) | Refused::AddressInvalid(_) | Refused::TooLarge(_));
    (at_fault && batch.form.name() == header::NATIVE_FORM)
        .then(|| (406, format!("PRECONDITION_FAILED - {why}")))
}

/// `sent` with the time of publishing that `other` carries, to compare the two.
pub(crate) fn with_time_of(sent: BasicProperties, other: &BasicProperties) -> BasicProperties {
    let time = other.headers().as_ref().and_then(|headers| headers.inner().get(header::AT));
    match (time, sent.headers()) {
        (Some(time), Some(headers)) if headers.contains_key(header::AT) => {
            let mut headers = headers.clone();
            if let Ok(name) = short(header::AT) {
                headers.insert(name, time.clone());
            }
            sent.clone().with_headers(headers)
        }
        _ => sent,
    }
}

fn texts(
    mut to: BasicProperties,
    from: &Properties<'_>,
    sender: &Sender<'_>,
    native: bool,
    headers: &mut FieldTable,
) -> Result<BasicProperties, Refused> {
    if let Some(text) = &from.content_type {
        match ShortString::try_new(&**text) {
            Ok(text) => to = to.with_content_type(text),
            Err(_) => {
                _ = headers
                    .insert(short(header::CONTENT_TYPE)?, AMQPValue::LongString(text.as_bytes().into()))
            }
        }
    }
    if let Some(text) = &from.reply_to {
        match ShortString::try_new(&**text) {
            Ok(text) => to = to.with_reply_to(text),
            Err(_) => {
                _ = headers.insert(short(header::REPLY_TO)?, AMQPValue::LongString(text.as_bytes().into()))
            }
        }
    }
    if let Some(bytes) = &from.correlation {
        match std::str::from_utf8(bytes).ok().and_then(|text| ShortString::try_new(text).ok()) {
            Some(text) => to = to.with_correlation_id(text),
            None => _ = headers.insert(short(header::CORRELATION)?, AMQPValue::ByteArray((&**bytes).into())),
        }
    }
    if let Some(user) = &from.user_id {
        if **user == *sender.account {
            to = to.with_user_id(short(user)?);
        } else if native {
            headers.insert(short(header::USER)?, AMQPValue::LongString(user.as_bytes().into()));
        } else {
            headers.insert(short("amqp-user-id")?, AMQPValue::LongString(user.as_bytes().into()));
        }
    }
    if let Some(text) = &from.content_encoding {
        to = to.with_content_encoding(short(text)?);
    }
    if let Some(text) = &from.message_id {
        to = to.with_message_id(short(text)?);
    }
    if let Some(text) = &from.kind {
        to = to.with_type(short(text)?);
    }
    if let Some(text) = &from.app_id {
        to = to.with_app_id(short(text)?);
    }
    if let Some(text) = &from.cluster_id {
        to = to.with_cluster_id(short(text)?);
    }
    if let Some(timestamp) = from.timestamp {
        to = to.with_timestamp(timestamp);
    }
    if let Some(utf8) = from.utf8_payload {
        headers.insert(short(header::PAYLOAD_FORMAT)?, AMQPValue::ShortShortUInt(u8::from(utf8)));
    }
    Ok(to)
}

/// A text of at most 255 bytes.
fn short(text: &str) -> Result<ShortString, Refused> {
    ShortString::try_new(text).map_err(|_| {
        let len = text.len();
        Refused::Precondition(format!("a property has {len} bytes, and the back end's broker takes 255"))
    })
}

fn fields(from: &Properties<'_>, native: bool, is_delayed: bool, to: &mut FieldTable) -> Result<(), Refused> {
    let passes = |name: &str, value: &Value<'_>| {
        native || !header::is_guarded(name) || is_of_death(name, value, &from.headers)
    };
    let puts_aside = is_delayed || replays(&from.headers) > 0;
    for (name, value) in &from.headers {
        if passes(name, value) {
            let aside = aside(name).filter(|_| puts_aside);
            to.insert(name_of(aside.as_deref().unwrap_or(name))?, outward(value)?);
        } else {
            to.insert(name_of(&format!("{}{name}", header::ESCAPE))?, outward(value)?);
        }
    }
    let changes = || from.headers.windows(2).any(|two| matches!(two, [(one, _), (other, _)] if one >= other));
    if !native && changes() {
        let mut list = Vec::with_capacity(from.headers.len() * 2);
        for (name, value) in &from.headers {
            if header::is_guarded(name) && passes(name, value) {
                // What tells of a death is not the publisher's.
                continue;
            }
            list.push(outward(&Value::Text((&**name).into()))?);
            list.push(outward(value)?);
        }
        to.insert(short(header::LIST)?, AMQPValue::FieldArray(FieldArray::from(list)));
    }
    Ok(())
}

/// Bytes of a table on the wire.
fn size_of_table(table: &FieldTable) -> usize {
    let field = |(name, value): (&ShortString, &AMQPValue)| 1 + name.as_str().len() + size_of_value(value);
    table.inner().iter().map(field).sum::<usize>().saturating_add(4)
}

fn size_of_value(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(items) => 4 + items.as_slice().iter().map(size_of_value).sum::<usize>(),
        AMQPValue::FieldTable(table) => size_of_table(table),
    }
}
