//! A subscription that is replaced by one that is called alike.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_replaced_loses_nothing_on_any_back_end_also_after_a_reload() {
    let hub = hub([route("far/#", "two", &[])]).await;
    let credit = Arc::new(Credit::new(0));
    let mut watcher = Client1::connect(&hub, 1, Some(Arc::clone(&credit))).await;
    let key = SubscriptionKey { subscription: 1, part: 0 };
    let mut how = Subscribe::new(Settle::AsPublished);
    let mut publisher = Client1::connect(&hub, 2, None).await;
    for round in 0..4 {
        match round {
            // The back ends get other numbers, the second time before the lane was told.
            1 => {
                hub.reroute(routes([route("far/#", "two", &[]), route("x", "one", &["x"])])).await.unwrap();
                watcher.lane.refresh().await;
            }
            2 => hub.reroute(routes([])).await.unwrap(),
            3 => {
                watcher.lane.refresh().await;
                hub.reroute(routes([route("far/#", "two", &[])])).await.unwrap();
            }
            _ => {}
        }
        how.no_local = !how.no_local;
        let lent = Some(Arc::clone(&credit));
        watcher.lane.subscribe(&Source::Filter("#"), key, &how, lent).await.unwrap();
        watcher.lane.start(key);
        let near = format!("near/{round}");
        publisher.publish(&[&near], WANTED | Flags::DURABLE);
        if round < 2 {
            let far = format!("far/{round}");
            publisher.publish(&[&far], WANTED | Flags::DURABLE);
        }
    }
    credit.grant(100);
    watcher.lane.resume();
    let mut got = watcher.topics(4).await;
    got.sort();
    assert_eq!(
        got,
        ["near/0", "near/1", "near/2", "near/3"],
        "in round 2 the routes left the other back end"
    );
}

#[tokio::test]
async fn a_subscription_that_cannot_be_replaced_everywhere_stays_as_it_was() {
    let two = Fickle::new(0);
    let hub = hub_with(Arc::clone(&two) as _, []).await;
    let credit = Arc::new(Credit::new(0));
    let mut watcher = Client1::connect(&hub, 1, Some(Arc::clone(&credit))).await;
    let key = SubscriptionKey { subscription: 1, part: 0 };
    let how = Subscribe::new(Settle::AsPublished);
    let lent = Some(Arc::clone(&credit));
    watcher.lane.subscribe(&Source::Filter("#"), key, &how, lent.clone()).await.unwrap();
    watcher.lane.start(key);
    let mut publisher = Client1::connect(&hub, 2, None).await;
    publisher.publish(&["near/1"], WANTED | Flags::DURABLE);
    hub.reroute(routes([route("far/#", "two", &[])])).await.unwrap();
    let how = Subscribe { no_local: true, ..how };
    let refused = watcher.lane.subscribe(&Source::Filter("#"), key, &how, lent).await;
    assert!(matches!(refused, Err(Refused::Away(_))), "{refused:?}");
    publisher.publish(&["near/2"], WANTED | Flags::DURABLE);
    watcher.publish(&["near/3"], WANTED | Flags::DURABLE);
    credit.grant(100);
    watcher.lane.resume();
    assert_eq!(watcher.topics(3).await, ["near/1", "near/2", "near/3"]);
}

#[tokio::test]
async fn a_consumer_that_is_replaced_stays_within_the_window_of_its_route() {
    let hub = hub([route("jobs", "two", &["jobs"])]).await;
    let credit = Arc::new(Credit::new(100));
    let mut worker = Client1::connect(&hub, 1, Some(Arc::clone(&credit))).await;
    let mut publisher = Client1::connect(&hub, 2, None).await;
    publisher.publish(&["jobs"; 5], WANTED | Flags::DURABLE);
    let key = SubscriptionKey { subscription: 1, part: 0 };
    let mut how = Subscribe::new(Settle::AsPublished);
    let mut given = Vec::new();
    for _ in 0..2 {
        let lent = Some(Arc::clone(&credit));
        worker.lane.subscribe(&Source::Queue("jobs"), key, &how, lent).await.unwrap();
        worker.lane.start(key);
        how.no_local = true;
    }
    given.push(worker.next().await);
    given.push(worker.next().await);
    assert_eq!(publisher.ready("jobs").await, 3, "the window of the route is 2");
    given.drain(..).for_each(|delivery| delivery.settle(Settlement::Accept));
    assert_eq!(worker.topics(3).await.len(), 3);
}
