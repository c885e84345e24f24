//! The task of one client's session at the broker: passes on what comes, connects again, ends it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::LaneEvent;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::narrowed;
use super::farewell::Farewell;
use super::passage::Passage;
use crate::claim::{Ears, Words};
use crate::house::{House, random};
use crate::upstream::back_off::BackOff;
use crate::upstream::connection::{Connection, Introduction, Sender};
use crate::upstream::coordinator::wait_for_subscriptions;
use crate::upstream::failure::Failure;
use crate::upstream::packet::{Happened, Welcome};

/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// Within which Linkspan's other sessions notice that the broker went away, when it did.
const ALONE: Duration = Duration::from_millis(500);

/// For how long a client that takes nothing may keep its session from reading; signs of life are due meanwhile.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// For how long what a client published before it vanished may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// So often in a row a connection that was closed soon after the session came back is taken to be closed for one of our own
/// attempts before it, which the broker has come to late: the way was slow.
const GHOSTS: u32 = 3;

/// Clients that come back to the broker in a millisecond.
const CROWD: u64 = 16;

/// AMQP's code for a connection that is closed by force.
const FORCED: u16 = 320;

/// A connection that the broker has let in.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) sender: Sender,
    pub(crate) welcome: Welcome,
}

struct Coordinator {
    house: Arc<House>,
    passage: Arc<Passage>,
    how: Introduction,
    ears: Arc<Ears>,
    /// The session may have filters from before that only the broker knows.
    has_past: bool,
    /// When the last words of a client that vanished are over.
    over: Option<Instant>,
}

/// For how long what the client publishes waits.
type Silence = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a connection is not carried any longer.
enum End {
    /// The connection is gone.
    Lost(Failure),
    /// The client is.
    Vanished,
}

/// Starts carrying a client's session.
pub(crate) fn start(
    house: Arc<House>,
    passage: Arc<Passage>,
    how: Introduction,
    ears: Arc<Ears>,
    opened: Opened,
) -> JoinHandle<()> {
    let has_past = opened.welcome.resumed && !how.fresh;
    let coordinator = Coordinator { house, passage, how, ears, has_past, over: None };
    // Before the task has its first turn, so that what the client subscribes to waits for the broker's word.
    let connection = coordinator.link(opened);
    coordinator.passage.session.speak(coordinator.house.now());
    tokio::spawn(coordinator.run(connection))
}

/// Ends what is left of a client's session when its task has come to its end. None when everything ends.
pub(crate) fn end(
    house: Arc<House>,
    task: Option<JoinHandle<()>>,
    owed: Option<Arc<Farewell>>,
) -> Option<JoinHandle<()>> {
    let runtime = Handle::try_current().ok()?;
    let ending = runtime.spawn(async move {
        if let Some(task) = task {
            // One that was aborted has come to its end too.
            let _ = task.await;
        }
        if let Some(owed) = owed {
            settle(&house, &owed).await;
            house.farewells.said(&owed);
        }
    });
    Some(ending)
}

/// Tells the broker how a session that its client has left is to be kept, as often as it takes: until a successor has come,
/// or the broker has forgotten it by itself.
async fn settle(house: &House, owed: &Arc<Farewell>) {
    let mut back_off = BackOff::new(house.options.back_off);
    loop {
        {
            let _place = house.farewells.turns.acquire().await;
            let _turn = owed.turn.lock().await;
            if !house.farewells.is_owed(owed) {
                return;
            }
            let how = owed.introduction(house.now());
            match house.dial.open(&how).await {
                // The socket goes with the will that the broker has then.
                Ok(_) if how.will.is_some() => return,
                Ok((connection, sender, _)) => return connection.leave(&sender).await,
                Err(why @ (Failure::Denied(_) | Failure::BadIdentifier(_))) => {
                    tracing::warn!(backend = %house.name, client = %owed.identifier, %why, "the broker keeps a session for longer than its client wanted");
                    return;
                }
                Err(why) => {
                    tracing::debug!(backend = %house.name, client = %owed.identifier, %why, "the broker does not know yet that a client has left");
                }
            }
        }
        // An attempt that cannot succeed would only keep others waiting.
        loop {
            tokio::time::sleep(back_off.wait(random())).await;
            if house.is_closed() || owed.is_forgotten(house.now()) || !house.farewells.is_owed(owed) {
                return;
            }
            if house.status.away_because().is_none() {
                break;
            }
        }
    }
}

impl Coordinator {
    /// A connection begins; the client is not let speak yet.
    fn link(&self, opened: Opened) -> Connection {
        let Opened { connection, sender, welcome } = opened;
        let generation = self.passage.session.linked(sender.clone(), narrowed(welcome));
        self.passage.connected(sender, welcome, generation);
        connection
    }

    async fn run(mut self, connection: Connection) {
        self.carry_on(connection).await;
        self.passage.over();
        self.passage.session.lost();
        self.passage.session.close();
    }

    /// Connects as often as it takes, until the client is gone or its session lost to it.
    async fn carry_on(&mut self, first: Connection) {
        let mut back_off = BackOff::new(self.house.options.back_off);
        let mut next = Ok(first);
        let mut silence: Option<Silence> = None;
        let (mut came_back, mut ghosts) = (false, 0);
        let mut known = self.house.subscriber.generation();
        loop {
            let epoch = self.house.status.epoch();
            let mut may_be_ghost = false;
            let why = match next {
                Ok(connection) => {
                    let since = Instant::now();
                    let end = self.carry(connection, silence.take()).await;
                    self.passage.lost(self.has_past);
                    self.passage.session.lost();
                    let End::Lost(why) = end else { return };
                    if let Failure::Unsolicited(packet_id) = why
                        && !self.how.begun.contains(&packet_id)
                    {
                        self.how.begun.push(packet_id);
                        back_off.reset();
                    }
                    let lasted = since.elapsed() >= GOOD;
                    if lasted {
                        back_off.reset();
                        ghosts = 0;
                    }
                    let is_closed = matches!(why, Failure::TakenOver(_) | Failure::Closed);
                    may_be_ghost = is_closed && came_back && !lasted && ghosts < GHOSTS;
                    ghosts += u32::from(may_be_ghost);
                    why
                }
                Err(why) => why,
            };
            let has_left = self.passage.session.is_closing() || self.passage.is_vanishing();
            if has_left || self.house.is_closed() || (!may_be_ghost && self.is_over_for(&why).await) {
                return;
            }
            tracing::debug!(backend = %self.house.name, client = %self.how.identifier, %why, "a client's session is cut off from the broker; it is tried again");
            let waiting = self.wait(back_off.wait(random()), known);
            tokio::select! {
                () = waiting => {}
                () = self.passage.vanished() => return,
            }
            if self.house.status.epoch() == epoch {
                self.passage.session.lost_alone();
            }
            known = self.house.subscriber.generation();
            // A client that has gone may have come again: its session must not be taken from it.
            if self.passage.is_vanishing() {
                return;
            }
            let passage = Arc::clone(&self.passage);
            let again = tokio::select! {
                again = self.reopen() => again,
                () = passage.vanished() => return,
            };
            if self.has_past && again.as_ref().is_ok_and(|again| !again.welcome.resumed) {
                // What it had subscribed to before only the broker knew: it has to come again to be told so, and must not
                // find the session that was begun by asking.
                drop(again);
                self.passage.set_keep(0);
                let text = "the broker has lost the session".into();
                return self.ears.events.event(LaneEvent::Closed { code: FORCED, text });
            }
            next = again.map(|again| self.link(again));
            came_back = true;
            if self.passage.session.is_closing() {
                // The client has left before this was noticed: the good-bye is still to be said.
                self.passage.session.close();
            }
            let house = Arc::clone(&self.house);
            silence = Some(Box::pin(async move { wait_for_subscriptions(&house).await }));
        }
    }

    /// Waits before the next attempt, or until Linkspan's subscribing session has a later connection than the `known` one:
    /// the broker is there again. Those who publish wait for those who subscribe.
    async fn wait(&self, longest: Duration, known: u64) {
        let house = &self.house;
        if timeout(longest, house.subscriber.linked_after(known)).await.is_ok() {
            // Not all of them at the same moment.
            let crowd = u64::try_from(*house.absent.borrow()).unwrap_or(u64::MAX) / CROWD;
            let spread = Duration::from_millis(random() % (crowd + 20));
            tokio::time::sleep(spread.min(longest)).await;
        }
    }

    async fn reopen(&mut self) -> Result<Opened, Failure> {
        self.how.fresh = false;
        let (connection, sender, welcome) = self.house.dial.open(&self.how).await?;
        metrics::counter!("linkspan_backend_reconnects_total", "backend" => self.house.name.to_string())
            .increment(1);
        Ok(Opened { connection, sender, welcome })
    }

    /// Whether the session is not to be had any more, of which the client is told.
    async fn is_over_for(&self, why: &Failure) -> bool {
        let closed = |why: &Failure| LaneEvent::Closed { code: FORCED, text: why.to_string().into() };
        let event = match why {
            Failure::TakenOver(_) => LaneEvent::TakenOver,
            Failure::Denied(_) | Failure::BadIdentifier(_) => closed(why),
            // Not every broker says that another client has the session. Whoever it is must not be thrown out in turn: the
            // client fares as it would without Linkspan.
            Failure::Closed if self.is_alone().await => closed(why),
            _ => return false,
        };
        self.passage.give_up();
        self.ears.events.event(event);
        true
    }

    /// Whether Linkspan's other sessions at the broker go on.
    async fn is_alone(&self) -> bool {
        let status = &self.house.status;
        let before = status.epoch();
        if status.away_because().is_none() {
            let _ = timeout(ALONE, self.passage.vanished()).await;
        }
        status.epoch() == before && status.away_because().is_none()
    }

    /// Passes on what happens until the connection or the client is gone.
    async fn carry(&mut self, mut connection: Connection, mut silence: Option<Silence>) -> End {
        let (mut happened, mut rest) = (Vec::new(), Vec::new());
        let (mut delivered, mut none, mut words) = (Vec::new(), Vec::new(), Words::default());
        loop {
            let polled = self.poll(&mut connection, &mut silence, &mut happened).await;
            let Some(polled) = polled else { return End::Vanished };
            let mut in_step = true;
            for one in happened.drain(..) {
                match one {
                    Happened::Delivered(message) => delivered.push(message),
                    Happened::Asked(_) | Happened::Granted(..) | Happened::Released(..) => {
                        in_step &= self.passage.hear(one).is_ok();
                    }
                    Happened::Sent(_) | Happened::Acked(..) | Happened::OutOfStep => rest.push(one),
                }
            }
            let now = self.house.now();
            in_step &= self.passage.session.apply(&mut rest, &mut none, &mut words, now).is_ok();
            if !delivered.is_empty() && self.passage.take(&mut delivered) {
                let _ = timeout(LONGEST_HOLD, self.passage.drained()).await;
            }
            match polled {
                Err(why) => return End::Lost(why),
                Ok(()) if !in_step => {
                    let why = "its packet identifiers are out of step; a new connection is made";
                    return End::Lost(Failure::Lost(why.into()));
                }
                Ok(()) => {}
            }
        }
    }

    /// Waits until something happens; none when the client has vanished, and what it published before is sent.
    async fn poll(
        &mut self,
        connection: &mut Connection,
        silence: &mut Option<Silence>,
        happened: &mut Vec<Happened>,
    ) -> Option<Result<(), Failure>> {
        let mut polling = pin!(connection.poll(happened));
        loop {
            if self.passage.is_vanishing() {
                let over = *self.over.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                if self.passage.session.is_drained() {
                    return None;
                }
                return timeout_at(over, &mut polling).await.ok();
            }
            let broken = async {
                match silence {
                    Some(silence) => silence.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                polled = &mut polling => return Some(polled),
                () = self.passage.vanished() => {}
                () = broken => {
                    *silence = None;
                    self.passage.session.speak(self.house.now());
                }
            }
        }
    }
}
