//! Client identifiers in use: each names one connection, the newest (MQTT 5 §3.1.4 [MQTT-3.1.4-3]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::mailbox::Mailbox;

/// All clients of one door.
#[derive(Debug, Default)]
pub(super) struct Registry {
    holders: Mutex<HashMap<Arc<str>, Arc<Mailbox>, RandomState>>,
    stopping: AtomicBool,
}

/// A connection's hold on its client identifier; dropping it gives the identifier back, unless another has it by now.
#[derive(Debug)]
pub(super) struct Claim {
    registry: Arc<Registry>,
    identifier: Arc<str>,
    mailbox: Arc<Mailbox>,
}

/// Answers, with an error, when the connection that had the identifier before is gone.
pub(super) type Gone = oneshot::Receiver<()>;

impl Registry {
    /// Gives `identifier` to the connection with this mailbox. The one that had it is told to go.
    pub(super) fn claim(
        self: &Arc<Self>,
        identifier: &Arc<str>,
        mailbox: &Arc<Mailbox>,
    ) -> (Claim, Option<Gone>) {
        let before = self.holders.lock().insert(Arc::clone(identifier), Arc::clone(mailbox));
        if self.stopping.load(Ordering::SeqCst) {
            mailbox.stop();
        }
        let gone = before.map(|before| {
            let (successor, gone) = oneshot::channel();
            before.take_over(successor);
            gone
        });
        let (registry, identifier, mailbox) = (Arc::clone(self), Arc::clone(identifier), Arc::clone(mailbox));
        (Claim { registry, identifier, mailbox }, gone)
    }

    /// Tells all clients, those to come included, that Linkspan goes down.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let all: Vec<_> = self.holders.lock().values().cloned().collect();
        all.iter().for_each(|mailbox| mailbox.stop());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut holders = self.registry.holders.lock();
        if let Entry::Occupied(holder) = holders.entry(Arc::clone(&self.identifier))
            && Arc::ptr_eq(holder.get(), &self.mailbox)
        {
            holder.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn who_comes_while_the_door_stops_is_told_too() {
        let registry = Arc::new(Registry::default());
        let letters = |mailbox: &Mailbox| mailbox.collect(&Context::from_waker(Waker::noop()));
        let (early, late) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        let _early = registry.claim(&"early".into(), &early);
        assert!(letters(&early).is_none());
        registry.stop();
        let _late = registry.claim(&"late".into(), &late);
        assert!(letters(&early).is_some_and(|letters| letters.stop));
        assert!(letters(&late).is_some_and(|letters| letters.stop));
    }

    #[test]
    fn the_newest_connection_has_the_identifier_mqtt_3_1_4_3() {
        let registry = Arc::new(Registry::default());
        let name: Arc<str> = "thermometer".into();
        let (old, new) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        let (old_claim, nobody) = registry.claim(&name, &old);
        assert!(nobody.is_none());
        let (new_claim, gone) = registry.claim(&name, &new);
        let mut gone = gone.unwrap();
        let letters = old.collect(&Context::from_waker(Waker::noop())).unwrap();
        assert!(gone.try_recv() == Err(oneshot::error::TryRecvError::Empty), "the old one is still there");
        drop(letters);
        assert!(gone.try_recv() == Err(oneshot::error::TryRecvError::Closed), "the old one is gone");
        drop(old_claim);
        assert_eq!(registry.holders.lock().len(), 1, "the old one's end does not end the new one's claim");
        drop(new_claim);
        assert_eq!(registry.holders.lock().len(), 0);
    }
}
