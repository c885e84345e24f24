//! What a client's queue that is bound to the address space gets of addresses that lie on other back ends: a queue there
//! takes copies of what the binding matches, and a mover carries them over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};
use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{Backend, Binding, Health};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Hub;
use super::carriers::Errand;
use super::memory::Record;
use crate::mover::{Mover, Station, To, Until};
use crate::patterns::{Place, places_elsewhere};
use crate::routes::RouteTable;

/// The exchange whose routing keys are addresses.
const ADDRESS_SPACE: &str = "amq.topic";

/// Fewer queues are not looked through for those that are gone.
const MANY: usize = 1000;

/// How often it is looked for a queue whose client has gone: a back end may take its time to delete it.
const LOOKS: u8 = 3;

/// How long a binding may wait for another back end, or for the ledger.
const SOON: Duration = Duration::from_secs(1);

/// So many queues that an earlier life knew are looked for at a time.
const LOOKED_FOR: usize = 256;

/// What the ledger has of a client's binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remembered {
    vhost: Box<str>,
    queue: Box<str>,
    key: Box<str>,
}

impl Record for Remembered {
    const KIND: &'static str = "binding";

    fn identity(&self) -> [&str; 3] {
        [&self.vhost, &self.queue, &self.key]
    }
}

impl Remembered {
    /// What is to be remembered of a binding; none when it has nothing on other back ends, whatever the routes say.
    fn of(vhost: &str, queue: &str, key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        Some(Self { vhost: vhost.into(), queue: queue.into(), key: key.into() })
    }
}

/// A client's binding.
pub struct Bound<'a> {
    /// The namespace.
    pub vhost: &'a Arc<str>,
    /// The queue, on the home back end.
    pub queue: &'a str,
    /// The binding key.
    pub key: &'a [u8],
    /// The queue outlives the client.
    pub lasts: bool,
}

impl<'a> Bound<'a> {
    /// That of a binding which leads from the address space to a queue.
    pub fn of(vhost: &'a Arc<str>, binding: &Binding<'a>) -> Option<Self> {
        match binding.to {
            BindingEnd::Queue(queue) if binding.source == ADDRESS_SPACE => {
                Some(Self { vhost, queue, key: binding.key, lasts: true })
            }
            _ => None,
        }
    }

    /// The other back ends that have addresses of it, and the binding key for these.
    fn elsewhere(&self, table: &RouteTable) -> Vec<(Arc<str>, String)> {
        let topic = respelled(self.key, Syntax::Key, Syntax::Topic);
        let Ok(pattern) = std::str::from_utf8(&topic) else { return Vec::new() };
        let filter: Vec<&str> = pattern.split('/').map(|word| if word == "*" { "+" } else { word }).collect();
        let inside = filter.iter().rev().skip(1).any(|word| *word == "#");
        if inside {
            // No topic filter says that: it is asked for as it is, wherever there is something.
            let key = String::from_utf8_lossy(self.key);
            let mut backends: Vec<Arc<str>> = table.iter().map(|route| Arc::clone(&route.backend)).collect();
            backends.sort_unstable();
            backends.dedup();
            backends.retain(|backend| backend != table.home());
            return backends.into_iter().map(|backend| (backend, key.to_string())).collect();
        }
        let filter = filter.join("/");
        places_elsewhere(table, &filter).iter().map(|place| Self::keyed(place, &filter)).collect()
    }

    fn keyed(place: &Place, whole: &str) -> (Arc<str>, String) {
        let filter = place.filter.as_deref().unwrap_or(whole);
        let words: Vec<&str> =
            filter.split('/').map(|level| if level == "+" { "*" } else { level }).collect();
        let key = respelled(words.join("/").as_bytes(), Syntax::Topic, Syntax::Key).into_owned();
        (Arc::clone(&place.backend), String::from_utf8(key).unwrap_or_default())
    }
}

/// The queue that takes copies for a client's queue: one on each back end, so that what several bindings match comes once.
/// The same after a restart.
fn copy_queue(vhost: &str, queue: &str) -> Arc<str> {
    let mut hash = Blake2b::<U8>::new();
    for part in [vhost, queue] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("linkspan.copy.{digits}").into()
}

impl Hub {
    /// A client has made a binding: what it matches on other back ends comes, too. One that is away is reached when it
    /// is back. False when there are none.
    pub(super) async fn bound(&self, bound: &Bound<'_>) -> bool {
        if self.backends.len() < 2 {
            return false;
        }
        let client = (Arc::clone(bound.vhost), Arc::from(bound.queue));
        {
            let mut bindings = self.carriers.bindings.lock();
            bindings.entry(client).or_default().insert(bound.key.into());
            if let Some(record) = Remembered::of(bound.vhost, bound.queue, bound.key).filter(|_| bound.lasts)
            {
                self.memory.remember(&record);
            }
        }
        // Who is told that a binding is made may count on it beyond the end of this process.
        if timeout(SOON, self.memory.write()).await.is_err() {
            tracing::debug!(queue = bound.queue, "its binding is written down later");
        }
        for mover in self.copy(bound.vhost, bound.queue) {
            // Who is told that a binding is made may count on it.
            let is_up = mover.from.backend.health().await == Health::Up;
            if is_up && !matches!(timeout(SOON, mover.prepare()).await, Ok(Ok(()))) {
                tracing::debug!(mover = %mover.name, "its queue is made later");
            }
        }
        true
    }

    /// A client has undone a binding.
    pub(super) fn unbound(&self, bound: &Bound<'_>) {
        let client = (Arc::clone(bound.vhost), Arc::from(bound.queue));
        let mut bindings = self.carriers.bindings.lock();
        if let Some(keys) = bindings.get_mut(&client) {
            keys.remove(bound.key);
            if keys.is_empty() {
                bindings.remove(&client);
            }
        }
        self.forget(bound.vhost, bound.queue, bound.key);
        drop(bindings);
        self.copy(bound.vhost, bound.queue);
    }

    /// A client's queue is gone, and its bindings with it.
    pub(super) fn queue_is_gone(&self, vhost: &Arc<str>, queue: &str) {
        {
            let mut bindings = self.carriers.bindings.lock();
            let keys = bindings.remove(&(Arc::clone(vhost), Arc::from(queue))).unwrap_or_default();
            keys.iter().for_each(|key| self.forget(vhost, queue, key));
        }
        self.end_copies(vhost, queue, Until::Forgotten, |_| true);
    }

    fn forget(&self, vhost: &str, queue: &str, key: &[u8]) {
        if let Some(record) = Remembered::of(vhost, queue, key) {
            self.memory.forget(&record);
        }
    }

    /// Has those bindings in force again that an earlier life knew, as soon as their queues are found.
    pub(super) fn recall_bindings(&self) {
        let mut recalled = self.carriers.recalled.lock();
        for record in self.memory.all::<Remembered>() {
            let client = (Arc::from(&*record.vhost), Arc::from(&*record.queue));
            recalled.entry(client).or_default().insert(record.key.as_bytes().into());
        }
    }

    /// Looks for queues whose bindings an earlier life knew. Copies go on to those that are there. What waits for those
    /// that are not stays where it is, for a client that makes its queue again.
    async fn look_for_recalled(&self) {
        for _ in 0..LOOKED_FOR {
            let next = self.carriers.recalled.lock().keys().next().cloned();
            let Some(client) = next else { return };
            let (vhost, queue) = &client;
            let Some(is_gone) = self.is_gone(vhost, queue).await else { return };
            let keys = self.carriers.recalled.lock().remove(&client).unwrap_or_default();
            {
                let mut bindings = self.carriers.bindings.lock();
                for key in keys {
                    let is_bound = bindings.get(&client).is_some_and(|keys| keys.contains(&key));
                    let record = Remembered::of(vhost, queue, &key);
                    // It may have been bound, or unbound, since.
                    if let Some(record) = record.filter(|record| !is_bound && self.memory.has(record)) {
                        if is_gone {
                            self.memory.forget(&record);
                        } else {
                            bindings.entry(client.clone()).or_default().insert(key);
                        }
                    }
                }
            }
            if !is_gone {
                self.copy(vhost, queue);
            }
        }
    }

    /// Routes were changed: what bindings match may lie elsewhere now.
    pub(super) fn follow_bindings(&self) {
        let clients: Vec<_> = self.carriers.bindings.lock().keys().cloned().collect();
        for (vhost, queue) in clients {
            self.copy(&vhost, &queue);
        }
    }

    /// The client that made bindings of these queues is gone, and they may be gone with it.
    pub(super) fn suspect(&self, vhost: &Arc<str>, queues: impl IntoIterator<Item = Arc<str>>) {
        let queues = queues.into_iter().map(|queue| ((Arc::clone(vhost), queue), LOOKS));
        self.carriers.suspects.lock().extend(queues);
    }

    /// Forgets queues that are gone without a word: exclusive ones go with their client, others with their last consumer or
    /// when nobody used them. They are looked for when their client has gone, when a mover found its messages to have no
    /// queue, and, all of them, when there have come many: to look for a queue keeps one alive that expires.
    pub(super) async fn forget_queues(&self) {
        self.look_for_recalled().await;
        for errand in self.carriers.take_done() {
            let Errand::Copies { vhost, queue, .. } = errand else {
                self.is_done(&errand);
                continue;
            };
            if self.is_gone(&vhost, &queue).await == Some(true) {
                self.queue_is_gone(&vhost, &queue);
            } else {
                // It has come again.
                self.copy(&vhost, &queue);
            }
        }
        let mut suspects = std::mem::take(&mut *self.carriers.suspects.lock()).into_iter();
        while let Some((client, looks)) = suspects.next() {
            let (vhost, queue) = &client;
            if !self.carriers.bindings.lock().contains_key(&client) {
                continue;
            }
            match self.is_gone(vhost, queue).await {
                Some(true) => self.queue_is_gone(vhost, queue),
                Some(false) if looks > 1 => {
                    self.carriers.suspects.lock().entry(client).or_insert(looks - 1);
                }
                Some(false) => {}
                // A home that does not answer is asked another time: others wait for this.
                None => {
                    let mut again = self.carriers.suspects.lock();
                    for (client, looks) in std::iter::once((client, looks)).chain(suspects) {
                        again.entry(client).or_insert(looks);
                    }
                    return;
                }
            }
        }
        let before = self.carriers.live.load(Ordering::Relaxed);
        let clients: Vec<_> = {
            let bindings = self.carriers.bindings.lock();
            if bindings.len() <= before.saturating_mul(2).saturating_add(MANY) {
                return;
            }
            bindings.keys().cloned().collect()
        };
        for (vhost, queue) in clients {
            match self.is_gone(&vhost, &queue).await {
                Some(true) => self.queue_is_gone(&vhost, &queue),
                Some(false) => {}
                None => return,
            }
        }
        self.carriers.live.store(self.carriers.bindings.lock().len(), Ordering::Relaxed);
    }

    /// Has copies carried to a queue as its bindings and the routes say now. The movers that are new.
    fn copy(&self, vhost: &Arc<str>, queue: &str) -> Vec<Mover> {
        let routes = self.routes();
        let Some(table) = routes.vhost(vhost) else { return Vec::new() };
        let Ok(home) = self.backend(table.home()) else { return Vec::new() };
        let client = (Arc::clone(vhost), Arc::from(queue));
        let keys = self.carriers.bindings.lock().get(&client).cloned().unwrap_or_default();
        let mut wanted: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for key in &keys {
            for (backend, key) in (Bound { vhost, queue, key, lasts: true }).elsewhere(table) {
                wanted.entry(backend).or_default().insert(key.into());
            }
        }
        self.end_copies(vhost, queue, Until::Rest, |backend| !wanted.contains_key(backend));
        let mut started = Vec::new();
        for (backend, keys) in wanted {
            let Ok(far) = self.backend(&backend) else { continue };
            let station = |backend: &Arc<dyn Backend>, queue| Station {
                backend: Arc::clone(backend),
                vhost: Arc::clone(vhost),
                queue,
            };
            let mover = Mover {
                name: format!("copies for {queue} of {vhost} from {backend}").into(),
                from: station(far, copy_queue(vhost, queue)),
                bound_by: Some(keys.into_iter().collect()),
                unbound: Arc::default(),
                to: To::Queue(station(home, queue.into())),
                until: Until::NobodyWants,
            };
            let errand = Errand::Copies { vhost: Arc::clone(vhost), queue: queue.into(), backend };
            if self.carriers.start(errand, mover.clone()) {
                started.push(mover);
            }
        }
        started
    }

    /// Ends what carries copies to a queue from the back ends that `is_over` says so of: what they have already still
    /// comes, or goes with them, as `until` says.
    fn end_copies(&self, vhost: &str, queue: &str, until: Until, is_over: impl Fn(&str) -> bool) {
        let ended = self.carriers.end(|errand| match errand {
            Errand::Copies { vhost: of, queue: to, backend } => {
                **of == *vhost && **to == *queue && is_over(backend)
            }
            _ => false,
        });
        for (errand, mover) in ended {
            let mut last =
                Mover { bound_by: Some(Vec::new()), unbound: Arc::default(), until, ..mover.clone() };
            last.succeed(&mover);
            self.carriers.start(errand, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Filter, Pattern, Route, Routes};

    #[test]
    fn a_binding_is_asked_for_where_routes_have_its_addresses() {
        let route = |filter, backend| {
            Arc::new(Route::new(Filter::parse(filter).unwrap(), Pattern::PublishSubscribe, backend))
        };
        let routes = [route("sensors/#", "far"), route("a/+/c", "two"), route("near", "home")];
        let routes = Routes::new([("/".into(), "home".into())], routes).unwrap();
        let vhost = Arc::from("/");
        let elsewhere = |key: &str| -> Vec<String> {
            let bound = Bound { vhost: &vhost, queue: "q", key: key.as_bytes(), lasts: true };
            let found = bound.elsewhere(routes.vhost("/").unwrap());
            found.iter().map(|(backend, key)| format!("{backend} {key}")).collect()
        };
        assert_eq!(elsewhere("#"), ["far sensors.#", "two a.*.c"]);
        assert_eq!(elsewhere("sensors.*.t"), ["far sensors.*.t"]);
        assert_eq!(elsewhere("*.b.*"), ["far sensors.b.*", "two a.b.c"]);
        assert_eq!(elsewhere("near"), [""; 0]);
        assert_eq!(elsewhere("#.t"), ["far #.t", "two #.t"]);
    }
}
