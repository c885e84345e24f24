//! A message as the log keeps it.
//!
//! One byte with the form's number, one with 1 when the payload is a body behind the message's own bytes and 2 when it is one
//! of the log, two with the flags, eight with the expiry;
//! then where address, properties and payload lie in the message's own bytes, offset and length of each, and the number of
//! these bytes, four bytes each; the number of the subscription that it came by, four; then the message's bytes, and the
//! body behind them. All little-endian.

use std::sync::Arc;

use bytes::Bytes;
use linkspan_contract::{Body, Flags, Kept, Message, Millis, OwnedBatch, Span, WireForm};
use linkspan_queues::log::Window;
use linkspan_queues::{Encode, Queued, remembered};

use crate::archive::Archive;
use crate::body::LogBody;
use crate::parcel::Parcel;

/// Bytes before the message's own.
const HEAD: usize = 44;

/// Messages are read in batches of no more than so many,
const MESSAGES: usize = 128;

/// and of not much more than so many bytes: one that stays holds no more than these.
const BYTES: usize = 16 * 1024;

/// The payload is a body behind the message's own bytes,
const BEHIND: u8 = 1;

/// or one of the log.
const APART: u8 = 2;

/// Writes messages for a log.
#[derive(Debug)]
pub(crate) struct Written {
    archive: Arc<Archive>,
}

impl Written {
    /// Bytes that a message takes in the log beside its own.
    pub(crate) const BESIDE: u64 = HEAD as u64 + 32;

    pub(crate) fn new(archive: &Arc<Archive>) -> Self {
        Self { archive: Arc::clone(archive) }
    }
}

impl Encode<Parcel> for Written {
    fn encode(&self, parcel: &Parcel, out: &mut Vec<u8>) -> Option<(u64, u64)> {
        let batch = parcel.batch.batch();
        let message = batch.message(parcel.at).copied().unwrap_or_default();
        let (how, behind, apart) = match batch.body {
            None => (0, None, None),
            Some(Body::Shared(body)) => (BEHIND, Some(body), None),
            // The lane lets in none that lie elsewhere.
            Some(body) => (APART, None, LogBody::place(body, &self.archive)),
        };
        out.extend_from_slice(&[batch.form.id(), how]);
        out.extend_from_slice(&message.flags.0.to_le_bytes());
        out.extend_from_slice(&message.expiry.to_le_bytes());
        for span in [message.address, message.properties, message.payload] {
            let Span { start, len } = span.rebased(message.wire.start);
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
        }
        out.extend_from_slice(&message.wire.len.to_le_bytes());
        out.extend_from_slice(&parcel.via.to_le_bytes());
        out.extend_from_slice(message.wire.of(batch.bytes));
        if let Some(body) = behind {
            out.extend_from_slice(body);
        }
        apart
    }
}

/// What was read of a queue.
pub(crate) enum Found {
    /// A message, and when it is ready.
    Message(Queued<Parcel>, Millis),
    /// One that cannot be read, at that place.
    Damaged(u64),
}

/// One message, its head taken apart.
struct Head<'r> {
    form: &'static dyn WireForm,
    message: Message,
    via: u32,
    own: &'r [u8],
    body: Option<Body>,
}

impl<'r> Head<'r> {
    /// None when these bytes are no message that this version has written.
    fn read(
        bytes: &'r [u8],
        priority: u8,
        place: Option<(u64, u64)>,
        archive: &Arc<Archive>,
    ) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let ([form, how, a, b], rest_of_head) = head.split_first_chunk::<4>()?;
        let (expiry, spans) = rest_of_head.split_first_chunk::<8>()?;
        let (words, _) = spans.as_chunks::<4>();
        let word = |at: usize| words.get(at).map(|word| u32::from_le_bytes(*word));
        let span = |at: usize| Some(Span::new(word(2 * at)?, word(2 * at + 1)?));
        let (address, properties, payload) = (span(0)?, span(1)?, span(2)?);
        let (own, body) = rest.split_at_checked(word(6)? as usize)?;
        let body = match *how {
            0 => None,
            BEHIND => Some(Body::Shared(Bytes::copy_from_slice(body))),
            _ => Some(Body::Stored(Arc::new(LogBody::hold(archive, place?)?))),
        };
        let flags = Flags(u16::from_le_bytes([*a, *b]));
        let message = Message {
            flags,
            priority: if flags.has(Flags::PRIORITY) { priority } else { 0 },
            expiry: u64::from_le_bytes(*expiry),
            wire: Span::new(0, u32::try_from(own.len()).ok()?),
            address,
            properties,
            payload,
            ..Message::default()
        };
        Some(Self { form: archive.form(*form)?, message, via: word(7)?, own, body })
    }
}

/// A batch that is being put together.
#[derive(Default)]
struct Piece {
    form: Option<&'static dyn WireForm>,
    bytes: Vec<u8>,
    messages: Vec<Message>,
    queued: Vec<(Queued<u32>, Millis)>,
}

impl Piece {
    fn add(&mut self, head: &Head<'_>, queued: Queued<u32>, not_before: Millis) {
        let at = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let moved = |span: Span| Span::new(span.start.saturating_add(at), span.len);
        let Message { wire, address, properties, payload, .. } = head.message;
        self.messages.push(Message {
            wire: moved(wire),
            address: moved(address),
            properties: moved(properties),
            payload: moved(payload),
            ..head.message
        });
        self.bytes.extend_from_slice(head.own);
        self.queued.push((queued, not_before));
        self.form = Some(head.form);
    }

    /// Hands its messages over and is empty.
    fn end(&mut self, body: Option<Body>, to: &mut impl FnMut(Found)) {
        let Some(form) = self.form.take() else { return };
        let (bytes, messages) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.messages));
        let batch = OwnedBatch::new(bytes.into(), messages.into(), body, form);
        for (at, (queued, not_before)) in (0..).zip(self.queued.drain(..)) {
            let body = Parcel { batch: Arc::clone(&batch), at, via: queued.body };
            let message = queued.with(body);
            to(Found::Message(message, not_before));
        }
    }
}

/// The message in these bytes; none when they are none.
pub(crate) fn read_one(
    bytes: &[u8],
    priority: u8,
    place: Option<(u64, u64)>,
    archive: &Arc<Archive>,
) -> Option<Kept> {
    let Head { form, message, own, body, .. } = Head::read(bytes, priority, place, archive)?;
    OwnedBatch::new(own.into(), Box::new([message]), body, form).kept(0)
}

/// Makes messages of what was read, in order.
pub(crate) fn read(window: &Window, archive: &Arc<Archive>, mut to: impl FnMut(Found)) {
    let mut piece = Piece::default();
    let mut damaged: Vec<u64> = window.damaged.iter().map(|(sequence, _)| *sequence).collect();
    damaged.sort_unstable();
    let mut damaged = damaged.into_iter().peekable();
    for record in window.messages() {
        while let Some(sequence) = damaged.next_if(|sequence| *sequence < record.sequence) {
            piece.end(None, &mut to);
            to(Found::Damaged(sequence));
        }
        let found = remembered(&record);
        let head = found
            .as_ref()
            .and_then(|(queued, _)| Head::read(queued.body, queued.priority, record.body, archive));
        let (Some((queued, not_before)), Some(head)) = (found, head) else {
            piece.end(None, &mut to);
            to(Found::Damaged(record.sequence));
            continue;
        };
        let apart = head.body.is_some();
        let other = piece.form.is_some_and(|form| form.id() != head.form.id());
        if apart || other || piece.messages.len() >= MESSAGES || piece.bytes.len() >= BYTES {
            piece.end(None, &mut to);
        }
        let bare = queued.with(head.via);
        piece.add(&head, bare, not_before);
        if let Some(body) = head.body {
            piece.end(Some(body), &mut to);
        }
    }
    piece.end(None, &mut to);
    damaged.for_each(|sequence| to(Found::Damaged(sequence)));
}
