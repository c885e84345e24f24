//! User properties (§2.2.2.2 identifier 0x26): name-value pairs that MQTT itself gives no meaning.

use std::fmt;

use super::{error::Error, property::Property, reader::Reader};

/// The user properties of a packet, in order and with repeated names, as they lie encoded in its list of properties.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// An encoded list that was checked; it may hold other properties too.
    list: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// None at all.
    pub const NONE: Self = Self { list: &[] };

    /// The user properties of an encoded list without its length. [`append`](Self::append) makes such lists.
    ///
    /// # Errors
    /// Those of a list that is malformed.
    pub fn from_encoded(list: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(list);
        while !reader.is_empty() {
            Property::read(&mut reader)?;
        }
        Ok(Self { list })
    }

    /// The same for a list that was checked before.
    pub(super) const fn of_checked(list: &'a [u8]) -> Self {
        Self { list }
    }

    /// Appends a user property to an encoded list.
    ///
    /// # Errors
    /// [`Error::FieldTooLong`]: name or value has more than 65,535 bytes; nothing was appended.
    pub fn append(list: &mut Vec<u8>, name: &str, value: &str) -> Result<(), Error> {
        let end = list.len();
        Property::UserProperty(name, value).encode(list).inspect_err(|_| list.truncate(end))
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        checked_properties(self.list).filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// The properties of an encoded list that was checked before.
pub(super) fn checked_properties(list: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut reader = Reader::new(list);
    std::iter::from_fn(move || Property::read(&mut reader).ok())
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_repeated_names_are_kept() {
        let mut list = Vec::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "1")] {
            UserProperties::append(&mut list, name, value).unwrap();
        }
        let read = UserProperties::from_encoded(&list).unwrap();
        assert!(read.iter().eq([("b", "1"), ("a", "2"), ("b", "1")]));
    }

    #[test]
    fn a_value_that_is_too_long_leaves_the_list_as_it_was() {
        let mut list = vec![1, 0];
        let long = "v".repeat(65_536);
        assert_eq!(UserProperties::append(&mut list, "name", &long), Err(Error::FieldTooLong(65_536)));
        assert_eq!(list, [1, 0]);
    }
}
