//! Messages of a batch as `basic.deliver`, `basic.get-ok` or `basic.return`.

use std::cell::RefCell;

use bytes::Bytes;
use linkspan_contract::{Batch, Body, Flags, Message, Properties, WireForm};

use crate::doors::unsent::Wrap;
use crate::protocol::amqp::{
    self, Content, Delivery, Fetched, Returned, ShortBytes, frame,
    frame::{FrameKind, HEAD, OVERHEAD},
    properties::NONE,
};

use super::form::AMQP_FORM;
use super::translate::{TOPIC_EXCHANGE, properties};

/// Bodies from this size on go out by reference.
pub(super) const BY_REFERENCE: usize = 32 * 1024;

/// The method that a message goes out with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Head<'a> {
    /// To a consumer.
    Deliver {
        /// Whose.
        consumer_tag: &'a str,
        /// The channel's tag.
        delivery_tag: u64,
        /// It was given out before.
        redelivered: bool,
    },
    /// To who asked.
    GetOk {
        /// The channel's tag.
        delivery_tag: u64,
        /// It was given out before.
        redelivered: bool,
        /// What is left in the queue.
        message_count: u32,
    },
    /// Back to who published it.
    Return {
        /// Why.
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
    },
}

/// For whom a message is encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipient {
    /// The channel.
    pub(super) channel: u16,
    /// The connection's frame-max; 0 is no bound.
    pub(super) frame_max: u32,
}

/// Address and properties as AMQP writes them, for messages of another form; kept by the thread, because the next
/// message as a rule says the same.
#[derive(Debug, Default)]
struct Foreign {
    form: u8,
    from_address: Vec<u8>,
    from_properties: Vec<u8>,
    beside: (Flags, Option<u64>),
    address: Vec<u8>,
    properties: Vec<u8>,
}

thread_local! {
    static FOREIGN: RefCell<Foreign> = RefCell::default();
}

impl Foreign {
    fn encode(&mut self, batch: &Batch<'_>, message: &Message, age: u64) {
        let address = message.address.of(batch.bytes);
        let encoded = message.properties.of(batch.bytes);
        let expiry = message.flags.has(Flags::EXPIRES).then(|| message.expiry.saturating_sub(age));
        let beside = (message.flags, expiry);
        if !self.address.is_empty()
            && self.form == batch.form.id()
            && self.beside == beside
            && self.from_address == address
            && self.from_properties == encoded
        {
            return;
        }
        self.form = batch.form.id();
        self.beside = beside;
        self.from_address.clear();
        self.from_address.extend_from_slice(address);
        self.from_properties.clear();
        self.from_properties.extend_from_slice(encoded);

        let published = batch.address(message);
        let key = published.key();
        let cut = cut(&key);
        let exchange = published.exchange.unwrap_or(TOPIC_EXCHANGE.as_bytes());
        let exchange = ShortBytes::new(exchange).unwrap_or_default();
        amqp::Address::encode(exchange, ShortBytes::new(cut).unwrap_or_default(), &mut self.address);

        let properties = if message.flags.has(Flags::PROPERTIES) {
            // A door has checked what its clients sent: what cannot be read is a broken file, and the payload stays.
            batch.properties(message).unwrap_or_default()
        } else {
            Properties::default()
        };
        let beside = properties::Beside {
            durable: message.flags.has(Flags::DURABLE),
            expiry,
            retain: message.flags.has(Flags::RETAIN),
            whole_key: (cut.len() < key.len()).then_some(&*key),
        };
        self.properties.clear();
        properties::encode(&properties, beside, &mut self.properties);
    }
}

/// As much of a routing key as fits, cut between characters.
fn cut(key: &[u8]) -> &[u8] {
    let max = usize::from(u8::MAX);
    if key.len() <= max {
        return key;
    }
    let end = match std::str::from_utf8(key) {
        Ok(text) => text.floor_char_boundary(max),
        Err(_) => max,
    };
    key.get(..end).unwrap_or_default()
}

/// The content frames of `message` as they came, when a connection with `frame_max` can be given them as they are.
#[inline]
pub(super) fn forwardable<'a>(
    bytes: &'a [u8],
    message: &Message,
    frame_max: u32,
) -> Option<(amqp::Address<'a>, &'a [u8])> {
    if frame_max != 0 && message.payload.len as usize + OVERHEAD > frame_max as usize {
        return None;
    }
    let address = amqp::Address::new(message.address.of(bytes))?;
    // Behind the address: one octet of bits, the end of the frame.
    let content = bytes.get(message.address.end() as usize + 2..message.wire.end() as usize)?;
    let body = match message.payload.len as usize {
        0 => 0,
        len => OVERHEAD + len,
    };
    let header = content.len().checked_sub(OVERHEAD + CONTENT_FIXED + body)?;
    (header == message.properties.len as usize).then_some((address, content))
}

/// Class, weight and body size of a content header.
const CONTENT_FIXED: usize = 12;

/// Whether messages of `batch` can be [`forwardable`].
pub(super) fn forwards(batch: &Batch<'_>) -> bool {
    batch.form.id() == AMQP_FORM.id() && batch.body.is_none() && !batch.any.has(Flags::REWRITE)
}

/// Appends `message`, which waited `age` milliseconds. When its body goes out by reference, only what comes before it
/// is appended, and the body is returned: its frames are [`pieces`], or those of [`BodyFrames`] when it is stored.
#[inline]
pub(super) fn append(
    batch: &Batch<'_>,
    message: &Message,
    age: u64,
    head: Head<'_>,
    to: Recipient,
    out: &mut Vec<u8>,
) -> Option<Body> {
    if batch.form.id() == AMQP_FORM.id() {
        let address = amqp::Address::new(message.address.of(batch.bytes)).unwrap_or(amqp::Address::EMPTY);
        let properties = message.properties.of(batch.bytes);
        return write(batch, message, head, address, properties, to, out);
    }
    FOREIGN.with_borrow_mut(|foreign| {
        foreign.encode(batch, message, age);
        let address = amqp::Address::new(&foreign.address).unwrap_or(amqp::Address::EMPTY);
        write(batch, message, head, address, &foreign.properties, to, out)
    })
}

#[inline]
fn write(
    batch: &Batch<'_>,
    message: &Message,
    head: Head<'_>,
    address: amqp::Address<'_>,
    properties: &[u8],
    to: Recipient,
    out: &mut Vec<u8>,
) -> Option<Body> {
    let properties = if properties.is_empty() { &NONE } else { properties };
    let body = match batch.body {
        None => message.payload.of(batch.bytes),
        Some(Body::Shared(body)) if body.len() < BY_REFERENCE => body,
        Some(body) => {
            let size = body.len();
            match head {
                Head::Deliver { consumer_tag, delivery_tag, redelivered } => {
                    deliver(to.channel, consumer_tag, delivery_tag, redelivered, address)
                        .encode_head(properties, size, out);
                }
                Head::GetOk { delivery_tag, redelivered, message_count } => {
                    let channel = to.channel;
                    Fetched { channel, delivery_tag, redelivered, address, message_count }
                        .encode_head(properties, size, out);
                }
                Head::Return { reply_code, reply_text } => {
                    returned(to.channel, reply_code, reply_text, address).encode_head(properties, size, out);
                }
            }
            return Some(body.clone());
        }
    };
    let content = Content { properties, body };
    match head {
        Head::Deliver { consumer_tag, delivery_tag, redelivered } => {
            let method = deliver(to.channel, consumer_tag, delivery_tag, redelivered, address);
            method.encode(&content, to.frame_max, out);
        }
        Head::GetOk { delivery_tag, redelivered, message_count } => {
            let channel = to.channel;
            let method = Fetched { channel, delivery_tag, redelivered, address, message_count };
            method.encode(&content, to.frame_max, out);
        }
        Head::Return { reply_code, reply_text } => {
            let method = returned(to.channel, reply_code, reply_text, address);
            method.encode(&content, to.frame_max, out);
        }
    }
    None
}

#[inline]
fn deliver<'a>(
    channel: u16,
    consumer_tag: &'a str,
    delivery_tag: u64,
    redelivered: bool,
    address: amqp::Address<'a>,
) -> Delivery<'a> {
    let consumer_tag = ShortBytes::new(consumer_tag.as_bytes()).unwrap_or_default();
    Delivery { channel, consumer_tag, delivery_tag, redelivered, address }
}

fn returned<'a>(
    channel: u16,
    reply_code: u16,
    reply_text: &'a str,
    address: amqp::Address<'a>,
) -> Returned<'a> {
    Returned { channel, reply_code, reply_text: amqp::ShortString::truncated(reply_text), address }
}

/// The body frames of a body that goes out by reference: what stands before each piece, and the piece. The last piece
/// is followed by [`frame::END`].
pub(super) fn pieces(body: &Bytes, to: Recipient) -> impl Iterator<Item = (Vec<u8>, Bytes)> {
    let max = frame::payload_max(to.frame_max);
    (0..body.len().div_ceil(max)).map(move |at| {
        let start = at * max;
        let piece = body.slice(start..body.len().min(start + max));
        let mut before = Vec::with_capacity(OVERHEAD);
        if at > 0 {
            before.push(frame::END);
        }
        let head: [u8; HEAD] = frame::head(FrameKind::Body, to.channel, piece.len() as u32);
        before.extend_from_slice(&head);
        (before, piece)
    })
}

/// The body frames of a stored body.
#[derive(Debug)]
pub(super) struct BodyFrames {
    channel: u16,
    /// Bytes of a frame's payload.
    max: u64,
    /// Bytes of the body.
    size: u64,
}

impl BodyFrames {
    /// Those of a body of `size` bytes.
    pub(super) fn new(size: u64, to: Recipient) -> Self {
        Self { channel: to.channel, max: frame::payload_max(to.frame_max) as u64, size }
    }
}

impl Wrap for BodyFrames {
    fn wrap(&self, offset: u64, mut part: Bytes, piece: &mut dyn FnMut(Bytes)) {
        let mut at = offset;
        let mut between = Vec::new();
        while !part.is_empty() {
            let within = at % self.max;
            let frame = self.max.min(self.size.saturating_sub(at - within));
            if within == 0 {
                between.extend_from_slice(&frame::head(FrameKind::Body, self.channel, frame as u32));
            }
            if !between.is_empty() {
                piece(std::mem::take(&mut between).into());
            }
            let room = usize::try_from(frame.saturating_sub(within)).unwrap_or(usize::MAX);
            let now = part.split_to(room.clamp(1, part.len()));
            at = at.saturating_add(now.len() as u64);
            if now.len() >= room {
                between.push(frame::END);
            }
            piece(now);
        }
        if !between.is_empty() {
            piece(between.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_a_stored_body_are_those_of_one_in_memory_however_it_is_read() {
        let body: Bytes = (0..50_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        for (frame_max, part) in [(4096, 1), (4096, 4088), (4096, 10_000), (131_072, 999), (0, 50_000)] {
            let to = Recipient { channel: 7, frame_max };
            let mut whole = Vec::new();
            for (before, piece) in pieces(&body, to) {
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&piece);
            }
            whole.push(frame::END);
            let frames = BodyFrames::new(body.len() as u64, to);
            let mut streamed = Vec::new();
            for at in (0..body.len()).step_by(part) {
                let read = body.slice(at..body.len().min(at + part));
                frames.wrap(at as u64, read, &mut |piece| streamed.extend_from_slice(&piece));
            }
            assert!(whole == streamed, "frame-max {frame_max}, read by {part}");
        }
    }
}
