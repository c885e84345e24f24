//! Field tables (standard §4.2.5.5): names and values, in order, duplicates kept.

use std::fmt;

use super::{Malformed, ShortBytes, Value, field::Field, reader::Reader, short_bytes::TooLong};

/// How deep tables and arrays may stand in one another. A peer cannot make the reader recurse further.
pub const MAX_DEPTH: usize = 64;

/// A table as it is encoded, without its length. It was checked to the last value when it was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// No entries.
    pub const EMPTY: Self = Self(&[]);

    /// Checks encoded entries: names, types, lengths and depth.
    pub fn new(entries: &'a [u8]) -> Result<Self, Malformed> {
        check(entries, 1, |_| ())?;
        Ok(Self(entries))
    }

    /// Entries that a surrounding table's check went over.
    pub(super) fn checked(entries: &'a [u8]) -> Self {
        Self(entries)
    }

    /// The encoded entries, without the length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no entries.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The entries in order.
    pub fn iter(self) -> Entries<'a> {
        Entries(Reader::new(self.0))
    }

    /// The value of the first entry of this name.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.iter().find(|(entry, _)| entry.as_bytes() == name.as_bytes()).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for Table<'a> {
    type Item = (ShortBytes<'a>, Value<'a>);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> Field<'a> for Table<'a> {
    const RESERVED: Self = Self::EMPTY;

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Self::new(reader.long()?)
    }

    fn write(self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
}

/// The entries of a [`Table`].
#[derive(Clone, Debug)]
pub struct Entries<'a>(Reader<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (ShortBytes<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = ShortBytes::read(&mut self.0).ok()?;
        Some((name, Value::read(&mut self.0).ok()?))
    }
}

/// Checks encoded entries of a table at `depth`, 1 for one that stands in a method, and shows each name.
pub(super) fn check(entries: &[u8], depth: usize, mut name: impl FnMut(&[u8])) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::TableDepth);
    }
    let mut reader = Reader::new(entries);
    let mut entry = || -> Result<(), Malformed> {
        while !reader.is_empty() {
            name(reader.short()?);
            Value::check(&mut reader, depth)?;
        }
        Ok(())
    };
    entry().map_err(within_table)
}

/// A value that ends early inside a table is the table's fault, not the frame's.
pub(super) fn within_table(why: Malformed) -> Malformed {
    match why {
        Malformed::Truncated => Malformed::TableTruncated,
        why => why,
    }
}

/// A table that owns its bytes, for building one.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct TableBuf(Vec<u8>);

impl TableBuf {
    /// No entries.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends an entry, also when there is one of this name. Nested values are copied as they are: tables that
    /// come to stand deeper than [`MAX_DEPTH`] will be refused by whoever decodes them.
    pub fn put<'v>(&mut self, name: &str, value: impl Into<Value<'v>>) -> Result<&mut Self, TooLong> {
        Ok(self.put_bytes(ShortBytes::try_from(name)?, value))
    }

    /// Like [`put`](Self::put), for a name that need not be text.
    pub fn put_bytes<'v>(&mut self, name: ShortBytes<'_>, value: impl Into<Value<'v>>) -> &mut Self {
        name.write(&mut self.0);
        value.into().write(&mut self.0);
        self
    }

    /// The table.
    pub fn as_table(&self) -> Table<'_> {
        Table(&self.0)
    }
}

impl From<Table<'_>> for TableBuf {
    fn from(table: Table<'_>) -> Self {
        Self(table.0.to_vec())
    }
}

impl fmt::Debug for TableBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_table().fmt(f)
    }
}
