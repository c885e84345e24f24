//! A stand-in for a remote back end: it takes its time, refuses, and tells later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Backend, BackendError, Batch, Binding, BodyWriter, Capabilities, Client as Who, Connection, Credit,
    DeliverySink, Destination, Ended, ExchangeSpec, Flags, Health, Kept, Lane, LaneEvents, Lost, Outcome,
    Published, QueueCounts, QueueSpec, ReceiptSink, Refused, Seq, Settled, Source, Subscribe,
    SubscriptionKey, TargetId,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;

/// The embedded back end, held up: each request of a lane takes a permit.
struct Slow {
    inner: Arc<dyn Backend>,
    gate: Arc<Gate>,
}

pub(super) type Ears = (Arc<dyn ReceiptSink>, Arc<dyn LaneEvents>);

/// What the test says of the back end, and what the door gave to it.
pub(super) struct Gate {
    pub(super) permits: Semaphore,
    /// Receipts come when the test says so.
    late: bool,
    /// What requests are refused with.
    pub(super) refuses: Mutex<Option<Refused>>,
    /// What becomes of a message, when that is known at once.
    pub(super) outcome: Mutex<Option<Outcome>>,
    /// A subscription is ended as soon as it is made, before its door knows of it.
    pub(super) ends_early: Mutex<Option<Ended>>,
    /// The messages that were published, when `late`.
    pub(super) published: Mutex<Vec<Kept>>,
    /// Clients' scopes do not come to an end.
    pub(super) stalls_close: AtomicBool,
    pub(super) ears: Mutex<Vec<Ears>>,
    subscribed: Mutex<Vec<(Arc<dyn DeliverySink>, SubscriptionKey)>>,
}

impl Gate {
    async fn pass(&self) -> Result<(), Refused> {
        self.permits.acquire().await.unwrap().forget();
        self.refuses.lock().clone().map_or(Ok(()), Err)
    }

    /// What the first lane of the door hears by.
    pub(super) fn ears(&self) -> Ears {
        self.ears.lock()[0].clone()
    }

    /// Ends the last subscription that was made.
    pub(super) fn end_last(&self, why: Ended) {
        let (sink, key) = self.subscribed.lock().last().cloned().unwrap();
        sink.ended(key, why);
    }
}

pub(super) fn slow(permits: usize, late: bool) -> (Arc<dyn Backend>, Arc<Gate>) {
    let gate = Arc::new(Gate {
        permits: Semaphore::new(permits),
        late,
        refuses: Mutex::default(),
        outcome: Mutex::default(),
        ends_early: Mutex::default(),
        published: Mutex::default(),
        stalls_close: AtomicBool::default(),
        ears: Mutex::default(),
        subscribed: Mutex::default(),
    });
    (Arc::new(Slow { inner: embedded(), gate: Arc::clone(&gate) }), gate)
}

#[async_trait]
impl Backend for Slow {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn connect(
        &self,
        client: &Who,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        match &*client.vhost {
            "/" => {}
            "away" => return Err(BackendError::Away { name: "rabbit".into(), why: "refused".into() }),
            "denied" => {
                return Err(BackendError::Denied { name: "rabbit".into(), why: "login failed".into() });
            }
            "stalled" => std::future::pending().await,
            other => return Err(BackendError::UnknownVhost(other.into())),
        }
        let inner = self.inner.connect(client, Arc::clone(&sink)).await?;
        Ok(Box::new(SlowConnection { inner, sink, gate: Arc::clone(&self.gate) }))
    }

    async fn health(&self) -> Health {
        Health::Up
    }

    async fn close(&self) {}
}

struct SlowConnection {
    inner: Box<dyn Connection>,
    sink: Arc<dyn DeliverySink>,
    gate: Arc<Gate>,
}

#[async_trait]
impl Connection for SlowConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        self.inner.attach(sink);
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        self.gate.ears.lock().push((Arc::clone(&receipts), Arc::clone(&events)));
        let inner = self.inner.lane(receipts, events).await?;
        let (sink, gate) = (Arc::clone(&self.sink), Arc::clone(&self.gate));
        Ok(Box::new(SlowLane { inner, sink, gate, seq: 0 }))
    }

    async fn close(self: Box<Self>) {
        if self.gate.stalls_close.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.inner.close().await;
    }
}

struct SlowLane {
    inner: Box<dyn Lane>,
    sink: Arc<dyn DeliverySink>,
    gate: Arc<Gate>,
    seq: Seq,
}

#[async_trait]
impl Lane for SlowLane {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        self.inner.target(to)
    }

    fn forget(&mut self, targets: &[TargetId]) {
        self.inner.forget(targets);
    }

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        if !self.gate.late {
            return self.inner.publish(batch);
        }
        let taken = batch.messages.len() as u32;
        let wanting =
            batch.messages.iter().filter(|message| message.flags.has(Flags::RECEIPT)).count() as u32;
        let first = self.seq;
        self.seq += u64::from(wanting);
        let kept = batch.keep(0..taken);
        self.gate.published.lock().extend((0..taken).filter_map(|at| kept.kept(at)));
        let mut published = Published { taken, first, wanting, ..Published::default() };
        if let Some(outcome) = &*self.gate.outcome.lock() {
            published.done = wanting;
            let told = |at: &u32| batch.messages[*at as usize].flags.any(Flags::RECEIPT | Flags::MANDATORY);
            published.exceptions.extend((0..taken).filter(told).map(|at| (at, outcome.clone())));
        }
        published
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.inner.poll_ready(cx)
    }

    fn settle(&mut self, runs: &[Settled]) {
        self.inner.settle(runs);
    }

    fn resume(&mut self) {
        self.inner.resume();
    }

    fn body(&mut self, target: TargetId, size: Option<u64>) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        self.inner.body(target, size)
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.subscribe(source, key, how, credit).await?;
        self.gate.subscribed.lock().push((Arc::clone(&self.sink), key));
        if let Some(why) = *self.gate.ends_early.lock() {
            self.gate.end_last(why);
        }
        Ok(())
    }

    fn start(&mut self, key: SubscriptionKey) {
        self.inner.start(key);
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.unsubscribe(key).await
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        self.gate.pass().await?;
        self.inner.fetch(queue, key, settled).await
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.recover(requeue).await
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        self.gate.pass().await?;
        self.inner.declare_queue(queue).await
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        self.gate.pass().await?;
        self.inner.delete_queue(name, if_unused, if_empty).await
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        self.gate.pass().await?;
        self.inner.purge_queue(name).await
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.bind(binding).await
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.unbind(binding).await
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.begin().await
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        self.gate.pass().await?;
        Err(Refused::Away("rabbit".into()))
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        self.gate.pass().await?;
        self.inner.rollback().await
    }
}
