//! Sizes with units: `"256 KiB"`. For serde's `with`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const EXPECTED: &str = "a size such as \"256 KiB\" (B, kB, KiB, MB, MiB, GB, GiB)";

/// Reads a number with a unit, or a number of bytes.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.trim().len());
    let (number, unit) = text.trim().split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// The size in the largest binary unit that keeps it whole.
pub(super) fn show(bytes: u64) -> String {
    let whole =
        UNITS.iter().find(|(name, unit)| (name.contains('i') || *unit == 1) && bytes.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) if bytes > 0 => format!("{} {name}", bytes / unit),
        _ => format!("{bytes} B"),
    }
}

pub(super) fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&show(*bytes))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Size;
    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            parse(text).ok_or_else(|| E::custom(format_args!("{text:?} is no size; expected {EXPECTED}")))
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes)
                .map_err(|_| E::custom(format_args!("{bytes} is no size; expected {EXPECTED}")))
        }
    }
    from.deserialize_any(Size)
}

/// The same where the key may be absent.
pub(super) mod optional {
    use serde::Deserializer;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        super::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("1B", 1),
            ("256 KiB", 256 << 10),
            ("256kib", 256 << 10),
            ("3 MB", 3_000_000),
            (" 2 GiB ", 2 << 30),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5 MiB", "1 K", "1 KiB KiB", "99999999999 GiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        for (bytes, text) in [(0, "0 B"), (1, "1 B"), (1 << 20, "1 MiB"), (1536, "1536 B"), (2048, "2 KiB")] {
            assert_eq!(show(bytes), text);
            assert_eq!(parse(text), Some(bytes));
        }
    }
}
