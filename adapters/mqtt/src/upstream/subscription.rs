//! One subscription of Linkspan's own at the broker, among others that overlap with it.

use std::sync::Arc;

use linkspan_contract::address::Pattern;

/// A subscription's number, and its identifier at the broker: 1 to 268,435,455.
pub(crate) type Id = u32;

/// One subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: Arc<str>,
    pub(crate) pattern: Pattern,
    pub(crate) state: State,
    /// It goes as soon as others are acknowledged: nobody relies on it any more.
    pub(crate) replaced: bool,
    /// A message came by it.
    pub(crate) seen: bool,
    /// Older ones that may match what this one matches, and younger ones.
    pub(crate) elders: Vec<Id>,
    pub(crate) juniors: Vec<Id>,
    /// What is given up when this one is acknowledged.
    pub(crate) replaces: Vec<Id>,
}

/// How it stands with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Asked,
    Active,
    Leaving,
    /// The broker has given it up, and may have messages for it under way.
    Retired,
}

impl Subscription {
    /// True when others may rely on it.
    pub(crate) fn stays(&self) -> bool {
        matches!(self.state, State::Asked | State::Active) && !self.replaced
    }
}
