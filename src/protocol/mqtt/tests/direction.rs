//! What a client may send and a server may not, and the reverse.

use super::{decode, with_header};
use crate::protocol::mqtt::*;

#[test]
fn packets_of_the_other_end_are_refused() {
    let client_only =
        [PacketType::Connect, PacketType::Subscribe, PacketType::Unsubscribe, PacketType::Pingreq];
    let server_only = [PacketType::Connack, PacketType::Suback, PacketType::Unsuback, PacketType::Pingresp];
    for (types, sender) in [(client_only, Sender::Server), (server_only, Sender::Client)] {
        for packet_type in types {
            for version in [Version::V311, Version::V5] {
                let error = decode(&[packet_type.first_byte(), 0], version, sender).unwrap_err();
                assert_eq!(error, Error::UnexpectedPacket { packet_type, sender });
                assert_eq!(error.reason(), ReasonCode::ProtocolError);
            }
        }
    }
}

#[test]
fn a_3_1_1_server_sends_no_disconnect() {
    let expected = Error::UnexpectedPacket { packet_type: PacketType::Disconnect, sender: Sender::Server };
    assert_eq!(decode(&[0xE0, 0], Version::V311, Sender::Server), Err(expected));
    assert!(decode(&[0xE0, 0], Version::V311, Sender::Client).is_ok());
    assert!(decode(&[0xE0, 1, 0x8B], Version::V5, Sender::Server).is_ok());
}

#[test]
fn auth_does_not_exist_in_3_1_1() {
    for sender in [Sender::Client, Sender::Server] {
        assert_eq!(decode(&[0xF0, 0], Version::V311, sender), Err(Error::ReservedPacketType(15)));
    }
}

#[test]
fn a_server_does_not_send_a_session_expiry_interval_mqtt_3_14_2_2() {
    let bytes = with_header(0xE0, &[0x81, 5, 0x11, 0, 0, 0, 9]);
    assert_eq!(decode(&bytes, Version::V5, Sender::Server), Err(Error::SessionExpiryFromServer));
    assert!(decode(&bytes, Version::V5, Sender::Client).is_ok());
}

#[test]
fn reason_codes_belong_to_packets_and_ends() {
    let refused = |bytes: &[u8], sender| match decode(bytes, Version::V5, sender) {
        Err(error @ Error::ReasonCode { .. }) => error.reason() == ReasonCode::ProtocolError,
        _ => false,
    };
    // Each with the statement that names its table.
    assert!(refused(&[0x20, 3, 0, 0x01, 0], Sender::Server), "[MQTT-3.2.2-8]");
    assert!(refused(&[0x40, 3, 0, 1, 0x92], Sender::Client), "[MQTT-3.4.2-1]");
    assert!(refused(&[0x50, 3, 0, 1, 0x81], Sender::Client), "[MQTT-3.5.2-1]");
    assert!(refused(&[0x62, 3, 0, 1, 0x10], Sender::Client), "[MQTT-3.6.2-1]");
    assert!(refused(&[0x70, 3, 0, 1, 0x80], Sender::Client), "[MQTT-3.7.2-1]");
    assert!(refused(&[0x90, 4, 0, 1, 0, 0x03], Sender::Server), "[MQTT-3.9.3-2]");
    assert!(refused(&[0xB0, 4, 0, 1, 0, 0x92], Sender::Server), "[MQTT-3.11.3-2]");
    assert!(refused(&[0xE0, 1, 0x04], Sender::Server), "[MQTT-3.14.2-1]: only clients have a will");
    assert!(refused(&[0xE0, 1, 0x8B], Sender::Client), "[MQTT-3.14.2-1]: only servers shut down");
    assert!(refused(&[0xF0, 2, 0x19, 0], Sender::Server), "[MQTT-3.15.2-1]: only clients start again");
    assert!(refused(&[0xF0, 2, 0x00, 0], Sender::Client), "[MQTT-3.15.2-1]: only servers are content");
    assert!(refused(&[0xE0, 1, 0x7F], Sender::Client), "a number that the standard does not have");
}

#[test]
fn properties_of_other_packets_are_malformed() {
    // Message expiry in CONNECT, CONNACK, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and AUTH; session expiry in PUBACK.
    let expiry = [5, 0x02, 0, 0, 0, 1];
    let connect = [&[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0][..], &expiry, &[0, 1, b'c']].concat();
    let cases = [
        (with_header(0x10, &connect), Sender::Client),
        (with_header(0x20, &[&[0, 0][..], &expiry].concat()), Sender::Server),
        (with_header(0x82, &[&[0, 1][..], &expiry, &[0, 1, b'f', 0]].concat()), Sender::Client),
        (with_header(0xA2, &[&[0, 1][..], &expiry, &[0, 1, b'f']].concat()), Sender::Client),
        (with_header(0xE0, &[&[0][..], &expiry].concat()), Sender::Client),
        (with_header(0xF0, &[&[0x18][..], &expiry].concat()), Sender::Client),
        (with_header(0x90, &[&[0, 1][..], &expiry, &[0]].concat()), Sender::Server),
        (with_header(0xB0, &[&[0, 1][..], &expiry, &[0]].concat()), Sender::Server),
        (with_header(0x40, &[&[0, 1, 0][..], &expiry].concat()), Sender::Client),
    ];
    for (bytes, sender) in cases {
        let error = decode(&bytes, Version::V5, sender).unwrap_err();
        assert_eq!(
            error,
            Error::PropertyNotAllowed(PropertyIdentifier::MessageExpiryInterval),
            "{bytes:02x?}"
        );
        assert_eq!(error.reason(), ReasonCode::MalformedPacket);
    }
}

/// A refused CONNECT's answer.
fn refusal(body: &[u8]) -> Option<Vec<u8>> {
    let error = Connect::decode(body).unwrap_err();
    Connack::refusal(body, &error).map(|(version, connack)| {
        let mut out = Vec::new();
        Packet::Connack(connack).encode(version, &mut out).unwrap();
        out
    })
}

#[test]
fn a_client_of_another_version_is_told_so_mqtt_3_1_2_2() {
    let old = [&[0, 6][..], b"MQIsdp", &[3, 2, 0, 10, 0, 1, b'c']].concat();
    assert_eq!(refusal(&old), Some(vec![0x20, 2, 0, 1]), "3.1 reads 3.1.1's CONNACK");
    let bridge = [&[0, 4][..], b"MQTT", &[0x84, 2, 0, 10, 0, 1, b'c']].concat();
    assert_eq!(refusal(&bridge), Some(vec![0x20, 2, 0, 1]), "a bridge of 3.1.1 then tries level 4");
    let later = [&[0, 4][..], b"MQTT", &[6, 2, 0, 10, 0, 0, 1, b'c']].concat();
    assert_eq!(refusal(&later), Some(vec![0x20, 3, 0, 0x84, 0]), "a later version reads 5.0's CONNACK");
}

#[test]
fn another_protocol_is_not_answered_mqtt_3_1_2_1() {
    assert_eq!(refusal(&[&[0, 4][..], b"COAP", &[4, 2, 0, 10, 0, 0]].concat()), None);
    assert_eq!(refusal(b""), None);
}

#[test]
fn a_malformed_connect_is_answered_in_5_0_only_mqtt_3_1_4_1() {
    let body = |level| [&[0, 4][..], b"MQTT", &[level, 3, 0, 10, 0, 0, 0]].concat();
    assert_eq!(refusal(&body(4)), None);
    assert_eq!(refusal(&body(5)), Some(vec![0x20, 3, 0, 0x81, 0]));
}

#[test]
fn an_empty_client_identifier_needs_a_clean_session_in_3_1_1_mqtt_3_1_3_8() {
    let body = [&[0, 4][..], b"MQTT", &[4, 0, 0, 10, 0, 0]].concat();
    assert_eq!(Connect::decode(&body), Err(Error::ClientIdentifierEmpty));
    assert_eq!(refusal(&body), Some(vec![0x20, 2, 0, 2]));
}
