//! The queue.

mod awaited;
mod careful;
mod dispatch;
mod dropping;
mod membership;
mod paging;
mod settle;
mod tick;
mod withdraw;

#[cfg(test)]
mod tests;

use std::vec::Drain;

use linkspan_contract::Millis;

use crate::assignment::Assignment;
use crate::consumer::{ConsumerId, LaneId};
use crate::delayed::{Delayed, Stub};
use crate::effect::{DeadReason, Effect};
use crate::holder::Holders;
use crate::journal::{Gone, Journal, NoJournal, Run};
use crate::keys::{Key, Keys};
use crate::limits::{Limits, Overflow};
use crate::offer::{NEVER, Offer, Position, Pushed, Queued};
use crate::outside::Outside;
use crate::ready::{Occupied, Ready};
use crate::rotation::Rotation;
use crate::shares::Shares;

pub use paging::{Absent, Due};
pub use settle::Tally;

/// How long a message that must not wait waits while nothing is given out.
const WHILE_HELD: Millis = 1000;

/// A queue of messages with handles `B`. See the [crate] for how it is driven.
#[derive(Debug)]
pub struct Queue<B: Clone, J: Journal<B> = NoJournal> {
    limits: Limits,
    ready: Ready<B>,
    /// What only the journal keeps.
    outside: Outside,
    delayed: Delayed<B>,
    holders: Holders<B>,
    rotation: Rotation,
    /// The place of the single active consumer.
    active: Option<usize>,
    consumers: usize,
    /// Who tolerates no other.
    exclusive: Option<ConsumerId>,
    arrivals: u64,
    next: Position,
    unsettled: u64,
    /// Nothing is given out.
    held: bool,
    /// Nothing is due before this.
    wake: Millis,
    /// Since when nobody uses it; nothing when somebody does, or when that was told.
    idle: Option<Millis>,
    /// Where messages have keys.
    keys: Option<Box<Keys<B>>>,
    /// Where levels have shares.
    shares: Option<Box<Shares>>,
    /// Levels of which more is on its way.
    awaited: Occupied,
    /// One of the three.
    careful: bool,
    effects: Vec<Effect<B>>,
    /// Room for what comes back.
    coming_back: Vec<Queued<B>>,
    /// Room for keys of which somebody has one less.
    freed: Vec<Key>,
    /// What had waited for one of them may be given out.
    is_freed: bool,
    journal: J,
}

impl<B: Clone> Queue<B> {
    /// An empty queue that keeps no log.
    pub fn new(now: Millis, limits: Limits) -> Self {
        Self::with_journal(now, limits, NoJournal)
    }
}

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// An empty queue whose changes `journal` is told.
    pub fn with_journal(now: Millis, limits: Limits, journal: J) -> Self {
        let mut queue = Self {
            ready: Ready::new(limits.max_priority),
            outside: Outside::default(),
            delayed: Delayed::new(now),
            holders: Holders::new(),
            rotation: Rotation::default(),
            active: None,
            consumers: 0,
            exclusive: None,
            arrivals: 0,
            next: 0,
            unsettled: 0,
            held: false,
            wake: NEVER,
            idle: None,
            keys: limits.keyed.then(|| Box::new(Keys::new())),
            shares: limits.weighted.then(|| Box::new(Shares::new(usize::from(limits.max_priority) + 1))),
            awaited: Occupied::default(),
            careful: limits.keyed || limits.weighted,
            effects: Vec::new(),
            coming_back: Vec::new(),
            freed: Vec::new(),
            is_freed: false,
            limits,
            journal,
        };
        queue.touch(now);
        queue
    }

    /// Takes a message. Where its fate hangs on who can take it now (the queue is full, or it must not wait), what is
    /// ready is given out first, as by [`Queue::dispatch`]: `out` gets that. What the limits cost others, or it, comes
    /// as an effect.
    #[inline]
    pub fn push(&mut self, now: Millis, offer: Offer<B>, out: &mut Vec<Assignment<B>>) -> Pushed {
        let expiry = match (offer.expiry, self.limits.message_ttl) {
            (Some(own), Some(ttl)) => Some(own.min(ttl)),
            (own, ttl) => own.or(ttl),
        };
        let message = Queued {
            body: offer.body,
            position: self.next,
            size: offer.size,
            since: now.saturating_add(offer.delay),
            // What must not wait lives for this very millisecond.
            deadline: expiry
                .map_or(NEVER, |expiry| now.saturating_add(offer.delay).saturating_add(expiry.max(1))),
            attempts: 0,
            key: offer.key,
            priority: offer.priority.min(self.limits.max_priority),
            durable: offer.durable,
            logged: false,
            apart: offer.apart,
            received: false,
        };
        if offer.delay > 0 {
            return self.push_delayed(message);
        }
        if J::RECORDS && !self.journal.takes(message.durable, self.pages(message.priority)) {
            return Pushed::Unwritable;
        }
        if expiry == Some(0) || self.exceeds(1, message.size) {
            return self.push_if_possible(now, message, expiry == Some(0), out);
        }
        self.accept(message);
        Pushed::Queued
    }

    /// Takes a message that is held back first. It does not count for the queue's length; once it is taken, it is not
    /// refused any more.
    #[cold]
    fn push_delayed(&mut self, message: Queued<B>) -> Pushed {
        let not_before = message.since;
        let is_full = self.limits.window.is_some_and(|window| self.delayed.is_full(window));
        let paged = J::RECORDS && (is_full || self.pages(message.priority));
        if J::RECORDS && !self.journal.takes(message.durable, paged) {
            return Pushed::Unwritable;
        }
        let bytes = self.delayed.bytes().saturating_add(message.size);
        if !paged && self.limits.max_delayed_bytes.is_some_and(|max| bytes > max) {
            return Pushed::Refused;
        }
        self.next = self.next.max(message.position.saturating_add(1));
        let mut message = message;
        if J::RECORDS {
            message.logged = self.journal.queued(&message, paged);
            if message.logged {
                self.journal.returned(&message, not_before);
            }
        }
        self.put_aside(message, not_before, paged);
        Pushed::Queued
    }

    /// Has a message wait for its time; in memory, unless that is too much or only the journal is to keep it.
    fn put_aside(&mut self, message: Queued<B>, until: Millis, paged: bool) {
        self.wake = self.wake.min(until);
        let is_full = || self.limits.window.is_some_and(|window| self.delayed.is_full(window));
        let mut of_key = 0;
        if let Some(keys) = self.keys.as_mut().filter(|_| message.attempts > 0) {
            // Others of its key wait for it.
            of_key = message.key;
            keys.wait(of_key, message.position);
        }
        if J::RECORDS && message.logged && (paged || is_full()) {
            let Queued { position, priority, .. } = message;
            let size = u32::try_from(message.size).unwrap_or(u32::MAX);
            return self.delayed.put_stub(Stub { until, position, size, key: of_key, priority });
        }
        self.ready.pass_by(message.priority, message.position);
        self.delayed.put(message, until);
    }

    /// Takes a message into a full queue, or one that must not wait.
    fn push_if_possible(
        &mut self,
        now: Millis,
        message: Queued<B>,
        at_once: bool,
        out: &mut Vec<Assignment<B>>,
    ) -> Pushed {
        self.dispatch(now, out);
        let mut message = message;
        if self.held && at_once && !self.rotation.is_empty() {
            // It waits for no consumer, only for what the queue is held for: that is over soon.
            message.deadline = now.saturating_add(WHILE_HELD);
            self.accept(message);
            return Pushed::Queued;
        }
        let refused = self.limits.overflow != Overflow::DropHead && self.exceeds(1, message.size);
        if !refused && !at_once {
            self.accept(message);
            self.dispatch(now, out);
            return Pushed::Queued;
        }
        let mut message = Some(message);
        // What is still ready, nobody can take; nobody takes this before.
        if self.is_empty() && !self.rotation.is_empty() {
            let Some(offered) = message.take() else { return Pushed::Refused };
            let (key, priority, position) = (offered.key, offered.priority, offered.position);
            self.accept(offered);
            self.give_out(now, usize::MAX, out);
            message = self.take_pushed(key, priority, position);
            if J::RECORDS && message.as_ref().is_some_and(|message| message.logged) {
                let how = if refused { Gone::Refused } else { Gone::Dead };
                self.journal.gone(priority, position..position.saturating_add(1), how);
            }
        }
        let Some(message) = message else { return Pushed::Queued };
        if !refused {
            self.effects.push(Effect::Dead { message, reason: DeadReason::Expired });
            return Pushed::Queued;
        }
        if self.limits.overflow == Overflow::RejectDeadLetter {
            self.effects.push(Effect::Dead { message, reason: DeadReason::MaxLength });
        }
        Pushed::Refused
    }

    #[inline(always)]
    fn accept(&mut self, message: Queued<B>) {
        let paged = J::RECORDS && self.pages(message.priority);
        self.admit(message, paged);
    }

    #[inline(always)]
    fn admit(&mut self, mut message: Queued<B>, paged: bool) {
        self.next = self.next.max(message.position.saturating_add(1));
        if J::RECORDS {
            message.logged = self.journal.queued(&message, paged);
            if paged && message.logged {
                return self.outside.add(message.priority, message.position, message.size);
            }
        }
        self.make_ready(message);
    }

    /// Puts a message to its place.
    #[inline(always)]
    fn make_ready(&mut self, message: Queued<B>) {
        let deadline = message.deadline;
        if self.ready.put(message) && deadline < self.wake {
            self.wake = deadline;
        }
    }

    /// A message is dead.
    fn bury(&mut self, message: Queued<B>, reason: DeadReason) {
        if J::RECORDS && message.logged {
            let positions = message.position..message.position.saturating_add(1);
            self.journal.gone(message.priority, positions, Gone::Dead);
        }
        self.effects.push(Effect::Dead { message, reason });
    }

    /// Puts a message back that a journal has kept; ready from `not_before` on. Not for messages that came otherwise.
    pub fn restore(&mut self, now: Millis, message: Queued<B>, not_before: Millis) {
        self.next = self.next.max(message.position.saturating_add(1));
        let message = Queued { priority: message.priority.min(self.limits.max_priority), ..message };
        self.stand_by(now, message, not_before);
    }

    /// Makes a message ready at `not_before`.
    fn stand_by(&mut self, now: Millis, message: Queued<B>, not_before: Millis) {
        if not_before > now {
            self.put_aside(message, not_before, false);
        } else {
            self.make_ready(message);
        }
    }

    /// Removes what is ready or delayed, and says how many; they do not become dead letters.
    pub fn purge(&mut self) -> u64 {
        let mut purged = 0;
        let mut run = Run::default();
        self.unpark_all();
        let ready = std::iter::from_fn(|| self.ready.pop());
        let ready = ready.map(|message| (message.priority, message.position, message.logged));
        for (priority, position, logged) in ready.chain(self.delayed.drain()) {
            purged += 1;
            if J::RECORDS
                && logged
                && let Some((priority, range)) = run.join(priority, position)
            {
                self.journal.gone(priority, range, Gone::Purged);
            }
        }
        if let Some((priority, range)) = run.end() {
            self.journal.gone(priority, range, Gone::Purged);
        }
        if let Some(keys) = &mut self.keys {
            keys.none_waits();
        }
        purged + self.purge_outside()
    }

    /// Gives nothing out to anybody, until it is told that it may: what is in it is not safe yet.
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// What is to be carried out, in the order in which it happened.
    pub fn effects(&mut self) -> Drain<'_, Effect<B>> {
        self.effects.drain(..)
    }

    /// True when [`Queue::effects`] has something.
    pub const fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// True when [`Queue::dispatch`] might give something out.
    pub fn has_work(&self) -> bool {
        !self.is_empty() && !self.rotation.is_empty()
    }

    /// Messages that are ready, wherever they are.
    pub fn len(&self) -> u64 {
        self.staying_len().saturating_add(self.delayed.doomed().len() as u64)
    }

    /// True when nothing is ready.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.outside.len() == 0
            && self.delayed.due().is_empty()
            && self.delayed.doomed().is_empty()
            && self.keys.as_ref().is_none_or(|keys| keys.len() == 0)
    }

    /// Bytes that are ready, wherever they are.
    pub fn bytes(&self) -> u64 {
        self.staying_bytes().saturating_add(self.delayed.doomed_bytes())
    }

    /// How many of the messages that are ready are in memory, and their bytes.
    pub fn in_memory(&self) -> (u64, u64) {
        let (len, held) = self.keys.as_ref().map_or((0, 0), |keys| keys.in_memory());
        (self.ready.len().saturating_add(len), self.ready.held().saturating_add(held))
    }

    /// Messages of one priority that are ready.
    pub fn level_len(&self, priority: u8) -> usize {
        self.ready.level_len(priority)
            + usize::try_from(self.outside.level_len(priority)).unwrap_or(usize::MAX)
    }

    /// Messages that were released or published with a delay and wait for its end.
    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// Messages that were given out and not settled.
    pub const fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// Messages that one consumer has not settled.
    pub fn unsettled_by(&self, consumer: ConsumerId) -> usize {
        let holder = self.holders.find(consumer).and_then(|at| self.holders.get(at));
        holder.map_or(0, |holder| holder.unsettled.len())
    }

    /// True when this lane consumes, fetches or has something unsettled.
    pub fn knows(&self, lane: LaneId) -> bool {
        self.holders.knows(lane)
    }

    /// How many consume.
    pub const fn consumers(&self) -> usize {
        self.consumers
    }

    /// True when so many messages more, of so many bytes together, are not refused, whoever can take them.
    pub fn has_room(&self, messages: u64, bytes: u64) -> bool {
        self.limits.overflow == Overflow::DropHead || !self.exceeds(messages, bytes)
    }

    /// The single active consumer.
    pub fn active(&self) -> Option<ConsumerId> {
        self.active.and_then(|at| self.holders.get(at)).map(|holder| holder.id)
    }

    /// Its limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Other limits from now on; how many levels there are, and whether one consumer at a time is given something, stays.
    /// Messages keep what they were given when they came, but for their keys: see [`tell_keys`](Self::tell_keys). Those that
    /// have come back more often than they may are dead.
    pub fn set_limits(&mut self, limits: Limits) {
        let Limits { max_priority, single_active, .. } = self.limits;
        let of_queue = self.limits.ack_timeout;
        for holder in self.holders.iter_mut().filter(|holder| holder.ack_timeout == of_queue) {
            holder.set_ack_timeout(limits.ack_timeout);
        }
        self.limits = Limits { max_priority, single_active, ..limits };
        self.set_care();
        self.bury_overdone();
    }

    /// The log.
    pub const fn journal(&self) -> &J {
        &self.journal
    }

    /// The log, to write what it gathered.
    pub const fn journal_mut(&mut self) -> &mut J {
        &mut self.journal
    }
}
