//! A connection's outbound side as back ends see it.

use std::sync::Arc;
use std::task::{Context, Poll};

use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Batch, Body, Credit, Delivered, DeliverySink, Ended, Flags, Message, Outcome, Pick, Refused, Seq,
    SubscriptionKey,
};
use slab::Slab;

use crate::doors::listener::WriteHalf;
use crate::doors::outbound::{Guard, Marks, Outbound};
use crate::protocol::amqp::{Forwarding, ReplyCode, ShortBytes, ShortString, basic, frame};

use super::confirm::Confirms;
use super::consumers::{Consumer, Consumers};
use super::delivery::{self, BodyFrames, Head, Recipient};
use super::metric::Metrics;
use super::unsettled::{Run, Unsettled};

/// The outbound side of one connection: deliveries of all its channels.
#[derive(Debug)]
pub(super) struct Sink {
    outbound: Outbound<Outgoing>,
    metrics: Arc<Metrics>,
}

/// What is under the lock beside the bytes.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    frame_max: u32,
    cancel_notify: bool,
    pub(super) channels: Slab<ChannelOut>,
    pub(super) consumers: Consumers,
}

/// The outbound part of a channel.
#[derive(Debug, Default)]
pub(super) struct ChannelOut {
    number: u16,
    /// The last delivery tag that was allotted.
    tag: u64,
    pub(super) unsettled: Unsettled,
    /// Under which key `basic.get` fetches.
    fetches: Option<SubscriptionKey>,
}

impl Sink {
    /// The outbound side over `socket`.
    pub(super) fn new(socket: WriteHalf, marks: Marks, metrics: Arc<Metrics>) -> Self {
        Self { outbound: Outbound::new(socket, Outgoing::default(), marks), metrics }
    }

    /// The bytes and who writes them.
    pub(super) fn outbound(&self) -> &Outbound<Outgoing> {
        &self.outbound
    }

    /// What was negotiated: the frame-max in bytes, and whether the client wants to know of cancelled consumers.
    pub(super) fn negotiated(&self, frame_max: u32, cancel_notify: bool) {
        let mut guard = self.outbound.lock();
        guard.state().frame_max = frame_max;
        guard.state().cancel_notify = cancel_notify;
    }

    /// Appends frames that `write` appends.
    pub(super) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut guard = self.outbound.lock();
        write(guard.parts().1);
        guard.appended();
    }

    /// A channel was opened; its place.
    pub(super) fn open_channel(&self, number: u16) -> usize {
        self.outbound.lock().state().channels.insert(ChannelOut { number, ..ChannelOut::default() })
    }

    /// A channel was closed, after its lane: nothing is delivered to it any more.
    pub(super) fn close_channel(&self, place: usize) {
        let mut guard = self.outbound.lock();
        let state = guard.state();
        state.consumers.remove_channel(place);
        state.channels.try_remove(place);
    }

    /// A consumer of a channel; its key, unless the tag is taken already or there are a million.
    pub(super) fn add_consumer(
        &self,
        channel: usize,
        tag: &str,
        credit: Option<Arc<Credit>>,
    ) -> Option<SubscriptionKey> {
        let mut guard = self.outbound.lock();
        let Outgoing { channels, consumers, .. } = guard.state();
        if consumers.find(channel, tag).is_some() {
            return None;
        }
        let number = channels.get(channel)?.number;
        let forwarding = Some(Forwarding::new(number, ShortBytes::new(tag.as_bytes()).unwrap_or_default()));
        consumers.add(Consumer { channel, tag: Some(tag.into()), forwarding, credit, ..Consumer::default() })
    }

    /// Appends `answer`, which tells the client that the consumer is there. False when its back end has ended it
    /// meanwhile: then the client is told that too.
    pub(super) fn consuming(&self, key: SubscriptionKey, answer: &[u8]) -> bool {
        let mut guard = self.outbound.lock();
        guard.parts().1.extend_from_slice(answer);
        let consumer = guard.state().consumers.get_mut(key);
        let ended = consumer.is_none_or(|consumer| {
            consumer.told = true;
            consumer.ended
        });
        if ended {
            cancel(&mut guard, key);
        }
        guard.appended();
        !ended
    }

    /// The live consumer of a channel with this tag.
    pub(super) fn consumer(&self, channel: usize, tag: &str) -> Option<SubscriptionKey> {
        self.outbound.lock().state().consumers.find(channel, tag)
    }

    /// The consumer is given nothing more; false when it had ended before.
    pub(super) fn end_consumer(&self, key: SubscriptionKey) -> bool {
        self.outbound.lock().state().consumers.end(key).is_some()
    }

    /// The key that a channel fetches under.
    pub(super) fn fetch_key(&self, channel: usize) -> Option<SubscriptionKey> {
        let mut guard = self.outbound.lock();
        let Outgoing { channels, consumers, .. } = guard.state();
        let out = channels.get_mut(channel)?;
        if out.fetches.is_none() {
            out.fetches = consumers.add(Consumer { channel, ..Consumer::default() });
        }
        out.fetches
    }

    /// Appends `basic.get-ok` with a fetched message, unsettled unless `settled`.
    pub(super) fn fetched(&self, channel: usize, fetched: &Fetched, settled: bool) {
        let mut guard = self.outbound.lock();
        let Outgoing { channels, consumers, frame_max, .. } = guard.state();
        let Some(out) = channels.get_mut(channel) else { return };
        out.tag += 1;
        if !settled {
            out.unsettled.push(Run { channel_tag: out.tag, count: 1, key: fetched.key, tag: fetched.tag });
            if let Some(consumer) = consumers.get_mut(fetched.key) {
                consumer.unsettled += 1;
            }
        }
        let head = Head::GetOk {
            delivery_tag: out.tag,
            redelivered: fetched.attempt > 0,
            message_count: u32::try_from(fetched.remaining).unwrap_or(u32::MAX),
        };
        let to = Recipient { channel: out.number, frame_max: *frame_max };
        let batch = fetched.message.batch.batch();
        let before = guard.backlog();
        append(&mut guard, &batch, &fetched.message.message(), fetched.age, head, to);
        guard.appended();
        self.metrics.sent.increment(1);
        self.metrics.sent_bytes.increment(guard.backlog().saturating_sub(before) as u64);
    }

    /// Appends what the publisher is told of a batch: first the messages that come back, then the confirms of
    /// `first..first + known`. The failure that closes its channel, if there is one.
    pub(super) fn published(
        &self,
        channel: u16,
        batch: &Batch<'_>,
        exceptions: &[(u32, Outcome)],
        (first, known): (Seq, u32),
        confirms: Option<&mut Confirms>,
        fatal: impl Fn(&Refused) -> bool,
    ) -> Option<Refused> {
        let mut guard = self.outbound.lock();
        let frame_max = guard.state().frame_max;
        let mut failed = None;
        let mut returned = 0;
        for (at, outcome) in exceptions {
            match (outcome, batch.message(*at)) {
                (Outcome::Unroutable, Some(message)) if message.flags.has(Flags::MANDATORY) => {
                    let (reply_code, reply_text) = (ReplyCode::NoRoute.code(), ReplyCode::NoRoute.name());
                    let head = Head::Return { reply_code, reply_text };
                    append(&mut guard, batch, message, 0, head, Recipient { channel, frame_max });
                    returned += 1;
                }
                (Outcome::Refused(refused), _) if fatal(refused) => {
                    failed = Some(refused.clone());
                    break;
                }
                _ => {}
            }
        }
        if let Some(confirms) = confirms {
            let out = guard.parts().1;
            let mut next = 0;
            for (at, outcome) in exceptions {
                if matches!(outcome, Outcome::Refused(_) | Outcome::Failed(_)) && *at < known {
                    confirms.settle(channel, first + u64::from(next), at - next, true, out);
                    if matches!(outcome, Outcome::Refused(refused) if fatal(refused)) {
                        next = known;
                        break;
                    }
                    confirms.settle(channel, first + u64::from(*at), 1, false, out);
                    next = at + 1;
                }
            }
            confirms.settle(channel, first + u64::from(next), known.saturating_sub(next), true, out);
        }
        guard.appended();
        self.metrics.returned.increment(returned);
        failed
    }

    /// Appends a message that a back end gave back later.
    pub(super) fn returned(&self, channel: u16, batch: &Batch<'_>, message: &Message, code: u16, text: &str) {
        let mut guard = self.outbound.lock();
        let to = Recipient { channel, frame_max: guard.state().frame_max };
        append(&mut guard, batch, message, 0, Head::Return { reply_code: code, reply_text: text }, to);
        guard.appended();
        self.metrics.returned.increment(1);
    }

    /// Writes, or leaves it to who writes.
    pub(super) fn flush(&self) {
        self.outbound.flush();
    }
}

/// Appends one message with all its frames.
fn append(
    guard: &mut Guard<'_, Outgoing>,
    batch: &Batch<'_>,
    message: &Message,
    age: u64,
    head: Head<'_>,
    to: Recipient,
) {
    let by_reference = delivery::append(batch, message, age, head, to, guard.parts().1);
    if let Some(body) = by_reference {
        by_pieces(guard, &body, to);
    }
}

fn by_pieces(guard: &mut Guard<'_, Outgoing>, body: &Body, to: Recipient) {
    let body = match body {
        Body::Shared(bytes) => bytes,
        Body::Stored(stored) => {
            let frames = BodyFrames::new(stored.len(), to);
            return guard.push_stored(Arc::clone(stored), Some(Box::new(frames)));
        }
    };
    for (before, piece) in delivery::pieces(body, to) {
        guard.parts().1.extend_from_slice(&before);
        guard.push_shared(piece);
    }
    guard.parts().1.push(frame::END);
}

impl DeliverySink for Sink {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let mut guard = self.outbound.lock();
        if guard.is_closed() {
            return Delivered::Closed;
        }
        let before = guard.backlog();
        let mut count = 0;
        let forwards = delivery::forwards(batch);
        for pick in picks {
            count += u64::from(deliver(&mut guard, batch, pick, forwards));
        }
        let congested = guard.appended();
        let bytes = guard.backlog().saturating_sub(before);
        drop(guard);
        self.metrics.sent.increment(count);
        self.metrics.sent_bytes.increment(bytes as u64);
        if congested { Delivered::Congested } else { Delivered::Taken }
    }

    fn flush(&self) {
        self.outbound.flush();
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbound.poll_drained(cx)
    }

    fn ended(&self, key: SubscriptionKey, why: Ended) {
        let mut guard = self.outbound.lock();
        tracing::debug!(?key, ?why, "a consumer was ended");
        match guard.state().consumers.get_mut(key) {
            // The client does not know of it yet: it is told of its end behind its beginning.
            Some(consumer) if !consumer.told => consumer.ended = true,
            Some(_) => cancel(&mut guard, key),
            None => {}
        }
        guard.appended();
        drop(guard);
        self.outbound.flush();
    }
}

/// Ends a consumer and, if the client wants to be told, tells it by `basic.cancel`.
fn cancel(guard: &mut Guard<'_, Outgoing>, key: SubscriptionKey) {
    let (state, out) = guard.parts();
    if let Some((channel, tag)) = state.consumers.end(key)
        && let (Some(channel), Some(tag), true) = (state.channels.get(channel), tag, state.cancel_notify)
    {
        let consumer_tag = ShortString::truncated(&tag);
        basic::Cancel { consumer_tag, no_wait: true }.encode(channel.number, out);
    }
}

/// Appends one pick and says how many messages it was.
#[inline]
fn deliver(guard: &mut Guard<'_, Outgoing>, batch: &Batch<'_>, pick: &Pick, forwards: bool) -> u32 {
    let (state, out) = guard.parts();
    let Outgoing { frame_max, channels, consumers, .. } = state;
    // Its channel is gone: the lane has released what it had.
    let Some(consumer) = consumers.get_mut(pick.key) else { return 0 };
    let Some(channel) = channels.get_mut(consumer.channel) else { return 0 };
    let count = pick.at.end.saturating_sub(pick.at.start);
    let first = channel.tag + 1;
    channel.tag += u64::from(count);
    if !pick.settled {
        channel.unsettled.push(Run { channel_tag: first, count, key: pick.key, tag: pick.first });
        consumer.unsettled += u64::from(count);
    }
    let to = Recipient { channel: channel.number, frame_max: *frame_max };
    let consumer_tag = consumer.tag.as_deref().unwrap_or_default();
    let redelivered = pick.attempt > 0;
    let messages = batch.messages.get(pick.at.start as usize..pick.at.end as usize).unwrap_or_default();
    let mut by_reference = None;
    for (message, delivery_tag) in messages.iter().zip(first..) {
        if forwards
            && let Some(forwarding) = &consumer.forwarding
            && let Some((address, content)) = delivery::forwardable(batch.bytes, message, to.frame_max)
        {
            forwarding.encode(delivery_tag, redelivered, address, content, out);
            continue;
        }
        let head = Head::Deliver { consumer_tag, delivery_tag, redelivered };
        by_reference = delivery::append(batch, message, pick.age, head, to, out);
    }
    // A batch with a body has one message.
    if let Some(body) = by_reference {
        by_pieces(guard, &body, to);
    }
    count
}
