//! Malformed and forbidden MQTT packets, written by hand.

use linkspan_integration_tests::Server;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, connect, packet, publish, text};
use linkspan_integration_tests::wire::Wire;

use crate::bystander::Bystander;

/// What a CONNACK or DISCONNECT of MQTT 5 says, when it is the first packet of `bytes`.
fn code(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [0x20, _, _, code, ..] | [0xe0, _, code, ..] => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn a_bad_connect_is_answered_as_its_version_says_and_the_socket_closed() {
    let server = Server::start("").await;
    let bystander = Bystander::of(&server).await;
    let id = text("x");
    let five = [&[0][..], &id].concat();
    let unknown_property = [&[2, 0x7f, 0][..], &id].concat();
    let twice = [&[10, 0x21, 0, 5, 0x21, 0, 5, 0x22, 0, 1, 0][..], &id].concat();
    let twice = [&[6][..], &twice[1..7], &id].concat();
    let rows: [(&str, Vec<u8>, Option<u8>); 14] = [
        ("no CONNECT first [MQTT-3.1.0-1]", packet(0xc0, &[]), None),
        ("no MQTT at all", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), None),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], None),
        ("3.1.1: the reserved flag is set [MQTT-3.1.2-3]", connect(V3, 3, 0, &id), None),
        ("5: the reserved flag is set [MQTT-3.1.2-3]", connect(V5, 3, 0, &five), Some(0x81)),
        ("3.1.1: a will QoS without a will", connect(V3, 0b0000_1010, 0, &id), None),
        ("5: will QoS 3", connect(V5, 0b0001_1110, 0, &five), Some(0x81)),
        ("protocol level 3 [MQTT-3.1.2-2]", connect(3, 2, 0, &id), Some(0x01)),
        ("protocol level 9 [MQTT-3.1.2-2]", connect(9, 2, 0, &five), Some(0x84)),
        ("5: a field is cut", connect(V5, 2, 0, &[0, 0, 9, b'x']), Some(0x81)),
        ("5: an unknown property", connect(V5, 2, 0, &unknown_property), Some(0x81)),
        ("5: a property twice", connect(V5, 2, 0, &twice), Some(0x82)),
        ("3.1.1: no identifier, but to be kept [MQTT-3.1.3-8]", connect(V3, 0, 0, &text("")), Some(0x02)),
        ("5: not UTF-8 [MQTT-1.5.4-1]", connect(V5, 2, 0, &[0, 0, 1, 0xff]), Some(0x81)),
    ];
    for (what, bytes, expected) in rows {
        let mut wire = Wire::to(server.mqtt()).await;
        wire.send(&bytes).await;
        let answer = wire.rest().await;
        match expected {
            None => assert_eq!(answer, b"", "{what}: closed without a word"),
            Some(expected) => {
                assert_eq!(answer.first(), Some(&0x20), "{what}: a CONNACK: {answer:02x?}");
                assert_eq!(code(&answer), Some(expected), "{what}: {answer:02x?}");
            }
        }
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn a_bad_packet_ends_an_mqtt_5_connection_with_its_code_and_an_mqtt_3_one_without_a_word() {
    let server = Server::start("").await;
    let bystander = Bystander::of(&server).await;
    let filter = |filter: &str, options: u8| [&[0, 1][..], &text(filter), &[options]].concat();
    let filter5 = |filter: &str, options: u8| [&[0, 1, 0][..], &text(filter), &[options]].concat();
    let rows: [(&str, Vec<u8>, Vec<u8>, u8); 15] = [
        ("packet type 0", packet(0, &[]), packet(0, &[]), 0x81),
        ("QoS 3 [MQTT-3.3.1-4]", publish(6, "a", &[0, 1]), publish(6, "a", &[0, 1, 0]), 0x81),
        ("DUP at QoS 0 [MQTT-3.3.1-2]", publish(8, "a", &[]), publish(8, "a", &[0]), 0x81),
        ("a wildcard in a topic [MQTT-3.3.2-2]", publish(0, "a/+", &[]), publish(0, "a/+", &[0]), 0x90),
        ("packet identifier 0 [MQTT-2.2.1-3]", publish(2, "a", &[0, 0]), publish(2, "a", &[0, 0, 0]), 0x82),
        ("a topic is cut", packet(0x30, &[0, 9, b'a']), packet(0x30, &[0, 9, b'a']), 0x81),
        ("a null character", publish(0, "a\0", &[]), publish(0, "a\0", &[0]), 0x81),
        (
            "SUBSCRIBE's flags [MQTT-3.8.1-1]",
            packet(0x80, &filter("a", 1)),
            packet(0x80, &filter5("a", 1)),
            0x81,
        ),
        ("no filter [MQTT-3.8.3-2]", packet(0x82, &[0, 1]), packet(0x82, &[0, 1, 0]), 0x82),
        (
            "a bad filter [MQTT-4.7.1-1]",
            packet(0x82, &filter("a/#/b", 1)),
            packet(0x82, &filter5("a/#/b", 1)),
            0x8f,
        ),
        (
            "reserved bits [MQTT-3.8.3-5]",
            packet(0x82, &filter("a", 0x80)),
            packet(0x82, &filter5("a", 0xc0)),
            0x81,
        ),
        (
            "a second CONNECT [MQTT-3.1.0-2]",
            connect(V3, 2, 0, &text("x")),
            connect(V5, 2, 0, &[0, 0, 1, b'x']),
            0x82,
        ),
        ("a packet for servers only", packet(0xd0, &[]), packet(0xd0, &[]), 0x82),
        (
            "a length of five bytes",
            vec![0x30, 0x80, 0x80, 0x80, 0x80, 1],
            vec![0x30, 0x80, 0x80, 0x80, 0x80, 1],
            0x81,
        ),
        ("a packet of 200 MiB", vec![0x30, 0x80, 0x80, 0x80, 0x64], vec![0x30, 0x80, 0x80, 0x80, 0x64], 0x95),
    ];
    for (what, three, five, expected) in rows {
        let mut client = MqttWire::connect(server.mqtt(), V3, "bad").await;
        client.send(&three).await;
        assert_eq!(client.wire.rest().await, b"", "{what}: MQTT 3.1.1 is closed without a word");

        let mut client = MqttWire::connect(server.mqtt(), V5, "bad").await;
        client.send(&five).await;
        let answer = client.wire.rest().await;
        assert_eq!((answer.first(), code(&answer)), (Some(&0xe0), Some(expected)), "{what}: {answer:02x?}");
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn rules_that_only_mqtt_5_has_are_held() {
    let server = Server::start("[doors.mqtt]\nreceive-maximum = 2\n").await;
    let bystander = Bystander::of(&server).await;
    let three_open: Vec<u8> = (1..=3).flat_map(|id| publish(4, "a", &[0, id, 0])).collect();
    let rows: [(&str, Vec<u8>, u8); 9] = [
        ("topic alias 0 [MQTT-3.3.2-8]", publish(0, "a", &[3, 0x23, 0, 0]), 0x94),
        ("a topic alias above the maximum [MQTT-3.3.2-9]", publish(0, "a", &[3, 0x23, 0, 33]), 0x94),
        ("a topic alias that stands for nothing", publish(0, "", &[3, 0x23, 0, 1]), 0x82),
        ("no topic and no alias", publish(0, "", &[0]), 0x82),
        ("more than the receive maximum [MQTT-3.3.4-7]", three_open, 0x93),
        ("a response topic with a wildcard [MQTT-3.3.2-14]", publish(0, "a", &[4, 8, 0, 1, b'#']), 0x82),
        ("a subscription identifier in a PUBLISH [MQTT-3.3.4-6]", publish(0, "a", &[2, 0x0b, 1]), 0x82),
        ("AUTH without a method", packet(0xf0, &[]), 0x82),
        (
            "no local on a share [MQTT-3.8.3-4]",
            packet(0x82, &[&[0, 1, 0][..], &text("$share/g/a"), &[5]].concat()),
            0x82,
        ),
    ];
    for (what, bytes, expected) in rows {
        let mut client = MqttWire::connect(server.mqtt(), V5, "bad").await;
        client.send(&bytes).await;
        let mut answer = client.wire.rest().await;
        while answer.first() == Some(&0x50) {
            answer.drain(..usize::from(answer[1]) + 2);
        }
        assert_eq!((answer.first(), code(&answer)), (Some(&0xe0), Some(expected)), "{what}: {answer:02x?}");
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn a_connect_that_does_not_come_in_time_costs_the_connection() {
    let server = Server::start("[doors.mqtt]\nconnect-timeout = \"200ms\"\n").await;
    let whole = connect(V3, 2, 0, &text("slow"));
    for part in [0, 1, whole.len() - 1] {
        let mut wire = Wire::to(server.mqtt()).await;
        wire.send(&whole[..part]).await;
        assert_eq!(wire.rest().await, b"", "after {part} bytes");
    }
    MqttWire::connect(server.mqtt(), V3, "quick").await.ping().await;
}
