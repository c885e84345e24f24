//! The tasks of the sessions: each connects, passes on what comes, and tries again.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::Refused;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::claim::Words;
use crate::feed::{Feed, Feeder, coordinator};
use crate::house::{House, random};
use crate::inlet::Inlet;
use crate::upstream::back_off::BackOff;
use crate::upstream::connection::{Connection, Introduction};
use crate::upstream::failure::Failure;
use crate::upstream::packet::Incoming;
use crate::upstream::session::Session;

/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// So many connections in a row that the broker closed soon, while it closed no others: somebody else claims the session.
const SNUBS: u32 = 3;

/// For how long publishing waits for subscriptions when the broker is back.
const SUBSCRIBED: Duration = Duration::from_secs(2);

/// For how long subscribers here may keep the broker waiting at once.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// How long after a refusal a full queue is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// For how long what was taken may take to be acknowledged when the back end is closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often it is looked whether a feed is over.
const LOOK: Duration = Duration::from_millis(5);

/// How long a feed that was ended waits for the broker's last word.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Carries one session.
pub(crate) struct Coordinator {
    house: Arc<House>,
    session: Arc<Session>,
    how: Introduction,
    /// The broker has to forget the session at first, or at every connection.
    forgets: Forgets,
    outlet: Outlet,
}

/// What the broker is to forget of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgets {
    Always,
    FormerLives,
    Nothing,
}

/// Where what comes goes, and who is told how the session is.
enum Outlet {
    /// A shared session's place in the status; what comes, if it subscribes.
    Shared(usize, Option<Box<Inlet>>),
    Queue(Arc<Feed>, mpsc::Sender<(u64, Vec<Incoming>)>),
}

/// Starts the shared sessions; tells their tasks.
pub(crate) fn start(house: &Arc<House>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for (part, session) in house.publishers.iter().enumerate() {
        let identifier = format!("{}.pub.{part}", house.options.instance);
        let coordinator = Coordinator {
            house: Arc::clone(house),
            session: Arc::clone(session),
            how: house.introduction(identifier),
            forgets: Forgets::Always,
            outlet: Outlet::Shared(part, None),
        };
        tasks.push(tokio::spawn(coordinator.run_on()));
    }
    let how = Introduction {
        session_expiry: house.options.session_expiry,
        ..house.introduction(format!("{}.sub", house.options.instance))
    };
    let coordinator = Coordinator {
        house: Arc::clone(house),
        session: Arc::clone(&house.subscriber),
        how,
        forgets: Forgets::FormerLives,
        outlet: Outlet::Shared(house.publishers.len(), Some(Box::new(Inlet::new(Arc::clone(house))))),
    };
    tasks.push(tokio::spawn(coordinator.run_on()));
    tasks
}

/// Starts feeding a queue.
pub(crate) fn start_feed(house: &Arc<House>, feed: &Arc<Feed>) {
    let task = tokio::spawn(coordinator::work(Arc::clone(house), Arc::clone(feed))).abort_handle();
    feed.is_carried_by(task);
}

/// Ends a feed: at once nothing more is subscribed to for it, and after a while, in which what the broker had for it still
/// comes, it is no member any more. Returns when the broker has answered, or does not.
pub(crate) async fn end_feed(house: &Arc<House>, feed: Arc<Feed>) {
    let turn = feed.ends();
    let (house, session) = (Arc::clone(house), Arc::clone(&feed.session));
    tokio::spawn(async move {
        tokio::time::sleep(LAST_WORD).await;
        if house.feeds.remove(&feed, turn) {
            feed.session.close();
            ended(&feed).await;
        }
    });
    if tokio::time::timeout(LAST_WORD, session.heard()).await.is_err() {
        tracing::debug!(backend = %session.backend, "the broker does not answer an UNSUBSCRIBE");
    }
}

/// Waits a moment for a feed whose session is closed, so that it gives its lease back, and ends it.
async fn ended(feed: &Feed) {
    let gone = async {
        while feed.is_carried() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(1), gone).await.is_err() {
        tracing::debug!(queue = %feed.queue, "the lease of a work queue runs out by itself");
    }
    feed.abort();
}

/// Waits until what was taken is acknowledged, and says good-bye.
pub(crate) async fn stop(house: &House, tasks: Vec<JoinHandle<()>>) {
    let drained = async {
        for session in &house.publishers {
            session.drained().await;
        }
    };
    if tokio::time::timeout(FAREWELL, drained).await.is_err() {
        tracing::warn!(backend = %house.name, "the broker has not acknowledged all that was published");
    }
    for session in house.publishers.iter().chain([&house.subscriber]) {
        session.close();
    }
    for feed in house.feeds.all() {
        feed.session.close();
    }
    for mut task in tasks {
        if tokio::time::timeout(Duration::from_secs(1), &mut task).await.is_err() {
            task.abort();
        }
    }
    for feed in house.feeds.all() {
        ended(&feed).await;
    }
    // Clients have left by now: the broker is not to keep what they did not want it to.
    if tokio::time::timeout(FAREWELL, house.farewells.all_said()).await.is_err() {
        let owed = house.farewells.owed();
        tracing::warn!(backend = %house.name, owed, "the broker was not told that these clients have left; it keeps their sessions for a while");
    }
}

/// Hands on what came for a queue; what nobody acknowledges has no place where there is too much.
async fn pass_on(to: &mpsc::Sender<(u64, Vec<Incoming>)>, generation: u64, messages: Vec<Incoming>) {
    let Err(mpsc::error::TrySendError::Full((_, mut messages))) = to.try_send((generation, messages)) else {
        return;
    };
    let before = messages.len();
    messages.retain(|message| message.packet_id.is_some());
    metrics::counter!("linkspan_messages_dropped_total", "reason" => "queue-full")
        .increment((before - messages.len()) as u64);
    if !messages.is_empty() {
        // Who is gone takes nothing.
        let _ = to.send((generation, messages)).await;
    }
}

/// Puts what comes for a queue into it, one after the other; what it does not take now waits, unacknowledged: the
/// broker sends no more than its window.
pub(crate) async fn fill(
    house: Arc<House>,
    feed: Arc<Feed>,
    mut feeder: Feeder,
    mut receiver: mpsc::Receiver<(u64, Vec<Incoming>)>,
) {
    while let Some((generation, messages)) = receiver.recv().await {
        for message in messages {
            // What is sent again comes in its order: this one would be before its time.
            if comes_again(&feed, generation) {
                continue;
            }
            let mut told = false;
            while let Err(why) = feeder.put(&message, generation) {
                if message.packet_id.is_none() {
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "queue-full")
                        .increment(1);
                    break;
                }
                if !std::mem::replace(&mut told, true) {
                    let full = matches!(why, Refused::Full(_));
                    metrics::counter!("linkspan_backend_feeds_held_total", "reason" => if full { "full" } else { "refused" })
                        .increment(1);
                    tracing::warn!(backend = %house.name, queue = %feed.queue, %why, "the queue takes nothing from the broker now");
                }
                tokio::time::sleep(ASK_AGAIN).await;
                if comes_again(&feed, generation) {
                    break;
                }
            }
        }
    }
}

/// True when a message of that connection is sent again by a later one, to a session that the broker still knows.
fn comes_again(feed: &Feed, generation: u64) -> bool {
    feed.session.generation() != generation && feed.session.welcome().is_some_and(|welcome| welcome.resumed)
}

/// A broker that has forgotten everything would drop what is published before somebody is subscribed again.
pub(crate) async fn wait_for_subscriptions(house: &House) {
    let all = async {
        house.subscriber.answered().await;
        for feed in house.feeds.all() {
            if feed.check().is_ok() {
                feed.session.answered().await;
            }
        }
        // It lives as long as the house.
        let _ = house.absent.subscribe().wait_for(|absent| *absent == 0).await;
    };
    if tokio::time::timeout(SUBSCRIBED, all).await.is_err() {
        tracing::debug!(backend = %house.name, "publishing begins before all is subscribed to");
    }
}

impl Coordinator {
    pub(crate) fn of_feed(
        house: &Arc<House>,
        feed: &Arc<Feed>,
        sender: mpsc::Sender<(u64, Vec<Incoming>)>,
    ) -> Self {
        let how = Introduction {
            session_expiry: u32::MAX,
            manual: true,
            receive_maximum: house.options.feed_window,
            window: 1,
            ..house.introduction(Feed::identifier(&feed.vhost, &feed.queue))
        };
        Self {
            house: Arc::clone(house),
            session: Arc::clone(&feed.session),
            how,
            forgets: Forgets::Nothing,
            outlet: Outlet::Queue(Arc::clone(feed), sender),
        }
    }

    /// The same for a session that goes on whatever happens.
    async fn run_on(self) {
        let _ = self.run().await;
    }

    /// Connects as often as it takes. Ends when the back end is closed, or with the reason why this session must not be
    /// tried again.
    pub(crate) async fn run(mut self) -> Option<Failure> {
        let mut back_off = BackOff::new(self.house.options.back_off);
        let mut is_first = true;
        let mut snubs = 0;
        let mut is_told = false;
        loop {
            self.how.fresh = self.forgets == Forgets::Always;
            let (mut snubbed, mut begun) = (None, None);
            let opened = if is_first && self.forgets == Forgets::FormerLives {
                self.house.dial.open_anew(&self.how).await
            } else {
                self.house.dial.open(&self.how).await
            };
            let why = match opened {
                Ok((connection, sender, welcome)) => {
                    is_first = false;
                    begun = Some(self.house.status.epoch());
                    if self.forgets == Forgets::Always {
                        wait_for_subscriptions(&self.house).await;
                    }
                    let since = Instant::now();
                    let before = self.house.status.epoch();
                    let generation = self.session.connected(sender, welcome, self.house.now());
                    match &self.outlet {
                        Outlet::Shared(part, _) => self.house.status.up(*part, welcome),
                        Outlet::Queue(feed, _) => {
                            is_told = false;
                            tracing::info!(backend = %self.house.name, queue = %feed.queue, resumed = welcome.resumed, "a work queue is fed by the broker");
                        }
                    }
                    let why = self.carry(connection, generation).await;
                    self.session.lost();
                    if since.elapsed() >= GOOD {
                        back_off.reset();
                    }
                    let soon = why == Failure::Closed && since.elapsed() < GOOD;
                    snubbed = (soon && matches!(self.outlet, Outlet::Queue(..))).then_some(before);
                    why
                }
                Err(why) => {
                    self.session.lost();
                    why
                }
            };
            if self.house.is_closed() || self.session.is_closing() {
                return None;
            }
            let mut wait = back_off.wait(random());
            match &self.outlet {
                Outlet::Shared(part, _) => {
                    if let Failure::TakenOver(_) = &why {
                        // Whoever it is would be thrown out in turn, and come back.
                        wait = Duration::from_secs(60);
                    }
                    self.house.status.away(*part, why);
                }
                Outlet::Queue(feed, _) => {
                    if let Failure::TakenOver(_) = &why {
                        return Some(why);
                    }
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(backend = %self.house.name, queue = %feed.queue, %why, "a work queue is cut off from the broker; it is tried again");
                    }
                }
            }
            tokio::time::sleep(wait).await;
            // Whether the others lost their connections, too, is known only now.
            let own = if matches!(self.outlet, Outlet::Shared(..)) { 2 } else { 0 };
            if begun.is_some_and(|begun| self.house.status.epoch() == begun + own) {
                self.session.lost_alone();
            }
            // It alone is thrown out, time and again: not every broker says that somebody else came.
            snubs = if snubbed == Some(self.house.status.epoch()) { snubs + 1 } else { 0 };
            if snubs >= SNUBS {
                return Some(Failure::TakenOver(self.how.identifier.clone()));
            }
        }
    }

    /// Passes on what happens until the connection is over, and tells why it is.
    async fn carry(&mut self, mut connection: Connection, generation: u64) -> Failure {
        let (mut happened, mut delivered, mut words) = (Vec::new(), Vec::new(), Words::default());
        loop {
            let polled = connection.poll(&mut happened).await;
            let now = self.house.now();
            let applied = self.session.apply(&mut happened, &mut delivered, &mut words, now);
            if !delivered.is_empty() {
                match &mut self.outlet {
                    Outlet::Shared(_, Some(inlet)) => {
                        if inlet.take(&mut delivered).await {
                            // They hold nobody for good: past this it is their own loss.
                            let _ = tokio::time::timeout(LONGEST_HOLD, inlet.ready()).await;
                        }
                    }
                    Outlet::Queue(_, sender) => {
                        pass_on(sender, generation, std::mem::take(&mut delivered)).await;
                    }
                    Outlet::Shared(_, None) => delivered.clear(),
                }
            }
            if let Err(why) = polled {
                return why;
            }
            if applied.is_err() {
                return Failure::Lost(
                    "its packet identifiers are out of step; a new connection is made".into(),
                );
            }
        }
    }
}
