//! What a client sends while its back end is asked, or an alarm keeps it back: kept for later, but that it is there is
//! noticed.

use std::task::{Context, Poll};

use super::KeepAlive;
use crate::doors::buffer;
use crate::doors::listener::ReadHalf;
use crate::doors::mqtt::ending::Ending;
use crate::doors::mqtt::input::Input;
use crate::doors::mqtt::sink::Sink;
use crate::protocol::mqtt::{Packet, Version};

/// Bytes that are read ahead of a request's answer, or of an alarm's end.
pub(super) const AHEAD: usize = 16 * 1024;

/// How far the kept packets were looked through.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    looked: usize,
}

impl Ahead {
    /// Reads on, has `answer` take out of what is there what can be dealt with at once, and leaves the rest. It is told how
    /// far it has looked.
    ///
    /// # Errors
    /// When the client has gone, and has left nothing to be dealt with; or what `answer` says.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        read: &mut ReadHalf,
        input: &mut Input,
        sink: &Sink,
        mut keep_alive: Option<&mut KeepAlive>,
        mut answer: impl FnMut(&mut Input, &mut usize) -> Result<(), Ending>,
    ) -> Result<(), Ending> {
        let mut turn = 0;
        while !input.is_large() {
            // A client that does not take its answers is not given more of them.
            if sink.outbound.backlog() > AHEAD {
                if let Some(keep_alive) = &mut keep_alive {
                    // Who is not listened to is not silent.
                    keep_alive.heard();
                }
                break;
            }
            answer(input, &mut self.looked)?;
            if turn >= AHEAD {
                cx.waker().wake_by_ref();
                break;
            }
            let room = AHEAD.saturating_sub(input.kept());
            if let Some(keep_alive) = &mut keep_alive
                && room == 0
            {
                keep_alive.heard();
            }
            let count = buffer::with_scratch(|scratch| {
                let room = scratch.get_mut(..room).filter(|room| !room.is_empty());
                let Some(room) = room else { return Ok(0) };
                match read.poll_read(cx, room) {
                    Poll::Pending => Ok(0),
                    Poll::Ready(Ok(0)) if input.kept() == 0 => Err(Ending::Gone(None)),
                    Poll::Ready(Ok(count)) => {
                        input.keep_more(room.get(..count).unwrap_or_default());
                        Ok(count)
                    }
                    Poll::Ready(Err(error)) => Err(Ending::Gone(Some(error.kind()))),
                }
            })?;
            if count == 0 {
                break;
            }
            turn += count;
            if let Some(keep_alive) = &mut keep_alive {
                keep_alive.heard();
            }
        }
        Ok(())
    }
}

/// Answers the PINGREQs among what is there: a back end that takes long to subscribe must not look like a server that is
/// gone.
pub(super) fn answer_pings(input: &mut Input, looked: &mut usize, sink: &Sink) {
    let mut answers = Vec::new();
    for _ in 0..input.take_pings(looked) {
        // It is the same in both versions, and never too large.
        let _ = Packet::Pingresp.encode(Version::V311, &mut answers);
    }
    if !answers.is_empty() {
        sink.append(&answers);
        sink.outbound.flush();
    }
}
