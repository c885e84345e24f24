//! What clients publish, and how it is answered.

use linkspan_contract::{Flags, Outcome, Receipt, Refused};

use super::client::{House, binary, publish, publish5, until};
use crate::doors::mqtt::Limits;
use std::num::NonZeroU16;

fn accepted(first: u64, count: u32) -> Receipt {
    Receipt { first, count, outcome: Outcome::Accepted }
}

/// As if somebody subscribed.
fn routable(house: &House) {
    house.broker.answer(Some(Outcome::Accepted));
}

#[tokio::test]
async fn every_qos_is_answered_as_it_has_to_be() {
    let house = House::new();
    let mut client = house.v311("a").await;
    client.send(&publish(0x30, "t/0", None, b"zero")).await;
    client.send(&publish(0x33, "t/1", Some(7), b"one")).await;
    client.expect(&[0x40, 2, 0, 7]).await;
    client.send(&publish(0x34, "t/2", Some(8), b"two")).await;
    client.expect(&[0x50, 2, 0, 8]).await;
    client.send(&[0x62, 2, 0, 8]).await;
    client.expect(&[0x70, 2, 0, 8]).await;
    let seen = house.broker.published();
    assert_eq!(house.broker.payloads(), ["zero", "one", "two"]);
    assert_eq!(seen[0].flags, Flags::NONE);
    assert_eq!(seen[1].flags, Flags::RECEIPT | Flags::DURABLE | Flags::RETAIN);
    assert_eq!(seen[2].flags, Flags::RECEIPT | Flags::DURABLE | Flags::EXACTLY_ONCE);
    assert_eq!(seen[1].topic, "t/1");
}

#[tokio::test]
async fn a_message_of_qos_2_is_published_once_until_it_is_released_mqtt_4_3_3_10() {
    let house = House::new();
    let mut client = house.v311("a").await;
    client.send(&publish(0x34, "t", Some(8), b"first")).await;
    client.send(&publish(0x3C, "t", Some(8), b"first")).await;
    client.expect(&[0x50, 2, 0, 8, 0x50, 2, 0, 8]).await;
    assert_eq!(house.broker.payloads(), ["first"]);
    client.send(&[0x62, 2, 0, 8]).await;
    client.expect(&[0x70, 2, 0, 8]).await;
    client.send(&publish(0x34, "t", Some(8), b"second")).await;
    client.expect(&[0x50, 2, 0, 8]).await;
    assert_eq!(house.broker.payloads(), ["first", "second"]);
}

#[tokio::test]
async fn a_repetition_in_the_same_read_is_published_once_and_answered_once_too_many_never() {
    let house = House::new();
    house.broker.hold_receipts();
    let mut client = house.v311("a").await;
    let mut bytes = publish(0x34, "t", Some(8), b"x");
    bytes.extend(publish(0x3C, "t", Some(8), b"x"));
    client.send(&bytes).await;
    client.ping().await;
    house.broker.receipts(&[accepted(0, 1)]);
    client.expect(&[0x50, 2, 0, 8]).await;
    client.ping().await;
    assert_eq!(house.broker.payloads(), ["x"]);
}

#[tokio::test]
async fn a_release_of_nothing_is_told_so() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.send(&[0x62, 2, 0, 9]).await;
    five.expect(&[0x70, 3, 0, 9, 0x92]).await;
    let mut old = house.v311("b").await;
    old.send(&[0x62, 2, 0, 9]).await;
    old.expect(&[0x70, 2, 0, 9]).await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_receipt() {
    let house = House::new();
    house.broker.hold_receipts();
    let mut client = house.v311("a").await;
    client.send(&publish(0x32, "t", Some(1), b"x")).await;
    client.ping().await;
    house.broker.receipts(&[accepted(0, 1)]);
    client.expect(&[0x40, 2, 0, 1]).await;
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_the_messages_mqtt_4_6_0_2() {
    let house = House::new();
    house.broker.hold_receipts();
    let mut client = house.v311("a").await;
    for id in 1..=5 {
        let first = if id == 3 { 0x34 } else { 0x32 };
        client.send(&publish(first, "t", Some(id), b"x")).await;
    }
    until("all are published", || house.broker.published().len() == 5).await;
    house.broker.receipts(&[accepted(3, 2), accepted(1, 1)]);
    client.ping().await;
    house.broker.receipts(&[accepted(0, 1)]);
    client.expect(&[0x40, 2, 0, 1, 0x40, 2, 0, 2]).await;
    client.ping().await;
    house.broker.receipts(&[accepted(2, 1)]);
    client.expect(&[0x50, 2, 0, 3, 0x40, 2, 0, 4, 0x40, 2, 0, 5]).await;
}

#[tokio::test]
async fn a_message_that_nobody_takes_is_told_so_in_5_0() {
    let house = House::new();
    let mut five = house.v5("a").await;
    let mut bytes = Vec::new();
    bytes.extend(publish5(0x32, "t", Some(1), &[], b"x"));
    bytes.extend(publish5(0x34, "t", Some(2), &[], b"x"));
    five.send(&bytes).await;
    five.expect(&[0x40, 3, 0, 1, 0x10, 0x50, 3, 0, 2, 0x10]).await;
    five.send(&[0x62, 2, 0, 2]).await;
    five.expect(&[0x70, 2, 0, 2]).await;
}

#[tokio::test]
async fn what_is_refused_is_told_with_a_reason_mqtt_3_4_2_1() {
    let house = House::new();
    let mut five = house.v5("a").await;
    for (refused, code) in [
        (Refused::Full("q".into()), 0x97),
        (Refused::AccessRefused("q".into()), 0x87),
        (Refused::TooLarge("q".into()), 0x97),
        (Refused::Precondition("q".into()), 0x83),
        (Refused::Upstream { code: 403, text: "q".into() }, 0x87),
    ] {
        house.broker.answer(Some(Outcome::Refused(refused)));
        five.send(&publish5(0x32, "t", Some(1), &[], b"x")).await;
        five.expect(&[0x40, 8, 0, 1, code, 4, 0x1F, 0, 1, b'q']).await;
    }
    house.broker.answer(Some(Outcome::Failed(Refused::Away("q".into()))));
    five.send(&publish5(0x34, "t", Some(1), &[], b"x")).await;
    assert_eq!(five.packet().await[4], 0x80);
    routable(&house);
    five.send(&publish5(0x34, "t", Some(1), &[], b"again")).await;
    five.expect(&[0x50, 2, 0, 1]).await;
    assert_eq!(house.broker.payloads().last().unwrap(), "again", "a refused identifier is free again");
}

#[tokio::test]
async fn a_client_that_wants_no_reasons_gets_none_mqtt_3_1_2_29() {
    let house = House::new();
    let mut five = house.client().await;
    five.send(&super::client::connect_with(5, 2, 0, &[0x17, 0], &[b"a"])).await;
    five.packet().await;
    house.broker.answer(Some(Outcome::Refused(Refused::Full("q".into()))));
    five.send(&publish5(0x32, "t", Some(1), &[], b"x")).await;
    five.expect(&[0x40, 3, 0, 1, 0x97]).await;
}

#[tokio::test]
async fn what_is_refused_ends_a_connection_of_3_1_1_mqtt_3_3_5_2() {
    let house = House::new();
    let mut old = house.v311("a").await;
    let mut bytes = publish(0x32, "t", Some(1), b"x");
    bytes.extend(publish(0x30, "t", None, b"y"));
    house.broker.answer(Some(Outcome::Refused(Refused::Full("q".into()))));
    old.send(&bytes).await;
    old.closed().await;
}

#[tokio::test]
async fn more_than_the_receive_maximum_is_too_much_mqtt_3_3_4_7() {
    let house = House::with(Limits { receive_maximum: NonZeroU16::new(2).unwrap(), ..Limits::default() });
    house.broker.hold_receipts();
    let mut five = house.v5("a").await;
    five.send(&publish5(0x32, "t", Some(1), &[], b"x")).await;
    five.send(&publish5(0x34, "t", Some(2), &[], b"x")).await;
    five.ping().await;
    house.broker.receipts(&[accepted(0, 2)]);
    five.expect(&[0x40, 2, 0, 1, 0x50, 2, 0, 2]).await;
    five.send(&publish5(0x32, "t", Some(3), &[], b"x")).await;
    five.ping().await;
    // The second is received, but not released: it counts until its PUBCOMP.
    five.send(&publish5(0x32, "t", Some(4), &[], b"x")).await;
    five.disconnected(0x93).await;
    let mut old = house.v311("b").await;
    for id in 1..10 {
        old.send(&publish(0x32, "t", Some(id), b"x")).await;
    }
    old.ping().await;
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic_mqtt_3_3_2_12() {
    let house = House::new();
    let mut five = house.v5("a").await;
    let alias = [0x23, 0, 3];
    let mut bytes = publish5(0x30, "plain", None, &[], b"0");
    bytes.extend(publish5(0x30, "first", None, &alias, b"1"));
    bytes.extend(publish5(0x32, "", Some(9), &[&alias[..], b"\x03\0\x01c"].concat(), b"2"));
    bytes.extend(publish5(0x30, "plain", None, &[], b"3"));
    bytes.extend(publish5(0x30, "second", None, &alias, b"4"));
    five.send(&bytes).await;
    five.expect(&[0x40, 3, 0, 9, 0x10]).await;
    five.send(&publish5(0x30, "", None, &alias, b"5")).await;
    five.ping().await;
    let seen = house.broker.published();
    let topics: Vec<&str> = seen.iter().map(|seen| &*seen.topic).collect();
    assert_eq!(topics, ["plain", "first", "first", "plain", "second", "second"]);
    assert_eq!(house.broker.payloads(), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(seen[2].properties.content_type.as_deref(), Some("c"));
}

#[tokio::test]
async fn a_topic_alias_has_to_be_allowed_and_known() {
    let house = House::with(Limits { topic_aliases: 4, ..Limits::default() });
    for (alias, reason) in [(0, 0x94), (5, 0x94), (4, 0x82)] {
        let mut five = house.v5("a").await;
        five.send(&publish5(0x30, "", None, &[0x23, 0, alias], b"x")).await;
        five.disconnected(reason).await;
    }
}

#[tokio::test]
async fn what_an_mqtt_5_client_says_about_a_message_goes_with_it() {
    let house = House::new();
    let mut five = house.v5("a").await;
    let mut list = vec![0x01, 1, 0x02, 0, 0, 0, 30];
    list.extend([0x08, 0, 1, b'r']);
    list.extend([0x09, 0, 2, 0, 255]);
    for (name, value) in [("amqp-priority", "6"), ("k", "1"), ("k", "2")] {
        list.push(0x26);
        list.extend(binary(name.as_bytes()));
        list.extend(binary(value.as_bytes()));
    }
    five.send(&publish5(0x30, "t", None, &list, b"text")).await;
    five.ping().await;
    let seen = &house.broker.published()[0];
    assert_eq!((seen.expiry, seen.priority), (30_000, 6));
    assert!(seen.flags.has(Flags::EXPIRES | Flags::PROPERTIES | Flags::HEADERS | Flags::PRIORITY));
    assert_eq!(seen.properties.reply_to.as_deref(), Some("r"));
    assert_eq!(seen.properties.correlation.as_deref(), Some(&[0, 255][..]));
    assert_eq!(seen.properties.utf8_payload, Some(true));
    assert_eq!(seen.properties.headers.len(), 2);
}

#[tokio::test]
async fn a_payload_has_to_be_the_text_that_it_is_said_to_be() {
    let house = House::new();
    routable(&house);
    let mut five = house.v5("a").await;
    let mut bytes = publish5(0x32, "t", Some(1), &[], b"\xff");
    bytes.extend(publish5(0x32, "t", Some(2), &[1, 1], b"\xff"));
    bytes.extend(publish5(0x32, "t", Some(3), &[1, 1], b"ok"));
    five.send(&bytes).await;
    five.expect(&[0x40, 2, 0, 1]).await;
    let refused = five.packet().await;
    assert_eq!((refused[0], refused[3], refused[4]), (0x40, 2, 0x99));
    five.expect(&[0x40, 2, 0, 3]).await;
    assert_eq!(house.broker.published().len(), 2);
    five.send(&publish5(0x30, "t", None, &[1, 1], b"\xff")).await;
    five.disconnected(0x99).await;
}

#[tokio::test]
async fn a_large_message_is_kept_by_reference() {
    let house = House::new();
    routable(&house);
    let mut client = house.v311("a").await;
    let payload: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut bytes = publish(0x30, "before", None, b"1");
    bytes.extend(publish(0x32, "large", Some(5), &payload));
    bytes.extend(publish(0x32, "after", Some(6), b"2"));
    client.send(&bytes).await;
    client.expect(&[0x40, 2, 0, 5, 0x40, 2, 0, 6]).await;
    let seen = house.broker.published();
    assert_eq!(seen.iter().map(|seen| &*seen.topic).collect::<Vec<_>>(), ["before", "large", "after"]);
    assert!(seen[1].payload == payload, "the payload was changed on its way");
    assert!(seen[1].by_reference && !seen[0].by_reference);
    // One that is read at once, for it is not that large.
    client.send(&publish(0x32, "t", Some(7), &payload[..70_000])).await;
    client.expect(&[0x40, 2, 0, 7]).await;
    assert!(house.broker.published()[3].payload == payload[..70_000]);
}

#[tokio::test]
async fn a_large_message_whose_head_is_cut_is_taken_when_all_the_rest_comes_at_once() {
    let house = House::new();
    routable(&house);
    let mut client = house.v311("a").await;
    let payload: Vec<u8> = (0..70_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for cut in [4, 5, 9] {
        let packet = publish(0x32, "topic", Some(1), &payload);
        client.send(&packet[..cut]).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        client.send(&packet[cut..]).await;
        client.expect(&[0x40, 2, 0, 1]).await;
        assert!(house.broker.published().last().unwrap().payload == payload, "cut at {cut}");
    }
}

#[tokio::test]
async fn large_messages_wait_for_each_other_when_together_they_are_too_large() {
    let house = House::with(Limits { large_packets: 150_000, ..Limits::default() });
    let (mut one, mut two) = (house.v311("a").await, house.v311("b").await);
    let packet = publish(0x32, "t", Some(1), &vec![7; 140_000]);
    one.send(&packet[..100_000]).await;
    // What has not begun to be read leaves no trace: the second one waits, and is served after the first.
    two.send(&packet[..100_000]).await;
    one.send(&packet[100_000..]).await;
    one.expect(&[0x40, 2, 0, 1]).await;
    two.send(&packet[100_000..]).await;
    two.expect(&[0x40, 2, 0, 1]).await;
}

#[tokio::test]
async fn a_packet_above_the_limit_takes_no_memory_mqtt_3_2_2_15() {
    let house = House::with(Limits { packet: 2048, ..Limits::default() });
    let mut five = house.v5("a").await;
    five.send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0]).await;
    five.disconnected(0x95).await;
    let mut old = house.v311("b").await;
    old.send(&publish(0x30, "t", None, &[0; 3000])).await;
    old.closed().await;
    assert!(house.broker.published().is_empty());
}

#[tokio::test]
async fn packets_may_be_cut_anywhere() {
    let house = House::new();
    let mut client = house.v311("a").await;
    let mut bytes = Vec::new();
    for id in 1..=20 {
        bytes.extend(publish(0x32, "some/topic", Some(id), &[b'x'; 150]));
        bytes.extend([0xC0, 0]);
    }
    for piece in bytes.chunks(61) {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    let mut acknowledged = 0;
    while acknowledged < 20 {
        let packet = client.packet().await;
        acknowledged += usize::from(packet[0] == 0x40);
    }
    assert_eq!(house.broker.published().len(), 20);
}

#[tokio::test]
async fn a_publisher_is_not_read_while_what_it_publishes_to_is_above_its_mark() {
    let house = House::new();
    let mut client = house.v311("a").await;
    house.broker.congest(true);
    client.send(&publish(0x32, "t", Some(1), b"x")).await;
    client.expect(&[0x40, 2, 0, 1]).await;
    client.send(&publish(0x32, "t", Some(2), b"y")).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.broker.payloads(), ["x"]);
    house.broker.congest(false);
    client.expect(&[0x40, 2, 0, 2]).await;
}

#[tokio::test]
async fn a_client_may_publish_to_any_number_of_topics() {
    let house = House::new();
    let mut client = house.v311("a").await;
    let mut bytes = Vec::new();
    for round in 0..2 {
        for topic in 0..10_000 {
            bytes.extend(publish(0x30, &format!("t/{topic}"), None, &[round]));
        }
    }
    client.send(&bytes).await;
    client.ping().await;
    assert_eq!(house.broker.published().len(), 20_000);
}
