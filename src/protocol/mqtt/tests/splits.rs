//! However the bytes are cut into reads, the packets are the same.

use proptest::{collection::vec, prelude::*};

use super::packets;
use crate::protocol::mqtt::*;

const LIMIT: u32 = 1 << 20;

proptest! {
    #[test]
    fn a_packet_fed_byte_by_byte_is_there_with_its_last_byte((version, sender, packet) in packets::any_packet()) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        for end in 0..bytes.len() {
            match Framing::read(&bytes[..end], LIMIT) {
                Ok(Framing::Incomplete { needed: Some(needed) }) => prop_assert_eq!(needed, bytes.len()),
                Ok(Framing::Incomplete { needed: None }) => prop_assert!(end < 5),
                other => prop_assert!(false, "{:?} after {} of {} bytes", other, end, bytes.len()),
            }
        }
        let Ok(Framing::Complete(frame)) = Framing::read(&bytes, LIMIT) else { panic!("{bytes:02x?}") };
        prop_assert_eq!(frame.wire, &bytes[..]);
        prop_assert_eq!(Packet::decode(&frame, version, sender).unwrap(), packet);
    }

    #[test]
    fn any_split_gives_the_same_packets(
        all in vec(packets::packet(Version::V5, Sender::Client), 1..8),
        cuts in vec(1usize..40, 1..40),
    ) {
        let mut wire = Vec::new();
        for packet in &all {
            packet.encode(Version::V5, &mut wire).unwrap();
        }
        let mut received: Vec<u8> = Vec::new();
        let mut count = 0;
        let mut sizes = cuts.iter().cycle();
        let mut sent = 0;
        while sent < wire.len() {
            let end = wire.len().min(sent + sizes.next().unwrap());
            received.extend_from_slice(&wire[sent..end]);
            sent = end;
            while let Framing::Complete(frame) = Framing::read(&received, LIMIT).unwrap() {
                prop_assert_eq!(&Packet::decode(&frame, Version::V5, Sender::Client).unwrap(), &all[count]);
                count += 1;
                let len = frame.wire.len();
                received.drain(..len);
            }
        }
        prop_assert_eq!((count, received.len()), (all.len(), 0));
    }

    #[test]
    fn a_run_of_messages_ends_at_the_first_incomplete_one(
        all in vec(packets::publish(Version::V5, Sender::Client), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut wire = Vec::new();
        let mut ends = Vec::new();
        for publish in &all {
            Packet::Publish(*publish).encode(Version::V5, &mut wire).unwrap();
            ends.push(wire.len());
        }
        let cut = cut.index(wire.len() + 1);
        let mut run = Publishes::new(&wire[..cut], Version::V5, Sender::Client, LIMIT);
        let found = run.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        prop_assert_eq!(found.len(), whole);
        prop_assert_eq!(run.position(), whole.checked_sub(1).map_or(0, |last| ends[last]));
    }
}
