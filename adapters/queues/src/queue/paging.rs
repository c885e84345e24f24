//! Messages that are too many for the memory: the journal keeps them, and they are brought in when their turn comes.

use linkspan_contract::Millis;

use super::Queue;
use crate::effect::DeadReason;
use crate::journal::{Gone, Journal};
use crate::limits::Window;
use crate::offer::{Position, Queued};

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
        self.outside.len() == 0 || self.outside.occupied().highest() <= self.ready.highest()
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

    /// The next message of those that a level has outside; they come in the order of their positions.
    pub fn bring(&mut self, now: Millis, message: Queued<B>, not_before: Millis) {
        self.outside.take(message.priority, message.position, message.size);
        if self.limits.delivery_limit.is_some_and(|limit| message.attempts > limit) {
            // It was given out for the last time when the process that did so ended.
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
