//! Consumers come, take, settle and go.

use std::sync::Arc;

use linkspan_contract::{DeliveryTag, Millis, Refused, Settle, Settlement, SubscriptionKey};
use linkspan_queues::log::Lsn;
use linkspan_queues::{Assignment, Consumer, ConsumerId, LaneId, Tally};

use super::{Queue, Seat, State};
use crate::outlet::{Outlet, Touched};
use crate::parcel::Parcel;
use crate::scratch::{NO_LIST, Scratch};
use crate::session::Session;

impl Queue {
    /// Lets a consumer in; it is given nothing before [`start`](Self::start). One that is there under the same number
    /// makes way, and leaves it what it has unsettled.
    pub(crate) fn join(
        &self,
        consumer: Consumer,
        session: &Arc<Session>,
        key: SubscriptionKey,
    ) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let id = consumer.id;
        let settles_nothing = consumer.settle == Settle::OnDelivery;
        let in_use = |_| Refused::ExclusiveUse(self.name.to_string());
        state.engine.add_consumer(consumer).map_err(in_use)?;
        state.rise(id);
        let outlet = Outlet::new(Arc::clone(session));
        state.seats.insert(id, Seat { outlet, key, settles_nothing, congested: false, list: NO_LIST });
        Ok(())
    }

    /// Lets a consumer begin.
    pub(crate) fn start(self: &Arc<Self>, consumer: ConsumerId, now: Millis, touched: &mut Touched) {
        self.act(now, touched, |state| state.engine.set_paused(consumer, false));
    }

    /// Consumers that ran dry, or whose sink was above its mark, may be able to take again.
    pub(crate) fn resume(self: &Arc<Self>, consumers: &[ConsumerId], now: Millis, touched: &mut Touched) {
        self.act(now, touched, |state| {
            for consumer in consumers {
                match state.seats.get_mut(consumer) {
                    Some(seat) if seat.congested => {
                        seat.congested = false;
                        state.congested -= 1;
                        state.engine.set_paused(*consumer, false);
                    }
                    Some(_) => state.engine.resume(*consumer),
                    None => {}
                }
            }
        });
    }

    /// Carries out what a consumer says; and where that ends in the log, 0 when nothing is written.
    pub(crate) fn settle(
        self: &Arc<Self>,
        consumer: ConsumerId,
        first: DeliveryTag,
        count: u32,
        outcome: &Settlement,
        now: Millis,
        touched: &mut Touched,
    ) -> (Tally, Lsn) {
        self.gate.progress(now);
        if matches!(outcome, Settlement::Accept | Settlement::Receive) {
            let mut state = self.state.lock();
            state.written = 0;
            let tally = state.engine.settle(now, consumer, first, count, outcome);
            // What has left is said at once, whatever else waits.
            let is_said = |state: &State| *outcome == Settlement::Accept && state.written > 0;
            if !state.write(self) && !is_said(&state) {
                state.written = state.place_to_come();
            }
            let written = state.written;
            // A session's oldest delivery may have held what is far behind it, any delivery others of its key.
            let held_others = state.engine.take_freed() || state.is_inbox;
            if held_others && state.engine.has_work() {
                drop(state);
                self.act(now, touched, |_| ());
            }
            return (tally, written);
        }
        self.act(now, touched, |state| {
            state.written = 0;
            let tally = state.engine.settle(now, consumer, first, count, outcome);
            if !state.write(self) {
                state.written = state.place_to_come();
            }
            (tally, state.written)
        })
    }

    /// Takes one message for somebody who asks; and how many are still ready.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        key: ConsumerId,
        lane: LaneId,
        settled: bool,
        now: Millis,
        touched: &mut Touched,
    ) -> Option<(Assignment<Parcel>, u64)> {
        self.gate.progress(now);
        self.act(now, touched, |state| {
            if state.is_held() {
                return None;
            }
            let assignment = loop {
                match state.engine.fetch(now, key, lane, settled) {
                    None if state.fill(now) => {}
                    Some(lost) if state.engine.journal().has_lost() && lost.message.body.is_lost() => {
                        state.waive_one(lost);
                    }
                    fetched => break fetched?,
                }
            };
            Some((assignment, state.engine.len()))
        })
    }

    /// Gives back what a lane has not settled: to the queue, or once more to the same consumers.
    pub(crate) fn recover(
        self: &Arc<Self>,
        lane: LaneId,
        again: Option<&[ConsumerId]>,
        now: Millis,
        touched: &mut Touched,
    ) {
        let Some(consumers) = again else {
            return self.act(now, touched, |state| {
                state.take_kept_back();
                state.engine.recover(now, lane);
            });
        };
        Scratch::with(|scratch| {
            let mut state = self.state.lock();
            state.take_kept_back();
            for consumer in consumers {
                state.engine.redeliver(now, *consumer, &mut scratch.assignments);
            }
            state.repeat(scratch, touched);
            self.finish(state, now, touched);
        });
    }

    /// Lets a consumer go; true when it was the last and nobody else holds the queue.
    pub(crate) fn part(self: &Arc<Self>, consumer: ConsumerId, now: Millis, touched: &mut Touched) -> bool {
        let left = self.act(now, touched, |state| {
            state.take_kept_back();
            state.rise(consumer);
            state.engine.remove_consumer(now, consumer).was_last
        });
        left && self.goes_when_left()
    }

    /// Lets a lane go, and takes back what it has not settled; true when nobody else holds the queue.
    pub(crate) fn release(
        self: &Arc<Self>,
        lane: LaneId,
        consumers: &[ConsumerId],
        now: Millis,
        touched: &mut Touched,
    ) -> bool {
        let left = self.act(now, touched, |state| {
            state.take_kept_back();
            consumers.iter().for_each(|consumer| state.rise(*consumer));
            state.engine.release_lane(now, lane).was_last
        });
        left && self.goes_when_left()
    }

    fn goes_when_left(&self) -> bool {
        self.traits.auto_delete || self.traits.group.is_some()
    }

    /// True when a consumer that may be gone has something unsettled.
    pub(crate) fn owes(&self, consumer: ConsumerId) -> bool {
        self.state.lock().engine.unsettled_by(consumer) > 0
    }

    /// The tag of the next delivery that a consumer settles.
    pub(crate) fn next_tag(&self, consumer: ConsumerId) -> DeliveryTag {
        self.state.lock().engine.next_tag(consumer)
    }

    /// A consumer's tags begin at `first`.
    pub(crate) fn skip_tags(&self, consumer: ConsumerId, first: DeliveryTag) {
        self.state.lock().engine.skip_tags(consumer, first);
    }

    /// True when a lane consumes, has fetched or has something unsettled here.
    pub(crate) fn knows(&self, lane: LaneId) -> bool {
        self.state.lock().engine.knows(lane)
    }

    /// True when nobody consumes, nor is going to who is away: it may be removed. The caller holds the topology.
    pub(crate) fn is_left(&self) -> bool {
        let state = self.state.lock();
        !state.ended && state.engine.consumers() == 0 && state.members.is_empty()
    }
}
