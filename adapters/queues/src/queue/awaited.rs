//! Levels of which more is on its way, for whoever keeps most of the messages elsewhere.

use super::Queue;
use crate::journal::Journal;

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// Says whether more of a level is on its way. Then its turn is waited for when it has nothing: what comes behind it is
    /// given to nobody before, as if the level had something that nobody can take.
    pub fn await_level(&mut self, level: u8, is_awaited: bool) {
        let level = usize::from(level);
        if self.awaited.has(level) != is_awaited {
            self.awaited.set(level, is_awaited);
            self.set_care();
        }
    }

    /// True when a level has its turn, with something or not.
    pub(super) fn has_turn(&self, level: usize) -> bool {
        self.awaited.has(level) || self.has_level(level)
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::Settle;

    use crate::{Consumer, Limits, Offer, Queue};

    /// A queue of four levels, and one consumer that settles nothing.
    fn queue(weighted: bool) -> Queue<u8> {
        let mut queue = Queue::new(0, Limits { max_priority: 3, weighted, ..Limits::default() });
        queue.add_consumer(Consumer::new(1, 1, Settle::OnDelivery)).unwrap();
        queue.set_paused(1, false);
        queue
    }

    fn push(queue: &mut Queue<u8>, level: u8) {
        let offer = Offer {
            body: level,
            size: 1,
            priority: level,
            expiry: None,
            key: 0,
            delay: 0,
            durable: false,
            apart: false,
        };
        queue.push(0, offer, &mut Vec::new());
    }

    fn given(queue: &mut Queue<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        queue.dispatch(0, &mut out);
        out.into_iter().map(|assignment| assignment.message.body).collect()
    }

    #[test]
    fn what_is_lower_waits_for_a_level_of_which_more_is_on_its_way() {
        let mut queue = queue(false);
        queue.await_level(2, true);
        [0, 3, 1].into_iter().for_each(|level| push(&mut queue, level));
        assert_eq!(given(&mut queue), [3]);
        assert!(queue.fetch(0, 2, 2, true).is_none(), "who asks for one waits, too");
        push(&mut queue, 2);
        assert_eq!(given(&mut queue), [2], "there may be more");
        queue.await_level(2, false);
        assert_eq!(given(&mut queue), [1, 0]);
    }

    #[test]
    fn where_levels_have_shares_the_turn_of_one_is_waited_for() {
        let mut queue = queue(true);
        queue.await_level(3, true);
        (0..6).for_each(|_| push(&mut queue, 2));
        assert!(given(&mut queue).is_empty(), "the highest is first");
        push(&mut queue, 3);
        assert_eq!(given(&mut queue), [3, 2], "and next but one");
        queue.await_level(3, false);
        assert_eq!(given(&mut queue), [2; 5]);
    }
}
