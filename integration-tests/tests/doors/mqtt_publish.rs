//! MQTT: publishing at every QoS.

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, packet, publish};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::{Server, soon};
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::LULL;

#[tokio::test]
async fn a_message_of_qos_2_is_published_once_however_often_it_is_sent_mqtt_4_3_3() {
    let server = Server::start("").await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe("once").await;
    for (level, properties) in [(V3, &[][..]), (V5, &[0][..])] {
        let mut client = MqttWire::connect(server.mqtt(), level, "publisher").await;
        let rest = [&[0, 9][..], properties, b"first"].concat();
        client.send(&publish(0b0100, "once", &rest)).await;
        assert_eq!(client.next().await, (0x50, vec![0, 9]), "PUBREC");
        client.send(&publish(0b1100, "once", &rest)).await;
        assert_eq!(client.next().await, (0x50, vec![0, 9]), "PUBREC again [MQTT-4.3.3-10]");
        for _ in 0..2 {
            client.send(&packet(0x62, &[0, 9])).await;
            let (first, body) = client.next().await;
            assert_eq!((first, &body[..2]), (0x70, &[0, 9][..]), "PUBCOMP, also when it is repeated");
        }
        let rest = [&[0, 9][..], properties, b"second"].concat();
        client.send(&publish(0b0100, "once", &rest)).await;
        assert_eq!(client.next().await, (0x50, vec![0, 9]), "the identifier is free again [MQTT-4.3.3-12]");
        client.send(&packet(0x62, &[0, 9])).await;
        assert_eq!(client.next().await, (0x70, vec![0, 9]));
        assert_eq!(watcher.next_text().await, "first");
        assert_eq!(watcher.next_text().await, "second");
        assert!(watcher.next_within(LULL).await.is_none(), "nothing twice");
    }
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_the_messages_mqtt_4_6_0_2() {
    let server = Server::start("").await;
    let mut client = MqttWire::connect(server.mqtt(), V3, "publisher").await;
    client.subscribe(V3, "self").await;
    let mut bytes = Vec::new();
    for id in 1..=200 {
        bytes.extend(publish(0b0010, "order", &[0, id, b'x']));
    }
    client.send(&bytes).await;
    for id in 1..=200 {
        assert_eq!(client.next().await, (0x40, vec![0, id]), "PUBACK");
    }
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic_until_it_is_set_anew() {
    let server = Server::start("").await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe("#").await;
    let mut client = MqttWire::connect(server.mqtt(), V5, "publisher").await;
    let alias = [3, 0x23, 0, 5];
    for (topic, payload) in [("a", "1"), ("", "2"), ("b", "3"), ("", "4")] {
        client.send(&publish(0, topic, &[&alias[..], payload.as_bytes()].concat())).await;
    }
    client.ping().await;
    for (topic, payload) in [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")] {
        let got = watcher.next().await;
        assert_eq!((&got.topic[..], &got.payload[..]), (topic.as_bytes(), payload.as_bytes()));
    }
}

#[tokio::test]
async fn nobody_to_give_a_message_to_is_no_error() {
    let server = Server::start("").await;
    let mut five = Mqtt5::connect(server.mqtt(), "five").await;
    assert_eq!(five.publish("nowhere", "1").await, PubAckReason::NoMatchingSubscribers);
    let mut three = MqttWire::connect(server.mqtt(), V3, "three").await;
    three.send(&publish(0b0010, "nowhere", &[0, 1, b'x'])).await;
    assert_eq!(three.next().await, (0x40, vec![0, 1]));
}

#[tokio::test]
async fn the_servers_own_topics_cannot_be_published_to() {
    let server = Server::start("").await;
    let mut five = Mqtt5::connect(server.mqtt(), "five").await;
    assert_eq!(five.publish("$SYS/uptime", "1").await, PubAckReason::NotAuthorized);
    let mut three = MqttWire::connect(server.mqtt(), V3, "three").await;
    three.send(&publish(0b0010, "$SYS/uptime", &[0, 1, b'x'])).await;
    assert_eq!(three.wire.rest().await, b"", "MQTT 3.1.1 has no other answer than to close");
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole() {
    let server = Server::start("").await;
    let mut watcher = MqttWire::connect(server.mqtt(), V3, "watcher").await;
    watcher.subscribe(V3, "large").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let queue = amqp.bound("amq.topic", "large").await;
    let mut client = MqttWire::connect(server.mqtt(), V3, "publisher").await;
    for size in [0_usize, 1, 127, 128, 16_383, 16_384, 40_000, 200_000, 3_000_000] {
        let payload: Vec<u8> = (0..size).map(|at| b'a' + (at % 23) as u8).collect();
        let packet = publish(0b0010, "large", &[&[0, 1][..], &payload].concat());
        client.send(&packet).await;
        assert_eq!(client.next().await, (0x40, vec![0, 1]), "PUBACK of {size} bytes");
        let (first, body) = soon("the message", watcher.next()).await;
        assert_eq!(first, 0x32);
        assert!(body[9..] == payload, "{size} bytes over MQTT");
        watcher.send(&[&[0x40, 2][..], &body[7..9]].concat()).await;
        let got = amqp.get(&queue).await.expect("a message");
        assert!(got.as_bytes() == payload, "{size} bytes over AMQP");
    }
}
