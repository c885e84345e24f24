//! Properties for a protocol that has few of its own and pairs of texts for everything else, as MQTT 5 has its user
//! properties.
//!
//! A property that the protocol has no word for is a pair whose name begins with `amqp-`, so that an application's own
//! `type` or `timestamp` stays what it is. A value that the property cannot hold stays a header.

use std::borrow::Cow;

use crate::address;
use crate::properties::Properties;
use crate::value::Value;

/// The pair that stands for a message's priority.
pub const PRIORITY: &str = "amqp-priority";

const MESSAGE_ID: &str = "amqp-message-id";
const TIMESTAMP: &str = "amqp-timestamp";
const APP_ID: &str = "amqp-app-id";
const KIND: &str = "amqp-type";
const USER_ID: &str = "amqp-user-id";
const CONTENT_ENCODING: &str = "amqp-content-encoding";
const EXPIRATION: &str = "amqp-expiration";
const REPLY_TO: &str = "amqp-reply-to";

/// Headers of AMQP messages that stand for what MQTT has as its own properties.
const PAYLOAD_FORMAT: &str = "x-payload-format";
const RETAIN: &str = "x-retain";
const CORRELATION: &str = "x-correlation-id";
const CONTENT_TYPE: &str = "x-content-type";

/// Bytes of AMQP's longest short string.
const SHORT: usize = 255;

/// What such a protocol can say of properties. A text with U+0000 or of more than 65,535 bytes is left out (MQTT 5 §1.5.4),
/// and so are more bytes of correlation data than that.
#[derive(Debug, Clone, Copy)]
pub struct Textual<'a> {
    /// Whether the payload is UTF-8, when that is said.
    pub utf8_payload: Option<bool>,
    /// Where to reply to, when that is a topic; what else it is, is a pair.
    pub reply_to: Option<&'a str>,
    /// Correlation data.
    pub correlation: Option<&'a [u8]>,
    /// The content type.
    pub content_type: Option<&'a str>,
    from: &'a Properties<'a>,
}

impl<'a> Textual<'a> {
    /// What can be said of these.
    #[must_use]
    pub fn of(from: &'a Properties<'a>) -> Self {
        let header_text = |name| from.header(name).and_then(Value::as_str).filter(|text| is_text(text));
        let correlation = from.correlation.as_deref().or_else(|| match from.header(CORRELATION) {
            Some(Value::Bytes(bytes) | Value::LongString(bytes)) => Some(&**bytes),
            _ => None,
        });
        Self {
            utf8_payload: utf8_payload(from),
            reply_to: from.reply_to.as_deref().filter(|name| address::is_topic(name.as_bytes())),
            correlation: correlation.filter(|bytes| bytes.len() <= usize::from(u16::MAX)),
            content_type: text(&from.content_type).or_else(|| header_text(CONTENT_TYPE)),
            from,
        }
    }

    /// All else, pair by pair.
    ///
    /// # Errors
    /// The first that `each` returns.
    pub fn pairs<E>(&self, mut each: impl FnMut(&str, &str) -> Result<(), E>) -> Result<(), E> {
        let from = self.from;
        for (name, value) in [
            (MESSAGE_ID, &from.message_id),
            (APP_ID, &from.app_id),
            (KIND, &from.kind),
            (USER_ID, &from.user_id),
            (CONTENT_ENCODING, &from.content_encoding),
            (EXPIRATION, &from.expiration),
        ] {
            if let Some(value) = text(value) {
                each(name, value)?;
            }
        }
        if self.reply_to.is_none()
            && let Some(name) = text(&from.reply_to)
        {
            each(REPLY_TO, name)?;
        }
        for (name, number) in [(TIMESTAMP, from.timestamp), (PRIORITY, from.priority.map(u64::from))] {
            if let Some(number) = number {
                each(name, &number.to_string())?;
            }
        }
        for (name, value) in &from.headers {
            let told_otherwise = matches!(&**name, PAYLOAD_FORMAT | RETAIN | CORRELATION | CONTENT_TYPE);
            let value = value.to_text();
            if !told_otherwise && is_text(name) && is_text(&value) {
                each(name, &value)?;
            }
        }
        Ok(())
    }
}

/// Makes a client's pair the property that it stands for; false when it stands for none, cannot be one, or is a repetition.
pub fn enter<'a>(to: &mut Properties<'a>, name: &str, value: &'a str) -> bool {
    match name {
        MESSAGE_ID => put(&mut to.message_id, short(value)),
        APP_ID => put(&mut to.app_id, short(value)),
        KIND => put(&mut to.kind, short(value)),
        USER_ID => put(&mut to.user_id, short(value)),
        CONTENT_ENCODING => put(&mut to.content_encoding, short(value)),
        TIMESTAMP => put(&mut to.timestamp, value.parse().ok()),
        PRIORITY => put(&mut to.priority, value.parse().ok()),
        _ => false,
    }
}

/// Like [`enter`], for what [`Textual::pairs`] made: an expiration and a place to reply to that is no topic, which a client
/// says otherwise, are properties again too.
pub fn restore<'a>(to: &mut Properties<'a>, name: &str, value: &'a str) -> bool {
    match name {
        EXPIRATION => put(&mut to.expiration, short(value).filter(|text| text.parse::<u64>().is_ok())),
        REPLY_TO => put(&mut to.reply_to, short(value)),
        _ => enter(to, name, value),
    }
}

fn short(value: &str) -> Option<Cow<'_, str>> {
    (value.len() <= SHORT).then_some(Cow::Borrowed(value))
}

fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let free = slot.is_none() && value.is_some();
    if free {
        *slot = value;
    }
    free
}

fn utf8_payload(from: &Properties<'_>) -> Option<bool> {
    let header = || match from.header(PAYLOAD_FORMAT)? {
        Value::Text(text) => Some(&**text == "1"),
        value => value.as_bool().or_else(|| value.as_i64().map(|number| number == 1)),
    };
    from.utf8_payload.or_else(header)
}

fn text<'a>(of: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    of.as_deref().filter(|text| is_text(text))
}

fn is_text(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX) && !text.contains('\0')
}
