//! What clients say about deliveries, gathered for one call of their lane.

use std::sync::Arc;

use linkspan_contract::{Credit, Settled, Settlement, SubscriptionKey};
use smallvec::SmallVec;

use crate::protocol::amqp::MethodId;

use super::unsettled::Run;

/// What a client says about deliveries, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// The first tag; with `multiple`, all up to it.
    pub(super) tag: u64,
    /// How many follow each other, when not `multiple`.
    pub(super) count: u32,
    /// All up to `tag`; 0 is all there are.
    pub(super) multiple: bool,
    /// What is said.
    pub(super) word: Word,
    /// By which method.
    pub(super) method: MethodId,
}

/// AMQP's outcomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// `basic.ack`.
    Ack,
    /// `basic.reject` or `basic.nack` without requeue.
    Drop,
    /// The same with requeue; `basic.recover`.
    Requeue,
}

impl Word {
    fn outcome(self) -> Settlement {
        match self {
            Self::Ack => Settlement::Accept,
            Self::Drop => Settlement::Reject(None),
            Self::Requeue => Settlement::Release { delay: 0 },
        }
    }
}

/// What acknowledgements of one read come to.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// For the lane.
    pub(super) runs: Vec<Settled>,
    /// What windows get back, once the lane knows.
    pub(super) grants: SmallVec<[(SubscriptionKey, u32, Arc<Credit>); 2]>,
    /// In a transaction: what a rollback brings back and a commit grants.
    pub(super) held: Vec<Run>,
}

impl Settling {
    /// Adds a run; one that goes on where the last ended makes that longer.
    pub(super) fn add(&mut self, run: Run, word: Word) {
        let outcome = word.outcome();
        if let Some(last) = self.runs.last_mut() {
            let follows = last.key == run.key && last.first + u64::from(last.count) == run.tag;
            if let Some(count) =
                last.count.checked_add(run.count).filter(|_| follows && last.outcome == outcome)
            {
                last.count = count;
                return;
            }
        }
        self.runs.push(Settled { key: run.key, first: run.tag, count: run.count, outcome, word: None });
    }

    /// Adds what a consumer's window gets.
    pub(super) fn grant(&mut self, key: SubscriptionKey, count: u32, credit: &Arc<Credit>) {
        match self.grants.iter_mut().find(|(known, _, _)| known.subscription == key.subscription) {
            Some((_, n, _)) => *n += count,
            None => self.grants.push((key, count, Arc::clone(credit))),
        }
    }

    /// Gives the windows what they get; true when a back end had run dry.
    pub(super) fn give(&self) -> bool {
        self.grants.iter().fold(false, |starved, (_, count, credit)| credit.grant(*count) | starved)
    }
}
