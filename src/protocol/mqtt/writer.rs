//! Appends the standard's data types (§1.5) to a packet that is being encoded.

use std::num::NonZeroU16;

use super::{
    error::Error,
    header::PacketType,
    varint::{self, VARIABLE_BYTE_INTEGER_MAX},
};

/// Binary data (§1.5.6) or a UTF-8 encoded string (§1.5.4): its length, then its bytes.
pub(super) fn binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(bytes.len()).map_err(|_| Error::FieldTooLong(bytes.len()))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

pub(super) fn packet_identifier(out: &mut Vec<u8>, packet_id: NonZeroU16) {
    out.extend_from_slice(&packet_id.get().to_be_bytes());
}

/// A fixed header and what `body` appends behind it.
pub(super) fn packet(
    out: &mut Vec<u8>,
    packet_type: PacketType,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(packet_type.first_byte());
    length_prefixed(out, body)
}

/// What `content` appends, and before it, as a variable byte integer, how many bytes that are. Most lists and packets
/// are shorter than 128 bytes, so room for one byte is left; longer ones are moved.
pub(super) fn length_prefixed(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = out.len();
    out.push(0);
    content(out)?;
    let written = out.len() - start - 1;
    let len = u32::try_from(written)
        .ok()
        .filter(|len| *len <= VARIABLE_BYTE_INTEGER_MAX)
        .ok_or(Error::PacketTooLarge { size: written as u64, maximum: VARIABLE_BYTE_INTEGER_MAX })?;
    let room = varint::len(len) - 1;
    if room > 0 {
        let end = out.len();
        out.resize(end + room, 0);
        out.copy_within(start + 1..end, start + 1 + room);
    }
    let mut rest = len;
    for byte in out.iter_mut().skip(start).take(room + 1) {
        *byte = (rest & 0x7F) as u8 | 0x80;
        rest >>= 7;
    }
    if let Some(last) = out.get_mut(start + room) {
        *last &= 0x7F;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_any_size_stands_before_its_content() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = vec![0xEE];
            length_prefixed(&mut out, |out| {
                out.extend((0..len).map(|i| i as u8));
                Ok(())
            })
            .unwrap();
            let mut expected = vec![0xEE];
            varint::encode(len as u32, &mut expected).unwrap();
            expected.extend((0..len).map(|i| i as u8));
            assert!(out == expected, "content of {len} bytes");
        }
    }

    #[test]
    fn a_string_of_65536_bytes_is_refused_mqtt_4_7_3_3() {
        assert_eq!(binary(&mut Vec::new(), &vec![b'a'; 65_536]), Err(Error::FieldTooLong(65_536)));
    }
}
