//! Sessions between two connections: handed over, kept while their clients are away, timed, and written down in the
//! ledger.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use linkspan_contract::{LedgerError, Millis, Refused};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::MqttDoor;
use super::connection::watch;
use super::ending::Ending;
use super::handshake::{Agreement, TurnedAway};
use super::mailbox::{Letters, Mailbox};
use super::recall::restore;
use super::record;
use super::registry::{Asked, Claim, Handed, Successor};
use super::resting::Resting;
use super::session::Session;
use super::sink::Sink;
use crate::alarms::{Shortage, Subject};
use crate::doors::Stop;
use crate::protocol::mqtt::ReasonCode;

/// How long a back end may take to let a client go.
const PARTING: Duration = Duration::from_secs(2);

/// How long after a failure the ledger is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long after a failure it is asked again for all sessions: publishers wait for these.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// A client identifier, and the session that it had. When it is dropped the session is kept.
pub(super) struct Found {
    door: Arc<MqttDoor>,
    handed: Option<Handed>,
}

/// Asks for a client identifier, and gets it when who had it is gone.
pub(super) async fn find(door: &Arc<MqttDoor>, identifier: &Arc<str>) -> Found {
    loop {
        let handed = match door.registry.ask(identifier) {
            Asked::Free(claim) => Ok(Handed { claim, resting: None }),
            Asked::Held(handed) => handed.await,
        };
        if let Ok(handed) = handed {
            return Found { door: Arc::clone(door), handed: Some(handed) };
        }
    }
}

impl Found {
    /// The session that the client had, if it goes on with it.
    pub(super) fn resting(&mut self) -> Option<&mut Resting> {
        self.handed.as_mut()?.resting.as_deref_mut()
    }

    /// Where others leave what they have to say to the client.
    pub(super) fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        self.handed.as_ref().map(|handed| handed.claim.mailbox())
    }

    /// Looks for the session that `user` may go on with; one that is not wanted any more is ended.
    ///
    /// # Errors
    /// When there is one and it cannot be had now.
    pub(super) async fn settle(&mut self, fresh: bool, user: &Arc<str>) -> Result<(), TurnedAway> {
        let Some(Handed { claim, .. }) = &mut self.handed else { return Ok(()) };
        let written = self.door.unmade.lock().remove(claim.identifier());
        let over = written.as_ref().is_some_and(|written| written.is_over(self.door.now()));
        if let Some(written) = written {
            match restore(&self.door, claim, &written).await {
                Ok(resting) => {
                    if let Some(handed) = &mut self.handed {
                        handed.resting = Some(Box::new(resting));
                    }
                }
                Err(why) if fresh || why.is_final() => {
                    tracing::info!(client = %claim.identifier(), %why, "a session could not be taken up");
                    self.door.forget(&written).await;
                }
                Err(why) => {
                    self.door.unmade.lock().insert(Arc::clone(claim.identifier()), written);
                    return Err(TurnedAway::new(ReasonCode::ServerUnavailable, why.to_string()));
                }
            }
        }
        let Some(handed) = &mut self.handed else { return Ok(()) };
        let goes_on = |resting: &Resting| !fresh && !over && resting.tenure.user == *user;
        if handed.resting.as_deref().is_some_and(goes_on) {
            return Ok(());
        }
        if let Some(mut resting) = handed.resting.take() {
            resting.publish_will();
            end(*resting).await;
        }
        handed.claim.renew();
        Ok(())
    }

    /// Takes the session up: what is said to the client first, and what it has not acknowledged, are appended to `sink`.
    ///
    /// # Errors
    /// Why that cannot be done now.
    pub(super) async fn take_up(
        &mut self,
        agreement: &Agreement,
        sink: &Arc<Sink>,
    ) -> Result<(), TurnedAway> {
        let keep = self.door.limits.kept_for(agreement.keep());
        let limits = Arc::clone(&self.door.limits);
        let Some(resting) = self.resting() else { return Ok(()) };
        resting.write_down_for(agreement, keep).await.map_err(|error| not_written(&error))?;
        let welcome = agreement.welcome(&limits, true, keep)?;
        resting.lie_at(sink, agreement.receiver());
        let refused = |why: Refused| TurnedAway::new(ReasonCode::ServerUnavailable, why.to_string());
        resting.send_again(&welcome).await.map_err(refused)?;
        resting.tenure.keep = keep;
        Ok(())
    }

    /// The client is in: its identifier and its session are its connection's.
    pub(super) fn enter(mut self, agreement: Agreement, sink: &Arc<Sink>) -> Option<(Claim, Session)> {
        let Handed { claim, resting } = self.handed.take()?;
        self.door.counters.sessions_resumed.increment(1);
        Some((claim, resting?.rise(agreement, sink)))
    }

    /// The client is in, with a session that has just begun.
    pub(super) fn into_claim(mut self) -> Option<Claim> {
        self.handed.take().map(|handed| handed.claim)
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        if let Some(Handed { claim, resting: Some(mut resting) }) = self.handed.take() {
            resting.lie_down();
            keep(&self.door, claim, resting);
        }
    }
}

/// What a client is told whose session cannot be written down.
pub(super) fn not_written(error: &LedgerError) -> TurnedAway {
    TurnedAway::new(ReasonCode::ServerUnavailable, format!("the session cannot be written down: {error}"))
}

impl MqttDoor {
    /// Takes up the sessions that the ledger knows of: to be called before clients are let in. While the ledger is away
    /// only clients whose sessions end with their connections are let in, nobody publishes at any door, because sessions that
    /// are not there yet would miss it, and it is tried again. After `stop` no session is kept any more.
    pub async fn take_up_sessions(self: &Arc<Self>, stop: &Stop) {
        watch(self, stop);
        let Err(error) = self.read_sessions().await else { return self.make_the_rest(stop) };
        tracing::warn!(
            %error,
            "sessions cannot be taken up now; until they are, clients who want theirs are refused (0x88), and nobody publishes"
        );
        self.alarms.raise(&Shortage::Sessions);
        let (door, stop) = (Arc::clone(self), stop.clone());
        tokio::spawn(async move {
            let reading = async {
                let mut told = error;
                loop {
                    sleep(READ_AGAIN).await;
                    let Err(error) = door.read_sessions().await else { break };
                    if error != told {
                        tracing::warn!(%error, "sessions cannot be taken up yet");
                        told = error;
                    }
                }
            };
            tokio::select! {
                () = stop.wanted() => return,
                () = reading => {}
            }
            tracing::info!("the sessions that were written down are read: publishers go on");
            door.alarms.lower(&Subject::Sessions);
            door.make_the_rest(&stop);
        });
    }

    /// Has those sessions made that could not be made yet, until Linkspan goes down: a client that comes for one while its
    /// back end is away leaves it where it was.
    fn make_the_rest(self: &Arc<Self>, stop: &Stop) {
        if !self.has_unmade() {
            return;
        }
        let (door, stop) = (Arc::clone(self), stop.clone());
        tokio::spawn(async move {
            let making = async {
                loop {
                    sleep(AGAIN).await;
                    door.recall_again().await;
                }
            };
            tokio::select! {
                () = stop.wanted() => {}
                () = making => {}
            }
        });
    }
}

/// The connection of `session` is over: what is to go on goes to a successor or is kept, the rest ends.
pub(super) async fn part(
    door: &Arc<MqttDoor>,
    mut session: Session,
    claim: Claim,
    ending: &Ending,
    successors: Vec<Successor>,
) {
    let will = ending.leaves_will();
    if session.outlives(ending) {
        let Some(resting) = session.rest(will, claim.mailbox()) else { return };
        let handed = Handed { claim, resting: Some(Box::new(resting)) };
        match hand_over(handed, successors) {
            None => door.counters.sessions_taken_over.increment(1),
            Some(Handed { claim, resting: Some(resting) }) => {
                let keeper = Keeper::new(door, claim, resting, None, None);
                match ending {
                    Ending::ShuttingDown => keeper.put_down().await,
                    _ => keeper.start(),
                }
            }
            Some(_) => {}
        }
        return;
    }
    let record = session.tenure.as_mut().and_then(|tenure| tenure.record.take());
    if will {
        session.publish_will();
    }
    let _ = timeout(PARTING, session.close(will)).await;
    remove(record).await;
    drop(hand_over(Handed { claim, resting: None }, successors));
}

/// Gives the identifier, and the session if there is one, to the first who still wants it; yields it when nobody does.
fn hand_over(handed: Handed, successors: Vec<Successor>) -> Option<Handed> {
    successors.into_iter().try_fold(handed, |handed, successor| successor.send(handed).err()).map(Some)?
}

/// Keeps the session of a client that has gone.
fn keep(door: &Arc<MqttDoor>, claim: Claim, resting: Box<Resting>) {
    Keeper::new(door, claim, resting, None, None).start();
}

/// Ends a session: what back ends have of it, as far as they are quick, and its record in any case.
pub(super) async fn end(mut resting: Resting) {
    let record = resting.tenure.record.take();
    let _ = timeout(PARTING, resting.end()).await;
    remove(record).await;
}

/// Removes a session's record; one that cannot be removed now is tried again behind the caller's back, for the session is
/// over, and nobody has to wait for that.
pub(super) async fn remove(place: Option<record::Place>) {
    let Some(mut place) = place else { return };
    let Err(error) = place.remove().await else { return };
    tracing::warn!(%error, "the record of a session that has ended stays for now");
    tokio::spawn(async move {
        while let Err(LedgerError::Away(_)) = place.remove().await {
            sleep(AGAIN).await;
        }
    });
}

/// Keeps one session until its client is back, or its time is over.
pub(super) struct Keeper {
    door: Arc<MqttDoor>,
    claim: Claim,
    resting: Box<Resting>,
    ends: Option<Moment>,
    due: Option<Moment>,
    /// When it is written down, if it is not.
    unwritten: Option<Instant>,
}

/// A time by both clocks: the one that wakes tasks, and the one that goes on while Linkspan does not run.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    millis: Millis,
}

/// What becomes of a session that was kept.
enum Kept {
    /// It is kept on.
    On(Box<Keeper>),
    /// Its time is over, or a subscription of it is.
    Over,
    /// The client is back.
    Back,
}

impl Keeper {
    /// Keeps it from now on, or until the given times.
    pub(super) fn new(
        door: &Arc<MqttDoor>,
        claim: Claim,
        resting: Box<Resting>,
        ends: Option<Millis>,
        due: Option<Millis>,
    ) -> Self {
        let (now, since_1970) = (Instant::now(), door.now());
        let at = |millis: Millis| {
            let at = now + Duration::from_millis(millis.saturating_sub(since_1970));
            Moment { at, millis }
        };
        let after = |seconds: u32| at(since_1970.saturating_add(u64::from(seconds) * 1000));
        let ends = ends.map(at).or_else(|| resting.keep().map(after));
        let due = resting.will.as_ref().map(|will| due.map_or_else(|| after(will.delay()), at));
        Self { door: Arc::clone(door), claim, resting, ends, due, unwritten: Some(now) }
    }

    /// On a task of its own.
    pub(super) fn start(self) {
        // Nothing is kept by a runtime that is gone.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Box::pin(self.run()));
        }
    }

    async fn run(self) {
        let door = Arc::clone(&self.door);
        door.counters.sessions_kept.increment(1);
        let mut keeper = Box::new(self);
        while let Kept::On(on) = keeper.next().await {
            keeper = on;
        }
        door.counters.sessions_kept.decrement(1);
    }

    /// Waits for what comes next, and sees to it.
    async fn next(self: Box<Self>) -> Kept {
        let timed = [self.ends, self.due].into_iter().flatten().map(|moment| moment.at);
        let alarm = timed.chain(self.unwritten).min();
        let alarmed = async {
            match alarm {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mailbox = Arc::clone(self.claim.mailbox());
        let come = poll_fn(|cx| mailbox.collect(cx).map_or(Poll::Pending, Poll::Ready));
        tokio::select! {
            biased;
            letters = come => self.heed(*letters).await,
            () = alarmed => self.alarm().await,
        }
    }

    /// Sees to what others have said.
    async fn heed(mut self: Box<Self>, letters: Letters) -> Kept {
        let Letters { receipts, ended, successors, closed, taken_over, changed, stop, .. } = letters;
        if !receipts.is_empty() && self.resting.receipts(&receipts) {
            self.unwritten = Some(Instant::now());
        }
        if stop {
            self.put_down().await;
            return Kept::Back;
        }
        let over = ended.and_then(Ending::unsubscribed).or_else(|| closed.map(Ending::Lost));
        if let Some(why) = over.or_else(|| taken_over.then_some(Ending::TakenOver)) {
            tracing::warn!(client = %self.resting.identifier, %why, "the session of a client that is away has ended");
            self.door.counters.sessions_lost.increment(1);
            self.end(successors).await;
            return Kept::Over;
        }
        let Self { door, claim, resting, ends, due, unwritten } = *self;
        let handed = Handed { claim, resting: Some(resting) };
        let Some(Handed { claim, resting: Some(resting) }) = hand_over(handed, successors) else {
            return Kept::Back;
        };
        let mut keeper = Box::new(Self { door, claim, resting, ends, due, unwritten });
        if changed {
            keeper.resting.refresh().await;
        }
        Kept::On(keeper)
    }

    /// Something is due.
    async fn alarm(mut self: Box<Self>) -> Kept {
        let now = Instant::now();
        let is_due = |moment: Option<Moment>| moment.is_some_and(|moment| moment.at <= now);
        if is_due(self.ends) {
            tracing::debug!(client = %self.resting.identifier, "a session has expired");
            self.door.counters.sessions_expired.increment(1);
            self.end(Vec::new()).await;
            return Kept::Over;
        }
        if is_due(self.due) {
            self.due = None;
            self.resting.publish_will();
            self.unwritten = Some(now);
        }
        if self.unwritten.is_some_and(|at| at <= now) {
            self.unwritten = self.write_down().await.err().map(|error| {
                tracing::warn!(client = %self.resting.identifier, %error, "a session is not written down for now");
                Instant::now() + AGAIN
            });
        }
        Kept::On(self)
    }

    async fn write_down(&mut self) -> Result<(), LedgerError> {
        let millis = |moment: Moment| moment.millis;
        self.resting.write_down(self.ends.map(millis), self.due.map(millis)).await
    }

    /// The session is over: its will is published at the latest now [MQTT-3.1.3-9].
    async fn end(mut self: Box<Self>, successors: Vec<Successor>) {
        self.resting.publish_will();
        let Self { claim, resting, .. } = *self;
        end(*resting).await;
        drop(hand_over(Handed { claim, resting: None }, successors));
    }

    /// Linkspan goes down: the session is in the ledger, or it ends.
    async fn put_down(mut self) {
        if self.resting.tenure.record.is_none() {
            self.resting.publish_will();
        } else if self.unwritten.is_some()
            && let Ok(Err(error)) = timeout(PARTING, self.write_down()).await
        {
            tracing::warn!(client = %self.resting.identifier, %error, "a session is not written down");
        }
    }
}
