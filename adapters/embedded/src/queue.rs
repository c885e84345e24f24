//! A queue of this back end: the engine behind a lock, and the sinks of its consumers.

mod fill;
mod hand_out;
mod intake;
mod kept_back;
mod locked;
mod members;
mod membership;
mod memory;
mod record;
mod remains;
mod said;
mod subscriptions;
mod terms;
mod writing;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Flags, Millis, QueueCounts, Refused, SubscriptionKey, Terms};
use linkspan_queues::log::Lsn;
use linkspan_queues::{ConsumerId, Limits, Pushed, Queue as Engine};
use parking_lot::{Mutex, MutexGuard};

use crate::arguments::{Overflow, Owned, QueueArguments};
use crate::budget::Budget;
use crate::coordinator::Place;
use crate::dead_letter::{DeadLetters, Grave};
use crate::gate::{Gate, Marks};
use crate::inbox::INBOX;
use crate::inward::Inward;
use crate::keeper::Keeper;
use crate::outlet::{Outlet, Touched};
use crate::parcel::{Counts, Parcel};
use crate::repeats::Repeats;
use crate::scratch::Scratch;
use crate::vhost::Vhost;

pub(crate) use locked::Locked;
pub(crate) use remains::Remains;
pub(crate) use said::Said;

use kept_back::KeptBack;
use memory::widest;
use record::Record;
use terms::OfRoute;

/// What a queue was declared with, beside its limits.
#[derive(Debug, Default)]
pub(crate) struct QueueTraits {
    pub(crate) durable: bool,
    /// The client whose own it is.
    pub(crate) owner: Option<u64>,
    pub(crate) auto_delete: bool,
    pub(crate) declared: Owned,
    /// What it is called on the disk; none: nothing of it is there. A shared subscription has one from the beginning.
    pub(crate) number: Option<u64>,
    /// The shared subscription that it is, by group and filter.
    pub(crate) group: Option<(Box<str>, Box<str>)>,
}

/// One queue.
pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    vhost: Weak<Vhost>,
    traits: QueueTraits,
    grave: Option<Grave>,
    pub(crate) gate: Gate,
    /// Of what its window in memory is a part, where a log keeps the rest.
    budget: Option<Arc<Budget>>,
    state: Mutex<State>,
}

struct State {
    engine: Engine<Parcel, Record>,
    /// Where what was last written ends in the log.
    written: Lsn,
    /// Nothing is given out before everything up to here is safe: a transaction's commit.
    held: Lsn,
    seats: HashMap<ConsumerId, Seat, RandomState>,
    /// Consumers whose sinks are above their marks.
    congested: usize,
    /// Bytes in memory that the budget was last told of.
    told: u64,
    /// Something was given out since the gate was last told.
    moved: bool,
    /// Much was brought in of which nobody could be given anything, and there may be more.
    looks_again: bool,
    /// Where the coordinator will look at this queue.
    scheduled: Option<Place>,
    /// What is published to it is lost for it without a word to the publisher: others may get it.
    is_group: bool,
    /// It is a session's: one for which more comes than it may have is over.
    is_inbox: bool,
    counts: Counts,
    /// What its route says of it, when it has one.
    of_route: Option<Box<OfRoute>>,
    /// The same, where something of a message decides how it is treated.
    reads: Option<Arc<Terms>>,
    /// What was published to it, where what comes again is dropped.
    repeats: Option<Arc<Repeats>>,
    /// Of a session's queue: what is given out when that is safe.
    kept_back: KeptBack,
    /// Of a session's queue: what came by these is nobody's any more.
    ended_subscriptions: BTreeSet<u32>,
    /// Of a shared subscription's: the sessions by which it outlives the process.
    members: BTreeSet<Arc<str>>,
    ended: bool,
}

/// Where a consumer's deliveries go.
struct Seat {
    outlet: Outlet,
    key: SubscriptionKey,
    settles_nothing: bool,
    /// Its sink is above its mark or closed.
    congested: bool,
    /// Its list of assignments while things are handed out.
    list: u32,
}

impl Queue {
    pub(crate) fn new(
        name: Arc<str>,
        vhost: &Arc<Vhost>,
        traits: QueueTraits,
        arguments: &QueueArguments,
        now: Millis,
    ) -> Arc<Self> {
        let options = &vhost.house.options;
        let archive = vhost.house.archive.as_ref();
        let is_inbox = name.starts_with(INBOX);
        let limits = Limits {
            max_length: arguments.max_length,
            max_bytes: match (arguments.max_bytes, archive) {
                (None, Some(_)) if is_inbox => Some(options.session_limit),
                (own, Some(_)) => own,
                (own, None) => Some(own.map_or(options.queue_limit, |own| own.min(options.queue_limit))),
            },
            max_delayed_bytes: archive.is_none().then_some(options.queue_limit),
            overflow: match arguments.overflow {
                Overflow::DropHead if arguments.is_bounded() => linkspan_queues::Overflow::DropHead,
                // Nobody asked for messages to be dropped: the memory's bound refuses what comes.
                Overflow::DropHead => linkspan_queues::Overflow::Reject,
                Overflow::RejectPublish => linkspan_queues::Overflow::Reject,
                Overflow::RejectPublishDeadLetter => linkspan_queues::Overflow::RejectDeadLetter,
            },
            message_ttl: arguments.message_ttl,
            max_priority: arguments.max_priority,
            delivery_limit: arguments.delivery_limit,
            single_active: arguments.single_active,
            expires: arguments.expires,
            ack_timeout: None,
            retry: None,
            weighted: false,
            keyed: false,
            window: archive.map(|archive| archive.budget.window(widest(is_inbox))),
        };
        let mut engine = Engine::with_journal(
            now,
            limits,
            archive
                .map_or_else(Record::default, |archive| Record::new(archive, traits.number, traits.durable)),
        );
        record::remember(&mut engine, now);
        let is_group = traits.group.is_some();
        let desk = engine.journal_mut().desk();
        let ended_subscriptions = desk.as_ref().filter(|_| is_inbox).map(|desk| desk.ended());
        let members = desk.filter(|_| is_group).map(|desk| desk.members());
        let (ended_subscriptions, members) =
            (ended_subscriptions.unwrap_or_default(), members.unwrap_or_default());
        let grave = arguments
            .dead_letter_exchange
            .as_ref()
            .map(|exchange| Grave { exchange: exchange.clone(), key: arguments.dead_letter_key.clone() });
        Arc::new(Self {
            name,
            vhost: Arc::downgrade(vhost),
            traits,
            grave,
            gate: Gate::new(Marks {
                high: options.queue_high,
                longest: options.slow_after / 4,
                slow_after: options.slow_after,
            }),
            budget: archive.map(|archive| Arc::clone(&archive.budget)),
            state: Mutex::new(State {
                engine,
                written: 0,
                held: 0,
                seats: HashMap::default(),
                congested: 0,
                told: 0,
                moved: false,
                looks_again: false,
                scheduled: None,
                is_group,
                is_inbox,
                kept_back: KeptBack::default(),
                counts: match arguments.max_bytes {
                    Some(_) => Counts::Body,
                    None if is_inbox => Counts::Held,
                    None => Counts::All,
                },
                of_route: None,
                reads: None,
                repeats: None,
                ended_subscriptions,
                members,
                ended: false,
            }),
        })
    }

    pub(crate) fn traits(&self) -> &QueueTraits {
        &self.traits
    }

    pub(crate) fn group(&self) -> Option<(&str, &str)> {
        self.traits.group.as_ref().map(|(group, filter)| (&**group, &**filter))
    }

    /// Where its dead letters go.
    pub(crate) fn grave(&self) -> Option<&Grave> {
        self.grave.as_ref()
    }

    pub(crate) fn vhost(&self) -> Option<Arc<Vhost>> {
        self.vhost.upgrade()
    }

    /// Refuses a client whose queue it is not.
    pub(crate) fn check_owner(&self, client: u64) -> Result<(), Refused> {
        match self.traits.owner {
            Some(owner) if owner != client => Err(Refused::Locked(self.name.to_string())),
            _ => Ok(()),
        }
    }

    /// Ready, unsettled, bytes, consumers.
    pub(crate) fn depth(&self) -> (u64, u64, u64, usize) {
        let state = self.state.lock();
        let engine = &state.engine;
        (engine.len() + engine.delayed() as u64, engine.unsettled(), engine.bytes(), engine.consumers())
    }

    /// Somebody has declared it: it is in use. Tells its counts.
    pub(crate) fn declared(&self, now: Millis) -> QueueCounts {
        let mut state = self.state.lock();
        state.engine.touch(now);
        counts(&self.name, &state)
    }

    /// Takes messages of a lent batch: straight to consumers that settle nothing, else into the queue.
    pub(crate) fn publish(
        self: &Arc<Self>,
        keeper: &mut Keeper<'_>,
        ranges: &[Range<u32>],
        via: u32,
        scratch: &mut Scratch,
        inward: &mut Inward<'_>,
    ) {
        let count = ranges.iter().map(|range| range.end - range.start).sum();
        let batch = keeper.batch();
        let mut state = self.state.lock();
        if state.ended || count == 0 {
            dropped("queue-deleted", count);
            return;
        }
        let durable = batch.any.any(Flags::DURABLE);
        let now = inward.now;
        state.written = 0;
        if state.holds_back() || state.engine.direct(count, durable, &mut scratch.straight) == 0 {
            state.push(keeper, ranges, via, scratch, inward);
        } else {
            let missed = state.hand_straight(batch, ranges, scratch, inward);
            if state.repeats.is_some() {
                let places = ranges.iter().cloned().flatten();
                let missed = |place: &u32| missed.iter().any(|range| range.contains(place));
                places
                    .filter(|place| !missed(place))
                    .for_each(|place| state.took(true, batch, place, now, scratch));
            }
            state.push(keeper, &missed, via, scratch, inward);
        }
        if state.congested > 0 && !state.engine.is_empty() {
            state.brake(inward.brakes);
        }
        let until = self.held(&state, inward.client, now);
        let kept = state.write(self);
        if durable {
            inward.written = inward.written.max(state.written);
            inward.unwritten |= !kept;
        }
        self.finish(state, now, inward.touched);
        if let Some(until) = until {
            inward.brakes.queue(self, until);
        }
    }

    /// Until when a client that has published here is held. Who consumes here itself would be kept from settling, and so
    /// hold itself up.
    fn held(&self, state: &State, client: u64, now: Millis) -> Option<Millis> {
        let consumes = || state.seats.values().any(|seat| seat.outlet.client() == client);
        self.gate.hold(now).filter(|_| !consumes())
    }

    /// Takes one kept message, from inside: a dead letter. What that costs others is for the caller to carry out.
    pub(crate) fn put(self: &Arc<Self>, message: Parcel, now: Millis, touched: &mut Touched) -> Said {
        Scratch::with(|scratch| {
            let mut state = self.state.lock();
            if state.ended {
                dropped("queue-deleted", 1);
                return Said::default();
            }
            let offer = state.offer(message);
            let pushed = state.engine.push(now, offer, &mut scratch.assignments);
            if pushed == Pushed::Refused {
                dropped("queue-full", 1);
            }
            state.hand_out(now, scratch, touched);
            let said = self.note(&mut state, now);
            Said { unwritable: pushed == Pushed::Unwritable, ..said }
        })
    }

    /// Removes what is ready and tells how much.
    pub(crate) fn purge(self: &Arc<Self>, now: Millis) -> u64 {
        let mut state = self.state.lock();
        let purged = state.engine.purge();
        state.write(self);
        self.gate.progress(now);
        self.gate.level(0);
        self.tell(&mut state, 0);
        purged
    }

    /// Its time has come.
    pub(crate) fn tick(self: &Arc<Self>, place: Place, now: Millis, touched: &mut Touched) {
        self.act(now, touched, |state| {
            // It may have got another place since it was taken from this one.
            state.scheduled.take_if(|scheduled| *scheduled == place);
            state.engine.tick(now);
        });
    }

    /// Has the coordinator look at it when something becomes due.
    pub(crate) fn watch(self: &Arc<Self>) {
        self.schedule(&mut self.state.lock());
    }

    /// Does something to the engine, then gives out what can be given.
    fn act<R>(self: &Arc<Self>, now: Millis, touched: &mut Touched, what: impl FnOnce(&mut State) -> R) -> R {
        Scratch::with(|scratch| {
            let mut state = self.state.lock();
            let result = what(&mut state);
            state.hand_out(now, scratch, touched);
            self.finish(state, now, touched);
            result
        })
    }

    /// Notes what has changed, lets go of the lock and carries out what the engine has to say.
    fn finish(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now: Millis, touched: &mut Touched) {
        let said = self.note(&mut state, now);
        drop(state);
        if !said.is_empty()
            && let Some(vhost) = self.vhost()
        {
            let mut dead = DeadLetters::default();
            dead.carry_out(self, &vhost, said);
            dead.bury(&vhost, now, touched);
        }
    }

    /// Notes what has changed, and yields what the engine has to say.
    fn note(self: &Arc<Self>, state: &mut State, now: Millis) -> Said {
        if std::mem::take(&mut state.moved) {
            self.gate.progress(now);
        }
        let again = self.fit(state);
        state.write(self);
        let bytes = state.in_memory();
        self.gate.level(bytes);
        self.tell(state, bytes);
        if again {
            self.look_soon();
        } else if std::mem::take(&mut state.looks_again) {
            self.look_in_a_moment();
        }
        self.schedule(state);
        if state.engine.has_effects() { Said::of(&mut state.engine) } else { Said::default() }
    }

    /// Begins with what was found of it in the log.
    pub(crate) fn begin(self: &Arc<Self>, now: Millis) {
        self.act(now, &mut Touched::default(), |_| ());
    }

    fn schedule(self: &Arc<Self>, state: &mut State) {
        if let Some(at) = state.engine.next_tick()
            && state.scheduled.is_none_or(|(scheduled, _)| at < scheduled)
            && let Some(vhost) = self.vhost()
        {
            state.scheduled = vhost.house.coordinator.look_at(self, at, state.scheduled);
        }
    }
}

impl State {
    /// A consumer leaves its seat.
    fn rise(&mut self, consumer: ConsumerId) {
        if let Some(seat) = self.seats.remove(&consumer) {
            self.congested -= usize::from(seat.congested);
        }
    }
}

fn counts(name: &str, state: &State) -> QueueCounts {
    QueueCounts {
        name: name.into(),
        messages: state.engine.len(),
        unsettled: Some(state.engine.unsettled().saturating_add(state.engine.delayed() as u64)),
        consumers: u32::try_from(state.engine.consumers()).unwrap_or(u32::MAX),
    }
}

fn dropped(reason: &'static str, count: u32) {
    if count > 0 {
        metrics::counter!("linkspan_messages_dropped_total", "reason" => reason).increment(count.into());
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("traits", &self.traits)
            .finish_non_exhaustive()
    }
}
