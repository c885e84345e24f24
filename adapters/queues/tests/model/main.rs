//! Drives a queue and a naive model of one with the same random operations, and compares who got what in which order,
//! every effect, every count, and what a journal would rebuild; in memory, and from the durable log after a crash.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod careful;
mod crash;
#[path = "../log/heard.rs"]
#[allow(dead_code, reason = "not everything is used here")]
mod heard;
mod naive;
mod operation;
mod recorder;

use std::collections::BTreeMap;
use std::sync::Arc;

use linkspan_contract::{Credit, Settle};
use linkspan_queues::{
    Absent, Assignment, Consumer, Direct, Effect, Journal, Limits, Offer, Pushed, Queue, Queued, Window,
};
use proptest::prelude::*;

use naive::Naive;
use operation::{Operation, limits, operation};
use recorder::Recorder;

/// What is compared of an assignment: everything but the place in the queue.
type Told = (u64, u64, bool, u64, u64, u32, u8);

fn told(assignments: &[Assignment<u64>]) -> Vec<Told> {
    let tell = |a: &Assignment<u64>| {
        (a.consumer, a.tag, a.settled, a.age, a.message.body, a.message.attempts, a.message.priority)
    };
    assignments.iter().map(tell).collect()
}

/// What is compared of an effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happened {
    Overdue(u64, u32),
    Dead(u64, &'static str, u32),
    Active(Option<u64>),
    Unused,
}

fn happened(effect: Effect<u64>) -> Happened {
    match effect {
        Effect::Dead { message, reason } => Happened::Dead(message.body, reason.name(), message.attempts),
        Effect::Overdue { consumer, count } => Happened::Overdue(consumer, count),
        Effect::Active(who) => Happened::Active(who),
        Effect::Unused => Happened::Unused,
    }
}

/// The two, side by side.
/// A journal that can be read back, where messages are paged out to it.
trait Recall {
    /// Each message that is in the queue, and when it is ready.
    fn recall(&self) -> Vec<(Queued<u64>, u64)>;
}

impl Recall for Recorder {
    fn recall(&self) -> Vec<(Queued<u64>, u64)> {
        self.messages().collect()
    }
}

struct Pair<J: Journal<u64>> {
    now: u64,
    queue: Queue<u64, J>,
    naive: Naive,
    credits: Vec<Arc<Credit>>,
    next_body: u64,
    next_consumer: u64,
    /// What the last dispatch gave out.
    last: Vec<Assignment<u64>>,
    /// How often each body was taken by the queue and how often it left.
    fates: BTreeMap<u64, i32>,
}

impl<J: Journal<u64> + Recall> Pair<J> {
    fn new(limits: Limits, journal: J) -> Self {
        let channel = Arc::new(Credit::new(4));
        let credits = vec![
            Arc::clone(&channel),
            Arc::new(Credit::within(3, Some(Arc::clone(&channel)))),
            Arc::new(Credit::within(2, Some(channel))),
            Arc::new(Credit::new(1)),
            Arc::new(Credit::new(10)),
        ];
        Self {
            now: 1000,
            queue: Queue::with_journal(1000, limits.clone(), journal),
            naive: Naive::new(1000, limits, &[(4, None), (3, Some(0)), (2, Some(0)), (1, None), (10, None)]),
            credits,
            next_body: 0,
            next_consumer: 1,
            last: Vec::new(),
            fates: BTreeMap::new(),
        }
    }

    /// Brings in what has to be in memory. True when something was.
    fn bring(&mut self) -> bool {
        let mut any = false;
        while let Some(due) = self.queue.due() {
            for (message, _) in self.queue.journal().recall() {
                if message.priority == due.priority && due.positions.contains(&message.position) {
                    self.queue.come_in(message);
                }
            }
            assert_eq!(self.queue.stay_out(&due), 0, "{due:?} are all there");
            any = true;
        }
        while let Some(Absent { priority, from }) = self.queue.wants() {
            let mut absent: Vec<_> = self
                .queue
                .journal()
                .recall()
                .into_iter()
                .filter(|(message, _)| message.priority == priority && message.position >= from)
                .collect();
            absent.sort_unstable_by_key(|(message, _)| message.position);
            assert!(!absent.is_empty(), "level {priority} has nothing from {from} on");
            for (message, not_before) in absent.into_iter().take(3) {
                self.queue.bring(self.now, message, not_before);
            }
            any = true;
        }
        any
    }

    fn pages(&self) -> bool {
        self.queue.limits().window.is_some()
    }

    fn push(&mut self, priority: u8, size: u64, expiry: Option<u64>, delay: u64, durable: bool) {
        if self.pages() {
            self.dispatch();
        }
        let body = self.next_body;
        self.next_body += 1;
        let mut out = Vec::new();
        let offer = Offer { body, size, priority, expiry, key: 0, delay, durable, apart: false };
        let pushed = self.queue.push(self.now, offer.clone(), &mut out);
        let (taken, mut expected) = self.naive.push(self.now, offer);
        if self.pages() {
            // Once more: what was let go for the limits may have uncovered an expired one.
            for _ in 0..2 {
                self.queue.dispatch(self.now, &mut out);
                while self.bring() {
                    self.queue.dispatch(self.now, &mut out);
                }
                expected.extend(self.naive.dispatch(self.now));
            }
        }
        assert_eq!(pushed == Pushed::Queued, taken, "whether {body} is taken");
        assert_eq!(told(&out), expected, "what the push of {body} gives out");
        *self.fates.entry(body).or_default() += i32::from(taken);
        self.left(&out);
    }

    /// Counts what was given out for good.
    fn left(&mut self, out: &[Assignment<u64>]) {
        for assignment in out.iter().filter(|assignment| assignment.settled) {
            *self.fates.get_mut(&assignment.message.body).unwrap() -= 1;
        }
    }

    fn dispatch(&mut self) {
        let mut out = Vec::new();
        self.queue.dispatch(self.now, &mut out);
        while self.bring() {
            self.queue.dispatch(self.now, &mut out);
        }
        assert_eq!(told(&out), self.naive.dispatch(self.now), "who gets what");
        self.left(&out);
        self.last = out;
        self.naive.assert_nobody_waits();
    }

    fn resume_all(&mut self) {
        for id in self.naive.consumer_ids() {
            self.queue.resume(id);
            self.naive.resume(id);
        }
    }

    fn carry_out(&mut self, operation: Operation) {
        let last = std::mem::take(&mut self.last);
        let now = self.now;
        match operation {
            Operation::Push { priority, size, expiry, delay, durable } => {
                self.push(priority, size, expiry, delay, durable);
            }
            Operation::Dispatch => self.dispatch(),
            Operation::Direct { count, durable } => {
                let mut out = Vec::new();
                let taken = self.queue.direct(count, durable, &mut out);
                let each = |Direct { consumer, first, turns }: Direct| {
                    (first..taken).step_by(turns as usize).map(move |at| (consumer, at))
                };
                let mut got: Vec<_> = out.into_iter().flat_map(each).collect();
                got.sort_unstable_by_key(|(_, at)| *at);
                let expected = self.naive.direct(count, durable);
                assert_eq!(got, expected, "what goes past the queue");
                assert_eq!(taken as usize, expected.len());
            }
            Operation::Settle { holder, first, count, outcome } => {
                let Some(id) = self.naive.holder(holder) else { return };
                let tally = self.queue.settle(now, id, first, count, &outcome);
                let known = self.naive.settle(now, id, first, count, &outcome);
                assert_eq!((tally.known, tally.unknown), (known.len() as u32, count - known.len() as u32));
                if outcome == linkspan_contract::Settlement::Accept {
                    known.iter().for_each(|body| *self.fates.get_mut(body).unwrap() -= 1);
                }
            }
            Operation::Fetch { lane, settled } => {
                let mut got = self.queue.fetch(now, 1_000_000 + lane, lane, settled);
                while got.is_none() && self.bring() {
                    got = self.queue.fetch(now, 1_000_000 + lane, lane, settled);
                }
                assert_eq!(told(got.as_slice()), self.naive.fetch(now, 1_000_000 + lane, lane, settled));
                self.left(got.as_slice());
            }
            Operation::Add { lane, priority, exclusive, settle, credit, ack_timeout, start } => {
                let id = self.next_consumer;
                self.next_consumer += 1;
                let window = credit.map(|at| Arc::clone(&self.credits[at]));
                let consumer = Consumer {
                    credit: window,
                    priority,
                    exclusive,
                    ack_timeout,
                    ..Consumer::new(id, lane, settle)
                };
                let added = self.queue.add_consumer(consumer.clone()).is_ok();
                assert_eq!(added, self.naive.add(consumer, credit));
                if added && start {
                    self.queue.set_paused(id, false);
                    self.naive.set_paused(id, false);
                }
            }
            Operation::Pause { consumer, paused } => {
                let Some(id) = self.naive.consumer(consumer) else { return };
                self.queue.set_paused(id, paused);
                self.naive.set_paused(id, paused);
            }
            Operation::Remove { consumer } => {
                let Some(id) = self.naive.consumer(consumer) else { return };
                let removed = self.queue.remove_consumer(now, id);
                self.naive.remove(now, id);
                assert_eq!((removed.removed, removed.was_last), (1, self.naive.consumer_ids().is_empty()));
            }
            Operation::ReleaseLane { lane } => {
                let removed = self.queue.release_lane(now, lane);
                assert_eq!(removed.removed, self.naive.release_lane(now, lane));
            }
            Operation::Recover { lane } => {
                self.queue.recover(now, lane);
                self.naive.recover(now, lane);
            }
            Operation::Redeliver { holder } => {
                let Some(id) = self.naive.holder(holder) else { return };
                let mut out = Vec::new();
                self.queue.redeliver(now, id, &mut out);
                assert_eq!(told(&out), self.naive.redeliver(now, id), "what is given out again");
            }
            Operation::TakeBack { count } => {
                for assignment in last.into_iter().rev().take(count) {
                    *self.fates.get_mut(&assignment.message.body).unwrap() += i32::from(assignment.settled);
                    self.naive.take_back(&assignment);
                    self.queue.take_back(assignment);
                }
                self.resume_all();
            }
            Operation::Grant { credit, count } => {
                let woken = self.credits[credit].grant(count);
                self.naive.grant(credit, count);
                if woken {
                    self.resume_all();
                }
            }
            Operation::Window { credit, limit } => {
                let woken = self.credits[credit].set_limit(limit);
                self.naive.set_limit(credit, limit);
                if woken {
                    self.resume_all();
                }
            }
            Operation::Pass { millis } => self.now += millis,
            Operation::Tick => {
                let mut next = self.queue.tick(now);
                while self.bring() {
                    next = self.queue.tick(now);
                }
                self.naive.tick(now);
                assert!(next.is_none_or(|next| next > now), "a tick leaves nothing that is due");
            }
            Operation::Purge => {
                let purged = self.naive.purge();
                assert_eq!(self.queue.purge(), purged.len() as u64);
                purged.iter().for_each(|body| *self.fates.get_mut(body).unwrap() -= 1);
            }
            Operation::Shrink { messages, bytes } => {
                if self.pages() {
                    self.queue.set_window(Window { messages, bytes });
                    while self.queue.page_out(bytes) {}
                }
            }
            Operation::Touch => {
                self.queue.touch(now);
                self.naive.touch(now);
            }
        }
    }

    fn compare(&mut self) {
        self.bring();
        let mut effects: Vec<_> = self.queue.effects().map(happened).collect();
        let overdue = effects.iter().take_while(|effect| matches!(effect, Happened::Overdue(..))).count();
        effects[..overdue].sort();
        let mut expected = self.naive.effects();
        if self.pages() {
            // Levels are looked at again once more of them was brought in: an expired message may be found before it is
            // the one too many.
            for effect in effects.iter_mut().chain(&mut expected) {
                if let Happened::Dead(_, reason, _) = effect
                    && *reason == "expired"
                {
                    *reason = "maxlen";
                }
            }
            effects.sort();
            expected.sort();
        }
        assert_eq!(effects, expected, "what happened beside");
        for effect in effects {
            if let Happened::Dead(body, ..) = effect {
                // One that was refused and is dead all the same was never taken.
                if let Some(fate) = self.fates.get_mut(&body).filter(|fate| **fate > 0) {
                    *fate -= 1;
                }
            }
        }
        let counts = (self.queue.len(), self.queue.bytes(), self.queue.delayed(), self.queue.unsettled());
        assert_eq!(counts, self.naive.counts(), "ready, bytes, delayed, unsettled");
        assert_eq!(self.queue.consumers(), self.naive.consumer_ids().len());
        assert_eq!(self.queue.active(), self.naive.active());
        for (at, credit) in self.credits.iter().enumerate() {
            assert_eq!(credit.available(), self.naive.available(at), "credit {at}");
        }
        let living: Vec<u64> =
            self.fates.iter().filter(|(_, fate)| **fate != 0).map(|(body, _)| *body).collect();
        assert!(self.fates.values().all(|fate| (0..=1).contains(fate)), "nothing is doubled");
        assert_eq!(living, self.naive.bodies(), "nothing is lost");
    }
}

impl Pair<Recorder> {
    /// Rebuilds the queue from the journal and compares what it would give out to somebody who takes it all.
    fn compare_rebuilt(&self) {
        let mut rebuilt = Queue::new(
            self.now,
            Limits { max_priority: self.queue.limits().max_priority, ..Limits::default() },
        );
        for (message, not_before) in self.queue.journal().messages() {
            rebuilt.restore(self.now, message, not_before);
        }
        rebuilt.add_consumer(Consumer::new(1, 1, Settle::OnDelivery)).unwrap();
        rebuilt.set_paused(1, false);
        let mut out = Vec::new();
        rebuilt.dispatch(self.now, &mut out);
        let got: Vec<_> = told(&out)
            .into_iter()
            .map(|(.., age, body, attempts, level)| (age, body, attempts, level))
            .collect();
        assert_eq!(got, self.naive.after_a_crash(self.now), "what a journal rebuilds");
        assert_eq!(rebuilt.delayed(), self.naive.delayed_beyond(self.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(600), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_does_what_a_naive_one_does(limits in limits(), operations in prop::collection::vec(operation(), 1..120)) {
        let mut pair = Pair::new(limits, Recorder::default());
        for operation in operations {
            pair.carry_out(operation);
            pair.compare();
        }
        pair.compare_rebuilt();
        pair.dispatch();
        pair.compare();
    }
}
