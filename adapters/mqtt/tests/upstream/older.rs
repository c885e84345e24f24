//! Brokers that speak MQTT 3.1.1 alone.

use std::sync::{Arc, Mutex};

use linkspan_contract::{Refused, Settle, Source, Subscribe};
use linkspan_integration_tests::{Cable, Mosquitto};
use linkspan_mqtt::{MqttOptions, Version, VersionChoice, probe};

use crate::scripted::Scripted;
use crate::stage::{Peer, by, key, name, open, options, reached, without_repetitions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_3_1_1_messages_come_and_a_broken_link_loses_none() {
    let broker = Mosquitto::own_with("max_queued_messages 0", &[]).await;
    let cable = Cable::to(broker.address()).await;
    let options = MqttOptions { version: VersionChoice::V311, ..options(&by(&cable)) };
    let backend = reached(options).await;
    let (mut publisher, mut subscriber) = (Peer::of(&*backend).await, Peer::of(&*backend).await);
    let topic = name("t");
    subscriber.watch(&topic, 1, Settle::AsPublished).await;
    let target = publisher.to(&topic);
    for round in 0..10 {
        publisher.publish(target, round * 100..round * 100 + 100);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        cable.reset();
    }
    assert_eq!(publisher.confirmed().await, []);
    let numbers = subscriber.numbers_until(999).await;
    assert_eq!(without_repetitions(&numbers), (0..1000).collect::<Vec<_>>());
    let how = Subscribe { no_local: true, ..Subscribe::new(Settle::OnDelivery) };
    let refused = subscriber.lane.subscribe(&Source::Filter(&topic), key(2), &how, None).await;
    assert!(matches!(refused, Err(Refused::NotImplemented(_))), "what cannot be had is refused: {refused:?}");
}

#[tokio::test]
async fn a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1() {
    let broker = Scripted::new().await;
    let mut wanted = options(&broker.url());
    wanted.publishers = 1;
    let backend = open(wanted);
    let versions = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&versions);
    tokio::spawn(async move {
        let mut lines = Vec::new();
        loop {
            let (mut line, connect) = broker.accept().await;
            seen.lock().unwrap().push(connect.version());
            match connect.version() {
                // What a 3.1.1 broker says to a version that it does not know (MQTT 3.1.1 §3.2.2.3).
                5 => line.write(&[0x20, 2, 0, 1]).await,
                _ => {
                    line.write(&[0x20, 2, 0, 0]).await;
                    lines.push(line);
                }
            }
        }
    });
    crate::stage::wait_for(&backend, true).await;
    assert_eq!(versions.lock().unwrap().first(), Some(&5), "the newest version is tried first");
    assert!(versions.lock().unwrap().contains(&4));
}

#[tokio::test]
async fn probing_tells_the_version() {
    let broker = Mosquitto::shared().await;
    let newest = probe(&options(broker.url())).await.unwrap();
    assert_eq!(newest.version, Version::V5);
    assert!(newest.to_string().contains("MQTT 5, "), "{newest}");
    let older = MqttOptions { version: VersionChoice::V311, ..options(broker.url()) };
    assert_eq!(probe(&older).await.unwrap().version, Version::V311);
}
