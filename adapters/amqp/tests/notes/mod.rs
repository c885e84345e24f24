//! A ledger that is in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use linkspan_contract::ledger::{Conditions, Entry, Version};
use linkspan_contract::{Fence, Health, Lease, Leases, Ledger, LedgerError, NotGranted};

/// What was written. Nobody else writes.
#[derive(Default)]
pub struct Notes(Mutex<BTreeMap<Box<str>, Note>>);

/// An entry, and until when it is there.
type Note = (Entry, Option<Instant>);

impl Notes {
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
        Ok(self.0.lock().unwrap().get(key).and_then(Self::there))
    }

    async fn put(&self, key: &str, value: &[u8], conditions: Conditions<'_>) -> Result<Version, LedgerError> {
        let mut all = self.0.lock().unwrap();
        let version = all.len() as Version + 1;
        let until = conditions.lasts.map(|lasts| Instant::now() + lasts);
        all.insert(key.into(), (Entry { value: value.to_vec().into(), version }, until));
        Ok(version)
    }

    async fn delete(&self, key: &str, _conditions: Conditions<'_>) -> Result<bool, LedgerError> {
        Ok(self.0.lock().unwrap().remove(key).is_some())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        let from = after.filter(|after| *after > prefix).unwrap_or(prefix);
        let all = self.0.lock().unwrap();
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
