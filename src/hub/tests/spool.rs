//! What becomes of messages on routes with a spool, whose back end comes and goes.

use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::left::soon;
use super::*;

/// Spools in memory.
#[derive(Default)]
struct Stores(Mutex<HashMap<String, Arc<Store>>>);

struct Store(Arc<Embedded>);

/// Some of these.
pub(crate) fn stores() -> Arc<dyn SpoolStores> {
    Arc::new(Stores::default())
}

impl SpoolStores for Stores {
    fn open(&self, backend: &str) -> Result<Arc<dyn SpoolStore>, String> {
        let mut stores = self.0.lock();
        let made =
            || Arc::new(Store(Embedded::open("spool", EmbeddedOptions::default(), Arc::new(SystemClock))));
        Ok(Arc::clone(stores.entry(backend.to_owned()).or_insert_with(made)) as _)
    }

    fn left(&self) -> Vec<Arc<str>> {
        self.0.lock().keys().map(|name| name.as_str().into()).collect()
    }
}

impl SpoolStore for Store {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.0) as _
    }

    fn depth(&self, vhost: &str, queue: &str) -> Depth {
        let depth = self.0.depth(vhost, queue);
        depth.map_or_else(Depth::default, |it| Depth { messages: it.ready + it.unsettled, bytes: it.bytes })
    }

    fn queues(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.0.queues().into_iter().map(|it| (it.vhost, it.name)).collect()
    }
}

/// A back end that comes and goes.
struct Distant {
    inner: Arc<dyn Backend>,
    away: AtomicBool,
}

impl Distant {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: embedded("two"), away: AtomicBool::new(true) })
    }

    fn is_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for Distant {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        if let Health::Away(why) = self.health().await {
            return Err(BackendError::Away { name: "two".into(), why });
        }
        self.inner.connect(client, sink).await
    }

    async fn health(&self) -> Health {
        match self.away.load(Ordering::SeqCst) {
            true => Health::Away("it is distant".into()),
            false => Health::Up,
        }
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn spooled(filter: &str, backend: &str, queues: &[&str], bytes: u64) -> Arc<Route> {
    let mut route = route(filter, backend, queues);
    Arc::make_mut(&mut route).spool = NonZeroU64::new(bytes);
    route
}

async fn watching(two: &Distant, filter: &str) -> Client1 {
    let mut watcher = Client1::at(&*two.inner, 100).await;
    watcher.subscribe(Source::Filter(filter), Settle::OnDelivery).await.unwrap();
    watcher
}

fn diverts(hub: &Hub, route: &Route) -> bool {
    hub.spool_of(route).is_some_and(|spool| spool.diverts())
}

fn accepted(published: &Published) -> bool {
    published.taken == published.wanting
        && published.done == published.wanting
        && published.exceptions.is_empty()
}

#[tokio::test]
async fn what_is_published_while_the_back_end_is_away_is_taken_and_comes_first_when_it_is_back() {
    let two = Distant::new();
    let route = spooled("far/#", "two", &[], 1 << 20);
    let hub = hub_with(Arc::clone(&two) as _, [Arc::clone(&route)]).await;
    let mut watcher = watching(&two, "far/#").await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    assert!(diverts(&hub, &route));
    let published = publisher.publish(&["far/1", "near", "far/2"], WANTED);
    assert_eq!((published.taken, published.wanting, published.done), (3, 3, 3));
    assert_eq!(published.exceptions.as_slice(), [(1, Outcome::Unroutable)]);
    publisher.publish(&["far/lost"], Flags::NONE);
    two.is_away(false);
    publisher.publish(&["far/3"], WANTED);
    assert_eq!(watcher.topics(3).await, ["far/1", "far/2", "far/3"]);
    soon("it goes straight on", async || !diverts(&hub, &route)).await;
    publisher.publish(&["far/4"], Flags::NONE);
    assert_eq!(watcher.topics(1).await, ["far/4"], "nobody counts on QoS 0");
    two.is_away(true);
    soon("it diverts again", async || diverts(&hub, &route)).await;
    publisher.publish(&["far/5"], WANTED);
    two.is_away(false);
    assert_eq!(watcher.topics(1).await, ["far/5"]);
}

#[tokio::test]
async fn work_waits_until_the_queue_of_the_route_can_be_made() {
    let two = Distant::new();
    let hub = hub_with(Arc::clone(&two) as _, [spooled("jobs", "two", &["jobs"], 1 << 20)]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    assert_eq!(publisher.publish(&["jobs", "jobs"], WANTED).exceptions.len(), 0);
    let target = publisher.lane.target(&Destination::Queue { name: "jobs", more: &[] });
    let draft = |topic: &str| {
        let head = Message { target, flags: WANTED, ..Message::default() };
        let (topic, payload) = (topic.as_bytes(), Body::Shared("x".into()));
        Draft { exchange: Some(b""), topic, properties: &Properties::default(), payload, head }.build()
    };
    assert!(accepted(&publisher.lane.publish(&draft("jobs").batch())));
    two.is_away(false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(hub.mend().await.is_empty());
    let mut worker = Client1::connect(&hub, 2, None).await;
    worker.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await.unwrap();
    assert_eq!(worker.topics(3).await.len(), 3, "by address and by name");
}

#[tokio::test]
async fn a_full_spool_holds_its_publishers_and_refuses_none() {
    let two = Distant::new();
    let route = spooled("far", "two", &[], 1000);
    let hub = hub_with(Arc::clone(&two) as _, [Arc::clone(&route)]).await;
    let mut watcher = watching(&two, "far").await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    let mut count = 0;
    while !publisher.publish(&["far"], WANTED).congested {
        count += 1;
        assert!(count < 1000, "it was to be full");
    }
    let woken = Waker::noop();
    let mut ready = || publisher.lane.poll_ready(&mut Context::from_waker(woken));
    assert!(ready().is_pending());
    let other = Client1::connect(&hub, 2, None).await.publish(&["near"], WANTED);
    assert!(!other.congested, "who publishes elsewhere is not held");
    two.is_away(false);
    assert_eq!(watcher.topics(count + 1).await.len(), count + 1);
    soon("publishers are let go", async || matches!(ready(), Poll::Ready(Ok(())))).await;
}

#[tokio::test]
async fn a_route_that_loses_its_spool_has_the_rest_carried_on_and_its_publishers_wait_until_then() {
    let two = Distant::new();
    let before = spooled("far", "two", &[], 1 << 20);
    let hub = hub_with(Arc::clone(&two) as _, [Arc::clone(&before)]).await;
    let mut watcher = watching(&two, "far").await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["far"; 3], WANTED);
    hub.reroute(routes([route("far", "two", &[])])).await.unwrap();
    assert!(publisher.publish(&["far"], WANTED).congested);
    two.is_away(false);
    assert_eq!(watcher.topics(4).await.len(), 4);
    soon("it has none any more", async || hub.spool_of(&before).is_none()).await;
    publisher.publish(&["far"], WANTED);
    assert_eq!(watcher.topics(1).await, ["far"]);
}

#[tokio::test]
async fn what_waits_for_a_route_that_is_gone_goes_where_its_address_lies_now() {
    let two = Distant::new();
    let hub = hub_with(Arc::clone(&two) as _, [spooled("far/#", "two", &[], 1 << 20)]).await;
    let mut watcher = Client1::at(&**hub.backend("one").unwrap(), 2).await;
    watcher.subscribe(Source::Filter("far/#"), Settle::OnDelivery).await.unwrap();
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["far/1", "far/2"], WANTED);
    hub.reroute(routes([])).await.unwrap();
    publisher.publish(&["far/3"], WANTED);
    let mut came = watcher.topics(3).await;
    came.sort();
    assert_eq!(came, ["far/1", "far/2", "far/3"]);
}

#[tokio::test]
async fn what_waits_for_a_route_that_is_gone_comes_to_subscribers_who_follow_late() {
    let (two, route) = (Distant::new(), spooled("far/#", "two", &[], 1 << 20));
    two.is_away(false);
    let hub = hub_with(Arc::clone(&two) as _, [Arc::clone(&route)]).await;
    let mut watcher = Client1::connect(&hub, 2, None).await;
    watcher.subscribe(Source::Filter("far/#"), Settle::OnDelivery).await.unwrap();
    two.is_away(true);
    soon("it is noticed", async || diverts(&hub, &route)).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["far/1", "far/2"], WANTED);
    let ear = Arc::clone(&watcher.ear);
    let late = async {
        soon("clients are told", async || ear.changed.load(Ordering::SeqCst)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        watcher.lane.refresh().await;
    };
    let (rerouted, ()) = tokio::join!(hub.reroute(routes([])), late);
    rerouted.unwrap();
    assert_eq!(watcher.topics(2).await, ["far/1", "far/2"]);
}

#[tokio::test]
async fn what_has_expired_in_a_spool_is_not_carried_on() {
    let two = Distant::new();
    let hub = hub_with(Arc::clone(&two) as _, [spooled("far", "two", &[], 1 << 20)]).await;
    let mut watcher = watching(&two, "far").await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    let target = publisher.target("far");
    for (expiry, payload) in [(50, "old"), (60_000, "good")] {
        let head = Message { target, flags: WANTED | Flags::EXPIRES, expiry, ..Message::default() };
        let payload = Body::Shared(payload.into());
        let properties = Properties::default();
        let draft = Draft { exchange: None, topic: b"far", properties: &properties, payload, head }.build();
        assert!(accepted(&publisher.lane.publish(&draft.batch())));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    two.is_away(false);
    let came = watcher.next().await;
    assert_eq!(came.message.payload(), Some(&b"good"[..]));
    assert!((50_000..60_000).contains(&came.message.message().expiry), "what is left of its time");
}
