//! What clients say about deliveries: found among what they were given, gathered for one call of their lane.

use std::sync::Arc;

use linkspan_contract::{Credit, Settled, Settlement, SubscriptionKey};
use smallvec::SmallVec;

use crate::protocol::amqp::{MethodId, ReplyCode};

use super::failure::Failure;
use super::sink::{Outgoing, Sink};
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

impl Outgoing {
    fn settle(&mut self, run: Run, word: Word, transaction: bool, into: &mut Settling) {
        into.add(run, word);
        if transaction {
            into.held.push(run);
        } else {
            self.release(run, into);
        }
    }

    fn release(&mut self, run: Run, into: &mut Settling) {
        if let Some(consumer) = self.consumers.get_mut(run.key) {
            if let Some(credit) = &consumer.credit {
                into.grant(run.key, run.count, credit);
            }
            self.consumers.settled(run.key, run.count);
        }
    }

    fn acknowledge(
        &mut self,
        channel: usize,
        said: &Acknowledged,
        transaction: bool,
        into: &mut Settling,
    ) -> Result<(), Failure> {
        let unknown = |tag: u64| {
            Failure::new(ReplyCode::PreconditionFailed, &format!("unknown delivery tag {tag}"))
                .caused_by(said.method)
        };
        let mut taken: SmallVec<[Run; 4]> = SmallVec::new();
        let Some(out) = self.channels.get_mut(channel) else { return Ok(()) };
        let mut wrong = None;
        if !said.multiple {
            for tag in said.tag..said.tag.saturating_add(said.count.into()) {
                match out.unsettled.take(tag) {
                    Some(run) if taken.last_mut().is_some_and(|last| last.extend(&run)) => {}
                    Some(run) => taken.push(run),
                    None => {
                        wrong = Some(tag);
                        break;
                    }
                }
            }
        } else if said.tag == 0 {
            out.unsettled.take_all(|run| taken.push(run));
        } else if out.unsettled.holds(said.tag) {
            out.unsettled.take_until(said.tag, |run| taken.push(run));
        } else {
            wrong = Some(said.tag);
        }
        for run in taken {
            self.settle(run, said.word, transaction, into);
        }
        wrong.map_or(Ok(()), |tag| Err(unknown(tag)))
    }
}

impl Sink {
    /// What the client said about deliveries of a channel. In a `transaction` the windows wait for its commit.
    ///
    /// # Errors
    /// A tag that is not unsettled; what was said before it counts.
    pub(super) fn acknowledge(
        &self,
        channel: usize,
        said: &[Acknowledged],
        transaction: bool,
        into: &mut Settling,
    ) -> Result<(), Failure> {
        let mut guard = self.outbound().lock();
        let state = guard.state();
        said.iter().try_for_each(|said| state.acknowledge(channel, said, transaction, into))
    }

    /// A transaction was committed: what was held is settled.
    pub(super) fn committed(&self, held: Vec<Run>, into: &mut Settling) {
        let mut guard = self.outbound().lock();
        held.into_iter().for_each(|run| guard.state().release(run, into));
    }

    /// A transaction was rolled back: what was held is unsettled again.
    pub(super) fn rolled_back(&self, channel: usize, held: Vec<Run>) {
        let mut guard = self.outbound().lock();
        if let Some(out) = guard.state().channels.get_mut(channel) {
            held.into_iter().for_each(|run| out.unsettled.put_back(run));
        }
    }

    /// All that a channel has unsettled is forgotten: the lane gives it back to the queues. `answer` is told the client
    /// at once: it throws away what it has when it hears it, and must not throw away what comes again.
    pub(super) fn recovered(&self, channel: usize, answer: &[u8], into: &mut Settling) {
        let mut guard = self.outbound().lock();
        guard.parts().1.extend_from_slice(answer);
        guard.appended();
        let state = guard.state();
        let mut taken: SmallVec<[Run; 4]> = SmallVec::new();
        if let Some(out) = state.channels.get_mut(channel) {
            out.unsettled.take_all(|run| taken.push(run));
        }
        taken.into_iter().for_each(|run| state.release(run, into));
    }
}
