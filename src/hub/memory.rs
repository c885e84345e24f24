//! What the hub remembers beyond its end, in the ledger: written when it comes about, deleted when it ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use futures_util::future::join_all;
use linkspan_contract::ledger::{Conditions, LedgerError};
use linkspan_contract::{Health, Ledger};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ledger::Watched;

/// Keys that are read at a time.
const PAGE: usize = 500;

/// Keys that are written at a time: the ledger syncs once for many.
const AT_ONCE: usize = 64;

/// Something to be remembered.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is, in keys.
    const KIND: &'static str;

    /// What makes it another one than all others of its kind.
    fn identity(&self) -> [&str; 3];
}

/// What is remembered. A ledger that is away gets it when it is back.
pub struct Memory {
    ledger: Arc<Watched>,
    /// What all keys begin with.
    prefix: Box<str>,
    owner: Box<str>,
    state: Mutex<State>,
    /// Held by who writes, so that the last word on a key is the last to be written.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// What the ledger has when all that is due is written.
    kept: HashMap<Box<str>, Box<str>>,
    /// What is to be written, or to be deleted.
    due: BTreeMap<Box<str>, Option<Box<str>>>,
    /// Keys that the ledger may have: what came and went while it was away need not be deleted there.
    there: HashSet<Box<str>>,
    /// What an earlier life left is known.
    recalled: bool,
    /// That it cannot be written was said.
    told: bool,
}

impl State {
    /// That was written; what was said since is still due.
    fn is_done(&mut self, key: &str, value: Option<&str>) {
        if self.due.get(key).is_some_and(|due| due.as_deref() == value) {
            self.due.remove(key);
            if value.is_none() {
                self.there.remove(key);
            }
        }
    }
}

impl Memory {
    /// In that ledger. Others who share it have another `owner`.
    pub fn new(ledger: Arc<Watched>, owner: &str) -> Self {
        Self {
            ledger,
            prefix: format!("hub/{owner}/").into(),
            owner: owner.into(),
            state: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// One that ends with its owner.
    #[cfg(test)]
    pub(crate) async fn of_nobody() -> Self {
        let clock = Arc::new(linkspan_contract::SystemClock);
        let ledger = crate::ledger::EmbeddedLedger::in_memory("test", clock);
        let ledger = Arc::new(Watched::new(Arc::new(ledger), "test"));
        ledger.look().await;
        Self::new(ledger, "own")
    }

    /// The ledger.
    pub fn shared_ledger(&self) -> Arc<dyn Ledger> {
        Arc::clone(self.ledger.ledger())
    }

    /// Whose memory it is among those who share the ledger.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// How the ledger was when it was looked at last.
    pub fn health(&self) -> Health {
        self.ledger.health()
    }

    /// How much is still to be written.
    pub fn due(&self) -> usize {
        self.state.lock().due.len()
    }

    /// From now on that is so: to be written by [`write`](Self::write).
    pub fn remember<R: Record>(&self, record: &R) {
        let Ok(value) = serde_json::to_string(record) else { return };
        let (key, value) = (self.key(record), Box::<str>::from(value));
        let mut state = self.state.lock();
        if state.kept.insert(key.clone(), value.clone()).as_ref() != Some(&value) {
            state.due.insert(key, Some(value));
        }
    }

    /// That is over.
    pub fn forget<R: Record>(&self, record: &R) {
        let key = self.key(record);
        let mut state = self.state.lock();
        state.kept.remove(&key);
        // What an earlier life left may have it.
        if state.there.contains(&key) || !state.recalled {
            state.due.insert(key, None);
        } else {
            state.due.remove(&key);
        }
    }

    /// Whether that is so.
    pub fn has<R: Record>(&self, record: &R) -> bool {
        self.state.lock().kept.contains_key(&self.key(record))
    }

    /// All of a kind that is so.
    pub fn all<R: Record>(&self) -> Vec<R> {
        let prefix = format!("{}{}/", self.prefix, R::KIND);
        let state = self.state.lock();
        let of_kind = state.kept.iter().filter(|(key, _)| key.starts_with(&prefix));
        let read = of_kind.filter_map(|(key, value)| {
            let read = serde_json::from_str(value);
            read.inspect_err(|error| tracing::warn!(%key, %error, "the ledger has something else there")).ok()
        });
        read.collect()
    }

    /// Whether what an earlier life left is known.
    pub fn is_recalled(&self) -> bool {
        self.state.lock().recalled
    }

    /// Reads what an earlier life left.
    ///
    /// # Errors
    /// When the ledger cannot be asked.
    pub async fn recall(&self) -> Result<(), LedgerError> {
        let _writing = self.writing.lock().await;
        let mut found = Vec::new();
        loop {
            let after = found.last().map(|(key, _): &(Box<str>, _)| key.clone());
            let page = self.ledger.ledger().scan(&self.prefix, after.as_deref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            found.extend(page);
            if is_last {
                break;
            }
        }
        let mut state = self.state.lock();
        for (key, entry) in found {
            // What was said since counts more.
            if !state.due.contains_key(&key) {
                state.kept.insert(key.clone(), String::from_utf8_lossy(&entry.value).into());
            }
            state.there.insert(key);
        }
        state.recalled = true;
        Ok(())
    }

    /// Writes what is due. What the ledger does not take stays due.
    pub async fn write(&self) {
        if self.due() == 0 || self.ledger.health() != Health::Up {
            return;
        }
        let _writing = self.writing.lock().await;
        let due: Vec<_> = self.state.lock().due.clone().into_iter().collect();
        for some in due.chunks(AT_ONCE) {
            // It may be written although nobody is told so.
            self.state.lock().there.extend(some.iter().map(|(key, _)| key.clone()));
            let written =
                join_all(some.iter().map(|(key, value)| self.write_one(key, value.as_deref()))).await;
            let mut state = self.state.lock();
            let mut failed = None;
            for ((key, value), result) in some.iter().zip(written) {
                match result {
                    Err(error @ (LedgerError::Away(_) | LedgerError::Broken(_))) => failed = Some(error),
                    Err(error) => {
                        tracing::error!(%key, %error, "this is not remembered beyond the end of this process");
                        state.is_done(key, value.as_deref());
                    }
                    Ok(()) => state.is_done(key, value.as_deref()),
                }
            }
            match failed {
                None => state.told = false,
                Some(error) => {
                    if !std::mem::replace(&mut state.told, true) {
                        let due = state.due.len();
                        tracing::warn!(due, %error, "what has to be remembered is not written yet");
                    }
                    return;
                }
            }
        }
    }

    async fn write_one(&self, key: &str, value: Option<&str>) -> Result<(), LedgerError> {
        let ledger = self.ledger.ledger();
        match value {
            Some(value) => ledger.put(key, value.as_bytes(), Conditions::default()).await.map(drop),
            None => ledger.delete(key, Conditions::default()).await.map(drop),
        }
    }

    fn key<R: Record>(&self, record: &R) -> Box<str> {
        let mut hash = Blake2b::<U16>::new();
        for part in record.identity() {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}{}/{digits}", self.prefix, R::KIND).into()
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::{Ledger, SystemClock};
    use serde::Deserialize;

    use super::*;
    use crate::ledger::EmbeddedLedger;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Noted(String, String);

    impl Record for Noted {
        const KIND: &'static str = "noted";

        fn identity(&self) -> [&str; 3] {
            [&self.0, "", ""]
        }
    }

    fn noted(name: &str, value: &str) -> Noted {
        Noted(name.into(), value.into())
    }

    async fn over(ledger: &Arc<dyn Ledger>, owner: &str) -> Memory {
        let watched = Arc::new(Watched::new(Arc::clone(ledger), "test"));
        watched.look().await;
        Memory::new(watched, owner)
    }

    fn ledger() -> Arc<dyn Ledger> {
        Arc::new(EmbeddedLedger::in_memory("test", Arc::new(SystemClock)))
    }

    #[tokio::test]
    async fn what_is_so_is_written_once_and_known_to_the_next_life_of_the_same_owner() {
        let ledger = ledger();
        let memory = over(&ledger, "one").await;
        memory.recall().await.unwrap();
        memory.remember(&noted("a", "1"));
        memory.remember(&noted("a", "2"));
        memory.remember(&noted("b", "1"));
        memory.forget(&noted("b", ""));
        assert_eq!(memory.due(), 1, "what came and went is no matter for the ledger");
        memory.write().await;
        assert_eq!(memory.due(), 0);
        memory.remember(&noted("a", "2"));
        assert_eq!(memory.due(), 0, "it is written already");

        let (again, other) = (over(&ledger, "one").await, over(&ledger, "two").await);
        again.recall().await.unwrap();
        other.recall().await.unwrap();
        assert_eq!(again.all::<Noted>(), [noted("a", "2")]);
        assert_eq!(other.all::<Noted>(), []);
        again.forget(&noted("a", ""));
        again.write().await;
        assert_eq!(ledger.scan("hub/", None, 10).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_was_said_before_the_earlier_life_was_read_counts_more() {
        let ledger = ledger();
        let before = over(&ledger, "one").await;
        for name in ["stays", "goes", "changes"] {
            before.remember(&noted(name, "1"));
        }
        before.write().await;
        let memory = over(&ledger, "one").await;
        memory.forget(&noted("goes", ""));
        memory.remember(&noted("changes", "2"));
        memory.recall().await.unwrap();
        let mut all = memory.all::<Noted>();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(all, [noted("changes", "2"), noted("stays", "1")]);
        memory.write().await;
        assert_eq!(ledger.scan("hub/", None, 10).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn more_than_one_page_is_read_and_more_than_one_group_is_written() {
        let ledger = ledger();
        let memory = over(&ledger, "one").await;
        for n in 0..PAGE + AT_ONCE + 1 {
            memory.remember(&noted(&n.to_string(), ""));
        }
        memory.write().await;
        assert_eq!(memory.due(), 0);
        let again = over(&ledger, "one").await;
        again.recall().await.unwrap();
        assert_eq!(again.all::<Noted>().len(), PAGE + AT_ONCE + 1);
    }
}
