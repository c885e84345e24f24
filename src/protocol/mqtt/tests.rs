//! The codec as a whole: our encoder against our decoder, both against the standard's own bytes, and the decoder against
//! bytes of any kind.

mod direction;
mod hostile;
mod packets;
mod publish_path;
mod round_trip;
mod splits;
mod v311_bytes;
mod v5_bytes;

use super::*;

/// The one packet that `bytes` are.
fn decode(bytes: &[u8], version: Version, sender: Sender) -> Result<Packet<'_>, Error> {
    match Framing::read(bytes, Framing::MAXIMUM_PACKET_SIZE)? {
        Framing::Complete(frame) if frame.wire.len() == bytes.len() => {
            Packet::decode(&frame, version, sender)
        }
        other => panic!("not one whole packet, but {other:?}"),
    }
}

/// The packet with a body that is shorter than 128 bytes.
fn with_header(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8][..], body].concat()
}
