//! The consuming side of a lane: its subscriptions, the queues it holds something of, and what it has fetched.

mod settling;

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::address::Pattern;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{Credit, Millis, Refused, Settle, Source, Subscribe, SubscriptionKey};
use linkspan_queues::log::Lsn;
use linkspan_queues::{Consumer, ConsumerId, LaneId};

use crate::fetches::Fetches;
use crate::outlet::Touched;
use crate::queue::Queue;
use crate::session::Session;
use crate::subscription::Subscription;
use crate::vhost::Vhost;
use crate::working::{Earlier, Working};

/// A lane's subscriptions by the door's keys.
pub(crate) struct Consumers {
    vhost: Arc<Vhost>,
    lane: LaneId,
    session: Arc<Session>,
    by_key: HashMap<SubscriptionKey, Consuming, RandomState>,
    /// The queues that this lane consumes from or holds deliveries of.
    queues: Vec<Used>,
    /// Which of them is given to first.
    turn: usize,
    /// Boxed: idle clients have none.
    fetches: Option<Box<Fetches>>,
}

enum Consuming {
    /// A topic filter; until it is started, `of_now` is what the key stood for before.
    Filter { next: Option<Arc<Subscription>>, of_now: Option<Arc<Subscription>> },
    /// A queue; boxed, for tables have room for several of these and idle clients have one.
    Queue(Box<Working>),
}

struct Used {
    queue: Arc<Queue>,
    consumers: Vec<ConsumerId>,
}

impl Used {
    fn resume(&self, now: Millis, touched: &mut Touched) {
        if !self.consumers.is_empty() {
            self.queue.resume(&self.consumers, now, touched);
        }
    }
}

impl Consumers {
    pub(crate) fn new(vhost: Arc<Vhost>, lane: LaneId, session: Arc<Session>) -> Self {
        Self { vhost, lane, session, by_key: HashMap::default(), queues: Vec::new(), turn: 0, fetches: None }
    }

    pub(crate) fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
        now: Millis,
        touched: &mut Touched,
    ) -> Result<(), Refused> {
        match *source {
            Source::Filter(filter) => {
                let of_now = match self.by_key.remove(&key) {
                    Some(Consuming::Filter { of_now, .. }) => of_now,
                    Some(queue) => {
                        self.leave(queue, now, touched);
                        None
                    }
                    None => None,
                };
                self.visit_inbox(key, how, credit.as_ref())?;
                let window = self.session.window(credit);
                let session = Arc::clone(&self.session);
                let filter = Pattern::from_filter(filter);
                let mut next = Subscription::new(key, filter, how, session, window);
                if let Some(before) = &of_now {
                    next = next.replacing(before);
                }
                self.by_key.insert(key, Consuming::Filter { next: Some(Arc::new(next)), of_now });
                Ok(())
            }
            Source::Group { group, filter } => self.subscribe_queue(key, now, touched, |this, number| {
                this.vhost.change(|topology| {
                    let queue = this.vhost.group(topology, group, filter);
                    let consumer = this.consumer(number(&queue), how, credit);
                    queue.join(consumer, &this.session, key).map(|()| queue)
                })
            }),
            Source::Session => match self.session.inbox() {
                Some(inbox) if inbox.depth().0 > 0 => self.visit_inbox(key, how, credit.as_ref()),
                Some(_) => Ok(()),
                None => Err(Refused::NotImplemented("sessions are not kept here".into())),
            },
            Source::Queue(name) => self.subscribe_queue(key, now, touched, |this, number| {
                let topology = this.vhost.look();
                let queue = topology.queue(name).ok_or_else(|| Refused::NotFound {
                    what: linkspan_contract::What::Queue,
                    name: name.into(),
                })?;
                queue.check_owner(this.session.client)?;
                queue.join(this.consumer(number(queue), how, credit), &this.session, key)?;
                Ok(Arc::clone(queue))
            }),
        }
    }

    /// The session's queue, and who consumes from it here.
    fn at_inbox(&self) -> Option<(Arc<Queue>, ConsumerId)> {
        let inbox = self.session.inbox()?;
        let used = self.queues.iter().find(|used| Arc::ptr_eq(&used.queue, inbox))?;
        Some((Arc::clone(inbox), *used.consumers.first()?))
    }

    /// The first subscription with something to settle has the session's queue consumed.
    fn visit_inbox(
        &mut self,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<&Arc<Credit>>,
    ) -> Result<(), Refused> {
        let Some(inbox) = self.session.inbox().cloned() else { return Ok(()) };
        if self.at_inbox().is_some() || how.settle == Settle::OnDelivery {
            return Ok(());
        }
        let id = self.vhost.house.number();
        let consumer = Consumer {
            credit: credit.cloned(),
            tags_by_position: true,
            ..Consumer::new(id, self.lane, Settle::ByConsumer)
        };
        inbox.join(consumer, &self.session, key)?;
        self.uses(&inbox, Some(id));
        Ok(())
    }

    fn subscribe_queue(
        &mut self,
        key: SubscriptionKey,
        now: Millis,
        touched: &mut Touched,
        join: impl FnOnce(&Self, &dyn Fn(&Arc<Queue>) -> ConsumerId) -> Result<Arc<Queue>, Refused>,
    ) -> Result<(), Refused> {
        let of_now = match self.by_key.get(&key) {
            Some(Consuming::Queue(working)) if !working.over => {
                Some((Arc::clone(&working.queue), working.consumer))
            }
            _ => None,
        };
        let stays = |queue: &Arc<Queue>| {
            of_now.as_ref().filter(|(other, _)| Arc::ptr_eq(queue, other)).map(|(_, consumer)| *consumer)
        };
        let fresh = self.vhost.house.number();
        let queue = join(self, &|queue| stays(queue).unwrap_or(fresh))?;
        if stays(&queue).is_some() {
            return Ok(());
        }
        let consumer = fresh;
        let left = self.by_key.remove(&key).and_then(|before| self.leave(before, now, touched));
        let mut earlier = Vec::new();
        if let Some(Consuming::Queue(before)) = left {
            let Working { queue: old, consumer: who, earlier: others, .. } = *before;
            // Tags go on, so that each says whose it is.
            let below = old.next_tag(who).max(others.last().map_or(0, |other| other.below));
            queue.skip_tags(consumer, below);
            earlier = others;
            earlier.push(Earlier { queue: old, consumer: who, below });
        }
        self.uses(&queue, Some(consumer));
        let working = Working { queue, consumer, over: false, earlier };
        self.by_key.insert(key, Consuming::Queue(Box::new(working)));
        Ok(())
    }

    fn consumer(&self, id: ConsumerId, how: &Subscribe<'_>, credit: Option<Arc<Credit>>) -> Consumer {
        Consumer {
            priority: how.priority,
            exclusive: how.exclusive,
            several: how.several,
            credit: credit.filter(|_| how.settle != Settle::OnDelivery),
            ack_timeout: how.ack_timeout,
            ..Consumer::new(id, self.lane, how.settle)
        }
    }

    /// Notes that this lane has to do with a queue, and perhaps who consumes there.
    fn uses(&mut self, queue: &Arc<Queue>, consumer: Option<ConsumerId>) {
        match self.queues.iter_mut().find(|used| Arc::ptr_eq(&used.queue, queue)) {
            Some(used) => used.consumers.extend(consumer),
            None => {
                if self.queues.len() == self.queues.capacity() {
                    self.tidy();
                }
                self.queues
                    .push(Used { queue: Arc::clone(queue), consumers: consumer.into_iter().collect() });
            }
        }
    }

    /// Lets go of queues that are gone, or that this lane has nothing to do with any more.
    fn tidy(&mut self) {
        let lane = self.lane;
        self.queues.retain(|used| used.queue.knows(lane));
        self.by_key.retain(|_, consuming| match consuming {
            Consuming::Filter { .. } => true,
            Consuming::Queue(working) => {
                working.queue.knows(lane) || working.earlier.iter().any(|old| old.queue.knows(lane))
            }
        });
    }

    pub(crate) fn start(&mut self, key: SubscriptionKey, now: Millis, touched: &mut Touched) {
        match self.by_key.get_mut(&key) {
            Some(Consuming::Filter { next, of_now }) => {
                let Some(next) = next.take() else { return };
                let before = of_now.replace(Arc::clone(&next));
                // In one step: each message finds the one or the other.
                self.vhost.change(|topology| {
                    if let Some(before) = &before {
                        topology.unsubscribe(before);
                    }
                    topology.subscribe(&next);
                });
                if let Some((inbox, consumer)) = self.at_inbox()
                    && next.settle != Settle::OnDelivery
                {
                    inbox.begin_subscription(key.subscription);
                    inbox.start(consumer, now, touched);
                }
            }
            Some(Consuming::Queue(working)) => working.queue.start(working.consumer, now, touched),
            // What is in the session's queue, of whatever subscription.
            None => {
                if let Some((inbox, consumer)) = self.at_inbox() {
                    inbox.start(consumer, now, touched);
                }
            }
        }
    }

    /// Ends a subscription; tells where what has to be safe of that ends in the log, 0 when nothing has.
    pub(crate) fn unsubscribe(&mut self, key: SubscriptionKey, now: Millis, touched: &mut Touched) -> Lsn {
        let Some(consuming) = self.by_key.remove(&key) else { return 0 };
        let written = self.quit(&consuming);
        if let Some(left) = self.leave(consuming, now, touched) {
            self.by_key.insert(key, left);
        }
        written
    }

    /// A session that outlives the process is no member of a shared subscription any more.
    fn quit(&self, consuming: &Consuming) -> Lsn {
        match (consuming, self.member()) {
            (Consuming::Queue(working), Some(member)) if working.queue.group().is_some() => {
                working.queue.forget_member(member)
            }
            _ => 0,
        }
    }

    /// The session that is a member of what this lane shares with others, when it outlives the process.
    pub(crate) fn member(&self) -> Option<&Arc<str>> {
        self.session.inbox().map(|inbox| &inbox.name)
    }

    /// Ends a subscription; yields what has to be remembered for deliveries that are not settled.
    fn leave(&mut self, consuming: Consuming, now: Millis, touched: &mut Touched) -> Option<Consuming> {
        self.quit(&consuming);
        match consuming {
            Consuming::Filter { of_now, .. } => {
                let subscription = of_now?;
                self.vhost.change(|topology| topology.unsubscribe(&subscription));
                self.session.forget(&subscription);
                if let Some(inbox) = self.session.inbox() {
                    inbox.end_subscription(subscription.key.subscription);
                }
                None
            }
            Consuming::Queue(mut working) => {
                let Working { queue, consumer, over, earlier } = &mut *working;
                if !*over && queue.part(*consumer, now, touched) {
                    self.vhost.leave(queue);
                }
                for used in self.queues.iter_mut().filter(|used| Arc::ptr_eq(&used.queue, queue)) {
                    used.consumers.retain(|other| other != consumer);
                }
                *over = true;
                let owes = queue.owes(*consumer) || !earlier.is_empty();
                owes.then_some(Consuming::Queue(working))
            }
        }
    }

    pub(crate) fn fetch(
        &mut self,
        name: &str,
        key: SubscriptionKey,
        settled: bool,
        now: Millis,
        touched: &mut Touched,
    ) -> Result<Option<Fetched>, Refused> {
        let queue = self.vhost.queue(name, self.session.client)?;
        let house = &self.vhost.house;
        let fetches = self.fetches.get_or_insert_with(|| {
            Box::new(Fetches { key, holder: house.number(), next: 1, unsettled: BTreeMap::new() })
        });
        let found = queue.fetch(fetches.holder, self.lane, settled, now, touched);
        let Some((assignment, remaining)) = found else { return Ok(None) };
        let mut tag = 0;
        if !settled {
            tag = fetches.next;
            fetches.next += 1;
            fetches.unsettled.insert(tag, (Arc::clone(&queue), assignment.tag));
            self.uses(&queue, None);
        }
        Ok(Some(Fetched {
            message: assignment.message.body.kept(),
            key,
            tag,
            age: assignment.age,
            attempt: assignment.message.attempts,
            remaining,
        }))
    }

    /// Gives what waits to those of this lane's subscriptions that may take it; each time another one comes first, so
    /// that a window that they share starves none.
    pub(crate) fn resume(&mut self, now: Millis, touched: &mut Touched) {
        self.turn = self.turn.checked_add(1).filter(|turn| *turn <= self.queues.len()).unwrap_or(0);
        let (last, first) = self.queues.split_at_checked(self.turn).unwrap_or((&[], &self.queues));
        for used in first {
            used.resume(now, touched);
        }
        self.session.resume(now, touched);
        for used in last {
            used.resume(now, touched);
        }
    }

    pub(crate) fn recover(&mut self, requeue: bool, now: Millis, touched: &mut Touched) {
        if !requeue {
            self.session.recover(now, touched);
        }
        for used in &self.queues {
            used.queue.recover(self.lane, (!requeue).then_some(&*used.consumers), now, touched);
        }
        if requeue {
            if let Some(fetches) = &mut self.fetches {
                fetches.unsettled.clear();
            }
            self.by_key.retain(|_, consuming| match consuming {
                Consuming::Queue(working) => {
                    working.earlier.clear();
                    !working.over
                }
                Consuming::Filter { .. } => true,
            });
        }
    }

    /// Gives everything back.
    pub(crate) fn close(&mut self, now: Millis, touched: &mut Touched) {
        let filters: Vec<Arc<Subscription>> = mem::take(&mut self.by_key)
            .into_values()
            .filter_map(|consuming| match consuming {
                Consuming::Filter { of_now, .. } => of_now,
                Consuming::Queue(_) => None,
            })
            .collect();
        if !filters.is_empty() {
            filters.iter().for_each(|subscription| subscription.end());
            self.vhost.change(|topology| filters.iter().for_each(|filter| topology.unsubscribe(filter)));
        }
        self.session.close();
        for used in mem::take(&mut self.queues) {
            if used.queue.release(self.lane, &used.consumers, now, touched) {
                self.vhost.leave(&used.queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::conformance::recorder::Recorder;
    use linkspan_contract::{QueueSpec, SystemClock};

    use super::*;
    use crate::house::House;
    use crate::options::EmbeddedOptions;

    #[tokio::test]
    async fn a_lane_that_lives_long_forgets_queues_that_are_gone() {
        let options = EmbeddedOptions::default();
        let house = Arc::new(House::new("local", options, Arc::new(SystemClock), None));
        let vhost = Arc::new(Vhost::new("/".into(), house, None));
        let session = Arc::new(Session::new(1, false, None, Arc::new(Recorder::default()), &options));
        let mut consumers = Consumers::new(Arc::clone(&vhost), 7, session);
        let mut touched = Touched::default();
        let spec = QueueSpec { auto_delete: true, ..QueueSpec::new("") };
        for subscription in 0..1000 {
            let (counts, _) = vhost.declare_queue(&spec, 1).await.unwrap();
            let key = SubscriptionKey { subscription, part: 0 };
            let how = Subscribe::new(Settle::ByConsumer);
            let source = Source::Queue(&counts.name);
            consumers.subscribe(&source, key, &how, None, 0, &mut touched).unwrap();
            consumers.start(key, 0, &mut touched);
            if subscription % 2 == 0 {
                consumers.unsubscribe(key, 0, &mut touched);
            } else {
                vhost.delete_queue(&counts.name, false, false, 1).await.unwrap();
            }
        }
        assert!(consumers.queues.len() < 10, "{}", consumers.queues.len());
        assert!(consumers.by_key.len() < 10, "{}", consumers.by_key.len());
    }
}
