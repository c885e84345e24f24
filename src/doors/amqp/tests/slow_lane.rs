//! A back end that takes its time, refuses, or tells later: nobody else waits for it.

use std::task::{Context, Poll};

use async_trait::async_trait;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Backend, BackendError, Batch, Binding, BodyWriter, Capabilities, Client as Who, Connection, Credit,
    DeliverySink, Destination, ExchangeSpec, Health, Lane, LaneEvent, LaneEvents, Lost, Outcome, Published,
    QueueCounts, QueueSpec, Receipt, ReceiptSink, Refused, Seq, Settled, Source, Subscribe, SubscriptionKey,
    TargetId,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;

/// The embedded back end, held up: each request of a lane takes a permit.
struct Slow {
    inner: Arc<dyn Backend>,
    gate: Arc<Gate>,
}

type Ears = (Arc<dyn ReceiptSink>, Arc<dyn LaneEvents>);

struct Gate {
    permits: Semaphore,
    /// Receipts come when the test says so.
    late: bool,
    ears: Mutex<Vec<Ears>>,
}

impl Gate {
    async fn pass(&self) {
        self.permits.acquire().await.unwrap().forget();
    }
}

fn slow(permits: usize, late: bool) -> (Arc<dyn Backend>, Arc<Gate>) {
    let gate = Arc::new(Gate { permits: Semaphore::new(permits), late, ears: Mutex::default() });
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
            other => return Err(BackendError::UnknownVhost(other.into())),
        }
        let inner = self.inner.connect(client, sink).await?;
        Ok(Box::new(SlowConnection { inner, gate: Arc::clone(&self.gate) }))
    }

    async fn health(&self) -> Health {
        Health::Up
    }

    async fn close(&self) {}
}

struct SlowConnection {
    inner: Box<dyn Connection>,
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
        Ok(Box::new(SlowLane { inner, gate: Arc::clone(&self.gate), seq: 0 }))
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

struct SlowLane {
    inner: Box<dyn Lane>,
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
        let wanting = batch.messages.len() as u32;
        let first = self.seq;
        self.seq += u64::from(wanting);
        Published { taken: wanting, first, wanting, ..Published::default() }
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

    async fn body(&mut self, target: TargetId, size: u64) -> Result<Box<dyn BodyWriter>, Refused> {
        self.inner.body(target, size).await
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.subscribe(source, key, how, credit).await
    }

    fn start(&mut self, key: SubscriptionKey) {
        self.inner.start(key);
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.unsubscribe(key).await
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        self.gate.pass().await;
        self.inner.fetch(queue, key, settled).await
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.recover(requeue).await
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        self.gate.pass().await;
        self.inner.declare_queue(queue).await
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        self.gate.pass().await;
        self.inner.delete_queue(name, if_unused, if_empty).await
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        self.gate.pass().await;
        self.inner.purge_queue(name).await
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.bind(binding).await
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.unbind(binding).await
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.begin().await
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        self.gate.pass().await;
        Err(Refused::Away("rabbit".into()))
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        self.gate.pass().await;
        self.inner.rollback().await
    }
}

async fn opened(house: &House, vhost: &str) -> Client {
    let mut client = house.raw().await;
    client.log_in(b"\0guest\0guest", &CAPABILITIES).await;
    client.skip("Tune").await;
    client.send(0, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 }).await;
    client.send(0, connection::Open { virtual_host: short(vhost) }).await;
    client
}

#[tokio::test]
async fn a_vhost_that_is_not_there_is_530_and_one_whose_back_end_is_away_320() {
    let house = house_with(slow(0, false).0, AmqpLimits::default());
    let mut client = opened(&house, "nope").await;
    assert_eq!(client.connection_error(ReplyCode::NotAllowed).await, "NOT_ALLOWED - vhost nope not found");
    let mut client = opened(&house, "away").await;
    assert_eq!(
        client.connection_error(ReplyCode::ConnectionForced).await,
        "CONNECTION_FORCED - back end 'rabbit' cannot be reached: refused"
    );
}

#[tokio::test]
async fn a_request_that_takes_long_holds_up_its_channel_only_and_keeps_its_order() {
    let (backend, gate) = slow(0, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.open(2).await;
    client.send(1, declare("q")).await;
    // These wait for it; the message in two pieces, one of which comes later.
    let message = published(1, "", b"q", false, &NONE, b"x", 131_072);
    let (first, rest) = message.split_at(message.len() - "x".len() - frame::OVERHEAD);
    client.write(first).await;
    client.quiet(2).await;
    client.write(rest).await;
    client.send(1, queue::Purge { queue: short(""), no_wait: false }).await;
    client.quiet(2).await;
    gate.permits.add_permits(1);
    client.expect(1, queue::DeclareOk { queue: short("q"), message_count: 0, consumer_count: 0 }).await;
    client.quiet(2).await;
    gate.permits.add_permits(1);
    client.expect(1, queue::PurgeOk { message_count: 1 }).await;
}

#[tokio::test]
async fn a_client_that_goes_while_its_lane_is_away_leaves_nothing_behind() {
    let (backend, _gate) = slow(0, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.send(1, declare("q")).await;
    let close = connection::Close { reply_code: 200, reply_text: short(""), class_id: 0, method_id: 0 };
    client.send(0, close).await;
    client.expect(0, connection::CloseOk {}).await;
    client.is_over().await;
}

#[tokio::test]
async fn a_commit_that_could_not_be_carried_out_closes_the_channel() {
    let (backend, _gate) = slow(9, false);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.send(1, crate::protocol::amqp::tx::Select {}).await;
    client.skip("SelectOk").await;
    client.send(1, crate::protocol::amqp::tx::Commit {}).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - partial tx completion");
}

#[tokio::test]
async fn receipts_and_events_that_come_later_reach_the_client() {
    let (backend, gate) = slow(9, true);
    let house = house_with(backend, AmqpLimits::default());
    let mut client = house.channel().await;
    client.select_confirms().await;
    for _ in 0..4 {
        client.publish(1, "", b"q", b"x").await;
    }
    client.quiet(1).await;
    let (receipts, events) = gate.ears.lock()[0].clone();
    receipts.receipts(&[
        Receipt { first: 2, count: 1, outcome: Outcome::Accepted },
        Receipt { first: 0, count: 2, outcome: Outcome::Unroutable },
    ]);
    client.expect(1, basic::Ack { delivery_tag: 3, multiple: false }).await;
    client.expect(1, basic::Ack { delivery_tag: 2, multiple: true }).await;
    receipts.receipts(&[Receipt { first: 3, count: 1, outcome: Outcome::Failed(Refused::Away("r".into())) }]);
    client.expect(1, basic::Nack { delivery_tag: 4, multiple: false, requeue: false }).await;
    events.event(LaneEvent::Blocked("low on memory".into()));
    client.expect(0, connection::Blocked { reason: short("low on memory") }).await;
    events.event(LaneEvent::Unblocked);
    client.expect(0, connection::Unblocked {}).await;
    events.event(LaneEvent::Changed);
    events.event(LaneEvent::Closed { code: 404, text: "NOT_FOUND - gone upstream".into() });
    assert_eq!(client.channel_error(1, ReplyCode::NotFound).await, "NOT_FOUND - gone upstream");
    client.open(1).await;
    receipts.receipts(&[Receipt { first: 0, count: 1, outcome: Outcome::Accepted }]);
    client.quiet(1).await;
}
