//! Short strings whose bytes nobody has promised to be text.

use std::{fmt, ops::Deref};

use super::{Malformed, field::Field, reader::Reader};

/// A short string (standard §4.2.5.3) of at most 255 bytes, not necessarily UTF-8.
///
/// Exchange names and routing keys of messages, the properties of messages and the names in tables are such:
/// RabbitMQ passes them on unseen, whatever they hold.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortBytes<'a>(&'a [u8]);

/// A string that does not fit into the 255 bytes of a short string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes do not fit into a short string, which holds 255")]
pub struct TooLong(pub usize);

impl<'a> ShortBytes<'a> {
    /// No bytes.
    pub const EMPTY: Self = Self(&[]);

    /// Checks the length.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Result<Self, TooLong> {
        if bytes.len() <= u8::MAX as usize { Ok(Self(bytes)) } else { Err(TooLong(bytes.len())) }
    }

    /// The bytes.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text, if it is UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    /// The length octet.
    #[inline]
    pub(super) fn len_octet(self) -> u8 {
        self.0.len() as u8
    }
}

impl Deref for ShortBytes<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for ShortBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl<'a> TryFrom<&'a [u8]> for ShortBytes<'a> {
    type Error = TooLong;

    fn try_from(bytes: &'a [u8]) -> Result<Self, TooLong> {
        Self::new(bytes)
    }
}

impl<'a> TryFrom<&'a str> for ShortBytes<'a> {
    type Error = TooLong;

    fn try_from(text: &'a str) -> Result<Self, TooLong> {
        Self::new(text.as_bytes())
    }
}

impl<'a> Field<'a> for ShortBytes<'a> {
    const RESERVED: Self = Self::EMPTY;

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.short().map(Self)
    }

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(self.len_octet());
        out.extend_from_slice(self.0);
    }
}
