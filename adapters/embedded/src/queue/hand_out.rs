//! From assignments to sinks: each consumer's share in as few calls as possible.

use std::ops::Range;

use linkspan_contract::{Batch, Delivered, Millis, Pick, Standing, SubscriptionKey};
use linkspan_queues::Assignment;

use super::{Seat, State};
use crate::brake::Brakes;
use crate::inward::Inward;
use crate::outlet::Touched;
use crate::parcel::Parcel;
use crate::scratch::{NO_LIST, Scratch};

/// So many messages are given out before sinks are asked whether they are above their marks.
const ROUND: usize = 256;

/// How often more is brought in from the log when nobody is given anything of it.
const IDLE: u32 = 16;

impl State {
    /// Gives out what is ready as long as somebody can take it.
    pub(super) fn hand_out(&mut self, now: Millis, scratch: &mut Scratch, touched: &mut Touched) {
        self.give_kept_back(scratch, touched);
        let mut idle = 0;
        loop {
            if self.kept_back.is_full() {
                // What was given out to make room goes behind.
                if !scratch.assignments.is_empty() {
                    self.waive_ended(scratch);
                    self.keep_back(scratch);
                }
                return;
            }
            let held = self.is_held();
            if !held {
                self.engine.dispatch_some(now, ROUND, &mut scratch.assignments);
            }
            let mut again = !held && scratch.assignments.len() >= ROUND;
            if scratch.assignments.is_empty() {
                // What is brought in may be dead: who has very much of it looks again soon.
                idle += 1;
                if idle > IDLE {
                    self.looks_again = true;
                    return;
                }
                if held || !self.fill(now) {
                    return;
                }
                continue;
            }
            idle = 0;
            self.waive_ended(scratch);
            // What took the place of others is gone: they have their turn.
            again |= self.waive_lost(scratch);
            if self.keep_back(scratch) {
                continue;
            }
            if self.seats.len() == 1 {
                let mut all = std::mem::take(&mut scratch.assignments);
                if let Some(consumer) = all.first().map(|first| first.consumer) {
                    again |= self.give(consumer, &mut all, scratch, touched);
                }
                scratch.assignments = all;
                if held || !again && !self.fill(now) {
                    return;
                }
                continue;
            }
            self.share_out(scratch);
            let mut consumers = std::mem::take(&mut scratch.consumers);
            for consumer in consumers.drain(..) {
                let Some(seat) = self.seats.get_mut(&consumer) else { continue };
                let list = std::mem::replace(&mut seat.list, NO_LIST);
                let mut share = scratch.shares.take(list);
                again |= self.give(consumer, &mut share, scratch, touched);
                scratch.shares.put_back(list, share);
            }
            scratch.consumers = consumers;
            scratch.shares.clear();
            if held || !again && !self.fill(now) {
                return;
            }
        }
    }

    /// What came by a subscription that has ended since is nobody's to have, unless the client may have it
    /// [MQTT-3.10.4-3].
    fn waive_ended(&mut self, scratch: &mut Scratch) {
        if self.ended_subscriptions.is_empty() {
            return;
        }
        let ended = &self.ended_subscriptions;
        let is_over = |assignment: &mut Assignment<Parcel>| {
            assignment.message.attempts == 0 && ended.contains(&Parcel::number(assignment.message.body.via))
        };
        for assignment in scratch.assignments.extract_if(.., is_over) {
            self.engine.waive(assignment);
        }
    }

    /// Nobody can be given a message whose body is damaged, and it must not be tried again and again. True when there were any.
    fn waive_lost(&mut self, scratch: &mut Scratch) -> bool {
        if !self.engine.journal().has_lost() {
            return false;
        }
        let before = scratch.assignments.len();
        for assignment in scratch.assignments.extract_if(.., |assignment| assignment.message.body.is_lost()) {
            self.waive_one(assignment);
        }
        scratch.assignments.len() < before
    }

    /// The same for one of which this is known.
    pub(super) fn waive_one(&mut self, assignment: Assignment<Parcel>) {
        metrics::counter!("linkspan_messages_dropped_total", "reason" => "damaged").increment(1);
        self.engine.waive(assignment);
    }

    /// Gives consumers once more what they have not settled.
    pub(super) fn repeat(&mut self, scratch: &mut Scratch, touched: &mut Touched) {
        let again = std::mem::take(&mut scratch.assignments);
        for assignment in &again {
            let Some(seat) = self.seats.get_mut(&assignment.consumer) else { continue };
            let Parcel { batch, at, .. } = &assignment.message.body;
            let pick = pick(seat, assignment, *at);
            let sink = seat.outlet.sink();
            sink.deliver(&batch.batch(), std::slice::from_ref(&pick));
            touched.add(sink);
        }
        scratch.assignments = again;
        scratch.assignments.clear();
    }

    /// Sorts assignments by consumer, keeping their order.
    fn share_out(&mut self, scratch: &mut Scratch) {
        let mut last = None;
        for assignment in scratch.assignments.drain(..) {
            let consumer = assignment.consumer;
            let list = match last {
                Some((same, list)) if same == consumer => list,
                _ => {
                    let Some(seat) = self.seats.get_mut(&consumer) else {
                        self.engine.take_back(assignment);
                        continue;
                    };
                    if seat.list == NO_LIST {
                        seat.list = scratch.shares.open();
                        scratch.consumers.push(consumer);
                    }
                    last = Some((consumer, seat.list));
                    seat.list
                }
            };
            if let Some(share) = scratch.shares.get_mut(list) {
                share.push(assignment);
            }
        }
    }

    /// Gives one consumer its share. What a closed sink does not take comes back, for others: then it answers true.
    pub(super) fn give(
        &mut self,
        consumer: u64,
        share: &mut Vec<Assignment<Parcel>>,
        scratch: &mut Scratch,
        touched: &mut Touched,
    ) -> bool {
        let Some(seat) = self.seats.get_mut(&consumer) else {
            share.drain(..).rev().for_each(|assignment| self.engine.take_back(assignment));
            return false;
        };
        let mut rest: &[Assignment<Parcel>] = share;
        let mut said = Delivered::Taken;
        while let Some(first) = rest.first() {
            let batch = &first.message.body.batch;
            let run = rest
                .iter()
                .position(|other| !std::sync::Arc::ptr_eq(&other.message.body.batch, batch))
                .unwrap_or(rest.len());
            let (together, behind) = rest.split_at(run);
            scratch.given.clear();
            for assignment in together {
                let at = assignment.message.body.at;
                match scratch.given.last_mut() {
                    Some(last) if continues(last, seat, assignment, at) => last.at.end = at.saturating_add(1),
                    _ => scratch.given.push(pick(seat, assignment, at)),
                }
            }
            said = seat.outlet.sink().deliver(&batch.batch(), &scratch.given);
            if said == Delivered::Closed {
                break;
            }
            rest = behind;
        }
        let taken = share.len() - rest.len();
        touched.add(seat.outlet.sink());
        self.moved |= taken > 0;
        match said {
            Delivered::Taken => {}
            Delivered::Congested => self.pause(consumer),
            Delivered::Closed => {
                self.pause(consumer);
                share.drain(taken..).rev().for_each(|assignment| self.engine.take_back(assignment));
            }
        }
        share.clear();
        said == Delivered::Closed
    }

    /// Gives messages of a lent batch to consumers; yields those that a closed sink did not take.
    pub(super) fn hand_straight(
        &mut self,
        batch: &Batch<'_>,
        ranges: &[Range<u32>],
        scratch: &mut Scratch,
        inward: &mut Inward<'_>,
    ) -> Vec<Range<u32>> {
        let mut missed: Vec<Range<u32>> = Vec::new();
        let straight = std::mem::take(&mut scratch.straight);
        if straight.iter().any(|share| share.turns > 1) {
            scratch.places.clear();
            scratch.places.extend(ranges.iter().cloned().flatten());
        }
        for share in &straight {
            let Some(seat) = self.seats.get_mut(&share.consumer) else { continue };
            let key = seat.key;
            let pick = |at| Pick {
                at,
                key,
                first: 0,
                age: 0,
                attempt: 0,
                settled: true,
                standing: Standing::Passing,
            };
            scratch.given.clear();
            if share.turns == 1 {
                scratch.given.extend(ranges.iter().cloned().map(pick));
            } else {
                let places = scratch.places.iter().skip(share.first as usize).step_by(share.turns as usize);
                scratch.given.extend(places.map(|place| pick(*place..place.saturating_add(1))));
            }
            let sink = seat.outlet.sink();
            let said = sink.deliver(batch, &scratch.given);
            inward.touched.add(sink);
            match said {
                Delivered::Taken => {}
                Delivered::Congested => {
                    inward.brakes.sink(sink);
                    self.pause(share.consumer);
                }
                Delivered::Closed => {
                    self.pause(share.consumer);
                    missed.extend(scratch.given.iter().map(|pick| pick.at.clone()));
                }
            }
        }
        scratch.straight = straight;
        scratch.straight.clear();
        missed.sort_unstable_by_key(|range| range.start);
        missed
    }

    /// A consumer's sink is above its mark or closed: it is given nothing before its lane resumes.
    fn pause(&mut self, consumer: u64) {
        if let Some(seat) = self.seats.get_mut(&consumer)
            && !std::mem::replace(&mut seat.congested, true)
        {
            self.congested += 1;
            self.engine.set_paused(consumer, true);
        }
    }

    /// Publishers wait for the sink of a consumer that settles nothing while the queue only grows.
    pub(super) fn brake(&mut self, brakes: &mut Brakes) {
        if let Some(seat) = self.seats.values_mut().find(|seat| seat.congested && seat.settles_nothing) {
            brakes.sink(seat.outlet.sink());
        }
    }
}

/// A session's queue has messages of all its subscriptions.
fn key(seat: &Seat, assignment: &Assignment<Parcel>) -> SubscriptionKey {
    match assignment.message.body.via {
        Parcel::NO_SUBSCRIPTION => seat.key,
        via => SubscriptionKey { subscription: Parcel::number(via), ..seat.key },
    }
}

fn pick(seat: &Seat, assignment: &Assignment<Parcel>, at: u32) -> Pick {
    Pick {
        at: at..at.saturating_add(1),
        key: key(seat, assignment),
        first: assignment.tag,
        age: assignment.age,
        attempt: assignment.message.attempts,
        settled: assignment.settled,
        standing: standing(assignment),
    }
}

/// What a session's queue gives out has tags that last.
fn standing(assignment: &Assignment<Parcel>) -> Standing {
    match assignment.message.body.via {
        Parcel::NO_SUBSCRIPTION => Standing::Passing,
        _ if assignment.message.received => Standing::Received,
        via => Standing::Lasting { exactly_once: via & Parcel::AT_LEAST_ONCE == 0 },
    }
}

fn continues(last: &Pick, seat: &Seat, assignment: &Assignment<Parcel>, at: u32) -> bool {
    let count = u64::from(last.at.end - last.at.start);
    last.at.end == at
        && last.key == key(seat, assignment)
        && last.settled == assignment.settled
        && last.standing == standing(assignment)
        && (last.settled || last.first + count == assignment.tag)
        && last.age == assignment.age
        && last.attempt == assignment.message.attempts
}
