//! The channels of one open connection, each with its lane.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use linkspan_contract::{BackendError, Connection, Credit, Lane, LaneEvent, Outcome, Receipt};

use crate::protocol::amqp::{Assembly, Limits, Method, ShortString, channel, connection};

use super::channel::Channel;
use super::confirm::Confirms;
use super::failure::Failure;
use super::inbox::{Ear, Inbox, Notice, What};
use super::incoming::{Budget, Incoming};
use super::metric::Metrics;
use super::publisher::Publisher;
use super::request::{Answer, Request};
use super::sink::{Acknowledged, Settling, Sink};
use super::translate::refusal;
use super::unsettled::Run;

/// Bytes of frames that wait for channels whose lane is busy, above which the connection is not read.
const WAITING_MAX: usize = 1024 * 1024;

/// A lane that carries out a request.
pub(super) type Busy = Pin<Box<dyn Future<Output = (Box<dyn Lane>, Result<Answer, Failure>)> + Send>>;

type Scope = Box<dyn Connection>;
type Opening = Pin<Box<dyn Future<Output = (Scope, Result<Box<dyn Lane>, BackendError>)> + Send>>;

/// A channel with its lane.
pub(super) struct OpenChannel {
    pub(super) state: Channel,
    /// Which of the channels that had this number.
    pub(super) serial: u64,
    /// Its place in the sink.
    pub(super) place: usize,
    /// None while it is in a future, before it is opened and after the channel failed.
    pub(super) lane: Option<Box<dyn Lane>>,
    pub(super) busy: Option<Busy>,
    /// Frames that came while the lane was away.
    pub(super) waiting: Vec<u8>,
    pub(super) assembly: Assembly,
    pub(super) incoming: Option<Box<Incoming>>,
    pub(super) publisher: Publisher,
    pub(super) confirms: Confirms,
    /// The window of all its consumers together.
    pub(super) window: Option<Arc<Credit>>,
    /// Its bound, also before there is one to bound.
    pub(super) window_limit: Option<u16>,
    /// What the client said in this read about deliveries.
    pub(super) said: Vec<Acknowledged>,
    /// What a rollback makes unsettled again.
    pub(super) held: Vec<Run>,
    /// What windows get when a recovery is done.
    pub(super) recovering: Option<Settling>,
    /// Something was published, settled or started since the last flush.
    pub(super) dirty: bool,
    /// What it published to is above its mark.
    pub(super) congested: bool,
    blocked: bool,
    refresh: bool,
}

impl OpenChannel {
    /// Whether frames have to wait: the lane is away and will be back.
    pub(super) fn is_away(&self) -> bool {
        self.lane.is_none() && !self.state.closing
    }

    /// The window of its consumers together.
    pub(super) fn window(&mut self) -> Arc<Credit> {
        let limit = self.window_limit.map_or(u32::MAX, u32::from);
        Arc::clone(self.window.get_or_insert_with(|| Arc::new(Credit::new(limit))))
    }
}

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
    inbox: Arc<Inbox>,
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
    ) -> Self {
        Self {
            open: Vec::new(),
            opened,
            sink,
            metrics,
            budget,
            inbox: Arc::default(),
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
            let code = crate::protocol::amqp::ReplyCode::NotAllowed;
            return Err(Failure::new(code, &text).caused_by(channel::Open::ID));
        }
        self.serial += 1;
        self.open.insert(
            at,
            OpenChannel {
                state: Channel::new(number),
                serial: self.serial,
                place: self.sink.open_channel(number),
                lane: None,
                busy: None,
                waiting: Vec::new(),
                assembly: Assembly::Idle,
                incoming: None,
                publisher: Publisher::default(),
                confirms: Confirms::default(),
                window: None,
                window_limit: None,
                said: Vec::new(),
                held: Vec::new(),
                recovering: None,
                dirty: false,
                congested: false,
                blocked: false,
                refresh: false,
            },
        );
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
        self.set_blocked(channel, None);
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

    fn set_blocked(&mut self, channel: &mut OpenChannel, reason: Option<&str>) {
        let before = channel.blocked;
        channel.blocked = reason.is_some();
        let others = self.open.iter().any(|other| other.blocked && other.serial != channel.serial);
        if !self.opened.tell_blocked || others || before == channel.blocked {
            return;
        }
        self.sink.send(|out| match reason {
            Some(reason) => connection::Blocked { reason: ShortString::truncated(reason) }.encode(0, out),
            None => connection::Unblocked {}.encode(0, out),
        });
    }

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
        let Some(channel) = self.open.get_mut(at) else { return };
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
            LaneEvent::Blocked(reason) => self.blocked(at, Some(&reason)),
            LaneEvent::Unblocked => self.blocked(at, None),
            LaneEvent::Changed => self.refresh(at)?,
        }
        Ok(())
    }

    fn blocked(&mut self, at: usize, reason: Option<&str>) {
        if at < self.open.len() {
            let mut channel = self.open.remove(at);
            self.set_blocked(&mut channel, reason);
            self.open.insert(at, channel);
        }
    }

    /// Lets the lane resolve its subscriptions again, now or when it is back.
    fn refresh(&mut self, at: usize) -> Result<(), Failure> {
        let Some(channel) = self.open.get_mut(at) else { return Ok(()) };
        channel.refresh = channel.is_away();
        if channel.refresh { Ok(()) } else { self.ask(at, Request::Refresh, Default::default()) }
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

    /// Whether more may be read: nothing that was published to is above its mark, and not too much waits for lanes.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = 0;
        let mut ready = true;
        for channel in &mut self.open {
            waiting += channel.waiting.len();
            if channel.congested
                && let Some(lane) = &mut channel.lane
            {
                // A lane that is lost tells so by an event; nobody waits for it.
                channel.congested = lane.poll_ready(cx).is_pending();
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

impl OpenChannel {
    /// What is left of a channel that we closed, until the client agrees.
    fn closing(of: &Self) -> Self {
        Self {
            state: Channel { closing: true, ..Channel::new(of.state.number) },
            serial: of.serial,
            place: usize::MAX,
            lane: None,
            busy: None,
            waiting: Vec::new(),
            assembly: Assembly::Idle,
            incoming: None,
            publisher: Publisher::default(),
            confirms: Confirms::default(),
            window: None,
            window_limit: None,
            said: Vec::new(),
            held: Vec::new(),
            recovering: None,
            dirty: false,
            congested: false,
            blocked: false,
            refresh: false,
        }
    }
}

/// Whether a frame's payload is a method that a channel of ours that is closing still cares for.
pub(super) fn is_closing(payload: &[u8]) -> Option<Method<'_>> {
    let class = u16::to_be_bytes(channel::Close::ID.class);
    payload.starts_with(&class).then(|| Method::decode(payload).ok()).flatten()
}
