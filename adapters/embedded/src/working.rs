//! A lane's consumer of a queue.

use std::sync::Arc;

use linkspan_contract::DeliveryTag;
use linkspan_queues::ConsumerId;

use crate::queue::Queue;

/// A consumer of a queue.
pub(crate) struct Working {
    pub(crate) queue: Arc<Queue>,
    pub(crate) consumer: ConsumerId,
    /// Only deliveries are left.
    pub(crate) over: bool,
    pub(crate) earlier: Vec<Earlier>,
}

/// A consumer that had the key before, and has deliveries that are not settled.
pub(crate) struct Earlier {
    pub(crate) queue: Arc<Queue>,
    pub(crate) consumer: ConsumerId,
    /// Its tags are below this.
    pub(crate) below: DeliveryTag,
}

impl Working {
    /// Tells of a run of tags whose consumers' they are, and in which queues; and adds up what it is answered.
    #[inline]
    pub(crate) fn share_out(
        &self,
        mut first: DeliveryTag,
        mut left: u32,
        mut to: impl FnMut(&Arc<Queue>, ConsumerId, DeliveryTag, u32) -> u32,
    ) -> u32 {
        let mut known = 0;
        for old in &self.earlier {
            let its = left.min(u32::try_from(old.below.saturating_sub(first)).unwrap_or(u32::MAX));
            if its > 0 {
                known += to(&old.queue, old.consumer, first, its);
            }
            (first, left) = (first.saturating_add(its.into()), left - its);
        }
        if left > 0 {
            known += to(&self.queue, self.consumer, first, left);
        }
        known
    }

    /// Lets go of consumers that have nothing to settle any more; true when there is none left.
    pub(crate) fn tidy(&mut self) -> bool {
        self.earlier.retain(|old| old.queue.owes(old.consumer));
        self.over && self.earlier.is_empty() && !self.queue.owes(self.consumer)
    }
}
