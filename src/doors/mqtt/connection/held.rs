//! A publisher while an alarm is raised: what it sends from its first PUBLISH on waits until the alarm is over.
//!
//! A little of it is read all the same, and what only acknowledges or asks for a sign of life is taken out and dealt with: so
//! a client that publishes and consumes goes on consuming, and none takes the server for dead, as long as not too much waits
//! before that.

use std::task::{Context, Poll};

use super::ahead::Ahead;
use super::turn::{Live, deal_with};
use crate::alarms::{Alarms, Hold};
use crate::doors::mqtt::ending::Ending;
use crate::doors::mqtt::input::Input;
use crate::doors::mqtt::session::{Next, Session};
use crate::protocol::mqtt::{Framing, PacketType};

/// What keeps a connection back.
pub(super) struct Held {
    hold: Hold,
    ahead: Ahead,
}

impl Held {
    pub(super) fn new(hold: Hold) -> Box<Self> {
        Box::new(Self { hold, ahead: Ahead::default() })
    }

    /// Where the first PUBLISH in `received` begins, and what keeps the connection back there; none when there is no PUBLISH
    /// or no alarm.
    pub(super) fn before_publish(received: &[u8], alarms: &Alarms) -> Option<(usize, Box<Self>)> {
        let at = first_publish(received)?;
        alarms.hold("mqtt").map(|hold| (at, Self::new(hold)))
    }
}

/// Where the first PUBLISH begins, whole or not. What is no packet is left to who deals with it.
fn first_publish(received: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = received.get(at..)?;
        if PacketType::from_first_byte(*rest.first()?) == Some(PacketType::Publish) {
            return Some(at);
        }
        match Framing::read(rest, Framing::MAXIMUM_PACKET_SIZE) {
            Ok(Framing::Complete(frame)) => at += frame.wire.len(),
            Ok(Framing::Incomplete { .. }) | Err(_) => return None,
        }
    }
}

impl Live {
    /// Ready when nothing keeps the connection back.
    pub(super) fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let Self { held, read, input, sink, session, keep_alive, .. } = self;
        let Some(Held { hold, ahead }) = held.as_deref_mut() else { return Poll::Ready(Ok(())) };
        if hold.poll(cx).is_ready() {
            *held = None;
            return Poll::Ready(Ok(()));
        }
        if input.is_large() {
            // Who is not listened to is not silent.
            self.heard();
            return Poll::Pending;
        }
        let answer = |input: &mut Input, looked: &mut usize| take_answers(session, input, looked);
        match ahead.poll(cx, read, input, sink, keep_alive.as_mut(), answer) {
            Ok(()) => Poll::Pending,
            Err(ending) => Poll::Ready(Err(ending)),
        }
    }
}

/// Has the session deal with what acknowledges among what waits.
fn take_answers(session: &mut Session, input: &mut Input, looked: &mut usize) -> Result<(), Ending> {
    let answers = input.take_answers(looked);
    if answers.is_empty() {
        return Ok(());
    }
    match deal_with(session, &answers, 0).next {
        Next::End(ending) => Err(ending),
        Next::Bytes { .. } | Next::Request(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_publish_is_found_behind_what_is_none() {
        let (ping, puback, publish) = ([0xC0, 0], [0x40, 2, 0, 1], [0x30, 4, 0, 1, b'a', 0xC0]);
        assert_eq!(first_publish(&[&ping[..], &puback].concat()), None);
        assert_eq!(first_publish(&[&ping[..], &puback, &publish].concat()), Some(6));
        assert_eq!(first_publish(&[&ping[..], &[0x3D]].concat()), Some(2), "one byte of it says enough");
        assert_eq!(first_publish(&puback[..3]), None);
        assert_eq!(first_publish(&[0, 0, 0x30, 0]), None, "others say what is wrong with it");
        assert_eq!(first_publish(&[]), None);
    }
}
