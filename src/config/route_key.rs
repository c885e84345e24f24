//! Where a route stands in the file: in a `[[route]]` of its own, or in the `dead-letter` of another one.

use super::key::KeyPath;

/// The table that a route comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteKey {
    /// `route[2]`.
    Own(KeyPath),
    /// `route[2].dead-letter`: the queue that keeps the dead letters of that route.
    DeadLetter(KeyPath),
}

impl RouteKey {
    /// The whole table.
    pub(super) fn table(&self) -> &KeyPath {
        match self {
            Self::Own(key) | Self::DeadLetter(key) => key,
        }
    }

    /// What stands under `name` in a `[[route]]`, or what says the same of a queue of dead letters.
    pub(super) fn key(&self, name: &str) -> KeyPath {
        match (self, name) {
            (Self::Own(key), name) => key.key(name),
            (Self::DeadLetter(key), "match") => key.key("address"),
            (Self::DeadLetter(key), "queue") => key.key("queue"),
            (Self::DeadLetter(key), _) => key.clone(),
        }
    }
}
