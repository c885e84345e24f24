//! Bytes of any kind: an error, never a panic, and never two opinions.

use proptest::{collection::vec, prelude::*};

use super::packets;
use crate::protocol::mqtt::*;

const LIMIT: u32 = 1 << 16;
const ENDS: [(Version, Sender); 4] = [
    (Version::V311, Sender::Client),
    (Version::V311, Sender::Server),
    (Version::V5, Sender::Client),
    (Version::V5, Sender::Server),
];

/// Decodes in every way there is; what decodes must be encoded and decoded to the same again, and both readers of a
/// PUBLISH must agree.
fn decode_in_every_way(bytes: &[u8]) -> Result<(), TestCaseError> {
    let framing = Framing::read(bytes, LIMIT);
    for (version, sender) in ENDS {
        let mut run = Publishes::new(bytes, version, sender, LIMIT);
        let first = run.next();
        let Ok(Framing::Complete(frame)) = framing else {
            if let Some(result) = first {
                prop_assert_eq!(Err(result.unwrap_err()), framing);
            }
            continue;
        };
        let decoded = Packet::decode(&frame, version, sender);
        if frame.packet_type == PacketType::Publish {
            match (&decoded, first) {
                (Ok(Packet::Publish(publish)), Some(Ok(spans))) => {
                    prop_assert_eq!(spans.payload.of(bytes), publish.payload);
                    prop_assert_eq!(spans.topic.of(bytes), publish.topic.as_bytes());
                }
                (Err(slow), Some(Err(fast))) => prop_assert_eq!(*slow, fast),
                other => prop_assert!(false, "{:?}", other),
            }
        } else {
            prop_assert_eq!(first, None);
        }
        if let Err(error) = &decoded {
            prop_assert!(error.reason().is_error());
        }
        if frame.packet_type == PacketType::Connect
            && let Err(error) = &decoded
            && let Some((version, connack)) = Connack::refusal(frame.body(), error)
        {
            prop_assert!(Packet::Connack(connack).encode(version, &mut Vec::new()).is_ok());
        }
        if let Ok(packet) = decoded {
            let own = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            let mut again = Vec::new();
            packet.encode(own, &mut again).unwrap();
            let Ok(Framing::Complete(frame)) = Framing::read(&again, u32::MAX) else {
                panic!("{packet:?} was encoded to {again:02x?}")
            };
            prop_assert_eq!(Packet::decode(&frame, version, sender).unwrap(), packet);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..64)) {
        decode_in_every_way(&bytes)?;
    }

    #[test]
    fn a_random_body_under_a_good_header_never_panics(kind in 1u8..16, flags in 0u8..16, body in vec(any::<u8>(), 0..100)) {
        let flags = match kind { 3 => flags, 6 | 8 | 10 => 2, _ => 0 };
        decode_in_every_way(&super::with_header(kind << 4 | flags, &body))?;
    }

    #[test]
    fn a_random_list_of_properties_never_panics(numbers in vec((0u8..0x30, vec(any::<u8>(), 0..6)), 0..6)) {
        let list: Vec<u8> = numbers.into_iter().flat_map(|(id, value)| [vec![id], value].concat()).collect();
        let body = [&[0, 1, b't', list.len() as u8][..], &list].concat();
        decode_in_every_way(&super::with_header(0x30, &body))?;
        let body = [&[0, list.len() as u8][..], &list].concat();
        decode_in_every_way(&super::with_header(0xE0, &body))?;
    }

    #[test]
    fn a_packet_with_some_bytes_changed_never_panics(
        (version, _, packet) in packets::any_packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        decode_in_every_way(&bytes)?;
    }

    #[test]
    fn a_packet_cut_short_never_panics((version, _, packet) in packets::any_packet(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        let Ok(Framing::Complete(frame)) = Framing::read(&bytes, u32::MAX) else { panic!("{bytes:02x?}") };
        let body = &frame.body()[..cut.index(frame.body().len() + 1)];
        if body.len() < 128 {
            decode_in_every_way(&super::with_header(bytes[0], body))?;
        }
    }
}
