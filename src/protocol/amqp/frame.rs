//! Frames (standard §4.2.3): type, channel, size, payload, the octet 206.

use super::{Error, Limits, Span, error::Snippet, reader::Reader};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A method.
    Method = 1,
    /// The content header of a message.
    Header = 2,
    /// A message's body or a part of it.
    Body = 3,
    /// A sign of life; always on channel 0, always empty.
    Heartbeat = 8,
}

/// The octet that ends every frame.
pub const END: u8 = 0xCE;

/// Bytes before the payload: type, channel, size.
pub const HEAD: usize = 7;

/// Bytes of a frame beside its payload.
pub const OVERHEAD: usize = HEAD + 1;

/// The least frame-max that may be negotiated, in bytes (standard §1.2, `frame-min-size`).
pub const MIN_MAX: u32 = 4096;

/// A whole heartbeat frame.
pub const HEARTBEAT: [u8; 8] = [FrameKind::Heartbeat as u8, 0, 0, 0, 0, 0, 0, END];

/// A frame of the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// The channel; 0 is the connection.
    pub channel: u16,
    /// What lies between the size and the end octet.
    pub payload: &'a [u8],
    /// The whole frame in the read buffer, end octet included.
    pub wire: Span,
}

impl Frame<'_> {
    /// Where the payload lies in the read buffer.
    pub fn payload_span(&self) -> Span {
        Span { start: self.wire.start + HEAD as u32, len: self.payload.len() as u32 }
    }
}

/// What lies at a place of the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A part of a frame: read until `needed` bytes are there from this place on. The least frame, 8 bytes, until
    /// the size is known. A size over the limit is never announced.
    Incomplete {
        /// Bytes from the frame's first one on.
        needed: usize,
    },
    /// A whole frame; the next begins at `wire.end()`.
    Frame(Frame<'a>),
}

/// The frame that begins at `at`. All that its head can be refused for is refused as soon as the head is there.
///
/// Offsets are 32 bits wide: a read buffer holds less than 4 GiB.
pub fn decode<'a>(buffer: &'a [u8], at: usize, limits: &Limits) -> Result<Decoded<'a>, Error> {
    let received = buffer.get(at..).unwrap_or_default();
    let Some(([octet, c0, c1, s0, s1, s2, s3], rest)) = received.split_first_chunk::<HEAD>() else {
        return Ok(Decoded::Incomplete { needed: OVERHEAD });
    };
    let channel = u16::from_be_bytes([*c0, *c1]);
    let size = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
    let kind = judge_head(*octet, channel, size, limits)?;
    let needed = size as usize + OVERHEAD;
    let Some((payload, [marker, ..])) = rest.split_at_checked(size as usize) else {
        return Ok(Decoded::Incomplete { needed });
    };
    if *marker != END {
        return Err(Error::FrameEnd { kind: *octet, marker: *marker, octets: Snippet::new(payload) });
    }
    let wire = Span { start: at as u32, len: needed as u32 };
    Ok(Decoded::Frame(Frame { kind, channel, payload, wire }))
}

fn judge_head(octet: u8, channel: u16, size: u32, limits: &Limits) -> Result<FrameKind, Error> {
    if !limits.admits(size) {
        let max = limits.frame_max.saturating_sub(OVERHEAD as u32);
        return Err(Error::FrameTooLarge { kind: octet, size, max });
    }
    // The least that a method (class, method) and a content header (class, weight, body size) can be.
    let (kind, possible) = match octet {
        1 => (FrameKind::Method, size >= 4),
        2 => (FrameKind::Header, size >= 12),
        3 => (FrameKind::Body, true),
        8 => (FrameKind::Heartbeat, size == 0),
        _ => return Err(Error::UnknownFrame { kind: octet }),
    };
    let in_place = match kind {
        FrameKind::Method => true,
        FrameKind::Header | FrameKind::Body => channel != 0,
        FrameKind::Heartbeat => channel == 0,
    };
    match (possible, in_place) {
        (false, _) => Err(Error::UnknownFrame { kind: octet }),
        (true, false) => Err(Error::UnexpectedFrame { kind: octet }),
        (true, true) => Ok(kind),
    }
}

/// The seven bytes before a payload of `size` bytes: for who sends a large body by reference and only needs what
/// goes around it. [`END`] follows the payload.
#[inline]
pub fn head(kind: FrameKind, channel: u16, size: u32) -> [u8; HEAD] {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = size.to_be_bytes();
    [kind as u8, c0, c1, s0, s1, s2, s3]
}

/// The largest payload that fits into a frame of `frame_max` bytes; 0 is no bound.
#[inline]
pub fn payload_max(frame_max: u32) -> usize {
    match frame_max {
        0 => u32::MAX as usize - OVERHEAD,
        max => (max as usize).saturating_sub(OVERHEAD).max(1),
    }
}

/// Appends a method frame whose arguments `write` appends.
pub(super) fn encode_method(
    channel: u16,
    id: super::MethodId,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&head(FrameKind::Method, channel, 0));
    out.extend_from_slice(&id.to_be_bytes());
    write(out);
    let size = (out.len() - start - HEAD) as u32;
    if let Some(slot) = out.get_mut(start + 3..start + HEAD) {
        slot.copy_from_slice(&size.to_be_bytes());
    }
    out.push(END);
}

/// The class and method at the head of a method frame's payload, and its arguments.
pub(super) fn split_method(payload: &[u8]) -> Option<(super::MethodId, Reader<'_>)> {
    let ([c0, c1, m0, m1], arguments) = payload.split_first_chunk::<4>()?;
    let id =
        super::MethodId { class: u16::from_be_bytes([*c0, *c1]), method: u16::from_be_bytes([*m0, *m1]) };
    Some((id, Reader::new(arguments)))
}
