//! Subscription identifiers (§3.3.2.3.8): which of a client's subscriptions a message matches.

use std::{fmt, num::NonZeroU32};

use super::{error::Error, property::Property, user_property::checked_properties};

/// The subscription identifiers of a PUBLISH, in order, as they lie encoded in its list of properties.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIdentifiers<'a> {
    /// An encoded list that was checked; it may hold other properties too.
    list: &'a [u8],
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// Those in a list of properties that was checked before.
    pub(super) const fn of_checked(list: &'a [u8]) -> Self {
        Self { list }
    }

    /// Appends an identifier to an encoded list of properties.
    ///
    /// # Errors
    /// [`Error::VariableByteInteger`]: it is above 268,435,455; nothing was appended.
    pub fn append(list: &mut Vec<u8>, identifier: NonZeroU32) -> Result<(), Error> {
        let end = list.len();
        Property::SubscriptionIdentifier(identifier).encode(list).inspect_err(|_| list.truncate(end))
    }

    /// Each in order.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        checked_properties(self.list).filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
