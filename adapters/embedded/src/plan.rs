//! What a lane's targets stand for, and where their messages go as of now.

use std::sync::Arc;

use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::{Destination, Flags, Refused, Settle, SubscriptionKey};
use smallvec::SmallVec;

use crate::repeats::Repeats;
use crate::subscription::Subscription;

/// A destination that owns its bytes.
#[derive(Debug)]
pub(crate) enum Goal {
    Address { topic: Box<[u8]>, more: Box<[Box<[u8]>]>, queues: Box<[Arc<str>]> },
    Exchange { name: Box<str>, key: Box<[u8]>, more: Box<[Box<[u8]>]> },
    Queue { name: Box<str>, more: Box<[Box<[u8]>]> },
}

impl Goal {
    pub(crate) fn new(to: &Destination<'_>) -> Self {
        let owned = |more: &[&[u8]], syntax, wanted| {
            more.iter().map(|key| Box::from(&*respelled(key, syntax, wanted))).collect()
        };
        match *to {
            Destination::Address { path, syntax, more, queues } => Self::Address {
                topic: Box::from(&*respelled(path, syntax, Syntax::Topic)),
                more: owned(more, syntax, Syntax::Topic),
                queues: queues.into(),
            },
            Destination::Exchange { name, key, more } => Self::Exchange {
                name: name.into(),
                key: key.into(),
                more: owned(more, Syntax::Key, Syntax::Key),
            },
            Destination::Queue { name, more } => {
                Self::Queue { name: name.into(), more: owned(more, Syntax::Key, Syntax::Key) }
            }
        }
    }

    /// Whether an address keeps what is published here to be retained: those of work routes do not.
    pub(crate) fn retains(&self) -> bool {
        matches!(self, Self::Address { queues, .. } if queues.is_empty())
    }

    /// Lends it in the contract's words.
    pub(crate) fn lend<R>(&self, to: impl FnOnce(&Destination<'_>) -> R) -> R {
        let more = match self {
            Self::Address { more, .. } | Self::Exchange { more, .. } | Self::Queue { more, .. } => more,
        };
        let more: Vec<&[u8]> = more.iter().map(|key| &**key).collect();
        match self {
            Self::Address { topic, queues, .. } => {
                to(&Destination::Address { path: topic, syntax: Syntax::Topic, more: &more, queues })
            }
            Self::Exchange { name, key, .. } => to(&Destination::Exchange { name, key, more: &more }),
            Self::Queue { name, .. } => to(&Destination::Queue { name, more: &more }),
        }
    }
}

/// Where a target's messages go, as of an epoch of the topology.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) epoch: u64,
    pub(crate) members: SmallVec<[Member; 1]>,
    /// Places among the lane's queues.
    pub(crate) queues: SmallVec<[u32; 2]>,
    /// Those of them that drop what comes again.
    pub(crate) repeats: SmallVec<[(u32, Arc<Repeats>); 0]>,
    pub(crate) way: Way,
}

/// A subscription that gets a copy.
#[derive(Debug)]
pub(crate) struct Member {
    /// Place of its session among the lane's.
    pub(crate) slot: u32,
    /// Place of its session's queue among the lane's.
    pub(crate) inbox: Option<u32>,
    pub(crate) key: SubscriptionKey,
    pub(crate) settle: Settle,
    pub(crate) subscription: Arc<Subscription>,
}

impl Member {
    pub(crate) fn new(slot: u32, inbox: Option<u32>, subscription: Arc<Subscription>) -> Self {
        Self { slot, inbox, key: subscription.key, settle: subscription.settle, subscription }
    }

    /// True when nobody will settle a message of these flags.
    #[inline]
    pub(crate) fn is_settled(&self, flags: Flags) -> bool {
        is_settled(self.settle, flags)
    }
}

/// True when nobody will settle a message of these flags for a subscription that settles so.
#[inline]
pub(crate) const fn is_settled(settle: Settle, flags: Flags) -> bool {
    match settle {
        Settle::OnDelivery => true,
        Settle::ByConsumer => false,
        Settle::AsPublished => !flags.has(Flags::DURABLE),
    }
}

/// How a target's messages find their way.
#[derive(Debug, Default)]
pub(crate) enum Way {
    /// All the same.
    #[default]
    Common,
    /// Each by its headers.
    Own,
    /// Nowhere: the destination does not exist or is not for publishers.
    Closed(Box<Refused>),
}
