//! A namespace: its topology, and the epoch by which lanes know that it changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linkspan_contract::{Destination, Properties, Refused, What};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::embedded::BindingWatch;
use crate::house::House;
use crate::queue::Queue;
use crate::register::{Records, Register};
use crate::topology::{Routes, Topology};

/// Whether something went that was kept.
#[must_use]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Went(bool);

impl Went {
    /// What was to go was not there: it may have gone a moment ago, and not for good yet.
    pub(crate) fn or_before(self, found: bool) -> Self {
        Self(self.0 || !found)
    }
}

/// One vhost of the back end.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub(crate) name: Arc<str>,
    pub(crate) house: Arc<House>,
    /// Counts the changes; lanes find a target's way again when it differs.
    epoch: AtomicU64,
    topology: RwLock<Topology>,
    /// Where what is declared here is kept; none: it is gone when this is.
    records: Option<Records>,
}

impl Vhost {
    /// A vhost that keeps nothing.
    pub(crate) fn new(name: Arc<str>, house: Arc<House>, watch: Option<Arc<dyn BindingWatch>>) -> Self {
        let topology = RwLock::new(Topology::new(Arc::clone(&name), watch, false));
        Self { name, house, epoch: AtomicU64::new(1), topology, records: None }
    }

    /// A vhost whose durable declarations are kept.
    pub(crate) fn kept(
        name: Arc<str>,
        house: Arc<House>,
        watch: Option<Arc<dyn BindingWatch>>,
        register: Arc<Register>,
    ) -> Self {
        let topology = RwLock::new(Topology::new(Arc::clone(&name), watch, true));
        let records = Some(Records::new(register, Arc::clone(&name)));
        Self { name, house, epoch: AtomicU64::new(1), topology, records }
    }

    pub(crate) fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Where a message to `to` goes now.
    pub(crate) fn route(
        &self,
        to: &Destination<'_>,
        properties: Option<&Properties<'_>>,
    ) -> Result<Routes, Refused> {
        self.topology.read().route(to, properties)
    }

    /// Changes the topology. Lock order is topology before queue. What goes and was kept will be kept no more, without
    /// waiting for it.
    pub(crate) fn change<R>(&self, how: impl FnOnce(&mut Topology) -> R) -> R {
        self.undo(how).0
    }

    /// Changes the topology; also tells whether something went that was kept, of which [`settled`](Self::settled) knows
    /// when it is gone for good.
    pub(crate) fn undo<R>(&self, how: impl FnOnce(&mut Topology) -> R) -> (R, Went) {
        let mut topology: RwLockWriteGuard<'_, Topology> = self.topology.write();
        let result = how(&mut topology);
        self.epoch.fetch_add(1, Ordering::Release);
        let mut went = Went(false);
        if let Some(records) = &self.records {
            let gone = topology.take_gone();
            if !gone.is_empty() {
                went.0 = true;
                // Under the lock: the register has the topology's order.
                records.forget(gone);
            }
        }
        (result, went)
    }

    /// Waits until what went does not come back after a restart.
    pub(crate) async fn settled(&self, went: Went) -> Result<(), Refused> {
        match &self.records {
            Some(records) if went.0 => records.settled().await,
            _ => Ok(()),
        }
    }

    pub(crate) fn look(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read()
    }

    /// A queue that this client may use.
    pub(crate) fn queue(&self, name: &str, client: u64) -> Result<Arc<Queue>, Refused> {
        let topology = self.look();
        let queue =
            topology.queue(name).ok_or_else(|| Refused::NotFound { what: What::Queue, name: name.into() })?;
        queue.check_owner(client)?;
        Ok(Arc::clone(queue))
    }

    /// Takes a queue out of the topology and ends it; tells how many messages were ready.
    pub(crate) fn remove(&self, queue: &Arc<Queue>) -> u64 {
        self.change(|topology| match queue.group() {
            Some((group, filter)) => topology.remove_group(group, filter, queue),
            None => topology.remove_queue(queue),
        });
        queue.end()
    }

    /// Removes a queue that nobody uses any more: an auto-delete queue's last consumer, or a group's last member, went.
    pub(crate) fn leave(&self, queue: &Arc<Queue>) {
        let unused = self.change(|topology| {
            let unused = queue.is_left();
            if unused {
                match queue.group() {
                    Some((group, filter)) => topology.remove_group(group, filter, queue),
                    None => topology.remove_queue(queue),
                }
            }
            unused
        });
        if unused {
            queue.end();
        }
    }
}
