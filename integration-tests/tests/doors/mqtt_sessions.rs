//! MQTT: connections, who they belong to and what they leave behind.

use std::time::{Duration, Instant};

use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, connect, packet, text};
use linkspan_integration_tests::mqtt5::{Mqtt5, payload};
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{Cable, Server};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, LastWill};
use rumqttc::v5::{ConnectionError, StateError};

use crate::LULL;

fn reason(error: &ConnectionError) -> DisconnectReasonCode {
    match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => *reason_code,
        other => panic!("no DISCONNECT came: {other}"),
    }
}

#[tokio::test]
async fn the_will_of_a_cut_connection_is_published_and_retained_as_it_asks() {
    let server = Server::start("").await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe("status/+").await;
    let cable = Cable::to(server.mqtt()).await;
    let mut options = Mqtt5::options(cable.address(), "doomed");
    options.set_last_will(LastWill::new("status/doomed", "gone", QoS::AtLeastOnce, true, None));
    let doomed = Mqtt5::connect_with(options).await.unwrap();
    cable.cut().await;
    assert_eq!(watcher.next_text().await, "gone", "[MQTT-3.1.2-8]");
    drop(doomed);
    let mut late = Mqtt5::connect(server.mqtt(), "late").await;
    late.subscribe("status/doomed").await;
    let will = late.next().await;
    assert_eq!((payload(&will).as_str(), will.retain), ("gone", true));
}

#[tokio::test]
async fn who_says_goodbye_leaves_no_will_unless_it_asks_for_it() {
    let server = Server::start("").await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe("will").await;
    let with_will = [&[0][..], &text("polite"), &[0], &text("will"), &text("boo")].concat();
    for (goodbye, expected) in
        [(packet(0xe0, &[]), None), (packet(0xe0, &[0x04]), Some("boo")), (packet(0xe0, &[0]), None)]
    {
        let mut wire = Wire::to(server.mqtt()).await;
        wire.send(&connect(V5, 0b0000_0110, 0, &with_will)).await;
        wire.read(2).await;
        wire.send(&goodbye).await;
        wire.rest().await;
        let came = watcher.next_within(LULL).await.map(|will| payload(&will));
        assert_eq!(came.as_deref(), expected, "[MQTT-3.14.4-3] after {goodbye:02x?}");
    }
}

#[tokio::test]
async fn a_second_connection_takes_the_client_identifier_over_mqtt_3_1_4_3() {
    let server = Server::start("").await;
    let mut first = Mqtt5::connect(server.mqtt(), "device").await;
    first.subscribe("a").await;
    let mut second = Mqtt5::connect(server.mqtt(), "device").await;
    assert_eq!(reason(&first.end().await), DisconnectReasonCode::SessionTakenOver, "0x8E");
    second.subscribe("a").await;
    second.publish("a", "1").await;
    assert_eq!(second.next_text().await, "1");
    assert!(second.next_within(LULL).await.is_none(), "the first one's subscription is gone");

    let mut old = MqttWire::connect(server.mqtt(), V3, "device").await;
    assert_eq!(reason(&second.end().await), DisconnectReasonCode::SessionTakenOver);
    let _third = Mqtt5::connect(server.mqtt(), "device").await;
    assert_eq!(old.wire.rest().await, b"", "MQTT 3.1.1 has no DISCONNECT from a server");
}

#[tokio::test]
async fn a_client_without_identifier_is_given_one() {
    let server = Server::start("").await;
    let (one, other) = (Mqtt5::connect(server.mqtt(), "").await, Mqtt5::connect(server.mqtt(), "").await);
    let given = |client: &Mqtt5| {
        client
            .welcome
            .properties
            .as_ref()
            .and_then(|properties| properties.assigned_client_identifier.clone())
    };
    assert!(given(&one).is_some() && given(&one) != given(&other), "[MQTT-3.1.3-6]");
    MqttWire::connect(server.mqtt(), V3, "").await.ping().await;
}

#[tokio::test]
async fn the_welcome_says_what_this_server_does() {
    let server = Server::start("").await;
    let mut options = Mqtt5::options(server.mqtt(), "curious");
    options.set_session_expiry_interval(Some(3600)).set_clean_start(false);
    let client = Mqtt5::connect_with(options).await.unwrap();
    assert!(!client.welcome.session_present);
    let properties = client.welcome.properties.clone().unwrap();
    assert_eq!(properties.session_expiry_interval, None, "what it asked for");
    assert_eq!(properties.receive_max, Some(1024));
    assert_eq!(properties.max_packet_size, Some(16 << 20));
    assert_eq!(properties.topic_alias_max, Some(32));
    assert_eq!(properties.max_qos, None, "all of them");
    assert_eq!(properties.retain_available, None, "yes");
}

#[tokio::test]
async fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives_mqtt_3_1_2_22() {
    let server = Server::start("").await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe("will").await;
    let mut wire = Wire::to(server.mqtt()).await;
    let with_will = [&[0][..], &text("sleepy"), &[0], &text("will"), &text("asleep")].concat();
    wire.send(&connect(V5, 0b0000_0110, 1, &with_will)).await;
    let before = Instant::now();
    let rest = wire.rest().await;
    assert!(before.elapsed() > Duration::from_millis(1_300), "not before");
    let at = rest.iter().position(|byte| *byte == 0xe0).expect("a DISCONNECT");
    assert_eq!(rest[at + 2], 0x8d, "keep-alive timeout");
    assert_eq!(watcher.next_text().await, "asleep");

    let mut awake = MqttWire::connect_as(server.mqtt(), V3, "awake", 1).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        awake.ping().await;
    }
}

#[tokio::test]
async fn what_a_lost_client_had_not_acknowledged_is_given_to_another_worker() {
    let route = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";
    let server = Server::start(route).await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    for n in 0..3 {
        publisher.publish("jobs", &n.to_string()).await;
    }
    let mut lost = MqttWire::connect(server.mqtt(), V3, "lost").await;
    lost.subscribe(V3, "jobs").await;
    for n in [b'0', b'1', b'2'] {
        let (_, body) = lost.next().await;
        assert_eq!(body.last(), Some(&n));
        if n == b'1' {
            lost.send(&packet(0x40, &body[6..8])).await;
        }
    }
    drop(lost);
    let mut other = Mqtt5::connect(server.mqtt(), "other").await;
    other.subscribe("$queue/jobs").await;
    assert_eq!(other.next_text().await, "0");
    assert_eq!(other.next_text().await, "2");
    assert!(other.next_within(LULL).await.is_none(), "1 was acknowledged");
}
