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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use async_trait::async_trait;
    use linkspan_contract::ledger::{Entry, Version};
    use linkspan_contract::{Attribute, Deduplicate, Fence, Health, Lease, Leases, NotGranted};
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::repeats::Verdict;

    /// The time of a test, which goes on when nobody has anything to do.
    struct Pace(Instant);

    impl Clock for Pace {
        fn now(&self) -> Millis {
            1_000_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap()
        }
    }

    type Pages = Arc<Mutex<BTreeMap<Box<str>, Entry>>>;

    /// One instance's way to what all have written.
    #[derive(Default)]
    struct Way {
        pages: Pages,
        is_away: AtomicBool,
    }

    impl Way {
        fn to(pages: &Pages) -> Arc<Self> {
            Arc::new(Self { pages: Arc::clone(pages), is_away: AtomicBool::new(false) })
        }

        fn reached(&self) -> Result<(), LedgerError> {
            match self.is_away.load(Ordering::Relaxed) {
                true => Err(LedgerError::Away("it was sent away".into())),
                false => Ok(()),
            }
        }
    }

    fn nobody() -> NotGranted {
        NotGranted::Away("nobody asks here".into())
    }

    #[async_trait]
    impl Leases for Way {
        async fn take(&self, _name: &str) -> Result<Lease, NotGranted> {
            Err(nobody())
        }

        async fn give_back(&self, _name: &str, _fence: Fence) {}
    }

    #[async_trait]
    impl Ledger for Way {
        async fn get(&self, _key: &str) -> Result<Option<Entry>, LedgerError> {
            Ok(None)
        }

        async fn put(&self, key: &str, value: &[u8], _: Conditions<'_>) -> Result<Version, LedgerError> {
            self.reached()?;
            self.pages.lock().insert(key.into(), Entry { value: value.to_vec().into(), version: 1 });
            Ok(1)
        }

        async fn delete(&self, _key: &str, _: Conditions<'_>) -> Result<bool, LedgerError> {
            Ok(false)
        }

        async fn scan(
            &self,
            prefix: &str,
            after: Option<&str>,
            limit: usize,
        ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
            self.reached()?;
            let pages = self.pages.lock();
            let found = pages
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| &***key > after));
            Ok(found.take(limit).map(|(key, entry)| (key.clone(), entry.clone())).collect())
        }

        async fn advance(&self, _name: &str, _fence: Fence) -> Result<Lease, NotGranted> {
            Err(nobody())
        }

        async fn health(&self) -> Health {
            Health::Up
        }
    }

    /// An instance, whose task runs.
    fn instance(name: &str, way: &Arc<Way>, clock: &Arc<Pace>) -> Arc<Repeats> {
        let how = Deduplicate { by: Attribute::MessageId, window: 3_600_000 };
        let repeats = Arc::new(Repeats::new(&how, Arc::clone(clock) as _));
        let (ledger, clock) = (Arc::clone(way) as _, Arc::clone(clock) as _);
        start(&repeats, Plan { ledger, clock, prefix: "repeats/".into(), instance: name.into() });
        repeats
    }

    /// Longer than clocks may differ.
    const LONG: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn what_one_instance_could_write_only_late_another_reads() {
        let (pages, clock) = (Pages::default(), Arc::new(Pace(Instant::now())));
        let (here, there) = (Way::to(&pages), Way::to(&pages));
        let (writer, reader) = (instance("one", &here, &clock), instance("two", &there, &clock));
        sleep(2 * AGAIN).await;
        here.is_away.store(true, Ordering::Relaxed);
        assert_eq!(writer.judge(1, false, Waker::noop()), Verdict::New);
        let noting = tokio::spawn({
            let writer = Arc::clone(&writer);
            async move { writer.note(1).await }
        });
        sleep(LONG).await;
        assert!(!noting.is_finished());
        here.is_away.store(false, Ordering::Relaxed);
        noting.await.unwrap();
        sleep(2 * LOOK).await;
        assert_eq!(reader.judge(1, false, Waker::noop()), Verdict::Known);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_while_an_instance_did_not_reach_the_ledger_it_reads_afterwards() {
        let (pages, clock) = (Pages::default(), Arc::new(Pace(Instant::now())));
        let (here, there) = (Way::to(&pages), Way::to(&pages));
        let (writer, reader) = (instance("one", &here, &clock), instance("two", &there, &clock));
        sleep(2 * AGAIN).await;
        there.is_away.store(true, Ordering::Relaxed);
        assert_eq!(writer.judge(1, false, Waker::noop()), Verdict::New);
        writer.note(1).await;
        sleep(LONG).await;
        there.is_away.store(false, Ordering::Relaxed);
        sleep(2 * LOOK).await;
        assert_eq!(reader.judge(1, false, Waker::noop()), Verdict::Known);
    }
}
