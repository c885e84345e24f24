//! An ordered way through the back end.

mod desks;
mod sources;

use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Batch, Binding, BodyWriter, Credit, DeliveryTag, Destination, ExchangeSpec, Lane, LaneEvents, Lost,
    Outcome, Published, QueueCounts, QueueSpec, Receipt, ReceiptSink, Refused, Settle, Settled, Source,
    Subscribe, SubscriptionKey, TargetId,
};

use crate::connection::Scope;
use crate::consumers::coordinator as consuming;
use crate::consumers::{Command, Consumers};
use crate::goal::short;
use crate::outlet::Outlet;
use crate::translate::too_large;
use desks::Desks;
use sources::Filter;

/// One lane: what it publishes, and what it consumes.
pub(crate) struct AmqpLane {
    scope: Arc<Scope>,
    outlet: Outlet,
    receipts: Arc<dyn ReceiptSink>,
    events: Arc<dyn LaneEvents>,
    /// The way to topic filters, once there is one.
    inner: Option<Box<dyn Lane>>,
    /// The last is the one that was made last; those before it are in force until it is started.
    filters: HashMap<SubscriptionKey, Vec<Filter>, RandomState>,
    /// The subscriptions that the queue of the client's session serves, and whether they want nothing of their own back.
    attended: HashMap<SubscriptionKey, bool, RandomState>,
    /// The channel for queues, once one is used.
    consumers: Option<Arc<Consumers>>,
    /// The desks at which its subscriptions work, once there is one.
    desks: Option<Box<Desks>>,
    /// The number of the last message that was taken by itself, without a desk.
    taken: DeliveryTag,
    transacts: bool,
    /// Which of topic filters and queues comes first.
    turn: usize,
}

impl AmqpLane {
    pub(crate) fn new(
        scope: Arc<Scope>,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Self {
        Self {
            outlet: Outlet::new(Arc::clone(&scope), Arc::clone(&receipts), Arc::clone(&events)),
            scope,
            receipts,
            events,
            inner: None,
            filters: HashMap::default(),
            attended: HashMap::default(),
            consumers: None,
            desks: None,
            taken: 0,
            transacts: false,
            turn: 0,
        }
    }

    fn away(&self) -> Refused {
        Refused::Away(self.scope.fleet.name.to_string())
    }

    fn inner(&mut self) -> Result<&mut Box<dyn Lane>, Refused> {
        if self.inner.is_none() {
            self.inner = self.scope.inner_lane(Arc::clone(&self.receipts), Arc::clone(&self.events));
        }
        let away = self.away();
        self.inner.as_mut().ok_or(away)
    }

    fn consumers(&mut self) -> &Arc<Consumers> {
        let (scope, outlet) = (&self.scope, &self.outlet);
        self.consumers.get_or_insert_with(|| {
            let consumers = Arc::new(consuming::start(consuming::Plan {
                upstream: Arc::clone(&scope.consuming),
                options: Arc::clone(&scope.fleet.options),
                clock: Arc::clone(&scope.fleet.clock),
                origin: Arc::clone(outlet.origin()),
                groups: Arc::clone(&scope.fleet.groups),
                sink: scope.sink(),
                keeps: scope.client.keeps_session(),
                fate: scope.fate(),
            }));
            scope.note(&consumers);
            consumers
        })
    }

    fn desks(&mut self) -> &mut Desks {
        let scope = &self.scope;
        self.desks.get_or_insert_with(|| Box::new(Desks::new(scope)))
    }

    /// Leaves the desk at which a subscription works; false when it works at none.
    fn leave_desk(&mut self, key: SubscriptionKey) -> bool {
        self.desks.as_mut().is_some_and(|desks| desks.leave(key))
    }

    fn is_over(&self) -> Result<(), Refused> {
        match self.outlet.origin().over() {
            Some((code, text)) => Err(Refused::Upstream { code, text: text.to_string() }),
            None => Ok(()),
        }
    }

    /// What was published before has arrived: requests go another way.
    async fn in_order(&mut self) -> Result<(), Refused> {
        self.is_over()?;
        self.outlet.arrived().await;
        self.is_over()
    }
}

#[async_trait]
impl Lane for AmqpLane {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        self.outlet.target(to)
    }

    fn forget(&mut self, targets: &[TargetId]) {
        self.outlet.forget(targets);
    }

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        let transaction = self.consumers.as_deref().filter(|_| self.transacts);
        self.outlet.publish(batch, transaction)
    }

    fn flush(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.flush();
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.outlet.poll_ready(cx)
    }

    fn settle(&mut self, runs: &[Settled]) {
        let (filters, queues): (Vec<_>, Vec<_>) =
            runs.iter().cloned().partition(|run| self.filters.contains_key(&run.key));
        if let Some(inner) = self.inner.as_mut().filter(|_| !filters.is_empty()) {
            inner.settle(&filters);
        }
        let queues = match &mut self.desks {
            Some(desks) => desks.settle(queues, self.transacts, self.outlet.origin()),
            None => queues,
        };
        match (&self.consumers, &mut self.inner) {
            _ if queues.is_empty() => {}
            (Some(consumers), _) => consumers.tell(Command::Settle(queues)),
            (None, Some(inner)) => inner.settle(&queues),
            (None, None) => {
                metrics::counter!("linkspan_settlements_ignored_total").increment(queues.len() as u64);
                for word in queues.iter().filter_map(|run| run.word) {
                    let outcome = Outcome::Refused(Refused::Late);
                    self.receipts.receipts(&[Receipt { first: word, count: 1, outcome }]);
                }
            }
        }
    }

    fn resume(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        // The Thue-Morse sequence: whoever asks this lane does so in turns with others, and no rhythm of theirs may meet
        // the same order for ever.
        let consumers_first = self.turn.count_ones().is_multiple_of(2);
        if let Some(consumers) = self.consumers.as_ref().filter(|_| consumers_first) {
            consumers.resume();
        }
        if let Some(desks) = self.desks.as_ref().filter(|_| consumers_first) {
            desks.resume();
        }
        if let Some(inner) = &mut self.inner {
            inner.resume();
        }
        if let Some(consumers) = self.consumers.as_ref().filter(|_| !consumers_first) {
            consumers.resume();
        }
        if let Some(desks) = self.desks.as_ref().filter(|_| !consumers_first) {
            desks.resume();
        }
    }

    fn body(&mut self, _target: TargetId, size: Option<u64>) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        // It goes to the broker from memory: what that would not take is not gathered there.
        let limit = self.scope.fleet.options.body_limit;
        match size.filter(|size| *size > limit) {
            Some(size) => Err(too_large(size, limit)),
            None => Ok(None),
        }
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        self.is_over()?;
        match *source {
            Source::Filter(filter) => {
                let attends = how.settle != Settle::OnDelivery || self.attended.contains_key(&key);
                if let Some(inbox) = self.scope.inbox.clone().filter(|_| attends) {
                    self.attend(inbox, filter, key, how, credit).await?;
                    self.leave_desk(key);
                    return self.leave_filter(key).await;
                }
                self.watch(filter, key, how, credit).await?;
                self.leave_desk(key);
                if let Some(consumers) = &self.consumers {
                    Arc::clone(consumers).ask(|reply| Command::Unsubscribe(key, reply)).await?;
                }
                return Ok(());
            }
            Source::Group { group, filter } => self.join(group, filter, key, how, credit).await?,
            Source::Queue(queue) => match self.scope.desk(queue, how.several).await? {
                Some(desk) => {
                    let entered = self.desks().enter(desk, key, how, credit).await;
                    self.scope.clerk.note_missing(queue, &entered).await;
                    entered?;
                    if let Some(consumers) = &self.consumers {
                        Arc::clone(consumers).ask(|reply| Command::Unsubscribe(key, reply)).await?;
                    }
                    self.forget_attended(key);
                    return self.leave_filter(key).await;
                }
                None => self.consume(queue, false, key, how, credit).await?,
            },
            Source::Session => {
                return Err(Refused::NotImplemented("sessions are not kept here".into()));
            }
        }
        self.leave_desk(key);
        if self.forget_attended(key)
            && let Some(consumers) = &self.consumers
        {
            Arc::clone(consumers).ask(|reply| Command::Unsubscribe(key, reply)).await?;
        }
        self.leave_filter(key).await
    }

    fn start(&mut self, key: SubscriptionKey) {
        if self.desks.as_ref().is_some_and(|desks| desks.start(key)) {
            return;
        }
        match (self.filters.get_mut(&key), &mut self.inner, &self.consumers) {
            (Some(filters), Some(inner), _) => {
                inner.start(key);
                let last = filters.len().saturating_sub(1);
                let before: Vec<_> = filters.drain(..last).collect();
                before.iter().for_each(|filter| self.unwatch(filter));
            }
            (_, _, Some(consumers)) => consumers.tell(Command::Start(key)),
            _ => {}
        }
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        if self.leave_desk(key) {
            return Ok(());
        }
        if self.filters.contains_key(&key) {
            return self.leave_filter(key).await;
        }
        self.forget_attended(key);
        match &self.consumers {
            Some(consumers) => Arc::clone(consumers).ask(|reply| Command::Unsubscribe(key, reply)).await,
            None => Ok(()),
        }
    }

    async fn feed(&mut self, queue: &str, filters: &[&str], except: &[&str]) -> Result<(), Refused> {
        let _ = except;
        if filters.is_empty() {
            self.scope.fleet.work_queues.lose_route(queue);
        }
        Ok(())
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        self.in_order().await?;
        if let Some(desk) = self.scope.desk(queue, false).await? {
            let last = self.taken;
            let fetched = self.desks().fetch(desk, key, settled, last).await;
            self.scope.clerk.note_missing(queue, &fetched).await;
            return fetched;
        }
        let queue = short("the queue", queue.as_bytes())?;
        let fetch =
            Arc::clone(self.consumers()).ask(|reply| Command::Fetch(queue, key, settled, reply)).await;
        let mut fetched = fetch?;
        if let Some(fetched) = fetched.as_mut().filter(|_| !settled) {
            self.taken = fetched.tag;
            if let Some(desks) = &mut self.desks {
                fetched.tag = desks.number(fetched.tag);
            }
        }
        Ok(fetched)
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        if let Some(inner) = &mut self.inner {
            inner.recover(requeue).await?;
        }
        if let Some(desks) = &self.desks {
            desks.recover(requeue);
        }
        match &self.consumers {
            Some(consumers) => Arc::clone(consumers).ask(|reply| Command::Recover(requeue, reply)).await,
            None => Ok(()),
        }
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        self.in_order().await?;
        self.scope.clerk.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.in_order().await?;
        self.scope.clerk.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        self.in_order().await?;
        self.scope.clerk.declare_queue(queue).await
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        self.in_order().await?;
        self.scope.clerk.delete_queue(name, if_unused, if_empty).await
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        self.in_order().await?;
        self.scope.clerk.purge_queue(name).await
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.in_order().await?;
        self.scope.clerk.bind(binding).await
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.in_order().await?;
        self.scope.clerk.unbind(binding).await
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        self.in_order().await?;
        Arc::clone(self.consumers()).ask(Command::Begin).await?;
        self.transacts = true;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        self.is_over()?;
        let done = Arc::clone(self.consumers()).ask(Command::Commit).await;
        if let Some(desks) = &mut self.desks {
            desks.transacted(done.is_ok(), self.outlet.origin());
        }
        done
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        self.is_over()?;
        if let Some(desks) = &mut self.desks {
            desks.transacted(false, self.outlet.origin());
        }
        Arc::clone(self.consumers()).ask(Command::Rollback).await
    }
}

impl Drop for AmqpLane {
    fn drop(&mut self) {
        for filter in self.filters.values().flatten() {
            self.unwatch(filter);
        }
        for _ in self.attended.values().filter(|no_local| **no_local) {
            self.scope.remove_no_local();
        }
    }
}
