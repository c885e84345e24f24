//! How a method's fields are read and written (standard §4.2.5).

use super::{Malformed, reader::Reader};

/// A long string: any bytes, with a length of four bytes.
pub(super) type LongString<'a> = &'a [u8];

/// A type of the standard's that stands in methods.
pub(super) trait Field<'a>: Copy {
    /// What is written where the standard reserves a field; whatever is read there is ignored.
    const RESERVED: Self;

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;

    fn write(self, out: &mut Vec<u8>);
}

macro_rules! integer {
    ($($type:ident)+) => {$(
        impl Field<'_> for $type {
            const RESERVED: Self = 0;

            #[inline]
            fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                reader.$type()
            }

            #[inline]
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }
    )+};
}

integer!(u8 u16 u32 u64);

impl<'a> Field<'a> for LongString<'a> {
    const RESERVED: Self = &[];

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.long()
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_be_bytes());
        out.extend_from_slice(self);
    }
}

/// Successive bit fields, packed into one octet from the low bit up. No method has more than eight in a row.
#[derive(Default)]
pub(super) struct Bits {
    octet: u8,
    at: u32,
}

impl Bits {
    #[inline]
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { octet: reader.u8()?, at: 0 })
    }

    #[inline]
    pub(super) fn next(&mut self) -> bool {
        let bit = self.octet.unbounded_shr(self.at) & 1;
        self.at += 1;
        bit == 1
    }

    #[inline]
    pub(super) fn push(&mut self, bit: bool) {
        self.octet |= u8::from(bit).unbounded_shl(self.at);
        self.at += 1;
    }

    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.octet);
    }
}
