//! A client's subscriptions by their filters.

use std::num::NonZeroU32;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::deliveries::Subscribed;
use crate::protocol::mqtt::Qos;

/// Up to as many are looked through one by one: most clients have one or a few.
const FEW: usize = 8;

/// A subscription that a client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The door's number for it.
    pub number: u32,
    /// What it was granted.
    pub qos: Qos,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages keep their RETAIN flag.
    pub retain_as_published: bool,
    /// Sent along with each message.
    pub identifier: Option<NonZeroU32>,
}

impl Held {
    /// What a delivery has to know of it.
    pub(super) const fn subscribed(&self) -> Subscribed {
        Subscribed {
            number: self.number,
            identifier: self.identifier,
            exactly_once: matches!(self.qos, Qos::ExactlyOnce),
            retain_as_published: self.retain_as_published,
        }
    }
}

/// A list that becomes a table when it is long.
#[derive(Debug)]
pub(super) enum Filters {
    Few(Vec<(Box<str>, Held)>),
    Many(Box<HashMap<Box<str>, Held, RandomState>>),
}

impl Default for Filters {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Filters {
    /// The subscription to `filter`.
    pub(super) fn get(&self, filter: &str) -> Option<Held> {
        match self {
            Self::Few(list) => list.iter().find(|(known, _)| **known == *filter).map(|(_, held)| *held),
            Self::Many(table) => table.get(filter).copied(),
        }
    }

    /// Sets the subscription to `filter`.
    pub(super) fn insert(&mut self, filter: Box<str>, held: Held) {
        match self {
            Self::Few(list) => {
                if let Some((_, known)) = list.iter_mut().find(|(known, _)| **known == *filter) {
                    *known = held;
                } else if list.len() < FEW {
                    list.reserve_exact(1);
                    list.push((filter, held));
                } else {
                    let mut table: HashMap<_, _, _> = std::mem::take(list).into_iter().collect();
                    table.insert(filter, held);
                    *self = Self::Many(Box::new(table));
                }
            }
            Self::Many(table) => drop(table.insert(filter, held)),
        }
    }

    /// Takes the subscription to `filter` out.
    pub(super) fn remove(&mut self, filter: &str) -> Option<Held> {
        match self {
            Self::Few(list) => {
                let place = list.iter().position(|(known, _)| **known == *filter)?;
                Some(list.swap_remove(place).1)
            }
            Self::Many(table) => table.remove(filter),
        }
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Held)> {
        let (few, many) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(table) => (None, Some(table)),
        };
        let few = few.into_iter().flatten().map(|(filter, held)| (&**filter, held));
        few.chain(many.into_iter().flat_map(|table| table.iter()).map(|(filter, held)| (&**filter, held)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(table) => table.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(number: u32) -> Held {
        Held { number, qos: Qos::AtMostOnce, no_local: false, retain_as_published: false, identifier: None }
    }

    #[test]
    fn a_filter_is_found_among_few_and_among_many() {
        for count in [1, 8, 9, 100] {
            let mut filters = Filters::default();
            for number in 0..count {
                filters.insert(format!("f/{number}").into(), held(number + 1000));
                filters.insert(format!("f/{number}").into(), held(number));
            }
            assert_eq!((filters.len(), filters.iter().count()), (count as usize, count as usize));
            for number in (0..count).step_by(2) {
                assert_eq!(filters.remove(&format!("f/{number}")), Some(held(number)));
                assert_eq!(filters.remove(&format!("f/{number}")), None);
            }
            for number in 0..count {
                let expected = (number % 2 == 1).then(|| held(number));
                assert_eq!(filters.get(&format!("f/{number}")), expected, "{number} of {count}");
            }
        }
    }
}
