//! Messages to be published, put together in the neutral form.

use std::borrow::Cow;

use bytes::Bytes;

use crate::batch::Batch;
use crate::body::Body;
use crate::message::{Flags, Message, Span, TargetId};
use crate::neutral::{Draft, NEUTRAL};
use crate::properties::Properties;
use crate::value::Value;

/// A batch in the making.
#[derive(Debug, Default)]
pub struct Letters {
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Where it says it was published.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its target, flags, priority and expiry.
    pub head: Message,
    /// Its properties.
    pub properties: Properties<'static>,
}

impl Letter {
    /// A message to `target` whose payload is a number.
    pub fn numbered(target: TargetId, number: u32) -> Self {
        Self {
            topic: "conformance".into(),
            payload: number.to_string().into_bytes(),
            head: Message { target, ..Message::default() },
            properties: Properties::default(),
        }
    }

    /// The same, which is durable and wants a receipt.
    pub fn confirmed(mut self) -> Self {
        self.head.flags |= Flags::RECEIPT | Flags::DURABLE;
        self
    }

    /// The same with more flags.
    pub fn flagged(mut self, flags: Flags) -> Self {
        self.head.flags |= flags;
        self
    }

    /// The same with a priority.
    pub fn priority(mut self, priority: u8) -> Self {
        self.head.flags |= Flags::PRIORITY;
        self.head.priority = priority;
        self
    }

    /// The same that expires after so many milliseconds.
    pub fn expiring(mut self, millis: u64) -> Self {
        self.head.flags |= Flags::EXPIRES;
        self.head.expiry = millis;
        self.properties.expiration = Some(millis.to_string().into());
        self
    }

    /// The same with a header.
    pub fn header(mut self, name: &'static str, value: Value<'static>) -> Self {
        self.properties.headers.push((Cow::Borrowed(name), value));
        self
    }
}

impl Letters {
    /// Numbered messages to one target.
    pub fn numbered(target: TargetId, numbers: impl IntoIterator<Item = u32>) -> Self {
        numbers.into_iter().map(|number| Letter::numbered(target, number)).collect()
    }

    /// The same, durable and with receipts.
    pub fn confirmed(target: TargetId, numbers: impl IntoIterator<Item = u32>) -> Self {
        numbers.into_iter().map(|number| Letter::numbered(target, number).confirmed()).collect()
    }

    /// The batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.bytes, &self.messages, &NEUTRAL)
    }

    fn add(&mut self, letter: &Letter) {
        let draft = Draft {
            exchange: None,
            topic: letter.topic.as_bytes(),
            properties: &letter.properties,
            payload: Body::Shared(Bytes::copy_from_slice(&letter.payload)),
            head: letter.head,
        };
        let owned = draft.build();
        let origin = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let moved = |span: Span| Span::new(span.start + origin, span.len);
        let batch = owned.batch();
        self.bytes.extend_from_slice(batch.bytes);
        self.messages.extend(batch.messages.iter().map(|message| Message {
            wire: moved(message.wire),
            address: moved(message.address),
            properties: moved(message.properties),
            payload: moved(message.payload),
            ..*message
        }));
    }
}

impl FromIterator<Letter> for Letters {
    fn from_iter<T: IntoIterator<Item = Letter>>(letters: T) -> Self {
        let mut all = Self::default();
        letters.into_iter().for_each(|letter| all.add(&letter));
        all
    }
}
