//! The short way in: a whole published message of the read buffer, recognised in one pass.

use super::{
    Address, Limits, MethodId, Span, basic,
    content_header::FIXED,
    frame::{END, FrameKind, HEAD},
};

/// A message that lies in the read buffer as three frames in a row: `basic.publish`, content header, body; two if the
/// body is empty. Spans point into that buffer; nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The publisher's channel.
    pub channel: u16,
    /// Return it if it reaches no queue.
    pub mandatory: bool,
    /// Return it if it reaches no consumer at once.
    pub immediate: bool,
    exchange_len: u8,
    /// Exchange and routing key, each with its length octet; see [`Address`].
    pub address: Span,
    /// Flags and list of the properties as encoded, not yet checked: [`Summary::scan`](super::Summary::scan) does.
    pub properties: Span,
    /// The body, possibly empty.
    pub body: Span,
    /// All its frames; the next frame begins at `wire.end()`.
    pub wire: Span,
}

/// The size of a publish's payload beside the two names: class, method, reserved, two lengths, bits.
const ARGUMENTS: usize = 4 + 2 + 1 + 1 + 1;

impl Publish {
    /// The message that begins at `at`, if it lies there whole, is well formed, has at most one body frame and keeps
    /// `limits`. Anything else is `None`, also what is wrong: then [`frame::decode`](super::frame::decode) and
    /// [`Assembly`](super::Assembly) say what it is. The channel must not be inside another message's content
    /// ([`Assembly::is_idle`](super::Assembly::is_idle)).
    #[inline]
    pub fn recognise(buffer: &[u8], at: usize, limits: &Limits) -> Option<Self> {
        let received = buffer.get(at..)?;

        let (head, rest) = received.split_first_chunk::<14>()?;
        let [kind, c0, c1, s0, s1, s2, s3, i0, i1, i2, i3, _, _, exchange_len] = *head;
        let publish = [i0, i1, i2, i3] == basic::Publish::ID.to_be_bytes();
        if kind != FrameKind::Method as u8 || !publish || [c0, c1] == [0, 0] {
            return None;
        }
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let (_, rest) = rest.split_at_checked(usize::from(exchange_len))?;
        let (&key_len, rest) = rest.split_first()?;
        let (_, rest) = rest.split_at_checked(usize::from(key_len))?;
        let names = usize::from(exchange_len) + usize::from(key_len);
        if size as usize != ARGUMENTS + names || !limits.admits(size) {
            return None;
        }

        let (head, rest) = rest.split_first_chunk::<{ 2 + HEAD + FIXED }>()?;
        let [bits, end, kind, h0, h1, s0, s1, s2, s3, k0, k1, w0, w1, b0, b1, b2, b3, b4, b5, b6, b7] = *head;
        let class = MethodId { class: u16::from_be_bytes([k0, k1]), method: u16::from_be_bytes([w0, w1]) };
        let right_class = class == MethodId { class: basic::Publish::ID.class, method: 0 };
        if end != END || kind != FrameKind::Header as u8 || [h0, h1] != [c0, c1] || !right_class {
            return None;
        }
        let size = u32::from_be_bytes([s0, s1, s2, s3]);
        let body_size = u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        if !limits.admits(size) || body_size > limits.body_max {
            return None;
        }
        let (properties, rest) = rest.split_at_checked((size as usize).checked_sub(FIXED)?)?;
        let (&end, rest) = rest.split_first()?;
        if end != END || properties.len() < 2 {
            return None;
        }

        let (body_len, rest) =
            if body_size == 0 { (0, rest) } else { body(rest, [c0, c1], body_size, limits)? };

        let wire_len = received.len() - rest.len();
        u32::try_from(at.checked_add(wire_len)?).ok()?;
        let start = at as u32;
        let address = Span { start: start + 13, len: 2 + names as u32 };
        let properties = Span {
            start: address.start + address.len + (2 + HEAD + FIXED) as u32,
            len: properties.len() as u32,
        };
        let body_head = if body_len == 0 { 1 } else { 1 + HEAD as u32 };
        Some(Self {
            channel: u16::from_be_bytes([c0, c1]),
            mandatory: bits & 1 != 0,
            immediate: bits & 2 != 0,
            exchange_len,
            address,
            properties,
            body: Span { start: properties.start + properties.len + body_head, len: body_len },
            wire: Span { start, len: wire_len as u32 },
        })
    }

    /// The exchange's name, without its length.
    #[inline]
    pub fn exchange(&self) -> Span {
        Span { start: self.address.start + 1, len: self.exchange_len.into() }
    }

    /// The routing key, without its length.
    #[inline]
    pub fn routing_key(&self) -> Span {
        let exchange_len = u32::from(self.exchange_len);
        Span { start: self.address.start + 2 + exchange_len, len: self.address.len - 2 - exchange_len }
    }

    /// The address in the buffer that the message was recognised in.
    pub fn address_in<'b>(&self, buffer: &'b [u8]) -> Option<Address<'b>> {
        Address::new(self.address.of(buffer)?)
    }
}

/// One body frame that holds the whole body: its length, and what follows the frame.
#[inline]
fn body<'a>(
    received: &'a [u8],
    channel: [u8; 2],
    body_size: u64,
    limits: &Limits,
) -> Option<(u32, &'a [u8])> {
    let (head, rest) = received.split_first_chunk::<HEAD>()?;
    let [kind, c0, c1, s0, s1, s2, s3] = *head;
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    let whole = u64::from(size) == body_size;
    if kind != FrameKind::Body as u8 || [c0, c1] != channel || !whole || !limits.admits(size) {
        return None;
    }
    let (_, rest) = rest.split_at_checked(size as usize)?;
    let (&end, rest) = rest.split_first()?;
    (end == END).then_some((size, rest))
}
