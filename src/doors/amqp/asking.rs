//! What a channel's methods come to: settling, asking the lane, and what it answers.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use linkspan_contract::Credit;

use crate::protocol::amqp::{MethodId, ReplyCode, basic, tx};

use super::channel::{Effect, Mode};
use super::channels::Channels;
use super::failure::Failure;
use super::open_channel::Busy;
use super::request::{Answer, Origin, Request};
use super::settling::{Acknowledged, Settling};

impl Channels {
    /// Does what a method leads to; `payload` is its frame's.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn act(
        &mut self,
        at: usize,
        effect: Effect,
        method: MethodId,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        let place = channel.place;
        match effect {
            Effect::None => Ok(()),
            Effect::Acknowledge(said) => {
                say(&mut channel.said, said);
                Ok(())
            }
            Effect::Close => {
                self.remove(at, true);
                Ok(())
            }
            Effect::Closed => {
                self.remove(at, false);
                Ok(())
            }
            Effect::Topology => {
                let queue = channel.state.last_queue.clone();
                self.ask(at, Request::Topology { payload: payload.into(), queue }, method)
            }
            Effect::Consume { queue, tag, no_ack } => {
                let tag = if tag.is_empty() { made_up() } else { tag };
                let credit = (!no_ack).then(|| {
                    let limit = match channel.state.prefetch {
                        0 => u32::MAX,
                        limit => limit.into(),
                    };
                    Arc::new(Credit::within(limit, Some(channel.window())))
                });
                let Some(key) = self.sink.add_consumer(place, &tag, credit.clone()) else {
                    let text = format!("attempt to reuse consumer tag '{tag}'");
                    return Err(Failure::new(ReplyCode::NotAllowed, &text).caused_by(method));
                };
                let payload = payload.into();
                self.ask(at, Request::Consume { queue, key, tag, credit, payload }, method)
            }
            Effect::Cancel { tag, answer } => match self.sink.consumer(place, &tag) {
                Some(key) => self.ask(at, Request::Cancel { key, answer }, method),
                // The standard has this be no error.
                None => self.answered(at, Ok(Answer::Frame(answer))),
            },
            Effect::Get { queue, no_ack } => match self.sink.fetch_key(place) {
                Some(key) => self.ask(at, Request::Fetch { queue, key, settled: no_ack }, method),
                None => Ok(()),
            },
            Effect::Window(limit) => {
                channel.window_limit = limit;
                let limit = limit.map_or(u32::MAX, u32::from);
                if let (Some(window), Some(lane)) = (&channel.window, &mut channel.lane)
                    && window.set_limit(limit)
                {
                    lane.resume();
                    channel.dirty = true;
                }
                Ok(())
            }
            Effect::Recover { answer } => {
                let mut settling = Settling::default();
                self.sink.recovered(place, &answer, &mut settling);
                channel.recovering = Some(settling);
                self.ask(at, Request::Recover, method)
            }
            Effect::Begin => self.ask(at, Request::Begin, method),
            Effect::Commit => self.ask(at, Request::Commit, method),
            Effect::Rollback => self.ask(at, Request::Rollback, method),
        }
    }

    /// Settles what the clients of all channels said in this read: one call of each lane.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        for at in 0..self.open.len() {
            let Some(channel) = self.open.get_mut(at).filter(|channel| !channel.said.is_empty()) else {
                continue;
            };
            let mut said = std::mem::take(&mut channel.said);
            let transaction = channel.state.mode == Mode::Transaction;
            let mut settling = Settling::default();
            let done = self.sink.acknowledge(channel.place, &said, transaction, &mut settling);
            if let Some(lane) = &mut channel.lane {
                if !settling.runs.is_empty() {
                    lane.settle(&settling.runs);
                    channel.dirty = true;
                }
                if settling.give() {
                    lane.resume();
                }
            }
            channel.held.append(&mut settling.held);
            said.clear();
            if said.capacity() <= KEPT {
                channel.said = said;
            }
            if let Err(failure) = done {
                self.fail(at, failure)?;
            }
        }
        Ok(())
    }

    /// Asks the lane: the answer may be there at once, or the lane is away until it is.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn ask(&mut self, at: usize, request: Request, method: MethodId) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        let Some(mut lane) = channel.lane.take() else { return Ok(()) };
        let origin = Origin { channel: channel.state.number, vhost: Arc::clone(&self.opened.vhost) };
        let consumer = match &request {
            Request::Consume { key, .. } => Some(*key),
            _ => None,
        };
        let sink = Arc::clone(&self.sink);
        let mut future: Busy = Box::pin(async move {
            let answer = request.carry_out(&mut *lane, &origin).await;
            if let (Err(_), Some(key)) = (&answer, consumer) {
                sink.end_consumer(key);
            }
            (lane, answer.map_err(|failure| failure.caused_by(method)))
        });
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready((lane, answer)) => {
                channel.lane = Some(lane);
                self.answered(at, answer)
            }
            Poll::Pending => {
                channel.busy = Some(future);
                Ok(())
            }
        }
    }

    /// A lane answered.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn answered(&mut self, at: usize, answer: Result<Answer, Failure>) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        let (number, place) = (channel.state.number, channel.place);
        // Queues were made, bound or emptied, deliveries started: whatever it was may have let messages go.
        channel.dirty = true;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.fail(at, failure),
        };
        let Some(lane) = &mut channel.lane else { return Ok(()) };
        let mut settling = channel.recovering.take().unwrap_or_default();
        match answer {
            Answer::Frame(frame) => self.sink.send(|out| out.extend_from_slice(&frame)),
            Answer::Declared(frame, name) => {
                channel.state.last_queue = Some(name);
                self.sink.send(|out| out.extend_from_slice(&frame));
            }
            Answer::Consuming { key, frame } => {
                if self.sink.consuming(key, &frame) {
                    lane.start(key);
                }
            }
            Answer::Cancelled(key, frame) => {
                self.sink.end_consumer(key);
                self.sink.send(|out| out.extend_from_slice(&frame));
            }
            Answer::Fetched(Some(fetched), settled) => self.sink.fetched(place, &fetched, settled),
            Answer::Fetched(None, _) => self.sink.send(|out| basic::GetEmpty {}.encode(number, out)),
            Answer::Begun => {
                channel.state.mode = Mode::Transaction;
                self.sink.send(|out| tx::SelectOk {}.encode(number, out));
            }
            Answer::Finished(incoming) => {
                return match self.complete(at, *incoming) {
                    Ok(()) => Ok(()),
                    Err(failure) => self.fail(at, failure),
                };
            }
            Answer::Committed => {
                self.sink.committed(std::mem::take(&mut channel.held), &mut settling);
                self.sink.send(|out| tx::CommitOk {}.encode(number, out));
            }
            Answer::RolledBack => {
                self.sink.rolled_back(place, std::mem::take(&mut channel.held));
                self.sink.send(|out| tx::RollbackOk {}.encode(number, out));
            }
        }
        if settling.give() {
            lane.resume();
        }
        Ok(())
    }
}

/// Room for what is said in one read that a channel keeps.
const KEPT: usize = 8;

/// Adds to what was said: acknowledgements one by one in order are one run.
#[inline]
fn say(said: &mut Vec<Acknowledged>, now: Acknowledged) {
    if let Some(last) = said.last_mut() {
        let follows = !last.multiple && !now.multiple && last.word == now.word && last.method == now.method;
        if follows && last.tag + u64::from(last.count) == now.tag {
            last.count += 1;
            return;
        }
    }
    said.push(now);
}

/// A consumer tag that nobody else has, as RabbitMQ makes them: 128 random bits.
fn made_up() -> Arc<str> {
    use std::hash::{BuildHasher, RandomState};
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let half = || u128::from(RandomState::new().hash_one(linkspan_contract::client_number()));
    let bits = (half() << 64) | half();
    let digit = |at: u32| DIGITS.get((bits >> (6 * at)) as usize & 63).copied().map_or('A', char::from);
    let mut tag = String::from("amq.ctag-");
    tag.extend((0..22).map(digit));
    tag.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::amqp::settling::Word;

    #[test]
    fn made_up_consumer_tags_differ() {
        let (one, other) = (made_up(), made_up());
        assert!(one.starts_with("amq.ctag-") && one.len() == 31, "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn acknowledgements_in_order_are_one_run() {
        let ack =
            |tag, multiple| Acknowledged { tag, count: 1, multiple, word: Word::Ack, method: basic::Ack::ID };
        let mut said = Vec::new();
        for now in [ack(1, false), ack(2, false), ack(3, false), ack(5, false), ack(9, true), ack(10, false)]
        {
            say(&mut said, now);
        }
        let runs: Vec<_> = said.iter().map(|said| (said.tag, said.count, said.multiple)).collect();
        assert_eq!(runs, [(1, 3, false), (5, 1, false), (9, 1, true), (10, 1, false)]);
    }
}
