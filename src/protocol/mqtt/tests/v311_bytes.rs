//! The bytes of MQTT 3.1.1, written by hand after the standard's text and figures.

use std::num::NonZeroU16;

use smallvec::smallvec;

use super::{decode, with_header};
use crate::protocol::mqtt::*;

const TEN: NonZeroU16 = NonZeroU16::new(10).unwrap();

/// The bytes are this packet, both ways.
fn are(bytes: &[u8], sender: Sender, packet: &Packet<'_>) {
    assert_eq!(decode(bytes, Version::V311, sender).as_ref(), Ok(packet), "{bytes:02x?}");
    let mut out = Vec::new();
    packet.encode(Version::V311, &mut out).unwrap();
    assert_eq!(out, bytes, "{packet:?}");
}

fn refused(bytes: &[u8], sender: Sender, error: Error) {
    assert_eq!(decode(bytes, Version::V311, sender), Err(error), "{bytes:02x?}");
}

/// Figure 3.6: name, level, flags, keep alive.
fn connect(flags: u8, payload: &[u8]) -> Vec<u8> {
    with_header(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 10][..], payload].concat())
}

#[test]
fn connect_as_in_figure_3_6() {
    // User name 1, password 1, will retain 0, will QoS 01, will 1, clean session 1: 0xCE.
    let payload = [
        &[0, 1, b'c'][..],
        &[0, 3, b'a', b'/', b'b', 0, 3, b'b', b'y', b'e'],
        &[0, 2, b'm', b'e', 0, 2, 0xFF, 0x00],
    ]
    .concat();
    let will = Will {
        topic: "a/b",
        payload: b"bye",
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: WillProperties::default(),
    };
    let expected = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 10,
        properties: ConnectProperties::default(),
        client_identifier: "c",
        will: Some(will),
        user_name: Some("me"),
        password: Some(Secret(&[0xFF, 0x00])),
    };
    are(&connect(0b1100_1110, &payload), Sender::Client, &Packet::Connect(expected));
}

#[test]
fn connect_without_anything() {
    let expected = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 10,
        properties: ConnectProperties::default(),
        client_identifier: "",
        will: None,
        user_name: None,
        password: None,
    };
    are(&connect(0b0000_0010, &[0, 0]), Sender::Client, &Packet::Connect(expected));
}

#[test]
fn connect_flags_are_checked() {
    let client = Sender::Client;
    refused(&connect(0b0000_0011, &[0, 1, b'c']), client, Error::ConnectFlagReserved); // [MQTT-3.1.2-3]
    refused(&connect(0b0000_1010, &[0, 1, b'c']), client, Error::WillFlags); // [MQTT-3.1.2-13]
    refused(&connect(0b0010_0010, &[0, 1, b'c']), client, Error::WillFlags); // [MQTT-3.1.2-15]
    refused(&connect(0b0001_1110, &[0, 1, b'c']), client, Error::WillQos); // [MQTT-3.1.2-14]
    refused(&connect(0b0100_0010, &[0, 1, b'c', 0, 0]), client, Error::PasswordWithoutUserName); // [MQTT-3.1.2-22]
    refused(&connect(0b1000_0010, &[0, 1, b'c']), client, Error::Truncated); // [MQTT-3.1.2-19]
    refused(&connect(0b0000_0010, &[0, 1, b'c', 0, 0]), client, Error::TrailingBytes); // [MQTT-3.1.2-18]
    refused(&connect(0b0000_0110, &[0, 1, b'c', 0, 1, b'#', 0, 0]), client, Error::TopicNameWildcard);
    refused(&connect(0b0000_0110, &[0, 1, b'c', 0, 0, 0, 0]), client, Error::TopicNameEmpty);
    refused(&connect(0b0000_0010, &[0, 1, 0xFF]), client, Error::Utf8); // [MQTT-3.1.3-4]
    refused(&connect(0b0000_0010, &[]), client, Error::Truncated); // [MQTT-3.1.3-3]
}

#[test]
fn connack_has_six_return_codes() {
    for code in 0..=5 {
        let expected = Connack {
            session_present: false,
            reason: ReasonCode::from_return_code(code).unwrap(),
            properties: ConnackProperties::default(),
        };
        are(&[0x20, 2, 0, code], Sender::Server, &Packet::Connack(expected));
    }
    let resumed = Connack {
        session_present: true,
        reason: ReasonCode::Success,
        properties: ConnackProperties::default(),
    };
    are(&[0x20, 2, 1, 0], Sender::Server, &Packet::Connack(resumed));
    let wrong = Error::ReasonCode { packet_type: PacketType::Connack, value: 6 };
    refused(&[0x20, 2, 0, 6], Sender::Server, wrong);
    refused(&[0x20, 2, 2, 0], Sender::Server, Error::ConnackFlags);
    refused(&[0x20, 2, 1, 5], Sender::Server, Error::SessionPresent); // [MQTT-3.2.2-4]
    refused(&[0x20, 3, 0, 0, 0], Sender::Server, Error::TrailingBytes);
}

#[test]
fn publish_as_in_figure_3_11() {
    // Topic a/b, packet identifier 10.
    let expected = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: Some(TEN),
        properties: PublishProperties::default(),
        payload: b"hi",
    };
    let bytes = [0x32, 9, 0, 3, b'a', b'/', b'b', 0, 10, b'h', b'i'];
    are(&bytes, Sender::Client, &Packet::Publish(expected));
    are(&bytes, Sender::Server, &Packet::Publish(expected));

    let flagged = Publish { dup: true, qos: Qos::ExactlyOnce, retain: true, payload: b"", ..expected };
    are(&[0x3D, 7, 0, 3, b'a', b'/', b'b', 0, 10], Sender::Client, &Packet::Publish(flagged));

    let bare = Publish { qos: Qos::AtMostOnce, packet_id: None, ..expected };
    are(&[0x30, 7, 0, 3, b'a', b'/', b'b', b'h', b'i'], Sender::Client, &Packet::Publish(bare));
}

#[test]
fn puback_pubrec_pubrel_and_pubcomp() {
    let ack = Ack::new(TEN, ReasonCode::Success);
    for sender in [Sender::Client, Sender::Server] {
        are(&[0x40, 2, 0, 10], sender, &Packet::Puback(ack));
        are(&[0x50, 2, 0, 10], sender, &Packet::Pubrec(ack));
        are(&[0x62, 2, 0, 10], sender, &Packet::Pubrel(ack)); // [MQTT-3.6.1-1]
        are(&[0x70, 2, 0, 10], sender, &Packet::Pubcomp(ack));
    }
    assert_eq!(AckKind::Pubrel.success(TEN), [0x62, 2, 0, 10]);
    refused(&[0x40, 2, 0, 0], Sender::Client, Error::PacketIdentifierZero); // [MQTT-2.3.1-1]
    refused(&[0x40, 3, 0, 10, 0], Sender::Client, Error::TrailingBytes);
    refused(&[0x40, 1, 0], Sender::Client, Error::Truncated);
}

#[test]
fn subscribe_as_in_figure_3_23() {
    // a/b with QoS 1, c/d with QoS 2.
    let payload = [0, 3, b'a', b'/', b'b', 1, 0, 3, b'c', b'/', b'd', 2];
    let bytes = with_header(0x82, &[&[0, 10][..], &payload].concat());
    let packet = Subscribe {
        packet_id: TEN,
        subscription_identifier: None,
        user_properties: UserProperties::NONE,
        subscriptions: Subscriptions::from_encoded(&payload, Version::V311).unwrap(),
    };
    are(&bytes, Sender::Client, &Packet::Subscribe(packet));
    let read: Vec<_> = packet.subscriptions.iter().map(|one| (one.filter, one.options.qos)).collect();
    assert_eq!(read, [("a/b", Qos::AtLeastOnce), ("c/d", Qos::ExactlyOnce)]);
}

#[test]
fn subscribe_is_checked() {
    let client = Sender::Client;
    refused(&[0x82, 2, 0, 10], client, Error::SubscribeEmpty); // [MQTT-3.8.3-3]
    refused(&with_header(0x82, &[0, 0, 0, 1, b'a', 0]), client, Error::PacketIdentifierZero);
    refused(&with_header(0x82, &[0, 10, 0, 1, b'a', 3]), client, Error::SubscriptionQos); // [MQTT-3-8.3-4]
    refused(&with_header(0x82, &[0, 10, 0, 1, b'a', 4]), client, Error::SubscriptionOptions); // [MQTT-3-8.3-4]
    refused(&with_header(0x82, &[0, 10, 0, 1, b'a']), client, Error::Truncated);
    refused(&with_header(0x82, &[0, 10, 0, 0, 1]), client, Error::TopicFilterEmpty); // [MQTT-4.7.3-1]
    refused(&with_header(0x82, &[0, 10, 0, 2, b'a', b'#', 1]), client, Error::TopicFilterWildcard); // [MQTT-4.7.1-2]
}

#[test]
fn suback_as_in_figure_3_26() {
    // Maximum QoS 0, maximum QoS 2, failure.
    let packet = Suback {
        packet_id: TEN,
        reason_string: None,
        user_properties: UserProperties::NONE,
        reasons: smallvec![ReasonCode::Success, ReasonCode::GrantedQos2, ReasonCode::UnspecifiedError],
    };
    are(&[0x90, 5, 0, 10, 0, 2, 0x80], Sender::Server, &Packet::Suback(packet));
    let wrong = Error::ReasonCode { packet_type: PacketType::Suback, value: 0x87 };
    refused(&[0x90, 3, 0, 10, 0x87], Sender::Server, wrong); // [MQTT-3.9.3-2]
    refused(&[0x90, 2, 0, 10], Sender::Server, Error::ReasonCodesEmpty(PacketType::Suback));
}

#[test]
fn every_refusal_of_a_subscription_is_a_failure_mqtt_3_9_3_2() {
    let reasons =
        smallvec![ReasonCode::TopicFilterInvalid, ReasonCode::GrantedQos1, ReasonCode::NotAuthorized];
    let user_properties = UserProperties::NONE;
    let packet =
        Packet::Suback(Suback { packet_id: TEN, reason_string: Some("no"), user_properties, reasons });
    let mut out = Vec::new();
    packet.encode(Version::V311, &mut out).unwrap();
    assert_eq!(out, [0x90, 5, 0, 10, 0x80, 1, 0x80]);
}

#[test]
fn unsubscribe_as_in_figure_3_30() {
    let payload = [0, 3, b'a', b'/', b'b', 0, 3, b'c', b'/', b'd'];
    let bytes = with_header(0xA2, &[&[0, 10][..], &payload].concat());
    let filters = TopicFilters::from_encoded(&payload).unwrap();
    let packet = Unsubscribe { packet_id: TEN, user_properties: UserProperties::NONE, filters };
    are(&bytes, Sender::Client, &Packet::Unsubscribe(packet));
    assert!(filters.iter().eq(["a/b", "c/d"]));
    refused(&[0xA2, 2, 0, 10], Sender::Client, Error::UnsubscribeEmpty); // [MQTT-3.10.3-2]
    refused(&with_header(0xA2, &[0, 0, 0, 1, b'a']), Sender::Client, Error::PacketIdentifierZero);
}

#[test]
fn unsuback_holds_a_packet_identifier_alone() {
    let packet = Unsuback {
        packet_id: TEN,
        reason_string: None,
        user_properties: UserProperties::NONE,
        reasons: smallvec![],
    };
    are(&[0xB0, 2, 0, 10], Sender::Server, &Packet::Unsuback(packet));
    refused(&[0xB0, 3, 0, 10, 0], Sender::Server, Error::TrailingBytes);
}

#[test]
fn pings_and_disconnect_are_two_bytes() {
    are(&[0xC0, 0], Sender::Client, &Packet::Pingreq);
    are(&[0xD0, 0], Sender::Server, &Packet::Pingresp);
    are(&[0xE0, 0], Sender::Client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    refused(&[0xC0, 1, 0], Sender::Client, Error::TrailingBytes);
    refused(&[0xE0, 1, 0], Sender::Client, Error::TrailingBytes);
}
