//! What subscribers are sent, whatever form it was published in.

use std::num::NonZeroU16;
use std::sync::Arc;

use linkspan_contract::neutral::Draft;
use linkspan_contract::{Body, Flags, Message, OwnedBatch, Properties, Settlement, Value};

use super::client::{House, binary, connect_with, publish, publish5, until};
use crate::doors::mqtt::Limits;

fn neutral(topic: &str, properties: &Properties<'_>, payload: &[u8], head: Message) -> Arc<OwnedBatch> {
    let payload = Body::Shared(payload.to_vec().into());
    Draft { exchange: None, topic: topic.as_bytes(), properties, payload, head }.build()
}

#[tokio::test]
async fn a_subscriber_gets_what_is_published_in_order_and_at_the_lower_qos() {
    let house = House::new();
    for (version, topic) in [(4, "u"), (5, "w")] {
        let form = |first, topic: &str, id, payload: &[u8]| match version {
            4 => publish(first, topic, id, payload),
            _ => publish5(first, topic, id, &[], payload),
        };
        let name = |role: &str| format!("{role}-{version}");
        let mut low =
            if version == 4 { house.v311(&name("low")).await } else { house.v5(&name("low")).await };
        let mut high =
            if version == 4 { house.v311(&name("high")).await } else { house.v5(&name("high")).await };
        match version {
            4 => {
                low.subscribe(topic, 0).await;
                high.subscribe(topic, 1).await;
            }
            _ => {
                low.subscribe5(topic, 0, &[]).await;
                high.subscribe5(topic, 1, &[]).await;
            }
        }
        for level in [4, 5] {
            let mut publisher =
                if level == 4 { house.v311(&name("p4")).await } else { house.v5(&name("p5")).await };
            let written = |first, id, payload: &[u8]| match level {
                4 => publish(first, topic, id, payload),
                _ => publish5(first, topic, id, &[], payload),
            };
            let mut bytes = Vec::new();
            bytes.extend(written(0x30, None, b"a"));
            bytes.extend(written(0x30, None, b"b"));
            bytes.extend(written(0x3A, Some(700), b"c"));
            bytes.extend(written(0x34, Some(701), b"d"));
            bytes.extend(written(0x31, None, b"e"));
            publisher.send(&bytes).await;
            for payload in [b"a", b"b", b"c", b"d", b"e"] {
                low.expect(&form(0x30, topic, None, payload)).await;
            }
            high.expect(&form(0x30, topic, None, b"a")).await;
            high.expect(&form(0x30, topic, None, b"b")).await;
            let mut ids = Vec::new();
            for payload in [b"c", b"d"] {
                let packet = high.packet().await;
                let at = 5;
                let id = u16::from_be_bytes([packet[at], packet[at + 1]]);
                assert_eq!(
                    packet,
                    form(0x32, topic, Some(id), payload),
                    "[MQTT-3.3.1-3]: DUP is not passed on"
                );
                ids.push(id);
            }
            assert_ne!(ids[0], ids[1]);
            high.expect(&form(0x30, topic, None, b"e")).await;
            for id in ids {
                let [a, b] = id.to_be_bytes();
                high.send(&[0x40, 2, a, b]).await;
            }
            high.ping().await;
        }
    }
}

#[tokio::test]
async fn a_run_of_messages_is_sent_on_as_it_came() {
    let house = House::new();
    let mut client = house.v311("a").await;
    client.subscribe("#", 1).await;
    let mut publisher = house.v311("p").await;
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for number in 1..=500_u16 {
        let topic = format!("t/{}", number % 7);
        let payload = vec![b'x'; usize::from(number)];
        sent.extend(publish(0x32, &topic, Some(number + 1000), &payload));
        expected.extend(publish(0x32, &topic, Some(number), &payload));
    }
    publisher.send(&sent).await;
    client.expect(&expected).await;
}

#[tokio::test]
async fn acknowledgements_settle_in_runs() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t", 1, &[]).await;
    let mut publisher = house.v5("p").await;
    for id in 1..=5 {
        publisher.send(&publish5(0x32, "t", Some(id), &[], b"x")).await;
        five.expect(&publish5(0x32, "t", Some(id), &[], b"x")).await;
    }
    let mut bytes = Vec::new();
    for id in [1, 2, 3] {
        bytes.extend([0x40, 2, 0, id]);
    }
    bytes.extend([0x40, 3, 0, 4, 0x83]);
    bytes.extend([0x40, 2, 0, 5, 0x40, 2, 0, 5, 0x40, 2, 0, 99]);
    five.send(&bytes).await;
    until("all five are settled", || house.broker.settled().iter().map(|run| run.count).sum::<u32>() == 5)
        .await;
    five.ping().await;
    let settled: Vec<_> =
        house.broker.settled().into_iter().map(|run| (run.first, run.count, run.outcome)).collect();
    assert_eq!(
        settled,
        [(0, 3, Settlement::Accept), (3, 1, Settlement::Reject(None)), (4, 1, Settlement::Accept)]
    );
}

#[tokio::test]
async fn a_client_has_no_more_unacknowledged_than_its_receive_maximum_mqtt_3_3_4_9() {
    let house = House::new();
    let mut five = house.client().await;
    five.send(&connect_with(5, 2, 0, &[0x21, 0, 2], &[b"a"])).await;
    five.packet().await;
    five.subscribe5("a", 1, &[]).await;
    five.subscribe5("b", 1, &[]).await;
    let mut publisher = house.v5("p").await;
    for (id, topic) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
        publisher.send(&publish5(0x32, topic, Some(id), &[], b"x")).await;
        publisher.expect(&[0x40, 2, 0, u8::try_from(id).unwrap()]).await;
    }
    five.expect(&publish5(0x32, "a", Some(1), &[], b"x")).await;
    five.expect(&publish5(0x32, "b", Some(2), &[], b"x")).await;
    five.ping().await;
    five.send(&[0x40, 2, 0, 2]).await;
    five.expect(&publish5(0x32, "a", Some(3), &[], b"x")).await;
    five.ping().await;
}

#[tokio::test]
async fn each_of_overlapping_subscriptions_gets_a_copy_with_its_identifier_mqtt_3_3_4_3() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t/#", 0, &[0x0B, 1]).await;
    five.subscribe5("t/+", 1, &[0x0B, 0x80, 1]).await;
    let mut publisher = house.v5("p").await;
    publisher.send(&publish5(0x32, "t/x", Some(1), b"\x03\0\x01c", b"m")).await;
    five.expect(&publish5(0x30, "t/x", None, b"\x0B\x01\x03\0\x01c", b"m")).await;
    five.expect(&publish5(0x32, "t/x", Some(1), b"\x0B\x80\x01\x03\0\x01c", b"m")).await;
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag_mqtt_3_3_1_13() {
    let house = House::new();
    let (mut plain, mut kept) = (house.v5("a").await, house.v5("b").await);
    plain.subscribe5("t", 0, &[]).await;
    kept.subscribe5("t", 0b1000, &[]).await;
    let mut publisher = house.v5("p").await;
    let mut bytes = publish5(0x31, "t", None, &[], b"x");
    bytes.extend(publish5(0x30, "t", None, &[], b"y"));
    publisher.send(&bytes).await;
    plain.expect(&publish5(0x30, "t", None, &[], b"x")).await;
    plain.expect(&publish5(0x30, "t", None, &[], b"y")).await;
    kept.expect(&publish5(0x31, "t", None, &[], b"x")).await;
    kept.expect(&publish5(0x30, "t", None, &[], b"y")).await;
}

#[tokio::test]
async fn no_local_leaves_out_what_one_published_oneself_mqtt_3_8_3_3() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t", 0b100, &[]).await;
    five.send(&publish5(0x30, "t", None, &[], b"own")).await;
    five.ping().await;
    let mut other = house.v5("b").await;
    other.send(&publish5(0x30, "t", None, &[], b"theirs")).await;
    five.expect(&publish5(0x30, "t", None, &[], b"theirs")).await;
}

#[tokio::test]
async fn between_versions_properties_are_left_out_or_kept() {
    let house = House::new();
    let (mut five, mut old) = (house.v5("a").await, house.v311("b").await);
    five.subscribe5("t", 1, &[]).await;
    old.subscribe("t", 1).await;
    let mut list = vec![0x02, 0, 0, 0, 9];
    list.extend([0x26]);
    list.extend(binary(b"k"));
    list.extend(binary(b"v"));
    let mut publisher = house.v5("p5").await;
    publisher.send(&publish5(0x32, "t", Some(1), &list, b"x")).await;
    five.expect(&publish5(0x32, "t", Some(1), &list, b"x")).await;
    old.expect(&publish(0x32, "t", Some(1), b"x")).await;
    let mut publisher = house.v311("p4").await;
    publisher.send(&publish(0x32, "t", Some(1), b"y")).await;
    five.expect(&publish5(0x32, "t", Some(2), &[], b"y")).await;
    old.expect(&publish(0x32, "t", Some(2), b"y")).await;
}

#[tokio::test]
async fn a_message_of_another_form_is_written_in_the_clients_own() {
    let house = House::new();
    let (mut five, mut old) = (house.v5("a").await, house.v311("b").await);
    five.subscribe5("x/y", 1, &[]).await;
    old.subscribe("x/y", 0).await;
    let properties = Properties {
        content_type: Some("c".into()),
        message_id: Some("m".into()),
        headers: vec![("n".into(), Value::I32(5))],
        ..Properties::default()
    };
    let flags = Flags::DURABLE | Flags::EXPIRES;
    let head = Message { flags, expiry: 10_000, ..Message::default() };
    house.broker.deliver(&neutral("x/y", &properties, b"hello", head), 8_500);
    let mut list = vec![0x02, 0, 0, 0, 2];
    list.extend(b"\x03\0\x01c");
    for (name, value) in [("amqp-message-id", "m"), ("n", "5")] {
        list.push(0x26);
        list.extend(binary(name.as_bytes()));
        list.extend(binary(value.as_bytes()));
    }
    five.expect(&publish5(0x32, "x/y", Some(1), &list, b"hello")).await;
    old.expect(&publish(0x30, "x/y", None, b"hello")).await;
}

#[tokio::test]
async fn what_waited_has_less_time_left_and_is_not_sent_when_it_has_none_mqtt_3_3_2_6() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t", 1, &[]).await;
    let head = |expiry| Message { flags: Flags::DURABLE | Flags::EXPIRES, expiry, ..Message::default() };
    let none = Properties::default();
    house.broker.deliver(&neutral("t", &none, b"over", head(5000)), 5000);
    house.broker.deliver(&neutral("t", &none, b"rounded up", head(5000)), 3001);
    five.expect(&publish5(0x32, "t", Some(1), &[2, 0, 0, 0, 2], b"rounded up")).await;
    until("the expired one is settled", || !house.broker.settled().is_empty()).await;
    assert_eq!(house.broker.settled()[0].outcome, Settlement::Accept);
}

#[tokio::test]
async fn an_address_that_is_no_topic_is_not_sent_to_mqtt() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.subscribe5("t", 1, &[]).await;
    let head = Message { flags: Flags::DURABLE, ..Message::default() };
    for topic in ["", "a/+", "#"] {
        house.broker.deliver(&neutral(topic, &Properties::default(), b"x", head), 0);
    }
    five.ping().await;
    until("all three are settled", || house.broker.settled().iter().map(|run| run.count).sum::<u32>() == 3)
        .await;
    assert_eq!(house.broker.settled()[0].outcome, Settlement::Reject(Some("address-not-mqtt".into())));
}

#[tokio::test]
async fn a_packet_larger_than_the_client_takes_counts_as_delivered_mqtt_3_1_2_25() {
    let house = House::new();
    let mut five = house.client().await;
    five.send(&connect_with(5, 2, 0, &[0x27, 0, 0, 0, 64], &[b"a"])).await;
    five.packet().await;
    five.subscribe5("t", 1, &[]).await;
    let mut publisher = house.v5("p").await;
    let mut bytes = publish5(0x32, "t", Some(1), &[], &[b'x'; 100]);
    bytes.extend(publish5(0x32, "t", Some(2), &[], b"small"));
    publisher.send(&bytes).await;
    five.expect(&publish5(0x32, "t", Some(1), &[], b"small")).await;
    until("the large one is settled", || !house.broker.settled().is_empty()).await;
    assert_eq!((house.broker.settled()[0].first, house.broker.settled()[0].count), (0, 1));
}

#[tokio::test]
async fn a_large_payload_reaches_every_subscriber_as_it_was() {
    let house = House::with(Limits { window: NonZeroU16::new(5).unwrap(), ..Limits::default() });
    let (mut five, mut old) = (house.v5("a").await, house.v311("b").await);
    five.subscribe5("t", 1, &[]).await;
    old.subscribe("t", 1).await;
    let mut publisher = house.v311("p").await;
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    publisher.send(&publish(0x33, "t", Some(1), &payload)).await;
    publisher.send(&publish(0x30, "t", None, b"after")).await;
    five.expect(&publish5(0x32, "t", Some(1), &[], &payload)).await;
    five.expect(&publish5(0x30, "t", None, &[], b"after")).await;
    old.expect(&publish(0x32, "t", Some(1), &payload)).await;
    old.expect(&publish(0x30, "t", None, b"after")).await;
    let mut late = house.v5("c").await;
    late.subscribe5("t", 1, &[]).await;
    late.expect(&publish5(0x33, "t", Some(1), &[], &payload)).await;
}

#[tokio::test]
async fn a_lane_whose_routes_changed_is_refreshed() {
    let house = House::new();
    let mut client = house.v311("a").await;
    house.broker.event(&linkspan_contract::LaneEvent::Changed);
    until("the lane is refreshed", || house.broker.refreshed() == 1).await;
    client.ping().await;
}
