//! MQTT: filters, retained messages, shares.

use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, packet, text};
use linkspan_integration_tests::mqtt5::{Mqtt5, payload, topic};
use linkspan_integration_tests::{Server, within};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, PubAckReason, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};

use crate::LULL;

const GRANTED: SubscribeReasonCode = SubscribeReasonCode::Success(QoS::AtLeastOnce);

#[tokio::test]
async fn wildcards_match_levels_mqtt_4_7_1() {
    let server = Server::start("").await;
    let topics = ["sport", "sport/tennis", "sport/tennis/player1", "/sport", "$SYS/x", "sport/"];
    for (filter, expected) in [
        ("#", &["sport", "sport/tennis", "sport/tennis/player1", "/sport", "sport/"][..]),
        ("sport/#", &["sport", "sport/tennis", "sport/tennis/player1", "sport/"]),
        ("sport/+", &["sport/tennis", "sport/"]),
        ("+", &["sport"]),
        ("+/+", &["sport/tennis", "/sport", "sport/"]),
        ("+/tennis/#", &["sport/tennis", "sport/tennis/player1"]),
    ] {
        let mut subscriber = Mqtt5::connect(server.mqtt(), "subscriber").await;
        assert_eq!(subscriber.subscribe(filter).await, GRANTED, "{filter}");
        let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
        for topic in topics.iter().filter(|topic| !topic.starts_with('$')) {
            publisher.publish(topic, topic).await;
        }
        for expected in expected {
            assert_eq!(topic(&subscriber.next().await), *expected, "{filter}");
        }
        assert!(subscriber.next_within(LULL).await.is_none(), "{filter}");
    }
}

#[tokio::test]
async fn a_retained_message_waits_for_whoever_subscribes_until_it_is_cleared() {
    let server = Server::start("").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    publisher.retain("room/1", "20").await;
    publisher.retain("room/1", "21").await;
    publisher.retain("room/2", "19").await;
    let mut first = Mqtt5::connect(server.mqtt(), "first").await;
    first.subscribe("room/1").await;
    let retained = first.next().await;
    assert_eq!((payload(&retained).as_str(), retained.retain), ("21", true), "the newest");
    publisher.retain("room/1", "22").await;
    let live = first.next().await;
    assert_eq!((payload(&live).as_str(), live.retain), ("22", false), "[MQTT-3.3.1-12]");

    publisher.retain("room/1", "").await;
    assert_eq!(first.next_text().await, "", "a message as any other");
    let mut late = Mqtt5::connect(server.mqtt(), "late").await;
    late.subscribe("room/+").await;
    assert_eq!(topic(&late.next().await), "room/2", "the other one is cleared [MQTT-3.3.1-6]");
    assert!(late.next_within(LULL).await.is_none());
}

#[tokio::test]
async fn retain_handling_says_when_retained_messages_are_sent_mqtt_3_3_1_9_to_11() {
    let server = Server::start("").await;
    Mqtt5::connect(server.mqtt(), "publisher").await.retain("a", "kept").await;
    let mut subscriber = Mqtt5::connect(server.mqtt(), "subscriber").await;
    for (rule, expected) in [
        (RetainForwardRule::Never, false),
        (RetainForwardRule::OnNewSubscribe, false),
        (RetainForwardRule::OnEverySubscribe, true),
        (RetainForwardRule::OnEverySubscribe, true),
    ] {
        let filter = Filter { retain_forward_rule: rule.clone(), ..Filter::new("a", QoS::AtLeastOnce) };
        subscriber.subscribe_as(filter).await;
        let came = subscriber.next_within(LULL).await.is_some();
        assert_eq!(came, expected, "{rule:?} of a subscription that exists or is new");
    }
    subscriber.unsubscribe("a").await;
    let rule = RetainForwardRule::OnNewSubscribe;
    subscriber.subscribe_as(Filter { retain_forward_rule: rule, ..Filter::new("a", QoS::AtLeastOnce) }).await;
    assert_eq!(subscriber.next_text().await, "kept", "it is new again");
}

#[tokio::test]
async fn retain_as_published_and_no_local_are_honoured() {
    let server = Server::start("").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let as_published = Filter { preserve_retain: true, ..Filter::new("a", QoS::AtLeastOnce) };
    let mut subscriber = Mqtt5::connect(server.mqtt(), "subscriber").await;
    subscriber.subscribe_as(as_published).await;
    publisher.retain("a", "1").await;
    assert!(subscriber.next().await.retain, "[MQTT-3.3.1-13]");

    publisher.subscribe_as(Filter { nolocal: true, ..Filter::new("b", QoS::AtLeastOnce) }).await;
    publisher.publish("b", "my own").await;
    subscriber.publish("b", "another's").await;
    assert_eq!(publisher.next_text().await, "another's", "[MQTT-3.8.3-3]");
}

#[tokio::test]
async fn retained_messages_are_neither_kept_for_nor_shown_by_work_routes() {
    let route = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";
    let server = Server::start(route).await;
    let mut client = Mqtt5::connect(server.mqtt(), "client").await;
    client.retain("jobs", "1").await;
    client.subscribe("#").await;
    assert!(client.next_within(LULL).await.is_none(), "it is work, not a last value");
}

#[tokio::test]
async fn a_share_gives_each_message_to_one_member_in_turn_mqtt_4_8_2() {
    let server = Server::start("").await;
    let mut members = [
        Mqtt5::connect(server.mqtt(), "one").await,
        Mqtt5::connect(server.mqtt(), "two").await,
        Mqtt5::connect(server.mqtt(), "three").await,
    ];
    for member in &mut members {
        assert_eq!(member.subscribe("$share/readers/news/#").await, GRANTED);
    }
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    for n in 0..9 {
        publisher.publish("news/a", &n.to_string()).await;
    }
    let mut all = Vec::new();
    for member in &mut members {
        for _ in 0..3 {
            all.push(member.next_text().await);
        }
        assert!(member.next_within(LULL).await.is_none(), "three each");
    }
    all.sort();
    assert_eq!(all.join(""), "012345678");
}

#[tokio::test]
async fn subscriptions_tell_their_identifiers_and_overlapping_ones_give_a_copy_each() {
    let server = Server::start("").await;
    let mut client = MqttWire::connect(server.mqtt(), V5, "client").await;
    for (packet_id, identifier, filter) in [(1, 7, "a/+"), (2, 9, "a/#")] {
        let properties = [2, 0x0b, identifier];
        let body = [&[0, packet_id][..], &properties, &text(filter), &[1]].concat();
        client.send(&packet(0x82, &body)).await;
        assert_eq!(client.next().await, (0x90, vec![0, packet_id, 0, 1]), "granted QoS 1");
    }
    Mqtt5::connect(server.mqtt(), "publisher").await.publish("a/b", "x").await;
    let mut identifiers = Vec::new();
    for _ in 0..2 {
        let (first, body) = client.next().await;
        assert_eq!((first, &body[..5]), (0x32, &text("a/b")[..]), "QoS 1");
        assert_eq!((body[7], body[8]), (2, 0x0b), "one property, the subscription identifier");
        identifiers.push(body[9]);
    }
    identifiers.sort();
    assert_eq!(identifiers, [7, 9]);
}

#[tokio::test]
async fn a_message_comes_at_the_lower_of_its_qos_and_the_granted_one_mqtt_3_8_4_8() {
    let server = Server::start("").await;
    let mut client = Mqtt5::connect(server.mqtt(), "client").await;
    let exactly_once = SubscribeReasonCode::Success(QoS::ExactlyOnce);
    assert_eq!(client.subscribe_as(Filter::new("a", QoS::ExactlyOnce)).await, exactly_once);
    let at_most_once = SubscribeReasonCode::Success(QoS::AtMostOnce);
    assert_eq!(client.subscribe_as(Filter::new("b", QoS::AtMostOnce)).await, at_most_once);
    client.publish("b", "1").await;
    let got = client.next().await;
    assert_eq!((payload(&got).as_str(), got.qos), ("1", QoS::AtMostOnce));
    for n in 0..300 {
        client.publish_once("a", &n.to_string()).await;
        let got = client.next().await;
        assert_eq!((payload(&got), got.qos), (n.to_string(), QoS::ExactlyOnce));
    }
    client.publish("a", "1").await;
    assert_eq!(client.next().await.qos, QoS::AtLeastOnce);
}

#[tokio::test]
async fn an_unsubscribed_filter_gives_nothing_more() {
    let server = Server::start("").await;
    let mut client = Mqtt5::connect(server.mqtt(), "client").await;
    client.subscribe("a").await;
    assert_eq!(client.publish("a", "1").await, PubAckReason::Success);
    assert_eq!(client.next_text().await, "1");
    client.unsubscribe("a").await;
    assert_eq!(client.publish("a", "2").await, PubAckReason::NoMatchingSubscribers);
    assert!(client.next_within(LULL).await.is_none());
}

#[tokio::test]
async fn one_packet_subscribes_to_many_filters_and_each_has_its_answer() {
    let server = Server::start("").await;
    let mut client = MqttWire::connect(server.mqtt(), V3, "client").await;
    let filters = [(&b"a"[..], 0), (b"b/#", 1), (b"c", 2), (b"$share/g", 1)];
    let list: Vec<u8> =
        filters.iter().flat_map(|(filter, qos)| [text(filter), vec![*qos]].concat()).collect();
    client.send(&packet(0x82, &[&[0, 5][..], &list].concat())).await;
    assert_eq!(client.next().await, (0x90, vec![0, 5, 0, 1, 2, 0x80]), "[MQTT-3.9.3-1]");
}

#[tokio::test]
async fn a_subscriber_that_acknowledges_nothing_gets_no_more_than_its_receive_maximum() {
    let server = Server::start("").await;
    let mut client = MqttWire { wire: linkspan_integration_tests::wire::Wire::to(server.mqtt()).await };
    let properties = [3, 0x21, 0, 2];
    let connect = linkspan_integration_tests::mqtt_wire::connect(
        V5,
        2,
        0,
        &[&properties[..], &text("client")].concat(),
    );
    client.send(&connect).await;
    assert_eq!(client.next().await.1[1], 0, "CONNACK");
    assert_eq!(client.subscribe(V5, "a").await, 1);
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    for n in 0..5 {
        publisher.publish("a", &n.to_string()).await;
    }
    let (_, first) = client.next().await;
    let (_, second) = client.next().await;
    assert_eq!((first.last(), second.last()), (Some(&b'0'), Some(&b'1')));
    assert!(within(LULL, client.next()).await.is_none(), "[MQTT-3.3.4-9]");
    client.send(&packet(0x40, &first[3..5])).await;
    assert_eq!(client.next().await.1.last(), Some(&b'2'), "one acknowledged, one more");
}

#[tokio::test]
async fn properties_of_a_message_reach_a_subscriber_of_mqtt_5_and_not_one_of_3() {
    let server = Server::start("").await;
    let (mut five, mut three) =
        (Mqtt5::connect(server.mqtt(), "five").await, MqttWire::connect(server.mqtt(), V3, "three").await);
    five.subscribe("a").await;
    three.subscribe(V3, "a").await;
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        response_topic: Some("answers".into()),
        correlation_data: Some(vec![0, 255].into()),
        user_properties: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
        content_type: Some("text/plain".into()),
        ..PublishProperties::default()
    };
    Mqtt5::connect(server.mqtt(), "publisher").await.publish_as("a", "x", false, sent.clone()).await;
    assert_eq!(five.next().await.properties, Some(sent));
    assert_eq!(three.next().await, (0x32, [&text("a")[..], &[0, 1], b"x"].concat()));
}

/// A SUBSCRIBE of MQTT 5 for `filter` with these options.
fn subscribe_with(filter: &str, options: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1, 0][..], &text(filter), &[options]].concat())
}

/// The payload of a PUBLISH at QoS 1 to a topic of one letter, and its PUBACK; `properties` is what MQTT 5 has in between.
fn delivered((first, body): (u8, Vec<u8>), properties: usize) -> (String, Vec<u8>) {
    assert_eq!(first & 0xf6, 0x32, "a PUBLISH at QoS 1: {body:?}");
    let payload = String::from_utf8(body[5 + properties..].to_vec()).unwrap();
    (payload, packet(0x40, &body[3..5]))
}

#[tokio::test]
async fn a_replaced_subscription_loses_nothing_mqtt_3_8_4_4() {
    let server = Server::start("").await;
    for filter in ["t", "$share/g/t"] {
        let mut client = MqttWire::connect_narrow(server.mqtt(), "client", 2).await;
        client.send(&subscribe_with(filter, 1)).await;
        assert_eq!(client.next().await.0, 0x90);
        let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
        for n in 0..4 {
            publisher.publish("t", &n.to_string()).await;
        }
        let (zero, first_ack) = delivered(client.next().await, 1);
        let (one, second_ack) = delivered(client.next().await, 1);
        assert_eq!((zero.as_str(), one.as_str()), ("0", "1"));
        // At QoS 0 [MQTT-3.8.4-3], and at QoS 1 again, with two in hand and two that wait.
        client.send(&[subscribe_with(filter, 0), subscribe_with(filter, 1)].concat()).await;
        publisher.publish("t", "4").await;
        client.send(&[first_ack, second_ack].concat()).await;
        let (mut granted, mut got) = (Vec::new(), Vec::new());
        while got.len() < 3 {
            match client.next().await {
                (0x90, body) => granted.extend(body.last().copied()),
                (0x30, body) => got.push(String::from_utf8(body[4..].to_vec()).unwrap()),
                publish => {
                    let (payload, ack) = delivered(publish, 1);
                    got.push(payload);
                    client.send(&ack).await;
                }
            }
        }
        assert_eq!((granted, got.concat().as_str()), (vec![0, 1], "234"), "{filter}");
        client.ping().await;
    }
}

#[tokio::test]
async fn a_client_for_which_too_much_waits_is_sent_away_and_told_the_limit() {
    let server = Server::start("[limits]\nsession-high = \"4 KiB\"\nsession-limit = \"16 KiB\"").await;
    let mut five = MqttWire::connect_narrow(server.mqtt(), "five", 1).await;
    assert_eq!(five.subscribe(V5, "t").await, 1);
    let mut three = MqttWire::connect(server.mqtt(), V3, "three").await;
    assert_eq!(three.subscribe(V3, "t").await, 1);
    let mut other = Mqtt5::connect(server.mqtt(), "other").await;
    other.subscribe("t").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let kibibyte = "x".repeat(1024);
    // MQTT 3.1.1 has no receive maximum: 1024 may be in hand.
    for _ in 0..1024 + 20 {
        publisher.publish("t", &kibibyte).await;
        other.next().await;
    }
    let (given, _) = delivered(five.next().await, 1);
    assert_eq!(given.len(), 1024);
    let (first, body) = five.next().await;
    let text = String::from_utf8_lossy(&body);
    assert_eq!((first, body[0]), (0xe0, 0x97), "DISCONNECT, quota exceeded: {text}");
    assert!(text.contains("session-limit of 16384 bytes"), "{text}");
    assert!(five.wire.rest().await.is_empty(), "and it is closed");
    for _ in 0..1024 {
        delivered(three.next().await, 0);
    }
    assert!(three.wire.rest().await.is_empty(), "MQTT 3.1.1 has no word for it");
}
