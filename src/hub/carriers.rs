//! The hub's movers: what carries dead letters, copies for bindings, and what a moved queue still held.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use crate::mover::{Mover, Running};

/// What a mover is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Errand {
    /// It empties a queue that lost its route.
    Drain {
        /// The namespace.
        vhost: Arc<str>,
        /// The back end of the queue.
        backend: Arc<str>,
        /// The queue.
        queue: Arc<str>,
    },
    /// It carries dead letters of a route's queue to their address.
    DeadLetters {
        /// The namespace.
        vhost: Arc<str>,
        /// The back end of the queue.
        backend: Arc<str>,
        /// The queue that they come from.
        queue: Arc<str>,
    },
    /// It carries on what waits in a spool.
    Spool {
        /// The namespace.
        vhost: Arc<str>,
        /// The back end that was spooled for.
        backend: Arc<str>,
        /// The spool's queue.
        queue: Arc<str>,
    },
    /// It carries copies to a client's queue.
    Copies {
        /// The namespace.
        vhost: Arc<str>,
        /// The client's queue, on the home back end.
        queue: Arc<str>,
        /// Where the copies come from.
        backend: Arc<str>,
    },
}

/// A client's queue: vhost and name.
pub type Client = (Arc<str>, Arc<str>);

/// The movers at work, and the bindings that some of them are for.
#[derive(Default)]
pub struct Carriers {
    running: Mutex<HashMap<Errand, (Mover, Running)>>,
    /// The keys by which clients have bound queues to the address space.
    pub bindings: Mutex<HashMap<Client, BTreeSet<Box<[u8]>>>>,
    /// The keys that an earlier life knew of queues that were not looked for yet.
    pub recalled: Mutex<BTreeMap<Client, BTreeSet<Box<[u8]>>>>,
    /// Queues that may be gone since their client is, and how often they are still looked for.
    pub suspects: Mutex<HashMap<Client, u8>>,
    /// So many queues had bindings when those that are gone were last forgotten.
    pub live: AtomicUsize,
}

impl Carriers {
    /// Starts a mover, unless the same one is at work; another one for that errand makes place. False when it was at work.
    pub fn start(&self, errand: Errand, mut mover: Mover) -> bool {
        let mut running = self.running.lock();
        if let Some((other, _)) = running.get(&errand).filter(|(_, it)| !it.is_done()) {
            if other.does_the_same_as(&mover) {
                return false;
            }
            mover.succeed(other);
        }
        running.insert(errand, (mover.clone(), mover.start()));
        true
    }

    /// Forgets those that are done: what they were for.
    pub fn take_done(&self) -> Vec<Errand> {
        self.running.lock().extract_if(|_, (_, it)| it.is_done()).map(|(errand, _)| errand).collect()
    }

    /// Whether somebody is on that errand.
    pub fn has(&self, errand: &Errand) -> bool {
        self.running.lock().contains_key(errand)
    }

    /// Ends those whose errand `is_over` says so of, and gives them back.
    pub fn end(&self, is_over: impl Fn(&Errand) -> bool) -> Vec<(Errand, Mover)> {
        let ended: Vec<_> = self.running.lock().extract_if(|errand, _| is_over(errand)).collect();
        ended.into_iter().map(|(errand, (mover, _))| (errand, mover)).collect()
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// How many keys they have still to unbind.
    #[cfg(test)]
    pub fn unbound(&self) -> usize {
        self.running.lock().values().map(|(mover, _)| mover.unbound.lock().len()).sum()
    }
}
