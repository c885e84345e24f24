//! What is read from a message to decide about it.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU8;

use crate::address::levels;
use crate::batch::Batch;
use crate::body::Body;
use crate::message::Message;
use crate::value::Value;

/// Something that a message says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// The application's identifier of the message.
    MessageId,
    /// An application header of this name: an AMQP header, an MQTT 5 user property.
    Property(Box<str>),
    /// A level of the address, counted from 1: in `tickets/9`, the second is `9`.
    Level(NonZeroU8),
    /// All of the payload.
    Payload,
}

impl Attribute {
    /// Its bytes, when the message has it and they are in memory: of a payload that is stored elsewhere nothing is read.
    pub fn of<'a>(&self, batch: &Batch<'a>, message: &Message) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::MessageId => batch.properties(message).ok()?.message_id.map(bytes_of),
            Self::Property(name) => {
                let properties = batch.properties(message).ok()?;
                let (_, value) = properties.headers.into_iter().find(|(header, _)| **header == **name)?;
                text_of(value)
            }
            Self::Level(level) => {
                let topic = batch.address(message).topic();
                levels(&topic).nth(usize::from(level.get()).saturating_sub(1)).map(|it| Cow::Owned(it.into()))
            }
            Self::Payload => match batch.body {
                Some(Body::Shared(bytes)) => Some(Cow::Borrowed(bytes)),
                Some(Body::Stored(_)) => None,
                None => Some(Cow::Borrowed(message.payload.of(batch.bytes))),
            },
        }
    }
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// A header's value as MQTT would write it, whatever its type: the same key means the same to both.
fn text_of(value: Value<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        Value::Text(text) => Some(bytes_of(text)),
        Value::LongString(bytes) | Value::Bytes(bytes) => Some(bytes),
        Value::Bool(yes) => Some(bytes_of(Cow::Borrowed(if yes { "true" } else { "false" }))),
        Value::Timestamp(seconds) => Some(Cow::Owned(seconds.to_string().into_bytes())),
        other => other.as_i64().map(|number| Cow::Owned(number.to_string().into_bytes())),
    }
}

/// As the configuration writes it.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MessageId => f.write_str("message-id"),
            Self::Property(name) => write!(f, "property:{name}"),
            Self::Level(level) => write!(f, "level:{level}"),
            Self::Payload => f.write_str("payload"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::neutral::Draft;
    use crate::properties::Properties;

    /// What a message to `tickets/9/x` with these properties and the payload `abc` says of itself.
    fn read(attribute: &Attribute, properties: &Properties<'_>) -> Option<Vec<u8>> {
        let payload = Body::Shared(Bytes::from_static(b"abc"));
        let draft =
            Draft { exchange: None, topic: b"tickets/9/x", properties, payload, head: Message::default() };
        let owned: Arc<_> = draft.build();
        let batch = owned.batch();
        attribute.of(&batch, batch.message(0)?).map(Cow::into_owned)
    }

    #[test]
    fn a_level_of_the_address_is_counted_from_one() {
        let level = |at| read(&Attribute::Level(NonZeroU8::new(at).unwrap()), &Properties::default());
        assert_eq!(level(1).unwrap(), b"tickets");
        assert_eq!(level(2).unwrap(), b"9");
        assert_eq!(level(4), None, "the address has three");
    }

    #[test]
    fn a_property_is_the_same_text_whatever_its_type() {
        let of = |value| {
            let headers = vec![("customer".into(), value)];
            read(&Attribute::Property("customer".into()), &Properties { headers, ..Properties::default() })
        };
        assert_eq!(of(Value::Text("7".into())), of(Value::I32(7)));
        assert_eq!(of(Value::Bool(true)).unwrap(), b"true");
        assert_eq!(of(Value::Array(Vec::new())), None);
        assert_eq!(read(&Attribute::Property("customer".into()), &Properties::default()), None);
    }

    #[test]
    fn the_identifier_and_the_payload_are_read() {
        let properties = Properties { message_id: Some("m-1".into()), ..Properties::default() };
        assert_eq!(read(&Attribute::MessageId, &properties).unwrap(), b"m-1");
        assert_eq!(read(&Attribute::Payload, &properties).unwrap(), b"abc");
    }
}
