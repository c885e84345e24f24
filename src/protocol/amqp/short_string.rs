//! Short strings that are text.

use std::{fmt, ops::Deref};

use super::{Malformed, ShortBytes, field::Field, reader::Reader, short_bytes::TooLong};

/// A short string (standard §4.2.5.3) of at most 255 bytes of UTF-8.
///
/// The names in methods that carry no content are such: RabbitMQ refuses other bytes there with 501.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortString<'a>(&'a str);

impl<'a> ShortString<'a> {
    /// No text.
    pub const EMPTY: Self = Self("");

    /// Checks the length.
    pub const fn new(text: &'a str) -> Result<Self, TooLong> {
        if text.len() <= u8::MAX as usize { Ok(Self(text)) } else { Err(TooLong(text.len())) }
    }

    /// As much of `text` as fits, cut between two characters: for texts that a person reads.
    pub fn truncated(text: &'a str) -> Self {
        Self(text.get(..text.floor_char_boundary(u8::MAX as usize)).unwrap_or_default())
    }

    /// The text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl Deref for ShortString<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl fmt::Debug for ShortString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

impl fmt::Display for ShortString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'a> TryFrom<&'a str> for ShortString<'a> {
    type Error = TooLong;

    fn try_from(text: &'a str) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

impl<'a> From<ShortString<'a>> for ShortBytes<'a> {
    fn from(text: ShortString<'a>) -> Self {
        // A ShortString is never longer than ShortBytes may be.
        Self::new(text.0.as_bytes()).unwrap_or_default()
    }
}

impl<'a> Field<'a> for ShortString<'a> {
    const RESERVED: Self = Self::EMPTY;

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        std::str::from_utf8(reader.short()?).map(Self).map_err(|_| Malformed::NotUtf8)
    }

    fn write(self, out: &mut Vec<u8>) {
        ShortBytes::from(self).write(out);
    }
}
