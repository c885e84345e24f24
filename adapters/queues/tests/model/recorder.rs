//! A journal in memory that can be read back.

use std::collections::BTreeMap;
use std::ops::Range;

use linkspan_queues::{Gone, Journal, Position, Queued};

/// Follows the rules of [`Journal`] for rebuilding a queue.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    messages: BTreeMap<Position, (Queued<u64>, u64)>,
}

impl Recorder {
    /// Each message that is in the queue, and when it is ready.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (Queued<u64>, u64)> {
        // Not in the order of their positions.
        let (even, odd): (Vec<_>, Vec<_>) =
            self.messages.values().cloned().partition(|(message, _)| message.position % 2 == 0);
        even.into_iter().chain(odd)
    }
}

impl Journal<u64> for Recorder {
    fn queued(&mut self, message: &Queued<u64>, _paged: bool) -> bool {
        let kept = Queued { logged: true, ..message.clone() };
        assert!(self.messages.insert(message.position, (kept, 0)).is_none(), "queued twice: {message:?}");
        true
    }

    fn given(&mut self, _priority: u8, positions: Range<Position>) {
        for position in positions {
            let (message, not_before) = self.messages.get_mut(&position).expect("what is given is there");
            message.attempts += 1;
            *not_before = 0;
        }
    }

    fn returned(&mut self, message: &Queued<u64>, not_before: u64) {
        let (kept, ready) = self.messages.get_mut(&message.position).expect("what returns is there");
        kept.attempts = message.attempts;
        assert_eq!(kept, message, "only its attempts change");
        *ready = not_before;
    }

    fn received(&mut self, message: &Queued<u64>) {
        let (kept, _) = self.messages.get_mut(&message.position).expect("what is received is there");
        kept.received = true;
    }

    fn gone(&mut self, priority: u8, positions: Range<Position>, how: Gone) {
        for position in positions {
            let kept = self.messages.get(&position).map(|(message, _)| message.priority);
            if how == Gone::Purged && kept != Some(priority) {
                continue;
            }
            assert_eq!(kept, Some(priority), "{position} went without having been there");
            self.messages.remove(&position);
        }
    }
}
