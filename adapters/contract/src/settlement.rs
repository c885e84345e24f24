//! What a consumer says about what it was given.

use std::sync::Arc;

use crate::receipt::Seq;
use crate::sink::SubscriptionKey;

/// A delivery's number: counts up on each subscription.
pub type DeliveryTag = u64;

/// A consumer's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Done: it may be forgotten.
    Accept,
    /// It cannot be worked, by anybody: dead-letter or drop it.
    Reject(Option<Arc<str>>),
    /// Not by me: give it to somebody, after `delay` milliseconds.
    Release {
        /// Milliseconds before it is given out again.
        delay: u64,
    },
    /// Still at it: the deadline begins anew, this many milliseconds from now.
    Extend(u64),
}

/// A run of deliveries of one subscription with one outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The subscription.
    pub key: SubscriptionKey,
    /// The first delivery.
    pub first: DeliveryTag,
    /// How many follow each other.
    pub count: u32,
    /// The word.
    pub outcome: Settlement,
    /// The [`ReceiptSink`](crate::ReceiptSink) is told under this number when the settlement is safe.
    pub word: Option<Seq>,
}
