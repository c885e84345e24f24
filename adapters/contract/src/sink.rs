//! A client connection's outbound side.

use std::ops::Range;
use std::task::{Context, Poll};

use crate::batch::Batch;
use crate::settlement::DeliveryTag;

/// A subscription of a door. The door chooses `subscription`; `part` names the back end behind it when the hub merges
/// several, and comes back in a [`Settled`](crate::Settled).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SubscriptionKey {
    /// The door's number.
    pub subscription: u32,
    /// The hub's.
    pub part: u16,
}

/// Messages `at` of a batch for one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Places in the batch.
    pub at: Range<u32>,
    /// For whom.
    pub key: SubscriptionKey,
    /// The number of the first; those behind it count up. Means nothing when `settled`.
    pub first: DeliveryTag,
    /// Milliseconds that they have waited in a queue: to be taken off their expiry.
    pub age: u64,
    /// How often they were given out before: above 0 they are redelivered.
    pub attempt: u32,
    /// Nobody will settle them: QoS 0, auto-ack.
    pub settled: bool,
    /// Whether what is known of them outlives the back end's process.
    pub standing: Standing,
}

/// How long a delivery is known under its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// Until the lane goes.
    #[default]
    Passing,
    /// Until the lane goes, and nobody else is given them: with an `attempt` above 0 the client may have been sent the message
    /// before, under a tag that nobody knows any more.
    Private,
    /// For as long as the client's session: after a restart of the back end the tag stands for the same message, in the
    /// same place among the others, and `attempt` is above 0 when the client may know it. Such tags are those of one
    /// session, whatever the subscription, and lie within less than [`SPAN`] of each other while they are unsettled.
    Lasting {
        /// What was published exactly once is delivered so: as it was subscribed when the message came, and so each time
        /// that it is given.
        exactly_once: bool,
    },
    /// As before, and the client has it ([`Settlement::Receive`](crate::Settlement::Receive)): the message is not to be
    /// sent again.
    Received,
}

impl Standing {
    /// Whether the tag outlives the back end's process.
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Lasting { .. } | Self::Received)
    }
}

/// Lasting deliveries whose tags differ by a multiple of it are not unsettled at the same time: so each has a packet
/// identifier of its own, which is told by the tag alone.
pub const SPAN: u64 = 32_767;

/// What a sink says to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Taken.
    Taken,
    /// Taken, but now above its mark: publishers wait, queues keep what they have for consumers that do not settle.
    Congested,
    /// Nothing was taken and nothing ever will be.
    Closed,
}

/// Why a back end ended a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its queue was deleted.
    QueueDeleted,
    /// Another consumer holds the queue now.
    Superseded,
    /// The routes were changed so that this client may not have it any more.
    RouteChanged,
    /// The back end is away.
    Away,
    /// More waited for the window of its client than the back end keeps for one, and what waited for it is gone.
    LimitExceeded {
        /// How much it keeps.
        bytes: u64,
    },
}

/// A client connection's outbound side, supplied by the door: one per connection, shared by all its subscriptions.
///
/// Lock order is back end before sink: a sink never calls a back end, a door never calls its lane while it holds its
/// sink's lock.
pub trait DeliverySink: Send + Sync {
    /// Appends all picks, in order, under one lock. Credit has been taken before.
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered;

    /// Writes in place when nobody else does, else leaves it to who writes, or wakes the owner.
    fn flush(&self);

    /// Ready below the low-water mark, when closed, and when the client has taken nothing for so long that nobody may
    /// be held up by it.
    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// The back end ended this subscription; what was delivered before stays before.
    fn ended(&self, key: SubscriptionKey, why: Ended);
}
