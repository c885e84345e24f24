//! What the route that owns a queue says of it.

use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;
use linkspan_contract::{Batch, Flags, Message, Millis, Overflow, Terms};
use linkspan_queues::{Key, Limits, Offer};

use super::{Queue, State, record};
use crate::archive::SEEN;
use crate::outlet::Touched;
use crate::parcel::Parcel;
use crate::repeats::Repeats;
use crate::scratch::Scratch;

/// What a queue knows of its route.
#[derive(Debug)]
pub(super) struct OfRoute {
    terms: Arc<Terms>,
    /// What it was declared with, whatever the route says.
    declared: Limits,
}

impl Queue {
    /// What was published to it, where what comes again is dropped.
    pub(crate) fn repeats(&self) -> Option<Arc<Repeats>> {
        self.state.lock().repeats.clone()
    }

    /// Its route says this from now on.
    pub(crate) fn set_terms(self: &Arc<Self>, terms: &Arc<Terms>, now: Millis) {
        let mut touched = Touched::default();
        self.act(now, &mut touched, |state| state.set_terms(terms, self, now));
        touched.flush();
    }

    /// It has no route any more: only what it was declared with counts.
    pub(crate) fn lose_route(self: &Arc<Self>, now: Millis) {
        let mut touched = Touched::default();
        self.act(now, &mut touched, |state| {
            if state.of_route.is_some() {
                state.set_terms(&Arc::default(), self, now);
            }
        });
        touched.flush();
    }
}

impl State {
    fn set_terms(&mut self, terms: &Arc<Terms>, queue: &Queue, now: Millis) {
        let declared = match &self.of_route {
            Some(before) if before.terms == *terms => return,
            Some(before) => before.declared.clone(),
            None => self.engine.limits().clone(),
        };
        let window = self.engine.limits().window;
        let keys_before = self.reads.as_ref().and_then(|terms| terms.ordering_key.clone());
        self.engine.set_limits(Limits { window, ..limits(terms, &declared) });
        if terms.max_length.is_some() && self.of_route.is_none() {
            record::recount(&mut self.engine);
        }
        self.reads = reads(terms).then(|| Arc::clone(terms));
        if keys_before != terms.ordering_key {
            // Those that were restored before anything was said of keys have none.
            self.engine.tell_keys(|parcel| key_of(terms, parcel));
        }
        self.repeats = self.repeats_of(terms, queue, now);
        self.of_route = Some(Box::new(OfRoute { terms: Arc::clone(terms), declared }));
    }

    /// What it knows of what was published to it, where that is to be known.
    fn repeats_of(&mut self, terms: &Terms, queue: &Queue, now: Millis) -> Option<Arc<Repeats>> {
        let before = self.repeats.take();
        let desk = self.engine.journal_mut().desk();
        let archive = desk.as_ref().map(|desk| Arc::clone(&desk.archive));
        // Where there is no log, any number will do that no other queue has.
        let number = desk.map_or_else(|| std::ptr::from_ref(queue).addr() as u64, |desk| desk.diary.number());
        let Some(how) = &terms.deduplicate else {
            if let Some(archive) = archive {
                archive.forget_seen(number | SEEN);
            }
            return None;
        };
        if let Some(before) = before.filter(|before| before.is(how)) {
            return Some(before);
        }
        if let Some(vhost) = queue.vhost() {
            vhost.house.begin_to_deduplicate();
        }
        Some(Arc::new(Repeats::open(how, number, archive.as_deref(), now)))
    }

    /// The engine has taken a message, or not: what identifies it is kept, or is not.
    #[cold]
    pub(super) fn took(
        &mut self,
        taken: bool,
        batch: &Batch<'_>,
        place: u32,
        now: Millis,
        scratch: &Scratch,
    ) {
        let Some(repeats) = self.repeats.clone() else { return };
        let Some(id) = scratch.fresh_of(repeats.number(), place) else { return };
        let durable = batch.message(place).is_some_and(|message| message.flags.has(Flags::DURABLE));
        self.keep_seen(&repeats, id, taken, durable, now);
    }

    /// The same for what is known of it.
    pub(super) fn keep_seen(&mut self, repeats: &Repeats, id: u128, taken: bool, durable: bool, now: Millis) {
        let journal = self.engine.journal_mut();
        if !taken {
            return repeats.refuse(id, now, journal.gathered());
        }
        let durable = durable && journal.is_durable();
        repeats.keep(id, durable, now, journal.gathered());
    }

    /// What the engine is to know of a message that was read from the log.
    pub(super) fn key_of(&self, parcel: &Parcel) -> Key {
        self.reads
            .as_ref()
            .filter(|terms| terms.ordering_key.is_some())
            .map_or(0, |terms| key_of(terms, parcel))
    }

    /// Whether what comes may have to wait before anybody is given it.
    #[inline]
    pub(super) fn holds_back(&self) -> bool {
        self.reads.as_ref().is_some_and(|terms| terms.delay.is_some())
    }

    /// A message for the engine, as the route wants it treated.
    #[inline]
    pub(super) fn offer(&self, parcel: Parcel) -> Offer<Parcel> {
        let offer = parcel.offer(self.counts);
        match &self.reads {
            None => offer,
            Some(terms) => read(terms, offer),
        }
    }
}

/// Whether anything of a message decides how it is treated.
fn reads(terms: &Terms) -> bool {
    terms.priorities.is_some() || terms.delay.is_some() || terms.ordering_key.is_some()
}

fn read(terms: &Terms, offer: Offer<Parcel>) -> Offer<Parcel> {
    let batch = offer.body.batch.batch();
    let Some(message) = batch.message(offer.body.at) else { return offer };
    let (priority, delay) = (terms.priority(&batch, message), terms.delay(&batch, message));
    let key = key(terms, &batch, message);
    Offer { priority, delay, key, ..offer }
}

fn key_of(terms: &Terms, parcel: &Parcel) -> Key {
    let batch = parcel.batch.batch();
    batch.message(parcel.at).map_or(0, |message| key(terms, &batch, message))
}

static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// What a message has that is to go to one consumer at a time. Two keys that are the same here go the same way, without need
/// and rarely.
fn key(terms: &Terms, batch: &Batch<'_>, message: &Message) -> Key {
    let bytes = terms.ordering_key.as_ref().and_then(|from| from.of(batch, message));
    bytes.map_or(0, |bytes| {
        let hash = KEYS.hash_one(bytes) & u64::from(Key::MAX);
        Key::try_from(hash).unwrap_or_default().max(1)
    })
}

/// The limits of a queue that was declared with some.
fn limits(terms: &Terms, declared: &Limits) -> Limits {
    let less = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    // What is given out n times comes back n - 1 times.
    let comes_back = terms.max_deliveries.map(|most| most.get() - 1);
    let mut limits = Limits {
        ack_timeout: terms.ack_timeout,
        delivery_limit: declared.delivery_limit.into_iter().chain(comes_back).min(),
        retry: terms.retry,
        weighted: terms.priorities.as_ref().is_some_and(|priorities| priorities.weighted),
        keyed: terms.ordering_key.is_some(),
        message_ttl: less(declared.message_ttl, terms.expiry),
        ..declared.clone()
    };
    if let Some(most) = terms.max_length {
        limits.max_length = Some(most.get());
        limits.overflow = match terms.overflow {
            Overflow::Reject => linkspan_queues::Overflow::Reject,
            Overflow::DropHead => linkspan_queues::Overflow::DropHead,
            Overflow::DeadLetter => linkspan_queues::Overflow::RejectDeadLetter,
        };
    }
    limits
}
