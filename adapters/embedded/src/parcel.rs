//! A message in a queue.

use std::sync::Arc;

use linkspan_contract::{Flags, Kept, OwnedBatch};
use linkspan_queues::Offer;

/// A kept message, and the subscription that brought it into the queue, where that is a session's.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    /// The run it was published in.
    pub(crate) batch: Arc<OwnedBatch>,
    /// Its place there.
    pub(crate) at: u32,
    /// The door's number of the subscription; [`Parcel::NO_SUBSCRIPTION`] in other queues than sessions'.
    pub(crate) via: u32,
}

impl Parcel {
    /// It came by no subscription.
    pub(crate) const NO_SUBSCRIPTION: u32 = u32::MAX;

    /// Bytes of its body: what RabbitMQ counts.
    pub(crate) fn body_len(&self) -> u64 {
        let batch = self.batch.batch();
        batch.message(self.at).map_or(0, |message| batch.payload_len(message))
    }

    /// The message, that the engine may take it; with only its body counted, or all that it takes.
    pub(crate) fn offer(self, only_body: bool) -> Offer<Self> {
        let message = self.batch.messages().get(self.at as usize).copied().unwrap_or_default();
        Offer {
            size: if only_body { self.body_len() } else { self.batch.size(self.at) },
            priority: message.priority,
            expiry: message.flags.has(Flags::EXPIRES).then_some(message.expiry),
            durable: message.flags.has(Flags::DURABLE),
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
