//! From bytes to what channels do: frames in their order, whole messages by the short way.

use crate::protocol::amqp::{
    Assembly, ContentHeader, Error, Frame, FrameKind, Method, Part, Publish, ReplyCode,
    basic::{self, Basic},
    channel::Channel as Class,
    connection::{self, Connection},
    frame::{self, Decoded},
};

use super::channels::{Channels, is_closing};
use super::failure::Failure;
use super::incoming::Incoming;
use super::publisher::{Pending, immediate};
use super::request::Request;
use super::translate::refusal;

/// A message that is not there whole is waited for, when it is no longer than this.
const WAIT_MAX: usize = 8192;

/// How far a buffer was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Understood {
    /// Bytes dealt with.
    pub(super) used: usize,
    /// Bytes from there on that the next step needs; 0 when none are left.
    pub(super) needed: usize,
    /// What the client wants of the connection itself.
    pub(super) wish: Option<Wish>,
}

/// A method of channel 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// `connection.close`.
    Close,
}

impl Channels {
    /// Deals with all frames that lie whole in `buffer`, as one read: publishes go to lanes in batches, settlements
    /// together at the end. Writes nothing.
    ///
    /// # Errors
    /// Why the connection is closed. What came before counts.
    pub(super) fn frames(&mut self, buffer: &[u8]) -> Result<Understood, Failure> {
        self.frames_of(buffer, true)
    }

    /// The same for frames that waited for their lane: nothing comes behind them in this buffer.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn waited(&mut self, buffer: &[u8]) -> Result<(), Failure> {
        self.frames_of(buffer, false).map(|_| ())
    }

    fn frames_of(&mut self, buffer: &[u8], wait: bool) -> Result<Understood, Failure> {
        let mut pending = Pending::new();
        let walked = self.walk(buffer, wait, &mut pending);
        let published = self.publish(buffer, &mut pending);
        let settled = self.settle();
        let understood = walked?;
        published.and(settled).map(|()| understood)
    }

    fn walk(&mut self, buffer: &[u8], wait: bool, pending: &mut Pending) -> Result<Understood, Failure> {
        let mut at = 0;
        // The channel of the last message, which the next is as a rule for.
        let mut last = (0, usize::MAX);
        while at < buffer.len() {
            if let Some(publish) = Publish::recognise(buffer, at, &self.opened.limits) {
                if last.0 != publish.channel {
                    last = (publish.channel, self.find(publish.channel).unwrap_or(usize::MAX));
                }
                let ready = self
                    .open
                    .get(last.1)
                    .filter(|channel| channel.lane.is_some() && channel.assembly.is_idle());
                if ready.is_some() {
                    if let Err(failure) = self.add(buffer, last.1, &publish, pending) {
                        // What the client sent before the one that fails counts.
                        self.publish(buffer, pending)?;
                        self.fail(last.1, failure)?;
                    }
                    at = publish.wire.end();
                    continue;
                }
            }
            match frame::decode(buffer, at, &self.opened.limits)? {
                Decoded::Incomplete { needed } => return Ok(Understood { used: at, needed, wish: None }),
                Decoded::Frame(frame) => {
                    if wait && self.may_become_whole(buffer, &frame) {
                        return Ok(Understood { used: at, needed: buffer.len() - at + 1, wish: None });
                    }
                    last = (0, usize::MAX);
                    pending.channels_change();
                    let wish = self.frame(buffer, &frame, pending)?;
                    at = frame.wire.end();
                    if wish.is_some() {
                        return Ok(Understood { used: at, needed: 0, wish });
                    }
                }
            }
        }
        Ok(Understood { used: at, needed: 0, wish: None })
    }

    /// Whether `frame` begins a short message whose end is not there yet: it is better waited for than put together.
    fn may_become_whole(&self, buffer: &[u8], first: &Frame<'_>) -> bool {
        let limits = &self.opened.limits;
        let publish = [0, 60, 0, 40];
        if first.kind != FrameKind::Method || !first.payload.starts_with(&publish) || first.channel == 0 {
            return false;
        }
        let short = |needed: usize, at: usize| at - first.wire.start as usize + needed <= WAIT_MAX;
        let at = first.wire.end();
        let header = match frame::decode(buffer, at, limits) {
            Ok(Decoded::Incomplete { needed }) => return short(needed, at),
            Ok(Decoded::Frame(header)) if header.channel == first.channel => header,
            _ => return false,
        };
        let Ok(content) = ContentHeader::decode(header.payload, basic::Publish::ID) else { return false };
        let at = header.wire.end();
        match frame::decode(buffer, at, limits) {
            Ok(Decoded::Incomplete { needed }) => {
                let whole =
                    needed <= frame::OVERHEAD || needed as u64 == content.body_size + frame::OVERHEAD as u64;
                // What is long is put together, or refused at its header.
                let is_short = (1..=WAIT_MAX as u64).contains(&content.body_size);
                header.kind == FrameKind::Header && is_short && whole && short(needed, at)
            }
            _ => false,
        }
    }

    fn frame(
        &mut self,
        buffer: &[u8],
        frame: &Frame<'_>,
        pending: &mut Pending,
    ) -> Result<Option<Wish>, Failure> {
        if frame.channel == 0 {
            return self.channel_zero(buffer, frame, pending);
        }
        let at = match self.find(frame.channel) {
            Ok(at) => at,
            Err(at) => {
                self.publish(buffer, pending)?;
                return self.first_frame(at, frame).map(|()| None);
            }
        };
        let limits = self.opened.limits;
        let Some(channel) = self.open.get_mut(at) else { return Ok(None) };
        if channel.state.closing {
            if let Some(method) = is_closing(frame.payload).filter(|_| frame.kind == FrameKind::Method) {
                self.publish(buffer, pending)?;
                self.method(at, &method, frame.payload)?;
            }
            return Ok(None);
        }
        if channel.is_away() {
            channel.waiting.extend_from_slice(frame.wire.of(buffer).unwrap_or_default());
            return Ok(None);
        }
        let part = match channel.assembly.accept(frame, &limits) {
            Ok(part) => part,
            Err(error) => {
                self.publish(buffer, pending)?;
                return self.fail(at, error.into()).map(|()| None);
            }
        };
        let done = match part {
            Part::Method(Method::Basic(Basic::Publish(publish))) if publish.immediate => Err(immediate()),
            Part::Method(Method::Basic(Basic::Publish(publish))) => {
                channel.incoming = Some(Box::new(Incoming::new(&publish)));
                Ok(())
            }
            Part::Method(method) => {
                // Settlements may be gathered; everything else keeps its place among publishes and settlements.
                let settles =
                    matches!(method, Method::Basic(Basic::Ack(_) | Basic::Nack(_) | Basic::Reject(_)));
                if !settles {
                    self.publish(buffer, pending)?;
                    self.settle()?;
                }
                // Either may have closed the channel.
                let Ok(at) = self.find(frame.channel) else { return Ok(None) };
                return self.method(at, &method, frame.payload).map(|()| None);
            }
            Part::Header { header, last } => {
                let begun = self.begin_body(buffer, at, header.properties, header.body_size, pending);
                begun.and_then(|()| if last { self.last_part(buffer, at, pending) } else { Ok(()) })
            }
            Part::Body { chunk, last, .. } => {
                let taken = channel.incoming.as_mut().map_or(Ok(()), |incoming| incoming.body(chunk));
                match taken {
                    Ok(()) if last => self.last_part(buffer, at, pending),
                    Ok(()) => Ok(()),
                    Err(why) => Err(refusal::refused(&why, &self.opened.vhost).caused_by(basic::Publish::ID)),
                }
            }
        };
        if let Err(failure) = done {
            self.publish(buffer, pending)?;
            self.fail(at, failure)?;
        }
        Ok(None)
    }

    fn last_part(&mut self, buffer: &[u8], at: usize, pending: &mut Pending) -> Result<(), Failure> {
        self.publish(buffer, pending)?;
        match self.open.get_mut(at).and_then(|channel| channel.incoming.take()) {
            Some(incoming) if incoming.has_place() => {
                self.ask(at, Request::Finish(incoming), basic::Publish::ID)
            }
            Some(incoming) => self.complete(at, *incoming),
            None => Ok(()),
        }
    }

    /// A frame of a channel that is not open.
    fn first_frame(&mut self, at: usize, frame: &Frame<'_>) -> Result<(), Failure> {
        match Assembly::Idle.accept(frame, &self.opened.limits)? {
            Part::Method(Method::Channel(Class::Open(_))) => self.open(frame.channel, at),
            Part::Method(method) => {
                let failure = Failure::new(ReplyCode::ChannelError, "expected 'channel.open'");
                Err(failure.caused_by(method.id()))
            }
            // An idle channel takes only methods.
            Part::Header { .. } | Part::Body { .. } => Err(Error::ExpectedMethod.into()),
        }
    }

    fn method(&mut self, at: usize, method: &Method<'_>, payload: &[u8]) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        let mut answer = Vec::new();
        let effect = channel.state.accept(method, &mut answer);
        if !answer.is_empty() {
            self.sink.send(|out| out.extend_from_slice(&answer));
        }
        match effect {
            Ok(effect) => self.act(at, effect, method.id(), payload),
            Err(failure) => self.fail(at, failure),
        }
    }

    fn channel_zero(
        &mut self,
        buffer: &[u8],
        frame: &Frame<'_>,
        pending: &mut Pending,
    ) -> Result<Option<Wish>, Failure> {
        if frame.kind == FrameKind::Heartbeat {
            return Ok(None);
        }
        let method = Method::decode(frame.payload)?;
        self.publish(buffer, pending)?;
        match &method {
            Method::Connection(Connection::Close(_)) => Ok(Some(Wish::Close)),
            // Passwords do not expire here: the new one is the old one's business.
            Method::Connection(Connection::UpdateSecret(_)) => {
                self.sink.send(|out| connection::UpdateSecretOk {}.encode(0, out));
                Ok(None)
            }
            _ => {
                let text = "unexpected method in connection state running";
                Err(Failure::new(ReplyCode::ChannelError, text).caused_by(method.id()))
            }
        }
    }
}
