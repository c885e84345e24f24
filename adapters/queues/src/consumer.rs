//! Who consumes from a queue.

use std::sync::Arc;

use linkspan_contract::{Credit, Millis, Settle};

/// A consumer's number, unique in the back end and never used again.
pub type ConsumerId = u64;

/// Who holds unsettled deliveries: a [`Lane`](linkspan_contract::Lane)'s number, unique in the back end.
pub type LaneId = u64;

/// Somebody who wants to be given messages.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Its number.
    pub id: ConsumerId,
    /// Whose its deliveries are until they are settled.
    pub lane: LaneId,
    /// Higher ones come first.
    pub priority: i32,
    /// It tolerates no other, and comes only when there is none.
    pub exclusive: bool,
    /// Several workers stand behind it: of each [`Key`](crate::Key) it is given one message at a time.
    pub several: bool,
    /// Who settles.
    pub settle: Settle,
    /// Its window; without one it takes all there is. What nobody settles takes none of it.
    pub credit: Option<Arc<Credit>>,
    /// Milliseconds after which an unsettled delivery comes back by itself; without, the queue's own time counts.
    pub ack_timeout: Option<Millis>,
    /// The tags of its deliveries are the messages' positions, and one: so they mean the same after a restart. Else they
    /// count from 1.
    pub tags_by_position: bool,
}

impl Consumer {
    /// A consumer of everything with nothing special.
    pub const fn new(id: ConsumerId, lane: LaneId, settle: Settle) -> Self {
        Self {
            id,
            lane,
            priority: 0,
            exclusive: false,
            several: false,
            settle,
            credit: None,
            ack_timeout: None,
            tags_by_position: false,
        }
    }
}

/// The queue has another consumer, and one of the two wants to be alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue has another consumer and one of the two is exclusive")]
pub struct ExclusiveUse;

/// What is left after consumers have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many have gone.
    pub removed: u32,
    /// True when somebody has gone and nobody is left.
    pub was_last: bool,
}
