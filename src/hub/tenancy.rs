//! A consumer's time with a queue that it has alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use linkspan_contract::neutral::Draft;
use linkspan_contract::{
    Batch, Body, Connection, Credit, Delivered, DeliverySink, Ended, Fence, Lane, Pick, Refused, Settled,
    Source, Subscribe, SubscriptionKey, Value,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Scope;

/// The header that tells a consumer under which number it has the queue.
pub const FENCE: &str = "linkspan-fence";

/// From the moment that a consumer is given a queue until it goes, or is ousted: from then on it is given nothing and
/// nothing that it settles counts.
pub struct Tenancy {
    /// Whose it is.
    pub client: Arc<str>,
    /// Under which number.
    pub fence: Fence,
    /// How long its holder may have something in hand without a word.
    patience: Option<Duration>,
    is_over: AtomicBool,
    /// What it is served by: a scope and a lane of its own, so that all that it has in hand goes back with them.
    way: Mutex<Option<Way>>,
    pace: Mutex<Pace>,
}

struct Way {
    lane: Box<dyn Lane>,
    connection: Box<dyn Connection>,
}

/// What its holder does.
struct Pace {
    in_hand: u64,
    /// When it was given the first of these, or settled one.
    since: Instant,
    /// When its lease was taken last.
    renewed: Instant,
}

impl Tenancy {
    /// One that begins now.
    pub fn new(client: Arc<str>, fence: Fence, patience: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            client,
            fence,
            patience,
            is_over: AtomicBool::new(false),
            way: Mutex::default(),
            pace: Mutex::new(Pace { in_hand: 0, since: Instant::now(), renewed: Instant::now() }),
        })
    }

    /// It is served this way from now on.
    pub fn serve(&self, lane: Box<dyn Lane>, connection: Box<dyn Connection>) {
        let mut way = self.way.lock();
        if !self.is_over() {
            *way = Some(Way { lane, connection });
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Ends it: what is in hand goes back to the queue.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        let way = self.way.lock().take();
        drop(way);
    }

    /// Whether its holder has something in hand and has said nothing for longer than it may.
    pub fn has_fallen_silent(&self) -> bool {
        let pace = self.pace.lock();
        pace.in_hand > 0 && self.patience.is_some_and(|patience| pace.since.elapsed() >= patience)
    }

    /// Whether its lease was taken longer ago than this.
    pub fn outlasts(&self, lease: Duration) -> bool {
        self.pace.lock().renewed.elapsed() >= lease
    }

    /// Its lease was taken again.
    pub fn is_renewed(&self) {
        self.pace.lock().renewed = Instant::now();
    }

    /// Does something with its lane, unless it is over.
    pub fn with_lane<R>(&self, with: impl FnOnce(&mut dyn Lane) -> R) -> Option<R> {
        self.way.lock().as_mut().map(|way| with(&mut *way.lane))
    }

    /// What its holder says of what it was given; of what it was given before another had the queue nothing counts.
    pub fn settle(&self, runs: &[Settled]) {
        let settled = self.with_lane(|lane| lane.settle(runs)).is_some();
        let count: u64 =
            runs.iter().filter(|run| run.outcome.is_last()).map(|run| u64::from(run.count)).sum();
        if !settled {
            return Self::ignore(runs);
        }
        let mut pace = self.pace.lock();
        pace.in_hand = pace.in_hand.saturating_sub(count);
        pace.since = Instant::now();
    }

    /// What is said too late.
    pub fn ignore(runs: &[Settled]) {
        let count: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        metrics::counter!("linkspan_settlements_late_total").increment(count);
    }

    /// As [`Lane::recover`].
    ///
    /// # Errors
    /// As there.
    pub async fn recover(&self, requeue: bool) -> Result<(), Refused> {
        let Some(mut way) = self.way.lock().take() else { return Ok(()) };
        let recovered = way.lane.recover(requeue).await;
        self.serve(way.lane, way.connection);
        if requeue {
            self.pace.lock().in_hand = 0;
        }
        recovered
    }

    /// Gives nothing more; what is in hand stays there, and so does the queue.
    ///
    /// # Errors
    /// When the back end says no.
    pub async fn rest(&self, key: SubscriptionKey) -> Result<(), Refused> {
        let Some(mut way) = self.way.lock().take() else { return Ok(()) };
        let rested = way.lane.unsubscribe(key).await;
        self.serve(way.lane, way.connection);
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
        let Some(mut way) = self.way.lock().take() else { return Ok(()) };
        let given = way.lane.subscribe(source, key, how, credit).await;
        if given.is_ok() && started {
            way.lane.start(key);
        }
        self.serve(way.lane, way.connection);
        given
    }

    fn gave(&self, count: u64) {
        let mut pace = self.pace.lock();
        if pace.in_hand == 0 {
            pace.since = Instant::now();
        }
        pace.in_hand = pace.in_hand.saturating_add(count);
    }
}

/// The outbound side of a client while it has a queue alone: each message gets the number of its tenancy.
pub struct Fenced {
    scope: Arc<Scope>,
    /// It has what this is served by.
    tenancy: Weak<Tenancy>,
}

impl Fenced {
    /// Before the sink of that client.
    pub fn new(scope: Arc<Scope>, tenancy: &Arc<Tenancy>) -> Self {
        Self { scope, tenancy: Arc::downgrade(tenancy) }
    }
}

impl DeliverySink for Fenced {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let Some(tenancy) = self.tenancy.upgrade().filter(|tenancy| !tenancy.is_over()) else {
            return Delivered::Closed;
        };
        let sink = self.scope.sink();
        let mut said = Delivered::Taken;
        for pick in picks {
            for (place, at) in (0u64..).zip(pick.at.clone()) {
                let Some(message) = batch.message(at) else { continue };
                let address = batch.address(message);
                let mut properties = batch.properties(message).unwrap_or_default();
                properties.headers.retain(|(name, _)| name != FENCE);
                let fence = i64::try_from(tenancy.fence).unwrap_or(i64::MAX);
                properties.headers.push((FENCE.into(), Value::I64(fence)));
                let payload = match batch.body {
                    Some(body) => body.clone(),
                    None => Body::Shared(bytes::Bytes::copy_from_slice(message.payload.of(batch.bytes))),
                };
                let topic = address.topic();
                let head = *message;
                let draft = Draft {
                    exchange: address.exchange,
                    topic: &topic,
                    properties: &properties,
                    payload,
                    head,
                };
                let owned = draft.build();
                if !pick.settled {
                    tenancy.gave(1);
                }
                let one = Pick { at: 0..1, first: pick.first.saturating_add(place), ..pick.clone() };
                match sink.deliver(&owned.batch(), &[one]) {
                    Delivered::Closed => return Delivered::Closed,
                    Delivered::Congested => said = Delivered::Congested,
                    Delivered::Taken => {}
                }
            }
        }
        said
    }

    fn flush(&self) {
        self.scope.sink().flush();
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.scope.sink().poll_drained(cx)
    }

    fn ended(&self, key: SubscriptionKey, why: Ended) {
        self.scope.ended(key, why);
    }
}
