//! Routes that come and go while clients are connected.

use super::*;

#[tokio::test]
async fn a_reload_turns_a_subscriber_into_a_worker_without_its_doing() {
    let hub = hub([]).await;
    let mut one = Client1::connect(&hub, 1, None).await;
    let mut two = Client1::connect(&hub, 2, None).await;
    let mut publisher = Client1::connect(&hub, 3, None).await;
    for client in [&mut one, &mut two] {
        client.subscribe(Source::Filter("jobs"), Settle::OnDelivery).await.unwrap();
    }
    publisher.publish(&["jobs"], WANTED);
    assert_eq!((one.topics(1).await.len(), two.topics(1).await.len()), (1, 1), "both get a copy");

    hub.reroute(routes([route("jobs", "two", &["jobs"])])).await.unwrap();
    for client in [&mut one, &mut two] {
        assert!(client.ear.changed.load(Ordering::SeqCst), "lanes are told");
        client.lane.refresh().await;
    }
    publisher.publish(&["jobs", "jobs"], WANTED);
    assert_eq!((one.topics(1).await.len(), two.topics(1).await.len()), (1, 1), "each gets one of two");
}

#[tokio::test]
async fn a_reload_that_would_strand_messages_is_refused_with_their_number() {
    let hub = hub([route("jobs", "one", &["jobs"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["jobs", "jobs"], WANTED);
    let error = hub.reroute(routes([])).await.unwrap_err();
    assert!(matches!(&error, RoutesError::NotEmpty { messages: 2, .. }), "{error}");
    publisher.publish(&["jobs"], WANTED);
    let mut worker = Client1::connect(&hub, 2, None).await;
    worker.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await.unwrap();
    assert_eq!(worker.topics(3).await.len(), 3, "the old routes stayed in force");
    let error = hub.reroute(routes([])).await.unwrap_err();
    assert!(matches!(&error, RoutesError::NotEmpty { messages: 0, unsettled: Some(1), .. }), "{error}");
    assert!(error.to_string().contains("0 messages that wait and 1 that are not acknowledged"), "{error}");
    worker.deliveries.settle_into(worker.lane.as_mut());
    hub.reroute(routes([])).await.unwrap();
    assert!(worker.subscribe(Source::Queue("jobs"), Settle::ByConsumer).await.is_err(), "the queue is gone");
}

#[tokio::test]
async fn what_was_given_before_a_reload_is_not_taken_for_what_is_given_after_it() {
    let hub = hub([route("jobs", "one", &["old"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    let mut worker = Client1::connect(&hub, 2, None).await;
    worker.subscribe(Source::Filter("jobs"), Settle::AsPublished).await.unwrap();
    publisher.publish(&["jobs"; 2], WANTED);
    let (one, two) = (worker.next().await, worker.next().await);

    hub.reroute(routes([route("jobs", "one", &["new"]), route("elsewhere", "one", &["old"])])).await.unwrap();
    worker.lane.refresh().await;
    publisher.publish(&["jobs"; 3], WANTED);
    let (three, four) = (worker.next().await, worker.next().await);
    one.settle(Settlement::Accept);
    two.settle(Settlement::Release { delay: 0 });
    let fifth = tokio::time::timeout(Duration::from_millis(50), worker.next()).await;
    assert!(fifth.is_err(), "the window is 2, and what was settled took nothing from it");
    assert_eq!(publisher.ready("old").await, 1, "one was accepted, one released");
    drop((three, four));
    worker.deliveries.settle_into(worker.lane.as_mut());
    drop(worker);
    assert_eq!(publisher.ready("new").await, 3, "none of these was accepted");
}

#[tokio::test]
async fn a_reload_does_not_touch_a_watcher_on_the_back_ends_that_stay() {
    let hub = hub([]).await;
    let mut watcher = Client1::connect(&hub, 1, None).await;
    watcher.subscribe(Source::Filter("#"), Settle::AsPublished).await.unwrap();
    let mut publisher = Client1::connect(&hub, 2, None).await;
    publisher.publish(&["near"], WANTED | Flags::DURABLE);
    let before = watcher.next().await;
    hub.reroute(routes([route("far/#", "two", &[])])).await.unwrap();
    watcher.lane.refresh().await;
    publisher.publish(&["near"], WANTED | Flags::DURABLE);
    let after = watcher.next().await;
    assert_eq!((after.key, after.tag), (before.key, before.tag + 1), "it is the same subscription still");
    publisher.publish(&["far/a"], WANTED);
    assert_eq!(watcher.topics(1).await, ["far/a"], "and there is one more");
    hub.reroute(routes([])).await.unwrap();
    watcher.lane.refresh().await;
    publisher.publish(&["far/a"], WANTED);
    assert_eq!(watcher.topics(1).await, ["far/a"]);
}

#[tokio::test]
async fn routes_in_force_are_reported_as_such_although_an_old_queue_could_not_be_deleted() {
    let two = Fickle::new(2);
    let hub = hub_with(Arc::clone(&two) as _, [route("jobs", "two", &["jobs"])]).await;
    let client = Client1::connect(&hub, 1, None).await;
    hub.reroute(routes([])).await.unwrap();
    assert_eq!(two.lets_in.load(Ordering::SeqCst), 0, "it was looked whether the queue is empty");
    assert!(hub.routes().vhost("/").unwrap().find(b"jobs").is_none());
    assert!(client.ear.changed.load(Ordering::SeqCst), "lanes are told");
}

#[tokio::test]
async fn a_reload_that_says_drain_moves_a_queue_that_is_not_empty_to_another_back_end() {
    let hub = hub([route("jobs", "one", &["jobs"])]).await;
    let mut publisher = Client1::connect(&hub, 1, None).await;
    publisher.publish(&["jobs"; 5], WANTED | Flags::DURABLE);
    let refused = hub.reroute(routes([route("jobs", "two", &["jobs"])])).await;
    assert!(matches!(refused, Err(RoutesError::NotEmpty { messages: 5, .. })), "{refused:?}");
    let mut drained = route("jobs", "two", &["work"]);
    Arc::make_mut(&mut drained).drain = true;
    hub.reroute(routes([drained])).await.unwrap();
    publisher.publish(&["jobs"], WANTED | Flags::DURABLE);
    publisher.waits("work", 6).await;
}
