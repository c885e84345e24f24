//! Field values: what tables and arrays hold (standard §4.2.5.5), with RabbitMQ's types.

use super::{Array, Malformed, Table, array, field::Field, reader::Reader, table};

/// A decimal number: `value` divided by ten to the power of `scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// Digits after the point.
    pub scale: u8,
    /// The digits.
    pub value: u32,
}

/// A value of a table or array, borrowed from the encoded bytes.
///
/// The type octets are RabbitMQ's: they differ from the standard's grammar, which no broker follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `t`; any octet but 0 is true.
    Bool(bool),
    /// `b`.
    I8(i8),
    /// `B`.
    U8(u8),
    /// `s`.
    I16(i16),
    /// `u`.
    U16(u16),
    /// `I`.
    I32(i32),
    /// `i`.
    U32(u32),
    /// `l`; `L` is read as the same, as RabbitMQ does.
    I64(i64),
    /// `f`.
    F32(f32),
    /// `d`.
    F64(f64),
    /// `D`.
    Decimal(Decimal),
    /// `S`: text or any bytes, the usual string.
    LongString(&'a [u8]),
    /// `A`.
    Array(Array<'a>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `F`.
    Table(Table<'a>),
    /// `V`.
    Void,
    /// `x`.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The text, if it is a long string of UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The number, if it is an integer of any width: clients choose widths freely.
    pub fn as_i64(self) -> Option<i64> {
        Some(match self {
            Self::I8(value) => value.into(),
            Self::U8(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I64(value) => value,
            _ => return None,
        })
    }

    /// The table, if it is one.
    pub fn as_table(self) -> Option<Table<'a>> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Reads a value whose nested tables were checked before.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            b't' => Self::Bool(reader.u8()? != 0),
            b'b' => Self::I8(i8::from_be_bytes(reader.array()?)),
            b'B' => Self::U8(reader.u8()?),
            b's' => Self::I16(i16::from_be_bytes(reader.array()?)),
            b'u' => Self::U16(reader.u16()?),
            b'I' => Self::I32(i32::from_be_bytes(reader.array()?)),
            b'i' => Self::U32(reader.u32()?),
            b'l' | b'L' => Self::I64(i64::from_be_bytes(reader.array()?)),
            b'f' => Self::F32(f32::from_be_bytes(reader.array()?)),
            b'd' => Self::F64(f64::from_be_bytes(reader.array()?)),
            b'D' => Self::Decimal(Decimal { scale: reader.u8()?, value: reader.u32()? }),
            b'S' => Self::LongString(reader.long()?),
            b'A' => Self::Array(Array::checked(reader.long()?)),
            b'T' => Self::Timestamp(reader.u64()?),
            b'F' => Self::Table(Table::checked(reader.long()?)),
            b'V' => Self::Void,
            b'x' => Self::Bytes(reader.long()?),
            other => return Err(Malformed::TableType(other)),
        })
    }

    /// Steps over a value of a table or array that stands at `depth`, checking it and all that it holds.
    pub(super) fn check(reader: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
        let len = match reader.u8()? {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'S' | b'x' => reader.u32()? as usize,
            b'F' => return table::check(reader.long()?, depth + 1, |_| ()),
            b'A' => return array::check(reader.long()?, depth + 1),
            other => return Err(Malformed::TableType(other)),
        };
        reader.take(len).map(|_| ())
    }

    /// Appends the type octet and the value.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        fn fixed<const N: usize>(out: &mut Vec<u8>, kind: u8, bytes: [u8; N]) {
            out.push(kind);
            out.extend_from_slice(&bytes);
        }
        fn long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
            out.push(kind);
            bytes.write(out);
        }
        match self {
            Self::Bool(value) => fixed(out, b't', [u8::from(value)]),
            Self::I8(value) => fixed(out, b'b', value.to_be_bytes()),
            Self::U8(value) => fixed(out, b'B', [value]),
            Self::I16(value) => fixed(out, b's', value.to_be_bytes()),
            Self::U16(value) => fixed(out, b'u', value.to_be_bytes()),
            Self::I32(value) => fixed(out, b'I', value.to_be_bytes()),
            Self::U32(value) => fixed(out, b'i', value.to_be_bytes()),
            Self::I64(value) => fixed(out, b'l', value.to_be_bytes()),
            Self::F32(value) => fixed(out, b'f', value.to_be_bytes()),
            Self::F64(value) => fixed(out, b'd', value.to_be_bytes()),
            Self::Decimal(Decimal { scale, value }) => {
                fixed(out, b'D', [scale]);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::LongString(bytes) => long(out, b'S', bytes),
            Self::Array(array) => long(out, b'A', array.as_bytes()),
            Self::Timestamp(seconds) => fixed(out, b'T', seconds.to_be_bytes()),
            Self::Table(table) => long(out, b'F', table.as_bytes()),
            Self::Void => out.push(b'V'),
            Self::Bytes(bytes) => long(out, b'x', bytes),
        }
    }
}

macro_rules! from {
    ($($type:ty => $Variant:ident)+) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from(value: $type) -> Self {
                Self::$Variant(value)
            }
        }
    )+};
}

from! {
    bool => Bool
    i32 => I32
    i64 => I64
    Array<'a> => Array
    Table<'a> => Table
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::LongString(text.as_bytes())
    }
}
