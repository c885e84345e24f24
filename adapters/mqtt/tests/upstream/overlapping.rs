//! Filters that overlap.

use linkspan_contract::{Lane, Settle, SubscriptionKey};
use linkspan_integration_tests::Mosquitto;
use linkspan_mqtt::{MqttOptions, VersionChoice};

use crate::stage::{Peer, name, options, reached};

async fn each_comes_once_to_each_subscription(options: MqttOptions) {
    let backend = reached(options).await;
    let root = name("r");
    let mut publisher = Peer::of(&*backend).await;
    let mut subscribers = Vec::new();
    for filter in ["a/+", "+/b", "#", "a/b", "+/+"] {
        let mut subscriber = Peer::of(&*backend).await;
        subscriber.watch(&format!("{root}/{filter}"), 1, Settle::AsPublished).await;
        subscribers.push(subscriber);
    }
    let target = publisher.to(&format!("{root}/a/b"));
    publisher.publish(target, 0..200);
    assert_eq!(publisher.confirmed().await, []);
    for subscriber in &subscribers {
        assert_eq!(subscriber.numbers_until(199).await, (0..200).collect::<Vec<_>>());
    }
    // The widest goes, and then those that it stood for: what comes after comes once.
    let mut from = 200;
    while let Some(gone) = (subscribers.len() > 1).then(|| subscribers.remove(subscribers.len() / 2)) {
        drop(gone);
        publisher.publish(target, from..from + 50);
        publisher.confirmed().await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        publisher.publish(target, from + 50..from + 100);
        for subscriber in &subscribers {
            let numbers = subscriber.numbers_until(from + 99).await;
            assert_eq!(numbers, (from..from + 100).collect::<Vec<_>>());
        }
        from += 100;
    }
    drop(subscribers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_comes_once_however_many_filters_match_it() {
    let broker = Mosquitto::shared().await;
    each_comes_once_to_each_subscription(options(broker.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_when_the_broker_sends_one_copy_for_all() {
    let broker = Mosquitto::own_with("allow_duplicate_messages false", &[]).await;
    each_comes_once_to_each_subscription(options(broker.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_over_mqtt_3_1_1() {
    let broker = Mosquitto::shared().await;
    let options = MqttOptions { version: VersionChoice::V311, ..options(broker.url()) };
    each_comes_once_to_each_subscription(options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_come_and_go_cost_a_lasting_one_nothing() {
    // What the broker drops because a session is slow is not what is asked here.
    let broker = Mosquitto::own_with("max_queued_messages 0", &[]).await;
    let backend = reached(options(broker.url())).await;
    let root = name("r");
    let (mut publisher, mut lasting, mut fickle) =
        (Peer::of(&*backend).await, Peer::of(&*backend).await, Peer::of(&*backend).await);
    lasting.watch(&format!("{root}/+/x"), 1, Settle::AsPublished).await;
    let target = publisher.to(&format!("{root}/a/x"));
    let filters = ["a/#", "#", "+/+", "a/x", "a/+"];
    for round in 0..60_u32 {
        let filter = format!("{root}/{}", filters[round as usize % filters.len()]);
        publisher.publish(target, round * 20..round * 20 + 10);
        fickle.watch(&filter, round + 1, Settle::OnDelivery).await;
        publisher.publish(target, round * 20 + 10..round * 20 + 20);
        if round % 3 != 0 {
            let key = SubscriptionKey { subscription: round, part: 0 };
            fickle.lane.unsubscribe(key).await.expect("a subscription ends");
        }
    }
    let _: &mut dyn Lane = &mut *fickle.lane;
    let numbers = lasting.numbers_until(1199).await;
    let missing: Vec<u32> = (0..1200).filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "these did not come: {missing:?}");
    assert_eq!(numbers, (0..1200).collect::<Vec<_>>(), "each once and in order");
}
