//! Letting go what is beyond the limits.

use super::Queue;
use crate::effect::DeadReason;
use crate::journal::Journal;
use crate::keys::{Key, Parked};
use crate::limits::Overflow;
use crate::offer::{Position, Queued};

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// Lets the head go until the queue is within its limits.
    pub(super) fn drop_head(&mut self) {
        while self.limits.overflow == Overflow::DropHead && self.exceeds(0, 0) && self.drop_one() {}
    }

    /// Lets go what would be given out next if nobody had others of its key; false when that, or one that was to go before it,
    /// has to be brought in first.
    fn drop_one(&mut self) -> bool {
        let Some(level) = self.level_to_drop() else { return false };
        let others_go_first = !self.delayed.doomed().is_empty();
        if let Some(parked) = self.take_first_parked(level, others_go_first) {
            match parked {
                Parked::Whole(message) => self.bury(message, DeadReason::MaxLength),
                Parked::Stub { stub, .. } => self.delayed.doom(stub),
            }
            return true;
        }
        if others_go_first || self.first_here(level).is_none() {
            return false;
        }
        let Some(message) = self.ready.pop_of(level) else { return false };
        let key = message.key;
        self.bury(message, DeadReason::MaxLength);
        self.unpark(key);
        true
    }

    fn level_to_drop(&self) -> Option<usize> {
        let Some(keys) = &self.keys else { return self.head_level() };
        let is_parked = |level| u8::try_from(level).is_ok_and(|level| keys.first_of(level).is_some());
        match &self.shares {
            Some(shares) => shares.next(|level| self.has_level(level) || is_parked(level)),
            None => self.head_level().max(keys.highest()),
        }
    }

    /// What waits for others of its key, when nothing of its level stands before it, and perhaps only a stub.
    fn take_first_parked(&mut self, level: usize, only_stub: bool) -> Option<Parked<B>> {
        let keys = self.keys.as_mut()?;
        let priority = u8::try_from(level).ok()?;
        let (position, key) = keys.first_of(priority)?;
        let ready = self.ready.first_of(level).map(|first| first.position);
        let mut others = ready.into_iter().chain(self.delayed.due_of(priority));
        let is_first = others.all(|other| position < other);
        let may_go = !only_stub || keys.is_stub(key, priority, position);
        if is_first && may_go { keys.take_at(key, priority, position) } else { None }
    }

    /// What was pushed a moment ago, if nobody has it yet.
    pub(super) fn take_pushed(&mut self, key: Key, priority: u8, position: Position) -> Option<Queued<B>> {
        match self.keys.as_mut().and_then(|keys| keys.take_at(key, priority, position)) {
            Some(Parked::Whole(message)) => Some(message),
            Some(Parked::Stub { stub, .. }) => {
                self.delayed.want(stub);
                None
            }
            None => self.ready.pop_last(priority, position),
        }
    }

    /// True when this much more would be too much.
    #[inline]
    pub(super) fn exceeds(&self, messages: u64, bytes: u64) -> bool {
        let Self { limits, .. } = self;
        limits.max_length.is_some_and(|max| self.staying_len().saturating_add(messages) > max)
            || limits.max_bytes.is_some_and(|max| self.staying_bytes().saturating_add(bytes) > max)
    }

    /// Messages that are ready, and not to be let go.
    pub(super) fn staying_len(&self) -> u64 {
        let due = self.delayed.due().len() as u64;
        let parked = self.keys.as_ref().map_or(0, |keys| keys.len());
        self.ready.len().saturating_add(self.outside.len()).saturating_add(due).saturating_add(parked)
    }

    /// Their bytes.
    pub(super) fn staying_bytes(&self) -> u64 {
        let parked = self.keys.as_ref().map_or(0, |keys| keys.bytes());
        let here = self.ready.bytes().saturating_add(self.outside.bytes()).saturating_add(parked);
        if self.delayed.due().is_empty() {
            return here;
        }
        here.saturating_add(self.delayed.due().values().map(|owed| u64::from(owed.size)).sum())
    }
}
