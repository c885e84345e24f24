//! From a channel's published messages to batches for its lane.

use std::cell::Cell;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Batch, Body, BodyWriter, Flags, Lane, Message, Refused, Span, TargetId};

use crate::protocol::amqp::{self, Address, Publish, ReplyCode, basic, properties::NONE};

use super::channel::Mode;
use super::channels::Channels;
use super::delivery::BY_REFERENCE;
use super::failure::Failure;
use super::form::AMQP_FORM;
use super::incoming::Incoming;
use super::translate::asked::{self, Asked, Copies};
use super::translate::{self, refusal};

/// Addresses that a channel remembers.
const TARGETS_MAX: usize = 4096;

/// A channel's numbers for where it publishes to.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    /// By exchange and routing key as encoded.
    targets: HashMap<Box<[u8]>, TargetId, RandomState>,
}

/// Messages of one channel, in the order in which they lie in one read buffer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    messages: Vec<Message>,
    /// The channel's place.
    channel: usize,
    /// The address of the last message and its number.
    address: Option<(Span, TargetId)>,
    /// The properties of the last message and what they ask for.
    properties: Option<(Span, Asked)>,
}

thread_local! {
    /// The thread's room for messages: an idle connection has none.
    static ROOM: Cell<Vec<Message>> = const { Cell::new(Vec::new()) };
}

/// Messages that a thread keeps room for.
const ROOM_MAX: usize = 8192;

impl Pending {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { messages: ROOM.take(), channel: 0, address: None, properties: None }
    }

    /// The next frame may close a channel or open another one: numbers of its lane are not used again unseen.
    pub(super) fn channels_change(&mut self) {
        self.address = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        if messages.capacity() <= ROOM_MAX {
            messages.clear();
            ROOM.set(messages);
        }
    }
}

fn span(span: amqp::Span) -> Span {
    Span::new(span.start, span.len)
}

impl Channels {
    /// Adds a message that lies whole in `buffer`.
    ///
    /// # Errors
    /// Why the channel at `at` is closed.
    #[inline]
    pub(super) fn add(
        &mut self,
        buffer: &[u8],
        at: usize,
        publish: &Publish,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        if pending.channel != at {
            self.publish(buffer, pending)?;
            pending.channel = at;
            pending.address = None;
        }
        if publish.immediate {
            return Err(immediate());
        }
        let (address, properties) = (span(publish.address), span(publish.properties));
        let asked = match pending.properties {
            _ if properties.of(buffer) == NONE => Asked::default(),
            Some((last, asked)) if last.of(buffer) == properties.of(buffer) => asked,
            _ => {
                let asked = self.asked(properties.of(buffer))?;
                pending.properties = Some((properties, asked));
                asked
            }
        };
        if asked.copies {
            self.publish(buffer, pending)?;
            let mut parts =
                Parts { bytes: buffer, address, properties, payload: span(publish.body), body: None };
            let wire = span(publish.wire);
            return self.publish_copies(at, &mut parts, wire, asked, publish.mandatory);
        }
        let target = match pending.address {
            Some((last, target)) if last.of(buffer) == address.of(buffer) => target,
            _ => {
                let target = self.target(buffer, at, address, pending)?;
                pending.address = Some((address, target));
                target
            }
        };
        let Some(channel) = self.open.get(at) else { return Ok(()) };
        let flags = asked.flags | answers(channel.state.mode, publish.mandatory);
        pending.messages.push(Message {
            target,
            flags,
            priority: asked.priority,
            expiry: asked.expiry,
            wire: span(publish.wire),
            address,
            properties,
            payload: span(publish.body),
        });
        Ok(())
    }

    fn asked(&self, encoded: &[u8]) -> Result<Asked, Failure> {
        if encoded == NONE {
            return Ok(Asked::default());
        }
        asked::asked(encoded, &self.opened.user)
    }

    /// The lane's number for an address.
    fn target(
        &mut self,
        buffer: &[u8],
        at: usize,
        address: Span,
        pending: &mut Pending,
    ) -> Result<TargetId, Failure> {
        let encoded = address.of(buffer);
        let publisher = self.open.get(at).map(|channel| &channel.publisher);
        if let Some(known) = publisher.and_then(|publisher| publisher.targets.get(encoded)) {
            return Ok(*known);
        }
        if publisher.is_some_and(|publisher| publisher.targets.len() >= TARGETS_MAX) {
            // Numbers that are forgotten may be given out anew: nothing may wait under them.
            self.publish(buffer, pending)?;
        }
        let Some(channel) = self.open.get_mut(at) else { return Ok(TargetId::default()) };
        let Some(lane) = &mut channel.lane else { return Ok(TargetId::default()) };
        let targets = &mut channel.publisher.targets;
        if targets.len() >= TARGETS_MAX {
            let all: Vec<TargetId> = targets.drain().map(|(_, target)| target).collect();
            lane.forget(&all);
        }
        let target = resolve(&mut **lane, encoded, &[])?;
        targets.insert(encoded.into(), target);
        Ok(target)
    }

    /// Publishes what is pending.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn publish(&mut self, buffer: &[u8], pending: &mut Pending) -> Result<(), Failure> {
        if pending.messages.is_empty() {
            return Ok(());
        }
        let done = self.hand_over(pending.channel, &Batch::new(buffer, &pending.messages, &AMQP_FORM));
        pending.messages.clear();
        done
    }

    /// Hands messages of the channel at `at` to its lane, and tells the client what is known of them.
    fn hand_over(&mut self, at: usize, batch: &Batch<'_>) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        let Some(lane) = &mut channel.lane else { return Ok(()) };
        let published = lane.publish(batch);
        channel.dirty = true;
        // As in RabbitMQ: a blocked client is read until it publishes.
        channel.congested |= published.congested | channel.blocked;
        self.metrics.received.increment(published.taken.into());
        if published.done == 0 && published.exceptions.is_empty() {
            return Ok(());
        }
        let confirms = (channel.state.mode == Mode::Confirm).then_some(&mut channel.confirms);
        let fatal = |why: &Refused| !refusal::is_nack(why);
        let known = (published.first, published.done);
        let refused =
            self.sink.published(channel.state.number, batch, &published.exceptions, known, confirms, fatal);
        match refused {
            Some(why) => {
                let failure = refusal::refused(&why, &self.opened.vhost).caused_by(basic::Publish::ID);
                self.fail(at, failure)
            }
            None => Ok(()),
        }
    }

    /// The content header of a message has come that is put together from several frames: finds a place for its body.
    ///
    /// # Errors
    /// Why the channel at `at` is closed.
    pub(super) fn begin_body(
        &mut self,
        buffer: &[u8],
        at: usize,
        properties: &[u8],
        size: u64,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        if size >= BY_REFERENCE as u64 {
            // Its address may need a number, for which others are forgotten: nothing may wait under them.
            self.publish(buffer, pending)?;
        }
        let Some(mut incoming) = self.open.get_mut(at).and_then(|channel| channel.incoming.take()) else {
            return Ok(());
        };
        incoming.header(properties);
        incoming.nacks = self.open.get(at).is_some_and(|channel| channel.state.mode == Mode::Confirm);
        let place = if size < BY_REFERENCE as u64 { None } else { self.place(at, &incoming, size)? };
        incoming.begin_body(size, place, &self.budget)?;
        if let Some(channel) = self.open.get_mut(at) {
            channel.incoming = Some(incoming);
        }
        Ok(())
    }

    /// Where the body of a large message is written while it comes in; none when it is held in memory until it is complete.
    fn place(
        &mut self,
        at: usize,
        incoming: &Incoming,
        size: u64,
    ) -> Result<Option<Box<dyn BodyWriter>>, Failure> {
        let asked = self.asked(incoming.properties.of(&incoming.bytes))?;
        if asked.copies {
            // It may go to several places.
            return Ok(None);
        }
        let target = self.target(&incoming.bytes, at, incoming.address, &mut Pending::default())?;
        let Some(lane) = self.open.get_mut(at).and_then(|channel| channel.lane.as_mut()) else {
            return Ok(None);
        };
        lane.body(target, Some(size))
            .map_err(|why| refusal::refused(&why, &self.opened.vhost).caused_by(basic::Publish::ID))
    }

    /// Publishes a message that was put together from several frames.
    ///
    /// # Errors
    /// Why the channel at `at` is closed.
    pub(super) fn complete(&mut self, at: usize, mut incoming: Incoming) -> Result<(), Failure> {
        let body = incoming.take_body();
        let Incoming { mandatory, bytes, address, properties, payload, .. } = &incoming;
        let asked = self.asked(properties.of(bytes))?;
        let wire = Span::new(0, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let mut parts = Parts {
            bytes,
            address: *address,
            properties: *properties,
            payload: *payload,
            body: body.as_ref(),
        };
        if asked.copies {
            return self.publish_copies(at, &mut parts, wire, asked, *mandatory);
        }
        let target = self.target(bytes, at, *address, &mut Pending::default())?;
        self.publish_one(at, &parts, target, wire, asked, *mandatory, true)
    }

    /// Publishes a message with more routing keys; those of `BCC` are not shown to who gets it.
    fn publish_copies(
        &mut self,
        at: usize,
        parts: &mut Parts<'_>,
        wire: Span,
        asked: Asked,
        mandatory: bool,
    ) -> Result<(), Failure> {
        let Copies { keys, without } = asked::copies(parts.properties.of(parts.bytes))?;
        let Some(lane) = self.open.get_mut(at).and_then(|channel| channel.lane.as_mut()) else {
            return Ok(());
        };
        let target = resolve(&mut **lane, parts.address.of(parts.bytes), &keys)?;
        let done = match without {
            None => self.publish_one(at, parts, target, wire, asked, mandatory, parts.body.is_some()),
            Some(properties) => {
                let mut bytes = Vec::new();
                let mut copy = |part: &[u8]| {
                    let start = bytes.len() as u32;
                    bytes.extend_from_slice(part);
                    Span::new(start, part.len() as u32)
                };
                let address = copy(parts.address.of(parts.bytes));
                let properties = copy(&properties);
                let payload = copy(parts.payload.of(parts.bytes));
                let wire = Span::new(0, payload.end());
                let parts = Parts { bytes: &bytes, address, properties, payload, body: parts.body };
                self.publish_one(at, &parts, target, wire, asked, mandatory, true)
            }
        };
        if let Some(lane) = self.open.get_mut(at).and_then(|channel| channel.lane.as_mut()) {
            lane.forget(&[target]);
        }
        done
    }

    #[allow(clippy::too_many_arguments)]
    fn publish_one(
        &mut self,
        at: usize,
        parts: &Parts<'_>,
        target: TargetId,
        wire: Span,
        asked: Asked,
        mandatory: bool,
        rewritten: bool,
    ) -> Result<(), Failure> {
        let Some(channel) = self.open.get(at) else { return Ok(()) };
        let message = Message {
            target,
            flags: asked.flags | answers(channel.state.mode, mandatory) | Flags::REWRITE.when(rewritten),
            priority: asked.priority,
            expiry: asked.expiry,
            wire,
            address: parts.address,
            properties: parts.properties,
            payload: parts.payload,
        };
        match parts.body {
            Some(body) => self.hand_over(at, &Batch::with_body(parts.bytes, &message, body, &AMQP_FORM)),
            None => self.hand_over(at, &Batch::new(parts.bytes, &[message], &AMQP_FORM)),
        }
    }
}

/// Where the parts of a message lie.
struct Parts<'a> {
    bytes: &'a [u8],
    address: Span,
    properties: Span,
    payload: Span,
    body: Option<&'a Body>,
}

fn answers(mode: Mode, mandatory: bool) -> Flags {
    Flags::RECEIPT.when(mode == Mode::Confirm) | Flags::MANDATORY.when(mandatory)
}

/// RabbitMQ's answer to `immediate`.
pub(super) fn immediate() -> Failure {
    Failure::new(ReplyCode::NotImplemented, "immediate=true").caused_by(basic::Publish::ID)
}

/// The lane's number for a destination. One that nobody may publish to is refused here, whether or not the client asked
/// for receipts: AMQP closes the channel for it, as RabbitMQ does when access to an exchange is refused.
fn resolve(lane: &mut dyn Lane, encoded: &[u8], more: &[&[u8]]) -> Result<TargetId, Failure> {
    let address = Address::new(encoded).unwrap_or(Address::EMPTY);
    translate::destination(address, more, |to| match translate::reserved(to) {
        Some(key) => Err(refusal::reserved(key)),
        None => Ok(lane.target(to)),
    })
}
