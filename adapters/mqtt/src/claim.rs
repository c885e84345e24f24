//! Who is told what becomes of a message at the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use linkspan_contract::{Kept, LaneEvent, LaneEvents, Outcome, Receipt, ReceiptSink, Refused, Seq};
use parking_lot::Mutex;

use crate::upstream::packet::Ack;

/// AMQP's reply code for a message that nobody takes.
const NO_ROUTE: u16 = 312;

/// The ears of a lane, as long as there is one.
pub(crate) struct Ears {
    pub(crate) receipts: Arc<dyn ReceiptSink>,
    pub(crate) events: Arc<dyn LaneEvents>,
    closed: AtomicBool,
}

impl Ears {
    pub(crate) fn new(receipts: Arc<dyn ReceiptSink>, events: Arc<dyn LaneEvents>) -> Arc<Self> {
        Arc::new(Self { receipts, events, closed: AtomicBool::new(false) })
    }

    /// The lane is gone: nobody is told anything any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// What a lane wants to be told about one message.
pub(crate) struct Claim {
    pub(crate) ears: Arc<Ears>,
    /// The receipt's number.
    pub(crate) seq: Option<Seq>,
    /// The message, to be given back when nobody takes it.
    pub(crate) returns: Option<Kept>,
    /// It goes into work queues: somebody always takes it once these are subscribed.
    pub(crate) works: bool,
    /// A queue here has taken it already.
    pub(crate) kept: bool,
    /// It was sent to several addresses under one number.
    pub(crate) joint: Option<Arc<Joint>>,
}

/// One message on its way to several addresses: what counts is the best that became of it, when all are through.
pub(crate) struct Joint {
    left: AtomicU32,
    best: Mutex<Outcome>,
}

impl Joint {
    pub(crate) fn of(count: usize) -> Arc<Self> {
        let left = AtomicU32::new(u32::try_from(count).unwrap_or(u32::MAX));
        Arc::new(Self { left, best: Mutex::new(Outcome::Unroutable) })
    }

    /// One of them is through; tells what became of all when it was the last.
    pub(crate) fn through(&self, outcome: Outcome) -> Option<Outcome> {
        let rank = |outcome: &Outcome| match outcome {
            Outcome::Failed(_) => 3,
            Outcome::Refused(_) => 2,
            Outcome::Accepted => 1,
            Outcome::Unroutable => 0,
        };
        let mut best = self.best.lock();
        if rank(&outcome) > rank(&best) {
            *best = outcome;
        }
        let was_last = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        was_last.then(|| best.clone())
    }
}

/// Words to lanes that are said together, in runs.
#[derive(Default)]
pub(crate) struct Words {
    runs: Vec<(Arc<Ears>, Vec<Receipt>)>,
    returned: Vec<(Arc<Ears>, Kept)>,
}

impl Words {
    /// The broker has answered.
    pub(crate) fn answer(&mut self, backend: &str, claim: Claim, ack: Ack) {
        let outcome = match ack {
            Ack::Taken => Outcome::Accepted,
            Ack::Nobody if claim.kept => Outcome::Accepted,
            Ack::Nobody if claim.works => Outcome::Failed(Refused::Away(backend.into())),
            Ack::Nobody => Outcome::Unroutable,
            Ack::Refused(why) => Outcome::Refused(why),
        };
        let outcome = match &claim.joint {
            None => outcome,
            Some(joint) => match joint.through(outcome) {
                Some(outcome) => outcome,
                None => return,
            },
        };
        if claim.ears.is_closed() {
            return;
        }
        if outcome == Outcome::Unroutable
            && let Some(message) = claim.returns
        {
            self.returned.push((Arc::clone(&claim.ears), message));
        }
        if let Some(seq) = claim.seq {
            self.add(&claim.ears, seq, outcome);
        }
    }

    fn add(&mut self, ears: &Arc<Ears>, seq: Seq, outcome: Outcome) {
        let place = self.runs.iter().rposition(|(other, _)| Arc::ptr_eq(other, ears));
        let runs = match place.and_then(|place| self.runs.get_mut(place)) {
            Some((_, runs)) => runs,
            None => {
                self.runs.push((Arc::clone(ears), vec![Receipt { first: seq, count: 1, outcome }]));
                return;
            }
        };
        match runs.last_mut() {
            Some(last) if last.first + u64::from(last.count) == seq && last.outcome == outcome => {
                last.count += 1
            }
            _ => runs.push(Receipt { first: seq, count: 1, outcome }),
        }
    }

    /// Says them. No lock may be held.
    pub(crate) fn say(&mut self) {
        for (ears, message) in self.returned.drain(..) {
            ears.events.event(LaneEvent::Returned { message, code: NO_ROUTE, text: "NO_ROUTE".into() });
        }
        for (ears, runs) in self.runs.drain(..) {
            ears.receipts.receipts(&runs);
        }
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::conformance::heard::Heard;

    use super::*;

    fn claim(ears: &Arc<Ears>, seq: Seq, joint: Option<&Arc<Joint>>) -> Claim {
        Claim {
            ears: Arc::clone(ears),
            seq: Some(seq),
            returns: None,
            works: false,
            kept: false,
            joint: joint.cloned(),
        }
    }

    #[test]
    fn answers_in_a_row_are_told_in_runs_and_a_closed_lane_is_told_nothing() {
        let heard = Arc::new(Heard::default());
        let ears = Ears::new(heard.clone(), heard.clone());
        let mut words = Words::default();
        for (seq, ack) in [(0, Ack::Taken), (1, Ack::Taken), (2, Ack::Nobody), (3, Ack::Taken)] {
            words.answer("b", claim(&ears, seq, None), ack);
        }
        words.say();
        let told: Vec<_> =
            heard.receipts.lock().iter().map(|it| (it.first, it.count, it.outcome.clone())).collect();
        assert_eq!(told, [(0, 2, Outcome::Accepted), (2, 1, Outcome::Unroutable), (3, 1, Outcome::Accepted)]);
        ears.close();
        words.answer("b", claim(&ears, 4, None), Ack::Taken);
        words.say();
        assert_eq!(heard.receipts.lock().len(), 3);
    }

    #[test]
    fn a_message_to_several_addresses_is_told_once_and_taken_when_one_is() {
        let heard = Arc::new(Heard::default());
        let ears = Ears::new(heard.clone(), heard.clone());
        let mut words = Words::default();
        let joint = Joint::of(2);
        words.answer("b", claim(&ears, 0, Some(&joint)), Ack::Taken);
        words.say();
        assert!(heard.receipts.lock().is_empty());
        words.answer("b", claim(&ears, 0, Some(&joint)), Ack::Nobody);
        words.say();
        assert_eq!(*heard.receipts.lock(), [Receipt { first: 0, count: 1, outcome: Outcome::Accepted }]);
    }
}
