//! What clients subscribe to, and the retained messages that come with it.

use linkspan_contract::Refused;

use super::client::{House, binary, packet, publish, publish5, subscribe, subscribe5};
use crate::doors::mqtt::Limits;
use crate::protocol::mqtt::{Packet, Version};

#[tokio::test]
async fn a_subscription_is_granted_the_qos_that_it_asks_for() {
    let house = House::new();
    let mut client = house.v311("a").await;
    let mut body = vec![0, 9];
    for (filter, qos) in [("a", 0), ("b", 1), ("c", 2)] {
        body.extend(binary(filter.as_bytes()));
        body.push(qos);
    }
    client.send(&packet(0x82, &body)).await;
    client.expect(&[0x90, 5, 0, 9, 0, 1, 2]).await;
    assert_eq!(
        house.broker.subscribed(),
        [
            "Filter(\"a\") OnDelivery false",
            "Filter(\"b\") AsPublished true",
            "Filter(\"c\") AsPublished true"
        ]
    );
}

#[tokio::test]
async fn shares_and_queues_are_asked_for_by_name_mqtt_4_8_2() {
    let house = House::new();
    let mut client = house.v5("a").await;
    client.subscribe5("$share/g/a/+", 1, &[]).await;
    client.subscribe5("$queue/jobs", 1, &[]).await;
    assert_eq!(
        house.broker.subscribed(),
        ["Group { group: \"g\", filter: \"a/+\" } AsPublished true", "Queue(\"jobs\") AsPublished true"]
    );
}

#[tokio::test]
async fn filters_that_select_nothing_are_refused_one_by_one() {
    let house = House::with(Limits { filter_levels: 3, subscriptions: 1, ..Limits::default() });
    let mut client = house.v5("a").await;
    let mut body = vec![0, 9, 0];
    for filter in ["$share/g", "$queue/", "a/b/c/d", "good", "one/too/many"] {
        body.extend(binary(filter.as_bytes()));
        body.push(0);
    }
    client.send(&packet(0x82, &body)).await;
    let look = |packet: &Packet<'_>| match packet {
        Packet::Suback(suback) => {
            let codes: Vec<u8> = suback.reasons.iter().map(|reason| reason.as_u8()).collect();
            (codes, suback.reason_string.unwrap().to_owned())
        }
        other => panic!("{other:?}"),
    };
    let (codes, text) = client.decoded(Version::V5, look).await;
    assert_eq!(codes, [0x8F, 0x8F, 0x8F, 0, 0x97]);
    assert!(text.contains("$share/<group>/<filter>") && text.contains("levels"), "{text}");
    let mut old = house.v311("b").await;
    old.send(&subscribe("$share/g", 0)).await;
    old.expect(&[0x90, 3, 0, 1, 0x80]).await;
}

#[tokio::test]
async fn what_the_back_end_refuses_is_told_with_its_words() {
    let house = House::new();
    let text = "subscribe to 'images/resize' to compete";
    house.broker.refuse_subscriptions(Some(Refused::FilterInvalid(text.into())));
    let mut five = house.v5("a").await;
    five.send(&subscribe5("images/resize/x", 1, &[])).await;
    let look = |packet: &Packet<'_>| match packet {
        Packet::Suback(suback) => {
            assert_eq!(suback.reasons[0].as_u8(), 0x8F);
            assert!(suback.reason_string.unwrap().contains(text));
        }
        other => panic!("{other:?}"),
    };
    five.decoded(Version::V5, look).await;
    house.broker.refuse_subscriptions(Some(Refused::ExclusiveUse("q".into())));
    five.send(&subscribe5("$queue/q", 1, &[])).await;
    assert_eq!(five.packet().await.last(), Some(&0x97));
    let mut old = house.v311("b").await;
    old.send(&subscribe("x", 1)).await;
    old.expect(&[0x90, 3, 0, 1, 0x80]).await;
}

#[tokio::test]
async fn invalid_filters_end_the_connection_mqtt_4_7_1_1() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.send(&subscribe5("a/#/b", 0, &[])).await;
    five.disconnected(0x8F).await;
    let mut five = house.v5("a").await;
    // No local on a shared subscription [MQTT-3.8.3-4].
    five.send(&subscribe5("$share/g/a", 0b101, &[])).await;
    five.disconnected(0x82).await;
    let mut old = house.v311("b").await;
    old.send(&subscribe("a+", 0)).await;
    old.closed().await;
}

#[tokio::test]
async fn an_ended_subscription_gives_nothing_more_mqtt_3_10_4_2() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t", 0, &[]).await;
    let mut body = vec![0, 2, 0];
    body.extend(binary(b"t"));
    body.extend(binary(b"never"));
    five.send(&packet(0xA2, &body)).await;
    five.expect(&[0xB0, 5, 0, 2, 0, 0, 0x11]).await;
    five.send(&publish5(0x30, "t", None, &[], b"x")).await;
    five.ping().await;
    assert_eq!(house.broker.unsubscribed(), 1);
    let mut old = house.v311("b").await;
    old.subscribe("t", 0).await;
    let mut body = vec![0, 2];
    body.extend(binary(b"t"));
    old.send(&packet(0xA2, &body)).await;
    old.expect(&[0xB0, 2, 0, 2]).await;
}

#[tokio::test]
async fn packets_behind_a_subscribe_are_dealt_with_after_it() {
    let house = House::new();
    let mut client = house.v311("a").await;
    let mut bytes = publish(0x30, "t", None, b"before");
    bytes.extend(subscribe("t", 0));
    bytes.extend(publish(0x30, "t", None, b"behind"));
    bytes.extend(subscribe("u", 0));
    bytes.extend(publish(0x30, "u", None, b"last"));
    bytes.extend([0xC0]);
    client.send(&bytes).await;
    client.expect(&[0x90, 3, 0, 1, 0]).await;
    client.expect(&publish(0x30, "t", None, b"behind")).await;
    client.expect(&[0x90, 3, 0, 1, 0]).await;
    client.expect(&publish(0x30, "u", None, b"last")).await;
    client.send(&[0]).await;
    client.expect(&[0xD0, 0]).await;
}

#[tokio::test]
async fn retained_messages_follow_the_suback_mqtt_3_3_1_9() {
    let house = House::new();
    let mut publisher = house.v311("p").await;
    let mut bytes = Vec::new();
    for (topic, payload) in [("a/1", "one"), ("a/2", "two"), ("b", "other"), ("a/3", "gone"), ("a/3", "")] {
        bytes.extend(publish(0x31, topic, None, payload.as_bytes()));
    }
    bytes.extend(publish(0x33, "a/4", Some(1), b"sure"));
    publisher.send(&bytes).await;
    publisher.expect(&[0x40, 2, 0, 1]).await;
    let mut client = house.v311("a").await;
    client.subscribe("a/#", 1).await;
    client.expect(&publish(0x31, "a/1", None, b"one")).await;
    client.expect(&publish(0x31, "a/2", None, b"two")).await;
    client.expect(&publish(0x33, "a/4", Some(1), b"sure")).await;
    client.send(&[0x40, 2, 0, 1]).await;
    client.ping().await;
    assert!(house.broker.settled().is_empty(), "no back end waits for a retained message");
    // QoS 0 caps it; a message that is published now has no RETAIN flag [MQTT-3.3.1-12].
    let mut low = house.v311("low").await;
    low.subscribe("a/4", 0).await;
    low.expect(&publish(0x31, "a/4", None, b"sure")).await;
    publisher.send(&publish(0x31, "a/4", None, b"new")).await;
    low.expect(&publish(0x30, "a/4", None, b"new")).await;
}

#[tokio::test]
async fn retain_handling_says_what_comes_with_a_subscription_mqtt_3_3_1_10() {
    let house = House::new();
    let mut publisher = house.v5("p").await;
    publisher.send(&publish5(0x31, "t", None, &[], b"kept")).await;
    publisher.ping().await;
    let retained = publish5(0x31, "t", None, &[], b"kept");
    let mut five = house.v5("a").await;
    five.subscribe5("t", 0x20, &[]).await;
    five.ping().await;
    five.subscribe5("t", 0x10, &[]).await;
    five.ping().await;
    five.subscribe5("t", 0x00, &[]).await;
    five.expect(&retained).await;
    let mut new = house.v5("b").await;
    new.subscribe5("t", 0x10, &[]).await;
    new.expect(&retained).await;
    let mut shared = house.v5("c").await;
    shared.subscribe5("$share/g/t", 0, &[]).await;
    shared.ping().await;
}

#[tokio::test]
async fn retained_messages_wait_for_the_receive_maximum_mqtt_3_3_4_9() {
    let house = House::new();
    let mut publisher = house.v311("p").await;
    for id in 1..=4 {
        publisher.send(&publish(0x33, &format!("r/{id}"), Some(id), b"old")).await;
        publisher.packet().await;
    }
    let mut five = house.client().await;
    five.send(&super::client::connect_with(5, 2, 0, &[0x21, 0, 2], &[b"a"])).await;
    five.packet().await;
    five.subscribe5("r/#", 0b1_0001, &[]).await;
    five.expect(&publish5(0x33, "r/1", Some(1), &[], b"old")).await;
    five.expect(&publish5(0x33, "r/2", Some(2), &[], b"old")).await;
    five.ping().await;
    // A subscription that is replaced without asking for them again still has the rest to send.
    five.subscribe5("r/#", 0b10_0101, &[]).await;
    five.ping().await;
    // One that has to wait is sent as it is when its turn comes.
    publisher.send(&publish(0x31, "r/3", None, b"")).await;
    five.expect(&publish5(0x30, "r/3", None, &[], b"")).await;
    five.send(&[0x40, 2, 0, 1]).await;
    five.expect(&publish5(0x33, "r/4", Some(3), &[], b"old")).await;
}

#[tokio::test]
async fn subscribing_again_replaces_mqtt_3_8_4_3() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t", 0, &[0x0B, 7]).await;
    // The same at the same QoS: only what is said along changes.
    five.subscribe5("t", 0, &[0x0B, 8]).await;
    assert_eq!(house.broker.subscribed().len(), 1);
    let mut publisher = house.v5("p").await;
    publisher.send(&publish5(0x30, "t", None, &[], b"x")).await;
    five.expect(&publish5(0x30, "t", None, &[0x0B, 8], b"x")).await;
    // Another QoS: a new one takes its place, at the back end too.
    five.subscribe5("t", 1, &[]).await;
    assert_eq!((house.broker.subscribed().len(), house.broker.unsubscribed()), (2, 0));
    publisher.send(&publish5(0x32, "t", Some(1), &[], b"y")).await;
    five.expect(&publish5(0x32, "t", Some(1), &[], b"y")).await;
    five.ping().await;
}
