//! The task that writes down what a queue has taken, and reads what others have written.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use linkspan_contract::ledger::{Conditions, Ledger, LedgerError};
use linkspan_contract::{Clock, Millis};
use tokio::time::sleep;

use super::Repeats;

/// Where it is written down.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What the keys of the queue's pages begin with.
    pub(crate) prefix: String,
    /// Whose pages these are.
    pub(crate) instance: Arc<str>,
}

/// So many identifiers are written at once.
const PAGE: usize = 32_768;

/// Bytes that one takes: itself, and when its message was taken.
const ENTRY: usize = 24;

/// So many pages are read at once.
const PAGES: usize = 16;

/// How often it is looked what others have written.
const LOOK: Duration = Duration::from_millis(500);

/// How long until a ledger that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Milliseconds by which the clocks of instances may differ.
const ASKEW: Millis = 60_000;

/// Starts the task. It ends with its queue's last user.
pub(crate) fn start(repeats: &Arc<Repeats>, plan: Plan) {
    let worker = Worker { plan, repeats: Arc::downgrade(repeats), known: HashSet::new(), pages: 0 };
    tokio::spawn(worker.run());
}

struct Worker {
    plan: Plan,
    repeats: Weak<Repeats>,
    /// Pages that were read or written here, of those that are looked at.
    known: HashSet<Box<str>>,
    /// How many were written here.
    pages: u64,
}

impl Worker {
    async fn run(mut self) {
        let mut after = String::new();
        let mut has_begun = false;
        loop {
            let Some(repeats) = self.repeats.upgrade() else { return };
            let now = self.plan.clock.now();
            match self.read(&repeats, &after).await {
                Ok(()) => {
                    after = self.key_of(now.saturating_sub(ASKEW));
                    self.known.retain(|key| **key > *after);
                    if !std::mem::replace(&mut has_begun, true) {
                        repeats.begin();
                    }
                }
                Err(why) => self.complain(&why),
            }
            if !has_begun {
                drop(repeats);
                sleep(AGAIN).await;
                continue;
            }
            let noted = repeats.fresh.notified();
            tokio::select! {
                () = noted => {}
                () = sleep(LOOK) => {}
            }
            if !self.write(&repeats).await {
                return;
            }
        }
    }

    fn complain(&self, why: &LedgerError) {
        tracing::warn!(
            pages = self.plan.prefix,
            %why,
            "what is published to a queue with `deduplicate` waits: what it has taken cannot be read or written down"
        );
    }

    fn key_of(&self, when: Millis) -> String {
        format!("{}{when:016x}", self.plan.prefix)
    }

    /// That of another page of its own.
    fn next_key(&mut self) -> String {
        self.pages += 1;
        let now = self.key_of(self.plan.clock.now());
        let key = format!("{now}-{}-{:08x}", self.plan.instance, self.pages);
        self.known.insert(key.as_str().into());
        key
    }

    /// Reads the pages behind that key.
    async fn read(&mut self, repeats: &Repeats, after: &str) -> Result<(), LedgerError> {
        let mut after: Option<Box<str>> = Some(after.into());
        loop {
            let pages = self.plan.ledger.scan(&self.plan.prefix, after.as_deref(), PAGES).await?;
            let is_last = pages.len() < PAGES;
            for (key, page) in pages {
                if self.known.insert(key.clone()) {
                    repeats.learn(page.value.chunks_exact(ENTRY).filter_map(entry));
                }
                after = Some(key);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Writes down what has been taken, as soon as the ledger lets it; false when nobody needs it any more.
    async fn write(&mut self, repeats: &Arc<Repeats>) -> bool {
        loop {
            let page = repeats.take_fresh(PAGE);
            if page.is_empty() {
                return true;
            }
            let value: Vec<u8> = page.iter().flat_map(bytes).collect();
            let lasts = Some(Duration::from_millis(repeats.window));
            // Others look from the present on: a page that comes late has a key of its own time.
            while let Err(why) = {
                let key = self.next_key();
                self.plan.ledger.put(&key, &value, Conditions { lasts, ..Conditions::default() }).await
            } {
                self.complain(&why);
                if Arc::strong_count(repeats) == 1 {
                    return false;
                }
                sleep(AGAIN).await;
            }
            repeats.written(&page);
        }
    }
}

fn bytes((id, when): &(u128, Millis)) -> Vec<u8> {
    [&id.to_le_bytes()[..], &when.to_le_bytes()[..]].concat()
}

fn entry(bytes: &[u8]) -> Option<(u128, Millis)> {
    let (id, when) = bytes.split_first_chunk::<16>()?;
    Some((u128::from_le_bytes(*id), u64::from_le_bytes(*when.first_chunk::<8>()?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::task::Waker;

    use async_trait::async_trait;
    use linkspan_contract::ledger::{Entry, Version};
    use linkspan_contract::{Attribute, Deduplicate, Fence, Health, Lease, Leases, NotGranted};
    use parking_lot::Mutex;

    use super::super::Verdict;
    use super::*;

    /// A ledger that is away at times, and the clock of all who use it.
    #[derive(Default)]
    struct Book {
        pages: Mutex<BTreeMap<Box<str>, Entry>>,
        now: AtomicU64,
        /// Nothing is written, and the clock goes on by so much for each attempt.
        lasts: AtomicU64,
        /// Nothing is read.
        is_shut: AtomicBool,
        /// How often that was tried.
        knocks: AtomicU64,
    }

    fn away<T>() -> Result<T, LedgerError> {
        Err(LedgerError::Away("it is a test".into()))
    }

    impl Clock for Book {
        fn now(&self) -> Millis {
            self.now.load(Ordering::SeqCst)
        }
    }

    #[async_trait]
    impl Leases for Book {
        async fn take(&self, _: &str) -> Result<Lease, NotGranted> {
            Err(NotGranted::Away("nobody asks here".into()))
        }

        async fn give_back(&self, _: &str, _: Fence) {}
    }

    #[async_trait]
    impl Ledger for Book {
        async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
            Ok(self.pages.lock().get(key).cloned())
        }

        async fn put(&self, key: &str, value: &[u8], _: Conditions<'_>) -> Result<Version, LedgerError> {
            let lasts = self.lasts.swap(0, Ordering::SeqCst);
            if lasts > 0 {
                self.now.fetch_add(lasts, Ordering::SeqCst);
                return away();
            }
            self.pages.lock().insert(key.into(), Entry { value: value.to_vec().into(), version: 1 });
            Ok(1)
        }

        async fn delete(&self, key: &str, _: Conditions<'_>) -> Result<bool, LedgerError> {
            Ok(self.pages.lock().remove(key).is_some())
        }

        async fn scan(
            &self,
            prefix: &str,
            after: Option<&str>,
            limit: usize,
        ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
            if self.is_shut.load(Ordering::SeqCst) {
                self.knocks.fetch_add(1, Ordering::SeqCst);
                return away();
            }
            let pages = self.pages.lock();
            let all = pages
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| ***key > *after));
            Ok(all.take(limit).map(|(key, entry)| (key.clone(), entry.clone())).collect())
        }

        async fn advance(&self, _: &str, _: Fence) -> Result<Lease, NotGranted> {
            Err(NotGranted::Away("nobody asks here".into()))
        }

        async fn health(&self) -> Health {
            Health::Up
        }
    }

    /// One of several instances that share a queue.
    fn instance(book: &Arc<Book>, name: &str) -> Arc<Repeats> {
        let how = Deduplicate { by: Attribute::MessageId, window: 3_600_000 };
        let repeats = Arc::new(Repeats::new(&how, Arc::clone(book) as _));
        let (ledger, clock) = (Arc::clone(book) as Arc<dyn Ledger>, Arc::clone(book) as Arc<dyn Clock>);
        start(&repeats, Plan { ledger, clock, prefix: "seen/q/".into(), instance: name.into() });
        repeats
    }

    async fn has_begun(repeats: &Repeats) {
        while !repeats.state.lock().is_read {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// What an instance has published is written down.
    async fn publish(repeats: &Repeats, id: u128) {
        has_begun(repeats).await;
        assert_eq!(repeats.judge(id, false, Waker::noop()), Verdict::New);
        repeats.note(id).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_is_written_late_is_read_by_others() {
        let book = Arc::new(Book::default());
        let (one, other) = (instance(&book, "one"), instance(&book, "other"));
        has_begun(&other).await;
        book.lasts.store(3 * ASKEW, Ordering::SeqCst);
        let late = publish(&one, 7);
        // Others look at the present by the time that it is written.
        tokio::join!(late, sleep(AGAIN * 2));
        sleep(LOOK * 2).await;
        assert_eq!(other.judge(7, false, Waker::noop()), Verdict::Known);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_that_were_written_while_the_ledger_was_away_for_one_are_read_by_it_then() {
        let book = Arc::new(Book::default());
        let other = instance(&book, "other");
        has_begun(&other).await;
        book.is_shut.store(true, Ordering::SeqCst);
        let value = bytes(&(7, 0));
        book.pages
            .lock()
            .insert("seen/q/0000000000000001-one-1".into(), Entry { value: value.into(), version: 1 });
        while book.knocks.load(Ordering::SeqCst) < 3 {
            book.now.fetch_add(ASKEW, Ordering::SeqCst);
            sleep(LOOK).await;
        }
        book.is_shut.store(false, Ordering::SeqCst);
        sleep(LOOK * 2).await;
        assert_eq!(other.judge(7, false, Waker::noop()), Verdict::Known);
    }
}
