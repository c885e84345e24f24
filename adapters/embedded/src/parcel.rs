//! A message in a queue.

use std::sync::Arc;

use linkspan_contract::{Body, Flags, Kept, OwnedBatch};
use linkspan_queues::Offer;

/// A kept message, and the subscription that brought it into the queue, where that is a session's.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    /// The run it was published in.
    pub(crate) batch: Arc<OwnedBatch>,
    /// Its place there.
    pub(crate) at: u32,
    /// The door's number of the subscription, and [`Parcel::AT_LEAST_ONCE`]; [`Parcel::NO_SUBSCRIPTION`] in other queues
    /// than sessions'.
    pub(crate) via: u32,
}

/// Which bytes of its messages a queue counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// All.
    All,
    /// Those of bodies, as RabbitMQ: a length in bytes was asked for.
    Body,
    /// Those that are not in a body of their own in the log, and a 64th of those that are: what a session keeps.
    Held,
}

impl Parcel {
    /// It came by no subscription.
    pub(crate) const NO_SUBSCRIPTION: u32 = u32::MAX;

    /// The subscription was not one by which messages come exactly once. It lies above the numbers of subscriptions.
    pub(crate) const AT_LEAST_ONCE: u32 = 1 << 31;

    /// The subscription's number.
    pub(crate) const fn number(via: u32) -> u32 {
        via & !Self::AT_LEAST_ONCE
    }

    /// True when its body is not in memory.
    fn is_apart(&self) -> bool {
        matches!(self.batch.batch().body, Some(Body::Stored(_)))
    }

    /// True when its body cannot be read any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.batch.batch().body.is_some_and(Body::is_lost)
    }

    /// Bytes of its body: what RabbitMQ counts.
    pub(crate) fn body_len(&self) -> u64 {
        let batch = self.batch.batch();
        batch.message(self.at).map_or(0, |message| batch.payload_len(message))
    }

    /// The message, that the engine may take it.
    pub(crate) fn offer(self, counts: Counts) -> Offer<Self> {
        let message = self.batch.messages().get(self.at as usize).copied().unwrap_or_default();
        Offer {
            size: match counts {
                Counts::All => self.batch.size(self.at),
                Counts::Body => self.body_len(),
                Counts::Held => self.batch.held(self.at),
            },
            priority: message.priority,
            expiry: message.flags.has(Flags::EXPIRES).then_some(message.expiry),
            key: 0,
            delay: 0,
            durable: message.flags.has(Flags::DURABLE),
            apart: self.is_apart(),
            body: self,
        }
    }

    /// The message alone.
    pub(crate) fn kept(self) -> Kept {
        Kept { batch: self.batch, at: self.at }
    }
}

impl From<Kept> for Parcel {
    fn from(kept: Kept) -> Self {
        Self { batch: kept.batch, at: kept.at, via: Self::NO_SUBSCRIPTION }
    }
}
