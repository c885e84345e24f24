//! Messages that are too many for the memory: the journal keeps them, and they are brought in when their turn comes.

use std::collections::BTreeMap;
use std::ops::Range;

use linkspan_contract::Millis;

use super::Queue;
use crate::delayed::Stub;
use crate::effect::DeadReason;
use crate::journal::{Gone, Journal};
use crate::limits::Window;
use crate::offer::{Position, Queued};

/// Messages that have to be brought back in: they have waited for their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Their priority.
    pub priority: u8,
    /// Each of these positions is one of them.
    pub positions: Range<Position>,
}

/// Messages that have to be brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absent {
    /// Their priority.
    pub priority: u8,
    /// None of them stands before it.
    pub from: Position,
}

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// True when the next message of this priority would not be kept in memory.
    #[inline]
    pub(super) fn pages(&self, priority: u8) -> bool {
        self.limits.window.is_some_and(|window| {
            self.outside.level_len(priority) > 0
                || self.ready.len() >= window.messages
                || self.ready.held() >= window.bytes
        })
    }

    /// True when what would be given out next is in memory.
    #[inline]
    pub(super) fn has_head(&self) -> bool {
        self.outside.len() == 0 && self.delayed.due().is_empty() || self.has_head_here()
    }

    fn has_head_here(&self) -> bool {
        self.head_level().is_none_or(|level| {
            let due = u8::try_from(level).ok().and_then(|level| self.delayed.due_of(level));
            let first = self.ready.first_of(level).map(|first| first.position);
            first.is_some_and(|first| due.is_none_or(|due| first < due))
        })
    }

    /// The level of what would be given out next, wherever it is.
    pub(super) fn head_level(&self) -> Option<usize> {
        let next = match &self.shares {
            Some(shares) => shares.next(|level| self.has_turn(level)),
            None => {
                let due = self.delayed.highest_due().map(|(level, _)| usize::from(level));
                let here = self.ready.highest().max(self.outside.occupied().highest()).max(due);
                here.max(self.awaited.highest())
            }
        };
        next.filter(|level| !self.awaited.has(*level) || self.has_level(*level))
    }

    /// True when a level has something, wherever it is.
    pub(super) fn has_level(&self, level: usize) -> bool {
        self.ready.first_of(level).is_some()
            || u8::try_from(level)
                .is_ok_and(|level| self.outside.level_len(level) > 0 || self.delayed.due_of(level).is_some())
    }

    /// The first of a level, unless one that stands before it has to be brought back in.
    pub(super) fn first_here(&self, level: usize) -> Option<&Queued<B>> {
        let first = self.ready.first_of(level)?;
        let due = || u8::try_from(level).ok().and_then(|level| self.delayed.due_of(level));
        let is_first = self.delayed.due().is_empty() || due().is_none_or(|due| first.position < due);
        is_first.then_some(first)
    }

    /// What has to be brought back in, as far as the memory has room for it or it is the first of its level: see
    /// [`come_in`](Self::come_in). To be asked before [`wants`](Self::wants).
    #[inline]
    pub fn due(&self) -> Option<Due> {
        if self.delayed.due().is_empty() && self.delayed.doomed().is_empty() { None } else { self.next_due() }
    }

    fn next_due(&self) -> Option<Due> {
        if let Some(((priority, first), _)) = self.delayed.doomed().first_key_value() {
            return Some(self.due_from(self.delayed.doomed(), *priority, *first));
        }
        let has_room = self
            .limits
            .window
            .is_none_or(|window| self.ready.len() < window.messages && self.ready.held() < window.bytes);
        let mut level = self.delayed.highest_due().map(|(level, _)| level);
        while let Some(priority) = level {
            let first = self.delayed.due_of(priority)?;
            let is_next = self.ready.first_of(priority.into()).is_none_or(|here| first < here.position);
            if has_room || is_next {
                return Some(self.due_from(self.delayed.due(), priority, first));
            }
            level = self.delayed.due_below(priority);
        }
        None
    }

    fn due_from<T>(&self, of: &BTreeMap<(u8, Position), T>, priority: u8, first: Position) -> Due {
        let behind = of.range((priority, first)..=(priority, Position::MAX));
        let run = behind.zip(first..).take_while(|(((_, position), _), next)| position == next);
        let most = self.limits.window.map_or(1, |window| window.messages.max(1));
        let length = run.take(usize::try_from(most).unwrap_or(usize::MAX)).count() as u64;
        Due { priority, positions: first..first.saturating_add(length) }
    }

    /// A message of those that are [`due`](Self::due).
    pub fn come_in(&mut self, message: Queued<B>) {
        if self.delayed.fall(message.priority, message.position) {
            self.bury(message, DeadReason::MaxLength);
        } else if self.delayed.arrive(message.priority, message.position).is_some() {
            if self.outside.spans(message.priority, message.position) {
                self.outside.count(message.priority, message.size);
            } else if self.is_overdone(&message) {
                let key = message.key;
                self.bury(message, DeadReason::DeliveryLimit);
                self.unpark(key);
            } else {
                self.make_ready(message);
            }
        }
    }

    /// Those of these that have not come in cannot be had; tells how many.
    pub fn stay_out(&mut self, due: &Due) -> u64 {
        let Due { priority, positions } = due;
        let mut missed = 0;
        for position in positions.clone() {
            if self.delayed.fall(*priority, position) {
                missed += 1;
            } else if let Some(owed) = self.delayed.arrive(*priority, position) {
                missed += 1;
                self.unpark(owed.key);
            }
        }
        missed
    }

    /// What only the journal has of what waits, and whose time has come, is to be brought in, now or in its turn.
    pub(super) fn wake_stubs(&mut self, now: Millis) {
        while let Some(stub) = self.delayed.pop_stub(now) {
            if let Some(keys) = self.keys.as_mut().filter(|_| stub.key != 0) {
                keys.waited(stub.key, stub.position);
            }
            if self.outside.spans(stub.priority, stub.position) {
                self.outside.count(stub.priority, stub.size.into());
            } else {
                self.delayed.want(stub);
            }
        }
    }

    /// True when a message that the journal has is among those that wait for their time, or were brought in for that: it is
    /// none of those that a level has outside.
    pub fn awaits<C>(&self, message: &Queued<C>, not_before: Millis) -> bool {
        self.delayed.awaits(message, not_before)
    }

    /// A journal has a message that waits for its time, and that was not restored nor counted.
    pub fn leave_waiting(&mut self, priority: u8, position: Position, size: u64, until: Millis) {
        let (priority, size) = (priority.min(self.limits.max_priority), size.try_into().unwrap_or(u32::MAX));
        self.next = self.next.max(position.saturating_add(1));
        self.wake = self.wake.min(until);
        self.delayed.put_stub(Stub { until, position, size, key: 0, priority });
    }

    /// What the owner has to [`bring`](Self::bring) in: a level has messages, and none of them in memory. To be asked
    /// after everything that takes messages out; `dispatch` follows.
    #[inline]
    pub fn wants(&self) -> Option<Absent> {
        if self.outside.len() == 0 {
            return None;
        }
        let level = self.outside.occupied().highest_beside(self.ready.occupied())?;
        let priority = u8::try_from(level).ok()?;
        Some(Absent { priority, from: self.outside.from(priority) })
    }

    /// The next message of those that a level has outside; they come in the order of their positions. One that
    /// [waits](Self::awaits) is passed over.
    pub fn bring(&mut self, now: Millis, message: Queued<B>, not_before: Millis) {
        if self.awaits(&message, not_before) {
            return self.outside.pass(message.priority, message.position);
        }
        self.outside.take(message.priority, message.position, message.size);
        if self.is_overdone(&message) {
            return self.bury(message, DeadReason::DeliveryLimit);
        }
        self.stand_by(now, message, not_before);
    }

    /// The next message of those that a level has outside cannot be had.
    pub fn miss(&mut self, priority: u8, position: Position) {
        self.outside.take(priority, position, 0);
    }

    /// A level has nothing outside, whatever was counted; tells how much was.
    pub fn miss_all(&mut self, priority: u8) -> u64 {
        self.outside.clear(priority)
    }

    /// A journal has so many messages of a level, from a position on, that were not
    /// [restored](Self::restore); the next message stands at `next`, if not behind it.
    pub fn leave_outside(&mut self, priority: u8, from: Position, messages: u64, bytes: u64, next: Position) {
        let priority = priority.min(self.limits.max_priority);
        self.next = self.next.max(next);
        if messages > 0 {
            self.outside.add_many(priority, from, messages, bytes);
        }
    }

    /// Where begins what a level has outside; none when it has nothing there.
    pub fn outside(&self, priority: u8) -> Option<Position> {
        (self.outside.level_len(priority) > 0).then(|| self.outside.from(priority))
    }

    /// What a level has outside was counted better.
    pub fn recount(&mut self, priority: u8, messages: u64, bytes: u64) {
        self.outside.recount(priority, messages, bytes);
    }

    /// From now on this much of what is ready is kept in memory. What is more by now stays there until
    /// [`page_out`](Self::page_out).
    pub const fn set_window(&mut self, window: Window) {
        self.limits.window = Some(window);
    }

    /// Has the journal alone keep what is ready beyond the window: the last of the lowest priority first, until about
    /// `most` bytes were written for that. What stands before something that consumers have, or had, stays. True when
    /// there is more to do.
    pub fn page_out(&mut self, most: u64) -> bool {
        let Some(window) = self.limits.window else { return false };
        let mut written = 0_u64;
        for at in 0..self.ready.levels() {
            while self.ready.len() > window.messages || self.ready.held() > window.bytes {
                let Some(last) = self.ready.tail_of(at) else { break };
                if !last.logged {
                    if written >= most {
                        return true;
                    }
                    written = written.saturating_add(last.size);
                    if !self.journal.takes(last.durable, true) || !self.journal.queued(last, true) {
                        return false;
                    }
                }
                let Some(last) = self.ready.pop_tail_of(at) else { break };
                self.outside.add_first(last.priority, last.position, last.size);
            }
        }
        false
    }

    /// Tells the journal of everything that it does not keep, because it keeps now what it did not before.
    pub fn keep_all(&mut self) {
        let Self { ready, delayed, holders, journal, .. } = self;
        ready.each(|message| message.logged = message.logged || journal.queued(message, false));
        delayed.each(|message, until| {
            if !message.logged && journal.queued(message, false) {
                message.logged = true;
                journal.returned(message, until);
            }
        });
        for holder in holders.iter_mut() {
            holder.unsettled.each(|message| {
                if !message.logged && journal.queued(message, false) {
                    message.logged = true;
                    journal.given(message.priority, message.position..message.position.saturating_add(1));
                }
            });
        }
    }

    pub(super) fn purge_outside(&mut self) -> u64 {
        let mut purged = 0;
        while let Some(priority) =
            self.outside.occupied().highest().and_then(|level| u8::try_from(level).ok())
        {
            let from = self.outside.from(priority);
            self.journal.gone(priority, from..self.next, Gone::Purged);
            purged += self.outside.clear(priority);
        }
        purged
    }
}
