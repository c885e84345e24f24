//! A back end that is another broker: away, refusing, telling later, or taking its time.

use std::time::Duration;

use linkspan_contract::{BackendError, Outcome, Receipt, Refused};

use super::client::{House, connect, connect_with, packet, publish, publish5, subscribe, subscribe5, until};
use crate::doors::mqtt::Limits;
use crate::protocol::mqtt::{Packet, Version};

#[tokio::test]
async fn a_back_end_that_denies_is_not_authorized() {
    let house = House::new();
    house
        .broker
        .refuse_clients(Some(BackendError::Denied { name: "mosquitto".into(), why: "login failed".into() }));
    let mut client = house.client().await;
    client.send(&connect(4, "a")).await;
    client.expect(&[0x20, 2, 0, 5]).await;
    client.closed().await;
    let mut client = house.client().await;
    client.send(&connect(5, "a")).await;
    assert_eq!(client.packet().await[3], 0x87);
    client.closed().await;
}

#[tokio::test]
async fn a_back_end_that_does_not_answer_is_a_server_that_is_unavailable() {
    let house = House::with(Limits { connect_timeout: Duration::from_secs(5), ..Limits::default() });
    house.broker.stall(true);
    for (level, code) in [(4, 3), (5, 0x88)] {
        let mut client = house.client().await;
        client.send(&connect(level, "a")).await;
        until("the client is waited for", || house.broker.waiting() == 1).await;
        tokio::time::pause();
        assert_eq!(client.packet().await[3], code);
        client.closed().await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_receipt_that_comes_late_says_whether_the_message_was_at_fault() {
    let house = House::new();
    house.broker.hold_receipts();
    let upstream = |code| Refused::Upstream { code, text: "upstream".into() };
    let mut client = house.v5("a").await;
    for (first, (outcome, code)) in (0..).zip([
        (Outcome::Failed(Refused::Away("mosquitto".into())), 0x80),
        (Outcome::Failed(upstream(541)), 0x80),
        (Outcome::Failed(Refused::Full("spool".into())), 0x97),
        (Outcome::Refused(upstream(406)), 0x83),
        (Outcome::Refused(upstream(403)), 0x87),
    ]) {
        client.send(&publish5(0b0011_0010, "t", Some(7), &[], b"x")).await;
        client.ping().await;
        house.broker.receipts(&[Receipt { first, count: 1, outcome }]);
        let puback = client.packet().await;
        assert_eq!((puback[0], &puback[2..5]), (0x40, &[0, 7, code][..]), "PUBACK {first}");
    }
    drop(client);
    until("the client is gone", || !house.broker.closed().is_empty()).await;
    let mut old = house.v311("b").await;
    old.send(&publish(0b0011_0010, "t", Some(7), b"x")).await;
    old.ping().await;
    let outcome = Outcome::Failed(Refused::Away("mosquitto".into()));
    house.broker.receipts(&[Receipt { first: 0, count: 1, outcome }]);
    old.closed().await;
}

#[tokio::test]
async fn a_subscription_that_the_back_end_cannot_take_now_fails_by_itself() {
    let house = House::new();
    house.broker.refuse_subscriptions(Some(Refused::Away("mosquitto".into())));
    let mut client = house.v5("a").await;
    client.send(&subscribe5("t", 1, &[])).await;
    let look = |packet: &Packet<'_>| match packet {
        Packet::Suback(suback) => {
            assert_eq!(suback.reasons[0].as_u8(), 0x80);
            assert!(suback.reason_string.unwrap().contains("mosquitto"), "{suback:?}");
        }
        other => panic!("{other:?}"),
    };
    client.decoded(Version::V5, look).await;
    client.ping().await;
    let mut old = house.v311("b").await;
    old.send(&subscribe("t", 1)).await;
    old.expect(&[0x90, 3, 0, 1, 0x80]).await;
    old.ping().await;
}

#[tokio::test]
async fn a_subscription_that_takes_long_stops_no_ping_and_nothing_overtakes_it_mqtt_3_12_4_1() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&connect_with(4, 0b10, 1, &[], &[b"a"])).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    house.broker.stall(true);
    let ping = packet(0xC0, &[]);
    client.send(&[subscribe("t", 0), ping.clone()].concat()).await;
    client.expect(&[0xD0, 0]).await;
    client
        .send(&[publish(0x30, "t", None, b"1"), ping.clone(), publish(0x30, "t", None, b"2")].concat())
        .await;
    client.expect(&[0xD0, 0]).await;
    // Longer than its keep-alive allows, were it silent.
    for _ in 0..3 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_millis(900)).await;
        tokio::time::resume();
        client.ping().await;
    }
    assert!(house.broker.published().is_empty(), "what follows waits for the SUBACK");
    house.broker.stall(false);
    client.expect(&[0x90, 3, 0, 1, 0]).await;
    for text in [b"1", b"2"] {
        client.expect(&publish(0x30, "t", None, text)).await;
    }
    client.ping().await;
}

#[tokio::test]
async fn a_subscription_that_takes_long_is_given_up_when_the_client_goes_or_has_to_go() {
    let house = House::new();
    let mut gone = house.v5("gone").await;
    let mut first = house.v5("same").await;
    house.broker.stall(true);
    gone.send(&subscribe5("t", 0, &[])).await;
    gone.ping().await;
    drop(gone);
    until("a client that hung up is gone", || house.broker.closed().len() == 1).await;
    first.send(&subscribe5("t", 0, &[])).await;
    first.ping().await;
    let mut second = house.client().await;
    second.send(&connect(5, "same")).await;
    first.disconnected(0x8E).await;
    house.broker.stall(false);
    assert_eq!(second.packet().await[3], 0);
    house.broker.stall(true);
    second.send(&subscribe5("t", 0, &[])).await;
    second.ping().await;
    house.stopper.stop();
    second.disconnected(0x8B).await;
}

#[tokio::test]
async fn a_client_identifier_that_the_back_end_does_not_take_is_refused_as_one() {
    let house = House::new();
    let (name, why) = ("mosquitto".into(), "no such prefix".into());
    house.broker.refuse_clients(Some(BackendError::BadIdentifier { name, why }));
    let mut client = house.client().await;
    client.send(&connect_with(4, 0b10, 0, &[], &[b"a"])).await;
    client.expect(&[0x20, 2, 0, 2]).await;
    client.closed().await;
}

#[tokio::test]
async fn what_a_back_end_keeps_does_not_follow_what_is_newer_mqtt_4_6_0_6() {
    let house = House::new();
    house.broker.keep(&[("r/1", "old"), ("r/2", "kept")]);
    house.broker.silence(true);
    let mut client = house.v311("a").await;
    let mut publisher = house.v311("p").await;
    client.send(&subscribe("r/#", 0)).await;
    until("the back end is asked", || house.broker.asking() == 1).await;
    publisher.send(&publish(0x30, "r/1", None, b"new")).await;
    client.expect(&[0x90, 3, 0, 1, 0]).await;
    client.expect(&publish(0x30, "r/1", None, b"new")).await;
    house.broker.silence(false);
    client.expect(&publish(0x31, "r/2", None, b"kept")).await;
    client.ping().await;
}

#[tokio::test]
async fn what_a_back_end_keeps_and_has_to_wait_is_not_sent_when_something_newer_was() {
    let house = House::new();
    house.broker.keep(&[("r/1", "one"), ("r/2", "old"), ("r/3", "three")]);
    let mut client = house.client().await;
    client.send(&connect_with(5, 2, 0, &[0x21, 0, 1], &[b"a"])).await;
    client.packet().await;
    let mut publisher = house.v311("p").await;
    client.subscribe5("r/#", 1, &[]).await;
    client.expect(&publish5(0x33, "r/1", Some(1), &[], b"one")).await;
    publisher.send(&publish(0x30, "r/2", None, b"new")).await;
    client.expect(&publish5(0x30, "r/2", None, &[], b"new")).await;
    client.send(&[0x40, 2, 0, 1]).await;
    client.expect(&publish5(0x33, "r/3", Some(2), &[], b"three")).await;
    client.ping().await;
}
