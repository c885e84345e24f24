//! What a lane holds back until it commits (AMQP 0-9-1 §1.9).

use std::sync::Arc;

use linkspan_contract::{Batch, OwnedBatch, Settled, TargetId};

/// Publishes and settlements that wait for their commit.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) published: Vec<Arc<OwnedBatch>>,
    pub(crate) settled: Vec<Settled>,
    /// Targets that the door has given up while messages to them wait.
    pub(crate) forgotten: Vec<TargetId>,
}

impl Transaction {
    /// Holds the first `count` messages of a batch back.
    pub(crate) fn hold(&mut self, batch: &Batch<'_>, count: u32) {
        if count > 0 {
            self.published.push(batch.keep(0..count));
        }
    }
}
