//! An ordered way through the back end.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Batch, Binding, BodyWriter, Credit, Destination, ExchangeSpec, Lane, LaneEvent, LaneEvents, Lost,
    Outcome, Published, QueueCounts, QueueSpec, Receipt, ReceiptSink, Refused, Settled, Source, Subscribe,
    SubscriptionKey, TargetId,
};

use crate::body::MemoryBody;
use crate::brake::Brakes;
use crate::commit::{Commit, Committed};
use crate::connection::Own;
use crate::consumers::Consumers;
use crate::outlet::Touched;
use crate::publisher::Publisher;
use crate::session::Session;
use crate::transaction::Transaction;
use crate::vhost::Vhost;

/// One lane: a publisher and its consumers.
pub(crate) struct EmbeddedLane {
    vhost: Arc<Vhost>,
    client: u64,
    publisher: Publisher,
    consumers: Consumers,
    touched: Touched,
    brakes: Brakes,
    transaction: Option<Box<Transaction>>,
    own: Arc<Own>,
    receipts: Arc<dyn ReceiptSink>,
    events: Arc<dyn LaneEvents>,
}

/// AMQP's reply code for a message that nobody takes.
const NO_ROUTE: u16 = 312;

impl EmbeddedLane {
    pub(crate) fn new(
        vhost: Arc<Vhost>,
        client: u64,
        session: Arc<Session>,
        own: Arc<Own>,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Self {
        let number = vhost.house.number();
        Self {
            publisher: Publisher::new(Arc::clone(&vhost), client),
            consumers: Consumers::new(Arc::clone(&vhost), number, session),
            vhost,
            client,
            touched: Touched::default(),
            brakes: Brakes::default(),
            transaction: None,
            own,
            receipts,
            events,
        }
    }

    fn publish_now(&mut self, batch: &Batch<'_>) -> Published {
        let now = self.vhost.house.now();
        self.publisher.publish(batch, &mut self.touched, &mut self.brakes, now)
    }

    fn settle_now(&mut self, runs: &[Settled]) {
        let now = self.vhost.house.now();
        for run in runs {
            let known = self.consumers.settle(run, now, &mut self.touched);
            self.tell(run, known);
        }
    }

    /// Says the word that a run of settlements asks for.
    fn tell(&self, run: &Settled, known: bool) {
        if let Some(word) = run.word {
            let outcome = if known {
                Outcome::Accepted
            } else {
                let why = "the delivery is not this consumer's any more: its deadline has passed, or its queue is gone";
                Outcome::Refused(Refused::Precondition(why.into()))
            };
            self.receipts.receipts(&[Receipt { first: word, count: 1, outcome }]);
        }
    }

    fn commit_now(&mut self, transaction: &Transaction) -> Result<(), Refused> {
        let now = self.vhost.house.now();
        let Self { publisher, consumers, vhost, touched, brakes, .. } = self;
        let Committed { known, returned } =
            Commit::carry_out(transaction, publisher, consumers, vhost, now, touched, brakes)?;
        for (run, known) in transaction.settled.iter().zip(known) {
            let known = self.consumers.settled(run, known);
            self.tell(run, known);
        }
        for message in returned {
            let text = "NO_ROUTE".into();
            self.events.event(LaneEvent::Returned { message, code: NO_ROUTE, text });
        }
        Ok(())
    }

    /// Holds a batch back until the commit, up to the first message that has nowhere to go.
    fn hold(&mut self, batch: &Batch<'_>) -> Published {
        let mut published = Published::default();
        for (place, message) in (0..).zip(batch.messages) {
            if let Some(why) = self.publisher.refusal(message.target) {
                published.exceptions.push((place, Outcome::Refused(why)));
                break;
            }
            published.taken = place + 1;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.hold(batch, published.taken);
        }
        published
    }
}

#[async_trait]
impl Lane for EmbeddedLane {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        self.publisher.target(to)
    }

    fn forget(&mut self, targets: &[TargetId]) {
        match &mut self.transaction {
            Some(transaction) if !transaction.published.is_empty() => transaction.forgotten.extend(targets),
            _ => self.publisher.forget(targets),
        }
    }

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        if self.transaction.is_some() { self.hold(batch) } else { self.publish_now(batch) }
    }

    fn flush(&mut self) {
        self.touched.flush();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let house = &self.vhost.house;
        if house.is_closed() {
            let backend = house.name.to_string();
            return Poll::Ready(Err(Lost { backend, why: "it was closed".into() }));
        }
        self.brakes.poll(cx, house.now(), &house.coordinator).map(Ok)
    }

    fn settle(&mut self, runs: &[Settled]) {
        match &mut self.transaction {
            Some(transaction) => transaction.settled.extend_from_slice(runs),
            None => self.settle_now(runs),
        }
    }

    fn resume(&mut self) {
        self.consumers.resume(self.vhost.house.now(), &mut self.touched);
    }

    async fn body(&mut self, _target: TargetId, size: u64) -> Result<Box<dyn BodyWriter>, Refused> {
        Ok(Box::new(MemoryBody::new(size, self.vhost.house.options.body_limit)?))
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let now = self.vhost.house.now();
        self.consumers.subscribe(source, key, how, credit, now, &mut self.touched)
    }

    fn start(&mut self, key: SubscriptionKey) {
        self.consumers.start(key, self.vhost.house.now(), &mut self.touched);
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        self.consumers.unsubscribe(key, self.vhost.house.now(), &mut self.touched);
        Ok(())
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        self.consumers.fetch(queue, key, settled, self.vhost.house.now(), &mut self.touched)
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        self.consumers.recover(requeue, self.vhost.house.now(), &mut self.touched);
        Ok(())
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        self.vhost.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.vhost.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        let (counts, made) = self.vhost.declare_queue(queue, self.client).await?;
        if let Some(made) = made
            && queue.exclusive
        {
            self.own.add(&made);
        }
        Ok(counts)
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        self.vhost.delete_queue(name, if_unused, if_empty, self.client).await
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        Ok(self.vhost.queue(name, self.client)?.purge(self.vhost.house.now()))
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.vhost.bind(binding, self.client).await
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.vhost.unbind(binding, self.client).await
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        self.transaction.get_or_insert_default();
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        let Some(transaction) = self.transaction.take() else { return Err(no_transaction()) };
        let result = self.commit_now(&transaction);
        self.publisher.forget(&transaction.forgotten);
        self.transaction = Some(Box::default());
        result
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        let transaction = self.transaction.as_deref_mut().map(std::mem::take).ok_or_else(no_transaction)?;
        self.publisher.forget(&transaction.forgotten);
        Ok(())
    }
}

fn no_transaction() -> Refused {
    Refused::Precondition("channel is not transactional".into())
}

impl Drop for EmbeddedLane {
    fn drop(&mut self) {
        self.consumers.close(self.vhost.house.now(), &mut self.touched);
        self.touched.flush();
    }
}
