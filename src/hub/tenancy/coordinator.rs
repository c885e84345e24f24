//! How a tenancy goes: by what it is served, until when it lasts, and what is in its holder's hand.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{
    Connection, Credit, Fence, Lane, Refused, Settled, Source, Subscribe, SubscriptionKey,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::Over;

/// How long a back end may take to give back what was in hand.
const CLOSING: Duration = Duration::from_secs(5);

/// How often it is looked for silence at most, and at least where nobody may be silent for long.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// From the moment that a consumer is given a queue until it goes, or is ousted: from then on it is given nothing and
/// nothing that it settles counts.
pub struct Tenancy {
    /// Under which number.
    pub fence: Fence,
    /// Under which one the ledger has the lease.
    pub leased: Fence,
    /// How long its holder may have something in hand without a word.
    patience: Option<Duration>,
    /// What it is served by: a scope and a lane of its own, so that all that it has in hand goes back with them.
    way: Mutex<Option<Way>>,
    pace: Mutex<Pace>,
    /// It is over.
    ended: Notify,
}

struct Way {
    lane: Box<dyn Lane>,
    connection: Box<dyn Connection>,
}

/// How it goes.
struct Pace {
    in_hand: u64,
    /// When the holder was given the first of these, or settled one.
    since: Instant,
    /// The lease lasts until then, as far as is known.
    until: Instant,
    /// It has had a way.
    served: bool,
    /// The way is in use.
    out: bool,
    over: Option<Over>,
}

impl Tenancy {
    /// One that lasts until then, unless that is extended.
    pub fn new(fence: Fence, leased: Fence, until: Instant, patience: Option<Duration>) -> Arc<Self> {
        let now = Instant::now();
        let pace = Pace { in_hand: 0, since: now, until, served: false, out: false, over: None };
        let (way, pace) = (Mutex::default(), Mutex::new(pace));
        Arc::new(Self { fence, leased, patience, way, pace, ended: Notify::new() })
    }

    #[cfg(test)]
    pub fn of_test(fence: Fence) -> Arc<Self> {
        Self::new(fence, fence, Instant::now() + Duration::from_secs(60), None)
    }

    /// It is served this way from now on.
    pub fn serve(&self, lane: Box<dyn Lane>, connection: Box<dyn Connection>) {
        *self.way.lock() = Some(Way { lane, connection });
        let mut pace = self.pace.lock();
        (pace.served, pace.out) = (true, false);
    }

    /// Whether it is, or was.
    pub fn is_served(&self) -> bool {
        self.pace.lock().served
    }

    /// Why it is over, when it is.
    pub fn over(&self) -> Option<Over> {
        let pace = self.pace.lock();
        pace.over.or_else(|| (Instant::now() >= pace.until).then_some(Over::Lost))
    }

    /// Ends it.
    pub fn end(&self, over: Over) {
        self.pace.lock().over.get_or_insert(over);
        self.ended.notify_one();
    }

    /// Waits until somebody has ended it.
    pub async fn ended(&self) {
        while self.pace.lock().over.is_none() {
            self.ended.notified().await;
        }
    }

    /// Returns when what was in hand is in the queue again.
    pub async fn close(&self) {
        let closing = async {
            while self.pace.lock().out {
                sleep(Duration::from_millis(1)).await;
            }
            let way = self.way.lock().take();
            if let Some(Way { lane, connection }) = way {
                drop(lane);
                connection.close().await;
            }
        };
        if timeout(CLOSING, closing).await.is_err() {
            tracing::warn!(
                fence = self.fence,
                "a back end has not said that it has back what a consumer had in hand"
            );
        }
    }

    /// Until when its lease lasts.
    pub fn until(&self) -> Instant {
        self.pace.lock().until
    }

    /// Its lease was taken again.
    pub fn extend(&self, until: Instant) {
        self.pace.lock().until = until;
    }

    /// How soon to look again whether its holder has fallen silent.
    pub fn look(&self) -> Duration {
        let (least, most) = LOOKS;
        self.patience.map_or(most, |patience| (patience / 4).clamp(least, most))
    }

    /// Whether its holder has something in hand and has said nothing for longer than it may.
    pub fn has_fallen_silent(&self) -> bool {
        let pace = self.pace.lock();
        pace.in_hand > 0 && self.patience.is_some_and(|patience| pace.since.elapsed() >= patience)
    }

    /// Does something with its lane, unless it is over.
    pub fn with_lane<R>(&self, with: impl FnOnce(&mut dyn Lane) -> R) -> Option<R> {
        if self.over().is_some() {
            return None;
        }
        self.way.lock().as_mut().map(|way| with(&mut *way.lane))
    }

    /// What its holder says of what it was given. False when it is over: then nothing counts.
    pub fn settle(&self, runs: &[Settled]) -> bool {
        if self.with_lane(|lane| lane.settle(runs)).is_none() {
            return false;
        }
        let over = runs.iter().filter(|run| run.outcome.is_last());
        let count: u64 = over.map(|run| u64::from(run.count)).sum();
        let mut pace = self.pace.lock();
        pace.in_hand = pace.in_hand.saturating_sub(count);
        pace.since = Instant::now();
        true
    }

    /// What is said too late.
    pub fn ignore(runs: &[Settled]) {
        let count: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        metrics::counter!("linkspan_settlements_late_total").increment(count);
    }

    /// What it is served by, for something that takes its time; it comes back by [`Tenancy::serve`]. None when it is over.
    fn take_out(&self) -> Option<Way> {
        if self.over().is_some() {
            return None;
        }
        // Who closes it meanwhile waits for it.
        self.pace.lock().out = true;
        let way = self.way.lock().take();
        if way.is_none() {
            self.pace.lock().out = false;
        }
        way
    }

    /// As [`Lane::recover`].
    ///
    /// # Errors
    /// As there.
    pub async fn recover(&self, requeue: bool) -> Result<(), Refused> {
        let Some(Way { mut lane, connection }) = self.take_out() else { return Ok(()) };
        self.pace.lock().in_hand = 0;
        let recovered = lane.recover(requeue).await;
        self.serve(lane, connection);
        recovered
    }

    /// Gives nothing more; what is in hand stays there, and so does the queue.
    ///
    /// # Errors
    /// When the back end says no.
    pub async fn rest(&self, key: SubscriptionKey) -> Result<(), Refused> {
        let Some(Way { mut lane, connection }) = self.take_out() else { return Ok(()) };
        let rested = lane.unsubscribe(key).await;
        self.serve(lane, connection);
        rested
    }

    /// Gives what is in the queue, from the first time on or again, at once when it is `started`.
    ///
    /// # Errors
    /// When the back end says no.
    pub async fn give(
        &self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
        started: bool,
    ) -> Result<(), Refused> {
        let Some(Way { mut lane, connection }) = self.take_out() else { return Ok(()) };
        let given = lane.subscribe(source, key, how, credit).await;
        if given.is_ok() && started {
            lane.start(key);
            lane.flush();
        }
        self.serve(lane, connection);
        given
    }

    /// Its holder has been given so many more.
    pub(super) fn gave(&self, count: u64) {
        let mut pace = self.pace.lock();
        if pace.in_hand == 0 {
            pace.since = Instant::now();
        }
        pace.in_hand = pace.in_hand.saturating_add(count);
    }
}
