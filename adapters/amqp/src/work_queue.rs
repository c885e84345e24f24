//! The queues of routes: what their routes say of them, and where their messages are worked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::Terms;
use parking_lot::RwLock;

use crate::desk::{self, Desk};

/// A queue of a route.
struct WorkQueue {
    /// As its route was the last time that it declared the queue.
    terms: Arc<Terms>,
    kind: Kind,
    /// Where its messages are worked, as soon as somebody has worked one here under terms that the broker does not know.
    desk: Option<Arc<Desk>>,
}

/// How a queue is declared at the broker, as far as it matters to who works its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) is_quorum: bool,
    /// One consumer at a time.
    pub(crate) single_active: bool,
}

/// All of them, by their names, as far as their routes ask for something.
#[derive(Default)]
pub(crate) struct WorkQueues {
    queues: RwLock<HashMap<Box<str>, WorkQueue, RandomState>>,
    /// Grows with each change.
    edition: AtomicU64,
    /// The last number that somebody at a desk was given.
    numbers: AtomicU64,
}

impl WorkQueues {
    /// A route has declared its queue.
    pub(crate) fn note(&self, name: &str, terms: &Arc<Terms>, kind: Kind) {
        let mut queues = self.queues.write();
        match queues.get_mut(name) {
            Some(queue) => {
                queue.kind = kind;
                if queue.terms == *terms {
                    return;
                }
                queue.terms = Arc::clone(terms);
                if let Some(desk) = &queue.desk {
                    desk.set_terms(terms);
                }
            }
            None if **terms == Terms::default() => return,
            None => {
                queues.insert(name.into(), WorkQueue { terms: Arc::clone(terms), kind, desk: None });
            }
        }
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// The queue has no route any more.
    pub(crate) fn lose_route(&self, name: &str) {
        let kind = self.queues.read().get(name).map(|queue| queue.kind);
        if let Some(kind) = kind {
            self.note(name, &Arc::default(), kind);
        }
    }

    /// The queue is gone.
    pub(crate) fn forget(&self, name: &str) {
        let Some(queue) = self.queues.write().remove(name) else { return };
        self.edition.fetch_add(1, Ordering::Release);
        if let Some(desk) = queue.desk {
            desk.close();
        }
    }

    /// What its route says of the queue of that name.
    pub(crate) fn terms(&self, name: &str) -> Option<Arc<Terms>> {
        self.queues.read().get(name).map(|queue| Arc::clone(&queue.terms))
    }

    /// The desk of a queue where there is one, or must be one: then `make` makes it.
    pub(crate) fn desk(
        &self,
        name: &str,
        make: impl FnOnce(&Arc<Terms>, Kind) -> Arc<Desk>,
    ) -> Option<Arc<Desk>> {
        if let Some(desk) = self.desk_there(name) {
            return Some(desk);
        }
        let mut queues = self.queues.write();
        let queue = queues.get_mut(name)?;
        if queue.desk.is_none() && desk::is_needed(&queue.terms, queue.kind.is_quorum) {
            queue.desk = Some(make(&queue.terms, queue.kind));
        }
        queue.desk.clone()
    }

    /// The desk of a queue where there is one.
    pub(crate) fn desk_there(&self, name: &str) -> Option<Arc<Desk>> {
        self.queues.read().get(name)?.desk.clone()
    }

    /// A number for a consumer, or a lane, that nobody at a desk has had.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
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
        let kind = Kind { is_quorum: false, single_active: false };
        let plain = Arc::new(Terms::default());
        queues.note("jobs", &plain, kind);
        assert_eq!((queues.edition(), queues.terms("jobs")), (0, None), "it asks for nothing");
        let short = Arc::new(Terms { expiry: Some(1000), ..Terms::default() });
        queues.note("jobs", &short, kind);
        queues.note("jobs", &short, kind);
        assert_eq!((queues.edition(), queues.terms("jobs")), (1, Some(Arc::clone(&short))));
        queues.note("jobs", &plain, kind);
        assert_eq!((queues.edition(), queues.terms("jobs")), (2, Some(plain)));
        queues.note("jobs", &short, kind);
        queues.lose_route("jobs");
        assert_eq!((queues.edition(), queues.terms("jobs")), (4, Some(Arc::default())));
        queues.forget("jobs");
        queues.forget("jobs");
        assert_eq!((queues.edition(), queues.terms("jobs")), (5, None));
    }
}
