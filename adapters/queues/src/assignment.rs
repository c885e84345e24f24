//! Who gets what.

use linkspan_contract::DeliveryTag;

use crate::consumer::ConsumerId;
use crate::offer::Queued;

/// A message for a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<B> {
    /// For whom.
    pub consumer: ConsumerId,
    /// Its number there, from 1 on; 0 when `settled`.
    pub tag: DeliveryTag,
    /// Nobody will settle it: the queue has forgotten it.
    pub settled: bool,
    /// Milliseconds that it was in the queue.
    pub age: u64,
    /// The message; above 0 [`attempts`](Queued::attempts) it is redelivered.
    pub message: Queued<B>,
}

/// Messages of a lent batch for a consumer, without their having been in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direct {
    /// For whom.
    pub consumer: ConsumerId,
    /// The first of its messages among those that were asked about.
    pub first: u32,
    /// How many take turns: each so manieth from the first on is its, 1 says all.
    pub turns: u32,
}
