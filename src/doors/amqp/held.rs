//! Publishers while an alarm is raised: from its first publish on a client is told, and not read until the alarm is over.
//! Who only consumes never notices.

use std::task::{Context, Poll, ready};

use crate::alarms::Hold;
use crate::protocol::amqp::{
    FrameKind, Limits, ShortString, basic, connection,
    frame::{self, Decoded},
};

use super::channels::Channels;
use super::failure::Failure;
use super::inbound::Understood;

/// Bytes that are read at a time while an alarm is raised: those behind a publish are kept until it is over.
pub(super) const AHEAD: usize = 16 * 1024;

/// Whether a connection is held.
#[derive(Debug, Default)]
pub(super) enum Holding {
    /// It is not.
    #[default]
    Free,
    /// It is.
    Held(Hold),
    /// It was, and what was kept back is still to be dealt with.
    Over,
}

impl Channels {
    /// As [`Channels::frames`], but only up to the first publish: there the connection is held. A message that was begun
    /// before is completed, unless its body is on its way to the disk: then the connection is held at once.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn frames_before_publish(&mut self, buffer: &[u8]) -> Result<Understood, Failure> {
        let end = if self.is_taking_room() { Some(0) } else { first_publish(buffer, &self.opened.limits) };
        let Some((at, hold)) = end.and_then(|at| Some((at, self.alarms.hold("amqp")?))) else {
            return self.frames(buffer);
        };
        let understood = self.frames(buffer.get(..at).unwrap_or_default())?;
        if understood.used == at && understood.wish.is_none() {
            let reason = hold.reason().to_owned();
            self.holding = Holding::Held(hold);
            self.tell_blocked(&reason);
        }
        Ok(understood)
    }

    /// Whether a body is being written where it is kept.
    fn is_taking_room(&self) -> bool {
        let mut incoming = self.open.iter().filter_map(|channel| channel.incoming.as_ref());
        incoming.any(|incoming| incoming.has_place())
    }

    /// Ready when the connection is not held.
    pub(super) fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Holding::Held(hold) = &mut self.holding {
            ready!(hold.poll(cx));
            self.holding = Holding::Over;
            self.tell_blocked("");
            self.sink.flush();
        }
        Poll::Ready(())
    }

    /// Whether what was kept back has to be dealt with now.
    pub(super) fn take_over(&mut self) -> bool {
        let is_over = matches!(self.holding, Holding::Over);
        if is_over {
            self.holding = Holding::Free;
        }
        is_over
    }

    /// Tells the client, if it wants to be told, when there is a reason not to take what it publishes, and when there is
    /// none any more: an alarm, or the back end of a channel. `reason` is the one that has come, if one has.
    pub(super) fn tell_blocked(&mut self, reason: &str) {
        let held = matches!(self.holding, Holding::Held(_));
        let blocked = held || self.open.iter().any(|channel| channel.blocked);
        if !self.opened.tell_blocked || blocked == self.told_blocked {
            return;
        }
        self.told_blocked = blocked;
        self.sink.send(|out| match blocked {
            true => connection::Blocked { reason: ShortString::truncated(reason) }.encode(0, out),
            false => connection::Unblocked {}.encode(0, out),
        });
    }
}

/// Where the first `basic.publish` begins that lies whole in `buffer`. What is no frame is left to who deals with it.
fn first_publish(buffer: &[u8], limits: &Limits) -> Option<usize> {
    let [class, method] = [basic::Publish::ID.class, basic::Publish::ID.method].map(u16::to_be_bytes);
    let mut at = 0;
    while at < buffer.len() {
        let Ok(Decoded::Frame(frame)) = frame::decode(buffer, at, limits) else { break };
        let is_publish = frame.payload.starts_with(&class) && frame.payload.get(2..4) == Some(&method);
        if frame.kind == FrameKind::Method && is_publish {
            return Some(at);
        }
        at = frame.wire.end();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::{Content, ShortBytes, channel, properties::NONE};

    const LIMITS: Limits = Limits { frame_max: 4096, body_max: 1 << 20 };

    #[test]
    fn the_first_publish_is_found_behind_what_is_none() {
        let mut bytes = Vec::new();
        channel::Open {}.encode(1, &mut bytes);
        // The end of a message that was begun before, whose body looks like a publish.
        Content { properties: &NONE, body: &[0, 60, 0, 40] }.encode(1, 4096, &mut bytes);
        basic::Ack { delivery_tag: 1, multiple: true }.encode(1, &mut bytes);
        assert_eq!(first_publish(&bytes, &LIMITS), None);
        let at = bytes.len();
        let key = ShortBytes::new(b"q").unwrap();
        let publish = basic::Publish {
            exchange: ShortBytes::EMPTY,
            routing_key: key,
            mandatory: false,
            immediate: false,
        };
        publish.encode(1, &mut bytes);
        assert_eq!(first_publish(&bytes[..bytes.len() - 1], &LIMITS), None, "it may come whole later");
        assert_eq!(first_publish(&bytes, &LIMITS), Some(at));
        assert_eq!(
            first_publish(b"GET / HTTP/1.1\r\n\r\n", &LIMITS),
            None,
            "others say what is wrong with it"
        );
    }
}
