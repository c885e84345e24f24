//! A number of bytes, or a share of what there is: `"2 GiB"`, `"60%"`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::size;

const EXPECTED: &str = "a size such as \"2 GiB\", or a share such as \"60%\"";

/// So many bytes, or such a share of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of a percent, at most 10,000.
    Share(u16),
}

impl Amount {
    /// All there is.
    const WHOLE: u16 = 10_000;

    /// A whole number of percent.
    pub const fn percent(percent: u8) -> Self {
        Self::Share(percent as u16 * 100)
    }

    /// Bytes, where there are `whole`.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => {
                let bytes = u128::from(whole) * u128::from(share) / u128::from(Self::WHOLE);
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }

    /// Whether it is nothing, or nothing of whatever there is.
    pub(super) fn is_zero(self) -> bool {
        matches!(self, Self::Bytes(0) | Self::Share(0))
    }

    /// Whether it is all there is.
    pub(super) fn is_whole(self) -> bool {
        self == Self::Share(Self::WHOLE)
    }

    fn parse(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(percent) => share(percent.trim_end()).map(Self::Share),
            None => size::parse(text).map(Self::Bytes),
        }
    }
}

/// Hundredths of a percent: up to 100 percent, with at most two decimals.
fn share(percent: &str) -> Option<u16> {
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 2 {
        return None;
    }
    let hundredths: u16 = format!("{decimals:0<2}").parse().ok()?;
    let share = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
    (share <= Amount::WHOLE).then_some(share)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&size::show(*bytes)),
            Self::Share(share) => match (share / 100, share % 100) {
                (whole, 0) => write!(f, "{whole}%"),
                (whole, rest) => write!(f, "{whole}.{rest:02}%"),
            },
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                Amount::parse(text).ok_or_else(|| {
                    E::custom(format_args!("{text:?} is no size and no share; expected {EXPECTED}"))
                })
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<Amount, E> {
                Ok(Amount::Bytes(bytes))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Amount, E> {
                u64::try_from(bytes)
                    .map(Amount::Bytes)
                    .map_err(|_| E::custom(format_args!("{bytes} is no size; expected {EXPECTED}")))
            }
        }
        from.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_size_or_a_share() {
        for (text, amount, shown) in [
            ("2 GiB", Amount::Bytes(2 << 30), "2 GiB"),
            ("0", Amount::Bytes(0), "0 B"),
            ("60%", Amount::percent(60), "60%"),
            (" 2.5 % ", Amount::Share(250), "2.50%"),
            ("0.05%", Amount::Share(5), "0.05%"),
            ("100%", Amount::Share(10_000), "100%"),
        ] {
            assert_eq!(Amount::parse(text), Some(amount), "{text}");
            assert_eq!(amount.to_string(), shown);
            assert_eq!(Amount::parse(shown), Some(amount));
        }
        for text in ["", "%", "-1%", "100.01%", "60 percent", "1.234%", "0.6", "1.%", "700%", "+5%"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_of_what_there_is_and_a_size_is_not() {
        assert_eq!(Amount::percent(60).of(1000), 600);
        assert_eq!(Amount::percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(Amount::Bytes(7).of(1000), 7);
    }
}
