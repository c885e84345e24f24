//! Field arrays (standard §4.2.5.5): values without names, of any types.

use std::fmt;

use super::{
    Malformed, Value,
    reader::Reader,
    table::{MAX_DEPTH, within_table},
};

/// An array as it is encoded, without its length. It was checked to the last value when it was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Array<'a>(&'a [u8]);

impl<'a> Array<'a> {
    /// No values.
    pub const EMPTY: Self = Self(&[]);

    /// Checks encoded values: types, lengths and depth.
    pub fn new(values: &'a [u8]) -> Result<Self, Malformed> {
        check(values, 1)?;
        Ok(Self(values))
    }

    /// Values that a surrounding table's check went over.
    pub(super) fn checked(values: &'a [u8]) -> Self {
        Self(values)
    }

    /// The encoded values, without the length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The values in order.
    pub fn iter(self) -> Values<'a> {
        Values(Reader::new(self.0))
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The values of an [`Array`].
#[derive(Clone, Debug)]
pub struct Values<'a>(Reader<'a>);

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        Value::read(&mut self.0).ok()
    }
}

/// Checks encoded values of an array at `depth`.
pub(super) fn check(values: &[u8], depth: usize) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::TableDepth);
    }
    let mut reader = Reader::new(values);
    while !reader.is_empty() {
        Value::check(&mut reader, depth).map_err(within_table)?;
    }
    Ok(())
}

/// An array that owns its bytes, for building one.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ArrayBuf(Vec<u8>);

impl ArrayBuf {
    /// No values.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a value.
    pub fn push<'v>(&mut self, value: impl Into<Value<'v>>) -> &mut Self {
        value.into().write(&mut self.0);
        self
    }

    /// The array.
    pub fn as_array(&self) -> Array<'_> {
        Array(&self.0)
    }
}

impl fmt::Debug for ArrayBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_array().fmt(f)
    }
}
