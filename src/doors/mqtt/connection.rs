//! One client's socket, from accept to the last byte: the only place of this door that reads, waits and keeps time.

mod ahead;
mod held;
mod large;
mod turn;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use linkspan_contract::{Client, DeliverySink, Refused, client_number};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use self::turn::{Live, Step};
use super::MqttDoor;
use super::coordinator;
use super::deliveries::Deliveries;
use super::ending::Ending;
use super::handshake::{self, Agreement, TurnedAway};
use super::input::Input;
use super::limits::CONNECT;
use super::mailbox::Mailbox;
use super::metric::Counters;
use super::notes::Notes;
use super::registry::Claim;
use super::session::{Parts, Session};
use super::sink::Sink;
use crate::doors::listener::{ReadHalf, Stream};
use crate::doors::outbound::Outbound;
use crate::doors::{Stop, buffer, login};
use crate::protocol::mqtt::{Connect, Framing, Packet, PacketType, ReasonCode, Sender, Version};

/// How long what a client still sends is read and thrown away: closing before would reset the connection, and with it
/// the farewell that is under way.
const LINGER: Duration = Duration::from_millis(500);

/// Serves one connection to its end. All that is large stands in boxes, so that an idle client's task is small.
pub(super) fn serve(
    door: Arc<MqttDoor>,
    stream: Stream,
    peer: SocketAddr,
    stop: Stop,
) -> impl Future<Output = ()> + Send {
    let welcoming = Box::pin(welcome(Arc::clone(&door), stream, peer, stop));
    async move {
        let Some(mut live) = welcoming.await else { return };
        door.counters.connections.increment(1);
        door.counters.connected.increment(1);
        let ending = loop {
            let request = match poll_fn(|cx| live.poll(cx, &door)).await {
                Step::End(ending) => break ending,
                Step::Request(request) => Some(request),
                Step::Refresh => None,
            };
            if let Err(ending) = Box::pin(live.carry_out(request)).await {
                break ending;
            }
        };
        door.counters.connections.decrement(1);
        Box::pin(live.end(door, ending)).await;
    }
}

/// Lets a client in; none when it is not let in, and gone.
async fn welcome(door: Arc<MqttDoor>, stream: Stream, peer: SocketAddr, stop: Stop) -> Option<Box<Live>> {
    watch(&door, &stop);
    let (mut read, write) = stream.split();
    let marks = door.limits.marks;
    let outbound = Outbound::new(write, Deliveries::default(), marks);
    let sink = Arc::new(Sink::new(outbound, marks.high, Arc::clone(&door.counters)));
    let mut input = Input::default();
    let asked = OnceLock::new();
    let entering = enter(&door, peer, &mut read, &mut input, &sink, &asked);
    let entered = tokio::select! {
        biased;
        () = stop.wanted() => None,
        entered = timeout(door.limits.connect_timeout, entering) => match entered {
            Ok(entered) => entered,
            Err(_) => {
                match asked.get() {
                    Some(version) => {
                        let text = "the back end, or the client's connection before, does not answer";
                        tracing::warn!(%peer, "a client was not let in: {text}");
                        let away = TurnedAway::new(ReasonCode::ServerUnavailable, text);
                        Counters::refused(away.reason.as_u8());
                        sink.append(&away.refusal(*version));
                    }
                    None => tracing::debug!(%peer, "no CONNECT came in time"),
                }
                None
            }
        },
    };
    let Some((session, claim)) = entered else {
        sink.outbound.finish(door.limits.farewell).await;
        linger(&mut read).await;
        return None;
    };
    let keep_alive = KeepAlive::new(session.agreement.keep_alive);
    Some(Box::new(Live::new(read, input, sink, session, claim, keep_alive)))
}

/// Has all connected clients told when Linkspan goes down: one task for all of them.
pub(super) fn watch(door: &Arc<MqttDoor>, stop: &Stop) {
    door.watched.call_once(|| {
        let (registry, wanted) = (Arc::clone(&door.registry), stop.wanted());
        tokio::spawn(async move {
            wanted.await;
            registry.stop();
        });
    });
}

/// From CONNECT to CONNACK. None when the client was not let in; then the answer, if there is one, is appended. `asked`
/// gets the client's version when only the back end is waited for.
async fn enter(
    door: &Arc<MqttDoor>,
    peer: SocketAddr,
    read: &mut ReadHalf,
    input: &mut Input,
    sink: &Arc<Sink>,
    asked: &OnceLock<Version>,
) -> Option<(Session, Claim)> {
    let packet = read_connect(read, input, sink).await?;
    let Ok(Framing::Complete(frame)) = Framing::read(&packet, CONNECT) else { return None };
    // The CONNECT brings its own version.
    let connect = match Packet::decode(&frame, Version::V5, Sender::Client) {
        Ok(Packet::Connect(connect)) => connect,
        Ok(_) => return None,
        Err(error) => {
            tracing::debug!(%peer, %error, "a CONNECT was refused");
            Counters::refused(error.reason().as_u8());
            sink.append(&handshake::refusal_of(frame.body(), &error));
            return None;
        }
    };
    match admit(door, peer, &connect, sink, asked).await {
        Ok(welcomed) => Some(welcomed),
        Err(away) => {
            tracing::info!(%peer, client = connect.client_identifier, why = %away.text, "client refused");
            Counters::refused(away.reason.as_u8());
            sink.append(&away.refusal(connect.version));
            None
        }
    }
}

/// The first packet's bytes, when it is a CONNECT [MQTT-3.1.0-1]; what follows it is kept.
async fn read_connect(read: &mut ReadHalf, input: &mut Input, sink: &Arc<Sink>) -> Option<Vec<u8>> {
    let mut received = Vec::new();
    loop {
        let count = poll_fn(|cx| {
            buffer::with_scratch(|scratch| {
                read.poll_read(cx, scratch).map(|result| {
                    let count = result.unwrap_or(0);
                    received.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    count
                })
            })
        })
        .await;
        if count == 0 {
            return None;
        }
        match Framing::read(&received, CONNECT) {
            Ok(Framing::Complete(frame)) if frame.packet_type == PacketType::Connect => {
                let length = frame.wire.len();
                input.keep_unread(received.get(length..).unwrap_or_default());
                received.truncate(length);
                return Some(received);
            }
            Ok(Framing::Incomplete { .. }) if received.first().is_none_or(|byte| byte >> 4 == 1) => {}
            Err(error) => {
                Counters::protocol_error(error.reason().as_u8());
                sink.append(&handshake::refusal_of(&[], &error));
                return None;
            }
            Ok(_) => {
                Counters::protocol_error(ReasonCode::ProtocolError.as_u8());
                return None;
            }
        }
    }
}

/// Lets a client in, or says why not.
async fn admit(
    door: &Arc<MqttDoor>,
    peer: SocketAddr,
    connect: &Connect<'_>,
    sink: &Arc<Sink>,
    asked: &OnceLock<Version>,
) -> Result<(Session, Claim), TurnedAway> {
    let number = client_number();
    let agreement = Agreement::reach(connect, &door.limits, number)?;
    let identity = login::judge(&door.users, handshake::credentials(connect), peer.ip()).await?;
    if !identity.may_enter(&door.vhost) {
        let text = format!("user '{}' may not enter vhost '{}'", identity.user, door.vhost);
        return Err(TurnedAway::new(ReasonCode::NotAuthorized, text));
    }
    door.await_sessions(agreement.fresh(), agreement.keep())?;
    asked.get_or_init(|| connect.version);
    let mut found = coordinator::find(door, &agreement.identifier).await;
    found.settle(agreement.fresh(), &identity.user).await?;
    if let Some(mailbox) = found.mailbox() {
        sink.speak_to(mailbox);
    }
    let (version, user) = (agreement.version, Arc::clone(&identity.user));
    let resumed = found.resting().is_some();
    tracing::debug!(%peer, client = %agreement.identifier, %user, ?version, resumed, "client connected");
    let gone = || TurnedAway::new(ReasonCode::ServerUnavailable, "the client identifier went to another");
    if resumed {
        found.take_up(&agreement, sink).await?;
        let (claim, session) = found.enter(agreement, sink).ok_or_else(gone)?;
        return Ok((session, claim));
    }
    let mailbox = Arc::clone(found.mailbox().ok_or_else(gone)?);
    let session = begin(door, number, agreement, user, sink, &mailbox).await?;
    mailbox.begin();
    door.forget_unmade(&session.agreement.identifier).await;
    Ok((session, found.into_claim().ok_or_else(gone)?))
}

/// Begins a session.
async fn begin(
    door: &Arc<MqttDoor>,
    number: u64,
    agreement: Agreement,
    user: Arc<str>,
    sink: &Arc<Sink>,
    mailbox: &Arc<Mailbox>,
) -> Result<Session, TurnedAway> {
    let client = Client {
        number,
        identifier: Arc::clone(&agreement.identifier),
        user: Arc::clone(&user),
        vhost: Arc::clone(&door.vhost),
        session: Some(Arc::new(agreement.terms())),
    };
    let mut connection = door.backend.connect(&client, Arc::clone(sink) as Arc<dyn DeliverySink>).await?;
    let lane = connection.lane(Arc::clone(mailbox) as _, Arc::clone(mailbox) as _).await?;
    let (tenure, present, kept) = match connection.session() {
        Some(session) => (None, session.resumed, session.keep),
        None => {
            let mut tenure = door.tenure(&agreement.identifier, &user, agreement.keep())?;
            if let Some(tenure) = tenure.as_mut().filter(|_| connection.lasts()) {
                tenure.notes = Some(Notes::default());
            }
            let kept = tenure.as_ref().map_or(0, |tenure| tenure.keep);
            (tenure, false, kept)
        }
    };
    let welcome = agreement.welcome(&door.limits, present, kept)?;
    let receiver = agreement.receiver();
    let keeps = tenure.as_ref().map(|tenure| tenure.notes.is_some());
    let mut session = Session::new(Parts {
        agreement,
        connection,
        lane,
        sink: Arc::clone(sink),
        limits: Arc::clone(&door.limits),
        retained: Arc::clone(&door.retained),
        counters: Arc::clone(&door.counters),
        tenure,
    });
    if session.kept {
        let refused = |why: Refused| TurnedAway::new(ReasonCode::ServerUnavailable, why.to_string());
        session.take_up().await.map_err(refused)?;
    }
    session
        .write_down()
        .await
        .map_err(|ending| TurnedAway::new(ReasonCode::ServerUnavailable, ending.to_string()))?;
    {
        let mut guard = sink.outbound.lock();
        let (deliveries, out) = guard.parts();
        deliveries.receiver = receiver;
        if let Some(lasts) = keeps {
            deliveries.keep(lasts);
        }
        out.extend_from_slice(&welcome);
        guard.appended();
    }
    sink.outbound.flush();
    if session.kept {
        session.begin();
    }
    Ok(session)
}

/// Reads and throws away what the client still sends, for a while.
async fn linger(read: &mut ReadHalf) {
    let ended = poll_fn(|cx| {
        loop {
            let count = ready!(buffer::with_scratch(|scratch| read.poll_read(cx, scratch))).unwrap_or(0);
            if count == 0 {
                return Poll::Ready(());
            }
        }
    });
    let _ = timeout(LINGER, ended).await;
}

/// One and a half times what the client promised (MQTT 5 §3.1.2.10).
struct KeepAlive {
    seconds: u16,
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// How long a client with this keep-alive may be silent.
fn patience(seconds: u16) -> Duration {
    Duration::from_millis(u64::from(seconds) * 1500)
}

impl KeepAlive {
    fn new(seconds: u16) -> Option<Self> {
        let heard = Instant::now();
        let alarm = || Box::pin(sleep_until(heard + patience(seconds)));
        (seconds > 0).then(|| Self { seconds, heard, alarm: alarm() })
    }

    /// Something was heard.
    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Ready when nothing was heard for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            let due = self.heard + patience(self.seconds);
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

impl Live {
    /// Says why, leaves the will, and closes.
    async fn end(self: Box<Self>, door: Arc<MqttDoor>, ending: Ending) {
        let Self { mut read, sink, session, claim, successors, .. } = *self;
        let agreement = &session.agreement;
        if let (true, Some(reason)) = (ending.is_violation(), ending.reason()) {
            Counters::protocol_error(reason.as_u8());
            tracing::info!(client = %agreement.identifier, why = %ending, "client disconnected");
        } else {
            tracing::debug!(client = %agreement.identifier, why = %ending, "client disconnected");
        }
        sink.detach(&ending.farewell(agreement.version, agreement.maximum));
        sink.outbound.flush();
        let successors = successors.map_or_else(Vec::new, |them| *them);
        coordinator::part(&door, session, claim, &ending, successors).await;
        sink.outbound.finish(door.limits.farewell).await;
        if !matches!(ending, Ending::Gone(_)) {
            linger(&mut read).await;
        }
    }
}
