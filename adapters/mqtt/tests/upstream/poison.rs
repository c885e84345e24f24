//! Messages that a broker does not take.

use linkspan_contract::conformance::letters::Letter;
use linkspan_contract::{Outcome, Refused, Settle};
use linkspan_integration_tests::Mosquitto;
use linkspan_mqtt::{MqttOptions, VersionChoice};

use crate::stage::{Peer, name, options, reached};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_larger_than_the_broker_takes_is_refused_and_disturbs_nobody() {
    let broker = Mosquitto::own_with("max_packet_size 1000", &[]).await;
    let backend = reached(options(broker.url())).await;
    let topic = name("t");
    let (mut publisher, mut subscriber) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let target = publisher.to(&topic);
    let letters = [Peer::sized(target, 0, 10), Peer::sized(target, 1, 5000), Peer::sized(target, 2, 10)];
    publisher.send(letters.into_iter().collect());
    let told = publisher.confirmed().await;
    let [(1, Outcome::Refused(Refused::TooLarge(why)))] = &told[..] else { panic!("{told:?}") };
    assert!(why.contains("takes 1000"), "{why}");
    assert_eq!(subscriber.numbers_until(2).await, [0, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_broker_that_hangs_up_on_a_message_gets_it_no_more_and_the_rest_goes_on() {
    let broker = Mosquitto::own_with("max_packet_size 1000", &[]).await;
    let back_off = (std::time::Duration::from_millis(10), std::time::Duration::from_millis(50));
    let options = MqttOptions { version: VersionChoice::V311, back_off, ..options(broker.url()) };
    let backend = reached(options).await;
    let topic = name("t");
    let (mut publisher, mut subscriber) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let target = publisher.to(&topic);
    let letters = (0..20).map(|number| Peer::sized(target, number, if number == 7 { 5000 } else { 10 }));
    publisher.send(letters.collect());
    let told = publisher.confirmed().await;
    assert!(matches!(&told[..], [(7, Outcome::Refused(_))]), "{told:?}");
    let numbers = crate::stage::without_repetitions(&subscriber.numbers_until(19).await);
    assert_eq!(numbers, (0..20).filter(|number| *number != 7).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_access_list_forbids_is_refused_with_the_reason() {
    let broker = Mosquitto::own_with("acl_file acl", &[("acl", "topic readwrite free/#\n")]).await;
    let backend = reached(options(broker.url())).await;
    let mut peer = Peer::of(&*backend).await;
    let (free, forbidden) = (peer.to("free/1"), peer.to("forbidden/1"));
    peer.watch("free/#", 1, Settle::AsPublished).await;
    let letters = [Letter::numbered(free, 0), Letter::numbered(forbidden, 1), Letter::numbered(free, 2)];
    peer.send(letters.map(Letter::confirmed).into_iter().collect());
    let told = peer.confirmed().await;
    let [(1, Outcome::Refused(Refused::AccessRefused(why)))] = &told[..] else { panic!("{told:?}") };
    assert!(why.contains("not authorized"), "{why}");
    assert_eq!(peer.numbers_until(2).await, [0, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routing_key_that_is_no_topic_is_refused_and_what_is_behind_it_is_not() {
    let broker = Mosquitto::shared().await;
    let backend = reached(options(broker.url())).await;
    let mut peer = Peer::of(&*backend).await;
    let good = name("t");
    peer.watch(&good, 1, Settle::AsPublished).await;
    let target = peer.to(&good);
    let mut letters = vec![Letter::numbered(target, 0).confirmed()];
    for (number, topic) in (1..).zip(["", "a/+", "#", "a\0"]) {
        let target = peer.to(topic);
        letters.push(Letter::numbered(target, number).confirmed());
    }
    letters.push(Letter::numbered(target, 5).confirmed());
    peer.send(letters.into_iter().collect());
    let told = peer.confirmed().await;
    let numbers: Vec<u64> = told.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(told.iter().all(|(_, it)| matches!(it, Outcome::Refused(Refused::Precondition(_)))), "{told:?}");
    assert_eq!(peer.numbers_until(5).await, [0, 5]);
}
