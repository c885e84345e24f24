//! The queues of routes: what their routes say of them, and where their messages are worked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Clock, Deduplicate, Ledger, Refused, Terms};
use parking_lot::RwLock;
use tokio::sync::OnceCell;

use crate::desk::{self, Desk};
use crate::goal::short;
use crate::levels::Levels;
use crate::levels::store::Store;
use crate::repeats::{Repeats, coordinator};

/// A queue of a route.
struct WorkQueue {
    /// As its route was the last time that it declared the queue.
    terms: Arc<Terms>,
    kind: Kind,
    /// The queues that it has for its levels, where it has some.
    levels: Option<Arc<Levels>>,
    /// What it is known to have taken, where its route says so.
    repeats: Option<Arc<Repeats>>,
    /// A route has declared it.
    is_of_route: bool,
    /// One has it now, as far as this instance knows.
    has_route: bool,
    /// Where its messages are worked, as soon as somebody has worked one here under terms that the broker does not know.
    desk: Option<Arc<Desk>>,
}

impl WorkQueue {
    /// One that no route has declared.
    fn of_nobody() -> Self {
        let kind = Kind { is_quorum: false, single_active: false, has_levels: false };
        Self {
            terms: Arc::default(),
            kind,
            levels: None,
            repeats: None,
            is_of_route: false,
            has_route: false,
            desk: None,
        }
    }
}

/// How a queue is declared at the broker, as far as it matters to who works its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) is_quorum: bool,
    /// One consumer at a time.
    pub(crate) single_active: bool,
    /// Each level is a queue.
    pub(crate) has_levels: bool,
}

/// All of them, by their names, as far as their routes ask for something.
#[derive(Default)]
pub(crate) struct WorkQueues {
    queues: RwLock<HashMap<Box<str>, WorkQueue, RandomState>>,
    /// Grows with each change.
    edition: AtomicU64,
    /// The last number that somebody at a desk was given.
    numbers: AtomicU64,
    /// Where it is written down what queues have taken.
    memory: Option<Memory>,
    /// It is known what was written down of levels.
    recalled: OnceCell<()>,
}

/// Where it is written down what queues have taken, for which broker, by whom.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The back end's name, and the broker's vhost.
    pub(crate) broker: (Arc<str>, String),
    /// Which Linkspan this is.
    pub(crate) instance: Arc<str>,
}

impl Memory {
    /// What the queue of that name is known to have taken.
    fn of(&self, queue: &str, how: &Deduplicate) -> Arc<Repeats> {
        let repeats = Arc::new(Repeats::new(how, Arc::clone(&self.clock)));
        let plan = coordinator::Plan {
            ledger: Arc::clone(&self.ledger),
            clock: Arc::clone(&self.clock),
            prefix: format!("repeats/{}/", self.name_of(&[queue])),
            instance: Arc::clone(&self.instance),
        };
        coordinator::start(&repeats, plan);
        repeats
    }

    /// What stands in the ledger for the broker, or something of that name there.
    fn name_of(&self, of: &[&str]) -> String {
        let mut name = Blake2b::<U16>::new();
        for part in [&*self.broker.0, &*self.broker.1].iter().chain(of) {
            name.update((part.len() as u64).to_le_bytes());
            name.update(part.as_bytes());
        }
        let name: [u8; 16] = name.finalize().into();
        format!("{:032x}", u128::from_be_bytes(name))
    }
}

impl WorkQueues {
    /// None, which remember what they have taken there.
    pub(crate) fn with_memory(memory: Option<Memory>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// What a queue of that name is known to have taken, under these terms.
    fn repeats_of(&self, name: &str, terms: &Terms, before: Option<Arc<Repeats>>) -> Option<Arc<Repeats>> {
        let how = terms.deduplicate.as_ref()?;
        let before = before.filter(|before| before.is(how));
        before.or_else(|| Some(self.memory.as_ref()?.of(name, how)))
    }

    /// What the queue of that name is known to have taken, where its route says so.
    pub(crate) fn repeats(&self, name: &str) -> Option<Arc<Repeats>> {
        self.queues.read().get(name)?.repeats.clone()
    }

    /// Where it is written down which queues have one for each of their levels.
    pub(crate) fn store(&self) -> Option<Store> {
        let memory = self.memory.as_ref()?;
        Some(Store::new(&memory.ledger, &memory.name_of(&[])))
    }

    /// Learns once which queues had one for each of their levels before, whoever has them now.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(crate) async fn recall(&self) -> Result<(), Refused> {
        let Some(store) = self.store() else { return Ok(()) };
        self.recalled
            .get_or_try_init(async || {
                for (name, highest) in store.all().await? {
                    let levels = Levels::new(&short("the queue", name.as_bytes())?, highest)?;
                    let mut queues = self.queues.write();
                    let queue = queues.entry(name.into()).or_insert_with(WorkQueue::of_nobody);
                    queue.levels.get_or_insert_with(|| Arc::new(levels));
                    queue.kind.has_levels = true;
                    queue.is_of_route = true;
                }
                self.edition.fetch_add(1, Ordering::Release);
                Ok(())
            })
            .await
            .map(drop)
    }

    /// The queues that the queue of that name has for its levels, also if it had them before.
    pub(crate) async fn known_levels(&self, name: &str) -> Option<Arc<Levels>> {
        if let Err(why) = self.recall().await {
            tracing::warn!(queue = name, %why, "a queue without route is taken for one that has no queues for levels");
        }
        self.levels(name)
    }

    /// The queues that the queue of that name has for its levels, where it has some.
    pub(crate) fn levels(&self, name: &str) -> Option<Arc<Levels>> {
        self.queues.read().get(name)?.levels.clone()
    }

    /// A route has declared its queue.
    pub(crate) fn note(&self, name: &str, terms: &Arc<Terms>, kind: Kind, levels: Option<Arc<Levels>>) {
        let mut queues = self.queues.write();
        match queues.get_mut(name) {
            Some(queue) => {
                queue.kind = kind;
                (queue.is_of_route, queue.has_route) = (true, true);
                if queue.terms == *terms && queue.levels == levels {
                    return;
                }
                if queue.levels != levels {
                    // Those before were gone: who works at their desk is told so there.
                    queue.desk.take().iter().for_each(|desk| desk.close());
                    queue.levels = levels;
                }
                queue.terms = Arc::clone(terms);
                queue.repeats = self.repeats_of(name, terms, queue.repeats.take());
                if let Some(desk) = &queue.desk {
                    desk.set_terms(terms);
                }
            }
            None if **terms == Terms::default() && !kind.single_active => return,
            None => {
                let (terms, repeats) = (Arc::clone(terms), self.repeats_of(name, terms, None));
                let (is_of_route, has_route) = (true, true);
                let queue = WorkQueue { terms, kind, levels, repeats, is_of_route, has_route, desk: None };
                queues.insert(name.into(), queue);
            }
        }
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// The queue has no route any more.
    pub(crate) fn lose_route(&self, name: &str) {
        let known = self.queues.read().get(name).map(|queue| (queue.kind, queue.levels.clone()));
        if let Some((kind, levels)) = known {
            self.note(name, &Arc::default(), kind, levels);
            self.queues.write().get_mut(name).into_iter().for_each(|queue| queue.has_route = false);
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

    /// The desk of a queue where there must be one: then `make` makes it. That is by the route's terms, or because who asks
    /// is `several`; the desks of these are theirs alone.
    pub(crate) fn desk(
        &self,
        name: &str,
        several: bool,
        make: impl FnOnce(&Arc<Terms>, Kind, Option<Arc<Levels>>) -> Arc<Desk>,
    ) -> Option<Arc<Desk>> {
        let is_needed = |queue: &WorkQueue| several || desk::is_needed(&queue.terms, queue.kind);
        {
            let queues = self.queues.read();
            match queues.get(name) {
                None if !several => return None,
                Some(queue) if !is_needed(queue) => return None,
                Some(WorkQueue { desk: Some(desk), .. }) => return Some(Arc::clone(desk)),
                _ => {}
            }
        }
        let mut queues = self.queues.write();
        let queue = queues.entry(name.into()).or_insert_with(WorkQueue::of_nobody);
        let desk = queue.desk.get_or_insert_with(|| make(&queue.terms, queue.kind, queue.levels.clone()));
        Some(Arc::clone(desk))
    }

    /// The queue is gone at the broker, and with it what is kept of one that no route has.
    pub(crate) fn lose_desk(&self, name: &str, desk: &Arc<Desk>) {
        let mut queues = self.queues.write();
        let Some(queue) = queues.get_mut(name) else { return };
        if queue.desk.take_if(|it| Arc::ptr_eq(it, desk)).is_some() && !queue.is_of_route {
            queues.remove(name);
            self.edition.fetch_add(1, Ordering::Release);
        }
    }

    /// Nobody works at the desk: it is forgotten, if no route has or had its queue and nobody is about to come. Then true.
    pub(crate) fn lose_idle_desk(&self, name: &str, desk: &Arc<Desk>) -> bool {
        let mut queues = self.queues.write();
        let is_it = |queue: &WorkQueue| {
            let own = queue.desk.as_ref().is_some_and(|it| Arc::ptr_eq(it, desk));
            // Who is given the desk is so while this is locked. There is one here, and the task's.
            own && !queue.is_of_route && Arc::strong_count(desk) <= 2
        };
        let is_idle = queues.get(name).is_some_and(is_it);
        if is_idle {
            queues.remove(name);
            self.edition.fetch_add(1, Ordering::Release);
        }
        is_idle
    }

    /// Whether a route has the queue of that name, as far as this instance knows.
    pub(crate) fn has_route(&self, name: &str) -> bool {
        self.queues.read().get(name).is_some_and(|queue| queue.has_route)
    }

    /// There is no such queue at the broker: it is forgotten, unless a route has it.
    pub(crate) fn has_none(&self, name: &str) {
        if self.queues.read().get(name).is_some_and(|queue| !queue.is_of_route) {
            self.forget(name);
        }
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
    use lapin::types::ShortString;
    use linkspan_contract::{Retry, SystemClock};

    use super::*;

    #[test]
    fn the_last_word_of_a_route_counts() {
        let queues = WorkQueues::default();
        let kind = Kind { is_quorum: false, single_active: false, has_levels: false };
        let plain = Arc::new(Terms::default());
        queues.note("jobs", &plain, kind, None);
        assert_eq!((queues.edition(), queues.terms("jobs")), (0, None), "it asks for nothing");
        let short = Arc::new(Terms { expiry: Some(1000), ..Terms::default() });
        queues.note("jobs", &short, kind, None);
        queues.note("jobs", &short, kind, None);
        assert_eq!((queues.edition(), queues.terms("jobs")), (1, Some(Arc::clone(&short))));
        queues.note("jobs", &plain, kind, None);
        assert_eq!((queues.edition(), queues.terms("jobs")), (2, Some(plain)));
        queues.note("jobs", &short, kind, None);
        queues.lose_route("jobs");
        assert_eq!((queues.edition(), queues.terms("jobs")), (4, Some(Arc::default())));
        queues.forget("jobs");
        queues.forget("jobs");
        assert_eq!((queues.edition(), queues.terms("jobs")), (5, None));
    }

    #[test]
    fn the_desk_of_a_queue_that_is_gone_is_forgotten_and_with_it_a_queue_that_no_route_has() {
        let queues = WorkQueues::default();
        let kind = Kind { is_quorum: false, single_active: false, has_levels: false };
        let retry = Some(Retry { delay: 1, factor: 100, max: 1 });
        queues.note("jobs", &Arc::new(Terms { retry, ..Terms::default() }), kind, None);
        let made = |name: &str| {
            let make = |terms: &Arc<Terms>, kind, levels| {
                let name = ShortString::try_new(name).unwrap();
                let (backend, of_route) = ("rabbit".into(), (Arc::clone(terms), kind, levels));
                Arc::new(Desk::new(name, &backend, "amq.topic", Arc::new(SystemClock), of_route))
            };
            queues.desk(name, true, make).unwrap()
        };
        let (jobs, leased) = (made("jobs"), made("leased"));
        queues.lose_desk("jobs", &leased);
        assert!(queues.desk_there("jobs").is_some(), "it is another's");
        let edition = queues.edition();
        queues.lose_desk("jobs", &jobs);
        assert!(
            queues.desk_there("jobs").is_none() && queues.terms("jobs").is_some_and(|it| it.retry == retry)
        );
        queues.lose_desk("leased", &leased);
        assert!(queues.terms("leased").is_none() && queues.edition() > edition);
        let idle = made("idle");
        let (task, guest) = (Arc::clone(&idle), Arc::clone(&idle));
        drop(idle);
        assert!(!queues.lose_idle_desk("idle", &task), "somebody is about to come");
        drop(guest);
        assert!(queues.lose_idle_desk("idle", &task) && queues.desk_there("idle").is_none());
        assert_eq!((Arc::strong_count(&jobs), Arc::strong_count(&leased)), (1, 1), "nothing holds them");
    }
}
