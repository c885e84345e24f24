//! Method, content header and body frames of a channel, put together (standard §4.2.6).

use super::{ContentHeader, Error, Frame, FrameKind, Limits, Method, MethodId};

/// What a channel is in the middle of. It keeps no bytes: [`Part`] says where each belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assembly {
    /// Between methods.
    #[default]
    Idle,
    /// After a method that announced content.
    Header {
        /// The method.
        method: MethodId,
    },
    /// After a content header, while body is missing.
    Body {
        /// The method that announced content.
        method: MethodId,
        /// Bytes of body that came.
        received: u64,
        /// Bytes of body that are still to come, never 0.
        remaining: u64,
    },
}

/// What a frame brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// A method; its content follows if [`Method::has_content`] says so.
    Method(Method<'a>),
    /// The content header of the last method.
    Header {
        /// The header.
        header: ContentHeader<'a>,
        /// Whether the message is complete: its body is empty.
        last: bool,
    },
    /// A part of the body.
    Body {
        /// The bytes, possibly none.
        chunk: &'a [u8],
        /// How many bytes of the body came before.
        offset: u64,
        /// Whether the message is complete.
        last: bool,
    },
}

impl Assembly {
    /// Whether the next frame must be a method, which may be a whole [`Publish`](super::Publish).
    #[inline]
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Takes the channel's next frame. A body over `limits` is refused at its header, before any of it comes.
    ///
    /// After an error the channel is idle again; what comes on it until it is closed is to be ignored.
    pub fn accept<'a>(&mut self, frame: &Frame<'a>, limits: &Limits) -> Result<Part<'a>, Error> {
        let state = std::mem::take(self);
        match (state, frame.kind) {
            (Self::Idle, FrameKind::Method) => {
                let method = Method::decode(frame.payload)?;
                if method.has_content() {
                    *self = Self::Header { method: method.id() };
                }
                Ok(Part::Method(method))
            }
            (Self::Idle, _) => Err(Error::ExpectedMethod),
            (Self::Header { method }, FrameKind::Header) => {
                let header = ContentHeader::decode(frame.payload, method)?;
                if header.body_size > limits.body_max {
                    return Err(Error::BodyTooLarge { method, size: header.body_size, max: limits.body_max });
                }
                self.expect_body(method, 0, header.body_size);
                Ok(Part::Header { header, last: self.is_idle() })
            }
            (Self::Header { method }, _) => Err(Error::ExpectedHeader { method }),
            (Self::Body { method, received, remaining }, FrameKind::Body) => {
                let len = frame.payload.len() as u64;
                let remaining = remaining.checked_sub(len).ok_or(Error::BodyOverrun { method })?;
                self.expect_body(method, received + len, remaining);
                Ok(Part::Body { chunk: frame.payload, offset: received, last: self.is_idle() })
            }
            (Self::Body { method, .. }, _) => Err(Error::ExpectedBody { method }),
        }
    }

    fn expect_body(&mut self, method: MethodId, received: u64, remaining: u64) {
        if remaining > 0 {
            *self = Self::Body { method, received, remaining };
        }
    }
}
