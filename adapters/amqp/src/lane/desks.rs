//! The desks at which a lane's subscriptions work.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{Credit, DeliveryTag, Refused, Settled, Subscribe, SubscriptionKey};
use linkspan_queues::{ConsumerId, LaneId};

use crate::connection::Scope;
use crate::desk::{Desk, Seat};
use crate::origin::Origin;

/// What a lane has at desks.
pub(super) struct Desks {
    scope: Arc<Scope>,
    /// The lane's number there.
    lane: LaneId,
    seats: HashMap<SubscriptionKey, Seated, RandomState>,
    /// Every desk that it has been at.
    all: Vec<Arc<Desk>>,
    /// What was said inside the transaction that is open, and to which desk.
    said: Vec<Said>,
    taken: Option<Taken>,
}

/// A desk, a seat there unless messages were taken one by one, and what is said of them.
type Said = (Arc<Desk>, Option<ConsumerId>, Settled);

/// A subscription's seat.
struct Seated {
    desk: Arc<Desk>,
    id: ConsumerId,
    /// It has ended, but for what was given there.
    is_over: bool,
}

/// What was taken one by one. Its numbers are the lane's, for some of the queues have desks and others have none.
struct Taken {
    /// Under which key.
    key: SubscriptionKey,
    /// Those before this one are the broker's channel's own.
    base: DeliveryTag,
    /// Where the others came from, and their numbers there.
    places: BTreeMap<DeliveryTag, (Option<Arc<Desk>>, DeliveryTag)>,
    last: DeliveryTag,
}

impl Desks {
    pub(super) fn new(scope: &Arc<Scope>) -> Self {
        let lane = scope.fleet.work_queues.number();
        Self {
            scope: Arc::clone(scope),
            lane,
            seats: HashMap::default(),
            all: Vec::new(),
            said: Vec::new(),
            taken: None,
        }
    }

    fn note(&mut self, desk: &Arc<Desk>) {
        if !self.all.iter().any(|other| Arc::ptr_eq(other, desk)) {
            self.all.push(Arc::clone(desk));
            self.scope.note_desk(desk, self.lane, true);
        }
    }

    /// Makes a subscription, or that one in another way.
    ///
    /// # Errors
    /// What the broker says, or that the queue is in exclusive use.
    pub(super) async fn enter(
        &mut self,
        desk: Arc<Desk>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let before = self.seats.get(&key).filter(|seated| Arc::ptr_eq(&seated.desk, &desk));
        let id = before.map_or_else(|| self.scope.fleet.work_queues.number(), |seated| seated.id);
        let named = how.arguments.iter().find(|(name, _)| *name == "x-priority");
        let named = named.and_then(|(_, value)| i32::try_from(value.as_i64()?).ok());
        let seat = Seat {
            lane: self.lane,
            key,
            sink: self.scope.sink(),
            settle: how.settle,
            credit,
            priority: named.unwrap_or(how.priority),
            exclusive: how.exclusive,
            several: how.several,
            ack_timeout: how.ack_timeout,
            started: false,
            congested: false,
            closed: false,
        };
        self.note(&desk);
        if let Err(why) = desk.enter(id, seat).await {
            self.forget(&desk);
            return Err(why);
        }
        let before = self.seats.insert(key, Seated { desk, id, is_over: false });
        if let Some(before) = before.filter(|before| before.id != id) {
            before.desk.leave(before.id);
        }
        Ok(())
    }

    /// False when no desk knows the key.
    pub(super) fn start(&self, key: SubscriptionKey) -> bool {
        let Some(seated) = self.seats.get(&key).filter(|seated| !seated.is_over) else { return false };
        seated.desk.start(seated.id);
        true
    }

    /// Ends a subscription; false when no desk has it.
    pub(super) fn leave(&mut self, key: SubscriptionKey) -> bool {
        let Some(seated) = self.seats.get_mut(&key).filter(|seated| !seated.is_over) else { return false };
        seated.is_over = true;
        if seated.desk.leave(seated.id)
            && let Some(seated) = self.seats.remove(&key)
        {
            self.forget(&seated.desk);
        }
        true
    }

    /// Lets a desk go at which the lane has nothing any more.
    fn forget(&mut self, desk: &Arc<Desk>) {
        let is_it = |other: &Arc<Desk>| Arc::ptr_eq(other, desk);
        let has_taken =
            |taken: &Taken| taken.places.values().any(|(other, _)| other.as_ref().is_some_and(is_it));
        let is_used = self.seats.values().any(|seated| is_it(&seated.desk))
            || self.said.iter().any(|(other, ..)| is_it(other))
            || self.taken.as_ref().is_some_and(has_taken);
        if !is_used {
            desk.leave_all(self.lane);
            self.scope.note_desk(desk, self.lane, false);
            self.all.retain(|other| !is_it(other));
        }
    }

    pub(super) fn resume(&self) {
        self.all.iter().for_each(|desk| desk.resume(self.lane));
    }

    /// Carries out what was said of what came by desks; inside a transaction that waits for its commit. Yields the rest.
    pub(super) fn settle(
        &mut self,
        runs: Vec<Settled>,
        transacts: bool,
        origin: &Arc<Origin>,
    ) -> Vec<Settled> {
        let (mut said, mut rest) = (Vec::new(), Vec::new());
        for run in runs {
            match (self.seats.get(&run.key), &mut self.taken) {
                (Some(seated), _) => said.push((Arc::clone(&seated.desk), Some(seated.id), run)),
                (None, Some(taken)) if taken.key == run.key => {
                    for (desk, run) in taken.sort(run, transacts) {
                        match desk {
                            Some(desk) => said.push((desk, None, run)),
                            None => rest.push(run),
                        }
                    }
                }
                _ => rest.push(run),
            }
        }
        if transacts {
            self.said.append(&mut said);
        }
        self.say(said, origin);
        rest
    }

    fn say(&self, said: Vec<Said>, origin: &Arc<Origin>) {
        for (desk, id, run) in said {
            desk.settle(id, self.lane, &run, origin);
        }
    }

    /// The transaction is over.
    pub(super) fn transacted(&mut self, is_committed: bool, origin: &Arc<Origin>) {
        let said = std::mem::take(&mut self.said);
        if is_committed {
            if let Some(taken) = &mut self.taken {
                taken.forget(&said);
            }
            self.say(said, origin);
        }
    }

    /// Takes one message. `last` is the number of the last one that was taken where there is no desk.
    ///
    /// # Errors
    /// What the broker says.
    pub(super) async fn fetch(
        &mut self,
        desk: Arc<Desk>,
        key: SubscriptionKey,
        settled: bool,
        last: DeliveryTag,
    ) -> Result<Option<Fetched>, Refused> {
        self.note(&desk);
        let work_queues = Arc::clone(&self.scope.fleet.work_queues);
        let fetched = desk.fetch(self.lane, || work_queues.number(), key, settled).await?;
        let Some(mut fetched) = fetched else { return Ok(None) };
        if !settled {
            let taken = self.taken.get_or_insert_with(|| Taken {
                key,
                base: last.saturating_add(1),
                places: BTreeMap::new(),
                last,
            });
            fetched.tag = taken.number(Some(desk), fetched.tag);
        }
        Ok(Some(fetched))
    }

    /// The lane's number of what was taken where there is no desk, under the broker's channel's own.
    pub(super) fn number(&mut self, tag: DeliveryTag) -> DeliveryTag {
        self.taken.as_mut().map_or(tag, |taken| taken.number(None, tag))
    }

    pub(super) fn recover(&self, requeue: bool) {
        self.all.iter().for_each(|desk| desk.recover(self.lane, requeue));
    }
}

impl Drop for Desks {
    fn drop(&mut self) {
        for desk in &self.all {
            desk.leave_all(self.lane);
            self.scope.note_desk(desk, self.lane, false);
        }
    }
}

impl Taken {
    fn number(&mut self, desk: Option<Arc<Desk>>, tag: DeliveryTag) -> DeliveryTag {
        self.last = self.last.saturating_add(1);
        self.places.insert(self.last, (desk, tag));
        self.last
    }

    /// What was said of these counts.
    fn forget(&mut self, said: &[Said]) {
        let is_it = |desk: &Arc<Desk>, tag: DeliveryTag| {
            said.iter().any(|(other, id, run)| {
                id.is_none() && run.first == tag && run.outcome.is_last() && Arc::ptr_eq(other, desk)
            })
        };
        self.places.retain(|_, (desk, tag)| !desk.as_ref().is_some_and(|desk| is_it(desk, *tag)));
    }

    /// Whose each of a run is, under the number that it has there. What is said inside a transaction may be said again.
    fn sort(&mut self, run: Settled, transacts: bool) -> Vec<(Option<Arc<Desk>>, Settled)> {
        let mut sorted = Vec::new();
        let end = run.first.saturating_add(run.count.into());
        for tag in run.first..end {
            let place = match self.places.get(&tag) {
                _ if tag < self.base => Some((None, tag)),
                place => place.cloned(),
            };
            if run.outcome.is_last() && !transacts {
                self.places.remove(&tag);
            }
            let Some((desk, first)) = place else {
                metrics::counter!("linkspan_settlements_ignored_total").increment(1);
                continue;
            };
            // The last one's word is for all of them.
            let word = run.word.filter(|_| tag.saturating_add(1) == end);
            sorted.push((desk, Settled { first, count: 1, word, ..run.clone() }));
        }
        sorted
    }
}
