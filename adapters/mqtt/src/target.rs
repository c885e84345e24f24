//! What a lane's targets stand for.

use std::sync::Arc;

use linkspan_contract::address::{self, Syntax, respelled};
use linkspan_contract::{Destination, Refused, TargetId};

use crate::exchanges;

/// A destination, found out once.
pub(crate) enum Target {
    /// Addresses at the broker.
    Addresses {
        topics: Box<[Arc<str>]>,
        /// The queues of the work route, and the engine's number for each.
        queues: Box<[(Arc<str>, TargetId)]>,
    },
    /// Something here: the engine's number.
    Here(TargetId),
    /// A routing key that is no topic.
    NoTopic(Refused),
    /// Nothing may be published there: who tries has made a mistake.
    Closed(Refused),
}

impl Target {
    /// `here` gives the engine's number.
    pub(crate) fn new(to: &Destination<'_>, mut here: impl FnMut(&Destination<'_>) -> TargetId) -> Self {
        match *to {
            Destination::Queue { .. } => Self::Here(here(to)),
            Destination::Exchange { name, key, more } if name == exchanges::ADDRESS_SPACE => {
                Self::addresses(key, more, Syntax::Key, &[], here)
            }
            Destination::Exchange { name, .. } => Self::Closed(exchanges::closed(name)),
            Destination::Address { path, syntax, more, queues } => {
                Self::addresses(path, more, syntax, queues, here)
            }
        }
    }

    fn addresses(
        path: &[u8],
        more: &[&[u8]],
        syntax: Syntax,
        queues: &[Arc<str>],
        mut here: impl FnMut(&Destination<'_>) -> TargetId,
    ) -> Self {
        let mut topics: Vec<Arc<str>> = Vec::new();
        for path in std::iter::once(&path).chain(more) {
            let topic = respelled(path, syntax, Syntax::Topic);
            match std::str::from_utf8(&topic) {
                Ok(text) if address::is_topic(&topic) => {
                    if !topics.iter().any(|other| **other == *text) {
                        topics.push(text.into());
                    }
                }
                _ => return Self::NoTopic(no_topic(path)),
            }
        }
        let queue = |name: &Arc<str>| (Arc::clone(name), here(&Destination::Queue { name, more: &[] }));
        Self::Addresses { topics: topics.into(), queues: queues.iter().map(queue).collect() }
    }

    /// The engine's numbers that go with it.
    pub(crate) fn here(&self) -> Vec<TargetId> {
        match self {
            Self::Here(target) => vec![*target],
            Self::Addresses { queues, .. } => queues.iter().map(|(_, target)| *target).collect(),
            Self::NoTopic(_) | Self::Closed(_) => Vec::new(),
        }
    }
}

fn no_topic(path: &[u8]) -> Refused {
    let path = String::from_utf8_lossy(path);
    Refused::Precondition(format!(
        "'{path}' is no MQTT topic: it is empty, not UTF-8, too long, or has a '+', '#' or NUL in it"
    ))
}
