//! A message on its way into a queue, and in it.

use linkspan_contract::Millis;

use crate::keys::Key;

/// A message's place in its queue: counts up from 0, and is kept when the message comes back.
pub type Position = u64;

/// The deadline of what never expires.
pub const NEVER: Millis = Millis::MAX;

/// A message offered to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<B> {
    /// Its handle; the engine never looks inside.
    pub body: B,
    /// What it counts in bytes.
    pub size: u64,
    /// Its priority; what lies above the queue's highest level counts as that.
    pub priority: u8,
    /// Milliseconds after which it is dead; zero: only to who can take it at once.
    pub expiry: Option<Millis>,
    /// What makes it go to who has others with the same, where that counts; zero: nothing.
    pub key: Key,
    /// Milliseconds that it is held back before it is ready; its expiry counts from then on.
    pub delay: Millis,
    /// To be kept on disk by a durable queue; and what a consumer that settles
    /// [`AsPublished`](linkspan_contract::Settle::AsPublished) has to settle.
    pub durable: bool,
    /// Most of what it counts is not in memory.
    pub apart: bool,
}

/// What [`Queue::push`](crate::Queue::push) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The queue has taken responsibility for it.
    Queued,
    /// The queue is full and refuses what does not fit.
    Refused,
    /// It would have to be written down, and cannot be now: try again later.
    Unwritable,
}

/// A message in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued<B> {
    /// Its handle.
    pub body: B,
    /// Its place among those of its priority.
    pub position: Position,
    /// What it counts in bytes.
    pub size: u64,
    /// When it came.
    pub since: Millis,
    /// From when on it is dead; [`NEVER`] when it does not expire.
    pub deadline: Millis,
    /// How often it was given out before.
    pub attempts: u32,
    /// Its key; a journal does not keep it.
    pub key: Key,
    /// Its level.
    pub priority: u8,
    /// To be kept on disk.
    pub durable: bool,
    /// The journal keeps it.
    pub logged: bool,
    /// Most of what it counts is not in memory.
    pub apart: bool,
    /// Its consumer has said that it has it.
    pub received: bool,
}

/// What a message counts for the memory whose body lies elsewhere.
const APART: u64 = 16 << 10;

impl<B> Queued<B> {
    /// What it counts for the memory.
    #[inline]
    pub(crate) const fn held(&self) -> u64 {
        if self.apart { APART } else { self.size }
    }

    /// The same with another handle.
    pub fn with<C>(self, body: C) -> Queued<C> {
        let Self { position, size, since, deadline, attempts, key, priority, durable, .. } = self;
        let Self { logged, apart, received, .. } = self;
        Queued {
            body,
            position,
            size,
            since,
            deadline,
            attempts,
            key,
            priority,
            durable,
            logged,
            apart,
            received,
        }
    }

    /// Milliseconds that it has been in the queue.
    pub fn age(&self, now: Millis) -> u64 {
        now.saturating_sub(self.since)
    }

    /// True from its deadline on.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.deadline <= now
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_queued_message_with_its_handle_takes_a_cache_line() {
        assert_eq!(size_of::<Queued<(Arc<str>, u32)>>() - size_of::<(Arc<str>, u32)>() + 16, 64);
        assert_eq!(size_of::<Queued<linkspan_contract::Kept>>(), 64);
        assert_eq!(size_of::<Option<Queued<u64>>>(), size_of::<Queued<u64>>());
    }
}
