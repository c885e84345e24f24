//! Somebody who works at a desk.

use std::sync::Arc;

use linkspan_contract::{
    Credit, Delivered, DeliverySink, Kept, Millis, Pick, Settle, Standing, SubscriptionKey,
};
use linkspan_queues::{Assignment, Consumer, ConsumerId, LaneId};

/// A client's subscription to the queue.
pub(crate) struct Seat {
    /// Of which lane it is.
    pub(crate) lane: LaneId,
    /// Under which key.
    pub(crate) key: SubscriptionKey,
    pub(crate) sink: Arc<dyn DeliverySink>,
    pub(crate) settle: Settle,
    pub(crate) credit: Option<Arc<Credit>>,
    pub(crate) priority: i32,
    pub(crate) exclusive: bool,
    /// Several workers sit there.
    pub(crate) several: bool,
    pub(crate) ack_timeout: Option<Millis>,
    /// It may be given something.
    pub(crate) started: bool,
    /// Its sink is above its mark.
    pub(crate) congested: bool,
    /// Its sink takes nothing any more.
    pub(crate) closed: bool,
}

impl Seat {
    /// What the engine is told.
    pub(super) fn consumer(&self, id: ConsumerId) -> Consumer {
        Consumer {
            priority: self.priority,
            exclusive: self.exclusive,
            several: self.several,
            credit: self.credit.clone(),
            ack_timeout: self.ack_timeout,
            ..Consumer::new(id, self.lane, self.settle)
        }
    }

    /// Whether it can be given something now.
    pub(super) const fn is_open(&self) -> bool {
        self.started && !self.congested && !self.closed
    }

    /// How many deliveries it may have in hand. `unsettling` is what one has that settles nothing.
    pub(super) fn window(&self, unsettling: u16) -> u32 {
        match (&self.credit, self.settle) {
            _ if self.closed => 0,
            (_, Settle::OnDelivery) => unsettling.into(),
            (None, _) => u32::from(u16::MAX),
            (Some(credit), _) => credit.limit(),
        }
    }

    /// Hands a message to its sink.
    pub(super) fn give(&self, assignment: &Assignment<Kept>) -> Delivered {
        let Kept { batch, at } = &assignment.message.body;
        let pick = Pick {
            at: *at..at.saturating_add(1),
            key: self.key,
            first: assignment.tag,
            age: assignment.age,
            attempt: assignment.message.attempts,
            settled: assignment.settled,
            standing: Standing::Passing,
        };
        self.sink.deliver(&batch.batch(), std::slice::from_ref(&pick))
    }
}
