//! What back ends said, passed on to the client.

use std::task::Waker;

use linkspan_contract::{LaneEvent, Outcome, Receipt};

use super::channel::Mode;
use super::channels::Channels;
use super::failure::Failure;
use super::inbox::{Notice, What};
use super::request::Request;

impl Channels {
    /// Deals with what back ends said since the last call; true when there was something.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn listen(&mut self, waker: &Waker) -> Result<bool, Failure> {
        let notices = self.inbox.take(waker);
        let any = !notices.is_empty();
        for Notice { channel, serial, what } in notices {
            let Ok(at) = self.find(channel) else { continue };
            if self.open.get(at).is_none_or(|open| open.serial != serial || open.state.closing) {
                continue;
            }
            match what {
                What::Receipts(runs) => self.receipts(at, &runs),
                What::Event(event) => self.event(at, event)?,
            }
        }
        Ok(any)
    }

    fn receipts(&mut self, at: usize, runs: &[Receipt]) {
        // Without confirms nobody is told: the channel is not closed for what a back end says afterwards.
        let Some(channel) = self.open.get_mut(at).filter(|channel| channel.state.mode == Mode::Confirm)
        else {
            return;
        };
        let (number, confirms) = (channel.state.number, &mut channel.confirms);
        self.sink.send(|out| {
            for run in runs {
                let accepted = matches!(run.outcome, Outcome::Accepted | Outcome::Unroutable);
                confirms.settle(number, run.first, run.count, accepted, out);
            }
        });
    }

    fn event(&mut self, at: usize, event: LaneEvent) -> Result<(), Failure> {
        match event {
            LaneEvent::Returned { message, code, text } => {
                if let Some(channel) = self.open.get(at) {
                    let (number, batch) = (channel.state.number, message.batch.batch());
                    self.sink.returned(number, &batch, &message.message(), code, &text);
                }
            }
            LaneEvent::Closed { code, text } => self.fail(at, Failure::quoted(code, &text))?,
            // Only sessions can be, and no AMQP client has one.
            LaneEvent::TakenOver => {}
            LaneEvent::Blocked(reason) => self.blocked(at, Some(&reason)),
            LaneEvent::Unblocked => self.blocked(at, None),
            LaneEvent::Changed => self.refresh(at)?,
        }
        Ok(())
    }

    fn blocked(&mut self, at: usize, reason: Option<&str>) {
        if let Some(channel) = self.open.get_mut(at) {
            channel.blocked = reason.is_some();
            self.tell_blocked(reason.unwrap_or_default());
        }
    }

    /// Lets the lane resolve its subscriptions again, now or when it is back.
    pub(super) fn refresh(&mut self, at: usize) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        channel.refresh = channel.is_away();
        if channel.refresh { Ok(()) } else { self.ask(at, Request::Refresh, Default::default()) }
    }
}
