//! One back end behind a hub's lane, and the numbers of its receipts.

use std::collections::VecDeque;
use std::sync::Arc;

use linkspan_contract::receipt::WORDS;
use linkspan_contract::{Connection, Lane, LaneEvent, LaneEvents, Receipt, ReceiptSink, Seq};
use parking_lot::Mutex;

/// One back end's lane behind the hub's.
pub struct Part {
    /// The back end's name.
    pub backend: Arc<str>,
    /// The way through it.
    pub lane: Box<dyn Lane>,
    /// What stands in the keys of its subscriptions for it from now on: a place in the lane's `ways`.
    pub way: u16,
    /// The number that its next message with a receipt gets there.
    pub next: Seq,
    /// From its numbers to the hub's.
    pub numbers: Arc<Numbers>,
    /// Something was published on it that no spool can take.
    pub plain: bool,
    /// It is the way into the spools of that back end; their client's scope.
    pub spool: Option<Box<dyn Connection>>,
}

/// What a back end that is not the home says of a lane. That it takes nothing for now holds who publishes to it
/// ([`Lane::poll_ready`]); the client is not told, for it may be welcome everywhere else.
pub struct OfAnother(pub Arc<dyn LaneEvents>);

impl LaneEvents for OfAnother {
    fn event(&self, event: LaneEvent) {
        if !matches!(event, LaneEvent::Blocked(_) | LaneEvent::Unblocked) {
            self.0.event(event);
        }
    }
}

/// Translates a back end's receipt numbers into the hub lane's, and hands the receipts to the door. As long as a lane
/// uses one back end only the numbers are the same and nothing is noted.
pub struct Numbers {
    door: Arc<dyn ReceiptSink>,
    state: Mutex<State>,
}

struct State {
    /// Below this the numbers are the same.
    same_below: Seq,
    runs: VecDeque<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    theirs: Seq,
    ours: Seq,
    count: u32,
    /// Not yet told of.
    open: u32,
}

impl Numbers {
    /// Numbers that are the same until [`Numbers::part_ways`].
    pub fn same(door: Arc<dyn ReceiptSink>) -> Self {
        Self { door, state: Mutex::new(State { same_below: Seq::MAX, runs: VecDeque::new() }) }
    }

    /// From the back end's number `from` on they differ.
    pub fn part_ways(&self, from: Seq) {
        let mut state = self.state.lock();
        state.same_below = state.same_below.min(from);
    }

    /// The back end's `count` numbers from `theirs` on are the hub's from `ours` on. Noted before they are published:
    /// a receipt may come before that returns.
    pub fn note(&self, theirs: Seq, ours: Seq, count: u32) {
        if count > 0 {
            self.state.lock().runs.push_back(Run { theirs, ours, count, open: count });
        }
    }

    /// Whether something of what was noted below the back end's number `below` is not told of yet.
    pub fn is_open_below(&self, below: Seq) -> bool {
        self.state.lock().runs.iter().any(|run| run.open > 0 && run.theirs < below)
    }

    /// Of what was noted from `theirs` on only `wanting` were taken, of which the first `done` are known already.
    pub fn known(&self, theirs: Seq, wanting: u32, done: u32) {
        let mut state = self.state.lock();
        if let Some(run) = state.runs.iter_mut().rev().find(|run| run.theirs == theirs) {
            let surplus = run.count.saturating_sub(wanting);
            run.count = wanting;
            run.open = run.open.saturating_sub(surplus.saturating_add(done));
        }
        state.forget();
    }
}

impl State {
    fn forget(&mut self) {
        while self.runs.front().is_some_and(|run| run.open == 0) {
            self.runs.pop_front();
        }
    }

    fn translate(&mut self, receipt: &Receipt, out: &mut Vec<Receipt>) {
        if receipt.first >= WORDS {
            return out.push(receipt.clone());
        }
        let (mut first, end) = (receipt.first, receipt.first.saturating_add(receipt.count.into()));
        if first < self.same_below {
            let count = u32::try_from(end.min(self.same_below).saturating_sub(first)).unwrap_or(u32::MAX);
            out.push(Receipt { first, count, outcome: receipt.outcome.clone() });
            first = self.same_below.min(end);
        }
        for run in &mut self.runs {
            let run_end = run.theirs.saturating_add(run.count.into());
            let (from, to) = (first.max(run.theirs), end.min(run_end));
            if from < to {
                let count = u32::try_from(to - from).unwrap_or(u32::MAX);
                run.open = run.open.saturating_sub(count);
                let ours = run.ours.saturating_add(from - run.theirs);
                out.push(Receipt { first: ours, count, outcome: receipt.outcome.clone() });
            }
        }
    }
}

impl ReceiptSink for Numbers {
    fn receipts(&self, runs: &[Receipt]) {
        let mut state = self.state.lock();
        if state.same_below == Seq::MAX {
            drop(state);
            return self.door.receipts(runs);
        }
        let mut translated = Vec::with_capacity(runs.len());
        for receipt in runs {
            state.translate(receipt, &mut translated);
        }
        state.forget();
        drop(state);
        self.door.receipts(&translated);
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::Outcome;

    use super::*;

    #[derive(Default)]
    struct Ear(Mutex<Vec<(Seq, u32)>>);

    impl ReceiptSink for Ear {
        fn receipts(&self, runs: &[Receipt]) {
            self.0.lock().extend(runs.iter().map(|run| (run.first, run.count)));
        }
    }

    fn accepted(first: Seq, count: u32) -> Receipt {
        Receipt { first, count, outcome: Outcome::Accepted }
    }

    #[test]
    fn numbers_are_the_same_until_a_second_back_end_is_used() {
        let ear = Arc::new(Ear::default());
        let numbers = Numbers::same(Arc::clone(&ear) as Arc<dyn ReceiptSink>);
        numbers.receipts(&[accepted(0, 5)]);
        numbers.part_ways(10);
        numbers.note(10, 30, 4);
        numbers.note(14, 50, 4);
        numbers.receipts(&[accepted(8, 8)]);
        numbers.receipts(&[accepted(16, 2)]);
        assert_eq!(*ear.0.lock(), [(0, 5), (8, 2), (30, 4), (50, 2), (52, 2)]);
        assert!(numbers.state.lock().runs.is_empty(), "what is told is forgotten");
    }

    #[test]
    fn words_mean_the_same_on_both_sides() {
        let ear = Arc::new(Ear::default());
        let numbers = Numbers::same(Arc::clone(&ear) as Arc<dyn ReceiptSink>);
        numbers.part_ways(0);
        numbers.receipts(&[accepted(WORDS + 3, 2)]);
        assert_eq!(*ear.0.lock(), [(WORDS + 3, 2)]);
    }

    #[test]
    fn what_publish_answered_itself_is_not_waited_for() {
        let numbers = Numbers::same(Arc::new(Ear::default()));
        numbers.part_ways(0);
        numbers.note(0, 0, 3);
        numbers.known(0, 3, 3);
        assert!(numbers.state.lock().runs.is_empty());
    }
}
