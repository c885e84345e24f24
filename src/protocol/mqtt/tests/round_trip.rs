//! `decode(encode(p)) == p`.

use proptest::prelude::*;

use super::{decode, packets};
use crate::protocol::mqtt::*;

fn comes_back(packet: &Packet<'_>, version: Version, sender: Sender) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let back = decode(&bytes, version, sender)
        .map_err(|error| TestCaseError::fail(format!("{error}: {bytes:02x?}")))?;
    prop_assert_eq!(&back, packet);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_3_1_1_clients_packet_comes_back(packet in packets::packet(Version::V311, Sender::Client)) {
        comes_back(&packet, Version::V311, Sender::Client)?;
    }

    #[test]
    fn a_3_1_1_servers_packet_comes_back(packet in packets::packet(Version::V311, Sender::Server)) {
        comes_back(&packet, Version::V311, Sender::Server)?;
    }

    #[test]
    fn a_5_0_clients_packet_comes_back(packet in packets::packet(Version::V5, Sender::Client)) {
        comes_back(&packet, Version::V5, Sender::Client)?;
    }

    #[test]
    fn a_5_0_servers_packet_comes_back(packet in packets::packet(Version::V5, Sender::Server)) {
        comes_back(&packet, Version::V5, Sender::Server)?;
    }

    #[test]
    fn an_encoder_appends_and_leaves_what_was_there((version, _, packet) in packets::any_packet()) {
        let mut alone = Vec::new();
        packet.encode(version, &mut alone).unwrap();
        let mut appended = vec![1, 2, 3];
        packet.encode(version, &mut appended).unwrap();
        prop_assert_eq!(&appended[..3], &[1, 2, 3]);
        prop_assert_eq!(&appended[3..], &alone[..]);
    }

    #[test]
    fn diagnostics_are_left_out_before_a_packet_gets_too_large_mqtt_3_4_2_2(
        packet in packets::packet(Version::V5, Sender::Server),
        maximum in 2u32..200,
    ) {
        let mut full = Vec::new();
        packet.encode(Version::V5, &mut full).unwrap();
        let mut bytes = Vec::new();
        match packet.encode_within(maximum, Version::V5, &mut bytes) {
            Ok(()) if full.len() <= maximum as usize => prop_assert_eq!(bytes, full),
            Ok(()) => {
                prop_assert!(bytes.len() <= maximum as usize);
                prop_assert!(decode(&bytes, Version::V5, Sender::Server).is_ok());
            }
            Err(error) => {
                let too_large = matches!(error, Error::PacketTooLarge { .. });
                prop_assert!(too_large && bytes.is_empty() && full.len() > maximum as usize);
            }
        }
    }
}

#[test]
fn what_cannot_be_said_in_3_1_1_is_an_error_and_appends_nothing() {
    let mut out = vec![7];
    let auth = Packet::Auth(Auth::new(ReasonCode::ContinueAuthentication, Some("SCRAM-SHA-1")));
    assert_eq!(auth.encode(Version::V311, &mut out), Err(Error::ReservedPacketType(15)));
    let connack = Packet::Connack(Connack {
        session_present: false,
        reason: ReasonCode::MalformedPacket,
        properties: ConnackProperties::default(),
    });
    assert_eq!(
        connack.encode(Version::V311, &mut out),
        Err(Error::ReasonCode { packet_type: PacketType::Connack, value: 0x81 })
    );
    assert_eq!(out, [7]);
}

#[test]
fn a_field_of_65536_bytes_is_an_error_and_appends_nothing() {
    let long = "x".repeat(65_536);
    let mut out = vec![7];
    let disconnect = Disconnect { reason_string: Some(&long), ..Disconnect::new(ReasonCode::ServerBusy) };
    assert_eq!(
        Packet::Disconnect(disconnect).encode(Version::V5, &mut out),
        Err(Error::FieldTooLong(65_536))
    );
    assert_eq!(out, [7]);
}
