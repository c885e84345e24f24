//! The queues of routes: what their routes say of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::Terms;
use parking_lot::RwLock;

/// A queue of a route.
#[derive(Debug, Clone)]
pub(crate) struct WorkQueue {
    /// As its route was the last time that it declared the queue.
    pub(crate) terms: Arc<Terms>,
}

/// All of them, by their names, as far as their routes ask for something.
#[derive(Debug, Default)]
pub(crate) struct WorkQueues {
    queues: RwLock<HashMap<Box<str>, WorkQueue, RandomState>>,
    /// Grows with each change.
    edition: AtomicU64,
}

impl WorkQueues {
    /// A route has declared its queue.
    pub(crate) fn note(&self, name: &str, terms: &Arc<Terms>) {
        let mut queues = self.queues.write();
        let asks = **terms != Terms::default();
        match queues.get_mut(name) {
            Some(queue) if queue.terms == *terms => return,
            Some(queue) => queue.terms = Arc::clone(terms),
            None if !asks => return,
            None => _ = queues.insert(name.into(), WorkQueue { terms: Arc::clone(terms) }),
        }
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// The queue is gone.
    pub(crate) fn forget(&self, name: &str) {
        if self.queues.write().remove(name).is_some() {
            self.edition.fetch_add(1, Ordering::Release);
        }
    }

    /// What its route says of the queue of that name.
    pub(crate) fn terms(&self, name: &str) -> Option<Arc<Terms>> {
        self.queues.read().get(name).map(|queue| Arc::clone(&queue.terms))
    }

    /// Another number when something has changed.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_route_counts() {
        let queues = WorkQueues::default();
        let plain = Arc::new(Terms::default());
        queues.note("jobs", &plain);
        assert_eq!((queues.edition(), queues.terms("jobs")), (0, None), "it asks for nothing");
        let short = Arc::new(Terms { expiry: Some(1000), ..Terms::default() });
        queues.note("jobs", &short);
        queues.note("jobs", &short);
        assert_eq!((queues.edition(), queues.terms("jobs")), (1, Some(short)));
        queues.note("jobs", &plain);
        assert_eq!((queues.edition(), queues.terms("jobs")), (2, Some(plain)));
        queues.forget("jobs");
        queues.forget("jobs");
        assert_eq!((queues.edition(), queues.terms("jobs")), (3, None));
    }
}
