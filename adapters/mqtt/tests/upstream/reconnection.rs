//! Links that break while messages are under way.

use std::time::Duration;

use linkspan_contract::Backend;
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::recorder::Recorder;
use linkspan_contract::{Client, Flags, Health, Outcome, Settle};

use crate::stage::{Peer, by, name, open, options, reached, wait_for, without_repetitions};
use linkspan_integration_tests::{Cable, Mosquitto};

/// Enough for what is published while a link is down; a broker that comes again knows no session.
const ROOMY: &str = "persistence false\nmax_queued_messages 0\nmax_inflight_messages 100";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_order_is_kept_over_twenty_cuts() {
    let broker = Mosquitto::own_with(ROOMY, &[]).await;
    let cable = Cable::to(broker.address()).await;
    let backend = reached(options(&by(&cable))).await;
    let (mut publisher, mut subscriber) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    let topic = name("t");
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let target = publisher.to(&topic);
    for round in 0..20 {
        for step in 0..10 {
            let from = (round * 10 + step) * 25;
            publisher.publish(target, from..from + 25);
            tokio::time::sleep(Duration::from_millis(u64::from(round % 4))).await;
            if step == round % 10 {
                cable.reset();
            }
        }
    }
    let exceptions = publisher.confirmed().await;
    // While nobody is subscribed the broker says so; a session that it keeps is subscribed.
    assert_eq!(exceptions, [], "all were to be taken");
    let numbers = subscriber.numbers_until(4999).await;
    let doubles = numbers.len() - without_repetitions(&numbers).len();
    assert_eq!(
        without_repetitions(&numbers),
        (0..5000).collect::<Vec<_>>(),
        "all, in the order of the first coming"
    );
    assert!(doubles <= 20 * 200, "what was acknowledged is not sent again: {doubles} doubles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_the_broker_is_away_waits_and_goes_in_its_order() {
    let broker = Mosquitto::own_with(ROOMY, &[]).await;
    let backend = reached(options(broker.url())).await;
    let (mut publisher, mut subscriber) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    let topic = name("t");
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let target = publisher.to(&topic);
    broker.stop().await;
    wait_for(&backend, false).await;
    publisher.publish(target, 0..100);
    // A filter asked for meanwhile is kept, and subscribed to later: the broker that comes knows no session.
    let other = name("other");
    subscriber.watch(&other, 2, Settle::AsPublished).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(publisher.heard.receipts.lock().is_empty(), "nothing is acknowledged that is not safe");
    broker.start().await;
    wait_for(&backend, true).await;
    // Filters are subscribed to again before anything is published.
    assert_eq!(publisher.confirmed().await, []);
    let to_other = publisher.to(&other);
    publisher.publish(target, 100..200);
    publisher.publish(to_other, 200..300);
    let numbers = subscriber.numbers_until(299).await;
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_clients_are_let_in_and_publishers_are_held() {
    let broker = Mosquitto::own_with(ROOMY, &[]).await;
    let backend = reached(linkspan_mqtt::MqttOptions {
        outbox_high: 10_000,
        outbox_limit: 30_000,
        ..options(broker.url())
    })
    .await;
    let mut publisher = Peer::of(&*backend).await;
    let target = publisher.to(&name("t"));
    broker.stop().await;
    wait_for(&backend, false).await;
    let Health::Away(why) = backend.health().await else { panic!("it is away") };
    assert!(!why.is_empty());
    // Who comes now is let in: what is published waits, and filters are subscribed to later.
    let _late = Peer::of(&*backend).await;
    let published = publisher.lane.publish(&Letters::confirmed(target, 0..20).batch());
    assert!(!published.congested);
    let ready = |peer: &mut Peer| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        peer.lane.poll_ready(&mut cx).is_ready()
    };
    assert!(ready(&mut publisher));
    let published = publisher.lane.publish(&Letters::confirmed(target, 20..60).batch());
    assert!(published.congested && !ready(&mut publisher), "more than should be waits for the broker");
    publisher.lane.publish(&Letters::confirmed(target, 60..300).batch());
    publisher.lane.flush();
    let told = publisher.heard.receipts.lock().clone();
    let full = |it: &&linkspan_contract::Receipt| {
        matches!(it.outcome, Outcome::Refused(linkspan_contract::Refused::Full(_)))
    };
    assert!(
        told.iter().filter(full).map(|it| it.count).sum::<u32>() > 100,
        "past the limit nothing is taken: {told:?}"
    );
    // QoS 0 is nobody's to keep.
    let letters: Letters = [Letter::numbered(target, 1).flagged(Flags::NONE)].into_iter().collect();
    assert_eq!(publisher.lane.publish(&letters.batch()).taken, 1);
    broker.start().await;
    wait_for(&backend, true).await;
    for _ in 0..500 {
        if ready(&mut publisher) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("publishers were to be let go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_end_that_is_closed_leaves_nothing_unacknowledged() {
    let broker = Mosquitto::own_with(ROOMY, &[]).await;
    let backend = reached(options(broker.url())).await;
    let witness = reached(options(broker.url())).await;
    let mut subscriber = Peer::of(&*witness).await;
    let topic = name("t");
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let mut publisher = Peer::of(&*backend).await;
    let target = publisher.to(&topic);
    publisher.publish(target, 0..2000);
    backend.close().await;
    assert_eq!(publisher.confirmed().await, []);
    assert_eq!(subscriber.numbers_until(1999).await, (0..2000).collect::<Vec<_>>());
    assert!(
        backend
            .connect(
                &Client {
                    number: 1,
                    identifier: "x".into(),
                    user: "x".into(),
                    vhost: "/".into(),
                    session: None,
                },
                std::sync::Arc::new(Recorder::default())
            )
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_up_does_not_need_the_broker() {
    let broker = Mosquitto::own_with(ROOMY, &[]).await;
    broker.stop().await;
    let backend = open(options(broker.url()));
    wait_for(&backend, false).await;
    broker.start().await;
    wait_for(&backend, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_stands_still_for_a_while_costs_time_and_nothing_else() {
    let broker = Mosquitto::own_with(ROOMY, &[]).await;
    let cable = Cable::to(broker.address()).await;
    let backend = reached(options(&by(&cable))).await;
    let (mut publisher, mut subscriber) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    let topic = name("t");
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let target = publisher.to(&topic);
    publisher.publish(target, 0..500);
    cable.stall();
    publisher.publish(target, 500..1000);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cable.heal().await;
    assert_eq!(publisher.confirmed().await, []);
    assert_eq!(subscriber.numbers_until(999).await, (0..1000).collect::<Vec<_>>());
}
