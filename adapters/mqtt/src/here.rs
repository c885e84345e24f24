//! What is told of messages that stay here: the engine's lane has numbers of its own, and says when what it has written is
//! safe, which may be later than the broker's word on the same message.

use std::collections::VecDeque;
use std::sync::Arc;

use linkspan_contract::{Receipt, ReceiptSink, Seq};
use parking_lot::Mutex;

use crate::claim::{Ears, Joint};

/// Hears the engine's lane, in place of the lane over it.
pub(crate) struct Here {
    ears: Arc<Ears>,
    awaited: Mutex<VecDeque<Awaited>>,
}

/// A run of the engine's numbers, and what they are about.
struct Awaited {
    theirs: Seq,
    count: u32,
    /// Not told of yet.
    open: u32,
    about: About,
}

enum About {
    /// Messages of the lane's own numbers from here on.
    Own(Seq),
    /// A copy of a message that goes elsewhere besides, and its number, if anybody wants to know.
    Copy(Arc<Joint>, Option<Seq>),
}

impl Here {
    pub(crate) fn new(ears: Arc<Ears>) -> Arc<Self> {
        Arc::new(Self { ears, awaited: Mutex::default() })
    }

    /// The engine's `count` numbers from `theirs` on are this lane's from `ours` on. Noted before they are published: a
    /// receipt may come before that returns.
    pub(crate) fn note(&self, theirs: Seq, count: u32, ours: Seq) {
        self.add(theirs, count, About::Own(ours));
    }

    /// The engine's number stands for a copy.
    pub(crate) fn note_copy(&self, theirs: Seq, joint: &Arc<Joint>, seq: Option<Seq>) {
        self.add(theirs, 1, About::Copy(Arc::clone(joint), seq));
    }

    fn add(&self, theirs: Seq, count: u32, about: About) {
        if count > 0 {
            self.awaited.lock().push_back(Awaited { theirs, count, open: count, about });
        }
    }

    /// Of what was noted from `theirs` on only `wanting` were taken, of which the first `done` are known already.
    pub(crate) fn known(&self, theirs: Seq, wanting: u32, done: u32) {
        let mut awaited = self.awaited.lock();
        if let Some(run) = awaited.iter_mut().rev().find(|run| run.theirs == theirs) {
            let surplus = run.count.saturating_sub(wanting);
            run.count = wanting;
            run.open = run.open.saturating_sub(surplus.saturating_add(done));
        }
        forget(&mut awaited);
    }
}

fn forget(awaited: &mut VecDeque<Awaited>) {
    while awaited.pop_front_if(|run| run.open == 0).is_some() {}
}

impl ReceiptSink for Here {
    fn receipts(&self, runs: &[Receipt]) {
        let mut told = Vec::with_capacity(runs.len());
        let mut awaited = self.awaited.lock();
        for receipt in runs {
            let (first, end) = (receipt.first, receipt.first.saturating_add(receipt.count.into()));
            let mut found = false;
            for run in &mut *awaited {
                let (from, to) =
                    (first.max(run.theirs), end.min(run.theirs.saturating_add(run.count.into())));
                if from >= to {
                    continue;
                }
                found = true;
                let count = u32::try_from(to - from).unwrap_or(u32::MAX);
                run.open = run.open.saturating_sub(count);
                match &run.about {
                    About::Own(ours) => {
                        let first = ours.saturating_add(from - run.theirs);
                        told.push(Receipt { first, count, outcome: receipt.outcome.clone() });
                    }
                    About::Copy(joint, seq) => {
                        let outcome = joint.through(receipt.outcome.clone());
                        let both = outcome.zip(*seq);
                        told.extend(both.map(|(outcome, first)| Receipt { first, count: 1, outcome }));
                    }
                }
            }
            // A word about a settlement: the number is its owner's.
            if !found {
                told.push(receipt.clone());
            }
        }
        forget(&mut awaited);
        drop(awaited);
        if !told.is_empty() && !self.ears.is_closed() {
            self.ears.receipts.receipts(&told);
        }
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::Outcome;
    use linkspan_contract::conformance::heard::Heard;

    use super::*;

    fn accepted(first: Seq, count: u32) -> Receipt {
        Receipt { first, count, outcome: Outcome::Accepted }
    }

    #[test]
    fn the_engines_receipts_are_told_under_the_lanes_numbers() {
        let heard = Arc::new(Heard::default());
        let here = Here::new(Ears::new(heard.clone(), heard.clone()));
        here.note(0, 3, 10);
        here.note(3, 4, 20);
        here.known(3, 2, 0);
        here.receipts(&[accepted(0, 4)]);
        here.receipts(&[accepted(4, 1), accepted(1000, 1)]);
        let told = [accepted(10, 3), accepted(20, 1), accepted(21, 1), accepted(1000, 1)];
        assert_eq!(*heard.receipts.lock(), told, "and words under their own");
        assert!(here.awaited.lock().is_empty(), "what is told is forgotten");
    }

    #[test]
    fn a_copy_here_is_waited_for_beside_the_brokers_word() {
        let heard = Arc::new(Heard::default());
        let here = Here::new(Ears::new(heard.clone(), heard.clone()));
        let joint = Joint::of(2);
        here.note_copy(0, &joint, Some(7));
        assert_eq!(joint.through(Outcome::Accepted), None, "the broker has it");
        here.receipts(&[accepted(0, 1)]);
        assert_eq!(*heard.receipts.lock(), [accepted(7, 1)]);
    }
}
