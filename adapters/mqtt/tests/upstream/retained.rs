//! What the broker keeps.

use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::neutral::Draft;
use linkspan_contract::{Body, Flags, Message, Properties, Settle};
use linkspan_integration_tests::Mosquitto;
use linkspan_mqtt::{MqttOptions, VersionChoice};

use crate::stage::{Peer, name, options, reached};

async fn kept_messages_are_for_new_subscribers_alone(options: MqttOptions) {
    let backend = reached(options).await;
    let root = name("r");
    let (mut publisher, mut early) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    early.watch(&format!("{root}/#"), 1, Settle::AsPublished).await;
    for number in 0..50 {
        let target = publisher.to(&format!("{root}/{number}"));
        let letter = Letter::numbered(target, number).confirmed().flagged(Flags::RETAIN);
        publisher.send([letter].into_iter().collect());
    }
    publisher.confirmed().await;
    assert_eq!(early.numbers_until(49).await.len(), 50);
    let mut late = Peer::of(&*backend).await;
    late.watch(&format!("{root}/+"), 1, Settle::AsPublished).await;
    let kept = late.lane.retained(&format!("{root}/+")).await.unwrap().expect("the broker keeps them");
    let mut numbers: Vec<u32> = kept
        .iter()
        .map(|it| String::from_utf8_lossy(it.message.payload().unwrap()).parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert!(kept.iter().all(|it| it.message.message().flags.has(Flags::RETAIN | Flags::DURABLE)));
    let target = publisher.to(&format!("{root}/7"));
    let mut empty = Letter::numbered(target, 0).confirmed().flagged(Flags::RETAIN);
    empty.payload.clear();
    publisher.send([empty].into_iter().collect());
    publisher.confirmed().await;
    assert_eq!(late.lane.retained(&format!("{root}/#")).await.unwrap().expect("it keeps them").len(), 49);
    let none = late.lane.retained(&format!("{root}/none")).await.unwrap().expect("it keeps them");
    assert!(none.is_empty());
    // Nobody was given them a second time, and they were told to nobody else.
    let target = publisher.to(&format!("{root}/end"));
    publisher.send(Letters::confirmed(target, [999]));
    let early: Vec<_> = early.numbers_until(999).await;
    assert_eq!(early.len(), 2, "the removal and the end: {early:?}");
    let late = late.numbers_until(999).await;
    assert_eq!(late.len(), 2, "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_subscriber_is_told_what_is_kept_and_nobody_else() {
    let broker = Mosquitto::shared().await;
    kept_messages_are_for_new_subscribers_alone(options(broker.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_over_mqtt_3_1_1() {
    let broker = Mosquitto::shared().await;
    let options = MqttOptions { version: VersionChoice::V311, ..options(broker.url()) };
    kept_messages_are_for_new_subscribers_alone(options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_marker_is_not_allowed_silence_is_the_end() {
    let broker = Mosquitto::own_with("acl_file acl", &[("acl", "topic readwrite r/#\n")]).await;
    let backend = reached(options(broker.url())).await;
    let mut peer = Peer::of(&*backend).await;
    let target = peer.to("r/1");
    peer.send([Letter::numbered(target, 1).confirmed().flagged(Flags::RETAIN)].into_iter().collect());
    peer.confirmed().await;
    let kept = peer.lane.retained("r/#").await.unwrap().expect("the broker keeps them");
    assert_eq!(kept.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_goes_up_whole_and_comes_back() {
    let broker = Mosquitto::shared().await;
    let backend = reached(options(broker.url())).await;
    let topic = name("t");
    let mut peer = Peer::of(&*backend).await;
    peer.watch(&topic, 1, Settle::AsPublished).await;
    let target = peer.to(&topic);
    let small = peer.to(&name("small"));
    peer.send([Peer::sized(small, 0, 10)].into_iter().collect());
    let flags = Flags::RETAIN | Flags::RECEIPT | Flags::DURABLE;
    let large = Draft {
        exchange: None,
        topic: topic.as_bytes(),
        properties: &Properties::default(),
        payload: Body::Shared(vec![7; 3_000_000].into()),
        head: Message { target, flags, ..Message::default() },
    };
    peer.send_batch(&large.build().batch());
    peer.send([Letter::numbered(target, 2).confirmed()].into_iter().collect());
    let told = peer.confirmed().await;
    assert!(matches!(&told[..], [(0, linkspan_contract::Outcome::Unroutable)]), "{told:?}");
    let kept = peer.lane.retained(&topic).await.unwrap().expect("the broker keeps them");
    assert_eq!(kept[0].message.payload().map(<[u8]>::len), Some(3_000_000));
    let given = peer.recorder.expect(2, crate::stage::PATIENCE).await;
    assert_eq!(given[1].payload, "2", "it comes behind the large one");
}
