//! The messages of one read: lent for a call, or kept.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::address::Address;
use crate::body::Body;
use crate::form::{Malformed, WireForm};
use crate::message::{Flags, Message, Span};
use crate::properties::Properties;

/// Messages of one read in the order in which they came, lent for the call.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// What all spans point into. Copy what you keep: see [`Batch::keep`].
    pub bytes: &'a [u8],
    /// The messages.
    pub messages: &'a [Message],
    /// The payload of a large message; then the batch has exactly one message and its payload span is empty.
    pub body: Option<&'a Body>,
    /// How the bytes are read.
    pub form: &'static dyn WireForm,
    /// All bits that are set in any of the messages.
    pub any: Flags,
}

impl<'a> Batch<'a> {
    /// A batch of messages whose payloads lie in `bytes`.
    pub fn new(bytes: &'a [u8], messages: &'a [Message], form: &'static dyn WireForm) -> Self {
        let any = messages.iter().fold(Flags::NONE, |any, message| any | message.flags);
        Self { bytes, messages, body: None, form, any }
    }

    /// A batch of the one message `message`, whose payload is `body`.
    pub fn with_body(
        bytes: &'a [u8],
        message: &'a Message,
        body: &'a Body,
        form: &'static dyn WireForm,
    ) -> Self {
        Self { bytes, messages: std::slice::from_ref(message), body: Some(body), form, any: message.flags }
    }

    /// The message at `at`.
    #[inline]
    pub fn message(&self, at: u32) -> Option<&'a Message> {
        self.messages.get(at as usize)
    }

    /// Where `message` goes.
    pub fn address(&self, message: &Message) -> Address<'a> {
        self.form.address(message.address.of(self.bytes))
    }

    /// The properties of `message`, decoded.
    ///
    /// # Errors
    /// When the encoded properties are not of the batch's form.
    pub fn properties(&self, message: &Message) -> Result<Properties<'a>, Malformed> {
        self.form.properties(message.properties.of(self.bytes))
    }

    /// Number of payload bytes of `message`, wherever they are.
    #[inline]
    pub fn payload_len(&self, message: &Message) -> u64 {
        self.body.map_or(u64::from(message.payload.len), Body::len)
    }

    /// A copy of the messages `at` that owns exactly its own bytes: a kept message must not pin a read buffer.
    pub fn keep(&self, at: Range<u32>) -> Arc<OwnedBatch> {
        let run = self.messages.get(at.start as usize..at.end as usize).unwrap_or_default();
        let start = run.iter().map(|message| message.wire.start).min().unwrap_or(0);
        let end = run.iter().map(|message| message.wire.end()).max().unwrap_or(0);
        let bytes = Span::new(start, end.saturating_sub(start)).of(self.bytes);
        let messages = run
            .iter()
            .map(|message| Message {
                wire: message.wire.rebased(start),
                address: message.address.rebased(start),
                properties: message.properties.rebased(start),
                payload: message.payload.rebased(start),
                ..*message
            })
            .collect();
        OwnedBatch::new(bytes.into(), messages, self.body.cloned(), self.form)
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("messages", &self.messages).field("form", &self.form.name()).finish()
    }
}

/// A run of messages that owns its bytes.
pub struct OwnedBatch {
    bytes: Box<[u8]>,
    messages: Box<[Message]>,
    body: Option<Body>,
    form: &'static dyn WireForm,
    any: Flags,
}

impl OwnedBatch {
    /// A batch of messages whose spans point into `bytes`; with a `body`, of exactly one.
    pub fn new(
        bytes: Box<[u8]>,
        messages: Box<[Message]>,
        body: Option<Body>,
        form: &'static dyn WireForm,
    ) -> Arc<Self> {
        let any = messages.iter().fold(Flags::NONE, |any, message| any | message.flags);
        Arc::new(Self { bytes, messages, body, form, any })
    }

    /// All messages, lent.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            bytes: &self.bytes,
            messages: &self.messages,
            body: self.body.as_ref(),
            form: self.form,
            any: self.any,
        }
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Number of bytes that the message at `at` takes, all in all; 0 when there is none.
    pub fn size(&self, at: u32) -> u64 {
        let wire = self.messages.get(at as usize).map_or(0, |message| u64::from(message.wire.len));
        wire.saturating_add(self.body.as_ref().map_or(0, Body::len))
    }

    /// What they count while they wait for a client: those that are in memory, and a part of the others
    /// ([`Body::held`]).
    pub fn held(&self, at: u32) -> u64 {
        let wire = self.messages.get(at as usize).map_or(0, |message| u64::from(message.wire.len));
        wire.saturating_add(self.body.as_ref().map_or(0, Body::held))
    }

    /// The handle of the message at `at`, when there is one.
    pub fn kept(self: &Arc<Self>, at: u32) -> Option<Kept> {
        ((at as usize) < self.messages.len()).then(|| Kept { batch: Arc::clone(self), at })
    }
}

impl fmt::Debug for OwnedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.batch().fmt(f)
    }
}

/// One message of a shared [`OwnedBatch`]: what a queue holds.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The run it was published in.
    pub batch: Arc<OwnedBatch>,
    /// Its place there.
    pub at: u32,
}

impl Kept {
    /// The message.
    pub fn message(&self) -> Message {
        self.batch.messages.get(self.at as usize).copied().unwrap_or_default()
    }

    /// Number of payload bytes, wherever they are.
    pub fn payload_len(&self) -> u64 {
        self.batch.batch().payload_len(&self.message())
    }

    /// Where the message goes.
    pub fn address(&self) -> Address<'_> {
        self.batch.batch().address(&self.message())
    }

    /// The properties, decoded.
    ///
    /// # Errors
    /// When the encoded properties are not of the message's form.
    pub fn properties(&self) -> Result<Properties<'_>, Malformed> {
        self.batch.batch().properties(&self.message())
    }

    /// The payload, when it has one apart.
    pub fn body(&self) -> Option<&Body> {
        self.batch.body.as_ref()
    }

    /// The payload, when it is in memory.
    pub fn payload(&self) -> Option<&[u8]> {
        match &self.batch.body {
            None => Some(self.message().payload.of(&self.batch.bytes)),
            Some(Body::Shared(bytes)) => Some(bytes),
            Some(Body::Stored(_)) => None,
        }
    }
}
