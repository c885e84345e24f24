//! How a connection ends: by the client's wish, or while it takes note of ours.

use crate::protocol::amqp::{
    FrameKind, Limits, Method,
    connection::{self as class, Connection as Class},
    frame::{self, Decoded},
};

use super::connection::{Connection, Outcome, Phase};
use super::failure::Failure;
use super::inbound::Understood;

impl Connection {
    /// The client wants to close: first all that belongs to it goes. A back end that takes too long for that is not
    /// waited for.
    pub(super) fn leave(&mut self) {
        self.hurry();
        if let Phase::Running(channels) = std::mem::replace(&mut self.phase, Phase::Closing) {
            let closed = channels.close();
            self.waited = Some(Box::pin(async move {
                closed.await;
                Outcome::Left
            }));
        }
    }

    /// Discards all but what ends a connection that we close.
    pub(super) fn closing(&mut self, received: &[u8]) -> Result<Understood, Failure> {
        let limits = Limits { frame_max: self.door.limits.frame_max, body_max: 0 };
        let mut used = 0;
        loop {
            match frame::decode(received, used, &limits) {
                Ok(Decoded::Incomplete { needed }) => return Ok(Understood { used, needed, wish: None }),
                Ok(Decoded::Frame(frame)) => {
                    used = frame.wire.end();
                    if frame.channel != 0 || frame.kind != FrameKind::Method {
                        continue;
                    }
                    match Method::decode(frame.payload) {
                        Ok(Method::Connection(Class::CloseOk(_))) => {
                            self.over(String::new());
                            break;
                        }
                        Ok(Method::Connection(Class::Close(_))) => {
                            self.sink.send(|out| class::CloseOk {}.encode(0, out));
                        }
                        _ => {}
                    }
                }
                Err(_) => {
                    self.over(String::new());
                    break;
                }
            }
        }
        Ok(Understood { used: received.len(), needed: 0, wish: None })
    }

    /// All that belonged to the client is gone, or goes without it.
    pub(super) fn left(&mut self) {
        self.sink.send(|out| class::CloseOk {}.encode(0, out));
        self.over("the client closed the connection".to_owned());
    }

    /// The connection is over; `why` unless there was a reason before.
    pub(super) fn over(&mut self, why: String) {
        if self.why.is_empty() {
            self.why = why;
        }
        self.waited = None;
        self.phase = Phase::Over;
    }
}
