//! What a durable log is told.

use std::ops::Range;

use linkspan_contract::Millis;

use crate::offer::{Position, Queued};

/// Told of every change that outlives a restart, in order, while the owner's lock is held: an implementation appends to
/// a buffer and writes elsewhere.
///
/// # Rebuilding a queue
///
/// A message is in the queue when it was [`queued`](Journal::queued) and not [`gone`](Journal::gone) since. Its
/// position, priority, time of arrival and deadline are those of `queued`; its attempts those of the last `queued` or
/// [`returned`](Journal::returned), and one more for each [`given`](Journal::given) behind that; it stays
/// [`received`](Journal::received); it is delayed until
/// the `not_before` of the last `returned` when no `given` is behind it.
/// [`Queue::restore`](crate::Queue::restore) takes them in any order.
///
/// A [`Gone::Dead`] is written behind what the owner makes of the [`Effect::Dead`](crate::Effect::Dead), or the dead
/// letter can be lost between the two.
pub trait Journal<B> {
    /// False when nothing is recorded: then nothing is prepared for it either.
    const RECORDS: bool = true;

    /// False when it cannot take a message now, though it had to: one that is `durable`, or that is `paged`.
    fn takes(&self, durable: bool, paged: bool) -> bool {
        let _ = (durable, paged);
        true
    }

    /// The queue has taken this message, or taken it back. One that is `paged` is kept nowhere else. False when the
    /// journal does not keep it: then it is told nothing more of it.
    fn queued(&mut self, message: &Queued<B>, paged: bool) -> bool;

    /// These, of one priority, were given to consumers that will settle them.
    fn given(&mut self, priority: u8, positions: Range<Position>);

    /// This one came back, with its attempts counted, or is held back, and is ready from `not_before` on.
    fn returned(&mut self, message: &Queued<B>, not_before: Millis);

    /// The consumer of this one, which is unsettled, has it: it is not to be given again as if it had not, whatever is
    /// told of it later.
    fn received(&mut self, message: &Queued<B>);

    /// These, of one priority, have left the queue. What was purged is told as a range that may hold positions of others.
    fn gone(&mut self, priority: u8, positions: Range<Position>, how: Gone);
}

/// How messages left a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gone {
    /// A consumer accepted them, or did not have to.
    Accepted,
    /// As dead letters.
    Dead,
    /// By [`Queue::purge`](crate::Queue::purge).
    Purged,
    /// They were given back to the publisher as refused.
    Refused,
}

/// Records nothing and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoJournal;

impl<B> Journal<B> for NoJournal {
    const RECORDS: bool = false;

    #[inline]
    fn queued(&mut self, _message: &Queued<B>, _paged: bool) -> bool {
        false
    }

    #[inline]
    fn given(&mut self, _priority: u8, _positions: Range<Position>) {}

    #[inline]
    fn returned(&mut self, _message: &Queued<B>, _not_before: Millis) {}

    #[inline]
    fn received(&mut self, _message: &Queued<B>) {}

    #[inline]
    fn gone(&mut self, _priority: u8, _positions: Range<Position>, _how: Gone) {}
}

/// Positions of one priority that follow each other, gathered so that the journal is told once.
#[derive(Debug, Default)]
pub(crate) struct Run {
    priority: u8,
    range: Range<Position>,
}

impl Run {
    /// Adds a position; yields the run before it when it does not continue that.
    #[inline]
    pub(crate) fn join(&mut self, priority: u8, position: Position) -> Option<(u8, Range<Position>)> {
        let next = position.saturating_add(1);
        if self.range.end == position && self.priority == priority && !self.range.is_empty() {
            self.range.end = next;
            return None;
        }
        let before = std::mem::replace(self, Self { priority, range: position..next });
        before.end()
    }

    /// What is left.
    pub(crate) fn end(self) -> Option<(u8, Range<Position>)> {
        (!self.range.is_empty()).then_some((self.priority, self.range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_that_follow_each_other_make_one_run() {
        let mut run = Run::default();
        assert_eq!(run.join(3, 0), None);
        assert_eq!(run.join(3, 1), None);
        assert_eq!(run.join(3, 5), Some((3, 0..2)));
        assert_eq!(run.join(3, 4), Some((3, 5..6)));
        assert_eq!(run.join(2, 5), Some((3, 4..5)), "another level is another run");
        assert_eq!(run.end(), Some((2, 5..6)));
        assert_eq!(Run::default().end(), None);
    }
}
