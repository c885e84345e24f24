//! What goes on in the next life of the server, because the ledger has it.

use std::time::Duration;

use linkspan_contract::ledger::{Conditions, Entry, LedgerError, Version};
use linkspan_contract::{Fence, Lease, Leases, NotGranted};

use super::*;

/// A ledger that can be away.
struct Fickle {
    inner: Arc<dyn Ledger>,
    away: std::sync::atomic::AtomicBool,
}

impl Fickle {
    fn away() -> Arc<Self> {
        Arc::new(Self { inner: ledger(), away: true.into() })
    }

    fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    fn reached(&self) -> Result<&dyn Ledger, LedgerError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(LedgerError::Away("it is fickle".into())),
            false => Ok(&*self.inner),
        }
    }
}

#[async_trait]
impl Leases for Fickle {
    async fn take(&self, name: &str) -> Result<Lease, NotGranted> {
        self.inner.take(name).await
    }

    async fn give_back(&self, name: &str, fence: Fence) {
        self.inner.give_back(name, fence).await;
    }
}

#[async_trait]
impl Ledger for Fickle {
    async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
        self.reached()?.get(key).await
    }

    async fn put(&self, key: &str, value: &[u8], terms: Conditions<'_>) -> Result<Version, LedgerError> {
        self.reached()?.put(key, value, terms).await
    }

    async fn delete(&self, key: &str, terms: Conditions<'_>) -> Result<bool, LedgerError> {
        self.reached()?.delete(key, terms).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        self.reached()?.scan(prefix, after, limit).await
    }

    async fn advance(&self, name: &str, fence: Fence) -> Result<Lease, NotGranted> {
        self.inner.advance(name, fence).await
    }

    async fn health(&self) -> Health {
        match self.reached() {
            Ok(_) => Health::Up,
            Err(error) => Health::Away(error.to_string()),
        }
    }
}

/// Two back ends that outlive the hubs over them, and a ledger.
struct House {
    one: Arc<dyn Backend>,
    two: Arc<dyn Backend>,
    ledger: Arc<dyn Ledger>,
}

impl House {
    fn new() -> Self {
        Self { one: embedded("one"), two: embedded("two"), ledger: ledger() }
    }

    async fn hub(&self, over: impl IntoIterator<Item = Arc<Route>>) -> Arc<Hub> {
        let backends = [("one".into(), Arc::clone(&self.one)), ("two".into(), Arc::clone(&self.two))];
        hub_of(backends.into(), routes(over), &self.ledger).await
    }

    /// What the ledger has of that kind, but for the braces.
    async fn has(&self, kind: &str) -> Vec<String> {
        let found = self.ledger.scan(&format!("hub/own/{kind}/"), None, 100).await.unwrap();
        let mut found: Vec<String> =
            found.iter().map(|(_, entry)| String::from_utf8_lossy(&entry.value).replace('"', "")).collect();
        found.sort();
        found
    }

    async fn is_there(&self, backend: &Arc<dyn Backend>, queue: &str) -> bool {
        let mut client = Client1::at(&**backend, 99).await;
        client.lane.declare_queue(&QueueSpec { passive: true, ..QueueSpec::new(queue) }).await.is_ok()
    }
}

async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("not so: {what}"));
}

fn draining(filter: &str, backend: &str, queue: &str) -> Arc<Route> {
    let mut route = route(filter, backend, &[queue]);
    Arc::make_mut(&mut route).drain = true;
    route
}

#[tokio::test]
async fn copies_go_on_for_a_queue_that_nobody_binds_again() {
    let house = House::new();
    let far = || [route("far/#", "two", &[])];
    let before = house.hub(far()).await;
    let mut client = Client1::connect(&before, 1, None).await;
    client.bind("stays", "far.#").await;
    client.bind_to("stays", "other.#").await;
    client.unbind_from("stays", "other.#").await;
    client.bind("goes", "far.#").await;
    client.lane.delete_queue("goes", false, false).await.unwrap();
    let own = QueueSpec { exclusive: true, ..QueueSpec::new("own") };
    client.lane.declare_queue(&own).await.unwrap();
    client.bind_to("own", "far.#").await;
    before.mend().await;
    assert_eq!(house.has("binding").await, ["{vhost:/,queue:stays,key:far.#}"], "and no other");
    drop((client, before));

    let hub = house.hub(far()).await;
    soon("the binding is in force", async || {
        hub.mend().await;
        hub.carriers.count() == 1
    })
    .await;
    Client1::connect(&hub, 2, None).await.publish(&["far/a"], WANTED | Flags::DURABLE);
    Client1::connect(&hub, 3, None).await.waits("stays", 1).await;
}

#[tokio::test]
async fn a_binding_whose_queue_was_deleted_meanwhile_is_forgotten() {
    let house = House::new();
    let far = || [route("far/#", "two", &[])];
    let before = house.hub(far()).await;
    Client1::connect(&before, 1, None).await.bind("q", "far.#").await;
    drop(before);
    Client1::at(&*house.one, 2).await.lane.delete_queue("q", false, false).await.unwrap();
    let hub = house.hub(far()).await;
    soon("it is forgotten", async || {
        hub.mend().await;
        house.has("binding").await.is_empty()
    })
    .await;
    assert!(hub.carriers.bindings.lock().is_empty() && hub.carriers.count() == 0);
}

#[tokio::test]
async fn a_queue_under_another_name_gets_what_the_one_before_held_also_when_nothing_ran_in_between() {
    let house = House::new();
    let before = house.hub([route("jobs", "two", &["old"])]).await;
    Client1::connect(&before, 1, None).await.publish(&["jobs"; 3], WANTED | Flags::DURABLE);
    assert_eq!(house.has("queue").await, ["{vhost:/,backend:two,queue:old,match:jobs}"]);
    drop(before);
    let hub = house.hub([draining("jobs", "one", "new")]).await;
    assert_eq!(Client1::connect(&hub, 2, None).await.ready("new").await, 3, "it comes first");
    soon("the old one is gone, and forgotten", async || {
        hub.mend().await;
        let forgotten = house.has("queue").await == ["{vhost:/,backend:one,queue:new,match:jobs}"];
        forgotten && !house.is_there(&house.two, "old").await
    })
    .await;
}

#[tokio::test]
async fn a_queue_whose_route_is_gone_stays_until_a_route_takes_over_what_it_holds() {
    let house = House::new();
    let before = house.hub([route("jobs", "two", &["full"]), route("empty", "two", &["empty"])]).await;
    Client1::connect(&before, 1, None).await.publish(&["jobs"; 3], WANTED | Flags::DURABLE);
    drop(before);
    let hub = house.hub([]).await;
    assert_eq!(house.has("queue").await, ["{vhost:/,backend:two,queue:full,match:jobs}"]);
    assert!(!house.is_there(&house.two, "empty").await, "it held nothing");
    hub.reroute(routes([route("else", "one", &["else"])])).await.expect("it is in nobody's way");
    hub.reroute(routes([draining("jobs", "one", "new")])).await.unwrap();
    assert_eq!(Client1::connect(&hub, 2, None).await.ready("new").await, 3);
}

#[tokio::test]
async fn dead_letters_of_a_route_that_is_gone_come_to_their_address() {
    let house = House::new();
    let mut jobs = route("jobs", "two", &["jobs"]);
    Arc::make_mut(&mut jobs).dead_letter = Some("failed/jobs".into());
    let failed = || route("failed/#", "one", &["failed"]);
    let before = house.hub([jobs, failed()]).await;
    assert_eq!(house.has("dead-letters").await, ["{vhost:/,backend:two,queue:jobs,address:failed/jobs}"]);
    before.carriers.end(|_| true);
    drop(before);
    let mut direct = Client1::at(&*house.two, 1).await;
    let name = "linkspan.dead.jobs";
    direct.lane.declare_queue(&QueueSpec { durable: true, ..QueueSpec::new(name) }).await.unwrap();
    let target = direct.lane.target(&Destination::Queue { name, more: &[] });
    direct.publish_to(target, "jobs");
    let hub = house.hub([failed()]).await;
    Client1::connect(&hub, 2, None).await.waits("failed", 1).await;
    soon("all are carried", async || {
        hub.mend().await;
        house.has("dead-letters").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_is_away_at_the_start_is_asked_when_it_is_back_and_gets_what_was_to_be_written() {
    let fickle = Fickle::away();
    let mut house = House::new();
    house.ledger = Arc::clone(&fickle.inner);
    let before = house.hub([route("jobs", "two", &["old"])]).await;
    let mut client = Client1::connect(&before, 1, None).await;
    client.publish(&["jobs"; 3], WANTED | Flags::DURABLE);
    client.bind("over", "far.#").await;
    drop((client, before));

    let backends = [("one".into(), Arc::clone(&house.one)), ("two".into(), Arc::clone(&house.two))];
    let watched = Arc::new(Watched::new(Arc::clone(&fickle) as _, "test"));
    watched.look().await;
    let memory = Memory::new(Arc::clone(&watched), "own");
    let over = routes([draining("jobs", "one", "new"), route("far/#", "two", &[])]);
    let clock = Arc::new(SystemClock);
    let hub = Hub::open(backends.into(), over, 1000, clock, memory, spool::stores())
        .await
        .expect("it starts without it");
    assert!(matches!(hub.ledger_health(), Health::Away(_)));
    let mut client = Client1::connect(&hub, 2, None).await;
    client.bind("q", "far.#").await;
    client.unbind_from("over", "far.#").await;
    hub.mend().await;
    assert_eq!(client.ready("new").await, 0, "nothing is known of the old queue");
    assert_eq!(house.has("binding").await, ["{vhost:/,queue:over,key:far.#}"], "nothing was written");

    fickle.come_back();
    watched.look().await;
    soon("what is to be known is", async || {
        hub.mend().await;
        client.ready("new").await == 3
    })
    .await;
    soon("what is to be written is", async || {
        hub.mend().await;
        house.has("binding").await == ["{vhost:/,queue:q,key:far.#}"]
    })
    .await;
}
