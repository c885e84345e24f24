//! The channels of one open connection, each with its lane.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use linkspan_contract::{BackendError, Connection, Lane};

use crate::alarms::Alarms;
use crate::protocol::amqp::{Limits, Method, ReplyCode, channel};

use super::channel::Channel;
use super::failure::Failure;
use super::held::Holding;
use super::inbox::{Ear, Inbox};
use super::incoming::Budget;
use super::metric::Metrics;
use super::open_channel::OpenChannel;
use super::sink::Sink;
use super::translate::refusal;

/// Bytes of frames that wait for channels whose lane is busy, above which the connection is not read.
const WAITING_MAX: usize = 1024 * 1024;

type Scope = Box<dyn Connection>;
type Opening = Pin<Box<dyn Future<Output = (Scope, Result<Box<dyn Lane>, BackendError>)> + Send>>;

/// What the connection was told when it was opened.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The vhost.
    pub(super) vhost: Arc<str>,
    /// The user.
    pub(super) user: Arc<str>,
    /// Channels at a time.
    pub(super) channel_max: u16,
    /// What frames and bodies may come.
    pub(super) limits: Limits,
    /// The client wants `connection.blocked`.
    pub(super) tell_blocked: bool,
}

/// All channels of a connection.
pub(super) struct Channels {
    /// By number.
    pub(super) open: Vec<OpenChannel>,
    pub(super) opened: Opened,
    pub(super) sink: Arc<Sink>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) alarms: Arc<Alarms>,
    pub(super) holding: Holding,
    /// The client was told that nothing is taken from it for now.
    pub(super) told_blocked: bool,
    /// None while a lane is being opened.
    scope: Option<Scope>,
    opening: Option<(u16, Opening)>,
    to_open: VecDeque<u16>,
    serial: u64,
}

impl Channels {
    /// A connection that was just opened.
    pub(super) fn new(
        scope: Scope,
        opened: Opened,
        sink: Arc<Sink>,
        metrics: Arc<Metrics>,
        budget: Arc<Budget>,
        alarms: Arc<Alarms>,
    ) -> Self {
        Self {
            open: Vec::new(),
            opened,
            sink,
            metrics,
            budget,
            inbox: Arc::default(),
            alarms,
            holding: Holding::default(),
            told_blocked: false,
            scope: Some(scope),
            opening: None,
            to_open: VecDeque::new(),
            serial: 0,
        }
    }

    /// The place of the channel with this number.
    #[inline]
    pub(super) fn find(&self, number: u16) -> Result<usize, usize> {
        self.open.binary_search_by_key(&number, |channel| channel.state.number)
    }

    /// `channel.open` came.
    pub(super) fn open(&mut self, number: u16, at: usize) -> Result<(), Failure> {
        let max = self.opened.channel_max;
        if max > 0 && self.open.len() >= usize::from(max) {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({max})",
                self.open.len()
            );
            return Err(Failure::new(ReplyCode::NotAllowed, &text).caused_by(channel::Open::ID));
        }
        self.serial += 1;
        let place = self.sink.open_channel(number);
        self.open.insert(at, OpenChannel::new(Channel::new(number), self.serial, place));
        self.metrics.channels.increment(1);
        self.to_open.push_back(number);
        self.open_next()
    }

    /// Opens lanes for those that wait for one, as far as it goes without waiting.
    fn open_next(&mut self) -> Result<(), Failure> {
        while let Some(mut scope) = self.scope.take() {
            let Some(number) = self.to_open.pop_front() else {
                self.scope = Some(scope);
                break;
            };
            let Some(serial) = self.find(number).ok().and_then(|at| self.open.get(at)).map(|c| c.serial)
            else {
                self.scope = Some(scope);
                continue;
            };
            let ear = Arc::new(Ear { inbox: Arc::clone(&self.inbox), channel: number, serial });
            let mut opening: Opening = Box::pin(async move {
                let lane = scope.lane(ear.clone(), ear).await;
                (scope, lane)
            });
            match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => self.lane_opened(number, done)?,
                Poll::Pending => self.opening = Some((number, opening)),
            }
        }
        Ok(())
    }

    fn lane_opened(
        &mut self,
        number: u16,
        (scope, lane): (Scope, Result<Box<dyn Lane>, BackendError>),
    ) -> Result<(), Failure> {
        self.scope = Some(scope);
        let lane = lane.map_err(|error| refusal::unopened(&error).caused_by(channel::Open::ID))?;
        let Some(channel) = self.find(number).ok().and_then(|at| self.open.get_mut(at)) else {
            return Ok(());
        };
        channel.lane = Some(lane);
        self.sink.send(|out| channel::OpenOk {}.encode(number, out));
        Ok(())
    }

    /// The client closed a channel, or agrees that it is closed.
    pub(super) fn remove(&mut self, at: usize, answer: bool) {
        if at >= self.open.len() {
            return;
        }
        let mut channel = self.open.remove(at);
        self.release(&mut channel);
        self.metrics.channels.decrement(1);
        if answer {
            self.sink.send(|out| channel::CloseOk {}.encode(channel.state.number, out));
        }
    }

    /// The lane first: what it had unsettled goes back before its consumers are gone.
    fn release(&mut self, channel: &mut OpenChannel) {
        channel.busy = None;
        channel.lane = None;
        channel.incoming = None;
        channel.waiting = Vec::new();
        channel.said = Vec::new();
        if !channel.state.closing {
            self.sink.close_channel(channel.place);
        }
        channel.blocked = false;
        self.tell_blocked("");
    }

    /// Closes a channel for a reason of ours. A hard one is for the caller.
    ///
    /// # Errors
    /// The failure itself, when it closes the connection.
    pub(super) fn fail(&mut self, at: usize, failure: Failure) -> Result<(), Failure> {
        if failure.hard {
            return Err(failure);
        }
        let Some(channel) = self.open.get_mut(at).filter(|channel| !channel.state.closing) else {
            return Ok(());
        };
        let number = channel.state.number;
        tracing::info!(
            channel = number,
            user = &*self.opened.user,
            text = failure.text,
            "AMQP channel closed"
        );
        Metrics::failed(failure.code);
        let mut channel = std::mem::replace(channel, OpenChannel::closing(channel));
        self.release(&mut channel);
        self.sink.send(|out| failure.encode(number, out));
        Ok(())
    }

    /// Whether a future has to be polled.
    pub(super) fn has_away(&self) -> bool {
        self.opening.is_some() || self.open.iter().any(|channel| channel.busy.is_some())
    }

    /// Lets lanes that are away go on; true when one came back.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn poll_away(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut any = false;
        if let Some((number, mut opening)) = self.opening.take() {
            match opening.as_mut().poll(cx) {
                Poll::Pending => self.opening = Some((number, opening)),
                Poll::Ready(done) => {
                    any = true;
                    self.lane_opened(number, done)?;
                    self.go_on(number)?;
                    self.open_next()?;
                }
            }
        }
        let busy = self.open.iter().filter(|channel| channel.busy.is_some());
        let numbers: Vec<u16> = busy.map(|channel| channel.state.number).collect();
        for number in numbers {
            let Ok(at) = self.find(number) else { continue };
            let Some(channel) = self.open.get_mut(at) else { continue };
            let Some(mut future) = channel.busy.take() else { continue };
            match future.as_mut().poll(cx) {
                Poll::Pending => channel.busy = Some(future),
                Poll::Ready((lane, answer)) => {
                    any = true;
                    channel.lane = Some(lane);
                    self.answered(at, answer)?;
                    self.go_on(number)?;
                }
            }
        }
        Ok(any)
    }

    /// A lane came back: first what it was asked for meanwhile, then the frames that waited.
    fn go_on(&mut self, number: u16) -> Result<(), Failure> {
        let Ok(at) = self.find(number) else { return Ok(()) };
        if let Some(channel) = self.open.get_mut(at)
            && std::mem::take(&mut channel.refresh)
        {
            self.refresh(at)?;
        }
        let Some(channel) = self.open.get_mut(at).filter(|channel| !channel.is_away()) else { return Ok(()) };
        let waiting = std::mem::take(&mut channel.waiting);
        if !waiting.is_empty() {
            self.waited(&waiting)?;
        }
        Ok(())
    }

    /// Whether more may be read: the connection is not held, nothing that was published to is above its mark or blocked,
    /// and not too much waits for lanes, or for the places of bodies.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = 0;
        let mut ready = self.poll_hold(cx).is_ready();
        for channel in &mut self.open {
            waiting += channel.waiting.len();
            if let Some(incoming) = &mut channel.incoming {
                ready &= incoming.poll_ready(cx).is_ready();
            }
            if channel.congested
                && let Some(lane) = &mut channel.lane
            {
                // A lane that is lost tells so by an event; nobody waits for it.
                channel.congested = channel.blocked | lane.poll_ready(cx).is_pending();
                ready &= !channel.congested;
            }
        }
        if ready && waiting <= WAITING_MAX { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The client has taken enough: queues that paused go on.
    pub(super) fn resume(&mut self) {
        for channel in &mut self.open {
            if let Some(lane) = &mut channel.lane {
                lane.resume();
                channel.dirty = true;
            }
        }
    }

    /// Writes what was appended, the client's own answers first.
    pub(super) fn flush(&mut self) {
        self.sink.flush();
        for channel in &mut self.open {
            if channel.dirty
                && let Some(lane) = &mut channel.lane
            {
                channel.dirty = false;
                lane.flush();
            }
        }
    }

    /// Releases everything; returns when what belonged to the connection is gone.
    pub(super) fn close(mut self) -> impl Future<Output = ()> + Send {
        let scope = self.scope.take();
        drop(self);
        async move {
            if let Some(scope) = scope {
                scope.close().await;
            }
        }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.metrics.channels.decrement(self.open.len() as f64);
        for mut channel in std::mem::take(&mut self.open) {
            channel.busy = None;
            channel.lane = None;
            self.sink.close_channel(channel.place);
        }
    }
}

/// Whether a frame's payload is a method that a channel of ours that is closing still cares for.
pub(super) fn is_closing(payload: &[u8]) -> Option<Method<'_>> {
    let class = u16::to_be_bytes(channel::Close::ID.class);
    payload.starts_with(&class).then(|| Method::decode(payload).ok()).flatten()
}
