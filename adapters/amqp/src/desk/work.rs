//! What lies on a desk, and who works it: pure but for the sinks.

mod levels;
mod returning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Context;

use linkspan_contract::{
    Delivered, DeliverySink, DeliveryTag, Ended, Flags, Kept, Millis, Settlement, Terms,
};
use linkspan_queues::{
    Assignment, ConsumerId, DeadReason, Effect, LaneId, Limits, NEVER, Queue, Queued, Tally,
};

use super::inflow::Inflow;
use super::key::key_of;
use super::loans::{Loan, Loans};
use super::seat::Seat;

/// So many messages are given out before it is looked whether sinks are above their marks.
const ROUND: usize = 64;

/// A message that was given to somebody, last in this delivery.
struct Tried {
    of: ConsumerId,
    tag: DeliveryTag,
    /// It had been given to somebody before.
    before: bool,
}

/// The messages, and those who work them.
pub(super) struct Work {
    engine: Queue<Kept, Loans>,
    seats: BTreeMap<ConsumerId, Seat>,
    /// What was given to somebody and is not over: to whom last, under which number.
    tried: BTreeMap<Loan, Tried>,
    /// What was given back to the broker while the engine still had it.
    stale: BTreeSet<Loan>,
    assignments: Vec<Assignment<Kept>>,
    words: Vec<Word>,
    touched: Vec<Arc<dyn DeliverySink>>,
    /// Nothing may go back alone: what is left would overtake it.
    together: bool,
    /// Something has to go back.
    overdue: bool,
    /// Which levels the broker may have more of, where each has a queue there.
    inflow: Option<Inflow>,
}

/// What the broker is to be told of a loan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It may forget it.
    Accept(Loan),
    /// It is dead, or not for those here.
    Reject {
        /// Which.
        loan: Loan,
        /// To be given to somebody else.
        requeue: bool,
    },
}

/// A message as it comes from the broker.
pub(super) struct Arrival {
    /// The broker's number.
    pub(super) loan: Loan,
    pub(super) message: Kept,
    /// How often it was given out before, as far as the broker says.
    pub(super) attempt: u32,
    /// Its own expiry in milliseconds, from now at most.
    pub(super) expiry: Option<Millis>,
    /// The level from whose queue it comes, where each has one.
    pub(super) level: Option<u8>,
}

impl Work {
    pub(super) fn new(now: Millis, limits: Limits) -> Self {
        Self {
            together: limits.keyed,
            engine: Queue::with_journal(now, limits, Loans::default()),
            seats: BTreeMap::new(),
            tried: BTreeMap::new(),
            stale: BTreeSet::new(),
            assignments: Vec::new(),
            words: Vec::new(),
            touched: Vec::new(),
            overdue: false,
            inflow: None,
        }
    }

    /// Other limits from now on, and terms that say what keys messages have.
    pub(super) fn set_limits(&mut self, now: Millis, limits: Limits, terms: &Terms) {
        self.together = limits.keyed;
        self.engine.set_limits(limits);
        self.engine.tell_keys(|message| key_of(terms, message));
        self.hand_out(now);
    }

    /// Whether that seat is taken.
    pub(super) fn has(&self, id: ConsumerId) -> bool {
        self.seats.contains_key(&id)
    }

    /// What the broker is to be told.
    pub(super) fn words(&mut self) -> Vec<Word> {
        std::mem::take(&mut self.words)
    }

    /// Sinks that were given something.
    pub(super) fn touched(&mut self) -> Vec<Arc<dyn DeliverySink>> {
        std::mem::take(&mut self.touched)
    }

    /// A message has come. [`Work::hand_out`] gives it out.
    pub(super) fn arrive(&mut self, now: Millis, terms: &Terms, arrival: Arrival) {
        let Arrival { loan, message, attempt, expiry, level } = arrival;
        let head = message.message();
        let batch = message.batch.batch();
        let expiry = expiry.into_iter().chain(terms.expiry).min();
        // It was not given out for the last time by those who knew.
        let attempts = self.engine.limits().delivery_limit.map_or(attempt, |limit| attempt.min(limit));
        // The lowest level's queue has what a client's own binding leads there, whatever its level.
        let priority = level.filter(|level| *level > 0).unwrap_or_else(|| terms.priority(&batch, &head));
        self.lend(loan, now, level.unwrap_or(priority));
        let queued = Queued {
            position: loan,
            size: message.batch.size(message.at),
            since: now,
            deadline: expiry.map_or(NEVER, |expiry| now.saturating_add(expiry.max(1))),
            attempts,
            priority,
            key: key_of(terms, &message),
            durable: head.flags.has(Flags::DURABLE),
            logged: true,
            apart: false,
            received: false,
            body: message,
        };
        self.engine.restore(now, queued, now);
    }

    /// Gives what is ready to who can take it.
    pub(super) fn hand_out(&mut self, now: Millis) {
        loop {
            self.await_levels();
            self.engine.dispatch_some(now, ROUND, &mut self.assignments);
            if self.assignments.is_empty() {
                break;
            }
            let mut back = Vec::new();
            for assignment in std::mem::take(&mut self.assignments) {
                back.extend(self.give(assignment));
            }
            back.into_iter().rev().for_each(|assignment| self.engine.take_back(assignment));
        }
        self.settle_up();
    }

    /// Gives one; yields what nobody took.
    fn give(&mut self, assignment: Assignment<Kept>) -> Option<Assignment<Kept>> {
        let (loan, consumer) = (assignment.message.position, assignment.consumer);
        if self.stale.remove(&loan) {
            self.engine.waive(assignment);
            return None;
        }
        let Some(seat) = self.seats.get_mut(&consumer).filter(|seat| !seat.closed) else {
            return Some(assignment);
        };
        let said = seat.give(&assignment);
        seat.closed |= said == Delivered::Closed;
        seat.congested |= said == Delivered::Congested;
        if said != Delivered::Taken {
            self.engine.set_paused(consumer, true);
        }
        if said == Delivered::Closed {
            return Some(assignment);
        }
        if !self.touched.last().is_some_and(|last| Arc::ptr_eq(last, &seat.sink)) {
            self.touched.push(Arc::clone(&seat.sink));
        }
        if !assignment.settled {
            self.note_tried(loan, consumer, assignment.tag);
        }
        None
    }

    fn note_tried(&mut self, loan: Loan, of: ConsumerId, tag: DeliveryTag) {
        let before = self.tried.contains_key(&loan);
        self.tried.insert(loan, Tried { of, tag, before });
    }

    /// Gathers what the broker is to be told of what is over.
    fn settle_up(&mut self) {
        let effects: Vec<_> = self.engine.effects().collect();
        for effect in effects {
            match effect {
                Effect::Dead { message, reason } => {
                    let loan = message.position;
                    self.stale.remove(&loan);
                    self.tried.remove(&loan);
                    if self.engine.journal_mut().take_dead(loan) {
                        // Where its time is over the broker sees to that itself, with the right reason.
                        let requeue = reason == DeadReason::Expired;
                        self.words.push(Word::Reject { loan, requeue });
                    }
                }
                Effect::Overdue { count, .. } => {
                    metrics::counter!("linkspan_deadlines_passed_total").increment(count.into());
                }
                Effect::Active(_) | Effect::Unused => {}
            }
        }
        for loan in self.engine.journal_mut().take_accepted() {
            self.tried.remove(&loan);
            self.words.push(Word::Accept(loan));
        }
    }

    /// Somebody takes a seat, or that seat in another way. Nothing is given before [`Work::start`]. False when the queue is
    /// in exclusive use.
    pub(super) fn enter(&mut self, id: ConsumerId, seat: Seat) -> bool {
        let entered = self.engine.add_consumer(seat.consumer(id)).is_ok();
        if entered {
            self.seats.insert(id, seat);
        }
        entered
    }

    pub(super) fn start(&mut self, now: Millis, id: ConsumerId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.started = true;
            self.engine.set_paused(id, !seat.is_open());
            self.hand_out(now);
        }
    }

    /// A lane's windows may have room again.
    pub(super) fn resume(&mut self, now: Millis, lane: LaneId) {
        for (id, seat) in &self.seats {
            if seat.lane == lane && seat.is_open() {
                self.engine.resume(*id);
            }
        }
        self.hand_out(now);
    }

    /// A lane's client has another sink.
    pub(super) fn attach(&mut self, now: Millis, lane: LaneId, sink: &Arc<dyn DeliverySink>) {
        for (id, seat) in self.seats.iter_mut().filter(|(_, seat)| seat.lane == lane) {
            seat.sink = Arc::clone(sink);
            (seat.congested, seat.closed) = (false, false);
            self.engine.set_paused(*id, !seat.is_open());
        }
        self.hand_out(now);
    }

    /// Lets those go on whose sinks have drained.
    pub(super) fn drain(&mut self, now: Millis, cx: &mut Context<'_>) {
        let mut drained = false;
        for (id, seat) in self.seats.iter_mut().filter(|(_, seat)| seat.congested) {
            if seat.sink.poll_drained(cx).is_ready() {
                seat.congested = false;
                self.engine.set_paused(*id, !seat.is_open());
                drained = true;
            }
        }
        if drained {
            self.hand_out(now);
        }
    }

    /// A consumer says something of what it was given.
    pub(super) fn settle(
        &mut self,
        now: Millis,
        id: ConsumerId,
        first: DeliveryTag,
        count: u32,
        outcome: &Settlement,
    ) -> Tally {
        if *outcome == Settlement::Undo {
            let end = first.saturating_add(count.into());
            self.tried.retain(|_, it| it.of != id || it.before || !(first..end).contains(&it.tag));
        }
        let tally = self.engine.settle(now, id, first, count, outcome);
        self.hand_out(now);
        tally
    }

    /// A seat is left; true when nothing that was given there is unsettled.
    pub(super) fn leave(&mut self, now: Millis, id: ConsumerId) -> bool {
        self.engine.remove_consumer(now, id);
        self.seats.remove(&id);
        self.hand_out(now);
        self.engine.unsettled_by(id) == 0
    }

    /// A lane is gone, and what it had in hand is others'.
    pub(super) fn leave_all(&mut self, now: Millis, lane: LaneId) {
        self.engine.release_lane(now, lane);
        self.seats.retain(|_, seat| seat.lane != lane);
        self.hand_out(now);
    }

    /// What a lane has in hand is anybody's again (`requeue`), or given to it once more.
    pub(super) fn recover(&mut self, now: Millis, lane: LaneId, requeue: bool) {
        if requeue {
            self.engine.recover(now, lane);
            return self.hand_out(now);
        }
        let mut again = Vec::new();
        for (id, _) in self.seats.iter().filter(|(_, seat)| seat.lane == lane) {
            self.engine.redeliver(now, *id, &mut again);
        }
        for assignment in again {
            if let Some(seat) = self.seats.get(&assignment.consumer) {
                seat.give(&assignment);
                self.touched.push(Arc::clone(&seat.sink));
            }
        }
    }

    /// Takes the next message for who asks for one.
    pub(super) fn fetch(
        &mut self,
        now: Millis,
        id: ConsumerId,
        lane: LaneId,
        settled: bool,
    ) -> Option<Assignment<Kept>> {
        loop {
            self.await_levels();
            let assignment = self.engine.fetch(now, id, lane, settled);
            let Some(assignment) = assignment else {
                self.settle_up();
                return None;
            };
            if self.stale.remove(&assignment.message.position) {
                self.engine.waive(assignment);
                continue;
            }
            if !settled {
                self.note_tried(assignment.message.position, id, assignment.tag);
            }
            self.settle_up();
            return Some(assignment);
        }
    }

    /// Removes what nobody has in hand, and tells how much.
    pub(super) fn purge(&mut self) -> u64 {
        let purged = self.engine.purge();
        self.stale.clear();
        self.settle_up();
        purged
    }

    /// The queue is gone, and with it everybody's seat.
    pub(super) fn end(&mut self, now: Millis, limits: Limits, why: Ended) {
        for seat in std::mem::take(&mut self.seats).into_values().filter(|seat| seat.started) {
            seat.sink.ended(seat.key, why);
            self.touched.push(seat.sink);
        }
        self.lose(now, limits);
    }

    /// Whether the one who works here tolerates no other.
    pub(super) fn is_exclusive(&self) -> bool {
        self.seats.values().any(|seat| seat.exclusive)
    }

    /// How many deliveries those who work here may have in hand together.
    pub(super) fn window(&self, unsettling: u16) -> u32 {
        self.seats.values().fold(0, |all, seat| all.saturating_add(seat.window(unsettling)))
    }

    /// How many messages wait for their time.
    pub(super) fn waiting(&self) -> usize {
        self.engine.delayed()
    }

    /// How many messages nobody has in hand.
    pub(super) fn len(&self) -> u64 {
        self.engine.len().saturating_add(self.engine.delayed() as u64)
    }

    /// True when something could be given out.
    pub(super) fn has_ready(&self) -> bool {
        !self.engine.is_empty()
    }

    pub(super) fn consumers(&self) -> usize {
        self.seats.len()
    }

    /// How many messages somebody has in hand.
    pub(super) const fn in_hand(&self) -> u64 {
        self.engine.unsettled()
    }

    /// True when somebody has something in hand.
    pub(super) fn is_in_hand(&self) -> bool {
        self.engine.unsettled() > 0
    }

    /// True when there is nothing here that was given to somebody, whose count would be forgotten.
    pub(super) fn is_untried(&self) -> bool {
        self.tried.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::task::Poll;

    use bytes::Bytes;
    use linkspan_contract::neutral::Draft;
    use linkspan_contract::{
        Batch, Body, Credit, Message, Pick, Priorities, Properties, Retry, Settle, SubscriptionKey,
    };
    use parking_lot::Mutex;

    use super::*;
    use crate::consumers::LONGEST;

    /// A client: the tags and attempts that it was given.
    #[derive(Default)]
    struct Client {
        given: Mutex<Vec<(DeliveryTag, u32)>>,
        closed: bool,
    }

    impl DeliverySink for Client {
        fn deliver(&self, _: &Batch<'_>, picks: &[Pick]) -> Delivered {
            if self.closed {
                return Delivered::Closed;
            }
            self.given.lock().extend(picks.iter().map(|pick| (pick.first, pick.attempt)));
            Delivered::Taken
        }

        fn flush(&self) {}

        fn poll_drained(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }

        fn ended(&self, _: SubscriptionKey, _: Ended) {}
    }

    fn seat(lane: LaneId, sink: &Arc<Client>, window: u32) -> Seat {
        Seat {
            lane,
            key: SubscriptionKey::default(),
            sink: Arc::clone(sink) as _,
            settle: Settle::ByConsumer,
            credit: Some(Arc::new(Credit::new(window))),
            priority: 0,
            exclusive: false,
            several: false,
            ack_timeout: None,
            started: false,
            congested: false,
            closed: false,
        }
    }

    fn arrival(loan: Loan) -> Arrival {
        let properties = Properties::default();
        let draft = Draft {
            exchange: None,
            topic: b"jobs",
            properties: &properties,
            payload: Body::Shared(Bytes::new()),
            head: Message::default(),
        };
        Arrival { loan, message: draft.build().kept(0).unwrap(), attempt: 0, expiry: None, level: None }
    }

    /// Work on a queue of these limits, with one consumer, whose number is 1.
    fn work(limits: Limits, client: &Arc<Client>) -> Work {
        let mut work = Work::new(0, limits);
        assert!(work.enter(1, seat(1, client, 10)));
        work.start(0, 1);
        work
    }

    fn come(work: &mut Work, now: Millis, loans: std::ops::RangeInclusive<Loan>) {
        for loan in loans {
            work.arrive(now, &Terms::default(), arrival(loan));
        }
        work.hand_out(now);
    }

    fn given(client: &Client) -> Vec<(DeliveryTag, u32)> {
        std::mem::take(&mut client.given.lock())
    }

    fn is_empty(work: &Work) -> bool {
        work.engine.journal().oldest().is_none()
    }

    const RELEASE: Settlement = Settlement::Release { delay: 0 };

    #[test]
    fn the_broker_is_told_of_what_is_over_and_of_nothing_else() {
        let client = Arc::new(Client::default());
        let mut work = work(Limits::default(), &client);
        come(&mut work, 0, 7..=9);
        assert_eq!(given(&client), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(work.words(), []);
        assert_eq!(work.settle(1, 1, 2, 2, &Settlement::Accept).known, 2);
        assert_eq!(work.words(), [Word::Accept(8), Word::Accept(9)]);
        assert_eq!(work.settle(1, 1, 2, 1, &Settlement::Accept), Tally { known: 0, unknown: 1 });
        work.settle(1, 1, 1, 1, &Settlement::Reject(None));
        assert_eq!(work.words(), [Word::Reject { loan: 7, requeue: false }]);
        assert!(is_empty(&work) && work.is_untried());
    }

    #[test]
    fn lower_levels_wait_for_higher_ones_of_which_the_broker_may_have_more() {
        let client = Arc::new(Client::default());
        let limits = Limits { max_priority: 1, ..Limits::default() };
        let mut work = Work::new(0, limits).with_levels(Some(1));
        assert!(work.enter(1, seat(1, &client, 1)));
        work.start(0, 1);
        work.open_levels(2);
        for (loan, level) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            work.arrive(0, &Terms::default(), Arrival { level: Some(level), ..arrival(loan) });
        }
        work.hand_out(0);
        let mut accepted = Vec::new();
        let mut next = |work: &mut Work, tag| {
            work.settle(0, 1, tag, 1, &Settlement::Accept);
            work.seats[&1].credit.as_ref().unwrap().grant(1);
            work.resume(0, 1);
            accepted.extend(work.words());
        };
        next(&mut work, 1);
        next(&mut work, 2);
        assert_eq!(given(&client), [(1, 0), (2, 0)], "both of the higher level");
        assert_eq!((work.ask(), work.is_known_empty()), (vec![1], false));
        work.told(0, 1, 3);
        work.hand_out(0);
        assert_eq!(given(&client), [], "the broker has more of it");
        assert_eq!(work.ask(), [1]);
        work.told(0, 1, 0);
        work.hand_out(0);
        assert_eq!(given(&client), [(3, 0)]);
        next(&mut work, 3);
        assert_eq!(accepted, [3, 4, 1].map(Word::Accept));
    }

    #[test]
    fn what_others_put_into_the_lowest_levels_queue_has_the_level_that_it_says() {
        let client = Arc::new(Client::default());
        let limits = Limits { max_priority: 1, ..Limits::default() };
        let mut work = Work::new(0, limits).with_levels(Some(1));
        assert!(work.enter(1, seat(1, &client, 1)));
        work.start(0, 1);
        work.open_levels(4);
        let priorities = Priorities { highest: 1, weighted: false, from: None, otherwise: 1, apart: None };
        let says = Terms { priorities: Some(priorities), ..Terms::default() };
        for terms in [&Terms::default(), &says] {
            let loan = work.engine.len() + 1;
            work.arrive(0, terms, Arrival { level: Some(0), ..arrival(loan) });
        }
        work.hand_out(0);
        work.settle(0, 1, 1, 1, &Settlement::Accept);
        assert_eq!(work.words(), [Word::Accept(2)]);
    }

    #[test]
    fn what_the_broker_has_back_of_a_level_that_nobody_is_given_does_not_stay_here_too() {
        let mut work = Work::new(0, Limits::default());
        come(&mut work, 0, 1..=2);
        work.tick(LONGEST);
        assert_eq!((work.words().len(), work.len()), (2, 0));
        come(&mut work, LONGEST, 3..=4);
        assert_eq!(work.len(), 2);
    }

    #[test]
    fn what_comes_back_waits_here_and_is_dead_after_its_last_attempt() {
        let client = Arc::new(Client::default());
        let retry = Some(Retry { delay: 100, factor: 200, max: 1000 });
        let limits = Limits { retry, delivery_limit: Some(2), ..Limits::default() };
        let mut work = work(limits, &client);
        come(&mut work, 0, 5..=5);
        let mut now = 0;
        for (attempt, wait) in [(0, 100), (1, 200)] {
            assert_eq!(given(&client), [(u64::from(attempt) + 1, attempt)]);
            work.settle(now, 1, u64::from(attempt) + 1, 1, &RELEASE);
            assert_eq!((work.waiting(), work.words()), (1, vec![]));
            assert_eq!(given(&client), []);
            now += wait;
            work.tick(now);
        }
        assert_eq!(given(&client), [(3, 2)]);
        work.settle(now, 1, 3, 1, &RELEASE);
        assert_eq!(work.words(), [Word::Reject { loan: 5, requeue: false }]);
    }

    #[test]
    fn what_a_closed_sink_does_not_take_is_for_another() {
        let (client, other) = (Arc::new(Client { closed: true, ..Client::default() }), Arc::default());
        let mut work = work(Limits::default(), &client);
        come(&mut work, 0, 1..=2);
        assert!(work.is_untried() && !work.is_in_hand());
        assert!(work.enter(2, seat(2, &other, 10)));
        work.start(0, 2);
        assert_eq!(given(&other), [(1, 0), (2, 0)]);
    }

    #[test]
    fn a_link_that_is_lost_takes_everything_with_it_and_tags_go_on() {
        let client = Arc::new(Client::default());
        let mut work = work(Limits::default(), &client);
        come(&mut work, 0, 1..=2);
        work.lose(0, Limits::default());
        assert_eq!(work.settle(0, 1, 1, 2, &Settlement::Accept).known, 0);
        assert_eq!((work.words(), is_empty(&work)), (vec![], true));
        given(&client);
        come(&mut work, 0, 1..=1);
        assert_eq!(given(&client), [(3, 0)]);
        work.settle(0, 1, 3, 1, &Settlement::Accept);
        assert_eq!(work.words(), [Word::Accept(1)]);
    }

    #[test]
    fn the_broker_has_back_in_time_what_it_would_close_the_channel_for() {
        let client = Arc::new(Client::default());
        let retry = Some(Retry { delay: 2 * LONGEST, factor: 100, max: 2 * LONGEST });
        let mut work = work(Limits { retry, ..Limits::default() }, &client);
        come(&mut work, 0, 1..=2);
        work.settle(0, 1, 2, 1, &RELEASE);
        assert_eq!(work.next_tick(), Some(LONGEST));
        work.tick(LONGEST);
        let back = |loan| Word::Reject { loan, requeue: true };
        assert_eq!(work.words(), [back(1), back(2)]);
        assert_eq!(work.settle(LONGEST, 1, 1, 1, &Settlement::Accept).known, 0, "it is the broker's again");
        given(&client);
        work.tick(2 * LONGEST);
        assert_eq!((given(&client), work.words()), (vec![], vec![]), "nobody is given it here");
    }

    #[test]
    fn what_nobody_was_given_goes_back_in_its_order_and_what_was_stays() {
        let client = Arc::new(Client::default());
        let mut work = Work::new(0, Limits::default());
        assert!(work.enter(1, seat(1, &client, 2)));
        work.start(0, 1);
        come(&mut work, 0, 1..=5);
        assert_eq!(given(&client).len(), 2);
        work.settle(0, 1, 2, 1, &Settlement::Undo);
        work.give_back(true);
        let back = |loan| Word::Reject { loan, requeue: true };
        assert_eq!(work.words(), [back(2), back(3), back(4), back(5)]);
        work.settle(0, 1, 1, 1, &Settlement::Accept);
        assert_eq!((work.words(), is_empty(&work)), (vec![Word::Accept(1)], true));
    }

    #[test]
    fn what_somebody_has_had_stays_counted_when_it_was_then_given_to_nobody() {
        let client = Arc::new(Client::default());
        let mut work = work(Limits::default(), &client);
        come(&mut work, 0, 1..=2);
        work.settle(0, 1, 1, 1, &RELEASE);
        assert_eq!(given(&client), [(1, 0), (2, 0), (3, 1)]);
        work.leave(0, 1);
        work.settle(0, 1, 2, 2, &Settlement::Undo);
        work.give_back(true);
        assert_eq!(work.words(), [Word::Reject { loan: 2, requeue: true }], "nobody has had this one");
        assert!(!work.is_untried());
        let other = Arc::new(Client::default());
        assert!(work.enter(2, seat(2, &other, 10)));
        work.start(0, 2);
        assert_eq!(given(&other), [(1, 1)]);
    }

    #[test]
    fn what_came_back_goes_back_too_unless_it_is_counted_here() {
        for counted in [true, false] {
            let client = Arc::new(Client::default());
            let mut work = Work::new(0, Limits::default());
            assert!(work.enter(1, seat(1, &client, 1)));
            work.start(0, 1);
            come(&mut work, 0, 1..=1);
            assert_eq!(given(&client).len(), 1);
            work.settle(0, 1, 1, 1, &RELEASE);
            work.give_back(counted);
            let back = if counted { vec![] } else { vec![Word::Reject { loan: 1, requeue: true }] };
            assert_eq!((work.words(), work.is_untried()), (back, !counted), "counted: {counted}");
        }
    }

    #[test]
    fn where_messages_have_keys_all_of_them_go_back_together() {
        let client = Arc::new(Client::default());
        let mut work = work(Limits { keyed: true, ..Limits::default() }, &client);
        come(&mut work, 0, 1..=2);
        assert!(!work.is_overdue());
        work.tick(LONGEST);
        assert!(work.is_overdue() && work.next_tick().is_none());
        assert_eq!(work.words(), [], "with its channel");
        work.lose(LONGEST, Limits { keyed: true, ..Limits::default() });
        assert!(!work.is_overdue());
        assert_eq!(work.settle(LONGEST, 1, 1, 2, &Settlement::Accept).known, 0);
    }

    #[test]
    fn a_message_whose_time_is_over_here_goes_back_to_the_broker_which_sees_to_that() {
        let mut work = Work::new(0, Limits::default());
        work.arrive(0, &Terms { expiry: Some(50), ..Terms::default() }, arrival(4));
        work.tick(50);
        assert_eq!(work.words(), [Word::Reject { loan: 4, requeue: true }]);
    }

    #[test]
    fn the_brokers_own_count_is_one_attempt_and_never_the_last_one() {
        let client = Arc::new(Client::default());
        let delivery_limit = NonZeroU32::new(2).map(|most| most.get() - 1);
        let mut work = work(Limits { delivery_limit, ..Limits::default() }, &client);
        let redelivered = Arrival { attempt: 7, ..arrival(1) };
        work.arrive(0, &Terms::default(), redelivered);
        work.hand_out(0);
        assert_eq!(given(&client), [(1, 1)]);
        work.settle(0, 1, 1, 1, &RELEASE);
        assert_eq!(work.words(), [Word::Reject { loan: 1, requeue: false }]);
    }
}
