//! Reply codes (standard §1.2): why a connection or channel was closed or a message returned.

/// The codes that `connection.close`, `channel.close` and `basic.return` carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ReplyCode {
    /// Closed without a fault.
    Success = 200,
    /// The content is larger than the server can take now.
    ContentTooLarge = 311,
    /// A mandatory message reached no queue.
    NoRoute = 312,
    /// An immediate message found no consumer.
    NoConsumers = 313,
    /// An operator, or the server going down, closed the connection.
    ConnectionForced = 320,
    /// An unknown virtual host.
    InvalidPath = 402,
    /// The user lacks the right.
    AccessRefused = 403,
    /// No such queue, exchange or binding.
    NotFound = 404,
    /// A queue that another connection holds exclusively.
    ResourceLocked = 405,
    /// A precondition did not hold: a declaration that differs, an unknown delivery tag.
    PreconditionFailed = 406,
    /// A frame that cannot be decoded.
    FrameError = 501,
    /// A frame with illegal values.
    SyntaxError = 502,
    /// A method that makes no sense here.
    CommandInvalid = 503,
    /// A channel that is not open, or is already.
    ChannelError = 504,
    /// A frame that does not belong here.
    UnexpectedFrame = 505,
    /// The server ran out of something.
    ResourceError = 506,
    /// What the server's rules forbid.
    NotAllowed = 530,
    /// What the server does not do.
    NotImplemented = 540,
    /// A fault of the server's own.
    InternalError = 541,
}

impl ReplyCode {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The code of a number; `None` for one that the standard does not know.
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            200 => Self::Success,
            311 => Self::ContentTooLarge,
            312 => Self::NoRoute,
            313 => Self::NoConsumers,
            320 => Self::ConnectionForced,
            402 => Self::InvalidPath,
            403 => Self::AccessRefused,
            404 => Self::NotFound,
            405 => Self::ResourceLocked,
            406 => Self::PreconditionFailed,
            501 => Self::FrameError,
            502 => Self::SyntaxError,
            503 => Self::CommandInvalid,
            504 => Self::ChannelError,
            505 => Self::UnexpectedFrame,
            506 => Self::ResourceError,
            530 => Self::NotAllowed,
            540 => Self::NotImplemented,
            541 => Self::InternalError,
            _ => return None,
        })
    }

    /// The name that begins RabbitMQ's reply texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "REPLY_SUCCESS",
            Self::ContentTooLarge => "CONTENT_TOO_LARGE",
            Self::NoRoute => "NO_ROUTE",
            Self::NoConsumers => "NO_CONSUMERS",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::InvalidPath => "INVALID_PATH",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// A hard error closes the connection; a soft one only the channel (standard §1.2).
    pub const fn is_hard(self) -> bool {
        matches!(
            self,
            Self::ConnectionForced
                | Self::InvalidPath
                | Self::FrameError
                | Self::SyntaxError
                | Self::CommandInvalid
                | Self::ChannelError
                | Self::UnexpectedFrame
                | Self::ResourceError
                | Self::NotAllowed
                | Self::NotImplemented
                | Self::InternalError
        )
    }

    /// RabbitMQ's reply text, `NOT_FOUND - no queue 'jobs' in vhost '/'`, cut with an ellipsis to the 255 bytes
    /// that a short string holds.
    pub fn text(self, explanation: &str) -> String {
        let mut text = format!("{} - {explanation}", self.name());
        if text.len() > u8::MAX as usize {
            text.truncate(text.floor_char_boundary(252));
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_standard_is_known_and_hard_or_soft_as_it_says() {
        let hard = [320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541];
        let soft = [200, 311, 312, 313, 403, 404, 405, 406];
        for code in 0..=u16::MAX {
            match ReplyCode::from_code(code) {
                Some(reply) => {
                    assert_eq!(reply.code(), code);
                    assert_eq!(reply.is_hard(), hard.contains(&code), "{}", reply.name());
                    assert!(hard.contains(&code) || soft.contains(&code), "{}", reply.name());
                }
                None => assert!(!hard.contains(&code) && !soft.contains(&code), "{code} is missing"),
            }
        }
    }

    #[test]
    fn a_long_reply_text_is_cut_between_characters() {
        assert_eq!(ReplyCode::NotFound.text("no queue 'é'"), "NOT_FOUND - no queue 'é'");
        for padding in 0..4 {
            let text = ReplyCode::NotFound.text(&format!("{}{}", "x".repeat(padding), "é".repeat(200)));
            assert!(text.len() <= 255 && text.ends_with("é..."), "{text}");
        }
    }
}
