//! Sessions that outlive their sockets (MQTT 5 §4.1, §4.4).

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Ended, Outcome, Receipt};

use super::client::{House, Wire, binary, connect_with, publish, publish5, until};
use crate::doors::mqtt::Limits;
use crate::identity::{Account, PasswordText, Users, hash_password};

/// Session expiry interval: an hour.
const HOUR: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];

/// What a CONNACK says.
struct Welcome {
    present: bool,
    packet: Vec<u8>,
}

async fn come(house: &House, connect: &[u8]) -> (Wire, Welcome) {
    let mut client = house.client().await;
    client.send(connect).await;
    let packet = client.packet().await;
    assert_eq!((packet[0], packet[3]), (0x20, 0), "the client was refused: {packet:02x?}");
    (client, Welcome { present: packet[2] == 1, packet })
}

/// A client of 5.0 without clean start.
async fn back(house: &House, list: &[u8]) -> (Wire, Welcome) {
    come(house, &connect_with(5, 0, 0, list, &[b"device"])).await
}

/// A new session of 5.0 for an hour, subscribed to `t` at `qos`.
async fn begun(house: &House, qos: u8) -> Wire {
    let (mut client, welcome) = back(house, &HOUR).await;
    assert!(!welcome.present, "[MQTT-3.2.2-2]");
    client.subscribe5("t", qos, &[]).await;
    client
}

/// The client is gone without a word, and its session rests.
async fn lost(house: &House, client: Wire) {
    drop(client);
    house.rests().await;
}

impl House {
    async fn rests(&self) {
        until("the connection has ended", || self.broker.detached() > 0).await;
        self.broker.forget_detached();
    }
}

async fn published(house: &House, messages: &[(u8, &[u8])]) {
    let mut publisher = house.v5("publisher").await;
    for (id, (first, payload)) in (1..).zip(messages) {
        let id = (*first & 0b0110 != 0).then_some(id);
        publisher.send(&publish5(*first, "t", id, &[], payload)).await;
    }
    publisher.send(&[0xC0, 0]).await;
    while publisher.packet().await != [0xD0, 0] {}
}

#[tokio::test]
async fn a_session_of_3_1_1_without_clean_session_is_found_again_mqtt_3_2_2_2() {
    let house = House::new();
    let connect = connect_with(4, 0, 0, &[], &[b"old"]);
    let (mut client, _) = come(&house, &connect).await;
    client.subscribe("t", 1).await;
    lost(&house, client).await;
    published(&house, &[(0x32, b"1"), (0x30, b"dropped"), (0x32, b"2")]).await;
    let (mut client, welcome) = come(&house, &connect).await;
    assert_eq!(welcome.packet, [0x20, 2, 1, 0]);
    client.expect(&publish(0x32, "t", Some(1), b"1")).await;
    client.expect(&publish(0x32, "t", Some(2), b"2")).await;
    client.send(&[0x40, 2, 0, 1, 0x40, 2, 0, 2, 0xE0, 0]).await;
    client.closed().await;
    house.rests().await;
    let (mut client, welcome) = come(&house, &connect_with(4, 0b10, 0, &[], &[b"old"])).await;
    assert!(!welcome.present, "[MQTT-3.1.2-6]");
    published(&house, &[(0x32, b"3")]).await;
    client.ping().await;
    assert_eq!(house.broker.subscriptions(), 0);
}

#[tokio::test]
async fn what_is_unacknowledged_is_sent_again_in_its_order_mqtt_4_4_0_1() {
    let house = House::new();
    let mut client = begun(&house, 2).await;
    published(&house, &[(0x32, b"1"), (0x34, b"2"), (0x34, b"3"), (0x32, b"4"), (0x34, b"5")]).await;
    for (id, (first, payload)) in
        (1..).zip([(0x32, b"1"), (0x34, b"2"), (0x34, b"3"), (0x32, b"4"), (0x34, b"5")])
    {
        client.expect(&publish5(first, "t", Some(id), &[], payload)).await;
    }
    client.send(&[0x40, 2, 0, 4]).await;
    client.send(&[0x50, 2, 0, 3]).await;
    client.expect(&[0x62, 2, 0, 3]).await;
    client.ping().await;
    lost(&house, client).await;
    published(&house, &[(0x32, b"6")]).await;
    let (mut client, welcome) = back(&house, &HOUR).await;
    assert!(welcome.present, "[MQTT-3.2.2-3]");
    client.expect(&publish5(0x3A, "t", Some(1), &[], b"1")).await;
    client.expect(&publish5(0x3C, "t", Some(2), &[], b"2")).await;
    client.expect(&[0x62, 2, 0, 3]).await;
    client.expect(&publish5(0x3C, "t", Some(5), &[], b"5")).await;
    client.expect(&publish5(0x32, "t", Some(6), &[], b"6")).await;
    client.send(&[0x70, 2, 0, 3, 0x40, 2, 0, 1, 0x50, 2, 0, 2]).await;
    client.expect(&[0x62, 2, 0, 2]).await;
    published(&house, &[(0x32, b"7")]).await;
    client.expect(&publish5(0x32, "t", Some(7), &[], b"7")).await;
}

#[tokio::test]
async fn another_receive_maximum_counts_what_is_on_its_way_mqtt_3_3_4_9() {
    let house = House::new();
    let mut client = begun(&house, 1).await;
    published(&house, &[(0x32, b"1"), (0x32, b"2"), (0x32, b"3")]).await;
    for (id, payload) in [(1, b"1"), (2, b"2"), (3, b"3")] {
        client.expect(&publish5(0x32, "t", Some(id), &[], payload)).await;
    }
    lost(&house, client).await;
    published(&house, &[(0x32, b"4"), (0x32, b"5")]).await;
    let (mut client, _) = back(&house, &[&HOUR[..], &[0x21, 0, 2]].concat()).await;
    for (id, payload) in [(1, b"1"), (2, b"2"), (3, b"3")] {
        client.expect(&publish5(0x3A, "t", Some(id), &[], payload)).await;
    }
    client.send(&[0x40, 2, 0, 1]).await;
    client.ping().await;
    client.send(&[0x40, 2, 0, 2]).await;
    client.expect(&publish5(0x32, "t", Some(4), &[], b"4")).await;
    client.ping().await;
    client.send(&[0x40, 2, 0, 3]).await;
    client.expect(&publish5(0x32, "t", Some(5), &[], b"5")).await;
}

#[tokio::test]
async fn a_second_connection_goes_on_with_the_session_of_the_first_mqtt_3_1_4_3() {
    let house = House::new();
    let mut first = begun(&house, 1).await;
    published(&house, &[(0x32, b"1")]).await;
    first.expect(&publish5(0x32, "t", Some(1), &[], b"1")).await;
    let (mut second, welcome) = back(&house, &HOUR).await;
    assert!(welcome.present);
    first.disconnected(0x8E).await;
    second.expect(&publish5(0x3A, "t", Some(1), &[], b"1")).await;
    second.send(&[0x40, 2, 0, 1]).await;
    second.ping().await;
    assert_eq!((house.broker.settled().len(), house.broker.clients().len()), (1, 2), "one lane");
    assert!(house.broker.closed().iter().all(|name| &**name == "publisher"));
    let (mut third, welcome) = come(&house, &connect_with(5, 0b10, 0, &HOUR, &[b"device"])).await;
    assert!(!welcome.present, "[MQTT-3.1.2-4]");
    second.disconnected(0x8E).await;
    third.ping().await;
    assert_eq!(house.broker.subscriptions(), 0);
}

#[tokio::test]
async fn who_comes_in_numbers_is_served_in_turn_and_the_last_has_the_session() {
    let house = Arc::new(House::new());
    lost(&house, begun(&house, 1).await).await;
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let house = Arc::clone(&house);
        coming.spawn(async move { back(&house, &HOUR).await });
    }
    let all = coming.join_all().await;
    assert!(all.iter().all(|(_, welcome)| welcome.present), "a session was lost between two connections");
    assert_eq!(house.broker.subscriptions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_time_is_over_mqtt_3_1_2_23() {
    let house = House::new();
    lost(&house, begun(&house, 1).await).await;
    tokio::time::sleep(Duration::from_secs(3599)).await;
    let (client, welcome) = back(&house, &HOUR).await;
    assert!(welcome.present);
    lost(&house, client).await;
    tokio::time::sleep(Duration::from_secs(3601)).await;
    until("the session has expired", || house.broker.subscriptions() == 0).await;
    let (_, welcome) = back(&house, &HOUR).await;
    assert!(!welcome.present);
}

#[tokio::test]
async fn a_session_without_time_ends_with_its_connection() {
    let house = House::new();
    let (mut client, _) = back(&house, &[]).await;
    client.subscribe5("t", 1, &[]).await;
    drop(client);
    until("it is gone", || house.broker.closed().len() == 1).await;
    assert!(!back(&house, &[]).await.1.present);
}

#[tokio::test(start_paused = true)]
async fn disconnect_says_for_how_long_the_session_is_kept() {
    let house = House::new();
    let mut client = begun(&house, 1).await;
    // Session expiry interval 60 (§3.14.2.2.2).
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 60]).await;
    client.closed().await;
    house.rests().await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    until("the session has expired", || house.broker.subscriptions() == 0).await;
    let mut client = begun(&house, 1).await;
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    client.closed().await;
    until("it is gone", || house.broker.subscriptions() == 0).await;
    assert!(!back(&house, &HOUR).await.1.present);
}

#[tokio::test]
async fn the_longest_time_is_told_mqtt_3_2_2_21() {
    let house = House::with(Limits { session_expiry: 60, ..Limits::default() });
    let (_, welcome) = back(&house, &HOUR).await;
    assert!(welcome.packet.windows(5).any(|list| list == [0x11, 0, 0, 0, 60]), "{:02x?}", welcome.packet);
    let (_, welcome) = come(&house, &connect_with(5, 0, 0, &[0x11, 0, 0, 0, 9], &[b"short"])).await;
    let told = welcome.packet.windows(4).any(|list| list == [0x11, 0, 0, 0]);
    assert!(!told, "it is what the client asked for: {:02x?}", welcome.packet);
}

#[tokio::test]
async fn there_are_only_as_many_sessions_as_may_be() {
    let house = House::with(Limits { sessions: 1, ..Limits::default() });
    lost(&house, begun(&house, 1).await).await;
    let mut other = house.client().await;
    other.send(&connect_with(5, 0, 0, &HOUR, &[b"other"])).await;
    let refused = other.packet().await;
    assert_eq!((refused[0], refused[3]), (0x20, 0x97));
    other.closed().await;
    house.v5("clean").await.ping().await;
    assert!(back(&house, &HOUR).await.1.present, "who has one has it");
}

/// A CONNECT of `device` with the will `will` to topic `w`, whose delay is so many seconds.
fn with_will(list: &[u8], delay: u8) -> Vec<u8> {
    let will = [&[5, 0x18, 0, 0, 0, delay][..], &binary(b"w"), &binary(b"will")].concat();
    let mut connect = connect_with(5, 0b100, 0, list, &[b"device"]);
    connect.extend(&will);
    connect[1] += u8::try_from(will.len()).unwrap();
    connect
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_for_its_delay_or_the_sessions_end_mqtt_3_1_3_9() {
    let house = House::new();
    let minute = [0x11, 0, 0, 0, 60];
    for (list, delay, waits) in [(&HOUR, 30, 30), (&minute, 200, 60), (&HOUR, 0, 0)] {
        let (client, _) = come(&house, &with_will(list, delay)).await;
        lost(&house, client).await;
        if waits > 0 {
            tokio::time::sleep(Duration::from_secs(waits - 1)).await;
            assert!(house.broker.payloads().is_empty(), "after {waits} s less one");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        until("the will is published", || house.broker.payloads() == ["will"]).await;
        house.broker.forget_published();
        let (mut client, _) = come(&house, &connect_with(5, 0b10, 0, &[], &[b"device"])).await;
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_back_in_time_has_left_nothing_behind() {
    let house = House::new();
    let (client, _) = come(&house, &with_will(&HOUR, 30)).await;
    lost(&house, client).await;
    let (client, welcome) = back(&house, &HOUR).await;
    assert!(welcome.present);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(house.broker.payloads().is_empty());
    lost(&house, client).await;
    // The session's end is the will's time too.
    let (client, _) = come(&house, &with_will(&HOUR, 30)).await;
    lost(&house, client).await;
    come(&house, &connect_with(5, 0b10, 0, &[], &[b"device"])).await;
    assert_eq!(house.broker.payloads(), ["will"]);
}

#[tokio::test]
async fn a_goodbye_leaves_no_will_and_keeps_the_session() {
    let house = House::new();
    let (mut client, _) = come(&house, &with_will(&HOUR, 30)).await;
    client.send(&[0xE0, 0]).await;
    client.closed().await;
    house.rests().await;
    assert!(come(&house, &with_will(&HOUR, 0)).await.1.present);
    come(&house, &connect_with(5, 0b10, 0, &[], &[b"device"])).await;
    assert_eq!(house.broker.payloads(), ["will"], "that of the second connection");
}

#[tokio::test]
async fn an_identifier_of_qos_2_is_known_on_the_next_connection_mqtt_4_3_3_10() {
    let house = House::new();
    let (mut client, _) = back(&house, &HOUR).await;
    client.send(&publish5(0x34, "t", Some(7), &[], b"once")).await;
    client.expect(&[0x50, 3, 0, 7, 0x10]).await;
    lost(&house, client).await;
    let (mut client, _) = back(&house, &HOUR).await;
    client.send(&publish5(0x3C, "t", Some(7), &[], b"once")).await;
    client.expect(&[0x50, 2, 0, 7]).await;
    client.send(&[0x62, 2, 0, 7]).await;
    client.expect(&[0x70, 2, 0, 7]).await;
    assert_eq!(house.broker.payloads(), ["once"]);
}

#[tokio::test]
async fn a_receipt_that_comes_later_answers_only_what_came_again() {
    let house = House::new();
    house.broker.hold_receipts();
    let (mut client, _) = back(&house, &HOUR).await;
    client.send(&publish5(0x32, "t", Some(5), &[], b"least")).await;
    client.send(&publish5(0x34, "t", Some(7), &[], b"once")).await;
    client.send(&publish5(0x34, "t", Some(8), &[], b"not again")).await;
    client.ping().await;
    lost(&house, client).await;
    let (mut client, _) = back(&house, &HOUR).await;
    client.send(&publish5(0x3C, "t", Some(7), &[], b"once")).await;
    client.ping().await;
    house.broker.receipts(&[Receipt { first: 0, count: 3, outcome: Outcome::Accepted }]);
    client.expect(&[0x50, 2, 0, 7]).await;
    client.ping().await;
    assert_eq!(house.broker.payloads(), ["least", "once", "not again"]);
}

#[tokio::test]
async fn retained_messages_on_their_way_are_sent_again_too() {
    let house = House::new();
    published(&house, &[(0x35, b"kept")]).await;
    let mut client = begun(&house, 2).await;
    client.expect(&publish5(0x35, "t", Some(1), &[], b"kept")).await;
    lost(&house, client).await;
    let (mut client, _) = back(&house, &HOUR).await;
    client.expect(&publish5(0x3D, "t", Some(1), &[], b"kept")).await;
    client.send(&[0x50, 2, 0, 1]).await;
    client.expect(&[0x62, 2, 0, 1]).await;
    lost(&house, client).await;
    let (mut client, _) = back(&house, &HOUR).await;
    client.expect(&[0x62, 2, 0, 1]).await;
    client.ping().await;
}

#[tokio::test]
async fn what_the_back_end_has_lost_frees_its_identifier_but_at_qos_2() {
    let house = House::new();
    let mut client = begun(&house, 2).await;
    published(&house, &[(0x32, b"1"), (0x34, b"2")]).await;
    client.expect(&publish5(0x32, "t", Some(1), &[], b"1")).await;
    client.expect(&publish5(0x34, "t", Some(2), &[], b"2")).await;
    lost(&house, client).await;
    house.broker.lose_unsettled();
    let (mut client, _) = back(&house, &[&HOUR[..], &[0x21, 0, 2]].concat()).await;
    // The client may know the identifier, and would take what comes under it next for the same message.
    client.expect(&[0x62, 2, 0, 2]).await;
    published(&house, &[(0x32, b"3"), (0x32, b"4")]).await;
    client.expect(&publish5(0x32, "t", Some(3), &[], b"3")).await;
    client.ping().await;
    client.send(&[0x70, 3, 0, 2, 0x92]).await;
    client.expect(&publish5(0x32, "t", Some(4), &[], b"4")).await;
}

#[tokio::test]
async fn a_session_that_cannot_be_given_again_now_is_kept() {
    let house = House::new();
    let mut client = begun(&house, 1).await;
    published(&house, &[(0x32, b"1")]).await;
    client.expect(&publish5(0x32, "t", Some(1), &[], b"1")).await;
    lost(&house, client).await;
    house.broker.fail_recovery(true);
    let mut refused = house.client().await;
    refused.send(&connect_with(5, 0, 0, &HOUR, &[b"device"])).await;
    let answer = refused.packet().await;
    assert_eq!((answer[0], answer[2], answer[3]), (0x20, 0, 0x88), "[MQTT-3.2.2-6]");
    refused.closed().await;
    house.broker.fail_recovery(false);
    let (mut client, welcome) = back(&house, &HOUR).await;
    assert!(welcome.present);
    client.expect(&publish5(0x3A, "t", Some(1), &[], b"1")).await;
}

#[tokio::test]
async fn a_session_whose_subscription_ends_while_its_client_is_away_is_over() {
    let house = House::new();
    lost(&house, begun(&house, 1).await).await;
    house.broker.end_subscriptions(Ended::LimitExceeded { bytes: 1 });
    until("the session is over", || house.broker.subscriptions() == 0).await;
    assert!(!back(&house, &HOUR).await.1.present, "the client is told that it has missed something");
}

#[tokio::test]
async fn a_session_is_its_users_alone() {
    let password = PasswordText::parse(&hash_password(b"x").unwrap()).unwrap();
    let account = Account { password, vhosts: None };
    let names: [Arc<str>; 2] = ["one".into(), "two".into()];
    let house = House::of(Limits::default(), Users::new(names.iter().map(|name| (name, &account))));
    let connect = |user: &[u8]| connect_with(5, 0b1100_0000, 0, &HOUR, &[b"device", user, b"x"]);
    let (mut client, _) = come(&house, &connect(b"one")).await;
    client.subscribe5("t", 1, &[]).await;
    lost(&house, client).await;
    assert!(!come(&house, &connect(b"two")).await.1.present);
    assert_eq!(house.broker.subscriptions(), 0);
}
