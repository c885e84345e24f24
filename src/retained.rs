//! The last retained message of each address of a vhost (MQTT 5 §3.3.1.3): kept by the hub for publish-subscribe
//! routes, whatever door it came by, and read by the MQTT door for new subscribers.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;
use linkspan_contract::address::{Level, Pattern};
use linkspan_contract::{Batch, Body, Clock, Flags, Kept, Message, Millis, backend};
use parking_lot::{Mutex, MutexGuard, RwLock};

/// The retained messages of one vhost, in the order of their addresses.
pub struct Retained {
    limit: usize,
    clock: Arc<dyn Clock>,
    slots: RwLock<BTreeMap<Box<[u8]>, Slot>>,
    /// Held by who stores a message, each for some addresses, until a back end has written it down, too.
    turns: [Mutex<()>; TURNS],
    /// Nothing expires before: there is nothing to sweep until then.
    soonest: AtomicU64,
}

/// So many may store at a time.
const TURNS: usize = 32;

/// Held while others may not store anything under the same addresses.
pub struct Turn<'r> {
    _held: Vec<MutexGuard<'r, ()>>,
}

#[derive(Debug)]
struct Slot {
    message: Kept,
    since: Millis,
}

impl Slot {
    fn age(&self, now: Millis) -> Option<u64> {
        let age = now.saturating_sub(self.since);
        let message = self.message.message();
        let is_lost = self.message.body().is_some_and(Body::is_lost);
        (!is_lost && (!message.flags.has(Flags::EXPIRES) || message.expiry > age)).then_some(age)
    }

    /// When it expires; never when it does not.
    fn end(&self) -> Millis {
        let message = self.message.message();
        let expires = message.flags.has(Flags::EXPIRES);
        if expires { self.since.saturating_add(message.expiry) } else { Millis::MAX }
    }
}

impl Retained {
    /// An empty one that keeps at most `limit` messages.
    pub fn new(limit: usize, clock: Arc<dyn Clock>) -> Self {
        let (slots, turns) = (RwLock::default(), std::array::from_fn(|_| Mutex::default()));
        Self { limit, clock, slots, turns, soonest: AtomicU64::new(Millis::MAX) }
    }

    /// Waits until nobody else stores anything under the addresses of what `batch` has to be retained: whoever stores it
    /// and hands it to a back end meanwhile does both in one order with others.
    pub fn turn(&self, batch: &Batch<'_>) -> Turn<'_> {
        let hasher = FixedState::default();
        let retained = batch.messages.iter().filter(|message| message.flags.has(Flags::RETAIN));
        let mut places: Vec<usize> = retained
            .map(|message| {
                let hash = hasher.hash_one(&*batch.address(message).topic());
                usize::try_from(hash % TURNS as u64).unwrap_or_default()
            })
            .collect();
        // All take them in the same order.
        places.sort_unstable();
        places.dedup();
        Turn { _held: places.iter().filter_map(|at| self.turns.get(*at)).map(Mutex::lock).collect() }
    }

    /// Makes the message at `at` of `batch` the retained one of its address. One without payload removes what was
    /// there and is not kept itself ([MQTT-3.3.1-6]).
    pub fn store(&self, batch: &Batch<'_>, at: u32, message: &Message) {
        let topic = batch.address(message).topic();
        if batch.payload_len(message) == 0 {
            self.slots.write().remove(&*topic);
            return;
        }
        let Some(kept) = batch.keep(at..at.saturating_add(1)).kept(0) else { return };
        let slot = Slot { message: kept, since: self.clock.now() };
        let mut slots = self.slots.write();
        if slots.len() >= self.limit && !slots.contains_key(&*topic) {
            drop(slots);
            metrics::counter!("linkspan_messages_dropped_total", "reason" => "retained-limit").increment(1);
            return;
        }
        self.soonest.fetch_min(slot.end(), Ordering::Relaxed);
        slots.insert(topic.into(), slot);
    }

    /// Takes back what was retained in an earlier life.
    pub fn restore(&self, found: Vec<backend::Retained>) {
        let now = self.clock.now();
        let mut slots = self.slots.write();
        for backend::Retained { message, age } in found.into_iter().take(self.limit) {
            let topic = message.address().topic().into();
            let slot = Slot { message, since: now.saturating_sub(age) };
            self.soonest.fetch_min(slot.end(), Ordering::Relaxed);
            slots.insert(topic, slot);
        }
    }

    /// What an MQTT topic filter matches now, in the order of addresses; what has expired is left out.
    pub fn matching(&self, filter: &str) -> Vec<backend::Retained> {
        let pattern = Pattern::from_filter(filter);
        let now = self.clock.now();
        let slots = self.slots.read();
        let found =
            |slot: &Slot| Some(backend::Retained { message: slot.message.clone(), age: slot.age(now)? });
        if pattern.levels.iter().all(|level| matches!(level, Level::Literal(_))) {
            return slots.get(filter.as_bytes()).and_then(found).into_iter().collect();
        }
        let prefix = literal_prefix(&pattern);
        slots
            .range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(&prefix))
            .filter(|(topic, _)| pattern.matches(topic))
            .filter_map(|(_, slot)| found(slot))
            .collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.read().len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what has expired.
    pub fn sweep(&self) {
        let now = self.clock.now();
        if now < self.soonest.load(Ordering::Relaxed) {
            return;
        }
        let mut slots = self.slots.write();
        let mut soonest = Millis::MAX;
        slots.retain(|_, slot| {
            let alive = slot.age(now).is_some();
            soonest = if alive { soonest.min(slot.end()) } else { soonest };
            alive
        });
        self.soonest.store(soonest, Ordering::Relaxed);
    }
}

/// The bytes that every matched address begins with: the levels before the first wildcard. `a/#` matches `a` itself, so
/// the last separator is not part of it.
fn literal_prefix(pattern: &Pattern) -> Vec<u8> {
    let literals: Vec<&[u8]> = pattern
        .levels
        .iter()
        .map_while(|level| match level {
            Level::Literal(literal) => Some(&**literal),
            Level::One | Level::Rest => None,
        })
        .collect();
    literals.join(&b'/')
}

#[cfg(test)]
mod tests {
    use linkspan_contract::Properties;
    use linkspan_contract::neutral::Draft;

    use super::*;

    #[derive(Default)]
    struct Set(AtomicU64);

    impl Clock for Set {
        fn now(&self) -> Millis {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn retain(retained: &Retained, topic: &str, payload: &'static str, expiry: Option<u64>) {
        let flags = Flags::RETAIN | Flags::EXPIRES.when(expiry.is_some());
        let head = Message { flags, expiry: expiry.unwrap_or(0), ..Message::default() };
        let payload = Body::Shared(payload.into());
        let owned = Draft {
            exchange: None,
            topic: topic.as_bytes(),
            properties: &Properties::default(),
            payload,
            head,
        }
        .build();
        let batch = owned.batch();
        retained.store(&batch, 0, &batch.messages[0]);
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let topic =
            |found: &backend::Retained| String::from_utf8(found.message.address().topic().into()).unwrap();
        retained.matching(filter).iter().map(topic).collect()
    }

    #[test]
    fn a_filter_finds_what_it_matches_and_nothing_else() {
        let retained = Retained::new(100, Arc::new(Set::default()));
        for topic in ["a", "a/b", "a/b/c", "ab", "$SYS/x", "b"] {
            retain(&retained, topic, "1", None);
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "a/+"), ["a/b"]);
        assert_eq!(topics(&retained, "a/b"), ["a/b"]);
        assert_eq!(topics(&retained, "#"), ["a", "a/b", "a/b/c", "ab", "b"], "[MQTT-4.7.2-1]");
        assert_eq!(topics(&retained, "+/b/#"), ["a/b", "a/b/c"]);
    }

    #[test]
    fn an_empty_payload_removes_and_is_not_kept() {
        let retained = Retained::new(100, Arc::new(Set::default()));
        retain(&retained, "a", "1", None);
        retain(&retained, "a", "", None);
        assert!(retained.is_empty(), "[MQTT-3.3.1-6], [MQTT-3.3.1-7]");
    }

    #[test]
    fn an_expired_message_is_not_found_and_its_age_is_told() {
        let clock = Arc::new(Set::default());
        let retained = Retained::new(100, Arc::clone(&clock) as Arc<dyn Clock>);
        retain(&retained, "a", "1", Some(1000));
        clock.0.store(400, Ordering::Relaxed);
        assert_eq!(retained.matching("a")[0].age, 400);
        clock.0.store(1000, Ordering::Relaxed);
        assert!(retained.matching("#").is_empty());
        retained.sweep();
        assert_eq!(retained.len(), 0);
        retain(&retained, "b", "1", Some(5000));
        retain(&retained, "a", "1", Some(1000));
        retain(&retained, "c", "1", None);
        clock.0.store(2500, Ordering::Relaxed);
        retained.sweep();
        assert_eq!(topics(&retained, "#"), ["b", "c"]);
        clock.0.store(9000, Ordering::Relaxed);
        retained.sweep();
        assert_eq!(retained.len(), 1, "each sweep knows when the next is due");
    }

    #[test]
    fn who_stores_under_an_address_waits_for_who_does() {
        let retained = Retained::new(10, Arc::new(Set::default()));
        let letter = |topic: &str| {
            let head = Message { flags: Flags::RETAIN, ..Message::default() };
            let (properties, payload) = (&Properties::default(), Body::Shared("1".into()));
            Draft { exchange: None, topic: topic.as_bytes(), properties, payload, head }.build()
        };
        let (first, second) = (letter("a"), letter("a"));
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let turn = retained.turn(&first.batch());
            let retained = &retained;
            scope.spawn(move || {
                drop(retained.turn(&second.batch()));
                told.send(()).unwrap();
            });
            let wait = std::time::Duration::from_millis(100);
            assert!(hears.recv_timeout(wait).is_err(), "the other one waits");
            drop(turn);
            assert!(hears.recv_timeout(100 * wait).is_ok(), "and comes to its turn");
        });
    }

    #[test]
    fn beyond_the_limit_only_addresses_that_are_there_change() {
        let retained = Retained::new(1, Arc::new(Set::default()));
        retain(&retained, "a", "1", None);
        retain(&retained, "b", "1", None);
        retain(&retained, "a", "22", None);
        assert_eq!(topics(&retained, "#"), ["a"]);
        assert_eq!(retained.matching("a")[0].message.payload().unwrap(), b"22");
    }
}
