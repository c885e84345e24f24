//! What lies on a desk, and what it says to the broker.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use linkspan_contract::backend::Fetched;
use linkspan_contract::{Millis, Seq, Settled, SubscriptionKey, Terms};
use linkspan_queues::{ConsumerId, LaneId, Limits};
use tokio::sync::RwLock;

use super::fetching::Fetching;
use super::work::{Arrival, Word, Work};
use crate::consumers::{Marks, Reply};
use crate::now::poke;
use crate::origin::Origin;

/// All that a desk's lock guards.
pub(super) struct State {
    pub(super) work: Work,
    pub(super) terms: Arc<Terms>,
    pub(super) single_active: bool,
    /// The highest level, where each has a queue at the broker.
    highest: Option<u8>,
    /// Where what is here came by.
    pub(super) channel: Option<Arc<Channel>>,
    /// Who takes one message by it reads this until that lies here.
    pub(super) getting: Arc<RwLock<()>>,
    /// Consumers that it has at the broker.
    pub(super) streams: u32,
    /// How many messages the broker had of each level, or of all, when it said so last, without those that have come.
    behind: Vec<u32>,
    marks: Marks,
    /// Until then somebody waits for a message, who takes them one by one.
    pub(super) asked_until: Millis,
    /// Who waits until the channel is there.
    pub(super) asking: Vec<Reply<()>>,
    /// Who waits to hear that a settlement is safe.
    pub(super) words: Vec<(Arc<Origin>, Seq)>,
    /// Who takes messages one by one.
    fetching: HashMap<LaneId, Fetching, RandomState>,
    /// The queue was deleted here: nobody comes any more.
    pub(super) over: bool,
    /// Nobody keeps the channel any more.
    pub(super) ended: bool,
}

impl State {
    pub(super) fn new(now: Millis, terms: Arc<Terms>, single_active: bool, highest: Option<u8>) -> Self {
        Self {
            work: Work::new(now, limits(&terms, single_active, highest)).with_levels(highest),
            terms,
            single_active,
            highest,
            channel: None,
            getting: Arc::default(),
            streams: 0,
            behind: Vec::new(),
            marks: Marks::default(),
            asked_until: 0,
            asking: Vec::new(),
            words: Vec::new(),
            fetching: HashMap::default(),
            over: false,
            ended: false,
        }
    }

    /// What the engine is told of the route's terms.
    pub(super) fn limits(&self) -> Limits {
        limits(&self.terms, self.single_active, self.highest)
    }

    /// There is a channel.
    pub(super) fn open(&mut self, channel: &Arc<Channel>) {
        self.channel = Some(Arc::clone(channel));
        // An answer that the last one owes holds up nobody.
        self.getting = Arc::default();
        self.marks = Marks::default();
    }

    /// The broker has so many messages of a level, or of all, that it has lent to nobody.
    pub(super) fn learn(&mut self, level: u8, ready: u32) {
        let at = usize::from(level);
        if self.behind.len() <= at {
            self.behind.resize(at + 1, 0);
        }
        self.behind.iter_mut().skip(at).take(1).for_each(|behind| *behind = ready);
    }

    pub(super) fn arrive(&mut self, now: Millis, arrival: Arrival) {
        if let Some(behind) = self.behind.get_mut(usize::from(arrival.level.unwrap_or(0))) {
            *behind = behind.saturating_sub(1);
        }
        self.marks.open(arrival.loan);
        self.work.arrive(now, &self.terms, arrival);
    }

    /// Tells the broker what is over.
    pub(super) fn speak(&mut self) {
        for word in self.work.words() {
            match word {
                Word::Accept(loan) => self.marks.accept(loan),
                Word::Reject { loan, requeue } => {
                    if let Some(channel) = &self.channel {
                        poke(channel.basic_reject(loan, BasicRejectOptions { requeue }));
                    }
                    self.marks.told(loan);
                }
            }
        }
        let Some(channel) = &self.channel else { return };
        for ack in self.marks.tell() {
            poke(channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple }));
        }
    }

    /// There is no consumer at the broker any more, and it had reached this number: gives it back what nobody has in hand, and
    /// what nobody has seen.
    pub(super) fn give_back(&mut self, reached: u64, but_tried: bool) {
        self.streams = 0;
        self.work.close_levels();
        self.work.give_back(but_tried);
        self.speak();
        self.marks.told(reached);
        let Some(channel) = &self.channel else { return };
        for stray in self.marks.strays() {
            poke(channel.basic_reject(stray, BasicRejectOptions { requeue: true }));
            self.marks.told(stray);
        }
    }

    /// Takes a message that lies here, for a lane that takes them one by one.
    pub(super) fn take(
        &mut self,
        now: Millis,
        lane: LaneId,
        id: impl Fn() -> ConsumerId,
        key: SubscriptionKey,
        settled: bool,
    ) -> Option<Fetched> {
        let fetching = self.fetching.entry(lane).or_insert_with(|| Fetching {
            id: id(),
            base: 0,
            last: 0,
            is_lost: false,
        });
        if std::mem::take(&mut fetching.is_lost) {
            (fetching.id, fetching.base) = (id(), fetching.last);
        }
        let taken = self.work.fetch(now, fetching.id, lane, settled)?;
        let tag = if settled { 0 } else { taken.tag.saturating_add(fetching.base) };
        fetching.last = fetching.last.max(tag);
        let (age, attempt) = (taken.age, taken.message.attempts);
        let behind = self.behind.iter().fold(0_u64, |all, behind| all.saturating_add((*behind).into()));
        let remaining = self.work.len().saturating_add(behind);
        Some(Fetched { message: taken.message.body, key, tag, age, attempt, remaining })
    }

    /// Removes what nobody has in hand, here and at the broker, and tells how much of it was here.
    pub(super) fn purge(&mut self) -> u64 {
        self.behind.clear();
        self.work.purge()
    }

    /// A lane that took messages one by one is gone.
    pub(super) fn leave(&mut self, lane: LaneId) {
        self.fetching.remove(&lane);
    }

    /// Carries out what is said of what a lane has taken; tells of how many that was.
    pub(super) fn settle_taken(&mut self, now: Millis, lane: LaneId, run: &Settled) -> u32 {
        let Some(fetching) = self.fetching.get(&lane).filter(|fetching| !fetching.is_lost) else { return 0 };
        let end = run.first.saturating_add(run.count.into());
        let first = run.first.max(fetching.base.saturating_add(1));
        let count = u32::try_from(end.saturating_sub(first)).unwrap_or(0);
        let tag = first.saturating_sub(fetching.base);
        self.work.settle(now, fetching.id, tag, count, &run.outcome).known
    }

    /// What came by the channel is the broker's again.
    pub(super) fn forget(&mut self) {
        self.channel = None;
        self.streams = 0;
        self.behind.clear();
        self.work.close_levels();
        self.marks = Marks::default();
        for fetching in self.fetching.values_mut() {
            fetching.is_lost = true;
        }
    }
}

/// What the engine is told of a route's terms.
fn limits(terms: &Terms, single_active: bool, highest: Option<u8>) -> Limits {
    let priorities = terms.priorities.as_ref();
    Limits {
        max_priority: highest.or(priorities.map(|priorities| priorities.highest)).unwrap_or(0),
        weighted: highest.is_some() && priorities.is_some_and(|priorities| priorities.weighted),
        delivery_limit: terms.max_deliveries.map(|most| most.get().saturating_sub(1)),
        retry: terms.retry,
        single_active,
        keyed: terms.ordering_key.is_some(),
        ack_timeout: terms.ack_timeout,
        ..Limits::default()
    }
}
