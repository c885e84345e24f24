//! A ledger that is in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use async_trait::async_trait;
use linkspan_contract::ledger::{Conditions, Entry, Version};
use linkspan_contract::{Fence, Health, Lease, Leases, Ledger, LedgerError, NotGranted};

/// What was written. Nobody else writes.
#[derive(Default)]
pub struct Notes {
    all: Mutex<BTreeMap<Box<str>, Note>>,
    /// It cannot be asked now.
    away: AtomicBool,
}

/// An entry, and until when it is there.
type Note = (Entry, Option<Instant>);

impl Notes {
    /// It is away, or there again.
    #[allow(dead_code, reason = "one of the tests' binaries has a ledger that is always there")]
    pub fn go(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn all(&self) -> Result<MutexGuard<'_, BTreeMap<Box<str>, Note>>, LedgerError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(LedgerError::Away("the test has sent it away".into())),
            false => Ok(self.all.lock().unwrap()),
        }
    }

    fn there(entry: &Note) -> Option<Entry> {
        entry.1.is_none_or(|until| until > Instant::now()).then(|| entry.0.clone())
    }
}

#[async_trait]
impl Leases for Notes {
    async fn take(&self, _name: &str) -> Result<Lease, NotGranted> {
        Err(NotGranted::Away("nobody asks here".into()))
    }

    async fn give_back(&self, _name: &str, _fence: Fence) {}
}

#[async_trait]
impl Ledger for Notes {
    async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
        Ok(self.all()?.get(key).and_then(Self::there))
    }

    async fn put(&self, key: &str, value: &[u8], conditions: Conditions<'_>) -> Result<Version, LedgerError> {
        let mut all = self.all()?;
        let version = all.len() as Version + 1;
        let until = conditions.lasts.map(|lasts| Instant::now() + lasts);
        all.insert(key.into(), (Entry { value: value.to_vec().into(), version }, until));
        Ok(version)
    }

    async fn delete(&self, key: &str, _conditions: Conditions<'_>) -> Result<bool, LedgerError> {
        Ok(self.all()?.remove(key).is_some())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        let from = after.filter(|after| *after > prefix).unwrap_or(prefix);
        let all = self.all()?;
        let rest = all.range::<str, _>((Bound::Excluded(from), Bound::Unbounded));
        let found = rest.take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.filter_map(|(key, entry)| Some((key.clone(), Self::there(entry)?))).take(limit).collect())
    }

    async fn advance(&self, _name: &str, _fence: Fence) -> Result<Lease, NotGranted> {
        Err(NotGranted::Away("nobody asks here".into()))
    }

    async fn health(&self) -> Health {
        Health::Up
    }
}
