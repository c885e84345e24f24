//! What an earlier life of the server, or a client that is gone, has left behind.

use std::time::Duration;

use super::*;

fn draining(filter: &str, backend: &str, queue: &str) -> Arc<Route> {
    let mut route = route(filter, backend, &[queue]);
    Arc::make_mut(&mut route).drain = true;
    route
}

pub(super) async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap_or_else(|_| panic!("not so: {what}"));
}

#[tokio::test]
async fn what_a_route_that_says_drain_left_on_another_back_end_comes_first_also_after_a_restart() {
    let two = embedded("two");
    let before = hub_with(Arc::clone(&two), [route("jobs", "two", &["jobs"])]).await;
    Client1::connect(&before, 1, None).await.publish(&["jobs"; 3], WANTED | Flags::DURABLE);
    drop(before);
    let hub = hub_with(Arc::clone(&two), [draining("jobs", "one", "jobs")]).await;
    let mut worker = Client1::connect(&hub, 2, None).await;
    assert_eq!(worker.ready("jobs").await, 3);
    let mut there = Client1::at(&*two, 3).await;
    let spec = QueueSpec { passive: true, ..QueueSpec::new("jobs") };
    soon("the old queue is gone", async || there.lane.declare_queue(&spec).await.is_err()).await;
}

#[tokio::test]
async fn a_queue_of_that_name_which_is_another_routes_is_not_drained() {
    let two = embedded("two");
    let others = Arc::new(Route { vhost: "v".into(), ..(*route("jobs", "two", &["jobs"])).clone() });
    let vhosts = [("/".into(), "one".into()), ("v".into(), "two".into())];
    let all = Routes::new(vhosts, [draining("jobs", "one", "jobs"), others]).unwrap();
    let backends = [("one".into(), embedded("one")), ("two".into(), two)];
    let hub = hub_of(backends.into(), all, &ledger()).await;
    assert!(hub.draining.lock().is_empty());
}

#[tokio::test]
async fn a_back_end_that_is_away_is_looked_at_when_it_is_back_and_stops_no_reload() {
    let two = Fickle::new(0);
    let hub = hub_with(Arc::clone(&two) as _, [draining("jobs", "one", "jobs")]).await;
    let mut direct = Client1::at(&*two.inner, 1).await;
    direct.lane.declare_queue(&QueueSpec { durable: true, ..QueueSpec::new("jobs") }).await.unwrap();
    let target = direct.lane.target(&Destination::Queue { name: "jobs", more: &[] });
    direct.publish_to(target, "jobs");
    hub.reroute(routes([draining("jobs", "one", "jobs")])).await.expect("nothing is known of it");
    two.lets_in.store(1000, Ordering::Relaxed);
    Client1::connect(&hub, 2, None).await.waits("jobs", 1).await;
}

#[tokio::test]
async fn dead_letters_that_an_earlier_life_left_on_another_back_end_come_to_the_address() {
    let two = embedded("two");
    let mut direct = Client1::at(&*two, 1).await;
    let name = "linkspan.dead.jobs";
    direct.lane.declare_queue(&QueueSpec { durable: true, ..QueueSpec::new(name) }).await.unwrap();
    let target = direct.lane.target(&Destination::Queue { name, more: &[] });
    direct.publish_to(target, "jobs");
    let mut jobs = route("jobs", "one", &["jobs"]);
    Arc::make_mut(&mut jobs).dead_letter = Some("failed/jobs".into());
    let hub = hub_with(two, [jobs, route("failed/#", "one", &["failed"])]).await;
    Client1::connect(&hub, 2, None).await.waits("failed", 1).await;
}

#[tokio::test]
async fn bindings_are_forgotten_with_the_client_whose_queue_goes_with_it() {
    let two = embedded("two");
    let hub = hub_with(Arc::clone(&two), [route("far/#", "two", &[])]).await;
    let mut stays = Client1::connect(&hub, 1, None).await;
    stays.bind("stays", "far.#").await;
    for number in 2..5 {
        let mut goes = Client1::connect(&hub, number, None).await;
        let name = format!("goes-{number}");
        let spec = QueueSpec { exclusive: true, ..QueueSpec::new(&name) };
        goes.lane.declare_queue(&spec).await.unwrap();
        goes.bind_to(&name, "far.#").await;
    }
    drop(stays);
    assert_eq!(hub.carriers.bindings.lock().len(), 4);
    soon("only those are left whose queue is there", async || {
        hub.mend().await;
        hub.carriers.bindings.lock().len() == 1
    })
    .await;
    soon("what carried for the others is done", async || {
        hub.mend().await;
        hub.carriers.count() == 1
    })
    .await;
    let mut again = Client1::connect(&hub, 6, None).await;
    again.publish(&["far/a"], WANTED | Flags::DURABLE);
    again.waits("stays", 1).await;
    assert!(hub.carriers.suspects.lock().is_empty(), "it is looked for no more");
}

#[tokio::test]
async fn keys_that_were_unbound_are_not_remembered() {
    let hub = hub([route("far/#", "two", &[])]).await;
    let mut client = Client1::connect(&hub, 1, None).await;
    client.bind("q", "far.0").await;
    for n in 1..20 {
        client.bind_to("q", &format!("far.{n}")).await;
        client.unbind_from("q", &format!("far.{}", n - 1)).await;
    }
    let mut publisher = Client1::connect(&hub, 2, None).await;
    soon("the mover has unbound all", async || hub.carriers.unbound() == 0).await;
    publisher.publish(&["far/0", "far/18", "far/19"], WANTED | Flags::DURABLE);
    client.waits("q", 1).await;
    client.unbind_from("q", "far.19").await;
    assert!(hub.carriers.bindings.lock().is_empty());
}
