//! An ordered way through the hub: plans, and the back ends' lanes behind it.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use hashbrown::HashMap;
use linkspan_contract::backend::{Fetched, Retained};
use linkspan_contract::{
    Batch, Binding, BodyWriter, Credit, Destination, ExchangeSpec, Flags, Lane, LaneEvents, Lost, Published,
    QueueCounts, QueueSpec, Receipt, ReceiptSink, Refused, Seq, Settled, Source, Subscribe, SubscriptionKey,
    TargetId,
};
use slab::Slab;

use super::connection::Scope;
use super::era::Era;
use super::part::Part;
use super::plan::{Plan, Wanted};
use super::spooling::Spooling;
use super::subscription::Subscription;
use super::ways::beyond_transaction;
use crate::retained;

/// A lane of a client through the hub.
pub struct HubLane {
    pub(super) scope: Arc<Scope>,
    pub(super) receipts: Arc<dyn ReceiptSink>,
    pub(super) events: Arc<dyn LaneEvents>,
    pub(super) retained: Option<Arc<retained::Retained>>,
    /// The home back end's first, others in the order in which they came into use.
    pub(super) parts: Vec<Part>,
    /// The part that each number in a subscription's key stands for. A part gets another number when routes change, so
    /// that what a subscription was given before is not taken for what it is given after.
    pub(super) ways: Vec<u16>,
    pub(super) plans: Slab<Plan>,
    pub(super) epoch: u64,
    /// All targets are the home back end's own: batches are passed on untouched.
    pub(super) straight: bool,
    /// It has published to an address that only the holder of a queue may publish to.
    pub(super) is_fenced: bool,
    pub(super) next: Seq,
    /// Receipts known already, for messages behind others whose are not.
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    pub(super) late: Option<Box<Vec<Receipt>>>,
    /// Boxed: most lanes have one, and a table has room for several.
    pub(super) subscriptions: HashMap<u32, Box<Subscription>, foldhash::fast::RandomState>,
    pub(super) windows: u32,
    /// How many of them are to queues that one consumer at a time has.
    pub(super) alone: u32,
    /// The client's session goes on without the client.
    pub(super) is_away: bool,
    /// Whether a transaction is open, which only the home back end can carry out.
    pub(super) transacts: bool,
    /// The spools of routes that it has published to.
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    pub(super) spoolings: Option<Box<Vec<Spooling>>>,
    turn: u32,
    /// Of the routes that its subscriptions are resolved by; none where it has no subscriptions.
    pub(super) era: Option<Arc<Era>>,
}

impl HubLane {
    /// A lane that begins with its home back end.
    pub fn new(
        scope: Arc<Scope>,
        home: Part,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Self {
        let epoch = scope.hub.epoch();
        let retained = scope.hub.retained(&scope.client.vhost);
        Self {
            scope,
            receipts,
            events,
            retained,
            parts: vec![home],
            ways: vec![0],
            plans: Slab::new(),
            epoch,
            straight: true,
            is_fenced: false,
            next: 0,
            late: None,
            subscriptions: HashMap::default(),
            windows: 0,
            alone: 0,
            is_away: false,
            transacts: false,
            spoolings: None,
            turn: 0,
            era: None,
        }
    }

    fn home(&mut self) -> Result<&mut Box<dyn Lane>, Refused> {
        self.part(0)
    }

    /// Whether what this lane has used lets it publish more.
    fn poll_parts(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut ready = Poll::Ready(Ok(()));
        for at in 0..self.parts.len() {
            if self.is_bypassed(at) {
                continue;
            }
            let Some(part) = self.parts.get_mut(at) else { break };
            match part.lane.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost)),
                Poll::Pending => ready = Poll::Pending,
            }
        }
        if self.spoolings().iter().any(Spooling::holds) {
            return Poll::Pending;
        }
        ready
    }

    /// From now on batches are taken apart.
    pub(super) fn part_ways(&mut self) {
        if std::mem::replace(&mut self.straight, false) {
            for part in &self.parts {
                part.numbers.part_ways(part.next);
            }
        }
    }
}

#[async_trait]
impl Lane for HubLane {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        self.follow_routes();
        let wanted = Wanted::from(to);
        let plan = self.plan(wanted);
        let same =
            matches!(plan.course, Ok((0, TargetId(target))) if target as usize == self.plans.vacant_key());
        let is_straight = same && plan.spool.is_none() && plan.fences.is_empty();
        let at = self.plans.insert(plan);
        if !is_straight {
            self.part_ways();
        }
        TargetId(u32::try_from(at).unwrap_or(u32::MAX))
    }

    fn forget(&mut self, targets: &[TargetId]) {
        for target in targets {
            if let Some(plan) = self.plans.try_remove(target.0 as usize)
                && let Ok((part, target)) = plan.course
                && let Ok(lane) = self.part(part)
            {
                lane.forget(&[target]);
            }
        }
    }

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        self.follow_routes();
        // What is retained here and what a back end writes down of it have one order.
        let retained = self.retained.as_ref().filter(|_| batch.any.has(Flags::RETAIN)).cloned();
        let _turn = retained.as_ref().map(|retained| retained.turn(batch));
        if retained.is_some() {
            self.retain(batch);
        }
        match self.parts.first_mut() {
            Some(home) if self.straight => {
                let published = home.lane.publish(batch);
                home.next = home.next.saturating_add(published.wanting.into());
                self.next = home.next;
                published
            }
            _ => self.publish_by_part(batch),
        }
    }

    fn note(&mut self, identifier: NonZeroU16, word: Seq) -> bool {
        self.home().is_ok_and(|home| home.note(identifier, word))
    }

    fn unnote(&mut self, identifier: NonZeroU16, word: Seq) -> bool {
        self.home().is_ok_and(|home| home.unnote(identifier, word))
    }

    fn noted(&self) -> Vec<NonZeroU16> {
        self.parts.first().map(|home| home.lane.noted()).unwrap_or_default()
    }

    fn flush(&mut self) {
        if let Some(late) = self.late.take() {
            self.receipts.receipts(&late);
        }
        self.parts.iter_mut().for_each(|part| part.lane.flush());
        for tenancy in self.tenancies() {
            tenancy.with_lane(|lane| lane.flush());
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let ready = self.poll_parts(cx);
        if ready.is_ready() || self.spoolings.is_none() {
            return ready;
        }
        // What holds may be over as soon as a spool begins or ends to divert.
        self.spoolings().iter().for_each(|it| it.spool.listen(cx.waker()));
        self.poll_parts(cx)
    }

    fn settle(&mut self, runs: &[Settled]) {
        self.settle_runs(runs);
    }

    fn resume(&mut self) {
        // Each time another back end comes first, so that a shared credit starves none.
        self.turn = self.turn.wrapping_add(1);
        let parts = self.parts.len().max(1);
        for at in 0..parts {
            if let Some(part) = self.parts.get_mut(at.wrapping_add(self.turn as usize) % parts) {
                part.lane.resume();
            }
        }
        for tenancy in self.tenancies() {
            tenancy.with_lane(|lane| lane.resume());
        }
    }

    fn attended(&mut self, is_there: bool) {
        self.attend(is_there);
    }

    fn body(&mut self, target: TargetId, size: Option<u64>) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        self.follow_routes();
        // What may have to go into a spool is held in memory; what cannot be published is told when it is.
        let (None, Ok((part, target))) = self.current(target) else { return Ok(None) };
        self.part(part)?.body(target, size)
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        if *source == Source::Session {
            return self.home()?.subscribe(source, key, how, credit).await;
        }
        self.era.get_or_insert_with(|| self.scope.hub.eras.present());
        let routes = self.scope.hub.routes();
        let Some(table) = routes.vhost(&self.scope.client.vhost) else {
            return Err(Refused::AccessRefused("the vhost is gone".into()));
        };
        let mut subscription = Box::new(Subscription::new(source, key, how, credit, table)?);
        subscription.is_paused = self.is_paused(&subscription);
        match self.subscriptions.remove(&key.subscription) {
            None if subscription.exclusive().is_some() => return self.subscribe_alone(subscription).await,
            None => self.make(&mut subscription).await?,
            Some(mut before) if before.exclusive().is_some() && subscription.asks_as(&before) => {
                subscription.goes_on_from(&mut before);
            }
            Some(before) if before.exclusive().is_some() || subscription.exclusive().is_some() => {
                self.end(before).await?;
                return self.subscribe_anew(subscription).await;
            }
            Some(before) => {
                if let Err(refused) = self.replace(&before, &mut subscription).await {
                    self.subscriptions.insert(key.subscription, before);
                    return Err(refused);
                }
            }
        }
        self.subscriptions.insert(key.subscription, subscription);
        Ok(())
    }

    fn start(&mut self, key: SubscriptionKey) {
        let Some(subscription) = self.subscriptions.get_mut(&key.subscription) else {
            // The one that is not the hub's: the session at the home back end.
            if let Ok(home) = self.home() {
                home.start(key);
            }
            return;
        };
        subscription.started = true;
        let parts = subscription.parts();
        if let Some(alone) = &subscription.alone {
            if let (Some(tenancy), Some(part), false) =
                (&alone.tenancy, parts.first(), subscription.is_paused)
            {
                tenancy.with_lane(|lane| {
                    lane.start(SubscriptionKey { part: *part, ..key });
                });
            }
            return;
        }
        self.start_on(&parts, key);
    }

    async fn refresh(&mut self) {
        let era = self.scope.hub.eras.present();
        self.resolve_again().await;
        self.era = (!self.subscriptions.is_empty()).then_some(era);
        self.claim_again().await;
        self.flush();
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        match self.subscriptions.remove(&key.subscription) {
            Some(subscription) => {
                let ended = self.end(subscription).await;
                if self.subscriptions.is_empty() {
                    self.era = None;
                }
                ended
            }
            None => Ok(()),
        }
    }

    async fn unsubscribe_from(&mut self, source: &Source<'_>) -> Result<bool, Refused> {
        self.home()?.unsubscribe_from(source).await
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        if self.is_for_one(queue) {
            return Err(Refused::ExclusiveUse(queue.into()));
        }
        if self.scope.hub.is_paused(&self.scope.client.vhost, queue) {
            return Ok(None);
        }
        let at = self.holder(queue).await?;
        let Some(part) = self.parts.get_mut(usize::from(at)) else {
            return Err(Refused::Away("unknown".into()));
        };
        if at > 0 && self.transacts {
            return Err(beyond_transaction(&part.backend));
        }
        part.lane.fetch(queue, SubscriptionKey { part: part.way, ..key }, settled).await
    }

    async fn retained(&mut self, filter: &str) -> Result<Option<Vec<Retained>>, Refused> {
        self.retained_elsewhere(filter).await.map(Some)
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        for part in &mut self.parts {
            part.lane.recover(requeue).await?;
        }
        let tenancies: Vec<_> = self.tenancies().cloned().collect();
        for tenancy in tenancies {
            tenancy.recover(requeue).await?;
        }
        Ok(())
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        self.home()?.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.home()?.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        if self.owner(queue.name).is_none() {
            let counts = self.home()?.declare_queue(queue).await?;
            if queue.exclusive {
                self.scope.has_own(&counts.name);
            }
            return Ok(counts);
        }
        if queue.exclusive {
            return Err(Refused::Locked(queue.name.into()));
        }
        // Whatever an unmodified worker asks for, the route's queue is what it gets.
        let part = self.holder(queue.name).await?;
        self.part(part)?.declare_queue(&QueueSpec { passive: true, arguments: &[], ..*queue }).await
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        match self.owner(name) {
            Some(filter) => Err(Refused::AccessRefused(format!(
                "queue '{name}' belongs to the route '{filter}' of the configuration and cannot be deleted"
            ))),
            None => {
                let deleted = self.home()?.delete_queue(name, if_unused, if_empty).await?;
                self.scope.has_lost(name);
                self.scope.hub.queue_is_gone(&self.scope.client.vhost, name);
                Ok(deleted)
            }
        }
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        let part = self.holder(name).await?;
        self.part(part)?.purge_queue(name).await
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.home()?.bind(binding).await?;
        if let Some(bound) = self.scope.bound(binding)
            && self.scope.hub.bound(&bound).await
        {
            self.scope.has_bound(bound.queue);
        }
        Ok(())
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.home()?.unbind(binding).await?;
        if let Some(bound) = self.scope.bound(binding) {
            self.scope.hub.unbound(&bound);
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        if self.alone > 0 {
            let text = "this channel consumes from a queue that one consumer at a time has, which is no part of a transaction";
            return Err(Refused::Precondition(text.into()));
        }
        self.home()?.begin().await?;
        self.transacts = true;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        self.home()?.commit().await
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        self.home()?.rollback().await
    }
}
