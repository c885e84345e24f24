//! From CONNECT to CONNACK.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::BackendError;

use super::client::{House, connect, connect_with, packet, publish, until};
use crate::doors::mqtt::Limits;
use crate::identity::{Account, PasswordText, Users, hash_password};
use crate::protocol::mqtt::{Packet, ReasonCode, Version};

#[tokio::test]
async fn a_client_of_3_1_1_is_welcomed_without_a_session_mqtt_3_2_2_3() {
    let house = House::new();
    house.v311("a").await.ping().await;
    let client = &house.broker.clients()[0];
    assert_eq!((&*client.identifier, &*client.user, &*client.vhost), ("a", "anonymous", "/"));
    let session = client.session.as_ref().unwrap();
    assert_eq!((session.fresh, session.keep, session.will.is_some()), (true, 0, false));
}

#[tokio::test]
async fn a_client_of_5_0_is_told_what_it_may_do() {
    let house = House::with(Limits { packet: 65_536, topic_aliases: 7, ..Limits::default() });
    let mut client = house.client().await;
    client.send(&connect_with(5, 0, 0, &[0x11, 0, 0, 0, 60], &[b"a"])).await;
    let look = |packet: &Packet<'_>| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert!(!connack.session_present, "[MQTT-3.2.2-3]");
        let told = connack.properties;
        assert_eq!(told.session_expiry_interval, None, "as it asks (§3.2.2.3.2)");
        assert_eq!(told.receive_maximum.unwrap().get(), 1024);
        assert_eq!(told.maximum_packet_size.unwrap().get(), 65_536);
        assert_eq!(told.topic_alias_maximum, Some(7));
        assert_eq!((told.maximum_qos, told.retain_available), (None, None), "all of it is there");
        assert_eq!(told.assigned_client_identifier, None);
        assert_eq!(told.server_keep_alive, None);
        assert_eq!(told.response_information, None);
    };
    client.decoded(Version::V5, look).await;
}

#[tokio::test]
async fn a_client_without_a_name_gets_one_mqtt_3_1_3_6() {
    let house = House::new();
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut client = house.client().await;
        client.send(&connect(5, "")).await;
        let look = |packet: &Packet<'_>| match packet {
            Packet::Connack(connack) => connack.properties.assigned_client_identifier.unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        names.push(client.decoded(Version::V5, look).await);
    }
    assert_ne!(names[0], names[1], "[MQTT-3.1.3-6]");
    house.v311("").await;
}

#[tokio::test]
async fn a_nameless_client_that_wants_its_session_kept_is_refused_mqtt_3_1_3_8() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&connect_with(4, 0, 0, &[], &[b""])).await;
    client.expect(&[0x20, 2, 0, 2]).await;
    client.closed().await;
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_answered_mqtt_3_1_2_2() {
    let house = House::new();
    let mut old = house.client().await;
    old.send(&packet(0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\x01a")).await;
    old.expect(&[0x20, 2, 0, 1]).await;
    old.closed().await;
    let mut new = house.client().await;
    new.send(&packet(0x10, b"\0\x04MQTT\x06\x02\0\0\0\0\x01a")).await;
    let answer = new.packet().await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x84));
    new.closed().await;
}

#[tokio::test]
async fn the_first_packet_is_a_connect_or_the_connection_closes_mqtt_3_1_0_1() {
    let house = House::new();
    for bytes in [
        publish(0x30, "a", None, b"x"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0xC0, 0],
        vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        packet(0x10, b"\0\x04MQTX\x04\x02\0\0\0\x01a"),
        packet(0x10, b"\0\x04MQTT\x04\x03\0\0\0\x01a"),
    ] {
        let mut client = house.client().await;
        client.send(&bytes).await;
        client.closed().await;
    }
    assert!(house.broker.clients().is_empty());
    house.v311("still-served").await;
}

#[tokio::test]
async fn a_malformed_connect_of_5_0_is_told_what_is_wrong_with_it() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&packet(0x10, b"\0\x04MQTT\x05\x03\0\0\0\0\x01a")).await;
    let answer = client.packet().await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x81), "[MQTT-3.1.2-3]");
    client.closed().await;
}

#[tokio::test]
async fn a_connect_larger_than_strangers_may_send_takes_no_memory() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]).await;
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn who_sends_no_connect_in_time_is_closed() {
    let house = House::with(Limits { connect_timeout: Duration::from_secs(5), ..Limits::default() });
    let mut client = house.client().await;
    client.send(&[0x10]).await;
    client.closed().await;
}

#[tokio::test]
async fn packets_may_follow_a_connect_at_once_mqtt_3_1_4_6() {
    let house = House::new();
    let mut client = house.client().await;
    let mut bytes = connect(4, "a");
    bytes.extend(publish(0x32, "t", Some(9), b"early"));
    client.send(&bytes).await;
    client.expect(&[0x20, 2, 0, 0, 0x40, 2, 0, 9]).await;
    assert_eq!(house.broker.payloads(), ["early"]);
}

#[tokio::test]
async fn a_connect_may_come_byte_by_byte() {
    let house = House::new();
    let mut client = house.client().await;
    for byte in connect(4, "slow") {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    client.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn names_and_passwords_are_checked_mqtt_3_1_4_2() {
    let hash = PasswordText::parse(&hash_password(b"right").unwrap()).unwrap();
    let here = Account { password: hash.clone(), vhosts: None };
    let elsewhere = Account { password: hash, vhosts: Some(vec!["lab".into()]) };
    let (name, other): (Arc<str>, Arc<str>) = ("sensor".into(), "visitor".into());
    let house = House::of(Limits::default(), Users::new([(&name, &here), (&other, &elsewhere)]));
    let flags = 0b1100_0010;
    for (fields, code, code5) in [
        ([&b"c"[..], b"sensor", b"right"], 0, 0),
        ([&b"c"[..], b"sensor", b"wrong"], 4, 0x86),
        ([&b"c"[..], b"nobody", b"right"], 4, 0x86),
        ([&b"c"[..], b"visitor", b"right"], 5, 0x87),
    ] {
        let mut client = house.client().await;
        client.send(&connect_with(4, flags, 0, &[], &fields)).await;
        client.expect(&[0x20, 2, 0, code]).await;
        let mut client = house.client().await;
        client.send(&connect_with(5, flags, 0, &[], &fields)).await;
        assert_eq!(client.packet().await[3], code5);
    }
    let mut anonymous = house.client().await;
    anonymous.send(&connect(4, "c")).await;
    anonymous.expect(&[0x20, 2, 0, 5]).await;
    anonymous.closed().await;
}

#[tokio::test]
async fn extended_authentication_is_not_offered_mqtt_4_12_0_1() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&connect_with(5, 2, 0, b"\x15\0\x05SCRAM", &[b"a"])).await;
    assert_eq!(client.packet().await[3], 0x8C);
    client.closed().await;
}

#[tokio::test]
async fn a_back_end_that_is_away_is_a_server_that_is_unavailable() {
    let house = House::new();
    house.broker.refuse_clients(Some(BackendError::Away { name: "rabbit".into(), why: "refused".into() }));
    let mut client = house.client().await;
    client.send(&connect(4, "a")).await;
    client.expect(&[0x20, 2, 0, 3]).await;
    client.closed().await;
    let mut client = house.client().await;
    client.send(&connect(5, "a")).await;
    let look = |packet: &Packet<'_>| match packet {
        Packet::Connack(connack) => {
            assert_eq!(connack.reason, ReasonCode::ServerUnavailable);
            assert!(connack.properties.reason_string.unwrap().contains("rabbit"));
        }
        other => panic!("{other:?}"),
    };
    client.decoded(Version::V5, look).await;
    client.closed().await;
}

#[tokio::test]
async fn the_server_may_choose_the_keep_alive_mqtt_3_2_2_21() {
    let house = House::with(Limits { keep_alive: 30, ..Limits::default() });
    for (asked, told) in [(0, Some(30)), (31, Some(30)), (30, None), (5, None)] {
        let mut client = house.client().await;
        client.send(&connect_with(5, 2, asked, &[], &[b"a"])).await;
        let look = |packet: &Packet<'_>| match packet {
            Packet::Connack(connack) => connack.properties.server_keep_alive,
            other => panic!("{other:?}"),
        };
        assert_eq!(client.decoded(Version::V5, look).await, told, "{asked} s asked for");
    }
}

#[tokio::test]
async fn a_client_identifier_names_the_newest_connection_mqtt_3_1_4_3() {
    let house = House::new();
    let mut first = house.v5("same").await;
    let mut second = house.v5("same").await;
    first.disconnected(0x8E).await;
    until("the first one's scope is closed", || house.broker.closed().len() == 1).await;
    let mut third = house.v311("same").await;
    second.disconnected(0x8E).await;
    third.ping().await;
    let mut fourth = house.v311("same").await;
    third.closed().await;
    fourth.ping().await;
}

#[tokio::test]
async fn a_take_over_waits_until_the_one_before_is_gone() {
    let house = House::new();
    let _first = house.v311("same").await;
    let _second = house.v311("same").await;
    assert_eq!(house.broker.closed().len(), 1, "the CONNACK came before the first one's scope was closed");
}

#[tokio::test]
async fn connections_end_when_the_door_stops() {
    let house = House::with(Limits { farewell: Duration::from_secs(1), ..Limits::default() });
    let mut five = house.v5("five").await;
    let mut old = house.v311("old").await;
    let silent = house.client().await;
    house.stopper.stop();
    five.disconnected(0x8B).await;
    old.closed().await;
    drop((five, old, silent));
    house.stopped().await;
}
