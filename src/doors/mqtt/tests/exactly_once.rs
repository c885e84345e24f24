//! Deliveries at QoS 2: PUBLISH, PUBREC, PUBREL, PUBCOMP (MQTT 5 §4.3.3).

use linkspan_contract::Settlement;

use super::client::{House, Wire, connect_with, publish, publish5, until};

async fn published(house: &House, messages: &[(u8, &[u8])]) {
    let mut publisher = house.v311("publisher").await;
    for (id, (first, payload)) in (1..).zip(messages) {
        let id = (*first & 0b0110 != 0).then_some(id);
        publisher.send(&publish(*first, "t", id, payload)).await;
    }
    publisher.send(&[0xC0, 0]).await;
    let answered = async { while publisher.packet().await != [0xD0, 0] {} };
    answered.await;
}

#[tokio::test]
async fn a_message_is_delivered_at_the_lower_of_both_qos_mqtt_3_8_4_8() {
    let house = House::new();
    let (mut once, mut least, mut most) =
        (house.v311("two").await, house.v311("one").await, house.v311("zero").await);
    once.subscribe("t", 2).await;
    least.subscribe("t", 1).await;
    most.subscribe("t", 0).await;
    published(&house, &[(0x34, b"2"), (0x32, b"1"), (0x30, b"0"), (0x34, b"2")]).await;
    once.expect(&publish(0x34, "t", Some(1), b"2")).await;
    once.expect(&publish(0x32, "t", Some(2), b"1")).await;
    once.expect(&publish(0x30, "t", None, b"0")).await;
    once.expect(&publish(0x34, "t", Some(3), b"2")).await;
    least.expect(&publish(0x32, "t", Some(1), b"2")).await;
    for payload in [b"2", b"1", b"0", b"2"] {
        most.expect(&publish(0x30, "t", None, payload)).await;
    }
}

/// The same with packets that are encoded anew.
#[tokio::test]
async fn across_versions_the_qos_is_the_same() {
    let house = House::new();
    let mut five = house.v5("five").await;
    five.subscribe5("t", 2, &[]).await;
    published(&house, &[(0x34, b"2"), (0x32, b"1"), (0x30, b"0")]).await;
    five.expect(&publish5(0x34, "t", Some(1), &[], b"2")).await;
    five.expect(&publish5(0x32, "t", Some(2), &[], b"1")).await;
    five.expect(&publish5(0x30, "t", None, &[], b"0")).await;
}

async fn given_one(house: &House, name: &str) -> Wire {
    let mut client = house.v5(name).await;
    client.subscribe5("t", 2, &[]).await;
    published(house, &[(0x34, b"x")]).await;
    client.expect(&publish5(0x34, "t", Some(1), &[], b"x")).await;
    client
}

#[tokio::test]
async fn pubrec_settles_and_is_answered_by_pubrel_mqtt_4_3_3_4() {
    let house = House::new();
    let mut client = given_one(&house, "a").await;
    client.ping().await;
    assert!(house.broker.settled().is_empty(), "[MQTT-4.3.3-3]");
    client.send(&[0x50, 2, 0, 1]).await;
    client.expect(&[0x62, 2, 0, 1]).await;
    let settled = house.broker.settled();
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].count, &settled[0].outcome), (1, &Settlement::Accept));
    client.send(&[0x50, 2, 0, 1]).await;
    client.expect(&[0x62, 2, 0, 1]).await;
    client.send(&[0x70, 2, 0, 1, 0x70, 2, 0, 1]).await;
    client.ping().await;
    assert_eq!(house.broker.settled().len(), 1, "what is repeated settles nothing");
}

#[tokio::test]
async fn a_pubrec_that_fails_is_the_end_and_gets_no_pubrel() {
    let house = House::new();
    let mut client = given_one(&house, "a").await;
    client.send(&[0x50, 4, 0, 1, 0x97, 0]).await;
    client.ping().await;
    let settled = house.broker.settled();
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].outcome, Settlement::Reject(None));
    // The identifier stands for nothing any more (§3.6.2.1).
    client.send(&[0x50, 2, 0, 1]).await;
    client.expect(&[0x62, 3, 0, 1, 0x92]).await;
}

#[tokio::test]
async fn a_pubrec_for_nothing_is_answered_all_the_same() {
    let house = House::new();
    let mut five = house.v5("five").await;
    five.send(&[0x50, 2, 0, 9]).await;
    five.expect(&[0x62, 3, 0, 9, 0x92]).await;
    five.send(&[0x70, 2, 0, 9]).await;
    five.ping().await;
    let mut old = house.v311("old").await;
    old.send(&[0x50, 2, 0, 9]).await;
    old.expect(&[0x62, 2, 0, 9]).await;
}

#[tokio::test]
async fn the_window_is_taken_until_pubcomp_or_a_pubrec_that_fails_mqtt_4_9_0_2() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&connect_with(5, 0b10, 0, &[0x21, 0, 1], &[b"narrow"])).await;
    client.packet().await;
    client.subscribe5("t", 2, &[]).await;
    published(&house, &[(0x34, b"1"), (0x34, b"2"), (0x34, b"3")]).await;
    client.expect(&publish5(0x34, "t", Some(1), &[], b"1")).await;
    client.send(&[0x50, 2, 0, 1]).await;
    client.expect(&[0x62, 2, 0, 1]).await;
    client.ping().await;
    client.send(&[0x70, 2, 0, 1]).await;
    client.expect(&publish5(0x34, "t", Some(2), &[], b"2")).await;
    client.send(&[0x50, 3, 0, 2, 0x80]).await;
    client.expect(&publish5(0x34, "t", Some(3), &[], b"3")).await;
}

#[tokio::test]
async fn an_acknowledgement_of_another_qos_is_a_protocol_error() {
    let house = House::new();
    for wrong in [[0x40, 2, 0, 1], [0x70, 2, 0, 1]] {
        let mut client = given_one(&house, "a").await;
        client.send(&wrong).await;
        client.disconnected(0x82).await;
        until("it is gone", || house.broker.closed().iter().any(|name| &**name == "a")).await;
    }
    assert!(house.broker.settled().is_empty());
}

#[tokio::test]
async fn retained_messages_come_at_qos_2_and_are_nobodys_to_settle() {
    let house = House::new();
    published(&house, &[(0x35, b"kept")]).await;
    let mut client = house.v5("late").await;
    client.subscribe5("t", 2, &[]).await;
    client.expect(&publish5(0x35, "t", Some(1), &[], b"kept")).await;
    client.send(&[0x50, 2, 0, 1]).await;
    client.expect(&[0x62, 2, 0, 1]).await;
    client.send(&[0x70, 2, 0, 1]).await;
    client.ping().await;
    assert!(house.broker.settled().is_empty());
}
