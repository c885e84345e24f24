//! Reads the standard's data types (§1.5) off the front of a packet.

use std::num::NonZeroU16;

use super::{error::Error, text, varint};

/// What is left to be read of a packet or of a list of properties.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn variable_byte_integer(&mut self) -> Result<u32, Error> {
        let (value, len) = varint::decode(self.rest)?.ok_or(Error::Truncated)?;
        self.take(len)?;
        Ok(value)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Binary data (§1.5.6), or a string whose characters are not looked at.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 encoded string (§1.5.4).
    pub(super) fn string(&mut self) -> Result<&'a str, Error> {
        text::decode(self.binary()?)
    }

    /// A packet identifier (§2.2.1), which is never zero.
    #[inline]
    pub(super) fn packet_identifier(&mut self) -> Result<NonZeroU16, Error> {
        NonZeroU16::new(self.u16()?).ok_or(Error::PacketIdentifierZero)
    }

    /// A list of properties (§2.2.2), without the length that stands before it.
    #[inline]
    pub(super) fn properties(&mut self) -> Result<&'a [u8], Error> {
        let len = self.variable_byte_integer()?;
        self.take(len as usize)
    }

    /// Nothing may be left.
    pub(super) const fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::TrailingBytes) }
    }
}
