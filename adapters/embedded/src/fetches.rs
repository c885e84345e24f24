//! What a lane has taken by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::{DeliveryTag, SubscriptionKey};
use linkspan_queues::ConsumerId;

use crate::queue::Queue;

/// What was taken by name and not settled.
pub(crate) struct Fetches {
    /// The one key that serves all of them.
    pub(crate) key: SubscriptionKey,
    pub(crate) holder: ConsumerId,
    pub(crate) next: DeliveryTag,
    pub(crate) unsettled: BTreeMap<DeliveryTag, (Arc<Queue>, DeliveryTag)>,
}

impl Fetches {
    pub(crate) fn share_out(
        &self,
        tags: Range<DeliveryTag>,
        mut to: impl FnMut(&Arc<Queue>, ConsumerId, DeliveryTag, u32) -> u32,
    ) -> u32 {
        self.unsettled.range(tags).map(|(_, (queue, own))| to(queue, self.holder, *own, 1)).sum()
    }
}
