//! Who takes messages one by one.

pub(super) mod coordinator;

use linkspan_contract::DeliveryTag;
use linkspan_queues::ConsumerId;

/// A lane that takes messages one by one. Its tags go on when the engine's begin anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetching {
    pub(super) id: ConsumerId,
    /// What is to be added to the engine's tags.
    pub(super) base: DeliveryTag,
    pub(super) last: DeliveryTag,
    /// It was forgotten what was taken under that number.
    pub(super) is_lost: bool,
}
