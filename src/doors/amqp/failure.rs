//! Why a channel or a connection is closed, in RabbitMQ's codes and words.

use crate::protocol::amqp::{Error, MethodId, ReplyCode, ShortString, channel, connection};

/// A channel or connection exception (standard §1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The reply code.
    pub(super) code: u16,
    /// The reply text, `NOT_FOUND - …`, at most 255 bytes.
    pub(super) text: String,
    /// The method at fault; zeros when no method is.
    pub(super) method: MethodId,
    /// The whole connection is closed.
    pub(super) hard: bool,
    /// Where the next frame begins is not known any more.
    pub(super) loses_framing: bool,
}

impl Failure {
    /// An exception with RabbitMQ's text for `code`; the code says whether it closes the connection.
    pub(super) fn new(code: ReplyCode, explanation: &str) -> Self {
        Self {
            code: code.code(),
            text: code.text(explanation),
            method: MethodId::default(),
            hard: code.is_hard(),
            loses_framing: false,
        }
    }

    /// An exception in another broker's own words.
    pub(super) fn quoted(code: u16, text: &str) -> Self {
        Self {
            code,
            text: ShortString::truncated(text).as_str().to_owned(),
            method: MethodId::default(),
            hard: ReplyCode::from_code(code).is_none_or(ReplyCode::is_hard),
            loses_framing: false,
        }
    }

    /// The same, `method` being at fault unless another one is named already.
    pub(super) fn caused_by(mut self, method: MethodId) -> Self {
        if self.method == MethodId::default() {
            self.method = method;
        }
        self
    }

    /// Appends `channel.close`, or `connection.close` when it is hard or `channel` is 0.
    pub(super) fn encode(&self, channel: u16, out: &mut Vec<u8>) {
        let (reply_code, reply_text) = (self.code, ShortString::truncated(&self.text));
        let MethodId { class: class_id, method: method_id } = self.method;
        if self.hard || channel == 0 {
            connection::Close { reply_code, reply_text, class_id, method_id }.encode(0, out);
        } else {
            channel::Close { reply_code, reply_text, class_id, method_id }.encode(channel, out);
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: error.reply_code().code(),
            text: error.reply_text(),
            method: error.method(),
            hard: error.reply_code().is_hard(),
            loses_framing: error.loses_framing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::{Method, basic, frame, limits::Limits};

    fn sent(failure: &Failure, channel: u16) -> (u16, String) {
        let mut out = Vec::new();
        failure.encode(channel, &mut out);
        let limits = Limits { frame_max: 0, body_max: 0 };
        let frame::Decoded::Frame(frame) = frame::decode(&out, 0, &limits).unwrap() else { panic!() };
        (frame.channel, format!("{:?}", Method::decode(frame.payload).unwrap()))
    }

    #[test]
    fn a_soft_error_closes_the_channel_and_a_hard_one_the_connection() {
        let soft = Failure::new(ReplyCode::NotFound, "no queue 'q' in vhost '/'").caused_by(basic::Get::ID);
        assert_eq!(soft.text, "NOT_FOUND - no queue 'q' in vhost '/'");
        let (channel, close) = sent(&soft, 3);
        assert!(channel == 3 && close.contains("class_id: 60, method_id: 70"), "{close}");
        let hard = Failure::new(ReplyCode::ChannelError, "second 'channel.open' seen");
        assert_eq!(sent(&hard, 3).0, 0);
    }

    #[test]
    fn another_brokers_words_are_passed_on() {
        assert!(!Failure::quoted(404, "NOT_FOUND - no queue 'q'").hard);
        assert!(Failure::quoted(999, "?").hard, "a code that nobody knows is not survived");
        assert!(Failure::quoted(404, &"é".repeat(200)).text.len() <= 255);
    }
}
