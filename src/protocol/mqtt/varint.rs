//! The variable byte integer (§1.5.5; the remaining length of 3.1.1's §2.2.3).

use super::error::Error;

/// The largest number that four bytes of seven bits hold, and so the largest remaining length.
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// The number at the start of `bytes` and how many bytes it takes; `None` while bytes are missing.
///
/// # Errors
/// [`Error::VariableByteInteger`] for more than four bytes or more than are needed [MQTT-1.5.5-1].
#[inline]
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(u32, usize)>, Error> {
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Ok(Some((u32::from(byte), 1))),
        _ => decode_long(bytes),
    }
}

fn decode_long(bytes: &[u8]) -> Result<Option<(u32, usize)>, Error> {
    let mut value = 0u32;
    let mut shift = 0u32;
    for &byte in bytes.iter().take(4) {
        value |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 7 {
                Err(Error::VariableByteInteger)
            } else {
                Ok(Some((value, (shift / 7) as usize)))
            };
        }
    }
    if shift == 28 { Err(Error::VariableByteInteger) } else { Ok(None) }
}

/// How many bytes `value` takes, for values up to [`VARIABLE_BYTE_INTEGER_MAX`].
#[inline]
pub(super) const fn len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends `value`.
///
/// # Errors
/// [`Error::VariableByteInteger`] when it needs more than four bytes.
#[inline]
pub(super) fn encode(value: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    if value < 0x80 {
        out.push(value as u8);
        return Ok(());
    }
    encode_long(value, out)
}

fn encode_long(value: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    let [a, b, c, d] = [value, value >> 7, value >> 14, value >> 21].map(|group| (group & 0x7F) as u8);
    match value {
        0..=0x3FFF => out.extend_from_slice(&[a | 0x80, b]),
        0x4000..=0x1F_FFFF => out.extend_from_slice(&[a | 0x80, b | 0x80, c]),
        0x20_0000..=VARIABLE_BYTE_INTEGER_MAX => out.extend_from_slice(&[a | 0x80, b | 0x80, c | 0x80, d]),
        _ => return Err(Error::VariableByteInteger),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1-1 (2.4 in 3.1.1) and the worked examples 64 and 321 of 3.1.1's §2.2.3.
    const TABLE: [(u32, &[u8]); 10] = [
        (0, &[0x00]),
        (64, &[0x40]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (321, &[193, 2]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ];

    #[test]
    fn the_standards_table_is_encoded_and_decoded() {
        for (value, bytes) in TABLE {
            let mut out = Vec::new();
            encode(value, &mut out).unwrap();
            assert_eq!(out, bytes, "encoding {value}");
            assert_eq!(len(value), bytes.len(), "length of {value}");
            assert_eq!(decode(bytes), Ok(Some((value, bytes.len()))), "decoding {bytes:02x?}");
        }
    }

    #[test]
    fn a_number_cut_short_is_not_yet_known() {
        for (_, bytes) in TABLE {
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Ok(None), "{:02x?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn five_bytes_are_malformed() {
        assert_eq!(decode(&[0x80, 0x80, 0x80, 0x80]), Err(Error::VariableByteInteger));
        assert_eq!(decode(&[0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), Err(Error::VariableByteInteger));
        assert_eq!(encode(VARIABLE_BYTE_INTEGER_MAX + 1, &mut Vec::new()), Err(Error::VariableByteInteger));
    }

    #[test]
    fn more_bytes_than_needed_are_malformed_mqtt_1_5_5_1() {
        for bytes in [&[0x80, 0x00][..], &[0xFF, 0x80, 0x00], &[0x81, 0x80, 0x80, 0x00]] {
            assert_eq!(decode(bytes), Err(Error::VariableByteInteger), "{bytes:02x?}");
        }
    }
}
