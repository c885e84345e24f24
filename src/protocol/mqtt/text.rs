//! The UTF-8 encoded string (§1.5.4): well-formed and without U+0000.

use super::error::Error;

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const LOW_BITS: u64 = 0x7F7F_7F7F_7F7F_7F7F;

/// Whether `bytes` are ASCII and hold none of `forbidden`, which must be ASCII too. Eight bytes a step.
#[inline]
pub(super) fn is_ascii_without<const N: usize>(bytes: &[u8], forbidden: [u8; N]) -> bool {
    let good = |word: u64| {
        // Adding 0x7F sets a byte's high bit unless the byte is zero, that is, the forbidden one. A byte that is
        // not ASCII may carry into its neighbour, but fails by its own high bit.
        let marks = forbidden.iter().fold(!word, |marks, &byte| {
            marks & (word ^ u64::from_ne_bytes([byte; 8])).wrapping_add(LOW_BITS)
        });
        marks & HIGH_BITS == HIGH_BITS
    };
    if let Some(last) = bytes.last_chunk::<8>() {
        bytes.as_chunks::<8>().0.iter().all(|chunk| good(u64::from_ne_bytes(*chunk)))
            && good(u64::from_ne_bytes(*last))
    } else if let (Some([a, b, c, d]), Some([e, f, g, h])) =
        (bytes.first_chunk::<4>(), bytes.last_chunk::<4>())
    {
        good(u64::from_ne_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
    } else {
        bytes.iter().all(|byte| byte.is_ascii() && !forbidden.contains(byte))
    }
}

/// Whether `bytes` may be an MQTT string.
///
/// # Errors
/// [`Error::Utf8`] [MQTT-1.5.4-1], [`Error::NullCharacter`] [MQTT-1.5.4-2].
#[inline]
pub(super) fn check(bytes: &[u8]) -> Result<(), Error> {
    if is_ascii_without(bytes, [0]) { Ok(()) } else { decode(bytes).map(|_| ()) }
}

/// The string that `bytes` encode.
///
/// # Errors
/// [`Error::Utf8`] [MQTT-1.5.4-1], [`Error::NullCharacter`] [MQTT-1.5.4-2].
pub(super) fn decode(bytes: &[u8]) -> Result<&str, Error> {
    let text = str::from_utf8(bytes).map_err(|_| Error::Utf8)?;
    match memchr::memchr(0, bytes) {
        Some(_) => Err(Error::NullCharacter),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standards_example_string_is_good() {
        // §1.5.4: U+0041 and U+2A6D4.
        assert_eq!(decode(&[0x41, 0xF0, 0xAA, 0x9B, 0x94]), Ok("A\u{2A6D4}"));
        assert_eq!(check(&[0x41, 0xF0, 0xAA, 0x9B, 0x94]), Ok(()));
    }

    #[test]
    fn surrogates_are_refused_mqtt_1_5_4_1() {
        assert_eq!(check(&[0xED, 0xA0, 0x80]), Err(Error::Utf8));
        assert_eq!(decode(&[0xED, 0xBF, 0xBF]), Err(Error::Utf8));
    }

    #[test]
    fn the_null_character_is_refused_wherever_it_stands_mqtt_1_5_4_2() {
        for len in 1..40 {
            for at in 0..len {
                let mut bytes = vec![b'a'; len];
                bytes[at] = 0;
                assert_eq!(check(&bytes), Err(Error::NullCharacter), "{len} bytes, null at {at}");
            }
        }
    }

    #[test]
    fn the_byte_order_mark_is_kept_mqtt_1_5_4_3() {
        assert_eq!(decode(&[0xEF, 0xBB, 0xBF, b'a']), Ok("\u{FEFF}a"));
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_a_look_at_each_byte(bytes in proptest::collection::vec(0u8..=0x84, 0..40)) {
            let slow = bytes.iter().all(|b| b.is_ascii() && ![0, b'#', b'+'].contains(b));
            prop_assert_eq!(is_ascii_without(&bytes, [0, b'#', b'+']), slow);
        }
    }
}
