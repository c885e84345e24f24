//! Client identifiers in use: each names one client, connected or away with its session kept (MQTT 5 §3.1.4
//! [MQTT-3.1.4-3]). Whoever comes asks the one that has the identifier for it, and gets it together with the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::mailbox::Mailbox;
use super::resting::Resting;

/// All clients of one door.
#[derive(Debug, Default)]
pub(super) struct Registry {
    holders: Mutex<HashMap<Arc<str>, Arc<Mailbox>, RandomState>>,
    stopping: AtomicBool,
}

/// A client's hold on its identifier; dropping it gives the identifier back.
#[derive(Debug)]
pub(super) struct Claim {
    registry: Arc<Registry>,
    identifier: Arc<str>,
    mailbox: Arc<Mailbox>,
}

/// What who has an identifier gives to who asks for it.
pub(super) struct Handed {
    /// The identifier.
    pub claim: Claim,
    /// The session, where there is one to go on with.
    pub resting: Option<Box<Resting>>,
}

/// Held by who has an identifier until it is handed over; when it is dropped the asker has to ask again.
pub(super) type Successor = oneshot::Sender<Handed>;

/// What asking for an identifier comes to.
pub(super) enum Asked {
    /// Nobody had it.
    Free(Claim),
    /// Somebody has, and hands it over; an error means that it is gone, or went to somebody else.
    Held(oneshot::Receiver<Handed>),
}

impl Registry {
    /// Asks for `identifier`. The one that has it is told to go.
    pub(super) fn ask(self: &Arc<Self>, identifier: &Arc<str>) -> Asked {
        if let Some(claim) = self.take(identifier) {
            return Asked::Free(claim);
        }
        let (successor, handed) = oneshot::channel();
        // When it has gone meanwhile the successor is dropped, and the asker asks again.
        if let Some(holder) = self.holders.lock().get(identifier) {
            holder.take_over(successor);
        }
        Asked::Held(handed)
    }

    /// Takes `identifier` if nobody has it.
    pub(super) fn take(self: &Arc<Self>, identifier: &Arc<str>) -> Option<Claim> {
        let mut holders = self.holders.lock();
        let Entry::Vacant(place) = holders.entry(Arc::clone(identifier)) else { return None };
        let mailbox = self.mailbox();
        place.insert(Arc::clone(&mailbox));
        Some(Claim { registry: Arc::clone(self), identifier: Arc::clone(identifier), mailbox })
    }

    /// Whether who has `identifier` was let in with a session that began then.
    pub(super) fn has_begun(&self, identifier: &str) -> bool {
        self.holders.lock().get(identifier).is_some_and(|mailbox| mailbox.has_begun())
    }

    /// Whether Linkspan goes down.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn mailbox(&self) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        if self.is_stopping() {
            mailbox.stop();
        }
        mailbox
    }

    /// Tells all clients, those to come included, that Linkspan goes down.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let all: Vec<_> = self.holders.lock().values().cloned().collect();
        all.iter().for_each(|mailbox| mailbox.stop());
    }
}

impl Claim {
    /// Where others leave what they have to say to who has the identifier.
    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The identifier.
    pub(super) fn identifier(&self) -> &Arc<str> {
        &self.identifier
    }

    /// Begins anew: what was said to the session before is not for the next one.
    pub(super) fn renew(&mut self) {
        let mut holders = self.registry.holders.lock();
        let mailbox = self.registry.mailbox();
        holders.insert(Arc::clone(&self.identifier), Arc::clone(&mailbox));
        std::mem::replace(&mut self.mailbox, mailbox).close();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut holders = self.registry.holders.lock();
        holders.remove(&self.identifier);
        self.mailbox.close();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use oneshot::error::TryRecvError;

    use super::*;

    fn free(registry: &Arc<Registry>, identifier: &str) -> Claim {
        match registry.ask(&identifier.into()) {
            Asked::Free(claim) => claim,
            Asked::Held(_) => panic!("'{identifier}' is not free"),
        }
    }

    fn held(registry: &Arc<Registry>, identifier: &str) -> oneshot::Receiver<Handed> {
        match registry.ask(&identifier.into()) {
            Asked::Free(_) => panic!("'{identifier}' is free"),
            Asked::Held(handed) => handed,
        }
    }

    fn letters(claim: &Claim) -> Option<Box<crate::doors::mqtt::mailbox::Letters>> {
        claim.mailbox().collect(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_comes_while_the_door_stops_is_told_too() {
        let registry = Arc::new(Registry::default());
        let early = free(&registry, "early");
        assert!(letters(&early).is_none());
        registry.stop();
        let late = free(&registry, "late");
        assert!(letters(&early).is_some_and(|letters| letters.stop));
        assert!(letters(&late).is_some_and(|letters| letters.stop));
    }

    #[test]
    fn the_newest_connection_has_the_identifier_mqtt_3_1_4_3() {
        let registry = Arc::new(Registry::default());
        let old = free(&registry, "thermometer");
        let mut handed = held(&registry, "thermometer");
        let successor = letters(&old).unwrap().successors.pop().unwrap();
        assert_eq!(handed.try_recv().map(|_| ()), Err(TryRecvError::Empty), "the old one is still there");
        assert!(successor.send(Handed { claim: old, resting: None }).is_ok());
        let mut new = handed.try_recv().unwrap().claim;
        let mut third = held(&registry, "thermometer");
        new.renew();
        assert_eq!(third.try_recv().map(|_| ()), Err(TryRecvError::Closed), "it has to ask again");
        drop(new);
        drop(free(&registry, "thermometer"));
    }

    #[test]
    fn who_asked_a_client_that_went_by_itself_asks_again_and_finds_the_identifier_free() {
        let registry = Arc::new(Registry::default());
        let old = free(&registry, "thermometer");
        let kept = Arc::clone(old.mailbox());
        let mut handed = held(&registry, "thermometer");
        drop(old);
        assert_eq!(handed.try_recv().map(|_| ()), Err(TryRecvError::Closed), "whoever still has its mailbox");
        drop(free(&registry, "thermometer"));
        drop(kept);
    }
}
