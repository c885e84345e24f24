//! The short way in: a whole published message of the read buffer, recognised in one pass.

use super::{
    Address, Limits, MethodId, Span, basic,
    content_header::FIXED,
    frame::{END, FrameKind, HEAD},
    reader::Reader,
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

/// Where the address stands in a publish's method frame: behind class, method and a reserved field.
const ADDRESS: u32 = HEAD as u32 + 4 + 2;

impl Publish {
    /// The message that begins at `at`, if it lies there whole, is well formed, has at most one body frame and keeps
    /// `limits`. Anything else is `None`, also what is wrong: then [`frame::decode`](super::frame::decode) and
    /// [`Assembly`](super::Assembly) say what it is. The channel must not be inside another message's content
    /// ([`Assembly::is_idle`](super::Assembly::is_idle)).
    // Always inlined: handing the spans back through memory costs more than finding them.
    #[inline(always)]
    pub fn recognise(buffer: &[u8], at: usize, limits: &Limits) -> Option<Self> {
        let received = buffer.get(at..)?;

        // Each frame is found by the size of the one before; what lies inside is looked at beside that, so that the
        // processor need not wait for one length to load the next.
        let (head, rest) = received.split_first_chunk::<{ HEAD + 4 }>()?;
        let mut head = Reader::new(head);
        let [kind, c0, c1] = head.array().ok()?;
        let size = head.u32().ok()?;
        let publish = head.array().ok()? == basic::Publish::ID.to_be_bytes();
        if kind != FrameKind::Method as u8 || !publish || [c0, c1] == [0, 0] || !limits.admits(size) {
            return None;
        }
        let (arguments, rest) = rest.split_at_checked((size as usize).checked_sub(4)?)?;
        let (&bits, [_, _, names @ ..]) = arguments.split_last()? else { return None };
        let exchange_len = *Address::new(names)?.as_bytes().first()?;

        let (head, rest) = rest.split_first_chunk::<{ 1 + HEAD + FIXED }>()?;
        let mut head = Reader::new(head);
        let header = head.array().ok()? == [END, FrameKind::Header as u8, c0, c1];
        let size = head.u32().ok()?;
        let class_and_weight = MethodId { class: basic::Publish::ID.class, method: 0 }.to_be_bytes();
        let header = header && head.array().ok()? == class_and_weight;
        let body_size = head.u64().ok()?;
        if !header || !limits.admits(size) || body_size > limits.body_max {
            return None;
        }
        let (properties, rest) = rest.split_at_checked((size as usize).checked_sub(FIXED)?)?;
        if properties.len() < 2 {
            return None;
        }

        let (body_len, rest) = if body_size == 0 {
            (0, rest)
        } else {
            let (head, rest) = rest.split_first_chunk::<{ 1 + HEAD }>()?;
            let mut head = Reader::new(head);
            let body = head.array().ok()? == [END, FrameKind::Body as u8, c0, c1];
            let size = head.u32().ok()?;
            if !body || u64::from(size) != body_size || !limits.admits(size) {
                return None;
            }
            (size, rest.split_at_checked(size as usize)?.1)
        };
        let (&end, rest) = rest.split_first()?;
        if end != END {
            return None;
        }

        let wire_len = received.len() - rest.len();
        u32::try_from(at.checked_add(wire_len)?).ok()?;
        let start = at as u32;
        let address = Span { start: start + ADDRESS, len: names.len() as u32 };
        let between = (2 + HEAD + FIXED) as u32;
        let properties = Span { start: address.start + address.len + between, len: properties.len() as u32 };
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
