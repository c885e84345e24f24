//! The ledger of an instance that is alone: a file of its own.

mod error;
mod holder;
pub mod store;
mod tables;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use linkspan_contract::ledger::{Conditions, Entry, LedgerError, Version, fits};
use linkspan_contract::{Clock, Fence, Health, Lease, Leases, Ledger, Millis, NotGranted};
use parking_lot::Mutex;

pub use self::error::OpenError;
use self::store::Store;
use super::LEASE;

/// A ledger in one file. Whoever has the file open is the only one that can hold its leases: when it is opened, none is
/// held, but their numbers go on.
///
/// Several values made by [`beside`](Self::beside) share the file, as instances would share a server.
pub struct EmbeddedLedger {
    instance: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<Box<str>, Held>>,
}

/// What a look at a file found that can be the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it is made at the start.
    Nothing,
    /// A ledger that nobody has open.
    Free,
    /// A ledger that a process has open, by its id where that can be known: most likely a Linkspan that runs.
    InUse(Option<u32>),
}

/// A lease that somebody has, or had.
#[derive(Clone)]
struct Held {
    by: Arc<str>,
    fence: Fence,
    until: Millis,
}

impl EmbeddedLedger {
    /// Opens the file, or makes one; folders above it are made too.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub fn open(file: &Path, instance: &str, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = Store::open(file, Arc::clone(&clock))?;
        Ok(Self::over(store, instance, clock))
    }

    /// One that forgets everything at its end.
    #[cfg(test)]
    pub(crate) fn in_memory(instance: &str, clock: Arc<dyn Clock>) -> Self {
        let store = Store::in_memory(Arc::clone(&clock));
        Self::over(store, instance, clock)
    }

    /// Looks whether the file can be used, without making or changing anything: who has it open, if somebody has.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn probe(file: &Path) -> Result<Found, OpenError> {
        store::probe(file)
    }

    fn over(store: Store, instance: &str, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared { store, clock, held: Mutex::default() };
        Self { instance: instance.into(), shared: Arc::new(shared) }
    }

    /// The same file for another instance.
    #[must_use]
    pub fn beside(&self, instance: &str) -> Self {
        Self { instance: instance.into(), shared: Arc::clone(&self.shared) }
    }

    /// Grants the lease under the next number. Whoever asks is the holder as of now, so that two who ask at a time do
    /// not both get it; nobody is told before the number is durable.
    async fn next(
        &self,
        name: &str,
        granted: impl Fn(Option<&Held>, Millis) -> Grant,
    ) -> Result<Lease, NotGranted> {
        let asked = self.shared.clock.now();
        let until = asked.saturating_add(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX));
        let before = {
            let mut held = self.shared.held.lock();
            let before = held.get(name).cloned();
            match granted(before.as_ref(), asked) {
                Grant::Refused(by) => return Err(NotGranted::Held(by)),
                Grant::Renewed(fence) => {
                    held.insert(name.into(), Held { by: Arc::clone(&self.instance), fence, until });
                    return Ok(Lease { fence, lasts: LEASE });
                }
                // Number 0 guards nothing: it was never given.
                Grant::Next => {
                    held.insert(name.into(), Held { by: Arc::clone(&self.instance), fence: 0, until })
                }
            }
        };
        match self.shared.store.next_fence(name).await {
            Ok(fence) => {
                let mut held = self.shared.held.lock();
                // another task of this instance may have asked at the same time, and have been given a later one
                if held.get(name).is_none_or(|held| held.fence < fence) {
                    held.insert(name.into(), Held { by: Arc::clone(&self.instance), fence, until });
                }
                Ok(Lease { fence, lasts: LEASE })
            }
            Err(error) => {
                let mut held = self.shared.held.lock();
                match before {
                    Some(before) => held.insert(name.into(), before),
                    None => held.remove(name),
                };
                Err(NotGranted::Away(error.to_string()))
            }
        }
    }
}

enum Grant {
    Refused(Arc<str>),
    Renewed(Fence),
    Next,
}

#[async_trait]
impl Leases for EmbeddedLedger {
    async fn take(&self, name: &str) -> Result<Lease, NotGranted> {
        self.next(name, |held, now| match held {
            Some(held) if held.until > now && held.by != self.instance => {
                Grant::Refused(Arc::clone(&held.by))
            }
            Some(held) if held.until > now && held.fence > 0 => Grant::Renewed(held.fence),
            _ => Grant::Next,
        })
        .await
    }

    async fn give_back(&self, name: &str, fence: Fence) {
        let mut held = self.shared.held.lock();
        if held.get(name).is_some_and(|held| held.fence == fence && held.by == self.instance) {
            held.remove(name);
        }
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
        self.shared.store.get(key).await
    }

    async fn put(&self, key: &str, value: &[u8], terms: Conditions<'_>) -> Result<Version, LedgerError> {
        fits(key, value)?;
        self.shared.store.put(key, value, terms).await
    }

    async fn delete(&self, key: &str, terms: Conditions<'_>) -> Result<bool, LedgerError> {
        fits(key, &[])?;
        self.shared.store.delete(key, terms).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        self.shared.store.scan(prefix, after, limit).await
    }

    async fn advance(&self, name: &str, fence: Fence) -> Result<Lease, NotGranted> {
        self.next(name, |held, _| match held {
            Some(held) if held.by == self.instance && held.fence == fence => Grant::Next,
            Some(held) => Grant::Refused(Arc::clone(&held.by)),
            None => Grant::Refused("nobody".into()),
        })
        .await
    }

    async fn health(&self) -> Health {
        match self.shared.store.failed() {
            None => Health::Up,
            Some(why) => Health::Away(why.to_string()),
        }
    }
}
