use std::num::NonZeroU16;
use std::time::Duration;

use linkspan_contract::deliveries::Next;
use linkspan_contract::neutral::Draft;
use linkspan_contract::{
    Batch, Body, Credit, Deliveries, Delivery, Destination, Flags, Lane, LaneEvent, Ledger, Message, Outcome,
    Properties, Published, QueueSpec, Receipt, ReceiptSink, Refused, Settle, Settlement, Source, Subscribe,
    SubscriptionKey, Syntax, SystemClock,
};
use linkspan_embedded::{Embedded, EmbeddedOptions};

use super::*;
use crate::ledger::{EmbeddedLedger, Watched};
use crate::routes::{Filter, Pattern, Route};

mod exclusive;
mod fed;
mod left;
mod reload;
mod remembered;
mod replaced;
pub(crate) mod spool;

fn route(filter: &str, backend: &str, queues: &[&str]) -> Arc<Route> {
    let pattern = if queues.is_empty() { Pattern::PublishSubscribe } else { Pattern::CompetingConsumers };
    let queues = queues.iter().map(|queue| Arc::from(*queue)).collect();
    let window = NonZeroU16::new(2).unwrap();
    Arc::new(Route { queues, window, ..Route::new(Filter::parse(filter).unwrap(), pattern, backend) })
}

fn routes(routes: impl IntoIterator<Item = Arc<Route>>) -> Routes {
    Routes::new([("/".into(), "one".into())], routes).unwrap()
}

/// A hub over two back ends, `one` the home and `two`.
async fn hub(over: impl IntoIterator<Item = Arc<Route>>) -> Arc<Hub> {
    hub_with(embedded("two"), over).await
}

fn embedded(name: &str) -> Arc<dyn Backend> {
    Embedded::open(name, EmbeddedOptions::default(), Arc::new(SystemClock))
}

async fn hub_with(two: Arc<dyn Backend>, over: impl IntoIterator<Item = Arc<Route>>) -> Arc<Hub> {
    let backends = [("one".into(), embedded("one")), ("two".into(), two)];
    hub_of(backends.into(), routes(over), &ledger()).await
}

fn ledger() -> Arc<dyn Ledger> {
    Arc::new(EmbeddedLedger::in_memory("test", Arc::new(SystemClock)))
}

async fn hub_of(
    backends: HashMap<Arc<str>, Arc<dyn Backend>>,
    routes: Routes,
    ledger: &Arc<dyn Ledger>,
) -> Arc<Hub> {
    let watched = Arc::new(Watched::new(Arc::clone(ledger), "test"));
    watched.look().await;
    let memory = Memory::new(watched, "own");
    Hub::open(backends, routes, 1000, Arc::new(SystemClock), memory, spool::stores()).await.unwrap()
}

/// A back end that lets so many connections in, and is away for all others.
struct Fickle {
    inner: Arc<dyn Backend>,
    lets_in: AtomicU64,
}

impl Fickle {
    fn new(lets_in: u64) -> Arc<Self> {
        Arc::new(Self { inner: embedded("two"), lets_in: AtomicU64::new(lets_in) })
    }
}

#[async_trait]
impl Backend for Fickle {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        let one_less = |left: u64| left.checked_sub(1);
        match self.lets_in.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => self.inner.connect(client, sink).await,
            Err(_) => Err(BackendError::Away { name: "two".into(), why: "it is fickle".into() }),
        }
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[derive(Default)]
struct Ear {
    changed: std::sync::atomic::AtomicBool,
}

impl ReceiptSink for Ear {
    fn receipts(&self, _: &[Receipt]) {}
}

impl LaneEvents for Ear {
    fn event(&self, event: LaneEvent) {
        if matches!(event, LaneEvent::Changed) {
            self.changed.store(true, Ordering::SeqCst);
        }
    }
}

struct Client1 {
    deliveries: Deliveries,
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    ear: Arc<Ear>,
    next_key: u32,
}

impl Client1 {
    async fn connect(hub: &Hub, number: u64, credit: Option<Arc<Credit>>) -> Self {
        Self::connected(hub, number, credit).await
    }

    /// A client of a back end itself.
    async fn at(backend: &dyn Backend, number: u64) -> Self {
        Self::connected(backend, number, None).await
    }

    async fn connected(backend: &dyn Backend, number: u64, credit: Option<Arc<Credit>>) -> Self {
        let client = Client {
            number,
            identifier: "test".into(),
            user: "guest".into(),
            vhost: "/".into(),
            session: None,
        };
        let deliveries = Deliveries::working(1 << 20, credit);
        let mut connection = backend.connect(&client, deliveries.sink()).await.unwrap();
        let ear = Arc::new(Ear::default());
        let lane = connection.lane(Arc::clone(&ear) as _, Arc::clone(&ear) as _).await.unwrap();
        Self { deliveries, lane, _connection: connection, ear, next_key: 0 }
    }

    fn publish(&mut self, topics: &[&str], flags: Flags) -> Published {
        let drafts: Vec<_> = topics
            .iter()
            .map(|topic| {
                let path = topic.as_bytes();
                let to = Destination::Address { path, syntax: Syntax::Topic, more: &[], queues: &[] };
                let head = Message { target: self.lane.target(&to), flags, ..Message::default() };
                let payload = Body::Shared(topic.as_bytes().to_vec().into());
                Draft { exchange: None, topic: path, properties: &Properties::default(), payload, head }
                    .build()
            })
            .collect();
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        for draft in &drafts {
            let at = u32::try_from(bytes.len()).unwrap();
            let batch = draft.batch();
            bytes.extend_from_slice(batch.bytes);
            let moved =
                |span: linkspan_contract::Span| linkspan_contract::Span::new(span.start + at, span.len);
            let message = batch.messages[0];
            messages.push(Message {
                wire: moved(message.wire),
                address: moved(message.address),
                properties: moved(message.properties),
                payload: moved(message.payload),
                ..message
            });
        }
        let published =
            self.lane.publish(&Batch::new(&bytes, &messages, &linkspan_contract::neutral::NEUTRAL));
        self.lane.flush();
        published
    }

    /// Publishes one message to a target that was asked for before.
    fn publish_to(&mut self, target: linkspan_contract::TargetId, topic: &str) -> Published {
        let head = Message { target, flags: WANTED, ..Message::default() };
        let (topic, payload) = (topic.as_bytes(), Body::Shared("x".into()));
        let properties = Properties::default();
        let draft = Draft { exchange: None, topic, properties: &properties, payload, head }.build();
        let published = self.lane.publish(&draft.batch());
        self.lane.flush();
        published
    }

    fn target(&mut self, topic: &str) -> linkspan_contract::TargetId {
        let path = topic.as_bytes();
        self.lane.target(&Destination::Address { path, syntax: Syntax::Topic, more: &[], queues: &[] })
    }

    /// Messages ready in a queue.
    async fn ready(&mut self, name: &str) -> u64 {
        let spec = QueueSpec { passive: true, durable: true, ..QueueSpec::new(name) };
        self.lane.declare_queue(&spec).await.unwrap().messages
    }

    async fn subscribe(&mut self, source: Source<'_>, settle: Settle) -> Result<(), Refused> {
        self.next_key += 1;
        let key = SubscriptionKey { subscription: self.next_key, part: 0 };
        self.lane.subscribe(&source, key, &Subscribe::new(settle), None).await?;
        self.lane.start(key);
        self.lane.flush();
        Ok(())
    }

    async fn next(&mut self) -> Delivery {
        match self.deliveries.next(self.lane.as_mut()).await {
            Next::Delivery(delivery) => delivery,
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    async fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        for _ in 0..count {
            let delivery = self.next().await;
            topics.push(String::from_utf8(delivery.message.address().topic().into()).unwrap());
            delivery.settle(Settlement::Accept);
        }
        topics
    }
}

const WANTED: Flags = Flags::RECEIPT;

fn binding<'a>(queue: &'a str, key: &'a str) -> linkspan_contract::Binding<'a> {
    let to = linkspan_contract::topology::BindingEnd::Queue(queue);
    linkspan_contract::Binding { source: "amq.topic", to, key: key.as_bytes(), arguments: &[] }
}

impl Client1 {
    async fn bind(&mut self, queue: &str, key: &str) {
        self.lane.declare_queue(&QueueSpec { durable: true, ..QueueSpec::new(queue) }).await.unwrap();
        self.bind_to(queue, key).await;
    }

    async fn bind_to(&mut self, queue: &str, key: &str) {
        self.lane.bind(&binding(queue, key)).await.unwrap();
    }

    async fn unbind_from(&mut self, queue: &str, key: &str) {
        self.lane.unbind(&binding(queue, key)).await.unwrap();
    }

    async fn waits(&mut self, queue: &str, messages: u64) {
        let spec = QueueSpec { passive: true, ..QueueSpec::new(queue) };
        let waiting = async {
            while self.lane.declare_queue(&spec).await.unwrap().messages != messages {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let patience = Duration::from_secs(5);
        tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| panic!("{queue} is due {messages}"));
    }
}

#[tokio::test]
async fn a_route_may_name_another_back_end_and_watchers_see_all_of_them() {
    let hub = hub([route("far/#", "two", &[])]).await;
    let mut watcher = Client1::connect(&hub, 1, None).await;
    watcher.subscribe(Source::Filter("#"), Settle::OnDelivery).await.unwrap();
    let mut publisher = Client1::connect(&hub, 2, None).await;
    let published = publisher.publish(&["near/a", "far/a", "near/b", "far/b"], WANTED);
    assert_eq!((published.first, published.taken, published.wanting, published.done), (0, 4, 4, 4));
    let mut got = watcher.topics(4).await;
    got.sort();
    assert_eq!(got, ["far/a", "far/b", "near/a", "near/b"]);
    assert_eq!(publisher.publish(&["near/c"], WANTED).first, 4, "receipts are numbered by the lane");
    assert_eq!(watcher.topics(1).await, ["near/c"]);
}

#[tokio::test]
async fn what_nobody_takes_is_told_by_its_place_in_the_batch() {
    let hub = hub([route("far/#", "two", &[])]).await;
    let mut watcher = Client1::connect(&hub, 1, None).await;
    watcher.subscribe(Source::Filter("far/b"), Settle::OnDelivery).await.unwrap();
    let mut publisher = Client1::connect(&hub, 2, None).await;
    let published = publisher.publish(&["near/a", "far/a", "far/b", "$SYS/x"], WANTED);
    assert_eq!(published.done, 4);
    let told: Vec<u32> = published.exceptions.iter().map(|(at, _)| *at).collect();
    assert_eq!(told, [0, 1, 3]);
    assert_eq!(published.exceptions[0].1, Outcome::Unroutable);
    assert!(matches!(published.exceptions[2].1, Outcome::Refused(Refused::AccessRefused(_))));
}

#[tokio::test]
async fn the_most_specific_route_has_the_message_alone() {
    let hub = hub([route("jobs/#", "one", &["all"]), route("jobs/urgent", "one", &["urgent"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["jobs/urgent", "jobs/x"], WANTED);
    let mut worker = Client1::connect(&hub, 2, None).await;
    worker.subscribe(Source::Queue("all"), Settle::ByConsumer).await.unwrap();
    assert_eq!(worker.topics(1).await, ["jobs/x"]);
    worker.subscribe(Source::Queue("urgent"), Settle::ByConsumer).await.unwrap();
    assert_eq!(worker.topics(1).await, ["jobs/urgent"]);
}

#[tokio::test]
async fn an_mqtt_worker_has_no_more_in_hand_than_the_routes_window() {
    let hub = hub([route("jobs", "two", &["jobs"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["jobs"; 5], WANTED);
    let mut worker = Client1::connect(&hub, 2, None).await;
    worker.subscribe(Source::Filter("jobs"), Settle::AsPublished).await.unwrap();
    let (one, two) = (worker.next().await, worker.next().await);
    let third = tokio::time::timeout(Duration::from_millis(50), worker.next()).await;
    assert!(third.is_err(), "the window is 2");
    one.settle(Settlement::Accept);
    let three = worker.next().await;
    assert_eq!((two.tag, three.tag), (2, 3));
}

#[tokio::test]
async fn retained_messages_are_kept_for_publish_subscribe_only() {
    let hub = hub([route("jobs", "one", &["jobs"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["jobs", "state"], Flags::RETAIN);
    let retained = hub.retained("/").unwrap();
    assert_eq!(retained.len(), 1);
    assert_eq!(retained.matching("state").len(), 1);
}

#[tokio::test]
async fn what_nobody_had_asked_for_counts_as_not_given_when_its_lane_goes() {
    let hub = hub([route("jobs", "one", &["jobs"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    let mut worker = Client1::connect(&hub, 2, None).await;
    worker.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await.unwrap();
    publisher.publish(&["jobs"; 3], WANTED);
    worker.next().await.settle(Settlement::Accept);
    let taken = worker.next().await;
    worker.deliveries.end(worker.lane.as_mut());
    assert_eq!(publisher.ready("jobs").await, 1, "one is in hand");
    drop(worker);
    drop(taken);
    let mut other = Client1::connect(&hub, 3, None).await;
    other.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await.unwrap();
    assert_eq!((other.next().await.attempt, other.next().await.attempt), (1, 0));
}

#[tokio::test]
async fn a_back_end_that_was_away_is_asked_again_for_the_next_message() {
    let two = Fickle::new(0);
    let hub = hub_with(Arc::clone(&two) as _, [route("far/#", "two", &[])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    let target = publisher.target("far/a");
    let published = publisher.publish_to(target, "far/a");
    assert!(matches!(published.exceptions[0].1, Outcome::Failed(Refused::Away(_))), "{published:?}");
    two.lets_in.store(1, Ordering::SeqCst);
    let published = publisher.publish_to(target, "far/a");
    assert_eq!(published.exceptions[0].1, Outcome::Unroutable, "it is there again");
}

#[tokio::test]
async fn a_busy_task_reaches_another_back_end_all_the_same() {
    let hub = hub([route("far/#", "two", &[])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    let spend = |cx: &mut std::task::Context<'_>| {
        while std::pin::pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
        std::task::Poll::Ready(publisher.publish(&["far/a"], WANTED))
    };
    let published = std::future::poll_fn(spend).await;
    assert_eq!(published.exceptions[0].1, Outcome::Unroutable, "the back end is there");
}

#[tokio::test]
async fn a_transaction_does_not_reach_beyond_the_home_back_end_and_says_so() {
    let hub = hub([route("far/#", "two", &[]), route("jobs", "two", &["jobs"])]).await;
    let mut client = Client1::connect(&hub, 1, None).await;
    client.lane.begin().await.unwrap();
    let published = client.publish(&["near", "far/a", "near"], Flags::NONE);
    assert_eq!(published.taken, 1, "what is behind was not looked at");
    assert!(
        matches!(published.exceptions.as_slice(), [(1, Outcome::Refused(Refused::Precondition(_)))]),
        "{published:?}"
    );
    let refused = client.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await;
    assert!(matches!(refused, Err(Refused::Precondition(_))), "{refused:?}");
    let refused = client.lane.fetch("jobs", SubscriptionKey::default(), true).await;
    assert!(matches!(refused, Err(Refused::Precondition(_))), "{refused:?}");
}
