//! One client's connection: the only file of this door that reads, waits and knows the time.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use linkspan_contract::{BackendError, Connection as Scope};
use tokio::time::{Instant, Sleep};

use crate::doors::buffer::{self, READ};
use crate::doors::listener::{ReadHalf, Stream};
use crate::doors::outbound::{Owner, Turn};
use crate::doors::{Stop, give_way, login};
use crate::identity::{Credentials, Denied, Identity};
use crate::protocol::amqp::{Limits, ReplyCode, connection as class, frame};

use super::AmqpDoor;
use super::channels::{Channels, Opened};
use super::failure::Failure;
use super::handshake::Handshake;
use super::heartbeat::{Beat, Heartbeat};
use super::held::AHEAD;
use super::inbound::{Understood, Wish};
use super::metric::Metrics;
use super::sink::Sink;

/// Bytes dealt with before others get their turn.
const TURN: usize = READ;

/// A part of a frame longer than this is read on where it is, in a buffer of the frame's size.
const COPIED_MAX: usize = 32 * 1024;

/// How long the peer may take to close its side after we have closed ours.
const LINGER: Duration = Duration::from_secs(1);

type Waited = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What a connection waited for.
pub(super) enum Outcome {
    Verified(Result<Identity, Denied>),
    Entered(Result<Box<dyn Scope>, BackendError>, Arc<str>),
    Left,
}

pub(super) enum Phase {
    /// Until `connection.open-ok`.
    Handshake(Box<Handshake>),
    Running(Box<Channels>),
    /// We sent `connection.close` and discard all until the client agrees.
    Closing,
    /// Nothing more is said or heard.
    Over,
}

pub(super) struct Connection {
    pub(super) door: Arc<AmqpDoor>,
    pub(super) peer: SocketAddr,
    pub(super) read: ReadHalf,
    pub(super) sink: Arc<Sink>,
    pub(super) owner: Owner,
    pub(super) phase: Phase,
    /// The beginning of a frame, and how much of `rest` is filled when it has the frame's size.
    pub(super) rest: Vec<u8>,
    pub(super) filled: usize,
    pub(super) waited: Option<Waited>,
    pub(super) stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub(super) timer: Pin<Box<Sleep>>,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) user: Option<Identity>,
    pub(super) name: Arc<str>,
    /// The peer has closed its side.
    pub(super) ended: bool,
    pub(super) why: String,
}

/// Serves a connection to its end.
pub(super) async fn serve(door: Arc<AmqpDoor>, stream: Stream, peer: SocketAddr, stop: Stop) {
    let metrics = Arc::clone(&door.metrics);
    metrics.connections.increment(1);
    metrics.connected.increment(1);
    let mut connection = Connection::new(door, stream, peer, &stop);
    drop(stop);
    poll_fn(|cx| connection.poll(cx)).await;
    Box::pin(connection.end()).await;
    metrics.connections.decrement(1);
}

impl Connection {
    fn new(door: Arc<AmqpDoor>, stream: Stream, peer: SocketAddr, stop: &Stop) -> Self {
        let (read, write) = stream.split();
        let sink = Arc::new(Sink::new(write, door.limits.marks, Arc::clone(&door.metrics)));
        Self {
            peer,
            read,
            sink,
            owner: Owner::default(),
            phase: Phase::Handshake(Box::new(Handshake::new())),
            rest: Vec::new(),
            filled: 0,
            waited: None,
            stopped: Some(stop.wanted()),
            timer: Box::pin(tokio::time::sleep(door.limits.handshake)),
            heartbeat: None,
            user: None,
            name: "".into(),
            ended: false,
            why: String::new(),
            door,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut turn = 0;
        loop {
            self.poll_stop(cx);
            self.poll_timer(cx);
            match self.sink.outbound().poll_owner(cx, &mut self.owner) {
                Poll::Ready(Turn::Drained) => {
                    if let Phase::Running(channels) = &mut self.phase {
                        channels.resume();
                        channels.flush();
                    }
                    continue;
                }
                Poll::Ready(Turn::Closed(how)) => {
                    self.over(format!("the socket was closed: {how:?}"));
                }
                Poll::Pending => {}
            }
            if let Some(waited) = &mut self.waited
                && let Poll::Ready(outcome) = waited.as_mut().poll(cx)
            {
                self.waited = None;
                self.resolved(outcome);
                continue;
            }
            if let Phase::Running(channels) = &mut self.phase {
                let heard = channels.listen(cx.waker());
                let came_back = heard.and_then(|heard| Ok(channels.poll_away(cx)? | heard));
                match came_back {
                    Ok(true) => channels.flush(),
                    Ok(false) => {}
                    Err(failure) => self.fail(failure),
                }
            }
            if matches!(self.phase, Phase::Over) {
                return Poll::Ready(());
            }
            if self.poll_input(cx, &mut turn).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads and deals with it until there is no more for now; ready when something else has to be looked at first.
    fn poll_input(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Poll<()> {
        loop {
            if self.waited.is_some() {
                return Poll::Pending;
            }
            if let Phase::Running(channels) = &mut self.phase
                && channels.poll_ready(cx).is_pending()
            {
                // We do not listen: the client's silence is ours.
                self.alive();
                return Poll::Pending;
            }
            match ready!(self.poll_more(cx)) {
                Ok(0) => {
                    self.ended = true;
                    self.over("the client closed the connection".to_owned());
                    return Poll::Ready(());
                }
                Ok(n) => {
                    self.alive();
                    *turn += n;
                }
                Err(error) => {
                    self.over(error.to_string());
                    return Poll::Ready(());
                }
            }
            let away = match &mut self.phase {
                Phase::Running(channels) => {
                    channels.flush();
                    channels.has_away()
                }
                _ => {
                    self.sink.flush();
                    true
                }
            };
            if *turn >= TURN {
                *turn = 0;
                give_way(cx);
                return Poll::Pending;
            }
            if away {
                return Poll::Ready(());
            }
        }
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) {
        if let Some(stopped) = &mut self.stopped
            && stopped.as_mut().poll(cx).is_ready()
        {
            self.stopped = None;
            match self.phase {
                Phase::Running(_) => {
                    let text = "broker forced connection closure with reason 'shutdown'";
                    self.fail(Failure::new(ReplyCode::ConnectionForced, text));
                }
                Phase::Handshake(_) => self.over("shutdown".to_owned()),
                Phase::Closing | Phase::Over => {}
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match (&self.phase, &self.heartbeat) {
                (Phase::Running(_), Some(heartbeat)) => match heartbeat.look(now) {
                    Beat::Send => {
                        let pause = heartbeat.pause();
                        // A client that does not take what it has needs no sign of life.
                        if self.sink.outbound().backlog() == 0 {
                            self.sink.send(|out| out.extend_from_slice(&frame::HEARTBEAT));
                            self.sink.flush();
                        }
                        self.timer.as_mut().reset(now + pause);
                    }
                    Beat::Lost => return self.over("the client missed two heartbeats".to_owned()),
                },
                (Phase::Handshake(_), _) if self.waited.is_some() && self.user.is_some() => {
                    let text = "the back end of the vhost does not answer";
                    let failure = Failure::new(ReplyCode::ConnectionForced, text);
                    return self.fail(failure.caused_by(class::Open::ID));
                }
                (Phase::Handshake(_), _) => return self.over("the handshake took too long".to_owned()),
                (Phase::Closing, _) if self.waited.is_some() => return self.left(),
                (Phase::Closing, _) => return self.over(String::new()),
                (Phase::Running(_), None) | (Phase::Over, _) => return,
            }
        }
    }

    /// Deals with what an alarm has kept back, else with what is there to be read; 0 is the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let alarm = self.door.alarms.is_on();
        if let Phase::Running(channels) = &mut self.phase
            && channels.take_over()
        {
            let rest = std::mem::take(&mut self.rest);
            self.understand(&rest, alarm);
            return Poll::Ready(Ok(rest.len()));
        }
        let read = ready!(self.poll_read(cx, alarm));
        if let Ok(n) = &read {
            self.door.metrics.received_bytes.increment(*n as u64);
        }
        Poll::Ready(read)
    }

    /// Reads what is there and deals with it; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, alarm: bool) -> Poll<io::Result<usize>> {
        if self.filled > 0 {
            let free = self.rest.get_mut(self.filled..).unwrap_or_default();
            let n = ready!(self.read.poll_read(cx, free))?;
            self.filled += n;
            if self.filled == self.rest.len() {
                self.filled = 0;
                let rest = std::mem::take(&mut self.rest);
                self.understand(&rest, alarm);
            }
            return Poll::Ready(Ok(n));
        }
        let kept = self.rest.len();
        buffer::with_scratch(|scratch| {
            let end = if alarm { scratch.len().min(kept + AHEAD) } else { scratch.len() };
            let n = ready!(self.read.poll_read(cx, scratch.get_mut(kept..end).unwrap_or_default()))?;
            if let Some(front) = scratch.get_mut(..kept) {
                front.copy_from_slice(&self.rest);
            }
            let received = scratch.get(..kept + n).unwrap_or_default();
            if n > 0 {
                self.rest = Vec::new();
                self.understand(received, alarm);
            }
            Poll::Ready(Ok(n))
        })
    }

    /// Deals with received bytes, and keeps what is not whole yet, or what an `alarm` keeps back.
    pub(super) fn understand(&mut self, received: &[u8], alarm: bool) {
        let understood = match &mut self.phase {
            Phase::Handshake(_) => self.shake_hands(received),
            Phase::Running(channels) if alarm => channels.frames_before_publish(received),
            Phase::Running(channels) => channels.frames(received),
            Phase::Closing => self.closing(received),
            Phase::Over => Ok(Understood { used: received.len(), needed: 0, wish: None }),
        };
        match understood {
            Ok(Understood { used, needed, wish }) => {
                let left = received.get(used..).unwrap_or_default();
                if needed > COPIED_MAX {
                    self.rest = Vec::with_capacity(needed);
                    self.rest.extend_from_slice(left);
                    self.rest.resize(needed, 0);
                    self.filled = left.len();
                } else {
                    self.rest = left.to_vec();
                }
                if let Some(Wish::Close) = wish {
                    self.leave();
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    pub(super) fn authenticate(&mut self, user: String, password: Vec<u8>) {
        let (door, peer) = (Arc::clone(&self.door), self.peer.ip());
        self.waited = Some(Box::pin(async move {
            let who = Credentials::Password { user: &user, password: &password };
            Outcome::Verified(login::judge(&door.users, who, peer).await)
        }));
    }

    pub(super) fn run(&mut self, scope: Box<dyn Scope>, vhost: Arc<str>) {
        let (Phase::Handshake(handshake), Some(identity)) = (&self.phase, &self.user) else { return };
        let (client, tuned) = (handshake.client(), handshake.tuned());
        self.sink.negotiated(tuned.frame_max, client.consumer_cancel_notify);
        let (name, user) = (&*self.name, &*identity.user);
        tracing::info!(peer = %self.peer, name, user, vhost = &*vhost, client = client.product, "AMQP client connected");
        let opened = Opened {
            vhost,
            user: Arc::clone(&identity.user),
            channel_max: tuned.channel_max,
            limits: Limits { frame_max: tuned.frame_max, body_max: self.door.limits.body_max },
            tell_blocked: client.connection_blocked,
        };
        let (sink, metrics) = (Arc::clone(&self.sink), Arc::clone(&self.door.metrics));
        let (bodies, alarms) = (Arc::clone(&self.door.bodies), Arc::clone(&self.door.alarms));
        let channels = Channels::new(scope, opened, sink, metrics, bodies, alarms);
        let now = Instant::now();
        self.heartbeat = Heartbeat::new(tuned.heartbeat, now);
        if let Some(heartbeat) = &self.heartbeat {
            self.timer.as_mut().reset(now + heartbeat.pause());
        }
        self.phase = Phase::Running(Box::new(channels));
        self.sink.send(|out| class::OpenOk {}.encode(0, out));
    }

    /// Closes the connection for a reason of ours.
    pub(super) fn fail(&mut self, failure: Failure) {
        Metrics::failed(failure.code);
        self.why.clone_from(&failure.text);
        self.waited = None;
        // Dropping what runs releases it.
        let was = std::mem::replace(&mut self.phase, Phase::Closing);
        if matches!(was, Phase::Closing | Phase::Over) {
            return;
        }
        drop(was);
        self.rest = Vec::new();
        self.filled = 0;
        self.sink.send(|out| failure.encode(0, out));
        self.sink.flush();
        if failure.loses_framing {
            self.over(failure.text);
        } else {
            self.hurry();
        }
    }

    /// From now on what is left to be done may take as long as a farewell.
    pub(super) fn hurry(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.door.limits.farewell);
    }

    fn alive(&mut self) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.heard(Instant::now());
        }
    }

    /// Sends what is left, then waits a moment for the client to close its side, so that it reads our last words.
    async fn end(mut self) {
        self.phase = Phase::Over;
        let user = self.user.as_ref().map_or("", |identity| &*identity.user);
        tracing::info!(peer = %self.peer, name = &*self.name, user, why = self.why, "AMQP client disconnected");
        self.sink.outbound().finish(self.door.limits.farewell).await;
        if !self.ended {
            let discard = async {
                loop {
                    let read = poll_fn(|cx| buffer::with_scratch(|scratch| self.read.poll_read(cx, scratch)));
                    if matches!(read.await, Ok(0) | Err(_)) {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(LINGER, discard).await;
        }
    }
}
