//! A desk: where messages of a work queue lie that this instance has taken from the broker and not settled there, for
//! terms that the broker does not know.
//!
//! The queue stays the broker's, and so does each message until it is accepted: the desk only borrows as many as those who
//! work at it may have in hand, and as many as wait for their next attempt. It gives them out by a queue engine that keeps
//! nothing. When the link to the broker is lost everything here is forgotten, for the broker gives it again; what is said
//! later of what was in hand then is ignored.

pub(crate) mod coordinator;
mod fetching;
mod inflow;
mod key;
mod link;
mod loans;
mod look;
mod seat;
mod state;
mod work;

use std::sync::Arc;

use futures_util::task::AtomicWaker;
use lapin::Channel;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Clock, DeliverySink, Ended, Millis, Outcome, QueueCounts, Refused, Seq, Settled, SubscriptionKey, Terms,
};
use linkspan_queues::{ConsumerId, LaneId};
use parking_lot::Mutex;
use tokio::sync::{RwLock, oneshot};

use self::link::Lent;
pub(crate) use self::seat::Seat;
use self::state::State;
use self::work::Arrival;
use crate::levels::Levels;
use crate::origin::Origin;
use crate::translate::{Arrived, Letter, attempt, refused};
use crate::work_queue::Kind;

/// One queue's desk at this instance.
pub(crate) struct Desk {
    pub(crate) queue: ShortString,
    /// The queues that it has for its levels, where it has some.
    levels: Option<Arc<Levels>>,
    backend: Arc<str>,
    topic_exchange: ShortString,
    clock: Arc<dyn Clock>,
    kind: Kind,
    state: Mutex<State>,
    /// The task that keeps its channel.
    task: AtomicWaker,
}

/// Whether the broker lacks what a route says of its queue.
pub(crate) fn is_needed(terms: &Terms, kind: Kind) -> bool {
    counts(terms, kind) || terms.ordering_key.is_some() || kind.has_levels
}

/// Whether a desk knows of messages what is forgotten when they are given back. A quorum queue counts what was sent to a
/// desk and came back, which may be much that nobody was given where others stand by.
pub(crate) fn counts(terms: &Terms, kind: Kind) -> bool {
    terms.retry.is_some() || terms.max_deliveries.is_some() && (!kind.is_quorum || is_sent_much(terms, kind))
}

/// Whether a desk is sent much that nobody there may be given.
fn is_sent_much(terms: &Terms, kind: Kind) -> bool {
    has_others_stand_by(terms, kind) || kind.has_levels
}

/// Whether one consumer at a time is sent what a queue has. It is sent very much, for its window cannot grow.
fn has_others_stand_by(terms: &Terms, kind: Kind) -> bool {
    kind.single_active || terms.ordering_key.is_some()
}

/// Leaves its seat when who asked for it does not wait for the answer, or gets a bad one.
struct Guest<'d> {
    desk: &'d Desk,
    id: Option<ConsumerId>,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.desk.leave(id);
        }
    }
}

impl Desk {
    pub(crate) fn new(
        queue: ShortString,
        backend: &Arc<str>,
        topic_exchange: &str,
        clock: Arc<dyn Clock>,
        (terms, kind, levels): (Arc<Terms>, Kind, Option<Arc<Levels>>),
    ) -> Self {
        let highest = levels.as_ref().map(|levels| levels.highest());
        let state = State::new(clock.now(), terms, kind.single_active, highest);
        Self {
            queue,
            levels,
            backend: Arc::clone(backend),
            topic_exchange: ShortString::try_new(topic_exchange).unwrap_or_default(),
            clock,
            kind,
            state: Mutex::new(state),
            task: AtomicWaker::new(),
        }
    }

    /// Does something with what is here; then tells the broker and the clients what came of it.
    fn with<T>(&self, what: impl FnOnce(&mut State, Millis) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let done = what(&mut state, now);
        state.speak();
        let touched = state.work.touched();
        drop(state);
        touched.iter().for_each(|sink| sink.flush());
        self.task.wake();
        done
    }

    /// The route says something else of its queue.
    pub(crate) fn set_terms(&self, terms: &Arc<Terms>) {
        self.with(|state, now| {
            state.terms = Arc::clone(terms);
            let limits = state.limits();
            state.work.set_limits(now, limits, terms);
        });
    }

    /// Takes a seat, or that seat in another way; nothing is given before [`Desk::start`].
    ///
    /// # Errors
    /// What the broker says, or that the queue is in exclusive use.
    pub(crate) async fn enter(&self, id: ConsumerId, seat: Seat) -> Result<(), Refused> {
        let is_new = self.with(|state, _| {
            let is_new = !state.work.has(id);
            state.work.enter(id, seat).then_some(is_new)
        });
        let Some(is_new) = is_new else { return Err(Refused::ExclusiveUse(self.queue.to_string())) };
        let mut guest = Guest { desk: self, id: is_new.then_some(id) };
        let ready = self.ready().await;
        if ready.is_err() && is_new {
            return ready;
        }
        guest.id = None;
        Ok(())
    }

    /// Waits until there is a channel to the broker.
    async fn ready(&self) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.with(|state, _| {
            // Who is dropped is answered so.
            if !state.ended {
                state.asking.push(reply);
            }
        });
        answer.await.unwrap_or_else(|_| Err(Refused::Away(self.backend.to_string())))
    }

    /// From now on the seat is given what is here.
    pub(crate) fn start(&self, id: ConsumerId) {
        self.with(|state, now| state.work.start(now, id));
    }

    /// A lane's windows may have room again.
    pub(crate) fn resume(&self, lane: LaneId) {
        self.with(|state, now| state.work.resume(now, lane));
    }

    /// A lane's client has another sink.
    pub(crate) fn attach(&self, lane: LaneId, sink: &Arc<dyn DeliverySink>) {
        self.with(|state, now| state.work.attach(now, lane, sink));
    }

    /// Carries out what was said of what was given to a seat, or what a lane has taken (`id` is none).
    pub(crate) fn settle(&self, id: Option<ConsumerId>, lane: LaneId, run: &Settled, origin: &Arc<Origin>) {
        let known = self.with(|state, now| {
            let known = match id {
                Some(id) => state.work.settle(now, id, run.first, run.count, &run.outcome).known,
                None => state.settle_taken(now, lane, run),
            };
            if let Some(word) = run.word.filter(|_| known > 0) {
                state.words.push((Arc::clone(origin), word));
            }
            known
        });
        let unknown = run.count.saturating_sub(known);
        if unknown > 0 {
            metrics::counter!("linkspan_settlements_ignored_total").increment(unknown.into());
        }
        if let Some(word) = run.word.filter(|_| known == 0) {
            origin.note(word, Outcome::Refused(Refused::Late));
            origin.flush();
        }
    }

    /// Leaves a seat; what was given there stays in hand until its lane goes. True when that is nothing.
    pub(crate) fn leave(&self, id: ConsumerId) -> bool {
        self.with(|state, now| state.work.leave(now, id))
    }

    /// A lane is gone.
    pub(crate) fn leave_all(&self, lane: LaneId) {
        self.with(|state, now| {
            state.leave(lane);
            state.work.leave_all(now, lane);
        });
    }

    /// What a lane has in hand is anybody's again, or given to it once more.
    pub(crate) fn recover(&self, lane: LaneId, requeue: bool) {
        self.with(|state, now| state.work.recover(now, lane, requeue));
    }

    /// Takes one message, under `id` when the lane takes its first.
    ///
    /// # Errors
    /// What the broker says.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        lane: LaneId,
        id: impl Fn() -> ConsumerId,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        if let Some(fetched) = self.with(|state, now| state.take(now, lane, &id, key, settled)) {
            return Ok(Some(fetched));
        }
        let is_fed = self.is_fed(&self.state.lock().terms);
        if is_fed {
            return fetching::coordinator::wait_for_one(self, lane, id, key, settled).await;
        }
        self.ready().await?;
        let channel = self.state.lock().channel.clone();
        let Some(channel) = channel else { return Err(Refused::Away(self.backend.to_string())) };
        // What the broker gives is in hand here, even when who asked is gone by then.
        let got = fetching::coordinator::get(self, channel).await?;
        let Some(behind) = got else { return Ok(None) };
        let fetched = self.with(|state, now| {
            let mut fetched = state.take(now, lane, &id, key, settled)?;
            fetched.remaining = fetched.remaining.saturating_add(behind.into());
            Some(fetched)
        });
        Ok(fetched)
    }

    /// Takes one more message from the broker; tells how many it has behind that.
    async fn get(self: Arc<Self>, channel: Arc<Channel>) -> Result<Option<u32>, Refused> {
        let Some(getting) = self.getting(&channel) else {
            return Err(Refused::Away(self.backend.to_string()));
        };
        let _getting = getting.read().await;
        let got = channel.basic_get(self.queue.clone(), BasicGetOptions { no_ack: false }).await;
        self.task.wake();
        let got = got.map_err(|error| refused(&error, &self.backend))?;
        let Some(BasicGetMessage { mut delivery, message_count, .. }) = got else { return Ok(None) };
        self.with(|state, now| {
            let same = state.channel.as_ref().is_some_and(|other| Arc::ptr_eq(other, &channel));
            if same && let Some(arrival) = self.arrival(&mut delivery, None, now, &state.terms) {
                state.arrive(now, arrival);
            }
        });
        Ok(Some(message_count))
    }

    /// Who takes one message by that channel reads this until the message lies here; who gives back what nobody has writes it.
    fn getting(&self, channel: &Arc<Channel>) -> Option<Arc<RwLock<()>>> {
        let state = self.state.lock();
        let is_it = state.channel.as_ref().is_some_and(|other| Arc::ptr_eq(other, channel));
        is_it.then(|| Arc::clone(&state.getting))
    }

    /// Removes what nobody has in hand, and tells how much that was.
    pub(crate) fn purge(&self) -> u64 {
        self.with(|state, _| state.purge())
    }

    /// Adds what lies here and nobody has in hand to what the broker counts, and those who work here in the place of the
    /// desk, which is all that the broker knows of.
    pub(crate) fn count(&self, counts: &mut QueueCounts) {
        let state = self.state.lock();
        counts.messages = counts.messages.saturating_add(state.work.len());
        let here = u32::try_from(state.work.consumers()).unwrap_or(u32::MAX);
        counts.consumers = counts.consumers.saturating_sub(state.streams).saturating_add(here);
    }

    /// The queue is gone.
    pub(crate) fn close(&self) {
        self.with(|state, _| state.over = true);
    }

    fn arrival(
        &self,
        delivery: &mut Delivery,
        level: Option<u8>,
        now: Millis,
        terms: &Terms,
    ) -> Option<Arrival> {
        let letter = Letter { topic_exchange: self.topic_exchange.as_str(), unescape: false, now };
        // What the broker counts there is how often it lay at a desk.
        let is_counted_here = is_sent_much(terms, self.kind) || counts(terms, self.kind);
        let most = if is_counted_here { 1 } else { u32::MAX };
        let (loan, attempt) = (delivery.delivery_tag, attempt(delivery).min(most));
        let expiry = delivery.properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
        let message = Arrived::one(delivery, &letter)?;
        Some(Arrival { loan, message, attempt, expiry, level })
    }

    /// Messages have come by the channel, in the broker's order.
    fn arrive(&self, deliveries: Vec<Lent>) {
        self.with(|state, now| {
            for (level, mut delivery) in deliveries {
                if let Some(arrival) = self.arrival(&mut delivery, level, now, &state.terms) {
                    state.arrive(now, arrival);
                }
            }
            state.work.hand_out(now);
        });
    }

    /// There is a channel; so many messages its queues have that are lent to nobody.
    fn open(&self, channel: &Arc<Channel>, ready: Vec<u32>) {
        let mut state = self.state.lock();
        state.open(channel);
        if self.is_fed(&state.terms) {
            (0..).zip(ready).for_each(|(level, ready)| state.learn(level, ready));
        }
    }

    /// Whether who takes messages one by one is given what the desk's own consumers have brought, and nothing else.
    fn is_fed(&self, terms: &Terms) -> bool {
        self.levels.is_some() || terms.ordering_key.is_some()
    }

    /// The desk has so many consumers at each of its queues at the broker, which lends so many messages of each.
    fn consumes_by(&self, streams: usize, window: u32) {
        let mut state = self.state.lock();
        state.streams = u32::try_from(streams).unwrap_or(u32::MAX);
        state.work.open_levels(window);
    }

    /// Its queues at the broker, with their levels where each has one.
    fn queues(&self) -> Vec<(Option<u8>, ShortString)> {
        match &self.levels {
            Some(levels) => (0..).map(Some).zip(levels.queues().cloned()).collect(),
            None => vec![(None, self.queue.clone())],
        }
    }

    /// What the broker is to be asked of levels.
    fn ask(&self) -> Vec<u8> {
        self.state.lock().work.ask()
    }

    /// The broker has so many messages of each of these levels that it has lent to nobody; what it had lent has come.
    fn learn(&self, ready: impl Iterator<Item = (u8, u32)>) {
        self.with(|state, now| {
            for (level, ready) in ready {
                state.learn(level, ready);
                state.work.told(now, level, ready);
            }
            state.work.hand_out(now);
        });
    }

    /// True when nobody has anything more to be given.
    fn is_known_empty(&self) -> bool {
        self.state.lock().work.is_known_empty()
    }

    /// The desk has no consumers any more, and the broker had reached that number.
    fn give_back(&self, reached: u64) {
        self.with(|state, _| {
            let but_tried = counts(&state.terms, self.kind);
            state.give_back(reached, but_tried);
        });
    }

    /// Takes a message that lies here; until some time from now, more are asked of the broker when there is none.
    fn take_or_ask(
        &self,
        lane: LaneId,
        id: impl Fn() -> ConsumerId,
        key: SubscriptionKey,
        settled: bool,
        wait: Millis,
    ) -> Option<Fetched> {
        self.with(|state, now| {
            let taken = state.take(now, lane, id, key, settled);
            if taken.is_none() && wait > 0 {
                state.asked_until = now.saturating_add(wait);
            }
            taken
        })
    }

    /// The channel is gone, and with it what came by it.
    fn lose(&self) {
        self.with(|state, now| {
            state.forget();
            let limits = state.limits();
            state.work.lose(now, limits);
        });
    }

    /// The same when nobody has anything in hand; false when somebody has.
    fn give_up(&self) -> bool {
        self.with(|state, now| {
            let is_idle = !state.work.is_in_hand();
            if is_idle {
                state.forget();
                let limits = state.limits();
                state.work.lose(now, limits);
            }
            is_idle
        })
    }

    /// The queue is gone at the broker.
    fn end(&self, why: Ended) {
        self.with(|state, now| {
            state.forget();
            let limits = state.limits();
            state.work.end(now, limits, why);
        });
    }

    /// Answers those who wait for the channel.
    fn answer(&self, done: &Result<(), Refused>) {
        let asking = std::mem::take(&mut self.state.lock().asking);
        for reply in asking {
            if reply.send(done.clone()).is_err() {
                tracing::debug!("nobody waits for a desk any more");
            }
        }
    }

    /// Nobody keeps the channel any more.
    fn retire(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.asking.clear();
    }

    /// Who waits to hear that settlements are safe.
    fn take_words(&self) -> Vec<(Arc<Origin>, Seq)> {
        std::mem::take(&mut self.state.lock().words)
    }
}
