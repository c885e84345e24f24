//! What a peer can do wrong in bytes, and the reply code that it gets for it.

use std::fmt;

use thiserror::Error;

use super::{MethodId, ReplyCode};

/// Bytes that are not what they ought to be, without the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The bytes end inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// Bytes are left when all fields are read.
    #[error("goes on after the last field")]
    Trailing,
    /// A short string that must be text is not.
    #[error("Malformed UTF-8 in shortstr")]
    NotUtf8,
    /// A table or array ends inside a value.
    #[error("field table ends inside a value")]
    TableTruncated,
    /// A type octet that neither the standard nor RabbitMQ knows.
    #[error("field table value of unknown type {0}")]
    TableType(u8),
    /// Tables and arrays nested deeper than [`MAX_DEPTH`](super::table::MAX_DEPTH).
    #[error("field table nested deeper than {} levels", super::table::MAX_DEPTH)]
    TableDepth,
    /// A property flag that class `basic` does not define: what follows cannot be read.
    #[error("unknown property flag")]
    PropertyFlag,
}

/// A protocol error of the peer's. The texts are RabbitMQ's where it has one.
///
/// All are the peer's fault and none is worth a retry. [`reply_code`](Error::reply_code) says whether the
/// connection or only the channel must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A frame over the negotiated frame-max. Nothing after it can be read.
    #[error("type {kind}, all octets = <<>>: {{frame_too_large,{size},{max}}}")]
    FrameTooLarge {
        /// The frame's type octet.
        kind: u8,
        /// Its payload in bytes.
        size: u32,
        /// The largest payload that was negotiated.
        max: u32,
    },
    /// A frame that does not end with 206. Nothing after it can be read.
    #[error("type {kind}, {octets}: {{invalid_frame_end_marker,{marker}}}")]
    FrameEnd {
        /// The frame's type octet.
        kind: u8,
        /// The octet that stands where 206 should.
        marker: u8,
        /// How the payload begins.
        octets: Snippet,
    },
    /// A type octet that does not exist, or a payload that a frame of this type cannot have.
    #[error("type {kind}, all octets = <<>>: unknown_frame")]
    UnknownFrame {
        /// The frame's type octet.
        kind: u8,
    },
    /// A heartbeat on a channel, or content on channel 0.
    #[error("type {kind}, all octets = <<>>")]
    UnexpectedFrame {
        /// The frame's type octet.
        kind: u8,
    },
    /// Content that no method announced.
    #[error("expected method frame, got non method frame instead")]
    ExpectedMethod,
    /// Something else came where a content header must.
    #[error("expected content header for class {}, got non content header frame instead", method.class)]
    ExpectedHeader {
        /// The method that announced content.
        method: MethodId,
    },
    /// A content header of another class than its method's.
    #[error("expected content header for class {}, got one for class {class} instead", method.class)]
    HeaderClass {
        /// The method that announced content.
        method: MethodId,
        /// The header's class.
        class: u16,
    },
    /// Something else came where a body frame must.
    #[error("expected content body, got non content body frame instead")]
    ExpectedBody {
        /// The method that announced content.
        method: MethodId,
    },
    /// More body than the content header announced.
    #[error("content body frame exceeds remaining content size")]
    BodyOverrun {
        /// The method that announced content.
        method: MethodId,
    },
    /// A body over the configured limit, refused before any of it is taken. Closes the channel only.
    #[error("message size {size} is larger than configured max size {max}")]
    BodyTooLarge {
        /// The method that announced content.
        method: MethodId,
        /// The size that the content header announced, in bytes.
        size: u64,
        /// The configured limit in bytes.
        max: u64,
    },
    /// A method that does not exist.
    #[error("unknown method {} of class {}", method.method, method.class)]
    UnknownMethod {
        /// What was called.
        method: MethodId,
    },
    /// A method's arguments cannot be decoded.
    #[error("cannot decode {octets}: {why}")]
    Arguments {
        /// The method.
        method: MethodId,
        /// What is wrong.
        why: Malformed,
        /// How the arguments begin.
        octets: Snippet,
    },
    /// A short string of a method's is not text.
    #[error("Malformed UTF-8 in shortstr")]
    NotUtf8 {
        /// The method.
        method: MethodId,
    },
    /// The properties of a content header cannot be decoded.
    #[error("cannot decode the properties of the content header: {why}")]
    Properties {
        /// The method that announced content.
        method: MethodId,
        /// What is wrong.
        why: Malformed,
    },
}

impl Error {
    pub(super) fn arguments(method: MethodId, why: Malformed, arguments: &[u8]) -> Self {
        match why {
            Malformed::NotUtf8 => Self::NotUtf8 { method },
            why => Self::Arguments { method, why, octets: Snippet::new(arguments) },
        }
    }

    /// The code to close with. A soft one ([`ReplyCode::is_hard`]) closes the channel and leaves the connection.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::FrameTooLarge { .. }
            | Self::FrameEnd { .. }
            | Self::UnknownFrame { .. }
            | Self::BodyOverrun { .. }
            | Self::NotUtf8 { .. } => ReplyCode::FrameError,
            Self::UnexpectedFrame { .. }
            | Self::ExpectedMethod
            | Self::ExpectedHeader { .. }
            | Self::HeaderClass { .. }
            | Self::ExpectedBody { .. } => ReplyCode::UnexpectedFrame,
            Self::Arguments { why, .. } => match why {
                Malformed::Truncated | Malformed::Trailing | Malformed::NotUtf8 => ReplyCode::FrameError,
                Malformed::TableTruncated
                | Malformed::TableType(_)
                | Malformed::TableDepth
                | Malformed::PropertyFlag => ReplyCode::SyntaxError,
            },
            Self::Properties { .. } => ReplyCode::SyntaxError,
            Self::BodyTooLarge { .. } => ReplyCode::PreconditionFailed,
            Self::UnknownMethod { .. } => ReplyCode::NotImplemented,
        }
    }

    /// The reply text, `FRAME_ERROR - …`, at most 255 bytes.
    pub fn reply_text(&self) -> String {
        self.reply_code().text(&self.to_string())
    }

    /// The method at fault for `connection.close` and `channel.close`; zeros when no method is.
    pub fn method(&self) -> MethodId {
        match *self {
            Self::FrameTooLarge { .. }
            | Self::FrameEnd { .. }
            | Self::UnknownFrame { .. }
            | Self::UnexpectedFrame { .. }
            | Self::ExpectedMethod => MethodId::default(),
            Self::ExpectedHeader { method }
            | Self::HeaderClass { method, .. }
            | Self::ExpectedBody { method }
            | Self::BodyOverrun { method }
            | Self::BodyTooLarge { method, .. }
            | Self::UnknownMethod { method }
            | Self::Arguments { method, .. }
            | Self::NotUtf8 { method }
            | Self::Properties { method, .. } => method,
        }
    }

    /// Whether the place of the next frame is lost: say why, then read no more, not even `connection.close-ok`.
    pub fn loses_framing(&self) -> bool {
        matches!(self, Self::FrameTooLarge { .. } | Self::FrameEnd { .. } | Self::UnknownFrame { .. })
    }
}

/// The first bytes of a payload, for an error's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Snippet {
    octets: [u8; 16],
    /// The length of the whole payload.
    len: usize,
}

impl Snippet {
    pub(super) fn new(payload: &[u8]) -> Self {
        let mut octets = [0; 16];
        for (octet, byte) in octets.iter_mut().zip(payload) {
            *octet = *byte;
        }
        Self { octets, len: payload.len() }
    }
}

impl fmt::Display for Snippet {
    /// As RabbitMQ prints it: `all octets = <<1,2>>`, `first 16 octets = <<"text in quotes!!">>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.octets.get(..self.len).unwrap_or(&self.octets);
        f.write_str(if self.len <= self.octets.len() { "all octets = <<" } else { "first 16 octets = <<" })?;
        if !octets.is_empty() && octets.iter().all(|octet| matches!(octet, b' '..=b'~')) {
            write!(f, "\"{}\"", octets.escape_ascii())?;
        } else {
            for (at, octet) in octets.iter().enumerate() {
                write!(f, "{}{octet}", if at == 0 { "" } else { "," })?;
            }
        }
        f.write_str(">>")
    }
}

impl fmt::Debug for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
