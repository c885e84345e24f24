//! Time passes.

use linkspan_contract::Millis;

use super::Queue;
use super::settle::Wait;
use crate::effect::{DeadReason, Effect};
use crate::journal::Journal;
use crate::offer::NEVER;

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// When [`Queue::tick`] has something to do, or a little before; costs nothing.
    #[inline]
    pub fn next_tick(&self) -> Option<Millis> {
        (self.wake != NEVER).then_some(self.wake)
    }

    /// Carries out what is due: messages at the head of their level expire, delayed ones become ready, deliveries past
    /// their deadline come back, an unused queue asks to be deleted. Says when to call it next; `dispatch` comes
    /// between.
    pub fn tick(&mut self, now: Millis) -> Option<Millis> {
        if now < self.wake {
            return self.next_tick();
        }
        while let Some(message) = self.delayed.pop(now) {
            self.has_waited(&message);
            self.make_ready(message);
        }
        self.wake_stubs(now);
        for holder in self.holders.iter_mut() {
            let count = holder.unsettled.take_due(now, |message| self.coming_back.push(message));
            if count > 0 {
                self.unsettled = self.unsettled.saturating_sub(count.into());
                self.effects.push(Effect::Overdue { consumer: holder.id, count });
            }
        }
        if !self.coming_back.is_empty() {
            self.come_back(now, Wait::Retry);
            self.holders.tidy_all();
        }
        self.wake = self.expire_parked(now);
        for level in (0..self.ready.levels()).rev() {
            while self.first_here(level).is_some_and(|first| first.is_expired(now)) {
                let Some(message) = self.ready.pop_of(level) else { break };
                let key = message.key;
                self.bury(message, DeadReason::Expired);
                self.unpark(key);
            }
            if let Some(first) = self.first_here(level) {
                self.wake = self.wake.min(first.deadline);
            }
        }
        let due = self.holders.iter().map(|(_, holder)| holder.unsettled.next_due()).min();
        self.wake = self.wake.min(due.unwrap_or(NEVER)).min(self.delayed.next().unwrap_or(NEVER));
        if let Some(end) = self.end_of_idleness() {
            if end <= now {
                self.idle = None;
                self.effects.push(Effect::Unused);
            } else {
                self.wake = self.wake.min(end);
            }
        }
        self.next_tick()
    }

    /// The queue was declared again: its idleness begins anew.
    pub fn touch(&mut self, now: Millis) {
        self.idle = (self.consumers == 0).then_some(now);
        if let Some(end) = self.end_of_idleness() {
            self.wake = self.wake.min(end);
        }
    }

    /// When the queue will have been unused for too long.
    fn end_of_idleness(&self) -> Option<Millis> {
        Some(self.idle?.saturating_add(self.limits.expires?))
    }
}
